//! Messages on a QUIC stream: the shell around [`Deframer`].

use crate::deframe::Deframer;
use bytes::Bytes;
use iroh::endpoint::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use prost::Message;
use skytale_proto::Code;
use skytale_proto::session::{MessageError, decode_message, frame_message};

/// Taken from a stream at once at most, in bytes.
const READ_BYTES_MAX: usize = 16 * 1024;

/// Reason why no more messages come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// The bytes are not a message.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The message is one of the protocol, and its lists are not what they must be.
    #[error("a request whose lists are malformed or too long")]
    Request,
    /// The stream was finished inside a message.
    #[error("stream ended inside a message")]
    Cut,
    /// The rest of a message did not come in time.
    #[error("the rest of a request did not come in time")]
    Late,
    /// The room that a message takes, and does not fill, is needed.
    #[error("no room for a request whose bytes do not come")]
    NoRoom,
    /// The peer reset the stream, or the connection is gone.
    #[error(transparent)]
    Stream(#[from] ReadError),
}

impl ReceiveError {
    /// The code to answer with; `None` where nobody is there to answer.
    pub(crate) const fn code(&self) -> Option<Code> {
        match self {
            Self::Message(error) => Some(error.code()),
            Self::Cut | Self::Request => Some(Code::MessageMalformed),
            Self::Late => Some(Code::RequestLate),
            Self::NoRoom => Some(Code::NoRoom),
            Self::Stream(_) => None,
        }
    }
}

/// Reads messages. Every method may be dropped before it is done and called again: nothing is lost.
#[derive(Debug)]
pub(crate) struct Receiver {
    stream: RecvStream,
    deframer: Deframer,
}

impl Receiver {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            deframer: Deframer::default(),
        }
    }

    /// The length of the next message; `None` where the stream was finished between messages.
    pub(crate) async fn length(&mut self, limit: usize) -> Result<Option<usize>, ReceiveError> {
        loop {
            if let Some(length) = self.deframer.length(limit)? {
                return Ok(Some(length));
            }
            if !self.more().await? {
                return if self.deframer.is_empty() {
                    Ok(None)
                } else {
                    Err(ReceiveError::Cut)
                };
            }
        }
    }

    /// The bytes of the next message, whose length is known, if all of them are here.
    pub(crate) fn here(&mut self, length: usize) -> Option<Bytes> {
        self.deframer.take(length)
    }

    /// The bytes of the next message, whose length is known.
    pub(crate) async fn bytes(&mut self, length: usize) -> Result<Bytes, ReceiveError> {
        loop {
            if let Some(message) = self.deframer.take(length) {
                return Ok(message);
            }
            if !self.more().await? {
                return Err(ReceiveError::Cut);
            }
        }
    }

    /// Waits for so many bytes of the next message, whose length is known.
    pub(crate) async fn has(&mut self, bytes: usize) -> Result<(), ReceiveError> {
        while !self.deframer.has(bytes) {
            if !self.more().await? {
                return Err(ReceiveError::Cut);
            }
        }
        Ok(())
    }

    /// The next message; `None` where the stream was finished between messages.
    pub(crate) async fn message<M: Message + Default>(&mut self, limit: usize) -> Result<Option<M>, ReceiveError> {
        match self.length(limit).await? {
            Some(length) => Ok(Some(decode_message(self.bytes(length).await?)?)),
            None => Ok(None),
        }
    }

    async fn more(&mut self) -> Result<bool, ReadError> {
        match self.stream.read_chunk(READ_BYTES_MAX).await? {
            Some(bytes) => {
                self.deframer.push(&bytes);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Asks the peer to send no more.
    pub(crate) fn stop(&mut self, code: Code) {
        // A stream that has ended already needs no stop.
        let _ = self.stream.stop(error_code(code));
    }
}

/// Writes messages.
#[derive(Debug)]
pub(crate) struct Sender {
    stream: SendStream,
}

impl Sender {
    pub(crate) const fn new(stream: SendStream) -> Self {
        Self { stream }
    }

    pub(crate) async fn send(&mut self, message: &impl Message) -> Result<(), WriteError> {
        self.stream.write_chunk(frame_message(message)).await
    }

    /// Writes bytes that are messages already. They are not copied.
    pub(crate) async fn send_chunks(&mut self, chunks: &mut [Bytes]) -> Result<(), WriteError> {
        self.stream.write_all_chunks(chunks).await
    }

    /// Writes what there is room for, and says how much. May be dropped: then nothing was written.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<usize, WriteError> {
        self.stream.write(bytes).await
    }

    /// Ends the stream after the written bytes.
    pub(crate) fn finish(&mut self) {
        // A stream that has ended already needs no end.
        let _ = self.stream.finish();
    }

    /// Gives the stream up, and the written bytes with it.
    pub(crate) fn reset(&mut self, code: Code) {
        // A stream that has ended already needs no end.
        let _ = self.stream.reset(error_code(code));
    }

    /// Resolves when the peer reads no more: it stopped the stream, has all of it, or is gone.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = self.stream.stopped();
        async move {
            let _ = stopped.await;
        }
    }
}

/// Ends both directions of a stream whose kind is not known.
pub(crate) fn abort(sender: &mut Sender, receiver: &mut Receiver, code: Code) {
    sender.reset(code);
    receiver.stop(code);
}

/// A code as QUIC carries it.
pub(crate) fn error_code(code: Code) -> VarInt {
    VarInt::from_u32(code.number())
}
