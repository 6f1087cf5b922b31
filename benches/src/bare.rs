//! The limit on the network: an iroh endpoint that echoes, or sends as many bytes as it is asked for.

use crate::client::{drain, endpoint};
use anyhow::ensure;
use bytes::Bytes;
use iroh::endpoint::{Connection, RecvStream, SendStream};
use iroh::{Endpoint, EndpointAddr};
use std::sync::Arc;
use tokio::task::JoinHandle;

const ALPN: &[u8] = b"skytale/bench/1";
/// Asks for everything that is sent to come back.
const ECHO: u64 = u64::MAX;
/// Bytes written at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// An endpoint that serves [`Bare`] clients.
#[derive(Debug)]
pub struct BareServer {
    endpoint: Endpoint,
    accepting: JoinHandle<()>,
}

/// A connection to a [`BareServer`].
#[derive(Debug)]
pub struct Bare {
    connection: Connection,
    _endpoint: Endpoint,
}

/// A stream on which everything comes back.
#[derive(Debug)]
pub struct Echo {
    send: SendStream,
    receive: RecvStream,
}

impl BareServer {
    /// Starts one on a free loopback port, with iroh's own settings.
    pub async fn start() -> anyhow::Result<Self> {
        let endpoint = endpoint(vec![ALPN.to_vec()]).await?;
        let accepting = tokio::spawn(accept(endpoint.clone()));
        Ok(Self { endpoint, accepting })
    }

    /// Returns its address.
    pub fn address(&self) -> EndpointAddr {
        let sockets = self.endpoint.bound_sockets().into_iter();
        sockets.fold(EndpointAddr::new(self.endpoint.id()), EndpointAddr::with_ip_addr)
    }
}

impl Drop for BareServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Bare {
    /// A connection to a server from an endpoint of its own.
    pub async fn connect(server: EndpointAddr) -> anyhow::Result<Self> {
        let endpoint = endpoint(Vec::new()).await?;
        let connection = endpoint.connect(server, ALPN).await?;
        Ok(Self {
            connection,
            _endpoint: endpoint,
        })
    }

    /// Asks for a stream of so many bytes, and reads all of them.
    pub async fn receive(&self, bytes: u64) -> anyhow::Result<()> {
        let (mut send, mut receive) = self.connection.open_bi().await?;
        send.write_all(&bytes.to_be_bytes()).await?;
        ensure!(drain(&mut receive).await? == bytes, "all bytes arrive");
        Ok(())
    }

    /// Opens a stream on which everything comes back.
    pub async fn echo(&self) -> anyhow::Result<Echo> {
        let (mut send, receive) = self.connection.open_bi().await?;
        send.write_all(&ECHO.to_be_bytes()).await?;
        Ok(Echo { send, receive })
    }
}

impl Echo {
    /// Sends bytes, and waits until as many have come back.
    pub async fn round_trip(&mut self, bytes: Bytes) -> anyhow::Result<()> {
        let mut left = bytes.len();
        self.send.write_chunk(bytes).await?;
        while left > 0 {
            let chunk = self.receive.read_chunk(left).await?;
            let length = chunk.map_or(0, |chunk| chunk.len());
            ensure!(length > 0, "the echo goes on");
            left -= length;
        }
        Ok(())
    }
}

async fn accept(endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            if let Ok(connection) = incoming.await {
                serve(connection).await;
            }
        });
    }
}

/// Serves a connection until it is gone.
async fn serve(connection: Connection) {
    let chunk = Arc::new(Bytes::from(vec![0x5a; CHUNK_BYTES]));
    while let Ok((send, receive)) = connection.accept_bi().await {
        let chunk = chunk.clone();
        tokio::spawn(async move {
            // A client that is gone needs no answer.
            let _ = answer(send, receive, &chunk).await;
        });
    }
}

async fn answer(mut send: SendStream, mut receive: RecvStream, chunk: &Bytes) -> anyhow::Result<()> {
    let mut asked = [0; 8];
    receive.read_exact(&mut asked).await?;
    let asked = u64::from_be_bytes(asked);
    if asked == ECHO {
        while let Some(bytes) = receive.read_chunk(CHUNK_BYTES).await? {
            send.write_chunk(bytes).await?;
        }
        return Ok(());
    }
    let mut left = asked;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        send.write_chunk(chunk.slice(..length)).await?;
        left -= length as u64;
    }
    send.finish()?;
    Ok(())
}
