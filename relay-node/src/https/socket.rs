//! A WebSocket (RFC 6455) that carries frames of iroh's relay protocol, one a binary message.

use super::frame::{Asks, asks};
use bytes::Bytes;
use futures_util::{Sink, Stream};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use iroh_relay::ExportKeyingMaterial;
use iroh_relay::protos::streams::StreamError;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::OwnedSemaphorePermit;
use tokio_websockets::{Limits, Message, Payload, ServerBuilder, WebSocketStream};

/// The longest message, in bytes: iroh's largest packet is 64 KiB.
const MESSAGE_BYTES_MAX: usize = 128 * 1024;

/// One, with its place among the connections.
pub(super) struct Socket {
    inner: WebSocketStream<TokioIo<Upgraded>>,
    /// The only endpoint that its client reaches; `None`: everyone who is connected.
    reaches: Option<[u8; 32]>,
    _place: OwnedSemaphorePermit,
}

/// A client that asked for something forbidden.
#[derive(Debug, thiserror::Error)]
#[error("a frame for another endpoint than this node's, or one that cannot be read")]
struct Misused;

impl Socket {
    pub(super) fn new(io: Upgraded, reaches: Option<[u8; 32]>, place: OwnedSemaphorePermit) -> Self {
        let limits = Limits::default().max_payload_len(Some(MESSAGE_BYTES_MAX));
        Self {
            inner: ServerBuilder::new().limits(limits).serve(TokioIo::new(io)),
            reaches,
            _place: place,
        }
    }

    fn may(&self, frame: &[u8]) -> bool {
        let Some(only) = self.reaches else { return true };
        match asks(frame) {
            Asks::Bring(endpoint) => endpoint == only,
            Asks::Other => true,
            Asks::Malformed => false,
        }
    }
}

impl Stream for Socket {
    type Item = Result<Bytes, StreamError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(Pin::new(&mut self.inner).poll_next(context)) {
                Some(Ok(message)) if message.is_close() => return Poll::Ready(None),
                Some(Ok(message)) if message.is_binary() => {
                    let frame: Bytes = message.into_payload().into();
                    if !self.may(&frame) {
                        return Poll::Ready(Some(Err(StreamError::from_std(Misused))));
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                // Pings are answered by the WebSocket itself; iroh sends no text.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(StreamError::from_std(error)))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Sink<Bytes> for Socket {
    type Error = StreamError;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Pin::new(&mut self.inner)
            .poll_ready(context)
            .map_err(StreamError::from_std)
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Bytes) -> Result<(), StreamError> {
        let message = Message::binary(Payload::from(frame));
        Pin::new(&mut self.inner)
            .start_send(message)
            .map_err(StreamError::from_std)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Pin::new(&mut self.inner)
            .poll_flush(context)
            .map_err(StreamError::from_std)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Pin::new(&mut self.inner)
            .poll_close(context)
            .map_err(StreamError::from_std)
    }
}

/// Nothing of TLS is known here, so a client proves its key by signing a challenge instead.
impl ExportKeyingMaterial for Socket {
    fn export_keying_material<T: AsMut<[u8]>>(&self, _: T, _: &[u8], _: Option<&[u8]>) -> Option<T> {
        None
    }
}
