//! HTTPS: the way to this node for agents whose network lets no UDP through.
//!
//! ```text
//!  agent's endpoint ──TLS, WebSocket──> this server ──WebSocket on loopback──> this node's endpoint
//!        └─────────────── QUIC, encrypted end to end, in datagrams ───────────────┘
//! ```
//!
//! It speaks iroh's relay protocol (crate `iroh-relay`), with two rules of its own. An agent is let in with a token
//! that holds and is bound to the endpoint that it proves to have; and it reaches this node alone. So it is no proxy:
//! its traffic ends in a session of this node, under the same checks and limits as over UDP.
//!
//! [`frame`] is pure; [`admission`] says who is let in and until when, [`socket`] carries frames, [`serve`] accepts.

mod admission;
mod frame;
mod serve;
mod socket;

use crate::config::HttpsConfig;
use crate::node::Shared;
use admission::Table;
use iroh::{EndpointId, RelayUrl};
use iroh_relay::KeyCache;
use iroh_relay::server::Metrics;
use iroh_relay::server::clients::Clients;
use rustls::crypto::ring::default_provider;
use skytale_certificate::Reloading;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Public keys that need not be parsed again.
const KEYS_MAX: usize = 4_096;

/// An HTTPS port that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// The port cannot be bound.
    #[error("cannot serve HTTPS on {listen}: {source}")]
    Bind {
        /// The address.
        listen: SocketAddr,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("cannot use the certificate in https.certificate_file and https.key_file: {problem}")]
    Certificate {
        /// The reason.
        problem: String,
    },
}

/// The ports, bound: the node's endpoint needs its own one before anything is served.
pub(crate) struct Bound {
    public: TcpListener,
    /// The address.
    at: SocketAddr,
    tls: Option<TlsAcceptor>,
    reloading: Option<Arc<Reloading>>,
    /// Listener for the node's own endpoint.
    own: TcpListener,
    /// URL for agents, in the relay directory.
    url: String,
    own_url: RelayUrl,
    connections_max: usize,
}

impl Bound {
    /// `None` where HTTPS is not wanted.
    pub(crate) async fn bind(config: &HttpsConfig) -> Result<Option<Self>, HttpsError> {
        let Some(listen) = config.listen else { return Ok(None) };
        let (tls, reloading) = match (&config.certificate_file, &config.key_file) {
            (Some(certificate), Some(key)) => {
                let unusable = |error: &dyn std::fmt::Display| HttpsError::Certificate {
                    problem: error.to_string(),
                };
                let provider = Arc::new(default_provider());
                let reloading = Reloading::load(certificate, key).map_err(|error| unusable(&error))?;
                let mut server = rustls::ServerConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .map_err(|error| unusable(&error))?
                    .with_no_client_auth()
                    .with_cert_resolver(Arc::clone(&reloading) as _);
                server.alpn_protocols = vec![b"http/1.1".to_vec()];
                (Some(TlsAcceptor::from(Arc::new(server))), Some(reloading))
            }
            _ => (None, None),
        };
        let bind = async |listen| {
            let error = |source| HttpsError::Bind { listen, source };
            let listener = TcpListener::bind(listen).await.map_err(error)?;
            let at = listener.local_addr().map_err(error)?;
            Ok::<_, HttpsError>((listener, at))
        };
        let (public, at) = bind(listen).await?;
        let (own, own_at) = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let own_url = format!("http://{own_at}").parse().map_err(|error| HttpsError::Bind {
            listen: own_at,
            source: std::io::Error::other(error),
        })?;
        Ok(Some(Self {
            public,
            at,
            tls,
            reloading,
            own,
            url: config.url.clone().unwrap_or_else(|| format!("http://{at}")),
            own_url,
            connections_max: config.connections_max as usize,
        }))
    }

    /// Returns the URL at which the node's own endpoint reaches this server.
    pub(crate) const fn own_url(&self) -> &RelayUrl {
        &self.own_url
    }
}

/// The server, as long as the node runs.
#[derive(Clone, Debug)]
pub(crate) struct Https {
    url: Arc<str>,
    at: SocketAddr,
    clients: Clients,
    table: Arc<Table>,
    metrics: Arc<Metrics>,
}

/// Traffic of the server, for an operator.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) connections: usize,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
}

impl Https {
    /// Serves until `stop`.
    pub(crate) fn start(
        bound: Bound,
        node: Arc<Shared>,
        own: EndpointId,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let https = Self {
            url: bound.url.into(),
            at: bound.at,
            clients: Clients::default(),
            table: Arc::default(),
            metrics: Arc::default(),
        };
        let server = |whom| {
            Arc::new(serve::Server {
                node: node.clone(),
                whom,
                own,
                clients: https.clients.clone(),
                table: https.table.clone(),
                keys: KeyCache::new(KEYS_MAX),
                metrics: https.metrics.clone(),
                stop: stop.clone(),
                tasks: tasks.clone(),
            })
        };
        if let Some(reloading) = bound.reloading {
            tasks.spawn(reloading.watch(stop.clone()));
        }
        tasks.spawn(server(serve::Whom::Agents).accept(bound.public, bound.tls, bound.connections_max));
        tasks.spawn(server(serve::Whom::Own).accept(bound.own, None, serve::OWN_CONNECTIONS_MAX));
        tasks.spawn(admission::keep(
            https.table.clone(),
            https.clients.clone(),
            node,
            stop.clone(),
        ));
        https
    }

    /// Returns the URL for agents.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The port.
    pub(crate) const fn at(&self) -> SocketAddr {
        self.at
    }

    pub(crate) fn traffic(&self) -> Traffic {
        Traffic {
            connections: self.table.len(),
            bytes_received: self.metrics.bytes_recv.get(),
            bytes_sent: self.metrics.bytes_sent.get(),
        }
    }

    /// Ends every connection.
    pub(crate) async fn shutdown(&self) {
        self.clients.shutdown().await;
    }
}
