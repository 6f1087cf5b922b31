//! Messages of a node's own in a shard's stream, which hold no frame: every node passes over them alike.
//!
//! ```text
//!  skytale.log.<region>.<shard>.mark         a place in the sequence, and nothing else
//!  skytale.log.<region>.<shard>.checkpoint   a checkpoint is here too, though this is no multiple of their distance
//! ```
//!
//! A mark is written as a frame is: what the stream answers has been agreed on by the servers that keep it, so that the
//! sequence it gives is past all that was acknowledged before the mark was written.

use super::shards::ShardId;
use async_nats::client::Request;
use async_nats::{Client, HeaderMap};
use serde::Deserialize;

/// Contents of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Here is a place.
    Place,
    /// A checkpoint is here.
    Checkpoint,
}

impl Mark {
    /// Returns the subject to which it is written.
    pub(super) fn subject(self, shard: ShardId) -> String {
        match self {
            Self::Place => shard.named("mark"),
            Self::Checkpoint => shard.named("checkpoint"),
        }
    }

    /// The mark that a message is; `None` for any other message.
    pub(super) fn of(shard: ShardId, subject: &str) -> Option<Self> {
        [Self::Place, Self::Checkpoint]
            .into_iter()
            .find(|mark| mark.subject(shard) == subject)
    }

    /// Writes it, and gives its sequence. With `after`, only where the last mark of its kind is there (0 for none).
    pub(super) async fn put(self, client: &Client, shard: ShardId, after: Option<u64>) -> Result<u64, String> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Stream", shard.stream());
        if let Some(after) = after {
            headers.insert("Nats-Expected-Last-Subject-Sequence", after.to_string());
        }
        let request = Request::new().headers(headers).payload("".into());
        let answer = client.send_request(self.subject(shard), request).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let ack: Ack =
            serde_json::from_slice(&answer.payload).map_err(|error| format!("answer not understood: {error}"))?;
        match ack.error {
            Some(error) => Err(format!("{} ({})", error.description, error.err_code)),
            None if ack.stream == shard.stream() && ack.sequence > 0 => Ok(ack.sequence),
            None => Err(format!("stream {} answered", ack.stream)),
        }
    }
}

/// Answer of a stream to a message.
#[derive(Deserialize)]
struct Ack {
    #[serde(default)]
    stream: String,
    #[serde(default, rename = "seq")]
    sequence: u64,
    error: Option<AckError>,
}

#[derive(Deserialize)]
struct AckError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use skytale_proto::{ChannelId, Region};

    #[test]
    fn a_mark_is_told_from_a_frame_by_its_subject() {
        let shard = ShardId {
            region: Region(2),
            index: 5,
        };
        assert_eq!(Mark::of(shard, "skytale.log.2.5.mark"), Some(Mark::Place));
        assert_eq!(Mark::of(shard, "skytale.log.2.5.checkpoint"), Some(Mark::Checkpoint));
        assert_eq!(Mark::of(shard, "skytale.log.2.4.mark"), None);
        let log = ChannelId::generate_in(Region(2)).log();
        assert_eq!(Mark::of(shard, &shard.subject(&log)), None);
        // A node that knows no marks finds no frame in one, and passes over it too.
        assert!(skytale_proto::Frame::decode(bytes::Bytes::new()).is_err());
    }
}
