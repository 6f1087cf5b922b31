//! Configuration of `skytale relay`: the section `[relay]`.

use super::fleet::Fleet;
use super::secret::unprefixed;
use super::{AUDIENCE, Loaded, Problems, Secret, addresses, loopback};
use crate::output::{Failure, Outcome};
use serde::{Deserialize, Serialize};
use skytale_log_store::fleet::FleetConfig;
use skytale_log_store::local::{LocalConfig, Retention};
use skytale_proto::limits;
use skytale_relay_node::{
    AdminConfig, ConfigError, HttpsConfig, LimitsConfig, RelayConfig, RelaySecret, SessionConfig, TapConfig,
    TrustConfig, TrustSource,
};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The section `[relay]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Relay {
    /// Addresses for QUIC (UDP): at most one IPv4 and one IPv6 address.
    #[serde(with = "addresses")]
    pub listen: Vec<SocketAddr>,
    /// Addresses under which agents reach it; what it listens on where there are none.
    #[serde(with = "addresses")]
    pub advertise: Vec<SocketAddr>,
    /// The data folder. No default.
    pub data_dir: Option<PathBuf>,
    /// The file with the endpoint's secret key; made with mode 0600 where it is missing. In the data folder by default.
    pub secret_key_file: Option<PathBuf>,
    /// The API whose tokens it takes. No default: no issuer, no start.
    pub api_url: Option<String>,
    /// The issuer in those tokens; `relay.api_url` by default.
    pub issuer: Option<String>,
    /// The audience of those tokens.
    pub audience: String,
    /// The relay nodes' secret, as the API has it. No default.
    pub relay_secret: Option<Secret>,
    /// Its region; 0 on a single node.
    pub region: u8,
    /// Retention of entries, in seconds, give or take the slack that the template states; 0 is for ever.
    pub retention_s: u64,
    /// Maximum bytes of kept entries; 0 is without bound.
    pub retention_bytes: u64,
    /// Below this much free space on the disk, in bytes, `/readyz` says so.
    pub disk_free_bytes_min: u64,
    /// Admin HTTP.
    pub admin: AdminConfig,
    /// HTTPS, for agents whose network lets no UDP through.
    pub https: HttpsConfig,
    /// Limits.
    pub limits: LimitsConfig,
    /// Sessions.
    pub session: SessionConfig,
    /// Keys and revocations.
    pub trust: TrustConfig,
    /// The recorder of workloads.
    pub tap: TapConfig,
    /// The log's files.
    pub store: Store,
    /// The fleet that it is of.
    pub fleet: Fleet,
}

/// The section `[relay.store]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Store {
    /// A segment is sealed before it grows over this many bytes.
    pub segment_bytes: u32,
    /// A batch of appends takes no more than this many bytes before it is synced.
    pub batch_bytes_max: usize,
    /// Bytes of frames that may wait for the writer.
    pub queue_bytes_max: usize,
    /// Bytes of recent entries kept in memory for readers near the head.
    pub cache_bytes: usize,
    /// Memory for the index's page cache, in bytes.
    pub index_cache_bytes: u64,
    /// Below this much free space, in bytes, no appends are taken; an eighth of the disk at most.
    pub free_bytes_min: u64,
    /// Bytes a second that are read and written to regroup segments by log; 0 is never.
    pub regroup_bytes_per_second: u64,
}

impl Default for Relay {
    fn default() -> Self {
        let node = RelayConfig::default();
        Self {
            listen: vec![loopback(7601)],
            advertise: Vec::new(),
            data_dir: None,
            secret_key_file: None,
            api_url: None,
            issuer: None,
            audience: AUDIENCE.into(),
            relay_secret: None,
            region: 0,
            retention_s: limits::RETENTION.as_secs(),
            retention_bytes: 0,
            disk_free_bytes_min: node.disk_free_bytes_min,
            admin: AdminConfig {
                listen: loopback(7602),
                ..node.admin
            },
            https: node.https,
            limits: node.limits,
            session: node.session,
            trust: node.trust,
            tap: node.tap,
            store: Store::default(),
            fleet: Fleet::default(),
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        let store = LocalConfig::new("");
        Self {
            segment_bytes: store.segment_bytes,
            batch_bytes_max: store.batch_bytes_max,
            queue_bytes_max: store.queue_bytes_max,
            cache_bytes: store.cache_bytes,
            index_cache_bytes: store.index_cache_bytes,
            free_bytes_min: store.free_bytes_min,
            regroup_bytes_per_second: store.regroup_bytes_per_second,
        }
    }
}

/// All that a relay node needs to start.
#[derive(Clone, Debug)]
pub(crate) struct RelaySetup {
    /// The node.
    pub node: RelayConfig,
    /// Its store.
    pub store: StoreSetup,
    /// Source of keys and revocations.
    pub trust: TrustSource,
}

/// Store of a relay node.
#[derive(Clone, Debug)]
pub(crate) enum StoreSetup {
    /// In files of its own.
    Local(LocalConfig),
    /// In JetStream, with a replica of its own.
    Fleet(Box<FleetConfig>),
}

impl Loaded {
    /// The relay node's configuration: all that is missing or wrong is refused at once.
    pub(crate) fn relay(&self) -> Outcome<RelaySetup> {
        let mut problems = self.problems.clone();
        let setup = self.relay_setup(&mut problems);
        self.relay_files(&setup, &mut problems);
        problems.outcome(" of `skytale relay`").map(|()| setup)
    }

    /// The relay node's configuration as far as it can be used, and its problems.
    pub(super) fn relay_setup(&self, problems: &mut Problems) -> RelaySetup {
        let relay = &self.config.relay;
        let data_dir = problems.need(self, "relay.data_dir", relay.data_dir.as_ref());
        let api_url = problems.need(self, "relay.api_url", relay.api_url.as_ref());
        for (key, url) in [("relay.api_url", api_url), ("relay.issuer", relay.issuer.as_ref())] {
            if let Some(url) = url {
                problems.take(key, self.url(key, url));
            }
        }
        let secret = problems.need(self, "relay.relay_secret", relay.relay_secret.as_ref());
        let secret = secret.and_then(|secret| problems.take("relay.relay_secret", secret.reveal("relay.relay_secret")));
        let data_dir = data_dir.map_or(Path::new(""), PathBuf::as_path);
        let api_url = api_url.cloned().unwrap_or_default();
        let node = RelayConfig {
            issuer: relay.issuer.clone().unwrap_or_else(|| api_url.clone()),
            ..self.relay_node(data_dir)
        };
        let trust = TrustSource::Http {
            api_url: api_url.clone(),
            relay_secret: RelaySecret::new(secret.as_ref().map_or("", |secret| secret.as_str())),
        };
        let found = node.problems_with(&trust).into_iter().map(|error| {
            // The issuer is the API's URL where no other is set.
            let key = match error.key {
                "issuer" if relay.issuer.is_none() => "relay.api_url".to_owned(),
                key => format!("relay.{key}"),
            };
            let failure = self.refused(&key, &error.problem);
            (key, failure)
        });
        problems.extend(found);
        let store = self.relay_log(data_dir);
        let found = store.problems().into_iter().map(|(name, problem)| {
            let key = format!("relay.store.{name}");
            let failure = self.refused(&key, &problem);
            (key, failure)
        });
        problems.extend(found);
        let age = store.retention.age;
        let store = match self.fleet(store.clone(), age, problems) {
            Some(fleet) => StoreSetup::Fleet(Box::new(fleet)),
            None => StoreSetup::Local(store),
        };
        RelaySetup { node, store, trust }
    }

    /// A relay node's settings, with its data in a folder. Its issuer is to be set.
    pub(crate) fn relay_node(&self, data_dir: &Path) -> RelayConfig {
        let relay = &self.config.relay;
        let key = relay.secret_key_file.clone();
        RelayConfig {
            listen: relay.listen.clone(),
            advertise: relay.advertise.iter().map(ToString::to_string).collect(),
            region: relay.region,
            secret_key_file: Some(key.unwrap_or_else(|| data_dir.join("endpoint.key"))),
            audience: relay.audience.clone(),
            data_dir: Some(data_dir.to_owned()),
            disk_free_bytes_min: relay.disk_free_bytes_min,
            admin: relay.admin.clone(),
            https: HttpsConfig {
                key_file: relay.https.key_file.as_deref().map(|file| unprefixed(file).to_owned()),
                ..relay.https.clone()
            },
            limits: relay.limits.clone(),
            session: relay.session.clone(),
            trust: relay.trust.clone(),
            tap: relay.tap.clone(),
            ..RelayConfig::default()
        }
    }

    /// The settings of a relay node's log of its own.
    pub(crate) fn relay_log(&self, data_dir: &Path) -> LocalConfig {
        let relay = &self.config.relay;
        let above_zero = |value: u64| (value > 0).then_some(value);
        let age = above_zero(relay.retention_s).map(Duration::from_secs);
        LocalConfig {
            segment_bytes: relay.store.segment_bytes,
            batch_bytes_max: relay.store.batch_bytes_max,
            queue_bytes_max: relay.store.queue_bytes_max,
            cache_bytes: relay.store.cache_bytes,
            index_cache_bytes: relay.store.index_cache_bytes,
            free_bytes_min: relay.store.free_bytes_min,
            regroup_bytes_per_second: relay.store.regroup_bytes_per_second,
            retention: Retention {
                age,
                bytes: above_zero(relay.retention_bytes),
                check_every: check_every(age),
            },
            ..LocalConfig::new(data_dir.join("log"))
        }
    }

    pub(crate) fn refused_relay(&self, error: &ConfigError) -> Failure {
        let key = format!("relay.{}", error.key);
        self.refused(&key, &error.problem)
    }
}

/// Returns the interval at which the store looks for entries that are too old: twice this and a twentieth of the age,
/// for which one segment takes entries, are a tenth of the age.
fn check_every(age: Option<Duration>) -> Duration {
    let longest = Retention::default().check_every;
    age.map_or(longest, |age| (age / 40).clamp(Duration::from_secs(1), longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_retention_is_looked_after_more_often() {
        let every = |seconds: u64| check_every(Some(Duration::from_secs(seconds))).as_secs();
        assert_eq!(
            [every(1), every(40), every(240), every(1_200), every(86_400)],
            [1, 1, 6, 30, 60]
        );
        assert_eq!(check_every(None), Duration::from_secs(60));
    }
}
