//! Properties of a message: the message that it answers, and the content type of its payload.

use super::inbox::Ack;
use super::{Engine, EngineError};
use bytes::Bytes;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use skytale_proto::wire::Envelope;
use skytale_proto::{ChannelId, FrameId, Offset};

/// The longest content type, in bytes.
pub const CONTENT_TYPE_BYTES_MAX: usize = 128;

/// Properties of a message besides its payload. They are encrypted: a relay node cannot see them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Properties {
    /// The message of the same channel that it answers. Set by its author; nobody verifies that the message exists.
    pub reply_to: Option<FrameId>,
    /// The media type of the payload (RFC 9110, section 8.3), such as `application/json`.
    pub content_type: Option<String>,
}

/// A message to be sent, with all its options.
///
/// ```
/// use skytale_sdk::Outgoing;
///
/// let message = Outgoing::new(r#"{"task": 1}"#).content_type("application/json").once("task-1");
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[must_use]
pub struct Outgoing {
    #[serde(with = "crate::share::octets")]
    pub(super) payload: Bytes,
    pub(super) properties: Properties,
    pub(super) send_id: Option<String>,
    pub(super) acknowledges: Option<(Offset, FrameId)>,
}

impl Outgoing {
    /// Creates a message with only a payload.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            payload: payload.into(),
            properties: Properties::default(),
            send_id: None,
            acknowledges: None,
        }
    }

    /// Sets the message that it answers.
    pub const fn reply_to(mut self, message: FrameId) -> Self {
        self.properties.reply_to = Some(message);
        self
    }

    /// Sets the media type of the payload: printable ASCII, at most [`CONTENT_TYPE_BYTES_MAX`] bytes.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.properties.content_type = Some(content_type.into());
        self
    }

    /// Sets an id of the application (an idempotency key): sending the same id again refers to the same message. See
    /// [`Channel::send_once`](crate::Channel::send_once).
    pub fn once(mut self, send_id: impl Into<String>) -> Self {
        self.send_id = Some(send_id.into());
        self
    }

    /// Acknowledges a message of the channel, and all earlier ones, in the transaction that queues this one: both take
    /// effect, or neither.
    pub const fn acknowledging(mut self, offset: Offset, frame_id: FrameId) -> Self {
        self.acknowledges = Some((offset, frame_id));
        self
    }
}

/// Stored form in the vault.
#[derive(Clone, PartialEq, prost::Message)]
struct Kept {
    #[prost(bytes = "vec", tag = "1")]
    reply_to: Vec<u8>,
    #[prost(string, tag = "2")]
    content_type: String,
}

impl Properties {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Encodes it as a column of the vault: NULL if empty.
    pub(super) fn to_column(&self) -> Option<Vec<u8>> {
        (!self.is_empty()).then(|| {
            Kept {
                reply_to: self.reply_to.map(|id| id.as_bytes().to_vec()).unwrap_or_default(),
                content_type: self.content_type.clone().unwrap_or_default(),
            }
            .encode_to_vec()
        })
    }

    /// Returns the prefix of the column for answers to a message: fields are encoded in the order of their tags.
    pub(super) fn answering(message: FrameId) -> Vec<u8> {
        Kept {
            reply_to: message.as_bytes().to_vec(),
            ..Kept::default()
        }
        .encode_to_vec()
    }

    pub(super) fn from_column(column: Option<Vec<u8>>) -> Self {
        let kept = column
            .and_then(|bytes| Kept::decode(bytes.as_slice()).ok())
            .unwrap_or_default();
        Self::read(&kept.reply_to, &kept.content_type)
    }

    /// Reads the properties that an author set. Invalid ones are ignored: the payload still is a message.
    pub(super) fn of(envelope: &Envelope) -> Self {
        Self::read(&envelope.reply_to, &envelope.content_type)
    }

    fn read(reply_to: &[u8], content_type: &str) -> Self {
        Self {
            reply_to: FrameId::try_from(reply_to).ok(),
            content_type: is_content_type(content_type).then(|| content_type.to_owned()),
        }
    }

    pub(super) fn write(&self, envelope: &mut Envelope) {
        envelope.reply_to = self
            .reply_to
            .map_or_else(Bytes::new, |id| Bytes::copy_from_slice(id.as_bytes()));
        envelope.content_type = self.content_type.clone().unwrap_or_default();
    }
}

fn is_content_type(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= CONTENT_TYPE_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

impl Engine {
    /// Queues a message with its options: an id of the application, and the acknowledgement of another message in the
    /// same transaction. A message that was already sent under its id is not sent again; the acknowledgement is still
    /// made.
    pub fn send_message(&mut self, channel: ChannelId, message: &Outgoing) -> Result<FrameId, EngineError> {
        let content_type = message.properties.content_type.as_deref();
        if content_type.is_some_and(|content_type| !is_content_type(content_type)) {
            return Err(EngineError::Change {
                problem: "a content type is printable ASCII of at most 128 bytes",
            });
        }
        let ack = message.acknowledges.map(|(offset, frame_id)| Ack {
            offset,
            frame_id: Some(frame_id),
        });
        if let Some(before) = self.sent_before(channel, message.send_id.as_deref(), &message.payload)? {
            if let Some((offset, frame_id)) = message.acknowledges {
                self.ack_message(channel, offset, frame_id)?;
            }
            return Ok(before);
        }
        let drafts = std::iter::once((message.payload.as_ref(), &message.properties));
        let ids = self.queue_messages(channel, drafts, message.send_id.as_deref(), ack)?;
        ids.first().copied().ok_or(EngineError::Change {
            problem: "nothing to send",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_kept_and_nothing_takes_no_room() {
        assert_eq!(Properties::default().to_column(), None);
        let properties = Properties {
            reply_to: Some(FrameId::generate()),
            content_type: Some("text/plain; charset=utf-8".into()),
        };
        assert_eq!(Properties::from_column(properties.to_column()), properties);
        let begins = properties.reply_to.map(Properties::answering);
        assert!(begins.is_some_and(|begins| properties.to_column().is_some_and(|column| column.starts_with(&begins))));
        let mut envelope = Envelope::default();
        properties.write(&mut envelope);
        assert_eq!(Properties::of(&envelope), properties);
    }

    #[test]
    fn what_must_not_be_said_counts_as_nothing() {
        let envelope = Envelope {
            reply_to: Bytes::from_static(b"no id"),
            content_type: "text/plain\nforged: line".into(),
            ..Envelope::default()
        };
        assert_eq!(Properties::of(&envelope), Properties::default());
        let long = Envelope {
            content_type: "a".repeat(CONTENT_TYPE_BYTES_MAX + 1),
            ..Envelope::default()
        };
        assert_eq!(Properties::of(&long), Properties::default());
    }
}
