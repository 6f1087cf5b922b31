//! Messages on a stream, bounded.

use super::activity::Activity;
use super::error::{Refused, RelayError};
use super::patience::Owed;
use bytes::{Buf, Bytes, BytesMut};
use iroh::endpoint::{ReadError, RecvStream, SendStream, WriteError};
use prost::Message;
use skytale_proto::session::{self, LENGTH_BYTES};
use skytale_proto::{Code, Offset};

/// Bytes per read from the stream.
const CHUNK_BYTES: usize = 256 * 1024;

/// Reads messages from a stream. The buffer grows with the received bytes, never with an announced length.
#[derive(Debug)]
pub(super) struct MessageReader {
    stream: RecvStream,
    buffer: BytesMut,
    limit: usize,
    activity: Activity,
    owed: Owed,
}

impl MessageReader {
    /// Creates a reader; `limit` bounds one message, in bytes.
    pub(super) fn new(stream: RecvStream, limit: usize, activity: Activity, owed: Owed) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            limit,
            activity,
            owed,
        }
    }

    /// Returns the answer that the relay owes on this stream.
    pub(super) const fn owed(&mut self) -> &mut Owed {
        &mut self.owed
    }

    /// Reads the next message; `None` if the stream ended after one. Cancel-safe: bytes read so far are kept.
    pub(super) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, RelayError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(session::decode_message(message)?));
            }
            match self.owed.wait(self.stream.read_chunk(CHUNK_BYTES)).await {
                Ok(Some(chunk)) => {
                    self.activity.heard();
                    self.owed.heard();
                    self.buffer.extend_from_slice(&chunk);
                }
                Ok(None) if self.buffer.is_empty() => return Ok(None),
                Ok(None) => return Err(RelayError::protocol("a stream that ends inside a message")),
                Err(ReadError::Reset(code)) => return Err(stopped("reset", code.into_inner())),
                Err(error) => return Err(RelayError::lost(error.to_string())),
            }
        }
    }

    fn take(&mut self) -> Result<Option<Bytes>, RelayError> {
        let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = session::message_length(*prefix, self.limit)?;
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// Writes one message. Not cancel-safe: a stream whose write was abandoned must not be used again.
pub(super) async fn write(stream: &mut SendStream, message: &impl Message) -> Result<(), RelayError> {
    stream
        .write_chunk(session::frame_message(message))
        .await
        .map_err(write_error)
}

pub(super) fn write_error(error: WriteError) -> RelayError {
    match error {
        WriteError::Stopped(code) => stopped("stopped", code.into_inner()),
        error => RelayError::lost(error.to_string()),
    }
}

/// Returns the error for a stream that the relay stopped: with one of the project's codes, it is a refusal.
fn stopped(how: &'static str, number: u64) -> RelayError {
    match u32::try_from(number).ok().and_then(Code::from_number) {
        Some(code) => Refused {
            number: code.number(),
            message: match code {
                Code::TooManyStreams => {
                    format!("stream {how}: the connection has as many streams as the relay node allows (`limits.streams_max`)")
                }
                Code::AccountStreams => {
                    format!("stream {how}: the account's agents have as many streams as the relay node allows (`limits.account_streams_max`)")
                }
                _ => format!("stream {how}"),
            },
            retryable: code.is_retryable(),
            retry_after: None,
            offset: Offset::ZERO,
            agent: None,
        }
        .into(),
        None => RelayError::lost(format!("stream {how} ({number})")),
    }
}
