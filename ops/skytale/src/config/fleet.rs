//! What makes a relay node one of a fleet: the section `[relay.fleet]`.

use super::{Loaded, Secret};
use crate::output::{Failure, Outcome};
use serde::{Deserialize, Serialize};
use skytale_log_store::fleet::{self, FleetConfig, KeyFile, NatsAuth, NatsConfig, NatsTls, RegionConfig, SyncProof};
use skytale_log_store::local::LocalConfig;
use skytale_proto::{Code, Region};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The section `[relay.fleet]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Fleet {
    /// Addresses of NATS servers. With none, the node keeps its log alone.
    pub nats: Vec<String>,
    /// The seed of the NKey that the node shows to them.
    pub nats_key: Option<Secret>,
    /// The seed of the NKey with which it asks them whether they sync before they acknowledge.
    pub sync_key: Option<Secret>,
    /// They do, says the operator: nobody asks.
    pub sync_is_always: bool,
    /// Root certificates to trust besides the system's.
    pub tls_roots: Option<PathBuf>,
    /// The regions, each with its number, its shards, and its cluster where there are several.
    pub regions: Vec<String>,
    /// Copies of each stream.
    pub replicas: usize,
    /// Serve although an acknowledgement means less than a synced quorum; each says so.
    pub allow_weaker: bool,
    /// Messages of a shard from one checkpoint to the next.
    pub checkpoint_every: u64,
    /// How often a node looks for entries that are older than the retention, in seconds.
    pub retention_check_s: u64,
    /// How long an append may take before its author learns that the home region cannot be reached.
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
    /// The fleet that the node is of, over a replica of its own; `None` where it keeps its log alone.
    pub(crate) fn fleet(&self, replica: LocalConfig, retention: Option<Duration>) -> Outcome<Option<FleetConfig>> {
        let fleet = &self.config.relay.fleet;
        if fleet.nats.is_empty() {
            return Ok(None);
        }
        let remote = fleet.nats.iter().any(|server| !is_loopback(server));
        let key = match &fleet.nats_key {
            Some(seed) => nkey(seed, "relay.fleet.nats_key")?,
            None if remote => return Err(self.missing("relay.fleet.nats_key", "servers must know who writes the log")),
            None => NatsAuth::None,
        };
        let sync = match (&fleet.sync_key, fleet.sync_is_always) {
            (Some(seed), _) => SyncProof::System(nkey(seed, "relay.fleet.sync_key")?),
            (None, always) if always || fleet.allow_weaker => SyncProof::Stated { always },
            (None, _) => {
                return Err(self.missing(
                    "relay.fleet.sync_key",
                    "without it nobody knows whether the servers sync before they acknowledge; \
                     `relay.fleet.sync_is_always` says so without asking",
                ));
            }
        };
        let regions = fleet.regions.iter().map(|text| {
            text.parse::<Written>().map(|written| written.0).map_err(|()| {
                self.refused(
                    "relay.fleet.regions",
                    &format!("has `{text}`, which is not as in `1=8` or `1=8@eu`"),
                )
            })
        });
        let regions: Vec<RegionConfig> = regions.collect::<Outcome<_>>()?;
        let here = Region(self.config.relay.region);
        if !regions.iter().any(|region| region.region == here) {
            let numbers: Vec<String> = regions.iter().map(|region| region.region.0.to_string()).collect();
            return Err(self.refused(
                "relay.region",
                &format!("is {}, and `relay.fleet.regions` has {}", here.0, numbers.join(", ")),
            ));
        }
        let nats = NatsConfig {
            servers: fleet.nats.clone(),
            auth: key,
            tls: NatsTls {
                required: remote,
                roots: fleet.tls_roots.clone(),
                certificate: None,
            },
            name: "skytale relay".into(),
            inbox_prefix: None,
        };
        Ok(Some(FleetConfig {
            // The streams of other regions are followed by mirrors in this one.
            here: (regions.len() > 1).then_some(here),
            regions,
            replicas: fleet.replicas,
            allow_weaker: fleet.allow_weaker,
            checkpoint_every: fleet.checkpoint_every,
            retention_every: Duration::from_secs(fleet.retention_check_s),
            append_timeout: Duration::from_millis(fleet.append_timeout_ms),
            retention,
            ..FleetConfig::new(nats, sync, replica)
        }))
    }

    /// The fleet as it is examined from outside: no node's data is touched.
    pub(crate) fn examined_fleet(&self) -> Outcome<FleetConfig> {
        let fleet = self.fleet(LocalConfig::new(""), None)?;
        fleet.ok_or_else(|| {
            self.missing(
                "relay.fleet.nats",
                "a node without it keeps its log alone, and has no servers to check",
            )
            .help("Name a relay node's configuration file with --config.")
        })
    }

    fn missing(&self, key: &str, why: &str) -> Failure {
        Failure::new(Code::Config, format!("configuration key `{key}` is missing: {why}"))
    }

    fn refused(&self, key: &str, problem: &str) -> Failure {
        let source = self.source(key);
        Failure::new(Code::Config, format!("configuration key `{key}` ({source}) {problem}"))
    }
}

/// A key: one in a file is read again when that changes.
fn nkey(seed: &Secret, key: &str) -> Outcome<NatsAuth> {
    // What cannot be read is refused now, with the name of the setting.
    let revealed = seed.reveal(key)?;
    Ok(match seed.file() {
        Some(file) => NatsAuth::NKeyFile(KeyFile::new(file)),
        None => NatsAuth::NKey(fleet::Secret::new(revealed.trim())),
    })
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
