//! Logs of a fleet: NATS JetStream is the truth, each node's local store a replica of it.
//!
//! ```text
//!   node A                        stream of shard 0/3 (a Raft group)                       node B
//!   append ──> queue ──batch──>  .. 41 42 43 44 45 46 47 48 49 50 |
//!      ^                            \________ every node folds all of it, in order ________/
//!      └── verdict <── replica <── follower                          follower ──> replica ──> readers
//! ```
//!
//! No node leads. Each log belongs to one shard, by its id; a frame is put into the shard's stream, and the stream's order is
//! the log's: every node folds it through the same [`crate::LogState`], so all give the same offsets and verdicts. An append
//! is answered when this node has folded its own message. A message that folds to a refusal stays in the stream and is
//! no entry, on all nodes alike. An entry's time is the stream's own, the same everywhere.
//!
//! - A bundle's Welcomes go to the streams of their recipients: put there by the node that took the bundle, or by any other
//!   where that one is gone (`owed.rs`).
//! - Folded messages are hashed into a chain. A node stops, and says why, if its stream went back, was recreated, is
//!   missing, or holds other bytes than were folded (`guard.rs`).
//!
//! - Entries are given up by Trims in the streams (`retention.rs`); then a checkpoint takes the place of the messages
//!   before it (`checkpoint.rs`), and a node without a replica begins there (`bootstrap.rs`) if enough nodes vouch for
//!   it (`vouch.rs`).
//! - No node can delete a message: the streams are purged by the fleet's keeper, who writes nothing (`keeper.rs`).
//! - A node in another region follows a mirror of the stream, in its own region, or the stream itself if the mirror is
//!   down. Its appends go to the home.
//! - Before it says that a cursor or a log is not there, a node makes sure that it is not merely behind (`barrier.rs`, `mark.rs`).
//! - A node that has followed before starts without the streams that do not answer (`open.rs`, `follower/admit.rs`, `facts.rs`).
//!
//! This store takes no lock, elects no leader of its own, and reads no clock to decide what an entry is.

mod asking;
mod attempt;
mod barrier;
mod bootstrap;
mod bucket;
mod chain;
mod checkpoint;
mod clock;
mod config;
mod connect;
pub mod doctor;
mod error;
mod facts;
mod follower;
mod gathering;
mod guard;
mod health;
mod keeper;
mod keys;
mod mark;
mod metrics;
mod mirror;
mod node;
mod open;
mod owed;
mod peers;
mod pending;
mod publisher;
mod readiness;
mod restore;
mod retention;
mod rights;
mod shards;
mod signer;
mod streams;
mod sweeper;
mod sync;
mod vouch;
mod vouching;
mod welcomes;

pub use config::{BATCH_MESSAGES_MAX, FleetConfig, NatsAuth, NatsConfig, NatsTls, RegionConfig, Secret, SyncProof};
pub use connect::reach;
pub use error::OpenError;
pub use guard::Contradiction;
pub use health::{ClockHealth, HaltedShard, Health, Phase, ShardHealth};
pub use keeper::{Keeper, KeeperRound, Kept};
pub use keys::KeyFile;
pub use restore::{RestoreError, Restored, restore};
pub use shards::{SHARDS_MAX, ShardId, Shards};
pub use signer::{KnownNodes, Signer};

use crate::{
    Access, KeyPackageStock, Lent, LogStatus, LogStore, PendingAppend, ReadBatch, Readiness, Refused, StoreError,
};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use node::{Node, Room, Shard};
use skytale_proto::session::Durability;
use skytale_proto::{AccountId, AgentId, Frame, LogId, Offset};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// Maximum time that closing waits for appends that are on their way.
const CLOSE_WITHIN: Duration = Duration::from_secs(30);

/// The store of one node of a fleet.
pub struct FleetStore {
    node: Arc<Node>,
    /// Taken when the store is closed.
    open: Mutex<bool>,
}

impl FleetStore {
    /// Opens the replica, connects to NATS, makes the streams that are missing and begins to follow. Where the replica is
    /// empty or too old, it begins with a checkpoint. Does not wait until it has caught up: [`FleetStore::health`] says.
    ///
    /// A node that has followed before starts without NATS too, or without some of the streams: it serves its replica,
    /// and goes on by itself when they answer. The checks of its start are made then, before the first append is taken;
    /// if one fails, the store stops and says why. A node that has followed nothing has nothing to serve: it fails
    /// after `open_timeout`.
    pub async fn open(config: FleetConfig) -> Result<Self, OpenError> {
        Self::open_as(config, open::Purpose::Serve).await
    }

    async fn open_as(config: FleetConfig, purpose: open::Purpose) -> Result<Self, OpenError> {
        metrics::describe();
        let node = Box::pin(open::open(config, purpose)).await?;
        Ok(Self {
            node,
            open: Mutex::new(true),
        })
    }

    /// Returns the node's health: for `/readyz`.
    pub fn health(&self) -> Health {
        let shards: Vec<ShardHealth> = self.node.handles.values().map(|shard| *shard.health.lock()).collect();
        let stopped = self.node.replica.store().stopped().borrow().clone();
        Health {
            ready: stopped.is_none() && shards.iter().all(|shard| shard.ready),
            stopped,
            full: self.node.replica.full(),
            durability: *self.node.durability.borrow(),
            unread: self.node.unread.lock().clone(),
            clocks: ClockHealth::of(&self.node),
            halted: self.node.halted(),
            doubtful: self.node.doubtful(),
            rights: self.node.rights.lock().clone(),
            connected: self.node.connected().is_ok(),
            unchecked: self
                .node
                .handles
                .values()
                .find_map(|shard| Some((shard.id, shard.checked().err()?)))
                .map(|(shard, error)| (shard, error.to_string())),
            shards,
            bundles_owing: self.node.owed.bundles(),
        }
    }

    /// Waits until all shards have caught up with what their streams held when the node started, or are halted; or until the
    /// store stops.
    pub async fn ready(&self) -> Result<(), StoreError> {
        for shard in self.node.handles.values() {
            let mut followed = shard.followed.subscribe();
            while !shard.is_settled() {
                tokio::select! {
                    () = self.node.ended.cancelled() => return Err(self.node.why_ended()),
                    _ = followed.changed() => {}
                    // A shard with nothing to follow becomes ready without a message.
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                }
            }
        }
        Ok(())
    }

    /// Other nodes that were heard lately.
    pub(super) fn others(&self) -> usize {
        self.node.peers.others()
    }

    /// The shard of a log; `None` where its home is no region of this fleet.
    pub fn shard_of(&self, log: &LogId) -> Option<ShardId> {
        self.node.shards.of(log)
    }

    fn home(&self, log: &LogId) -> Option<&Shard> {
        self.node.shard_of(log)
    }

    async fn append_frame(&self, frame: Frame, asked: u64, lent: Option<Lent>) -> Result<PendingAppend, StoreError> {
        let node = &self.node;
        node.running()?;
        let Some(shard) = self.home(&frame.header().log) else {
            // No region of this fleet: nobody can have made such a log.
            let (answer, pending) = PendingAppend::new();
            let _ = answer.send(Err(Refused::UnknownLog.into()));
            return Ok(pending);
        };
        if let Err(error) = shard.checked() {
            // None that was asked for before this is reported is taken after it.
            shard.refusals.add_all();
            return Err(error);
        }
        if let Some(reason) = node.replica.full() {
            // It could not tell the verdict.
            shard.refusals.add_all();
            return Err(StoreError::Full { reason });
        }
        let closed = |_| node.why_ended();
        let bytes = u32::try_from(frame.encoded().len()).unwrap_or(u32::MAX);
        let place = node.frames.clone().acquire_owned().await.map_err(closed)?;
        let room = node.bytes.clone().acquire_many_owned(bytes).await.map_err(closed)?;
        node.running()?;
        node.enqueue_asked(shard, frame, Some(Room::new(place, room, lent)), asked)
    }

    async fn read_entries(
        &self,
        log: LogId,
        after: Offset,
        bytes_max: usize,
        entries_max: u64,
    ) -> Result<ReadBatch, StoreError> {
        let replica = self.node.replica.store();
        let read = replica.read(log, after, bytes_max, entries_max).await;
        let Some(shard) = self.home(&log) else { return read };
        match read {
            // The cursor may come from a node that is ahead of this one.
            Err(StoreError::BeyondHead { .. }) if self.node.running().is_err() => Err(shard.catching_up()),
            Err(StoreError::BeyondHead { .. }) => {
                self.node.barrier(shard).await?;
                let read = replica.read(log, after, bytes_max, entries_max).await;
                if !matches!(read, Err(StoreError::BeyondHead { .. })) {
                    return read;
                }
                // The leader that said so may be none any more, and to be called wrong is final for a cursor.
                self.node.confirm(shard).await?;
                replica.read(log, after, bytes_max, entries_max).await
            }
            // Entries before the checkpoint that this replica began with: given up by a Trim that is yet to come.
            Err(StoreError::Corrupt { .. }) if !shard.health.lock().ready => Err(shard.catching_up()),
            read => read,
        }
    }

    async fn access_to(
        &self,
        log: LogId,
        agent: AgentId,
        account: AccountId,
        after: Offset,
    ) -> Result<Access, StoreError> {
        let replica = self.node.replica.store();
        let access = replica.access(log, agent, account, after).await?;
        let Some(shard) = self.home(&log) else {
            return Ok(access);
        };
        // Another node may know of the log, or of the agent's joining, already.
        let maybe_behind = matches!(access, Access::UnknownLog | Access::NotMember { next: None });
        if !maybe_behind {
            return Ok(access);
        }
        if self.node.running().is_err() {
            return Err(shard.catching_up());
        }
        self.node.barrier(shard).await?;
        replica.access(log, agent, account, after).await
    }

    async fn settle(&self, log: LogId) -> Result<(), StoreError> {
        // If no region of this fleet has the log, nobody acknowledges anything of it.
        let Some(shard) = self.home(&log) else { return Ok(()) };
        self.node.running()?;
        // A stream that contradicts the replica does not say how far it went.
        shard.checked()?;
        if shard.health.lock().phase == Phase::Unreachable {
            return Err(shard.unreachable("its stream does not answer"));
        }
        self.node.barrier(shard).await
    }

    async fn close_once(&self) -> Result<(), StoreError> {
        let mut open = self.open.lock().await;
        if !std::mem::take(&mut *open) {
            return Ok(());
        }
        let node = &self.node;
        // Appends that wait for room are turned away; those that have it are answered.
        let all = u32::try_from(node.config.queue_frames_max).unwrap_or(u32::MAX);
        let drained = async {
            tokio::select! {
                _ = node.frames.acquire_many(all) => {}
                () = node.ended.cancelled() => {}
            }
        };
        if tokio::time::timeout(CLOSE_WITHIN, drained).await.is_err() {
            tracing::warn!("closed while appends were on their way; their authors learn that nobody knows");
        }
        node.frames.close();
        node.bytes.close();
        node.ended.cancel();
        node.tasks.close();
        node.tasks.wait().await;
        node.replica.close().await
    }
}

impl LogStore for FleetStore {
    fn append(&self, frame: Frame) -> BoxFuture<'_, Result<PendingAppend, StoreError>> {
        // Now, and not when the future is polled: its author knew the failures reported before this call.
        let asked = self.home(&frame.header().log).map_or(0, |shard| shard.refusals.now());
        self.append_frame(frame, asked, None).boxed()
    }

    fn append_lent(&self, frame: Frame, lent: Lent) -> BoxFuture<'_, Result<PendingAppend, StoreError>> {
        let asked = self.home(&frame.header().log).map_or(0, |shard| shard.refusals.now());
        self.append_frame(frame, asked, Some(lent)).boxed()
    }

    fn read(
        &self,
        log: LogId,
        after: Offset,
        bytes_max: usize,
        entries_max: u64,
    ) -> BoxFuture<'_, Result<ReadBatch, StoreError>> {
        self.read_entries(log, after, bytes_max, entries_max).boxed()
    }

    fn watch_head(&self, log: LogId) -> BoxFuture<'_, Result<watch::Receiver<Offset>, StoreError>> {
        self.node.replica.store().watch_head(log)
    }

    fn settled(&self, log: LogId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.settle(log).boxed()
    }

    fn access(
        &self,
        log: LogId,
        agent: AgentId,
        account: AccountId,
        after: Offset,
    ) -> BoxFuture<'_, Result<Access, StoreError>> {
        self.access_to(log, agent, account, after).boxed()
    }

    fn status(&self, log: LogId) -> BoxFuture<'_, Result<LogStatus, StoreError>> {
        self.node.replica.store().status(log)
    }

    fn key_packages(&self, agent: AgentId) -> BoxFuture<'_, Result<KeyPackageStock, StoreError>> {
        self.node.replica.store().key_packages(agent)
    }

    fn durability(&self) -> Durability {
        *self.node.durability.borrow()
    }

    fn stopped(&self) -> watch::Receiver<Option<String>> {
        self.node.replica.store().stopped()
    }

    fn agreed_ms(&self) -> Option<u64> {
        let judged = self.node.peers.clocks.lock().judge()?;
        judged
            .is_agreed
            .then(|| self.node.config.now_ms().saturating_add_signed(judged.ahead_ms))
    }

    fn lane(&self, log: &LogId) -> u32 {
        // A log without a shard is refused before any queue.
        self.node.shards.of(log).map_or(u32::MAX, ShardId::number)
    }

    /// A stream holds all that was published, whatever became of it.
    fn keeps_refused(&self) -> bool {
        true
    }

    fn given_up_ms(&self) -> u64 {
        self.node.replica.store().given_up_ms()
    }

    fn readiness(&self) -> Readiness {
        let mut readiness = self.health().readiness();
        readiness.remarks.extend(keys::problems(&self.node.config));
        readiness.remarks.extend(vouching::problem(&self.node.config));
        readiness
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.close_once().boxed()
    }
}

impl Drop for FleetStore {
    fn drop(&mut self) {
        self.node.ended.cancel();
    }
}
