//! Inventory of servers.

use super::gateways::Detours;
use super::users::KEEPER;
use crate::output::{Context as _, Failure, Outcome};
use serde::Deserialize;
use skytale_proto::Code;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Advice on one that cannot be used.
const HELP: &str = "Correct the inventory; ops/nats/inventory.toml is one, explained line by line.";

/// Servers of one region, at least: one alone has no other to make a cluster with.
const SERVERS_MIN: usize = 2;
/// Servers of one region, at most.
const SERVERS_MAX: usize = 64;

/// The NATS servers of a fleet.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inventory {
    /// Folder in which each server finds `ca.pem`, `server.pem` and `server.key`.
    pub tls_dir: Option<PathBuf>,
    /// Folder in which each server keeps its streams.
    pub store_dir: PathBuf,
    /// Maximum size of the streams in it, as NATS writes it.
    pub max_file: String,
    /// The regions.
    #[serde(rename = "region")]
    pub regions: Vec<Region>,
    /// Ways from one region to another that are not the straight ones; on this machine alone.
    #[serde(skip)]
    pub detours: Detours,
}

/// A region: one cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Region {
    pub name: String,
    /// The first byte of the ids of its channels.
    pub number: u8,
    /// Streams of its logs.
    pub shards: u16,
    /// Names of its relay nodes: each has keys of its own.
    #[serde(default)]
    pub nodes: Vec<String>,
    pub servers: Vec<Server>,
}

/// One nats-server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    pub name: String,
    /// Address for the others and for relay nodes.
    pub host: String,
    /// Its ports there.
    #[serde(default)]
    pub ports: Ports,
    /// Folder of its streams, if it is another one than that of all.
    pub store_dir: Option<PathBuf>,
}

/// Ports of a server.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Ports {
    pub client: u16,
    pub cluster: u16,
    pub gateway: u16,
    /// Port for monitoring, on loopback alone.
    pub monitor: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            client: 4_222,
            cluster: 6_222,
            gateway: 7_222,
            monitor: 8_222,
        }
    }
}

impl Server {
    pub(crate) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl Inventory {
    /// Reads one from a file.
    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let text =
            std::fs::read_to_string(path).failing(Code::Environment, || format!("cannot read {}", path.display()))?;
        let inventory: Self = toml::from_str(&text).map_err(|error| {
            Failure::new(Code::Config, format!("{} is no inventory", path.display()))
                .because(&error)
                .help(HELP)
        })?;
        match inventory.problem() {
            Some(problem) => Err(
                Failure::new(Code::Config, format!("{} cannot be a fleet", path.display()))
                    .since(problem)
                    .help(HELP),
            ),
            None => Ok(inventory),
        }
    }

    /// Returns the problem with it, if there is one.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.regions.is_empty() {
            return Some("it names no region".into());
        }
        let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
        for region in &self.regions {
            let label = &region.name;
            let servers = region.servers.len();
            if !is_name(label) || !names.insert(label.clone()) {
                return Some(format!(
                    "`{label}` must be a name of letters, digits and `-` that occurs once"
                ));
            }
            if !numbers.insert(region.number) {
                return Some(format!("two regions have the number {}", region.number));
            }
            if region.shards == 0 || region.shards > 1_024 {
                return Some(format!("{label}: shards must be between 1 and 1024"));
            }
            if !(SERVERS_MIN..=SERVERS_MAX).contains(&servers) {
                return Some(format!(
                    "{label}: a region has between {SERVERS_MIN} and {SERVERS_MAX} servers, and bears the loss of one with three. A \
                     server alone is no cluster, and does not start as one"
                ));
            }
            for node in &region.nodes {
                if node == KEEPER {
                    return Some(format!(
                        "no relay node can be called `{KEEPER}`: the keeper has keys of its own"
                    ));
                }
                if !is_name(node) || !names.insert(node.clone()) {
                    return Some(format!(
                        "`{node}` must be a name of letters, digits and `-` that occurs once"
                    ));
                }
            }
            for server in &region.servers {
                if !is_name(&server.name) || !names.insert(server.name.clone()) {
                    return Some(format!(
                        "`{}` must be a name of letters, digits and `-` that occurs once",
                        server.name
                    ));
                }
                if server.host.is_empty() || !server.host.chars().all(is_of_host) {
                    return Some(format!("{}: `{}` is no host", server.name, server.host));
                }
            }
        }
        if self.nodes().next().is_none() {
            return Some(
                "it names no relay node, and each has keys of its own: list them in their region, as in \
                 `nodes = [\"relay-eu-1\"]`"
                    .into(),
            );
        }
        let remote = self.servers().find(|server| !server.is_loopback());
        if let (None, Some(remote)) = (&self.tls_dir, remote) {
            return Some(format!(
                "{} is not on loopback, and there is no tls_dir: relay nodes would talk to it in the clear",
                remote.name
            ));
        }
        let written = [Some(&self.store_dir), self.tls_dir.as_ref()].into_iter().flatten();
        let paths = written.chain(self.servers().filter_map(|server| server.store_dir.as_ref()));
        let odd = paths
            .into_iter()
            .find(|path| path.to_str().is_none_or(|path| path.contains(['"', '\\', '\n'])));
        if let Some(odd) = odd {
            return Some(format!(
                "{} cannot be written into a server's configuration",
                odd.display()
            ));
        }
        let size = self.max_file.chars().all(|letter| letter.is_ascii_alphanumeric());
        (!size || self.max_file.is_empty()).then(|| format!("`{}` is no size, such as 500GB", self.max_file))
    }

    /// Returns the settings that work, and are worth less than their operator may think.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let few = self.regions.iter().filter_map(|region| {
            let (name, servers) = (&region.name, region.servers.len());
            match servers {
                2 => Some(format!(
                    "region {name} has two NATS servers: with one of them away there is no majority, and no append is taken; and the \
                     three copies of each stream that relay nodes make (`relay.fleet.replicas`) find no place. Take three."
                )),
                even if even % 2 == 0 => Some(format!(
                    "region {name} has {even} NATS servers: their majority is {}, so they bear no more of them away than {} do.",
                    even / 2 + 1,
                    even - 1
                )),
                _ => None,
            }
        });
        few.collect()
    }

    /// Names of all relay nodes.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &str> {
        self.regions.iter().flat_map(|region| &region.nodes).map(String::as_str)
    }

    pub(crate) fn servers(&self) -> impl Iterator<Item = &Server> {
        self.regions.iter().flat_map(|region| &region.servers)
    }
}

fn is_name(text: &str) -> bool {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    (1..=32).contains(&text.len()) && text.chars().all(fits)
}

fn is_of_host(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | ':' | '[' | ']')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(servers: usize) -> Inventory {
        let servers: Vec<String> = (0..servers)
            .map(|number| format!("{{ name = \"s{number}\", host = \"127.0.0.1\" }}"))
            .collect();
        let text = format!(
            "store_dir = \"/data\"\nmax_file = \"1GB\"\n[[region]]\nname = \"eu\"\nnumber = 0\nshards = 1\nnodes = [\"n\"]\n\
             servers = [{}]\n",
            servers.join(", ")
        );
        toml::from_str(&text).expect("an inventory")
    }

    #[test]
    fn a_region_without_a_majority_to_spare_is_remarked() {
        let remark = |servers| with(servers).remarks().join("\n");
        assert_eq!([remark(3), remark(5)], ["", ""]);
        assert!(with(1).problem().is_some_and(|problem| problem.contains("with three")));
        assert!(remark(2).contains("two NATS servers") && remark(2).contains("no majority"));
        assert!(remark(4).contains("majority is 3"));
    }
}
