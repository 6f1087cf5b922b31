//! Puts a shard's frames into its stream: in the order of the queue, in atomic batches, one batch in flight.
//!
//! The server may take two batches in flight in either order, and one log's frames must keep theirs. One in flight gathers
//! by itself: what arrives meanwhile is the next batch. Where what became of a batch is unknown it is published again:
//! a frame that was there already folds to a duplicate of itself.

use super::metrics;
use super::node::{Node, Queued, Shard};
use crate::StoreError;
use async_nats::client::Request;
use async_nats::{HeaderMap, HeaderValue};
use bytes::Bytes;
use serde::Deserialize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The pause before a batch is published again, to begin with.
const RETRY_FIRST: Duration = Duration::from_millis(25);
/// The longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Publishes what is queued for a shard until the node ends.
pub(super) async fn publish_all(node: Arc<Node>, shard: super::ShardId, mut queue: mpsc::UnboundedReceiver<Queued>) {
    let Some(shard) = node.handles.get(&shard) else { return };
    let mut held = None;
    loop {
        let first = match held.take() {
            Some(queued) => queued,
            None => tokio::select! {
                biased;
                () = node.ended.cancelled() => break,
                queued = queue.recv() => match queued {
                    Some(queued) => queued,
                    None => break,
                },
            },
        };
        let (batch, next) = gather(&node, first, &mut queue);
        held = next;
        if let Err(error) = publish(&node, shard, batch).await {
            // What was queued before the authors were told must not pass what was given up; what came after may be refused too.
            let behind = held
                .take()
                .into_iter()
                .chain(std::iter::from_fn(|| queue.try_recv().ok()));
            behind.for_each(|queued| queued.waiter.fail(error.clone()));
        }
    }
    queue.close();
    if let Some(queued) = held {
        queued.waiter.fail(node.why_ended());
    }
    while let Some(queued) = queue.recv().await {
        queued.waiter.fail(node.why_ended());
    }
}

/// What is waiting, up to a batch's limits; and the first that is over them.
fn gather(node: &Node, first: Queued, queue: &mut mpsc::UnboundedReceiver<Queued>) -> (Vec<Queued>, Option<Queued>) {
    let mut bytes = first.frame.encoded().len();
    let mut batch = vec![first];
    while batch.len() < node.config.batch_frames_max {
        let Ok(queued) = queue.try_recv() else { break };
        bytes += queued.frame.encoded().len();
        if bytes > node.config.batch_bytes_max {
            return (batch, Some(queued));
        }
        batch.push(queued);
    }
    (batch, None)
}

/// Publishes a batch until its outcome is known; an error is that its authors were told that nobody knows.
async fn publish(node: &Arc<Node>, shard: &Shard, batch: Vec<Queued>) -> Result<(), StoreError> {
    let messages: Vec<(String, Bytes)> = batch
        .iter()
        .map(|queued| {
            let subject = shard.id.subject(&queued.frame.header().log);
            (subject, queued.frame.encoded().clone())
        })
        .collect();
    shard
        .pending
        .publishing(batch.iter().map(|queued| queued.frame.header().id));
    let newest = batch.last().map_or_else(Instant::now, |queued| queued.waiter.since);
    let deadline = newest + node.config.append_timeout;
    let (begun, mut pause) = (Instant::now(), RETRY_FIRST);
    loop {
        let before = *shard.followed.borrow();
        let attempt = tokio::select! {
            attempt = attempt(node, shard, &messages) => attempt,
            () = node.ended.cancelled() => return Err(give_up(shard, batch, node.why_ended())),
        };
        let reason = match attempt {
            Ok(first) => {
                if first <= before {
                    // Its place was taken by what this node has folded: the follower finds out what happened.
                    shard.look.notify_one();
                }
                let bytes = messages.iter().map(|(_, payload)| payload.len()).sum();
                metrics::published(&shard.label, batch.len(), bytes, begun.elapsed());
                let waiters = batch.into_iter().map(|queued| queued.waiter).collect();
                for (waiter, followed) in shard.pending.published(first, waiters) {
                    node.answer(waiter, followed);
                }
                return Ok(());
            }
            Err(reason) => reason,
        };
        tracing::debug!(shard = %shard.label, %reason, frames = batch.len(), "a batch is published again");
        if Instant::now() + pause >= deadline {
            return Err(give_up(shard, batch, shard.unreachable(reason)));
        }
        metrics::republished(&shard.label);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = node.ended.cancelled() => return Err(give_up(shard, batch, node.why_ended())),
        }
        pause = (pause * 2).min(RETRY_MAX);
    }
}

fn give_up(shard: &Shard, batch: Vec<Queued>, error: StoreError) -> StoreError {
    shard.pending.gave_up();
    for queued in batch {
        queued.waiter.fail(error.clone());
    }
    error
}

/// What a stream answers to a published message or batch.
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

/// Publishes messages once, all or none of them; gives the first one's sequence. An error is "nobody knows".
async fn attempt(node: &Node, shard: &Shard, messages: &[(String, Bytes)]) -> Result<u64, String> {
    let Some(((subject, payload), others)) = messages.split_last() else {
        return Err("nothing to publish".into());
    };
    let mut request = Request::new().payload(payload.clone());
    let expected = HeaderValue::from(shard.id.stream());
    if others.is_empty() {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Stream", expected);
        request = request.headers(headers);
    } else {
        let id = uuid_like()?;
        for (index, (subject, payload)) in others.iter().enumerate() {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Batch-Id", id.as_str());
            headers.insert("Nats-Batch-Sequence", (index + 1).to_string());
            let sent = node
                .client
                .publish_with_headers(subject.clone(), headers, payload.clone());
            sent.await.map_err(|error| error.to_string())?;
        }
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Batch-Id", id.as_str());
        headers.insert("Nats-Batch-Sequence", messages.len().to_string());
        headers.insert("Nats-Batch-Commit", "1");
        request = request.headers(headers);
    }
    let answer = node.client.send_request(subject.clone(), request).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let ack: Ack =
        serde_json::from_slice(&answer.payload).map_err(|error| format!("answer not understood: {error}"))?;
    if let Some(error) = ack.error {
        return Err(format!("{} ({})", error.description, error.err_code));
    }
    let count = messages.len() as u64;
    if ack.stream != shard.id.stream() || ack.last < count || (count > 1 && ack.count != count) {
        return Err(format!(
            "stream {} answered for {} of {count} messages",
            ack.stream, ack.count
        ));
    }
    Ok(ack.last + 1 - count)
}

/// A batch's id: at most 64 characters, and no other batch's.
fn uuid_like() -> Result<String, String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}
