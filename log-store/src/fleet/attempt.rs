//! One attempt at publishing messages, all or none of them, and what the stream says to it.

use super::node::{Node, Shard};
use async_nats::client::{Request, RequestErrorKind};
use async_nats::connection::State;
use async_nats::header::{
    NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE, NATS_EXPECTED_STREAM,
};
use async_nats::{HeaderMap, HeaderValue, Subject};
use bytes::Bytes;
use serde::Deserialize;
use std::sync::atomic::{AtomicU64, Ordering};

/// A message to be published.
pub(super) struct Outgoing {
    pub(super) subject: Subject,
    pub(super) payload: Bytes,
}

/// Acknowledgement of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Acked {
    /// The sequence of the first message; the others follow it.
    pub(super) first: u64,
    /// The stream says a place that this node had followed before the attempt: something is wrong.
    pub(super) doubtful: bool,
}

/// Reason why nobody knows what became of the messages.
#[derive(Debug)]
pub(super) enum Failure {
    /// There was no answer, or nobody who could have given one.
    Nobody(String),
    /// The servers would not have them.
    Refused(String),
}

impl Failure {
    pub(super) fn reason(self) -> String {
        match self {
            Self::Nobody(reason) | Self::Refused(reason) => reason,
        }
    }
}

/// Answer of a stream to a published message or batch.
#[derive(Deserialize)]
struct Ack {
    #[serde(default)]
    stream: String,
    #[serde(default, rename = "seq")]
    last: u64,
    #[serde(default)]
    count: u64,
    error: Option<AckError>,
}

#[derive(Deserialize)]
struct AckError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// Publishes messages once.
pub(super) async fn attempt(node: &Node, shard: &Shard, messages: &[Outgoing]) -> Result<Acked, Failure> {
    let Some((last, others)) = messages.split_last() else {
        return Err(Failure::Refused("nothing to publish".into()));
    };
    if node.client.connection_state() != State::Connected {
        // A message sent now would be queued, and arrive long after its retry.
        return Err(Failure::Nobody("no NATS server is connected".into()));
    }
    if let Some(reason) = shard.why_unchecked() {
        // Nothing is added to what may not be the stream.
        return Err(Failure::Nobody(reason));
    }
    if shard.looked_on.load(Ordering::Acquire) != node.connection() {
        // The servers may have been put back to an older copy meanwhile.
        shard.look.notify_one();
        return Err(Failure::Nobody(
            "the stream is looked at first on a new connection".into(),
        ));
    }
    let before = *shard.followed.borrow();
    let nobody = |error: &dyn std::fmt::Display| Failure::Nobody(error.to_string());
    let mut headers = HeaderMap::new();
    if others.is_empty() {
        headers.insert(NATS_EXPECTED_STREAM, HeaderValue::from(shard.id.stream()));
    } else {
        let id = HeaderValue::from(batch_id()?);
        for (index, message) in others.iter().enumerate() {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_BATCH_ID, id.clone());
            headers.insert(NATS_BATCH_SEQUENCE, HeaderValue::from(index + 1));
            let sent = node
                .client
                .publish_with_headers(message.subject.clone(), headers, message.payload.clone());
            sent.await.map_err(|error| nobody(&error))?;
        }
        headers.insert(NATS_BATCH_ID, id);
        headers.insert(NATS_BATCH_SEQUENCE, HeaderValue::from(messages.len()));
        headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
    }
    let request = Request::new().payload(last.payload.clone()).headers(headers);
    let answer = node.client.send_request(last.subject.clone(), request).await;
    let answer = answer.map_err(|error| match error.kind() {
        RequestErrorKind::TimedOut | RequestErrorKind::NoResponders | RequestErrorKind::Other => nobody(&error),
        _ => Failure::Refused(error.to_string()),
    })?;
    let first = first_of(&answer.payload, &shard.id.stream(), messages.len() as u64).map_err(Failure::Refused)?;
    Ok(Acked {
        first,
        doubtful: first <= before,
    })
}

/// The sequence of the first message, as an answer tells it.
fn first_of(answer: &[u8], stream: &str, count: u64) -> Result<u64, String> {
    let ack: Ack = serde_json::from_slice(answer).map_err(|error| format!("answer not understood: {error}"))?;
    if let Some(error) = ack.error {
        return Err(format!("{} ({})", error.description, error.err_code));
    }
    if ack.stream != stream || ack.last < count || (count > 1 && ack.count != count) {
        return Err(format!(
            "stream {} answered for {} of {count} messages",
            ack.stream, ack.count
        ));
    }
    Ok(ack.last + 1 - count)
}

/// A batch's id: no other open batch's of any node. Stored with each message, so short.
fn batch_id() -> Result<String, Failure> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).map_err(|error| Failure::Refused(error.to_string()))?;
    // Not the same twice in this process, whatever the randomness is worth.
    let number = NUMBER.fetch_add(1, Ordering::Relaxed) as u32;
    for (byte, more) in bytes.iter_mut().zip(number.to_le_bytes()) {
        *byte = more;
    }
    Ok(data_encoding::BASE64URL_NOPAD.encode(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_gives_the_first_of_the_messages_or_says_what_is_wrong() {
        let first = |answer: &str, count| first_of(answer.as_bytes(), "S", count);
        assert_eq!(first(r#"{"stream":"S","seq":9}"#, 1), Ok(9));
        assert_eq!(first(r#"{"stream":"S","seq":9,"count":4,"batch":"b"}"#, 4), Ok(6));
        for (answer, count) in [
            (r#"{"stream":"T","seq":9}"#, 1),
            (r#"{"stream":"S","seq":9,"count":3}"#, 4),
            (r#"{"stream":"S","seq":2,"count":4}"#, 4),
            (
                r#"{"stream":"S","error":{"err_code":10077,"description":"maximum messages exceeded"}}"#,
                1,
            ),
            ("nothing", 1),
        ] {
            assert!(first(answer, count).is_err(), "{answer}");
        }
    }

    #[test]
    fn two_batches_have_two_ids() {
        let ids: std::collections::HashSet<String> = (0..100).filter_map(|_| batch_id().ok()).collect();
        assert_eq!(ids.len(), 100);
    }
}
