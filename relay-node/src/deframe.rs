//! Cuts a stream of bytes into messages. Pure: the caller reads the stream and pushes its bytes.

use bytes::{Buf, Bytes, BytesMut};
use skytale_proto::session::{LENGTH_BYTES, MessageError, message_length};

/// Bytes that came and are not yet taken as messages. Memory grows with the received bytes, never with a claimed
/// length.
#[derive(Debug, Default)]
pub(crate) struct Deframer {
    buffer: BytesMut,
}

impl Deframer {
    /// Adds bytes that came.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The length of the next message, once its prefix is there.
    pub(crate) fn length(&self, limit: usize) -> Result<Option<usize>, MessageError> {
        match self.buffer.first_chunk::<LENGTH_BYTES>() {
            Some(prefix) => message_length(*prefix, limit).map(Some),
            None => Ok(None),
        }
    }

    /// The next message, once all of it is there. `length` is what [`Deframer::length`] said.
    pub(crate) fn take(&mut self, length: usize) -> Option<Bytes> {
        if self.buffer.len() < LENGTH_BYTES + length {
            return None;
        }
        self.buffer.advance(LENGTH_BYTES);
        let message = self.buffer.split_to(length).freeze();
        if self.buffer.is_empty() {
            // The allocation goes with the message: a stream that is idle keeps nothing.
            self.buffer = BytesMut::new();
        }
        Some(message)
    }

    /// Whether so many bytes of the next message are here.
    pub(crate) fn has(&self, bytes: usize) -> bool {
        self.buffer.len() >= LENGTH_BYTES + bytes
    }

    /// Whether it is between two messages.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use skytale_proto::Code;

    fn messages(deframer: &mut Deframer, limit: usize) -> Result<Vec<Bytes>, MessageError> {
        let mut out = Vec::new();
        while let Some(length) = deframer.length(limit)? {
            let Some(message) = deframer.take(length) else { break };
            out.push(message);
        }
        Ok(out)
    }

    proptest! {
        #[test]
        fn messages_come_out_whole_however_the_stream_was_cut(
            sent in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..20),
            piece in 1..70usize,
        ) {
            let mut stream = Vec::new();
            for message in &sent {
                stream.extend_from_slice(&u32::try_from(message.len()).expect("short").to_be_bytes());
                stream.extend_from_slice(message);
            }
            let mut deframer = Deframer::default();
            let mut received = Vec::new();
            for bytes in stream.chunks(piece) {
                deframer.push(bytes);
                received.extend(messages(&mut deframer, 50)?);
            }
            prop_assert_eq!(received, sent);
            prop_assert!(deframer.is_empty());
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_message_comes() {
        let mut deframer = Deframer::default();
        deframer.push(&1000u32.to_be_bytes());
        assert_eq!(
            deframer.length(999).map_err(|error| error.code()),
            Err(Code::MessageTooLarge)
        );
        assert_eq!(deframer.length(1000), Ok(Some(1000)));
        assert_eq!(deframer.take(1000), None);
    }
}
