//! The local endpoint, and where relay nodes are.

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

/// What one stream buffers before the relay must wait, in bytes. One message may be longer.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// The same for all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 32 * 1024 * 1024;
/// Unacknowledged bytes out.
const SEND_WINDOW_BYTES: u64 = 8 * 1024 * 1024;
/// The round trip that is assumed before one was measured: a relay node that has just come back is asked once more soon.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Addresses of one relay node that are tried.
const ADDRESSES_MAX: usize = 16;

/// A relay node: its endpoint id, which its connection proves, and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Relay {
    /// Its iroh endpoint.
    pub endpoint: EndpointId,
    /// Socket addresses to try.
    pub addresses: Vec<SocketAddr>,
    /// Where it is reached over HTTPS, if it is: `https://host[:port]`, or `http://` on loopback.
    pub https_url: Option<String>,
}

impl Relay {
    /// Over UDP alone.
    pub const fn new(endpoint: EndpointId, addresses: Vec<SocketAddr>) -> Self {
        Self {
            endpoint,
            addresses,
            https_url: None,
        }
    }

    /// Over HTTPS, too: `https://host[:port]`, or `http://` on loopback.
    #[must_use]
    pub fn with_https_url(mut self, url: impl Into<String>) -> Self {
        self.https_url = Some(url.into());
        self
    }

    /// As the directory has it. Addresses that are not `ip:port` are an error.
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

/// How an agent reaches relay nodes.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetworkConfig {
    /// The local UDP address; `None` is any address and a free port.
    pub bind: Option<SocketAddr>,
    /// What carries its QUIC.
    pub transport: Transport,
    /// Certificates (DER) that a relay node's HTTPS may lead to, beside Mozilla's roots.
    pub roots: Vec<Vec<u8>>,
}

impl NetworkConfig {
    /// From a local UDP address.
    pub fn bound_to(address: SocketAddr) -> Self {
        Self {
            bind: Some(address),
            ..Self::default()
        }
    }

    /// With what carries its QUIC.
    #[must_use]
    pub const fn with_transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// With certificates (DER) that a relay node's HTTPS may lead to, beside Mozilla's roots.
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

/// The local iroh endpoint. It connects and accepts nothing, and asks no other server where anyone is.
#[derive(Clone)]
pub struct Endpoint {
    pub(super) inner: iroh::Endpoint,
    pub(super) patience: Duration,
    /// No other relay node takes this side: one that sends agents elsewhere is to serve it.
    pub(super) last_resort: bool,
    secret_key: Arc<Zeroizing<[u8; 32]>>,
    pub(super) network: Arc<NetworkConfig>,
    /// The last connection stood over HTTPS, and not over UDP.
    pub(super) is_udp_blocked: Arc<AtomicBool>,
}

fn builder(secret_key: &Zeroizing<[u8; 32]>) -> Builder {
    let transport = QuicTransportConfig::builder()
        // The relay opens no stream: the agent does.
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

    /// Another endpoint with the same key.
    pub(super) fn builder(&self) -> Builder {
        builder(&self.secret_key)
    }

    /// How long a relay node may owe an answer, in sessions that begin from now on: see [`Session::overdue`](super::Session::overdue).
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// For sessions with relay nodes that would send this side elsewhere ([`Code::ClockWrong`]): there is no other that takes it.
    #[must_use]
    pub const fn as_last_resort(mut self) -> Self {
        self.last_resort = true;
        self
    }

    /// Its id.
    pub fn id(&self) -> EndpointId {
        EndpointId::from_bytes(*self.inner.id().as_bytes())
    }

    /// Closes it and every connection of it; waits until the other sides know.
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
