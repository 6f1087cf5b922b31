//! Configuration: defaults, then the file, then `SKYTALE_*`, then flags; each later one wins.
//!
//! Every key is in [`Config`], once. A key that is not there is refused, whichever layer it came from.

mod addresses;
mod api;
mod bridge;
mod check;
mod expected;
mod files;
mod fleet;
mod history;
mod keys;
mod layer;
mod load;
mod problems;
pub(crate) mod profile;
mod reach;
mod relay;
mod secret;
mod show;
mod texts;
mod transport;

pub(crate) use api::Api;
pub(crate) use bridge::{Bridge, BridgeSetup, identity};
pub(crate) use check::Part;
pub(crate) use history::{History, age};
pub(crate) use layer::Layer;
pub(crate) use load::{Loaded, SET_FLAG, Sources, is_of_servers, load, read};
pub(crate) use problems::Problems;
pub(crate) use relay::{Relay, RelaySetup, StoreSetup};
pub(crate) use secret::Secret;
pub(crate) use show::{TEMPLATE, rows};
pub(crate) use transport::Transport;

use serde::{Deserialize, Serialize};
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
    /// URL to which servers send traces, by OTLP over gRPC. None is nowhere.
    pub otlp_url: Option<String>,
    /// URL of the API for agents and key commands.
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
    /// The region that the agent is in or nearest to, in a fleet of several.
    pub region: Option<u8>,
    /// Transport of an agent's connection to relay nodes.
    pub transport: Transport,
    /// Certificates (PEM) that relay nodes' HTTPS may lead to, beside Mozilla's roots.
    pub ca_file: Option<PathBuf>,
    /// Retention of each channel's messages in the vault, of those that were read.
    pub history: History,
    /// `skytale api`.
    pub api: Api,
    /// `skytale relay`.
    pub relay: Relay,
    /// `skytale bridge`.
    pub bridge: Bridge,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log: None,
            log_format: LogFormat::Text,
            otlp_url: None,
            api_url: "http://127.0.0.1:7600".into(),
            api_key: None,
            admin_secret: None,
            vault: None,
            vault_key_file: None,
            vault_passphrase: None,
            region: None,
            transport: Transport::Auto,
            ca_file: None,
            history: History::default(),
            api: Api::default(),
            relay: Relay::default(),
            bridge: Bridge::default(),
        }
    }
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// The audience of tokens where nothing else was set.
const AUDIENCE: &str = "skytale";

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
