//! The API behind a listener: HTTP/1.1, bounded in connections and in the time a head may take.

use crate::admin;
use crate::config::ApiConfig;
use crate::places::{Place, Places};
use crate::request::Peer;
use crate::service::{Service, StartError};
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use secrecy::SecretString;
use skytale_http::Connection;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

/// Maximum time for requests under way when the API stops.
const DRAIN: Duration = Duration::from_secs(10);
/// Maximum lifetime of a connection. Clients open another; one that does not read its answers is not kept for ever.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(600);
/// Pause after the system refused a connection (no file descriptor left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The API, listening.
pub struct Api {
    service: Service,
    local_addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
    /// No new connections.
    stop: CancellationToken,
    /// Connections that are still open are cut.
    cut: CancellationToken,
    tasks: TaskTracker,
}

impl Api {
    /// Opens the service and listens.
    pub async fn start(config: ApiConfig) -> Result<Self, StartError> {
        config.check()?;
        let listen = config.listen;
        let limits = config.limits.clone();
        let (listener, local_addr) = bind("api.listen", listen).await?;
        let admin = match config.admin.enabled {
            true => Some(bind("api.admin.listen", config.admin.listen).await?),
            false => None,
        };
        let service = Service::open(config).await?;
        let api = Self {
            local_addr,
            admin_addr: admin.as_ref().map(|(_, address)| *address),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
            tasks: TaskTracker::new(),
            service,
        };
        let accept = Accept {
            router: api.service.router(),
            head_timeout: limits.head_timeout,
            places: Places::new(limits.connections_max),
            stop: api.stop.clone(),
            cut: api.cut.clone(),
            tasks: api.tasks.clone(),
        };
        api.tasks.spawn(accept.run(listener));
        if let Some((listener, _)) = admin {
            api.tasks
                .spawn(admin::serve(listener, api.service.clone(), api.stop.clone()));
        }
        tracing::info!(%local_addr, "API listening");
        Ok(api)
    }

    /// Returns the address on which it listens.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Returns the address of its admin port, if it has one.
    pub const fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// The service behind it.
    pub const fn service(&self) -> &Service {
        &self.service
    }

    /// The operator's secret: the one configured, or in dev the one made up.
    pub fn admin_secret(&self) -> &SecretString {
        self.service.admin_secret()
    }

    /// The relay nodes' secret: the one configured, or in dev the one made up.
    pub fn relay_secret(&self) -> &SecretString {
        self.service.relay_secret()
    }

    /// Takes no more requests, lets those under way end (10 seconds at most), and closes the database.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(DRAIN, self.tasks.wait()).await.is_err() {
            tracing::warn!("requests are cut: they took too long");
            self.cut.cancel();
            self.tasks.wait().await;
        }
        self.service.close().await;
    }
}

impl Drop for Api {
    /// Without a shutdown, at least nobody is served any more.
    fn drop(&mut self) {
        self.stop.cancel();
        self.cut.cancel();
        self.service.stop();
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

async fn bind(key: &str, listen: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let unusable = |error| StartError::environment(&format!("`{key}` {listen} cannot be used"), error);
    let listener = TcpListener::bind(listen).await.map_err(unusable)?;
    let address = listener.local_addr().map_err(unusable)?;
    Ok((listener, address))
}

#[derive(Clone)]
struct Accept {
    router: Router,
    head_timeout: Duration,
    places: Places,
    stop: CancellationToken,
    cut: CancellationToken,
    tasks: TaskTracker,
}

impl Accept {
    async fn run(self, listener: TcpListener) {
        loop {
            // At the limit the next connection waits in the system's own queue, which is bounded too.
            let free = tokio::select! {
                () = self.stop.cancelled() => return,
                free = self.places.free() => free,
            };
            let Some(free) = free else { return };
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let place = self.places.take(peer.ip(), free);
                    self.tasks.spawn(self.clone().serve(stream, Peer(peer), place));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve(self, stream: TcpStream, peer: Peer, place: Place) {
        // Small answers go out at once; where this cannot be set they come a little later.
        let _ = stream.set_nodelay(true);
        let router = self.router;
        // Requests of a connection come one after the other.
        let is_busy = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&is_busy);
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(peer);
            asked.store(true, Ordering::Relaxed);
            let (answer, asked) = (
                router.clone().oneshot(request.map(axum::body::Body::new)),
                Arc::clone(&asked),
            );
            async move {
                let answer = answer.await;
                asked.store(false, Ordering::Relaxed);
                answer
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_timeout)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(Connection::new(stream)), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = self.stop.cancelled() => None,
            () = tokio::time::sleep(CONNECTION_LIFETIME) => None,
            () = place.gives_way() => {
                if !is_busy.load(Ordering::Relaxed) {
                    return;
                }
                None
            }
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = self.cut.cancelled() => return,
                    () = tokio::time::sleep(DRAIN) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}
