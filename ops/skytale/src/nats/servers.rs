//! The NATS servers of a fleet on this machine.

use super::gateways::{Detours, Gateways};
use super::inventory::{Inventory, Ports, Region, Server};
use super::process::{NatsServer, STORE};
use super::{Users, render, retire, rotate};
use crate::local::private_folder;
use crate::output::{Failure, Outcome};
use rustix::process::Signal;
use serde_json::Value;
use skytale_proto::Code;
use skytale_wire::Cut;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Servers of a region.
const SERVERS: usize = 3;
/// Shards of a region: as many as one machine's disk has use for.
const SHARDS: u16 = 4;
/// The same where there are several regions: each shard has a mirror in each of the others.
const SHARDS_OF_SEVERAL: u16 = 2;
/// Maximum time until they have found each other, or are current again.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The page that tells of a server's streams.
const STREAMS: &str = "/jsz?acc=SKYTALE&streams=true";
/// The page that tells of a server's clients.
const CONNECTIONS: &str = "/connz?auth=true";
/// Refusals in the servers' logs that are shown, at most.
const DENIED_MAX: usize = 20;

/// The servers of a fleet on this machine.
#[derive(Debug)]
pub(crate) struct NatsServers {
    program: PathBuf,
    pub users: Users,
    pub regions: Vec<Region>,
    /// Folder of the keys.
    dir: PathBuf,
    /// Inventory from which their configuration is made.
    inventory: Inventory,
    servers: Vec<NatsServer>,
    gateways: Gateways,
}

/// Ports that no system gives to a request for any port: so nothing takes them between here and a server's start.
const PORTS: std::ops::Range<u16> = 10_000..32_000;
/// Distance between the ports at which two processes begin to look.
const PORTS_APART: u32 = 97;

/// One that the system gives to nobody by itself, and that is free now.
pub(crate) fn free_port() -> Outcome<u16> {
    free_ports(1).map(|ports| ports.first().copied().unwrap_or_default())
}

/// Free ports: held together while they are chosen, so that no two are the same.
fn free_ports(count: usize) -> Outcome<Vec<u16>> {
    let first = std::process::id().wrapping_mul(PORTS_APART) % u32::from(PORTS.end - PORTS.start);
    let looked_at = PORTS.chain(PORTS).skip(first as usize).take(PORTS.len());
    let free = looked_at.filter_map(|port| Some((port, TcpListener::bind(("127.0.0.1", port)).ok()?)));
    let (ports, held): (Vec<u16>, Vec<TcpListener>) = free.take(count).unzip();
    drop(held);
    if ports.len() < count {
        let what = format!(
            "of ports {} to {}, {count} must be free on 127.0.0.1",
            PORTS.start, PORTS.end
        );
        return Err(Failure::new(Code::Environment, what));
    }
    Ok(ports)
}

fn inventory(dir: &Path, names: &[&str], nodes: &[String]) -> Outcome<Inventory> {
    let mut ports = free_ports(names.len() * SERVERS * 4)?.into_iter();
    let mut port = || ports.next().unwrap_or_default();
    let mut regions = Vec::new();
    // A single region is the one that agents are in who name none.
    let first = u8::from(names.len() > 1);
    for (place, (number, name)) in (first..).zip(names).enumerate() {
        let servers = (1..=SERVERS).map(|number| Server {
            name: format!("{name}-{number}"),
            host: "127.0.0.1".into(),
            ports: Ports {
                client: port(),
                cluster: port(),
                gateway: port(),
                monitor: port(),
            },
            store_dir: Some(dir.join(format!("{name}-{number}")).join(STORE)),
        });
        regions.push(Region {
            name: (*name).to_owned(),
            number,
            shards: if names.len() > 1 { SHARDS_OF_SEVERAL } else { SHARDS },
            nodes: nodes.iter().skip(place).step_by(names.len()).cloned().collect(),
            servers: servers.collect(),
        });
    }
    Ok(Inventory {
        tls_dir: None,
        store_dir: dir.join("data"),
        max_file: "64GB".into(),
        regions,
        detours: Detours::new(),
    })
}

impl NatsServers {
    /// Starts three servers for each region, with their data in `dir`, and waits until they have found each other. Relay nodes of
    /// these names may connect; they are spread over the regions in turn. With `links` between the regions, these can be cut off
    /// from one another.
    pub(crate) async fn start(
        dir: &Path,
        program: PathBuf,
        regions: &[&str],
        nodes: &[String],
        links: bool,
    ) -> Outcome<Self> {
        private_folder(dir)?;
        let mut inventory = inventory(dir, regions, nodes)?;
        if let Some(problem) = inventory.problem() {
            return Err(Failure::new(Code::Environment, "cannot lay out the NATS servers").since(problem));
        }
        let gateways = if links {
            let (gateways, detours) = Gateways::between(&inventory.regions)?;
            inventory.detours = detours;
            gateways
        } else {
            Gateways::default()
        };
        let users = Users::in_folder(dir, nodes.iter().map(String::as_str))?;
        let mut servers = Vec::new();
        let places = inventory.regions.iter().enumerate();
        let places =
            places.flat_map(|(region, of)| of.servers.iter().map(move |server| (region, server.ports.monitor)));
        for (rendered, (region, monitor)) in render(&inventory, &users).iter().zip(places) {
            servers.push(NatsServer::lay_out(dir, rendered, region, monitor)?);
        }
        let mut all = Self {
            program,
            users,
            regions: inventory.regions.clone(),
            dir: dir.to_owned(),
            inventory,
            servers,
            gateways,
        };
        for server in 0..all.servers.len() {
            all.run(server).await?;
        }
        all.ready().await?;
        Ok(all)
    }

    pub(crate) fn servers(&self) -> &[NatsServer] {
        &self.servers
    }

    /// Places of the servers of a region.
    pub(crate) fn of_region(&self, region: usize) -> Vec<usize> {
        let servers = self.servers.iter().enumerate();
        servers
            .filter(|(_, server)| server.region == region)
            .map(|(place, _)| place)
            .collect()
    }

    /// Returns the addresses of a region's servers for clients.
    pub(crate) fn addresses(&self, region: usize) -> Vec<SocketAddr> {
        let servers = self.regions[region].servers.iter();
        servers
            .map(|server| SocketAddr::from(([127, 0, 0, 1], server.ports.client)))
            .collect()
    }

    /// Starts a server, again where it ran before: with its data.
    pub(crate) async fn run(&mut self, server: usize) -> Outcome {
        self.servers[server].run(&self.program).await
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self, server: usize) -> Outcome {
        self.servers[server].kill().await
    }

    /// Keeps a copy of a stopped server's store, in the place of the one before.
    pub(crate) fn keep_copy(&self, server: usize) -> Outcome {
        self.servers[server].keep_copy()
    }

    /// Puts it in the place of a stopped server's store.
    pub(crate) fn put_copy_back(&self, server: usize) -> Outcome {
        self.servers[server].put_copy_back()
    }

    /// Moves a stopped server's store to a disk that has so much room for more.
    pub(crate) fn move_to_small_disk(&mut self, server: usize, room: u64) -> Outcome {
        self.servers[server].move_to_small_disk(room)
    }

    /// And back.
    pub(crate) fn move_from_small_disk(&mut self, server: usize) -> Outcome {
        self.servers[server].move_from_small_disk()
    }

    /// Leaves no room on it.
    pub(crate) fn fill_disk(&self, server: usize) -> Outcome {
        self.servers[server].small_disk()?.fill()
    }

    /// Makes room again.
    pub(crate) fn clear_disk(&self, server: usize) -> Outcome {
        self.servers[server].small_disk()?.clear()
    }

    /// Waits until a server says that it keeps no streams any more.
    pub(crate) async fn keeps_nothing(&self, server: usize) -> Outcome {
        let (server, begun) = (&self.servers[server], Instant::now());
        while !server.page("/jsz").await.is_some_and(|page| page["disabled"] == true) {
            if begun.elapsed() > READY_WITHIN {
                return Err(server.failed(format!("JetStream of {} goes on", server.name)));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Makes new keys for a relay node; all servers take both.
    pub(crate) async fn rotate_keys(&mut self, node: &str) -> Outcome {
        rotate(&self.dir, node)?;
        self.write_accounts().await
    }

    /// Ends its old ones when it has connected with the new ones: a reload refuses whoever is just connecting.
    pub(crate) async fn retire_keys(&mut self, node: &str) -> Outcome {
        let begun = Instant::now();
        while !self.uses_new_keys(node).await {
            if begun.elapsed() > READY_WITHIN {
                let what = format!("{node} does not connect with its new NATS keys");
                return Err(Failure::new(Code::Mismatch, what));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        retire(&self.dir, node)?;
        self.write_accounts().await
    }

    /// Whether a node is connected with both of its new keys, and with none of its old ones.
    async fn uses_new_keys(&self, node: &str) -> bool {
        let Some(keys) = self.users.nodes.iter().find(|keys| keys.name == node) else {
            return false;
        };
        let mut connected = BTreeSet::new();
        for server in self.servers.iter().filter(|server| server.is_running()) {
            // One that does not answer may have connections of the old ones.
            let Some(page) = server.page(CONNECTIONS).await else {
                return false;
            };
            let connections = page["connections"].as_array().into_iter().flatten();
            connected.extend(connections.filter_map(|one| one["authorized_user"].as_str().map(str::to_owned)));
        }
        let keys = [&keys.relay, &keys.sync];
        keys.iter().all(|key| {
            let is_old = key.old.as_ref().is_some_and(|old| connected.contains(&old.public));
            connected.contains(&key.now.public) && !is_old
        })
    }

    async fn write_accounts(&mut self) -> Outcome {
        self.users = Users::in_folder(&self.dir, self.inventory.nodes())?;
        for (rendered, server) in render(&self.inventory, &self.users).iter().zip(&self.servers) {
            server.take_accounts(&rendered.accounts).await?;
        }
        Ok(())
    }

    /// Messages that were given up at the beginning of all regions' streams.
    pub(crate) async fn given_up(&self) -> Outcome<u64> {
        let mut firsts = BTreeMap::new();
        for server in &self.servers {
            let page = server.page(STREAMS).await.unwrap_or_default();
            for (stream, first) in firsts_in(&page) {
                let known = firsts.entry(stream).or_insert(first);
                *known = first.max(*known);
            }
        }
        let streams: usize = self.regions.iter().map(|region| usize::from(region.shards)).sum();
        if firsts.len() != streams {
            let what = format!("of {streams} streams, servers tell of {}", firsts.len());
            return Err(Failure::new(Code::Environment, what));
        }
        Ok(firsts.values().map(|first| first.saturating_sub(1)).sum())
    }

    /// Lame duck mode, as for a new version.
    pub(crate) async fn leave(&mut self, server: usize) -> Outcome {
        self.servers[server].leave().await
    }

    /// SIGSTOP: it is there and says nothing.
    pub(crate) fn freeze(&self, server: usize) -> Outcome {
        self.servers[server].signal(Signal::STOP)
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self, server: usize) -> Outcome {
        self.servers[server].signal(Signal::CONT)
    }

    /// Cuts the gateways between a region and all others.
    pub(crate) fn cut_off(&self, region: usize, how: Cut) {
        self.gateways.cut(region, how);
    }

    /// And mends them.
    pub(crate) fn join_again(&self, region: usize) {
        self.gateways.mend(region);
    }

    /// Waits until every server that runs says that it is well, and every stream's leader that all its copies are current:
    /// a server that is stopped before that hands its streams over to nobody, and they wait for an election.
    pub(crate) async fn ready(&self) -> Outcome {
        let begun = Instant::now();
        for server in self.servers.iter().filter(|server| server.is_running()) {
            loop {
                let problem = match server.is_well().await {
                    true => server
                        .page(STREAMS)
                        .await
                        .and_then(|page| behind_in(&page, &server.name)),
                    false if server.is_gone() => {
                        return Err(server.failed(format!("the NATS server {} ended by itself", server.name)));
                    }
                    false => Some("it does not get well".into()),
                };
                let Some(problem) = problem else { break };
                if begun.elapsed() > READY_WITHIN {
                    return Err(server.failed(format!("the NATS server {}: {problem}", server.name)));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// The server that leads a stream, as a server of its region says. Waits while an election goes on.
    pub(crate) async fn leader(&self, region: usize, stream: &str) -> Outcome<usize> {
        let begun = Instant::now();
        loop {
            for server in self.of_region(region) {
                let page = self.servers[server].page(STREAMS).await;
                let leader = page.as_ref().and_then(|page| leader_in(page, stream));
                let place = leader.and_then(|name| self.servers.iter().position(|server| server.name == name));
                if let Some(place) = place {
                    return Ok(place);
                }
            }
            if begun.elapsed() > READY_WITHIN {
                return Err(Failure::new(Code::Environment, format!("no server leads {stream}")));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Returns the refusals of the servers to relay nodes for want of a right: none, if the rights are those that nodes
    /// need.
    pub(crate) fn denied(&self) -> Vec<String> {
        let mut denied = Vec::new();
        for server in &self.servers {
            let text = std::fs::read(server.log()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines = text.lines().filter(|line| is_denial(line));
            denied.extend(lines.map(|line| format!("{}: {line}", server.name)).take(DENIED_MAX));
        }
        denied.truncate(DENIED_MAX);
        denied
    }

    /// Ends all of them.
    pub(crate) async fn stop(mut self) -> Outcome {
        for server in 0..self.servers.len() {
            self.kill(server).await?;
        }
        Ok(())
    }
}

/// The streams in a server's page about JetStream.
fn streams_in(page: &Value) -> impl Iterator<Item = &Value> {
    let accounts = page["account_details"].as_array().into_iter().flatten();
    accounts.flat_map(|account| account["stream_detail"].as_array().into_iter().flatten())
}

/// Returns the leader of a stream, from a server's page about JetStream.
fn leader_in<'a>(page: &'a Value, stream: &str) -> Option<&'a str> {
    streams_in(page).find(|found| found["name"] == stream)?["cluster"]["leader"].as_str()
}

/// Regions' streams, without mirrors, and the first message that each has.
fn firsts_in(page: &Value) -> impl Iterator<Item = (String, u64)> {
    streams_in(page).filter_map(|stream| {
        let name = stream["name"].as_str()?;
        let is_log = name.starts_with("SKYTALE_LOG_") && !name.contains("_IN_");
        is_log.then_some((name.to_owned(), stream["state"]["first_seq"].as_u64()?))
    })
}

/// A stream that a server leads and that has a copy that is not current, or one that nobody leads; in words.
fn behind_in(page: &Value, server: &str) -> Option<String> {
    streams_in(page).find_map(|stream| {
        let (name, cluster) = (&stream["name"], &stream["cluster"]);
        let Some(leader) = cluster["leader"].as_str().filter(|leader| !leader.is_empty()) else {
            return Some(format!("nobody leads {name}"));
        };
        let mut copies = cluster["replicas"].as_array().into_iter().flatten();
        let behind = copies.find(|copy| leader == server && copy["current"] != true)?;
        Some(format!("the copy of {name} at {} is not current", behind["name"]))
    })
}

/// Whether a line of a server's log tells that somebody was refused a subject, or to connect.
fn is_denial(line: &str) -> bool {
    ["Publish Violation", "Subscription Violation", "authentication error"]
        .iter()
        .any(|what| line.contains(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_leader_of_a_stream_is_found_in_a_servers_page() {
        let page = json!({"account_details": [
            {"name": "OTHER"},
            {"name": "SKYTALE", "stream_detail": [
                {"name": "SKYTALE_LOG_1_0", "cluster": {"leader": "eu-2", "replicas": [
                    {"name": "eu-1", "current": true}, {"name": "eu-3", "current": false}
                ]}},
                {"name": "SKYTALE_LOG_1_1", "cluster": {}}
            ]}
        ]});
        assert_eq!(leader_in(&page, "SKYTALE_LOG_1_0"), Some("eu-2"));
        assert_eq!(leader_in(&page, "SKYTALE_LOG_1_1"), None);
        assert_eq!(leader_in(&page, "SKYTALE_LOG_2_0"), None);
        // Only the leader knows of the others.
        let behind = behind_in(&page, "eu-2").unwrap_or_default();
        assert!(behind.contains("LOG_1_0") && behind.contains("eu-3"), "{behind}");
        let led_by_nobody = behind_in(&page, "eu-1").unwrap_or_default();
        assert!(led_by_nobody.contains("LOG_1_1"), "{led_by_nobody}");
        assert_eq!(leader_in(&json!({}), "SKYTALE_LOG_1_0"), None);
        assert_eq!(behind_in(&json!({}), "eu-1"), None);
    }

    #[test]
    fn a_refusal_in_a_servers_log_is_seen() {
        let line =
            "[1] 2026/11/23 08:00:00 [ERR] 127.0.0.1:5 - cid:9 - Publish Violation - Nkey \"U\", Subject \"$JS.API.X\"";
        assert!(is_denial(line));
        assert!(!is_denial("[1] 2026/11/23 08:00:00 [INF] Server is ready"));
    }
}
