//! Configuration of a fleet's relay node: the section `[relay.fleet]`.

use super::{Loaded, Problems, Secret, texts};
use crate::output::{Failure, Outcome};
use serde::{Deserialize, Serialize};
use skytale_log_store::fleet::{
    self, FleetConfig, KeyFile, KnownNodes, NatsAuth, NatsConfig, NatsTls, RegionConfig, Signer, SyncProof,
};
use skytale_log_store::local::LocalConfig;
use skytale_proto::{Code, Region};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Source of the keys.
const KEYS: &str = "`skytale fleet nats` makes a node's keys: name its relay.nk, relay-sync.nk and checkpoint.nk, as in `file:/etc/skytale/relay.nk`.";
/// Source of the file of known nodes.
const NODES: &str =
    "`skytale fleet nats` writes it beside the servers' folders: name that `fleet-nodes`, the same on all nodes.";

/// The section `[relay.fleet]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Fleet {
    /// Addresses of NATS servers. With none, the node keeps its log alone.
    #[serde(with = "texts")]
    pub nats: Vec<String>,
    /// The seed of the NKey that the node shows to them.
    pub nats_key: Option<Secret>,
    /// The seed of the NKey with which it asks them whether they sync before they acknowledge.
    pub sync_key: Option<Secret>,
    /// The seed of the key that the node signs checkpoints with.
    pub checkpoint_key: Option<Secret>,
    /// The file that names the fleet's nodes and their signing keys.
    pub nodes_file: Option<PathBuf>,
    /// Number of known nodes that must vouch for a checkpoint before it is used.
    pub witnesses: usize,
    /// The seed of the keeper's NKey: for `skytale fleet keeper` alone.
    pub keeper_key: Option<Secret>,
    /// They do, says the operator: nobody asks.
    pub sync_is_always: bool,
    /// Root certificates to trust besides the system's.
    pub tls_roots: Option<PathBuf>,
    /// The regions, each with its number, its shards, and its cluster where there are several.
    #[serde(with = "texts")]
    pub regions: Vec<String>,
    /// Copies of each stream.
    pub replicas: usize,
    /// Serve although an acknowledgement means less than a synced quorum; each says so.
    pub allow_weaker: bool,
    /// Messages of a shard from one checkpoint to the next.
    pub checkpoint_every: u64,
    /// Interval at which a node looks for entries that are older than the retention, in seconds.
    pub retention_check_s: u64,
    /// Maximum time for an append before its author learns that the home region cannot be reached.
    pub append_timeout_ms: u64,
}

impl Default for Fleet {
    fn default() -> Self {
        let nats = NatsConfig {
            servers: Vec::new(),
            auth: NatsAuth::None,
            tls: NatsTls::default(),
            name: String::new(),
            inbox_prefix: None,
        };
        let fleet = FleetConfig::new(nats, SyncProof::Stated { always: false }, LocalConfig::new(""));
        Self {
            nats: Vec::new(),
            nats_key: None,
            sync_key: None,
            checkpoint_key: None,
            nodes_file: None,
            witnesses: fleet.witnesses,
            keeper_key: None,
            sync_is_always: false,
            tls_roots: None,
            regions: vec!["0=8".into()],
            replicas: fleet.replicas,
            allow_weaker: fleet.allow_weaker,
            checkpoint_every: fleet.checkpoint_every,
            retention_check_s: fleet.retention_every.as_secs(),
            append_timeout_ms: u64::try_from(fleet.append_timeout.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// A region as it is written: `1=8` or `1=8@eu`.
struct Written(RegionConfig);

impl FromStr for Written {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (numbers, cluster) = match text.split_once('@') {
            Some((numbers, cluster)) if !cluster.is_empty() => (numbers, Some(cluster.to_owned())),
            Some(_) => return Err(()),
            None => (text, None),
        };
        let (region, shards) = numbers.split_once('=').ok_or(())?;
        Ok(Self(RegionConfig {
            region: Region(region.trim().parse().map_err(|_| ())?),
            shards: shards.trim().parse().map_err(|_| ())?,
            cluster,
            tags: Vec::new(),
        }))
    }
}

impl Loaded {
    /// The fleet that the node is of, over a replica of its own, as far as it can be used; `None` where it keeps its log alone.
    pub(super) fn fleet(
        &self,
        replica: LocalConfig,
        retention: Option<Duration>,
        problems: &mut Problems,
    ) -> Option<FleetConfig> {
        let fleet = &self.config.relay.fleet;
        if fleet.nats.is_empty() {
            return None;
        }
        let remote = fleet.nats.iter().any(|server| !is_loopback(server));
        let key = match &fleet.nats_key {
            Some(seed) => problems.take("relay.fleet.nats_key", self.nkey(seed, "relay.fleet.nats_key")),
            None if remote => {
                let why = "servers must know who writes the log";
                let missing = self.missing("relay.fleet.nats_key", why);
                problems.add("relay.fleet.nats_key", missing.help(KEYS));
                None
            }
            None => None,
        };
        let sync = match (&fleet.sync_key, fleet.sync_is_always) {
            (Some(seed), _) => {
                let key = problems.take("relay.fleet.sync_key", self.nkey(seed, "relay.fleet.sync_key"));
                SyncProof::System(key.unwrap_or(NatsAuth::None))
            }
            (None, always) => {
                if !always && !fleet.allow_weaker {
                    let missing = self.missing(
                        "relay.fleet.sync_key",
                        "without it nobody knows whether the servers sync before they acknowledge",
                    );
                    let help = format!("{KEYS} `relay.fleet.sync_is_always` says so without asking.");
                    problems.add("relay.fleet.sync_key", missing.help(help));
                }
                SyncProof::Stated { always }
            }
        };
        let mut regions: Vec<RegionConfig> = Vec::new();
        for text in &fleet.regions {
            match text.parse::<Written>() {
                Ok(Written(region)) => regions.push(region),
                Err(()) => {
                    let problem = format!("has `{text}`, which is not as in `1=8` or `1=8@eu`");
                    let failure = self.refused("relay.fleet.regions", &problem);
                    problems.extend([("relay.fleet.regions".to_owned(), failure)]);
                }
            }
        }
        let here = Region(self.config.relay.region);
        if !regions.iter().any(|region| region.region == here) && !problems.has("relay.fleet.regions") {
            let numbers: Vec<String> = regions.iter().map(|region| region.region.0.to_string()).collect();
            let problem = format!("is {}, and `relay.fleet.regions` has {}", here.0, numbers.join(", "));
            problems.add("relay.region", self.refused("relay.region", &problem));
        }
        if fleet.keeper_key.is_some() {
            let problem = "is set: a node that serves must not have the keeper's key, which purges streams";
            let failure = self.refused("relay.fleet.keeper_key", problem);
            problems.add(
                "relay.fleet.keeper_key",
                failure.help("Give it to `skytale fleet keeper` alone, in a file of its own."),
            );
        }
        let signer = match &fleet.checkpoint_key {
            Some(seed) => problems.take("relay.fleet.checkpoint_key", self.signer(seed)),
            None if remote => {
                let missing = self.missing(
                    "relay.fleet.checkpoint_key",
                    "without it the node vouches for no checkpoint",
                );
                problems.add("relay.fleet.checkpoint_key", missing.help(KEYS));
                None
            }
            None => None,
        };
        let known_nodes = self.known_nodes(remote, problems);
        if let Some(roots) = &fleet.tls_roots {
            let key = "relay.fleet.tls_roots";
            problems.take(key, self.certificates(key, roots));
        }
        let nats = NatsConfig {
            servers: fleet.nats.clone(),
            auth: key.unwrap_or(NatsAuth::None),
            tls: NatsTls {
                required: remote,
                roots: fleet.tls_roots.clone(),
                certificate: None,
            },
            name: "skytale relay".into(),
            inbox_prefix: None,
        };
        let config = FleetConfig {
            // The streams of other regions are followed by mirrors in this one.
            here: (regions.len() > 1).then_some(here),
            regions,
            replicas: fleet.replicas,
            allow_weaker: fleet.allow_weaker,
            checkpoint_every: fleet.checkpoint_every,
            signer,
            known_nodes,
            witnesses: fleet.witnesses,
            retention_every: Duration::from_secs(fleet.retention_check_s),
            append_timeout: Duration::from_millis(fleet.append_timeout_ms),
            retention,
            ..FleetConfig::new(nats, sync, replica)
        };
        let found = config.problems().into_iter().map(|(name, problem)| {
            let name = match name {
                "append_timeout" => "append_timeout_ms",
                "retention_every" => "retention_check_s",
                name => name,
            };
            let key = format!("relay.fleet.{name}");
            let failure = self.refused(&key, &problem);
            (key, failure)
        });
        // The node's region was checked.
        let known = problems.has("relay.region");
        problems.extend(found.filter(|(key, _)| !(known && key == "relay.fleet.regions")));
        Some(config)
    }

    /// The fleet over a replica of its own, which gives nothing up by itself; `None` where there is none.
    pub(crate) fn fleet_over(&self, replica: LocalConfig) -> Outcome<Option<FleetConfig>> {
        let mut problems = self.problems.clone();
        let fleet = self.fleet(replica, None, &mut problems);
        problems.outcome(" of the fleet").map(|()| fleet)
    }

    /// The fleet as it is examined from outside: no node's data is touched.
    pub(crate) fn examined_fleet(&self) -> Outcome<FleetConfig> {
        let mut problems = self.problems.clone();
        let fleet = self.fleet(LocalConfig::new(""), self.retention(), &mut problems);
        problems.outcome(" of the fleet")?;
        fleet.ok_or_else(|| {
            self.missing(
                "relay.fleet.nats",
                "a node without it keeps its log alone, and has no servers to check",
            )
            .help("Name a relay node's configuration file with --config.")
        })
    }

    /// The fleet as its keeper sees it: with the keeper's key, and without any of a node's.
    pub(crate) fn kept_fleet(&self) -> Outcome<FleetConfig> {
        let mut problems = self.problems.clone();
        let fleet = &self.config.relay.fleet;
        for (key, is_set) in [
            ("relay.fleet.nats_key", fleet.nats_key.is_some()),
            ("relay.fleet.sync_key", fleet.sync_key.is_some()),
            ("relay.fleet.checkpoint_key", fleet.checkpoint_key.is_some()),
        ] {
            if is_set {
                let failure = self.refused(key, "is set: the keeper must not have a relay node's keys");
                problems.add(
                    key,
                    failure.help("Give the keeper a configuration file of its own, with `relay.fleet.keeper_key`."),
                );
            }
        }
        let remote = fleet.nats.iter().any(|server| !is_loopback(server));
        let key = match &fleet.keeper_key {
            Some(seed) => problems.take("relay.fleet.keeper_key", self.nkey(seed, "relay.fleet.keeper_key")),
            None => {
                let missing = self.missing("relay.fleet.keeper_key", "servers must know who purges");
                problems.add(
                    "relay.fleet.keeper_key",
                    missing.help(
                        "`skytale fleet nats` makes it: name its keeper.nk, as in `file:/etc/skytale/keeper.nk`.",
                    ),
                );
                None
            }
        };
        let mut regions: Vec<RegionConfig> = Vec::new();
        for text in &fleet.regions {
            match text.parse::<Written>() {
                Ok(Written(region)) => regions.push(region),
                Err(()) => {
                    let problem = format!("has `{text}`, which is not as in `1=8` or `1=8@eu`");
                    let failure = self.refused("relay.fleet.regions", &problem);
                    problems.extend([("relay.fleet.regions".to_owned(), failure)]);
                }
            }
        }
        let known_nodes = self.known_nodes(true, &mut problems);
        if let Some(roots) = &fleet.tls_roots {
            let key = "relay.fleet.tls_roots";
            problems.take(key, self.certificates(key, roots));
        }
        let nats = NatsConfig {
            servers: fleet.nats.clone(),
            auth: key.unwrap_or(NatsAuth::None),
            tls: NatsTls {
                required: remote,
                roots: fleet.tls_roots.clone(),
                certificate: None,
            },
            name: "skytale keeper".into(),
            inbox_prefix: None,
        };
        let config = FleetConfig {
            regions,
            replicas: fleet.replicas,
            checkpoint_every: fleet.checkpoint_every,
            known_nodes,
            witnesses: fleet.witnesses,
            retention_every: Duration::from_secs(fleet.retention_check_s),
            retention: self.retention(),
            ..FleetConfig::new(nats, SyncProof::Stated { always: true }, LocalConfig::new(""))
        };
        let found = config.problems().into_iter().map(|(name, problem)| {
            let name = if name == "retention_every" {
                "retention_check_s"
            } else {
                name
            };
            let key = format!("relay.fleet.{name}");
            let failure = self.refused(&key, &problem);
            (key, failure)
        });
        problems.extend(found);
        if config.retention.is_none() {
            let failure = self.refused(
                "relay.retention_s",
                "is 0: nothing is ever given up, and there is nothing to purge",
            );
            problems.add("relay.retention_s", failure);
        }
        problems.outcome(" of `skytale fleet keeper`").map(|()| config)
    }

    fn retention(&self) -> Option<Duration> {
        let seconds = self.config.relay.retention_s;
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    /// Returns the nodes whose checkpoints count.
    fn known_nodes(&self, needed: bool, problems: &mut Problems) -> KnownNodes {
        let key = "relay.fleet.nodes_file";
        let Some(file) = &self.config.relay.fleet.nodes_file else {
            if needed {
                let missing = self.missing(key, "without it nobody's word for a checkpoint counts");
                problems.add(key, missing.help(NODES));
            }
            return KnownNodes::Nobody;
        };
        let known = KnownNodes::File(file.clone());
        let witnesses = self.config.relay.fleet.witnesses;
        if let Some(problem) = known.problem() {
            let what = format!("`{key}` ({}) cannot be used", self.source(key));
            problems.add(key, Failure::new(Code::Config, what).since(problem).help(NODES));
        } else if known.count() < witnesses {
            let problem = format!("asks for {witnesses} nodes, and `{key}` names {}", known.count());
            let failure = self.refused("relay.fleet.witnesses", &problem);
            problems.add(
                "relay.fleet.witnesses",
                failure.help("A fleet of one node sets it to 1."),
            );
        }
        known
    }

    /// The key that a node signs checkpoints with.
    fn signer(&self, seed: &Secret) -> Outcome<Signer> {
        let key = "relay.fleet.checkpoint_key";
        let revealed = seed.reveal(key)?;
        Signer::new(&revealed).ok_or_else(|| self.refused(key, "is no seed of an NKey").help(KEYS))
    }

    fn missing(&self, key: &str, why: &str) -> Failure {
        Failure::new(Code::Config, format!("configuration key `{key}` is missing: {why}"))
    }

    /// A key: one in a file is read again when that changes.
    fn nkey(&self, seed: &Secret, key: &str) -> Outcome<NatsAuth> {
        let revealed = seed.reveal(key)?;
        if nkeys::KeyPair::from_seed(revealed.trim()).is_err() {
            return Err(self.refused(key, "is no seed of an NKey").help(KEYS));
        }
        Ok(match seed.file() {
            Some(file) => NatsAuth::NKeyFile(KeyFile::new(file)),
            None => NatsAuth::NKey(fleet::Secret::new(revealed.trim())),
        })
    }
}

/// Whether a server's address is on this machine.
fn is_loopback(server: &str) -> bool {
    let host = server.split_once("://").map_or(server, |(_, rest)| rest);
    let host = host
        .rsplit_once(':')
        .map_or(host, |(host, _)| host)
        .trim_matches(['[', ']']);
    host == "localhost"
        || host
            .parse()
            .is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_read_as_they_are_written() {
        let read = |text: &str| {
            text.parse::<Written>()
                .ok()
                .map(|Written(region)| (region.region.0, region.shards, region.cluster))
        };
        assert_eq!(read("1=8"), Some((1, 8, None)));
        assert_eq!(read("255=64@ap-south"), Some((255, 64, Some("ap-south".into()))));
        for odd in ["", "1", "=8", "256=1", "1=x", "1=8@"] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }

    #[test]
    fn an_address_of_another_machine_is_told_apart() {
        for near in ["nats://127.0.0.1:4222", "localhost:4222", "tls://[::1]:4222"] {
            assert!(is_loopback(near), "{near}");
        }
        for far in ["nats://10.0.0.1:4222", "nats-1.eu.example.net", "tls://[fd00::1]:4222"] {
            assert!(!is_loopback(far), "{far}");
        }
    }
}
