//! Ours: a relay node over a local store, which syncs before it acknowledges, reached through QUIC.
//!
//! - Agents share a few QUIC endpoints; each has a connection, an identity and a token of its own.
//! - The node checks tokens, rosters and handshake heads, and stores an append that is sent again once.

use crate::relay::{Relay, Tokens};
use anyhow::Context as _;
use iroh::EndpointAddr;
use skytale_load::relay::RelayTarget;
use skytale_log_store::{LocalConfig, LocalStore, LogStore};
use skytale_proto::{EndpointId, rest};
use skytale_sdk::NetworkConfig;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// A relay node in this process. [`Served`](crate::served::Served) is one in a process of its own.
pub struct Ours {
    relay: Relay,
    store: Arc<dyn LogStore>,
    _folder: TempDir,
}

impl std::fmt::Debug for Ours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ours")
            .field("relay", &self.relay)
            .finish_non_exhaustive()
    }
}

impl Ours {
    /// Starts one, with its data in a folder of its own in `parent`.
    pub async fn start(parent: &Path) -> anyhow::Result<Self> {
        let folder = folder(parent)?;
        let store: Arc<dyn LogStore> = Arc::new(LocalStore::open(LocalConfig::new(folder.path())).await?);
        let relay = Relay::start(Arc::clone(&store)).await?;
        Ok(Self {
            relay,
            store,
            _folder: folder,
        })
    }

    /// Returns its address.
    pub const fn address(&self) -> &EndpointAddr {
        self.relay.address()
    }

    /// Stops it.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.relay.shutdown().await;
        Ok(self.store.close().await?)
    }
}

/// A folder for a node's data.
pub fn folder(parent: &Path) -> anyhow::Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("skytale-peer-").tempdir_in(parent)?)
}

/// Connects so many fresh agents to the node at an address, in this process or another.
pub async fn target(address: &EndpointAddr, agents: u32) -> anyhow::Result<RelayTarget> {
    let sockets: Vec<String> = address.ip_addrs().map(ToString::to_string).collect();
    let relay = rest::Relay {
        endpoint: EndpointId::from_bytes(*address.id.as_bytes()),
        addresses: sockets,
        region: 0,
        https_url: None,
    };
    let tokens = Tokens::new().provider(vec![relay]);
    let network = NetworkConfig::bound_to(SocketAddr::from(([127, 0, 0, 1], 0)));
    let target = RelayTarget::with_tokens(tokens, agents, network).await;
    target.context("the agents' endpoints")
}
