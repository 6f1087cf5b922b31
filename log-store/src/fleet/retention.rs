//! Gives up entries older than the retention, as far as a node can: by Trims in the streams.
//!
//! ```text
//!   checkpoint C              Trims of all that C had      checkpoint D, in which all of that is trimmed
//!  ------|------------------------------|----------------------------|--------->
//!        └── a node may begin here once the stream is purged up to it, which the keeper does when D is there
//! ```
//!
//! After the Trims no reader gets the entries, and replicas drop them. The messages stay in the streams until the
//! fleet's keeper purges them (`keeper.rs`): no key of a serving node can. Every node does this, at its own times; a
//! second Trim changes nothing. A majority of the clocks of nodes and servers gives the time (`clock.rs`), and a
//! checkpoint counts only if enough nodes vouch for it.
//!
//! A shard with little traffic takes long from one multiple of the checkpoints' distance to the next. So where its newest
//! checkpoint is a quarter of the retention old, and messages came after it, a mark in the stream says that one is here
//! too: all nodes find it in the sequence, and mean the same.

use super::bucket::Bucket;
use super::health::Phase;
use super::mark::Mark;
use super::node::{Node, Shard};
use super::streams::{self, Found, stream_id};
use super::vouch::Attested;
use async_nats::jetstream::stream::{Info, LastRawMessageErrorKind};
use bytes::Bytes;
use skytale_proto::{AgentId, Detail, Frame, FrameId, Header, LogId, Offset};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The author of Trims that a node publishes of its own accord: no agent has this key.
const STORE_AUTHOR: AgentId = AgentId::from_bytes([0; 32]);
/// A checkpoint that is this part of the retention old is followed by the next, if anything came after it.
const CHECKPOINT_PART: u32 = 4;
/// Trims under way at once, at most.
const TRIMS_AT_ONCE: usize = 256;
/// A stream whose first message is older than this many retentions was not purged: the keeper gives a checkpoint up a half later at
/// the latest.
const UNPURGED_AFTER: f64 = 1.75;

/// Enforces the retention until the node ends.
pub(super) async fn enforce_all(node: Arc<Node>, retention: Duration) {
    loop {
        // All nodes do this: at times of their own.
        let wait = node
            .config
            .retention_every
            .mul_f64(0.5 + super::sweeper::random_fraction());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = node.ended.cancelled() => return,
        }
        // No single clock makes anything old.
        let Some(now_ms) = node.fleet_now_ms() else {
            tracing::warn!("nothing is given up: how late it is in the fleet is not known here");
            continue;
        };
        for shard in node.handles.values() {
            let kept = tokio::select! {
                kept = enforce(&node, shard, retention, now_ms) => kept,
                () = node.ended.cancelled() => return,
            };
            if let Err(problem) = kept {
                tracing::warn!(shard = %shard.label, %problem, "retention could not be enforced; it is tried again later");
            }
        }
    }
}

async fn enforce(node: &Arc<Node>, shard: &Shard, retention: Duration, now_ms: u64) -> Result<(), String> {
    if shard.health.lock().phase != Phase::Following {
        return Ok(());
    }
    let info = match streams::find(&node.context, &shard.id.stream()).await {
        Ok(Found::There(info)) => info,
        Ok(Found::Missing) => return Err("its stream is missing".into()),
        Err(error) => return Err(error.to_string()),
    };
    shard.health.lock().unpurged = is_unpurged(&info, retention, now_ms, node.config.retention_every);
    if info.state.messages == 0 {
        return Ok(());
    }
    let bucket = Bucket::open(&node.context, &node.config, shard.id.region).await?;
    let judged = bucket.judged(shard.id, stream_id(&info)).await?;
    node.settle_doubts(shard.id, info.state.first_sequence.saturating_sub(2));
    node.doubt(shard.id, judged.doubtful);
    let listed = judged.attested;
    let chosen = listed
        .iter()
        .rev()
        .find(|listed| is_older(listed.time_ms, retention, now_ms));
    if let Some(chosen) = chosen.filter(|chosen| chosen.sequence >= info.state.first_sequence)
        && let Some(checkpoint) = bucket.get(shard.id, stream_id(&info), chosen).await?
    {
        let logs = checkpoint.logs.iter();
        let gone: BTreeMap<LogId, Offset> = logs.map(|log| (log.log(), log.state().head())).collect();
        drop(checkpoint);
        trim(node, shard, &gone).await?;
    }
    mark(node, shard, listed.last(), retention / CHECKPOINT_PART, now_ms).await
}

/// Whether a stream has messages that should have been purged long ago.
pub(super) fn is_unpurged(info: &Info, retention: Duration, now_ms: u64, every: Duration) -> bool {
    let first = unix_ms(info.state.first_timestamp.unix_timestamp_nanos());
    let late = retention.mul_f64(UNPURGED_AFTER).saturating_add(4 * every);
    info.state.messages > 0 && first > 0 && is_older(first, late, now_ms)
}

/// Says that a checkpoint is here, if the newest is too old for the messages after it.
async fn mark(
    node: &Arc<Node>,
    shard: &Shard,
    newest: Option<&Attested>,
    period: Duration,
    now_ms: u64,
) -> Result<(), String> {
    let name = shard.id.stream();
    let info = match streams::find(&node.context, &name).await {
        Ok(Found::There(info)) => info,
        Ok(Found::Missing) => return Err("its stream is missing".into()),
        Err(error) => return Err(error.to_string()),
    };
    // It is unchecked since the first message.
    let since = newest.map_or_else(
        || unix_ms(info.state.first_timestamp.unix_timestamp_nanos()),
        |newest| newest.time_ms,
    );
    if info.state.last_sequence <= newest.map_or(0, |newest| newest.sequence) || !is_older(since, period, now_ms) {
        return Ok(());
    }
    let stream = node.context.get_stream_no_info(&name).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let last = stream
        .get_last_raw_message_by_subject(&Mark::Checkpoint.subject(shard.id))
        .await;
    let after = match last {
        // Another node was first, and its checkpoint is being written.
        Ok(last) if !is_older(unix_ms(last.time.unix_timestamp_nanos()), period, now_ms) => return Ok(()),
        Ok(last) => last.sequence,
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => 0,
        Err(error) => return Err(error.to_string()),
    };
    // Of nodes that do so at once, one is the first.
    match Mark::Checkpoint.put(&node.client, shard.id, Some(after)).await {
        Ok(sequence) => tracing::info!(shard = %shard.label, sequence, "a checkpoint is marked here"),
        Err(reason) => tracing::debug!(shard = %shard.label, %reason, "no mark for a checkpoint"),
    }
    Ok(())
}

pub(super) fn unix_ms(nanos: i128) -> u64 {
    u64::try_from(nanos / 1_000_000).unwrap_or_default()
}

pub(super) fn is_older(time_ms: u64, age: Duration, now_ms: u64) -> bool {
    Duration::from_millis(time_ms).saturating_add(age) < Duration::from_millis(now_ms)
}

/// Publishes a Trim for each log that still has entries that the checkpoint had.
async fn trim(node: &Arc<Node>, shard: &Shard, gone: &BTreeMap<LogId, Offset>) -> Result<(), String> {
    let mut pending = Vec::new();
    for (log, head) in gone {
        let state = node.replica.state(*log).await.map_err(|error| error.to_string())?;
        if state.first_available() > *head {
            continue;
        }
        let header = Header {
            log: *log,
            id: FrameId::generate(),
            author: STORE_AUTHOR,
            parent: Offset::ZERO,
            detail: Detail::Trim { up_to: *head },
        };
        let frame = Frame::new(header, Bytes::new()).map_err(|error| error.to_string())?;
        pending.push(node.enqueue(shard, frame, None).map_err(|error| error.to_string())?);
        if pending.len() >= TRIMS_AT_ONCE {
            settle(&mut pending).await?;
        }
    }
    settle(&mut pending).await
}

async fn settle(pending: &mut Vec<crate::PendingAppend>) -> Result<(), String> {
    for append in pending.drain(..) {
        match append.verdict().await {
            // Another node's Trim was first.
            Ok(_) | Err(crate::AppendError::Refused(_)) => {}
            Err(crate::AppendError::Store(error)) => return Err(error.to_string()),
        }
    }
    Ok(())
}
