//! The local endpoint, and addresses of relay nodes.

use super::error::RelayError;
use super::patience::PATIENCE;
use super::way::Transport;
use iroh::endpoint::{Builder, QuicTransportConfig, VarInt, presets};
use iroh::{EndpointAddr, TransportAddr};
use skytale_proto::{Code, EndpointId, rest};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use zeroize::Zeroizing;

/// Bytes that one stream buffers before the relay must wait. One message may be longer.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes that all streams of a connection buffer before the relay must wait.
const CONNECTION_WINDOW_BYTES: u32 = 32 * 1024 * 1024;
/// Maximum number of unacknowledged outgoing bytes.
const SEND_WINDOW_BYTES: u64 = 8 * 1024 * 1024;
/// Round-trip time assumed before the first measurement: a relay node that has just restarted is retried soon.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Maximum number of addresses tried per relay node.
const ADDRESSES_MAX: usize = 16;

/// A relay node: its endpoint id, which its connection proves, and its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Relay {
    /// Its iroh endpoint.
    pub endpoint: EndpointId,
    /// Socket addresses to try.
    pub addresses: Vec<SocketAddr>,
    /// URL for HTTPS, if it serves HTTPS: `https://host[:port]`, or `http://` on loopback.
    pub https_url: Option<String>,
}

impl Relay {
    /// Creates a relay node that is reached over UDP only.
    pub const fn new(endpoint: EndpointId, addresses: Vec<SocketAddr>) -> Self {
        Self {
            endpoint,
            addresses,
            https_url: None,
        }
    }

    /// Adds a URL for HTTPS: `https://host[:port]`, or `http://` on loopback.
    #[must_use]
    pub fn with_https_url(mut self, url: impl Into<String>) -> Self {
        self.https_url = Some(url.into());
        self
    }

    /// Converts a relay node of the directory. Addresses that are not `ip:port` are an error.
    pub fn from_directory(relay: &rest::Relay) -> Result<Self, RelayError> {
        let unusable = |problem: String| RelayError::Unreachable { reason: problem };
        if relay.addresses.is_empty() || relay.addresses.len() > ADDRESSES_MAX {
            return Err(unusable(format!(
                "relay {} has {} addresses",
                relay.endpoint,
                relay.addresses.len()
            )));
        }
        let addresses = relay
            .addresses
            .iter()
            .map(|address| {
                address.parse().map_err(|_| {
                    unusable(format!(
                        "relay {}: address `{}` is not ip:port",
                        relay.endpoint,
                        skytale_proto::shown(address, 80)
                    ))
                })
            })
            .collect::<Result<_, _>>()?;
        if let Some(Err(problem)) = relay.https_url.as_deref().map(rest::check_https_url) {
            return Err(unusable(format!(
                "relay {}: its URL for HTTPS {problem}",
                relay.endpoint
            )));
        }
        Ok(Self {
            endpoint: relay.endpoint,
            addresses,
            https_url: relay.https_url.clone(),
        })
    }

    pub(super) fn to_iroh(&self) -> Result<EndpointAddr, RelayError> {
        let id = iroh::EndpointId::from_bytes(self.endpoint.as_bytes()).map_err(|_| RelayError::Unreachable {
            reason: format!("{} is not a public key", self.endpoint),
        })?;
        Ok(EndpointAddr::from_parts(
            id,
            self.addresses
                .iter()
                .take(ADDRESSES_MAX)
                .copied()
                .map(TransportAddr::Ip),
        ))
    }
}

/// Network settings of an agent for connections to relay nodes.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetworkConfig {
    /// The local UDP address; `None` means any address and a free port.
    pub bind: Option<SocketAddr>,
    /// The transport of its QUIC connections.
    pub transport: Transport,
    /// Root certificates (DER) accepted for a relay node's HTTPS, besides Mozilla's roots.
    pub roots: Vec<Vec<u8>>,
}

impl NetworkConfig {
    /// Creates settings with a local UDP address.
    pub fn bound_to(address: SocketAddr) -> Self {
        Self {
            bind: Some(address),
            ..Self::default()
        }
    }

    /// Sets the transport of its QUIC connections.
    #[must_use]
    pub const fn with_transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// Sets root certificates (DER) accepted for a relay node's HTTPS, besides Mozilla's roots.
    #[must_use]
    pub fn with_roots(mut self, roots: Vec<Vec<u8>>) -> Self {
        self.roots = roots;
        self
    }
}

impl fmt::Debug for NetworkConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkConfig")
            .field("bind", &self.bind)
            .field("transport", &self.transport)
            .field("roots", &self.roots.len())
            .finish()
    }
}

/// The local iroh endpoint. It only connects, accepts nothing, and uses no discovery server.
#[derive(Clone)]
pub struct Endpoint {
    pub(super) inner: iroh::Endpoint,
    pub(super) patience: Duration,
    /// Whether no other relay node accepts this side: a node that redirects agents is to serve it.
    pub(super) last_resort: bool,
    secret_key: Arc<Zeroizing<[u8; 32]>>,
    pub(super) network: Arc<NetworkConfig>,
    /// Whether the last connection succeeded over HTTPS, and not over UDP.
    pub(super) is_udp_blocked: Arc<AtomicBool>,
}

fn builder(secret_key: &Zeroizing<[u8; 32]>) -> Builder {
    let transport = QuicTransportConfig::builder()
        // Only the agent opens streams.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None)
        .initial_rtt(INITIAL_RTT)
        .build();
    iroh::Endpoint::builder(presets::Minimal)
        .secret_key(iroh::SecretKey::from_bytes(secret_key))
        .transport_config(transport)
}

impl Endpoint {
    /// Binds an endpoint with a secret key of 32 bytes, which is its identity towards relay nodes.
    pub async fn bind(secret_key: &Zeroizing<[u8; 32]>, network: NetworkConfig) -> Result<Self, RelayError> {
        let unusable = |error: &dyn fmt::Display| RelayError::Local {
            code: Code::Environment,
            reason: format!("endpoint not bound: {error}"),
        };
        let mut builder = builder(secret_key);
        if let Some(address) = network.bind {
            builder = builder
                .clear_ip_transports()
                .bind_addr(address)
                .map_err(|error| unusable(&error))?;
        }
        let inner = builder.bind().await.map_err(|error| unusable(&error))?;
        Ok(Self {
            inner,
            patience: PATIENCE,
            last_resort: false,
            secret_key: Arc::new(secret_key.clone()),
            network: Arc::new(network),
            is_udp_blocked: Arc::default(),
        })
    }

    /// Returns a builder for another endpoint with the same key.
    pub(super) fn builder(&self) -> Builder {
        builder(&self.secret_key)
    }

    /// Sets how long a relay node may owe an answer, in sessions that start from now on: see
    /// [`Session::overdue`](super::Session::overdue).
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Allows sessions with relay nodes that would redirect this side ([`Code::ClockWrong`]): no other node accepts it.
    #[must_use]
    pub const fn as_last_resort(mut self) -> Self {
        self.last_resort = true;
        self
    }

    /// Returns its id.
    pub fn id(&self) -> EndpointId {
        EndpointId::from_bytes(*self.inner.id().as_bytes())
    }

    /// Closes the endpoint and all its connections; waits until the peers know.
    pub async fn close(&self) {
        self.inner.close().await;
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("id", &self.id())
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}
