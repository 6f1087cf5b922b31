//! Configuration: defaults, then the file, then `SKYTALE_*`, then flags; each later one wins.
//!
//! Every key stands once, in [`Config`]. A key that is not there is refused, whichever layer it came from.

mod keys;
mod layer;
mod load;
mod secret;
mod show;

pub(crate) use layer::Layer;
pub(crate) use load::{Loaded, Sources, load};
pub(crate) use secret::Secret;
pub(crate) use show::{TEMPLATE, rows};

use serde::{Deserialize, Serialize};
use skytale_proto::limits;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Everything that can be set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    /// Log filter.
    pub log: Option<String>,
    /// Log lines as text or JSON.
    pub log_format: LogFormat,
    /// Where agents and key commands find the API.
    pub api_url: String,
    /// The API key.
    pub api_key: Option<Secret>,
    /// The operator's secret, for `account create`.
    pub admin_secret: Option<Secret>,
    /// The agent's vault.
    pub vault: Option<PathBuf>,
    /// The file with the vault's key; made with mode 0600 where it is missing. Beside the vault by default.
    pub vault_key_file: Option<PathBuf>,
    /// The vault's passphrase, instead of a key file.
    pub vault_passphrase: Option<Secret>,
    /// `skytale api`.
    pub api: Api,
    /// `skytale relay`.
    pub relay: Relay,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log: None,
            log_format: LogFormat::Text,
            api_url: "http://127.0.0.1:7600".into(),
            api_key: None,
            admin_secret: None,
            vault: None,
            vault_key_file: None,
            vault_passphrase: None,
            api: Api::default(),
            relay: Relay::default(),
        }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// What `skytale api` needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Api {
    /// Where it listens, for HTTP. A proxy in front of it does TLS.
    pub listen: SocketAddr,
    /// Its URL as clients see it: the issuer of its tokens. No default: no issuer, no start.
    pub url: Option<String>,
    /// `sqlite:` and a path, or `postgres://...`. No default.
    pub database: Option<Secret>,
    /// The operator's secret: who has it makes accounts.
    pub admin_secret: Option<Secret>,
    /// The relay nodes' secret.
    pub relay_secret: Option<Secret>,
    /// The audience of tokens: the name of the fleet of relay nodes.
    pub audience: String,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: loopback(7600),
            url: None,
            database: None,
            admin_secret: None,
            relay_secret: None,
            audience: AUDIENCE.into(),
        }
    }
}

/// What `skytale relay` needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Relay {
    /// Where it listens, for QUIC (UDP).
    pub listen: SocketAddr,
    /// Addresses under which agents reach it; what it listens on by default. A list, or text with commas.
    #[serde(with = "addresses")]
    pub advertise: Vec<SocketAddr>,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub admin_listen: SocketAddr,
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
    /// How long entries are kept, in seconds; 0 is for ever.
    pub retention_s: u64,
    /// How many bytes of entries are kept; 0 is without bound.
    pub retention_bytes: u64,
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            listen: loopback(7601),
            advertise: Vec::new(),
            admin_listen: loopback(7602),
            data_dir: None,
            secret_key_file: None,
            api_url: None,
            issuer: None,
            audience: AUDIENCE.into(),
            relay_secret: None,
            retention_s: limits::RETENTION.as_secs(),
            retention_bytes: 0,
        }
    }
}

/// The audience of tokens where nothing else was set.
const AUDIENCE: &str = "skytale";

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Socket addresses: a list, or one text with commas (as an environment variable has it).
mod addresses {
    use serde::{Deserialize, Deserializer, Serialize as _, Serializer, de::Error as _};
    use std::net::SocketAddr;

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        List(Vec<String>),
    }

    pub(super) fn serialize<S: Serializer>(list: &[SocketAddr], serializer: S) -> Result<S::Ok, S::Error> {
        list.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
        let parts = match Form::deserialize(deserializer)? {
            Form::Text(text) => text.split(',').map(str::to_owned).collect(),
            Form::List(list) => list,
        };
        parts
            .iter()
            .map(|part| part.trim())
            .filter(|part| !part.is_empty())
            .map(|part| {
                part.parse()
                    .map_err(|_| D::Error::custom(format!("`{part}` is not an address and port, as in 192.0.2.1:7601")))
            })
            .collect()
    }
}
