//! State shared by the tasks of a fleet's node.

use super::barrier::Round;
use super::clock::Judgement;
use super::config::FleetConfig;
use super::facts::Facts;
use super::guard::Contradiction;
use super::health::{Phase, ShardHealth};
use super::metrics;
use super::open::Purpose;
use super::owed::Owed;
use super::peers::{Peers, Place};
use super::pending::Pending;
use super::shards::{ShardId, Shards};
use super::sync::Prober;
use crate::local::ShardPosition;
use crate::local::replica::{Followed, Replica};
use crate::refusals::Refusals;
use crate::{Accepted, AppendError, Lent, LogStore as _, PendingAppend, StoreError};
use async_nats::jetstream;
use parking_lot::Mutex;
use skytale_proto::session::Durability;
use skytale_proto::{Detail, Frame, LogId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Instant;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// State shared by the tasks of a node.
pub(super) struct Node {
    pub(super) config: FleetConfig,
    pub(super) purpose: Purpose,
    pub(super) shards: Shards,
    pub(super) client: async_nats::Client,
    pub(super) context: jetstream::Context,
    pub(super) replica: Replica,
    pub(super) handles: BTreeMap<ShardId, Shard>,
    pub(super) owed: Owed,
    pub(super) durability: watch::Sender<Durability>,
    pub(super) prober: Prober,
    /// Servers of which it is not known whether they sync, and why not.
    pub(super) unread: Mutex<Vec<String>>,
    /// Reports of the other nodes of the fleet.
    pub(super) peers: Peers,
    /// Judgement on the clocks when they were last compared.
    pub(super) clocks: Mutex<Option<Judgement>>,
    /// Checkpoints that nodes contradict each other about, and how.
    pub(super) doubts: Mutex<BTreeMap<(ShardId, u64), String>>,
    /// Rights that this node's NATS key has and should not have, or the other way round.
    pub(super) rights: Mutex<Vec<String>>,
    /// Asks what an acknowledgement means, now.
    pub(super) ask_sync: Notify,
    /// Facts about the streams from the replica's folder, if there are any.
    pub(super) facts: tokio::sync::Mutex<Option<Facts>>,
    /// Room in the queues: frames, and their bytes.
    pub(super) frames: Arc<Semaphore>,
    pub(super) bytes: Arc<Semaphore>,
    /// No task goes on after this.
    pub(super) ended: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// One shard, as its tasks and callers share it.
pub(super) struct Shard {
    pub(super) id: ShardId,
    /// Name for metrics and messages.
    pub(super) label: String,
    /// Frames to be published. Bounded by the node's room; the Welcomes of accepted bundles come without.
    pub(super) queue: mpsc::UnboundedSender<Queued>,
    pub(super) pending: Pending<Waiter>,
    /// The last message that readers see the effect of.
    pub(super) followed: watch::Sender<u64>,
    pub(super) health: Mutex<ShardHealth>,
    /// Position of this node, for the others.
    pub(super) place: Mutex<Place>,
    /// Asks the follower to compare the stream with its fold, now.
    pub(super) look: Notify,
    /// The last message of this node that the stream acknowledged.
    pub(super) acked: watch::Sender<u64>,
    /// Tells the follower that such messages do not come.
    pub(super) stalled: Notify,
    /// Reason why its stream does not match this node's configuration yet; `None` once it does.
    unchecked: Mutex<Option<String>>,
    /// The connection to NATS on which the stream last matched the replica.
    pub(super) looked_on: AtomicU64,
    /// Of what authors learned that its fate is unknown.
    pub(super) refusals: Refusals,
    /// Words for checkpoints that are on their way.
    pub(super) vouching: AtomicUsize,
    /// End of the stream, as its leader reports it.
    pub(super) ends: Round<Result<u64, StoreError>>,
    /// Lower bound for its end, as agreed on by its servers.
    pub(super) marks: Round<Result<u64, StoreError>>,
}

/// A frame on its way to the stream.
pub(super) struct Queued {
    pub(super) frame: Frame,
    /// [`Refusals::now`] when the append was asked for.
    pub(super) asked: u64,
    pub(super) waiter: Waiter,
}

/// Caller that waits for a verdict.
pub(super) struct Waiter {
    answer: tokio::sync::oneshot::Sender<Result<Accepted, AppendError>>,
    pub(super) log: LogId,
    /// Whether the frame is a bundle with Welcomes to come.
    is_bundle: bool,
    pub(super) since: Instant,
    _room: Option<Room>,
}

/// Room that an append takes of the queues, and the value lent to it, until it is answered.
pub(super) struct Room {
    _frame: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
    _lent: Option<Lent>,
}

impl Room {
    pub(super) const fn new(frame: OwnedSemaphorePermit, bytes: OwnedSemaphorePermit, lent: Option<Lent>) -> Self {
        Self {
            _frame: frame,
            _bytes: bytes,
            _lent: lent,
        }
    }
}

impl Waiter {
    /// Tells that the frame is not known to be an entry.
    pub(super) fn fail(self, error: StoreError) {
        // A caller that no longer waits needs no answer.
        let _ = self.answer.send(Err(error.into()));
    }

    fn tell(self, outcome: Result<Accepted, AppendError>) {
        metrics::appended(self.since.elapsed());
        let _ = self.answer.send(outcome);
    }
}

impl Shard {
    pub(super) fn new(id: ShardId, queue: mpsc::UnboundedSender<Queued>, position: &ShardPosition) -> Self {
        let followed = position.sequence;
        Self {
            id,
            label: id.to_string(),
            queue,
            pending: Pending::new(),
            followed: watch::Sender::new(followed),
            health: Mutex::new(ShardHealth::new(id, followed)),
            place: Mutex::new(Place {
                stream: position.stream,
                sequence: followed,
            }),
            look: Notify::new(),
            acked: watch::Sender::new(0),
            stalled: Notify::new(),
            unchecked: Mutex::new(Some("its stream has not answered since this node started".into())),
            looked_on: AtomicU64::new(0),
            refusals: Refusals::default(),
            vouching: AtomicUsize::new(0),
            ends: Round::new(),
            marks: Round::new(),
        }
    }

    /// Tells an author that the fate of its frame is unknown. What it asked for before is no longer published to that log.
    pub(super) fn fail(&self, waiter: Waiter, error: StoreError) {
        let log = waiter.log;
        waiter.fail(error);
        self.refusals.add(log);
    }

    /// Whether the stream matches this node's configuration. Nothing is put into it before.
    pub(super) fn checked(&self) -> Result<(), StoreError> {
        match &*self.unchecked.lock() {
            None => Ok(()),
            Some(reason) => Err(self.unreachable(reason.clone())),
        }
    }

    /// Returns the reason why its stream does not match this node's configuration.
    pub(super) fn why_unchecked(&self) -> Option<String> {
        self.unchecked.lock().clone()
    }

    /// It has caught up with what its stream held when the node started, or cannot.
    pub(super) fn is_settled(&self) -> bool {
        let health = self.health.lock();
        health.ready || health.phase == Phase::Halted
    }

    /// The stream was checked: `None`. Or why it could not be.
    pub(super) fn check(&self, problem: Option<String>) {
        *self.unchecked.lock() = problem;
    }

    /// Takes no appends for this shard, and goes on looking: what this node has folded and what its stream says contradict.
    /// The other shards go on.
    pub(super) fn halt(&self, contradiction: &Contradiction) {
        let before = std::mem::replace(&mut self.health.lock().phase, Phase::Halted);
        if before != Phase::Halted {
            tracing::error!(
                shard = %self.label,
                %contradiction,
                "no appends are taken for this shard, and it is served as far as it was followed"
            );
        }
        metrics::halted(&self.label, true);
        self.check(Some(contradiction.to_string()));
        // Waiters get their answer now, and not when it is too late for one.
        self.refusals.add_all();
    }

    /// The stream matches the replica: appends are taken.
    pub(super) fn resume(&self) {
        metrics::halted(&self.label, false);
        let mut health = self.health.lock();
        if health.phase == Phase::Halted {
            health.phase = Phase::CatchingUp;
        }
        drop(health);
        self.check(None);
    }

    pub(super) fn unreachable(&self, reason: impl Into<String>) -> StoreError {
        StoreError::HomeUnreachable {
            home: self.label.clone(),
            reason: reason.into(),
        }
    }

    pub(super) fn catching_up(&self) -> StoreError {
        StoreError::CatchingUp {
            home: self.label.clone(),
        }
    }
}

impl Node {
    /// Whether appends are taken.
    pub(super) fn running(&self) -> Result<(), StoreError> {
        match &*self.replica.store().stopped().borrow() {
            None if self.ended.is_cancelled() => Err(closed()),
            None => Ok(()),
            Some(reason) => Err(StoreError::Stopped { reason: reason.clone() }),
        }
    }

    /// Returns the reason why nothing is taken any more.
    pub(super) fn why_ended(&self) -> StoreError {
        self.running().err().unwrap_or_else(closed)
    }

    /// Whether a NATS server is connected: what would be asked otherwise would wait.
    pub(super) fn connected(&self) -> Result<(), String> {
        match self.client.connection_state() {
            async_nats::connection::State::Connected => Ok(()),
            _ => Err("no NATS server is connected".into()),
        }
    }

    /// The shard of a log; `None` where its home is no region of this fleet.
    pub(super) fn shard_of(&self, log: &LogId) -> Option<&Shard> {
        self.handles.get(&self.shards.of(log)?)
    }

    /// Takes nothing more and answers reads alone: what this node has folded and what a stream says contradict.
    pub(super) fn stop(&self, shard: &Shard, contradiction: &Contradiction) {
        shard.health.lock().phase = Phase::Stopped;
        self.replica.stop(contradiction.to_string());
        self.ended.cancel();
    }

    /// Queues a frame for its shard's stream.
    pub(super) fn enqueue(&self, shard: &Shard, frame: Frame, room: Option<Room>) -> Result<PendingAppend, StoreError> {
        shard.checked()?;
        self.enqueue_asked(shard, frame, room, shard.refusals.now())
    }

    /// Queues a frame that was asked for when [`Refusals::now`] was `asked`.
    pub(super) fn enqueue_asked(
        &self,
        shard: &Shard,
        frame: Frame,
        room: Option<Room>,
        asked: u64,
    ) -> Result<PendingAppend, StoreError> {
        let header = frame.header();
        let is_bundle = matches!(&header.detail, Detail::Commit { recipients, .. } if !recipients.is_empty());
        let (answer, pending) = PendingAppend::new();
        let waiter = Waiter {
            answer,
            log: header.log,
            is_bundle,
            since: Instant::now(),
            _room: room,
        };
        let queued = Queued { frame, asked, waiter };
        shard.queue.send(queued).map_err(|_| self.why_ended())?;
        Ok(pending)
    }

    /// Answers an append whose message was folded; one of a bundle when its Welcomes are on their logs too.
    pub(super) fn answer(self: &Arc<Self>, waiter: Waiter, followed: Followed) {
        let outcome = match followed.verdict {
            Some(Ok(accepted)) => Ok(accepted),
            Some(Err(refused)) => Err(refused.into()),
            None => Err(StoreError::Io {
                doing: "append a frame".into(),
                error: "the stream holds something else at its place".into(),
            }
            .into()),
        };
        let log = waiter.log;
        match &outcome {
            Ok(accepted)
                if waiter.is_bundle
                    && self.purpose == Purpose::Serve
                    && !self.owed.left(log, accepted.offset).is_empty() =>
            {
                let (node, offset) = (self.clone(), accepted.offset);
                self.tasks.spawn(async move {
                    match node.deliver(log, offset).await {
                        Ok(()) => waiter.tell(outcome),
                        Err(error) => waiter.fail(error),
                    }
                });
            }
            _ => {
                let is_unknown = matches!(outcome, Err(AppendError::Store(_)));
                waiter.tell(outcome);
                if let Some(shard) = self.shards.of(&log).and_then(|id| self.handles.get(&id))
                    && is_unknown
                {
                    shard.refusals.add(log);
                }
            }
        }
    }
}

pub(super) fn closed() -> StoreError {
    StoreError::Stopped {
        reason: "the store is closed".into(),
    }
}
