//! TCP and TLS: connections as tonic takes them.

use crate::auth::Shown;
use crate::error::BridgeError;
use crate::metrics;
use parking_lot::Mutex;
use ring::digest;
use skytale_http::addresses::{Addresses, Begun, Entry};
use skytale_proto::Code;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tonic::transport::server::Connected;

/// Handshakes that are done and wait for the server.
const ACCEPTED_MAX: usize = 64;
/// Pause after an accept that failed: out of file descriptors, perhaps.
const PAUSE: Duration = Duration::from_millis(50);

/// Peer on the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) shown: Shown,
    #[allow(dead_code)] // For the request's debug output.
    pub(crate) address: SocketAddr,
    waits: Arc<Waits>,
}

impl Peer {
    /// A link of the connection was admitted: until it ends, whose the connection is, is known.
    pub(crate) fn admitted(&self) -> Linked {
        let mut links = self.waits.links.lock();
        links.count += 1;
        links.begun = None;
        Linked(Arc::clone(&self.waits))
    }
}

/// A connection among those of its network that have no link.
#[derive(Debug)]
struct Waits {
    addresses: Addresses,
    address: IpAddr,
    links: Mutex<Links>,
    /// Cancelled when the network has no place for a connection whose last link has ended.
    ended: CancellationToken,
}

#[derive(Debug)]
struct Links {
    count: usize,
    /// Held while there is none.
    begun: Option<Begun>,
}

/// A link of a connection. When the last one is dropped, the connection counts as one without a link again.
#[derive(Debug)]
pub(crate) struct Linked(Arc<Waits>);

impl Drop for Linked {
    fn drop(&mut self) {
        let mut links = self.0.links.lock();
        links.count -= 1;
        if links.count > 0 {
            return;
        }
        match self.0.addresses.enter(self.0.address, true) {
            Entry::Begun(begun) => links.begun = Some(begun),
            Entry::Full | Entry::Unproven => self.0.ended.cancel(),
        }
    }
}

/// A connection that is ready for HTTP/2.
#[derive(Debug)]
pub(crate) struct Io {
    stream: Kind,
    peer: Peer,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Kind {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Io {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ended.as_mut().poll(context).is_ready() {
            // As if the client had ended it.
            return Poll::Ready(Ok(()));
        }
        match &mut self.stream {
            Kind::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Kind::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Kind::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Kind::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Kind::Plain(stream) => Pin::new(stream).poll_flush(context),
            Kind::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Kind::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Kind::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

pub(crate) struct Listening {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) connections_max: usize,
    pub(crate) addresses: Addresses,
    pub(crate) handshake: Duration,
}

pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, BridgeError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| BridgeError::Environment {
            problem: format!("cannot listen on {address}: {error}"),
        })
}

/// Accepts connections; each does its handshake by itself, so that a slow one delays no other.
pub(crate) fn accept(
    listening: Listening,
    tasks: &TaskTracker,
    stop: CancellationToken,
    closed: DropGuard,
) -> mpsc::Receiver<io::Result<Io>> {
    let (sender, accepted) = mpsc::channel(ACCEPTED_MAX);
    let handshakes = tasks.clone();
    let places = Arc::new(Semaphore::new(listening.connections_max));
    tasks.spawn(async move {
        // Locals go in the reverse order: it is said when the listener is gone.
        let _closed = closed;
        let listening = listening;
        loop {
            let place = tokio::select! {
                () = stop.cancelled() => return,
                place = Arc::clone(&places).acquire_owned() => match place {
                    Ok(place) => place,
                    Err(_) => return,
                },
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listening.listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "connection not accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Entry::Begun(waits) = listening.addresses.enter(address.ip(), true) else {
                tracing::debug!(%address, "the network has as many connections without a link as it may have");
                metrics::refused(Code::AddressConnections);
                continue;
            };
            let _ = stream.set_nodelay(true);
            let (tls, sender) = (listening.tls.clone(), sender.clone());
            let (within, stop) = (listening.handshake, stop.clone());
            let waits = Waits {
                addresses: listening.addresses.clone(),
                address: address.ip(),
                links: Mutex::new(Links {
                    count: 0,
                    begun: Some(waits),
                }),
                ended: CancellationToken::new(),
            };
            handshakes.spawn(async move {
                let ready = tokio::select! {
                    () = stop.cancelled() => return,
                    ready = tokio::time::timeout(within, handshake(stream, tls)) => ready,
                };
                match ready {
                    Ok(Ok((stream, shown))) => {
                        let io = Io {
                            stream,
                            ended: Box::pin(waits.ended.clone().cancelled_owned()),
                            peer: Peer {
                                shown,
                                address,
                                waits: Arc::new(waits),
                            },
                            _place: place,
                        };
                        let _ = sender.send(Ok(io)).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%error, %address, "no TLS connection"),
                    Err(_) => tracing::debug!(%address, "no TLS connection in time"),
                }
            });
        }
    });
    accepted
}

async fn handshake(stream: TcpStream, tls: Option<TlsAcceptor>) -> io::Result<(Kind, Shown)> {
    let Some(tls) = tls else {
        return Ok((Kind::Plain(stream), Shown::default()));
    };
    let stream = tls.accept(stream).await?;
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|certificates| certificates.first())
        .map(|certificate| {
            let mut hash = [0; 32];
            hash.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
            hash
        });
    Ok((Kind::Tls(Box::new(stream)), Shown { certificate }))
}
