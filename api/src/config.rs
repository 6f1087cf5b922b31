//! Configuration of the API, and its checks.

use crate::clock::Clock;
use crate::directory::Distances;
use crate::store::Location;
use data_encoding::HEXLOWER_PERMISSIVE;
use secrecy::{ExposeSecret, SecretString};
use skytale_http::RenderMetrics;
use skytale_proto::Code;
use skytale_proto::limits::{RELAY_HEARTBEAT, TOKEN_LIFETIME_MAX};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;
use zeroize::Zeroizing;

/// The shortest secret of the operator and of relay nodes outside `dev`, in bytes.
pub const SECRET_BYTES_MIN: usize = 32;

/// Allowed intervals between the heartbeats of relay nodes.
const RELAY_HEARTBEATS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);

/// Largest values of limits: beyond them they protect nothing.
const CONNECTIONS_MAX: usize = 1_000_000;
const BODY_BYTES_MAX: usize = 1024 * 1024;
const HASHES_MAX: usize = 1_024;
const CREATIONS_MAX: usize = 100_000_000;

/// Whether this is a machine to try things on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One machine, loopback only. Missing secrets are made up at random.
    Dev,
    /// Everything else. A missing secret is an error.
    Production,
}

/// The API's configuration. Messages name its keys as `api.<key>`.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Dev or production.
    pub mode: Mode,
    /// `api.listen`: where it listens, for HTTP. Port 0 is any free port.
    pub listen: SocketAddr,
    /// `api.behind_tls_proxy`: a proxy in front ends TLS, is the only way in, and appends the client's address to
    /// `X-Forwarded-For`. Without it nothing but loopback is listened on.
    pub behind_tls_proxy: bool,
    /// `api.url`: its URL as clients see it, which is the issuer of its tokens.
    pub url: String,
    /// `api.audience`: the name of the fleet of relay nodes that tokens are for.
    pub audience: String,
    /// `api.database`: `sqlite:<path>` or `postgres://...`.
    pub database: SecretString,
    /// `api.admin_secret`: its holder makes accounts and rotates signing keys.
    pub admin_secret: Option<SecretString>,
    /// `api.relay_secret`: what relay nodes show.
    pub relay_secret: Option<SecretString>,
    /// `api.key_encryption_key`: encrypts the seeds of signing keys in the database.
    pub key_encryption_key: Option<KeyEncryptionKey>,
    /// `api.token_lifetime_s`: how long a token lives, an hour at most.
    pub token_lifetime: Duration,
    /// `api.signing_key_lifetime_s`: after how long a signing key is rotated without being asked; `None` is never.
    pub signing_key_lifetime: Option<Duration>,
    /// `api.audit_retention_s`: how long audit rows are kept.
    pub audit_retention: Duration,
    /// `api.region`: where it is. Agents that name no region are taken to be there.
    pub region: u8,
    /// `api.region_distances`: how far regions are from one another, as `1-2=80`; the same both ways.
    pub region_distances: Vec<String>,
    /// `api.relay_heartbeat_s`: how often enrolled relay nodes say that they are there, in whole seconds. After three that did
    /// not come agents are no longer sent to one.
    pub relay_heartbeat: Duration,
    /// Lets `dev` listen beyond loopback, in a container. Keys cross that network in clear.
    pub dev_beyond_loopback: bool,
    /// Limits.
    pub limits: Limits,
    /// `api.admin`: health and metrics, on a port of their own.
    pub admin: AdminConfig,
    /// Source of the `/metrics` on the admin port.
    pub metrics: Option<RenderMetrics>,
    /// The time.
    pub clock: Clock,
}

/// Admin HTTP: `/livez`, `/readyz` and `/metrics`. There is no authorization on its port. Keys: `api.admin.<key>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Whether it is served.
    pub enabled: bool,
    /// Address on which it listens. Port 0 is any free port.
    pub listen: SocketAddr,
    /// Whether it may listen on something else than loopback.
    pub allow_remote: bool,
}

/// Limits of the API: `api.limits.<key>`. All have defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once.
    pub connections_max: usize,
    /// A request's body, in bytes.
    pub body_bytes_max: usize,
    /// Maximum time for a request, from its head to its answer.
    pub request_timeout: Duration,
    /// Maximum time for a client to send a request's head.
    pub head_timeout: Duration,
    /// Requests a second from one address, sustained, and at once.
    pub address_rate: Rate,
    /// Requests a second with one API key, sustained, and at once.
    pub key_rate: Rate,
    /// Requests a second with all API keys of one account together, sustained, and at once.
    pub account_rate: Rate,
    /// Heartbeats a second of one relay node, sustained, and at once.
    pub relay_rate: Rate,
    /// Secrets tried from one address: API keys not seen lately, operator's and relays' secrets.
    pub attempt_rate: Rate,
    /// Hashes of API keys computed at once; each takes 19 MiB. One more may be a relay node's.
    pub hashes_max: usize,
    /// Requests that wait for a key hash; one more is asked to come back.
    pub hashes_waiting_max: usize,
    /// API keys of an account that are in force.
    pub keys_max: u32,
    /// Agents of an account.
    pub agents_max: u32,
    /// Channel names of an account.
    pub channels_max: u32,
    /// Agents, API keys and channel names that an account may make within a day, together: those that have ended leave rows.
    pub account_creations_per_day: u32,
    /// Enrolments of relay nodes that are in force.
    pub enrolments_max: u32,
    /// Time for which a nonce waits for its proof.
    pub nonce_lifetime: Duration,
}

/// Rate: operations a second, and at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Sustained; 1 at least.
    pub per_second: u32,
    /// Operations at once, after a pause; 1 at least.
    pub burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        let rate = |per_second, burst| Rate { per_second, burst };
        Self {
            connections_max: 1_024,
            body_bytes_max: 16 * 1024,
            request_timeout: Duration::from_secs(20),
            head_timeout: Duration::from_secs(10),
            address_rate: rate(200, 1_000),
            key_rate: rate(100, 500),
            account_rate: rate(400, 2_000),
            relay_rate: rate(2, 20),
            attempt_rate: rate(10, 64),
            hashes_max: 2,
            hashes_waiting_max: 64,
            keys_max: 100,
            agents_max: 10_000,
            channels_max: 10_000,
            account_creations_per_day: 50_000,
            enrolments_max: 256,
            nonce_lifetime: Duration::from_secs(60),
        }
    }
}

/// The key under which seeds of signing keys are encrypted. Zeroized when dropped, and never shown.
#[derive(Clone)]
pub struct KeyEncryptionKey(Zeroizing<[u8; 32]>);

impl KeyEncryptionKey {
    /// Makes it from its bytes.
    pub const fn from_bytes(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// Parses 64 hex digits (`openssl rand -hex 32`), with white space around them.
    pub fn from_hex(text: &str) -> Result<Self, ConfigError> {
        let refuse = || {
            ConfigError::new(
                "key_encryption_key",
                "is not 64 hex digits; make one with `openssl rand -hex 32`",
            )
        };
        let text = text.trim();
        if text.len() != 64 {
            return Err(refuse());
        }
        let bytes = Zeroizing::new(HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| refuse())?);
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(&bytes);
        Ok(Self(key))
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyEncryptionKey([redacted])")
    }
}

/// A configuration with which the API does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`api.{key}` {problem}")]
pub struct ConfigError {
    /// The key, without `api.`.
    pub key: &'static str,
    /// The problem, and the way to fix it.
    pub problem: String,
}

impl ConfigError {
    pub(crate) fn new(key: &'static str, problem: impl Into<String>) -> Self {
        Self {
            key,
            problem: problem.into(),
        }
    }

    /// The code.
    pub const fn code(&self) -> Code {
        Code::Config
    }
}

impl ApiConfig {
    /// A configuration for one machine: loopback, any free port, everything that is missing made up.
    ///
    /// A `sqlite:` database has its key encryption key in a file beside it, so that it can be opened again.
    pub fn dev(database: impl Into<String>) -> Self {
        Self {
            mode: Mode::Dev,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            behind_tls_proxy: false,
            url: "http://127.0.0.1:7600".to_owned(),
            audience: "skytale".to_owned(),
            database: SecretString::from(database.into()),
            admin_secret: None,
            relay_secret: None,
            key_encryption_key: None,
            token_lifetime: TOKEN_LIFETIME_MAX,
            signing_key_lifetime: Some(Duration::from_secs(30 * 24 * 3_600)),
            audit_retention: Duration::from_secs(365 * 24 * 3_600),
            region: 0,
            region_distances: Vec::new(),
            relay_heartbeat: RELAY_HEARTBEAT,
            dev_beyond_loopback: false,
            limits: Limits::default(),
            admin: AdminConfig {
                enabled: false,
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
                allow_remote: false,
            },
            metrics: None,
            clock: Clock::system(),
        }
    }

    /// Refuses what must not start: outside `dev`, anything missing that would open a door. With the first key that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.problems().into_iter().next().map_or(Ok(()), Err)
    }

    /// Returns all problems with which the API does not start.
    pub fn problems(&self) -> Vec<ConfigError> {
        let mut found = Vec::new();
        let mut refuse = |wrong: bool, key, problem: &str| {
            if wrong {
                found.push(ConfigError::new(key, problem));
            }
        };
        refuse(
            self.url.is_empty(),
            "url",
            "is missing: it is the issuer of tokens; set it to the URL that clients use",
        );
        refuse(
            self.audience.is_empty(),
            "audience",
            "is missing: name the fleet of relay nodes that tokens are for",
        );
        refuse(
            self.token_lifetime.as_secs() == 0 || self.token_lifetime > TOKEN_LIFETIME_MAX,
            "token_lifetime_s",
            "must be from 1 to 3600",
        );
        refuse(
            !RELAY_HEARTBEATS.contains(&self.relay_heartbeat) || self.relay_heartbeat.subsec_nanos() != 0,
            "relay_heartbeat_s",
            "must be from 1 to 300",
        );
        found.extend(self.distances().err());
        found.extend(Location::parse(self.database.expose_secret()).err());
        found.extend(self.limits.problems());
        if self.admin.enabled && !self.admin.allow_remote && !self.admin.listen.ip().is_loopback() {
            found.push(ConfigError::new(
                "admin.listen",
                "is not a loopback address, and there is no authorization on this port: set `api.admin.allow_remote = \
                 true` where the network keeps it private",
            ));
        }
        found.extend(match self.mode {
            Mode::Dev => self.dev_problems(),
            Mode::Production => self.production_problems(),
        });
        found
    }

    fn dev_problems(&self) -> Vec<ConfigError> {
        let wrong = !self.listen.ip().is_loopback() && !self.dev_beyond_loopback;
        let problem = "must be a loopback address in dev; use `skytale api` to serve others";
        Vec::from_iter(wrong.then(|| ConfigError::new("listen", problem)))
    }

    fn production_problems(&self) -> Vec<ConfigError> {
        let refused = |wrong: bool, key, problem: &str| wrong.then(|| ConfigError::new(key, problem));
        let found = [
            refused(
                !self.listen.ip().is_loopback() && !self.behind_tls_proxy,
                "listen",
                "is not a loopback address, and keys would cross the network in clear: put a proxy that ends TLS in front \
                 and set `api.behind_tls_proxy = true`, or listen on 127.0.0.1",
            ),
            refused(
                self.behind_tls_proxy && !self.url.is_empty() && !self.url.starts_with("https://"),
                "url",
                "must begin with https:// when a proxy ends TLS (`api.behind_tls_proxy`)",
            ),
            check_secret("admin_secret", self.admin_secret.as_ref()).err(),
            check_secret("relay_secret", self.relay_secret.as_ref()).err(),
            refused(
                same_secret(self.admin_secret.as_ref(), self.relay_secret.as_ref()),
                "relay_secret",
                "is the operator's secret too; give relay nodes one of their own",
            ),
            refused(
                self.key_encryption_key.is_none(),
                "key_encryption_key",
                "is missing: signing keys are not stored in clear; make one with `openssl rand -hex 32`, keep it in a \
                 file with mode 0600",
            ),
        ];
        found.into_iter().flatten().collect()
    }
}

impl ApiConfig {
    /// `region_distances` as a table.
    pub(crate) fn distances(&self) -> Result<Distances, ConfigError> {
        let entries = self.region_distances.iter().map(String::as_str);
        Distances::parse(entries).map_err(|problem| ConfigError::new("region_distances", problem))
    }
}

impl Limits {
    fn problems(&self) -> impl Iterator<Item = ConfigError> {
        let sizes = [
            ("limits.connections_max", self.connections_max, CONNECTIONS_MAX),
            ("limits.body_bytes_max", self.body_bytes_max, BODY_BYTES_MAX),
            ("limits.hashes_max", self.hashes_max, HASHES_MAX),
            (
                "limits.account_creations_per_day",
                self.account_creations_per_day as usize,
                CREATIONS_MAX,
            ),
        ];
        let rates = [
            ("limits.address_rate", self.address_rate),
            ("limits.key_rate", self.key_rate),
            ("limits.account_requests_per_second", self.account_rate),
            ("limits.relay_rate", self.relay_rate),
            ("limits.attempt_rate", self.attempt_rate),
        ];
        let sizes = sizes
            .into_iter()
            .filter(|(_, size, max)| !(1..=*max).contains(size))
            .map(|(key, _, max)| ConfigError::new(key, format!("must be from 1 to {max}")));
        let rates = rates
            .into_iter()
            .filter(|(_, rate)| rate.per_second == 0 || rate.burst == 0)
            .map(|(key, _)| ConfigError::new(key, "must be at least 1"));
        sizes.chain(rates)
    }
}

fn check_secret(key: &'static str, secret: Option<&SecretString>) -> Result<(), ConfigError> {
    match secret.map(|secret| secret.expose_secret().len()) {
        None => Err(ConfigError::new(
            key,
            "is missing; make one with `openssl rand -hex 32`, keep it in a file with mode 0600",
        )),
        Some(bytes) if bytes < SECRET_BYTES_MIN => Err(ConfigError::new(
            key,
            format!("has {bytes} bytes, {SECRET_BYTES_MIN} at least; make one with `openssl rand -hex 32`"),
        )),
        Some(_) => Ok(()),
    }
}

fn same_secret(one: Option<&SecretString>, other: Option<&SecretString>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one.expose_secret() == other.expose_secret())
}
