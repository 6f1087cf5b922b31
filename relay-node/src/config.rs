//! Configuration of a relay node. Unknown keys are refused; [`RelayConfig::check`] refuses values that cannot work.

mod account;
mod check;
mod trust;

pub use account::ADDRESS_CONNECTIONS_MAX;
pub use trust::TrustConfig;

use serde::{Deserialize, Serialize};
use skytale_proto::{Code, limits, session};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The relay node's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelayConfig {
    /// UDP addresses to listen on: at most one IPv4 and one IPv6.
    pub listen: Vec<SocketAddr>,
    /// `ip:port` under which agents reach this node; empty is what it listens on.
    pub advertise: Vec<String>,
    /// The node's region; 0 on a single node.
    pub region: u8,
    /// The file that holds the endpoint's secret key; made (0600) where there is none. Without it the endpoint has
    /// another id after each start.
    pub secret_key_file: Option<PathBuf>,
    /// The issuer that tokens must name: the API's URL.
    pub issuer: String,
    /// The audience that tokens must name.
    pub audience: String,
    /// Folder of the log: its disk space is watched.
    pub data_dir: Option<PathBuf>,
    /// Below this much free space, in bytes, `/readyz` says so.
    pub disk_free_bytes_min: u64,
    /// Admin HTTP.
    pub admin: AdminConfig,
    /// The way in without UDP.
    pub https: HttpsConfig,
    /// Limits.
    pub limits: LimitsConfig,
    /// Sessions.
    pub session: SessionConfig,
    /// Keys and revocations.
    pub trust: TrustConfig,
    /// The recorder of workloads.
    pub tap: TapConfig,
}

/// Admin HTTP: `/livez`, `/readyz`, `/metrics`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Whether it is served.
    pub enabled: bool,
    /// TCP address; a loopback one unless `allow_remote`.
    pub listen: SocketAddr,
    /// Lets `listen` be another address than loopback. There is no authorization on this port.
    pub allow_remote: bool,
}

/// HTTPS for agents whose network lets no UDP through. Their QUIC goes through it as it is, encrypted end to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpsConfig {
    /// TCP address to listen on; without one there is no HTTPS.
    pub listen: Option<SocketAddr>,
    /// `https://host[:port]` under which agents reach it, which the relay directory tells them. Without one, on loopback alone, `http://`
    /// and the address.
    pub url: Option<String>,
    /// The certificate for `url`, and those that lead to its root: a PEM file, taken up again when it changes.
    /// Without it `listen` must be loopback, behind a proxy that ends TLS.
    pub certificate_file: Option<PathBuf>,
    /// Its private key: a PEM file. Other users may not open it, unless `shared-file:` is before its path.
    pub key_file: Option<PathBuf>,
    /// Connections at once.
    pub connections_max: u32,
}

/// Limits of one node, one connection, one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Connections at once.
    pub connections_max: u32,
    /// Sessions of one account at once; without it half of `connections_max`, and 64 at least.
    pub account_connections_max: Option<u32>,
    /// Connections of one network (an IPv4 address, an IPv6 /64) at once that have not said Hello. Without it
    /// [`ADDRESS_CONNECTIONS_MAX`], and loopback is without bound.
    pub address_connections_max: Option<u32>,
    /// Streams open at once on one connection, without the control stream.
    pub streams_max: u32,
    /// Channels that one session may watch on its watch stream, beside those that it subscribes to.
    pub watched_max: u32,
    /// Streams of all sessions of one account at once, beside 16 of each session; without it 16 for each of `account_connections_max`, and
    /// `streams_max` at least.
    pub account_streams_max: Option<u32>,
    /// Channels that they may watch at once, beside 100 of each session; without it 100 for each of `account_connections_max`, and
    /// `watched_max` at least.
    pub account_watched_max: Option<u32>,
    /// Append requests in flight on one connection, in bytes.
    pub append_in_flight_bytes_max: usize,
    /// Requests of all connections together, in bytes, from before their bodies are read until they are answered. Where it is taken,
    /// bodies that do not come to their end give way, first those of the account that has most in them.
    pub receive_bytes_max: usize,
    /// Bytes of requests of all connections of one account together; without it half of that.
    pub account_receive_bytes_max: Option<usize>,
    /// Bytes of frames, with 1 KiB more for each, that the store has at a time. Frames that wait beyond them go by
    /// turns, account by account.
    pub append_window_bytes: u64,
    /// Records in one batch of a subscription, in bytes.
    pub batch_bytes_max: usize,
    /// Bytes that the subscriptions of one connection share for their batches: the more there are, the smaller each
    /// one's next batch. An entry larger than that goes alone.
    pub replay_bytes_max: usize,
    /// Frames that an agent may append a second, sustained.
    pub frames_per_second: u32,
    /// Bytes that an agent may append a second, sustained.
    pub bytes_per_second: u64,
    /// Commits that an agent may append to one channel a minute, sustained; as many may come at once. A commit names the one
    /// before it: an agent that commits without pause keeps commits of the other members away.
    pub commits_per_minute: u32,
    /// Frames that all agents of an account together may append a second, sustained; without it four times an agent's. A bundle counts
    /// as one, and one more for each Welcome that it causes.
    pub account_frames_per_second: Option<u32>,
    /// Bytes that they may append a second, sustained; without it four times an agent's.
    pub account_bytes_per_second: Option<u64>,
    /// Commits that all agents of an account together may append to one channel a minute, sustained; as many may come at once. Without it
    /// five times an agent's.
    pub account_commits_per_minute: Option<u32>,
    /// Channels that an account may make within a day.
    pub account_channels_per_day: u32,
    /// Bytes that an account may have stored, as far as this node took them; without it nine tenths of the file system that the data folder
    /// is on.
    pub account_stored_bytes_max: Option<u64>,
    /// Seconds' worth of frames and bytes that may come at once. A burst is read at the account's sustained rate of bytes, and at twice its rate of frames.
    pub burst_s: u32,
    /// Bytes sent on one connection and not yet acknowledged by its peer, which the node must keep.
    pub send_window_bytes: u32,
    /// And on all connections together, about: with many of them each gets its share when it begins, at least 256 KiB; and
    /// batches are smaller where many are sent at once.
    pub send_bytes_max: u64,
}

/// Sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionConfig {
    /// Silence after which a ping is sent, in milliseconds; at twice that the peer is taken for dead.
    pub keepalive_ms: u64,
    /// Maximum time from a connection to its Hello, in milliseconds; from a stream to its Open.
    pub hello_timeout_ms: u64,
    /// Maximum time for a request, from its length to its last byte, in milliseconds.
    pub request_timeout_ms: u64,
    /// Time before the end of its token at which a session gets a notice, in seconds.
    pub token_notice_s: u64,
}

/// The tap: a recorder of what the log does not hold (sessions, subscriptions, refusals, times to the microsecond), from which
/// `skytale bench capture` makes workloads. It holds no ids and no bodies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TapConfig {
    /// The folder for its files, of this node alone; made where there is none. Without it there is no tap.
    pub dir: Option<PathBuf>,
    /// All its files together, in bytes: the oldest are removed first.
    pub bytes_max: u64,
    /// A file that has so many bytes is closed, and another one begun.
    pub file_bytes: u64,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 4433))],
            advertise: Vec::new(),
            region: 0,
            secret_key_file: None,
            issuer: String::new(),
            audience: String::new(),
            data_dir: None,
            disk_free_bytes_min: 1024 * 1024 * 1024,
            admin: AdminConfig::default(),
            https: HttpsConfig::default(),
            limits: LimitsConfig::default(),
            session: SessionConfig::default(),
            trust: TrustConfig::default(),
            tap: TapConfig::default(),
        }
    }
}

impl Default for HttpsConfig {
    fn default() -> Self {
        Self {
            listen: None,
            url: None,
            certificate_file: None,
            key_file: None,
            connections_max: 2_000,
        }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9464)),
            allow_remote: false,
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            account_connections_max: None,
            address_connections_max: None,
            streams_max: limits::STREAMS_MAX,
            watched_max: limits::WATCHED_MAX,
            account_streams_max: None,
            account_watched_max: None,
            append_in_flight_bytes_max: limits::APPEND_IN_FLIGHT_BYTES_MAX,
            receive_bytes_max: 256 * 1024 * 1024,
            account_receive_bytes_max: None,
            append_window_bytes: 2 * 1024 * 1024,
            batch_bytes_max: limits::BATCH_BYTES_MAX,
            replay_bytes_max: 8 * 1024 * 1024,
            frames_per_second: limits::FRAMES_PER_SECOND,
            bytes_per_second: limits::BYTES_PER_SECOND,
            commits_per_minute: limits::COMMITS_PER_MINUTE,
            account_frames_per_second: None,
            account_commits_per_minute: None,
            account_bytes_per_second: None,
            account_channels_per_day: 100_000,
            account_stored_bytes_max: None,
            burst_s: 2,
            send_window_bytes: 4 * 1024 * 1024,
            send_bytes_max: 256 * 1024 * 1024,
        }
    }
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            keepalive_ms: ms(limits::KEEPALIVE),
            hello_timeout_ms: ms(limits::HELLO_TIMEOUT),
            request_timeout_ms: 60_000,
            token_notice_s: 60,
        }
    }
}

impl Default for TapConfig {
    fn default() -> Self {
        Self {
            dir: None,
            bytes_max: 1024 * 1024 * 1024,
            file_bytes: 64 * 1024 * 1024,
        }
    }
}

/// A value that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    /// The key, as in the file.
    pub key: &'static str,
    /// The problem with its value.
    pub problem: String,
}

impl ConfigError {
    /// The code that goes with this.
    pub const fn code(&self) -> Code {
        Code::Config
    }
}

impl RelayConfig {
    /// Free loopback ports, a key of the moment, short intervals: for tests and benches.
    pub fn for_tests(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            listen: vec![free],
            issuer: issuer.into(),
            audience: audience.into(),
            disk_free_bytes_min: 0,
            admin: AdminConfig {
                listen: free,
                ..AdminConfig::default()
            },
            session: SessionConfig {
                // On a busy machine a Hello may come late.
                hello_timeout_ms: 60_000,
                ..SessionConfig::default()
            },
            trust: TrustConfig {
                revocations_every_ms: 100,
                keys_every_ms: 1_000,
                keys_refetch_after_ms: 100,
                register_every_ms: 1_000,
                ..TrustConfig::default()
            },
            ..Self::default()
        }
    }

    /// The limits, as a session gets them.
    pub(crate) fn wire_limits(&self) -> session::Limits {
        let limits = &self.limits;
        session::Limits {
            frame_bytes_max: limits::FRAME_BYTES_MAX as u64,
            append_in_flight_bytes_max: limits.append_in_flight_bytes_max as u64,
            streams_max: limits.streams_max,
            batch_bytes_max: limits.batch_bytes_max as u64,
            key_packages_max: u32::try_from(limits::KEY_PACKAGES_MAX).unwrap_or(u32::MAX),
            frames_per_second: limits.frames_per_second,
            bytes_per_second: limits.bytes_per_second,
            watched_max: limits.watched_max,
        }
    }
}

impl SessionConfig {
    pub(crate) const fn keepalive(&self) -> Duration {
        Duration::from_millis(self.keepalive_ms)
    }

    pub(crate) const fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    pub(crate) const fn hello_timeout(&self) -> Duration {
        Duration::from_millis(self.hello_timeout_ms)
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut RelayConfig)) -> &'static str {
        let mut config = RelayConfig::for_tests("issuer", "audience");
        change(&mut config);
        config.check().expect_err("is refused").key
    }

    #[test]
    fn defaults_work_once_an_issuer_and_an_audience_are_named() {
        let config = RelayConfig {
            issuer: "issuer".into(),
            audience: "audience".into(),
            ..RelayConfig::default()
        };
        assert_eq!(config.check(), Ok(()));
        assert_eq!(RelayConfig::for_tests("issuer", "audience").check(), Ok(()));
    }

    #[test]
    fn without_an_issuer_or_an_audience_nothing_starts() {
        assert_eq!(refused(|config| config.issuer.clear()), "issuer");
        assert_eq!(refused(|config| config.audience.clear()), "audience");
    }

    #[test]
    fn the_admin_port_stays_on_loopback_unless_told_otherwise() {
        let public = SocketAddr::from(([0, 0, 0, 0], 9464));
        assert_eq!(refused(|config| config.admin.listen = public), "admin.listen");
        let mut config = RelayConfig::for_tests("issuer", "audience");
        config.admin.listen = public;
        config.admin.allow_remote = true;
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn what_the_relay_directory_would_not_take_is_refused() {
        let addresses = |count| vec!["192.0.2.1:7601".to_owned(); count];
        assert_eq!(refused(|config| config.advertise = addresses(17)), "advertise");
        assert_eq!(
            refused(|config| config.advertise = vec!["relay:7601".into()]),
            "advertise"
        );
    }

    #[test]
    fn limits_below_what_one_frame_needs_are_refused() {
        assert_eq!(
            refused(|config| config.limits.append_in_flight_bytes_max = 1024),
            "limits.append_in_flight_bytes_max"
        );
        assert_eq!(
            refused(|config| config.limits.bytes_per_second = 1),
            "limits.bytes_per_second"
        );
        assert_eq!(
            refused(|config| config.limits.batch_bytes_max = 1 << 30),
            "limits.batch_bytes_max"
        );
        assert_eq!(
            refused(|config| config.limits.send_window_bytes = 1024),
            "limits.send_window_bytes"
        );
        assert_eq!(
            refused(|config| config.limits.send_bytes_max = u64::from(config.limits.send_window_bytes) - 1),
            "limits.send_bytes_max"
        );
    }

    #[test]
    fn revocations_are_never_taken_for_fresh_longer_than_is_promised() {
        let key = "trust.revocations_stale_after_ms";
        assert_eq!(refused(|config| config.trust.revocations_stale_after_ms = 30_001), key);
        assert_eq!(refused(|config| config.trust.revocations_stale_after_ms = 0), key);
    }

    #[test]
    fn a_key_that_was_taken_back_is_not_used_for_longer_than_a_token() {
        let key = "trust.keys_stale_after_ms";
        assert_eq!(refused(|config| config.trust.keys_stale_after_ms = 3_660_001), key);
        assert_eq!(refused(|config| config.trust.keys_stale_after_ms = 0), key);
        let key = "trust.keys_every_ms";
        assert_eq!(refused(|config| config.trust.keys_every_ms = 3_660_001), key);
        assert_eq!(refused(|config| config.trust.keys_every_ms = 0), key);
    }

    #[test]
    fn https_needs_a_certificate_and_a_url_beyond_loopback() {
        let https = |change: fn(&mut HttpsConfig)| {
            let mut config = RelayConfig::for_tests("issuer", "audience");
            config.https.listen = Some(SocketAddr::from(([0, 0, 0, 0], 443)));
            config.https.url = Some("https://relay.example.org".into());
            config.https.certificate_file = Some("relay.pem".into());
            config.https.key_file = Some("relay.key".into());
            change(&mut config.https);
            config.check().map_err(|error| error.key)
        };
        assert_eq!(https(|_| {}), Ok(()));
        assert_eq!(https(|https| https.key_file = None), Err("https.certificate_file"));
        assert_eq!(https(|https| https.url = None), Err("https.url"));
        assert_eq!(
            https(|https| https.url = Some("http://relay.example.org".into())),
            Err("https.url")
        );
        assert_eq!(https(|https| https.connections_max = 0), Err("https.connections_max"));
        assert_eq!(https(|https| https.listen = None), Err("https.listen"));
        let plain = |https: &mut HttpsConfig| (https.certificate_file, https.key_file) = (None, None);
        assert_eq!(https(plain), Err("https.listen"));
        let local = |https: &mut HttpsConfig| {
            let listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
            *https = HttpsConfig {
                listen,
                ..HttpsConfig::default()
            };
        };
        assert_eq!(https(local), Ok(()));
    }

    #[test]
    fn a_tap_has_room_for_two_files_of_some_size() {
        let tap = RelayConfig::default().tap;
        assert_eq!((tap.dir, tap.bytes_max, tap.file_bytes), (None, 1 << 30, 64 << 20));
        assert_eq!(refused(|config| config.tap.dir = Some("".into())), "tap.dir");
        assert_eq!(refused(|config| config.tap.file_bytes = 1_000), "tap.file_bytes");
        assert_eq!(
            refused(|config| config.tap.bytes_max = 2 * config.tap.file_bytes - 1),
            "tap.bytes_max"
        );
        assert_eq!(refused(|config| config.tap.file_bytes = u64::MAX), "tap.bytes_max");
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let read = serde_json::from_str::<RelayConfig>(r#"{"limits": {"frames_a_second": 1}}"#);
        assert!(read.expect_err("is refused").to_string().contains("frames_a_second"));
    }
}
