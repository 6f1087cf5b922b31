//! The relay protocol: messages, their framing, and what a refusal says.
//!
//! Messages are generated from `session.proto` ([`crate::wire`], re-exported here). On a stream each
//! one is preceded by its length, u32 big-endian; [`frame_message`] writes that, [`message_length`]
//! reads and bounds it.

use crate::{AgentId, Code, EndpointId, Offset, limits};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use std::time::Duration;

pub use crate::wire::{
    AppendOpen, AppendRequest, AppendResponse, Appended, Batch, CaughtUp, ControlEvent, ControlRequest, Durability,
    Hello, KeyPackageClaimed, KeyPackageCount, KeyPackageStock, KeyPackagesOpen, KeyPackagesRequest,
    KeyPackagesResponse, Limits, LogStatus, LogStatusRequest, LogStatusResponse, Notice, Open, Ping, Pong, Refusal,
    Started, Subscribe, SubscribeEvent, TokenAccepted, TokenRefresh, WatchEvent, WatchOpen, WatchRequest,
    append_response, control_event, control_request, key_packages_request, key_packages_response, log_status_response,
    notice, open, subscribe_event,
};

/// The protocol's name in the TLS handshake.
pub const ALPN: &[u8] = b"skytale/relay/1";
/// Label of the keying material (RFC 8446, section 7.5; RFC 5705) that both ends of a connection derive for a Hello's proof, with
/// an empty context: [`HELLO_EXPORTED_BYTES`] of them.
pub const HELLO_EXPORTER_LABEL: &[u8] = b"EXPORTER-skytale-hello-1";
/// Bytes of keying material in a Hello's proof.
pub const HELLO_EXPORTED_BYTES: usize = 32;
/// Begins what an agent signs in a Hello.
pub const HELLO_PROOF_CONTEXT: &[u8] = b"skytale hello proof 1";
/// Bytes of the length before each message.
pub const LENGTH_BYTES: usize = 4;

/// A message that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Longer than allowed here.
    #[error("message of {bytes} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// Its length, in bytes.
        bytes: usize,
        /// Limit, in bytes.
        limit: usize,
    },
    /// Not protobuf, or not this message.
    #[error("message malformed: {0}")]
    Malformed(#[from] prost::DecodeError),
}

impl MessageError {
    /// The code that a refusal for this carries.
    pub const fn code(&self) -> Code {
        match self {
            Self::TooLarge { .. } => Code::MessageTooLarge,
            Self::Malformed(_) => Code::MessageMalformed,
        }
    }
}

/// Returns the bytes that an agent signs with its identity key (Ed25519, RFC 8032) in a Hello. The keying material is
/// of this connection alone: a signature is good for no other one, no matter who has seen it, and neither a token nor
/// the endpoint's key replaces it.
pub fn hello_proof_message(
    relay: &EndpointId,
    endpoint: &EndpointId,
    agent: &AgentId,
    exported: &[u8; HELLO_EXPORTED_BYTES],
) -> Vec<u8> {
    let parts = [
        HELLO_PROOF_CONTEXT,
        relay.as_bytes(),
        endpoint.as_bytes(),
        agent.as_bytes(),
        exported,
    ];
    parts.concat()
}

/// A message as it goes on a stream: its length, then itself.
pub fn frame_message(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(LENGTH_BYTES + length);
    put_length(length, &mut out);
    message.encode_raw(&mut out);
    out.freeze()
}

/// Returns the bytes that go before `records` on a stream so that together they are a [`Batch`] in a
/// [`SubscribeEvent`]: replayed bytes are sent as they were read, not copied into a message.
pub fn batch_prefix(records_bytes: usize) -> Bytes {
    let batch = 1 + prost::encoding::encoded_len_varint(records_bytes as u64) + records_bytes;
    let event = 1 + prost::encoding::encoded_len_varint(batch as u64) + batch;
    let mut out = BytesMut::with_capacity(LENGTH_BYTES + 12);
    put_length(event, &mut out);
    for length in [batch, records_bytes] {
        // Field 1, length-delimited, in both messages.
        out.put_u8(0x0a);
        prost::encoding::encode_varint(length as u64, &mut out);
    }
    out.freeze()
}

fn put_length(length: usize, out: &mut BytesMut) {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    assert!(
        length as usize <= limits::MESSAGE_BYTES_MAX,
        "a message is bounded before it is sent"
    );
    out.put_u32(length);
}

/// The length that comes before a message, if it is within `limit`. Check it before allocating.
pub fn message_length(prefix: [u8; LENGTH_BYTES], limit: usize) -> Result<usize, MessageError> {
    let bytes = u32::from_be_bytes(prefix) as usize;
    if bytes > limit {
        return Err(MessageError::TooLarge { bytes, limit });
    }
    Ok(bytes)
}

/// Reads a message from its bytes. Fields of bytes are slices of `bytes`, not copies.
pub fn decode_message<M: Message + Default>(bytes: Bytes) -> Result<M, MessageError> {
    Ok(M::decode(bytes)?)
}

impl Refusal {
    /// A refusal with a code and a sentence on the problem.
    pub fn because(code: Code, message: impl Into<String>) -> Self {
        Self {
            code: code.number(),
            message: message.into(),
            retryable: code.is_retryable(),
            retry_after_ms: 0,
            offset: 0,
            agent: Bytes::new(),
        }
    }

    /// Sets the time to wait before a retry.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.retry_after_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Sets the offset that the code is about.
    #[must_use]
    pub fn at(mut self, offset: Offset) -> Self {
        self.offset = offset.get();
        self
    }

    /// Sets the agent that the code is about.
    #[must_use]
    pub fn about(mut self, agent: &AgentId) -> Self {
        self.agent = Bytes::copy_from_slice(agent.as_bytes());
        self
    }

    /// The code, where this version knows it.
    pub fn known_code(&self) -> Option<Code> {
        Code::from_number(self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read<M: Message + Default>(framed: Bytes) -> M {
        let (prefix, body) = framed.split_first_chunk::<LENGTH_BYTES>().expect("a length");
        let length = message_length(*prefix, limits::MESSAGE_BYTES_MAX).expect("within the limit");
        assert_eq!(length, body.len());
        decode_message(framed.slice(LENGTH_BYTES..)).expect("a message")
    }

    proptest! {
        #[test]
        fn a_batch_prefix_and_records_are_a_batch(records in proptest::collection::vec(any::<u8>(), 0..70_000)) {
            let mut framed = BytesMut::from(batch_prefix(records.len()).as_ref());
            framed.put_slice(&records);
            let event: SubscribeEvent = read(framed.freeze());
            let expected = SubscribeEvent { event: Some(subscribe_event::Event::Batch(Batch { records: records.into() })) };
            prop_assert_eq!(event, expected);
        }

        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bytes = Bytes::from(bytes);
            let _ = decode_message::<Open>(bytes.clone());
            let _ = decode_message::<ControlRequest>(bytes.clone());
            let _ = decode_message::<ControlEvent>(bytes.clone());
            let _ = decode_message::<AppendRequest>(bytes.clone());
            let _ = decode_message::<AppendResponse>(bytes.clone());
            let _ = decode_message::<SubscribeEvent>(bytes.clone());
            let _ = decode_message::<KeyPackagesRequest>(bytes.clone());
            let _ = decode_message::<LogStatusResponse>(bytes.clone());
            let _ = decode_message::<WatchRequest>(bytes.clone());
            let _ = decode_message::<WatchEvent>(bytes.clone());
            let _ = decode_message::<KeyPackagesResponse>(bytes);
        }
    }

    #[test]
    fn an_oversize_length_is_refused_before_anything_is_read() {
        let refused = message_length(u32::MAX.to_be_bytes(), limits::MESSAGE_BYTES_MAX);
        assert_eq!(refused.map_err(|error| error.code()), Err(Code::MessageTooLarge));
    }
}
