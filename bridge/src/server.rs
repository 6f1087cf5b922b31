//! The bridge as it runs: started, served, stopped in order.

use crate::admin;
use crate::auth::{Auth, AuthConfig};
use crate::config::{ADDRESS_CONNECTIONS_MAX, BridgeConfig};
use crate::error::BridgeError;
use crate::hub::Hub;
use crate::service::DataPlane;
use crate::tls::TlsConfig;
use crate::transport::{self, Listening};
use crate::wire::DESCRIPTORS;
use skytale_http::RenderMetrics;
use skytale_http::addresses::Addresses;
use skytale_sdk::internals::raw::RawClient;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

/// Maximum time for links to end when the bridge stops.
const DRAIN: Duration = Duration::from_secs(5);
/// Interval between checks whether there is a relay node.
const HEALTH: Duration = Duration::from_millis(500);

/// A running bridge.
#[derive(Debug)]
pub struct Bridge {
    hub: Arc<Hub>,
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    /// Cancelled: the listener is to be closed.
    listening: CancellationToken,
    /// Cancelled: it is closed.
    closed: CancellationToken,
    accepting: CancellationToken,
    /// The server's own tasks; links are the hub's.
    tasks: TaskTracker,
}

impl Bridge {
    /// Listens, and works with the relay through `client`. Without TLS it listens on loopback alone; so it does when it lets
    /// everyone in.
    pub async fn start(
        config: BridgeConfig,
        auth: AuthConfig,
        tls: Option<TlsConfig>,
        client: RawClient,
        metrics: Option<RenderMetrics>,
    ) -> Result<Self, BridgeError> {
        if let Some(problem) = config.problems_with(&auth, tls.as_ref()).into_iter().next() {
            return Err(problem);
        }
        crate::metrics::begin();
        let (tls, reloading) = match tls {
            Some(tls) => {
                let (server, reloading) = tls.server()?;
                (Some(TlsAcceptor::from(server)), Some(reloading))
            }
            None => (None, None),
        };
        let listener = transport::bind(config.listen).await?;
        let address = listener.local_addr().map_err(|error| BridgeError::Environment {
            problem: format!("no local address: {error}"),
        })?;
        let (limits, times) = (config.limits.clone(), config.times.clone());
        let exchange = config.exchange;
        let admin = match config.admin_listen {
            Some(address) => Some(transport::bind(address).await?),
            None => None,
        };
        let admin_address = admin.as_ref().and_then(|listener| listener.local_addr().ok());
        let hub = Hub::new(config, client).map_err(|error| BridgeError::Environment {
            problem: format!("no randomness: {error}"),
        })?;
        let (tasks, accepting) = (TaskTracker::new(), CancellationToken::new());
        let (listening, closed) = (CancellationToken::new(), CancellationToken::new());
        let incoming = transport::accept(
            Listening {
                listener,
                tls,
                connections_max: limits.connections_max,
                addresses: Addresses::new(limits.address_connections_max, ADDRESS_CONNECTIONS_MAX),
                handshake: times.negotiation(),
            },
            &tasks,
            listening.clone(),
            closed.clone().drop_guard(),
        );
        if let Some(reloading) = reloading {
            tasks.spawn(reloading.watch(accepting.clone()));
        }
        if let Some(listener) = admin {
            tasks.spawn(admin::serve(listener, Arc::clone(&hub), metrics));
        }
        tasks.spawn(Arc::clone(&hub).sweep());
        if exchange {
            tasks.spawn(follow_exchange(Arc::clone(&hub)));
        }
        let (reporter, health) = tonic_health::server::health_reporter();
        tasks.spawn(report(reporter, Arc::clone(&hub)));
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|error| BridgeError::Environment {
                problem: format!("no reflection: {error}"),
            })?;
        let service = DataPlane {
            hub: Arc::clone(&hub),
            auth: Arc::new(Auth::new(auth, times.key())),
        };
        let server = Server::builder()
            .max_concurrent_streams(Some(limits.streams_max))
            .http2_max_header_list_size(Some(limits.header_list_bytes_max))
            .http2_max_pending_accept_reset_streams(Some(limits.resets_max))
            .http2_keepalive_interval(Some(Duration::from_millis(times.keepalive_ms)))
            .http2_keepalive_timeout(Some(Duration::from_millis(times.keepalive_timeout_ms)))
            .initial_stream_window_size(Some(256 * 1024))
            .initial_connection_window_size(Some(1024 * 1024))
            .add_service(health)
            .add_service(reflection)
            .add_service(service);
        let stopped = accepting.clone();
        let served = server.serve_with_incoming_shutdown(ReceiverStream::new(incoming), async move {
            stopped.cancelled().await;
        });
        tasks.spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the gRPC server has ended");
            }
        });
        Ok(Self {
            hub,
            address,
            admin_address,
            listening,
            closed,
            accepting,
            tasks,
        })
    }

    /// Returns the address on which it listens.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address of admin HTTP.
    pub const fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Links that are up.
    pub fn links(&self) -> usize {
        self.hub.links()
    }

    /// Whether there is a session with a relay node.
    pub fn is_ready(&self) -> bool {
        self.hub.client.is_connected()
    }

    /// Whether transient frames come from other bridges, and go to them.
    pub fn is_exchanging(&self) -> bool {
        self.hub.is_exchanging()
    }

    /// Takes no new links, and returns when nobody listens any more. Links that are up go on for a moment: their clients hear
    /// of it by [`Bridge::shutdown`].
    pub async fn stop_listening(&self) {
        self.listening.cancel();
        self.closed.cancelled().await;
    }

    /// Stops: takes no new links, ends those that exist with a status, writes the frames that they have received.
    ///
    /// The listener is closed before links end: a SLIM client comes back at once, and gives up for good where it is let
    /// in and cut off.
    pub async fn shutdown(self) {
        let _ = tokio::time::timeout(DRAIN, self.stop_listening()).await;
        self.hub.stop.cancel();
        self.accepting.cancel();
        self.hub.tasks.close();
        // Tasks of open channels end with their channels.
        let _ = tokio::time::timeout(DRAIN, self.hub.flush()).await;
        self.tasks.close();
        if tokio::time::timeout(DRAIN, self.tasks.wait()).await.is_err() {
            tracing::warn!("links were still open at the end");
        }
        self.hub.client.close().await;
    }
}

async fn follow_exchange(hub: Arc<Hub>) {
    while let Err(refusal) = Arc::clone(&hub).follow_exchange().await {
        tracing::warn!(code = %refusal.code(), %refusal, "the exchange with other bridges has ended");
        tokio::select! {
            () = hub.stop.cancelled() => return,
            () = tokio::time::sleep(DRAIN) => {}
        }
        if hub.stop.is_cancelled() {
            return;
        }
    }
}

/// Says whether there is a relay node to work with.
async fn report(reporter: tonic_health::server::HealthReporter, hub: Arc<Hub>) {
    let mut told = None;
    loop {
        let up = hub.client.is_connected();
        if told.replace(up) != Some(up) {
            if up {
                reporter.set_serving::<DataPlane>().await;
            } else {
                reporter.set_not_serving::<DataPlane>().await;
            }
        }
        tokio::select! {
            () = hub.stop.cancelled() => return reporter.set_not_serving::<DataPlane>().await,
            () = tokio::time::sleep(HEALTH) => {}
        }
    }
}
