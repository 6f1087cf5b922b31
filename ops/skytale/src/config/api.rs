//! Configuration of `skytale api`: the section `[api]`.

use super::{AUDIENCE, Loaded, Problems, Secret, loopback, texts};
use crate::output::Outcome;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use skytale_api::{AdminConfig, ApiConfig, KeyEncryptionKey, Limits, Mode, Rate};
use skytale_proto::limits::{RELAY_HEARTBEAT, TOKEN_LIFETIME_MAX};
use std::net::SocketAddr;
use std::time::Duration;

/// Seconds' worth of an account's requests that may come at once.
const ACCOUNT_BURST_S: u32 = 5;

/// The section `[api]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Api {
    /// Address for HTTP. A proxy in front of it does TLS.
    pub listen: SocketAddr,
    /// A proxy in front ends TLS, is the only way in, and appends the client's address to `X-Forwarded-For`.
    pub behind_tls_proxy: bool,
    /// Its URL as clients see it: the issuer of its tokens. No default: no issuer, no start.
    pub url: Option<String>,
    /// `sqlite:` and a path, or `postgres://...`. No default.
    pub database: Option<Secret>,
    /// The operator's secret: its holder makes accounts. No default.
    pub admin_secret: Option<Secret>,
    /// The relay nodes' secret. No default.
    pub relay_secret: Option<Secret>,
    /// Encrypts signing keys in the database: 64 hex digits. No default.
    pub key_encryption_key: Option<Secret>,
    /// The audience of tokens: the name of the fleet of relay nodes.
    pub audience: String,
    /// Lifetime of a token, in seconds.
    pub token_lifetime_s: u64,
    /// Age at which a signing key is rotated, in seconds; 0 is never.
    pub signing_key_lifetime_s: u64,
    /// Retention of audit rows, in seconds.
    pub audit_retention_s: u64,
    /// Region of the API: agents that name no region are taken to be there.
    pub region: u8,
    /// Distances between regions, as `1-2=80`; the same both ways.
    #[serde(with = "texts")]
    pub region_distances: Vec<String>,
    /// Interval between heartbeats of enrolled relay nodes, in seconds.
    pub relay_heartbeat_s: u64,
    /// The section `[api.admin]`.
    pub admin: ApiAdmin,
    /// The section `[api.limits]`.
    pub limits: ApiLimits,
}

/// The section `[api.admin]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ApiAdmin {
    /// Whether health and metrics are served on a port of their own.
    pub enabled: bool,
    /// Address of that port.
    pub listen: SocketAddr,
    /// Whether that may be something else than loopback.
    pub allow_remote: bool,
}

impl Default for ApiAdmin {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: loopback(7606),
            allow_remote: false,
        }
    }
}

/// The section `[api.limits]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ApiLimits {
    /// Connections open at once.
    pub connections_max: usize,
    /// A request's body, in bytes.
    pub body_bytes_max: usize,
    /// Hashes of API keys computed at once; each takes 19 MiB.
    pub hashes_max: usize,
    /// API keys of an account that are in force.
    pub keys_max: u32,
    /// Agents of an account.
    pub agents_max: u32,
    /// Channel names of an account.
    pub channels_max: u32,
    /// Agents, API keys and channel names that an account may make within a day, together.
    pub account_creations_per_day: u32,
    /// Enrolments of relay nodes that are in force.
    pub enrolments_max: u32,
    /// Requests a second with all API keys of an account together, sustained.
    pub account_requests_per_second: u32,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: loopback(7600),
            behind_tls_proxy: false,
            url: None,
            database: None,
            admin_secret: None,
            relay_secret: None,
            key_encryption_key: None,
            audience: AUDIENCE.into(),
            token_lifetime_s: TOKEN_LIFETIME_MAX.as_secs(),
            signing_key_lifetime_s: 2_592_000,
            audit_retention_s: 365 * 24 * 3_600,
            region: 0,
            region_distances: Vec::new(),
            relay_heartbeat_s: RELAY_HEARTBEAT.as_secs(),
            admin: ApiAdmin::default(),
            limits: ApiLimits::default(),
        }
    }
}

impl Default for ApiLimits {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            connections_max: limits.connections_max,
            body_bytes_max: limits.body_bytes_max,
            hashes_max: limits.hashes_max,
            keys_max: limits.keys_max,
            agents_max: limits.agents_max,
            channels_max: limits.channels_max,
            account_creations_per_day: limits.account_creations_per_day,
            enrolments_max: limits.enrolments_max,
            account_requests_per_second: limits.account_rate.per_second,
        }
    }
}

impl Loaded {
    /// The API's configuration for production: all that is missing or wrong is refused at once.
    pub(crate) fn api(&self) -> Outcome<ApiConfig> {
        let mut problems = self.problems.clone();
        let config = self.api_config(&mut problems);
        problems.outcome(" of `skytale api`").map(|()| config)
    }

    /// The API's configuration as far as it can be used, and its problems.
    pub(super) fn api_config(&self, problems: &mut Problems) -> ApiConfig {
        let api = &self.config.api;
        let database = problems.need(self, "api.database", api.database.as_ref());
        let database = database.and_then(|database| problems.take("api.database", database.expose("api.database")));
        let url = problems.need(self, "api.url", api.url.as_ref()).cloned();
        if let Some(url) = &url {
            problems.take("api.url", self.url("api.url", url));
        }
        let mut secret = |key: &str, secret: &Option<Secret>| {
            let secret = problems.need(self, key, secret.as_ref())?;
            problems.take(key, secret.expose(key))
        };
        let admin_secret = secret("api.admin_secret", &api.admin_secret);
        let relay_secret = secret("api.relay_secret", &api.relay_secret);
        let key = "api.key_encryption_key";
        let key_encryption_key = problems
            .need(self, key, api.key_encryption_key.as_ref())
            .and_then(|secret| {
                let read = secret.reveal(key).and_then(|text| {
                    KeyEncryptionKey::from_hex(&text).map_err(|error| self.refused(key, &error.problem))
                });
                problems.take(key, read)
            });
        let config = ApiConfig {
            mode: Mode::Production,
            listen: api.listen,
            behind_tls_proxy: api.behind_tls_proxy,
            url: url.unwrap_or_default(),
            audience: api.audience.clone(),
            database: database.unwrap_or_default(),
            admin_secret,
            relay_secret,
            key_encryption_key,
            token_lifetime: Duration::from_secs(api.token_lifetime_s),
            signing_key_lifetime: match api.signing_key_lifetime_s {
                0 => None,
                seconds => Some(Duration::from_secs(seconds)),
            },
            audit_retention: Duration::from_secs(api.audit_retention_s),
            region: api.region,
            region_distances: api.region_distances.clone(),
            relay_heartbeat: Duration::from_secs(api.relay_heartbeat_s),
            admin: AdminConfig {
                enabled: api.admin.enabled,
                listen: api.admin.listen,
                allow_remote: api.admin.allow_remote,
            },
            limits: api.limits.over(Limits::default()),
            ..ApiConfig::dev("")
        };
        let found = config.problems().into_iter().map(|error| {
            let key = format!("api.{}", error.key);
            let failure = self.refused(&key, &error.problem);
            (key, failure)
        });
        problems.extend(found);
        config
    }

    /// The database, and the key encryption key that its signing keys are under.
    pub(crate) fn api_keys(&self) -> Outcome<(SecretString, KeyEncryptionKey)> {
        let api = &self.config.api;
        let database = self.need("api.database", api.database.as_ref())?;
        let key = self.need("api.key_encryption_key", api.key_encryption_key.as_ref())?;
        let key = KeyEncryptionKey::from_hex(&key.reveal("api.key_encryption_key")?)
            .map_err(|error| self.refused(&format!("api.{}", error.key), &error.problem))?;
        Ok((database.expose("api.database")?, key))
    }
}

impl ApiLimits {
    fn over(&self, limits: Limits) -> Limits {
        Limits {
            connections_max: self.connections_max,
            body_bytes_max: self.body_bytes_max,
            hashes_max: self.hashes_max,
            keys_max: self.keys_max,
            agents_max: self.agents_max,
            channels_max: self.channels_max,
            account_creations_per_day: self.account_creations_per_day,
            enrolments_max: self.enrolments_max,
            account_rate: Rate {
                per_second: self.account_requests_per_second,
                burst: self.account_requests_per_second.saturating_mul(ACCOUNT_BURST_S),
            },
            ..limits
        }
    }
}
