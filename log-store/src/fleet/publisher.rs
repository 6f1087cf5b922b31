//! Puts a shard's frames into its stream: in the order of the queue, in atomic batches, one batch in flight.
//!
//! The server may take two batches in flight in either order, and one log's frames must keep theirs. One in flight gathers
//! by itself: what arrives meanwhile is the next batch. Where what became of a batch is unknown it is published again:
//! a frame that was there already folds to a duplicate of itself.
//!
//! ```text
//!   batch ──> attempt ── acknowledged ─────────────────────────────────> the follower answers
//!                │ ^
//!      no answer │ └── all of it again ──────┐
//!                v                           │ acknowledged
//!             its first frame alone asks, again and again ── too late ──> given up, and all behind it
//! ```
//!
//! # What an author may rely on
//! - A log's frames get into the stream in the order in which they were queued.
//! - When a batch is given up, every frame that was asked for before the first of its authors learned is refused with
//!   it; and every frame of a log that was asked for before a refusal of that log was reported. So an author who sends the
//!   refused frames again, in their order and under the same ids, has them in the log in that order: also if the batch
//!   that was given up comes into the stream late, at any time. The second copy of a frame is a duplicate.
//! - A frame that was given up and that its author never sends again may still become an entry, for as long as a server
//!   holds it: then behind frames that the author sent later. Nobody can say that it will not; so an author keeps a
//!   frame until it is accepted, or refused by the fold.

use super::attempt::{Acked, Failure, Outgoing, attempt};
use super::gathering::Gathering;
use super::metrics;
use super::node::{Node, Queued, Shard};
use crate::StoreError;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

/// Minimum wait for a batch before somebody asks whether the stream is there.
const PATIENCE_MIN: Duration = Duration::from_millis(250);
/// Further wait for each unit of time that the batch before took.
const PATIENCE_PER_PUBLISH: u32 = 4;
/// Interval at which the stream is asked whether it is there, if the frame that asks is small.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Bytes of a frame that add the same pause once more.
const ASK_BYTES: usize = 64 * 1024;
/// The longest such pause.
const ASK_MAX: Duration = Duration::from_secs(1);
/// The pause before a batch that the servers refused is published again, to begin with.
const RETRY_FIRST: Duration = Duration::from_millis(25);
/// The longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// Maximum time for an acknowledged message to come back before the follower starts over.
const COMES_BACK_WITHIN: Duration = Duration::from_millis(500);

/// A batch with a fourth of its maximum waits for no more: its cost beside its frames matters no longer.
const LARGE: usize = 4;

/// Publishes the frames queued for a shard until the node ends.
pub(super) async fn publish_all(node: Arc<Node>, shard: super::ShardId, queue: mpsc::UnboundedReceiver<Queued>) {
    let Some(shard) = node.handles.get(&shard) else { return };
    let mut source = Source {
        node: &node,
        shard,
        queue,
        held: VecDeque::new(),
        refusal: shard.unreachable("what became of a frame before this one is unknown"),
        gathering: Gathering::new(),
    };
    let publishing = async {
        while let Some(first) = source.next().await {
            let batch = source.gather(first).await;
            let frames = batch.len();
            match publish(&node, shard, batch, source.gathering.took()).await {
                Ok(took) => source.published(frames, took),
                Err(error) => source.refusal = error,
            }
        }
    };
    tokio::select! {
        () = publishing => {}
        () = mind(shard) => {}
    }
    source.end().await;
}

/// Queue of a shard.
struct Source<'a> {
    node: &'a Node,
    shard: &'a Shard,
    queue: mpsc::UnboundedReceiver<Queued>,
    /// Frames taken out of the queue and not published yet.
    held: VecDeque<Queued>,
    /// Failure reported of a batch that was given up, and of the frames asked for before that.
    refusal: StoreError,
    gathering: Gathering,
}

impl Source<'_> {
    /// The next frame; `None` when the node ends.
    async fn next(&mut self) -> Option<Queued> {
        loop {
            let queued = match self.held.pop_front() {
                Some(queued) => queued,
                None => tokio::select! {
                    biased;
                    () = self.node.ended.cancelled() => return None,
                    queued = self.queue.recv() => queued?,
                },
            };
            if let Some(queued) = self.fresh(queued) {
                return Some(queued);
            }
        }
    }

    /// Returns the frame unless it was asked for before an author learned that a fate is unknown: such a frame must not
    /// pass a batch that was given up, nor one that was queued behind that batch.
    fn fresh(&mut self, queued: Queued) -> Option<Queued> {
        if !self.shard.refusals.is_before(&queued.waiter.log, queued.asked) {
            return Some(queued);
        }
        self.shard.fail(queued.waiter, self.refusal.clone());
        self.refuse_stale();
        None
    }

    /// Refuses all such frames that are queued now, in one pass: what their authors send again meanwhile is behind the last of
    /// them, and is not refused with it.
    fn refuse_stale(&mut self) {
        for _ in 0..self.queue.len() {
            self.held.extend(self.queue.try_recv());
        }
        for queued in std::mem::take(&mut self.held) {
            if self.shard.refusals.is_before(&queued.waiter.log, queued.asked) {
                self.shard.fail(queued.waiter, self.refusal.clone());
            } else {
                self.held.push_back(queued);
            }
        }
    }

    /// Gathers frames that wait and frames that come in a moment, up to a batch's limits.
    async fn gather(&mut self, first: Queued) -> Vec<Queued> {
        let config = &self.node.config;
        let mut bytes = first.frame.encoded().len();
        let mut batch = vec![first];
        while batch.len() < config.batch_frames_max {
            let there = self.held.pop_front().ok_or(());
            let queued = match there.or_else(|()| self.queue.try_recv()) {
                Ok(queued) => queued,
                Err(_) if batch.len() * LARGE >= config.batch_frames_max || bytes * LARGE >= config.batch_bytes_max => {
                    break;
                }
                Err(_) => tokio::select! {
                    biased;
                    Some(queued) = self.queue.recv() => queued,
                    () = self.gathering.over(batch.len()) => break,
                    () = self.node.ended.cancelled() => break,
                },
            };
            let Some(queued) = self.fresh(queued) else { continue };
            bytes += queued.frame.encoded().len();
            if bytes > config.batch_bytes_max {
                self.held.push_front(queued);
                break;
            }
            batch.push(queued);
        }
        self.gathering.gathered(batch.len());
        batch
    }

    fn published(&mut self, frames: usize, took: Duration) {
        let there = self.queue.len() + self.held.len();
        self.gathering.published(frames, there, took);
    }

    /// Tells every waiting author why nothing more is taken: also those whose frames are in the stream. Nobody else
    /// adds to them, so none is left that nobody will answer: the last batch may be acknowledged after the follower has
    /// ended.
    async fn end(mut self) {
        self.queue.close();
        for waiter in self.shard.pending.take_waiting(|_| true) {
            waiter.fail(self.node.why_ended());
        }
        for queued in self.held.drain(..) {
            queued.waiter.fail(self.node.why_ended());
        }
        while let Some(queued) = self.queue.recv().await {
            queued.waiter.fail(self.node.why_ended());
        }
    }
}

/// Publishes a batch until its outcome is known, and gives how long that took the last time that it was sent; an error is that
/// its authors learned that nobody knows.
async fn publish(
    node: &Arc<Node>,
    shard: &Shard,
    batch: Vec<Queued>,
    before: Duration,
) -> Result<Duration, StoreError> {
    let outgoing = batch.iter().map(|queued| Outgoing {
        subject: shard.id.subject(&queued.frame.header().log).into(),
        payload: queued.frame.encoded().clone(),
    });
    let messages: Vec<Outgoing> = outgoing.collect();
    shard
        .pending
        .publishing(batch.iter().map(|queued| queued.frame.header().id));
    let since = batch.last().map(|queued| queued.waiter.since);
    let deadline = since.map_or_else(Instant::now, Instant::from_std) + node.config.append_timeout;
    let begun = Instant::now();
    let mut reason = "no answer".to_owned();
    let outcome = tokio::select! {
        biased;
        acked = insist(node, shard, &messages, before, &mut reason) => Ok(acked),
        () = node.ended.cancelled() => Err(Some(node.why_ended())),
        () = sleep_until(deadline) => Err(None),
    };
    match outcome {
        Ok((acked, took)) => {
            if acked.doubtful {
                // The follower finds out what happened.
                shard.look.notify_one();
            }
            let bytes = messages.iter().map(|message| message.payload.len()).sum();
            metrics::published(&shard.label, batch.len(), bytes, begun.elapsed());
            shard.acked.send_replace(acked.first + messages.len() as u64 - 1);
            let waiters = batch.into_iter().map(|queued| queued.waiter).collect();
            for (waiter, followed) in shard.pending.published(acked.first, waiters) {
                node.answer(waiter, followed);
            }
            Ok(took)
        }
        Err(ended) => Err(give_up(
            shard,
            batch,
            ended.unwrap_or_else(|| shard.unreachable(reason)),
        )),
    }
}

/// Tells the authors of a batch that nobody knows: in the order of their frames, those first whose frames were acknowledged
/// before and have not come back.
fn give_up(shard: &Shard, batch: Vec<Queued>, error: StoreError) -> StoreError {
    // First of all: an author that asks after it has learned this is not refused with these.
    shard.refusals.add_all();
    for waiter in shard.pending.gave_up() {
        let why = shard.unreachable("the frame is in the stream, and this node has not followed it there yet");
        shard.fail(waiter, why);
    }
    for queued in batch {
        shard.fail(queued.waiter, error.clone());
    }
    error
}

/// Publishes messages until the stream has acknowledged all of them together. Where nobody answers the first of them
/// alone asks whether the stream is there: it may be there twice then, and that costs less than all of them twice.
async fn insist(
    node: &Node,
    shard: &Shard,
    messages: &[Outgoing],
    before: Duration,
    reason: &mut String,
) -> (Acked, Duration) {
    let patience = (before * PATIENCE_PER_PUBLISH).clamp(PATIENCE_MIN, node.config.request_timeout.max(PATIENCE_MIN));
    let mut attempts = FuturesUnordered::new();
    let mut pause = RETRY_FIRST;
    loop {
        attempts.push(attempt(node, shard, messages));
        let sent = Instant::now();
        let refused = tokio::select! {
            Some(outcome) = attempts.next() => match outcome {
                Ok(acked) => return (acked, sent.elapsed()),
                Err(failure) => {
                    let refused = matches!(failure, Failure::Refused(_));
                    *reason = failure.reason();
                    refused
                }
            },
            () = sleep(patience) => false,
        };
        tracing::debug!(shard = %shard.label, %reason, frames = messages.len(), "a batch is not acknowledged");
        if refused {
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        } else {
            let mut asks = FuturesUnordered::new();
            let first = &messages[..messages.len().min(1)];
            let bytes = first.iter().map(|message| message.payload.len()).sum::<usize>();
            let every = ASK_MAX.min(ASK_EVERY * (1 + u32::try_from(bytes / ASK_BYTES).unwrap_or(u32::MAX)));
            loop {
                asks.push(attempt(node, shard, first));
                let next = sleep(every);
                tokio::pin!(next);
                let there = loop {
                    tokio::select! {
                        biased;
                        Some(outcome) = attempts.next() => match outcome {
                            Ok(acked) => return (acked, sent.elapsed()),
                            Err(failure) => *reason = failure.reason(),
                        },
                        Some(outcome) = asks.next() => match outcome {
                            Ok(acked) if messages.len() == 1 => return (acked, sent.elapsed()),
                            Ok(_) => break true,
                            Err(failure) => *reason = failure.reason(),
                        },
                        () = &mut next => break false,
                    }
                };
                if there {
                    break;
                }
            }
        }
        metrics::republished(&shard.label);
    }
}

/// Tells the follower to start over where what the stream acknowledged does not come back: the server of its consumer may
/// be gone, and would be missed only after two of its heartbeats.
async fn mind(shard: &Shard) {
    let (mut acked, mut followed) = (shard.acked.subscribe(), shard.followed.subscribe());
    let mut patience = COMES_BACK_WITHIN;
    loop {
        if *followed.borrow_and_update() >= *acked.borrow_and_update() {
            patience = COMES_BACK_WITHIN;
            if acked.changed().await.is_err() {
                return std::future::pending().await;
            }
            continue;
        }
        match tokio::time::timeout(patience, followed.changed()).await {
            Ok(_) => patience = COMES_BACK_WITHIN,
            Err(_) => {
                shard.stalled.notify_one();
                patience = (patience * 2).min(16 * COMES_BACK_WITHIN);
            }
        }
    }
}
