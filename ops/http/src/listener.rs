//! A listener whose connections are [`Connection`]s, for [`axum::serve`].

use crate::connection::Connection;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Pause after the system refused a connection (no file descriptor left, mostly).
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections that answer other bytes than HTTP with a problem document.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Makes one over a socket that listens.
    pub const fn new(listener: TcpListener) -> Self {
        Self(listener)
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok((stream, peer)) => return (Connection::new(stream), peer),
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
