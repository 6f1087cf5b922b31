//! Logs on one node: segment files, and an index that is derived from them.
//!
//! ```text
//!  append ──> queue ──> fold ──> batch ──> segment ──fdatasync──> tail (memory) ──> readers near the head
//!                                             │                     │
//!                                             │                     └──> index thread ──> sled
//!                                             └────── positioned reads ──> readers far from it
//! ```
//!
//! The writer folds waiting frames into the next batch, writes once, syncs once, and then shows and acknowledges; while it
//! writes, another thread folds if many wait. Sealed segments are regrouped by log in the background
//! ([`LocalStore::regroup`]). Every record is checksummed and the segments alone tell everything: the
//! index may be deleted while the store is closed. An end that a crash cut off was never acknowledged, and is removed for good when the
//! store opens. Damage anywhere else is reported with its place; the log that it hits is served up to it, and takes no
//! appends.

mod batch;
mod builder;
mod clock;
mod command;
mod config;
mod error;
mod faults;
pub(crate) mod folder;
mod folding;
mod index;
mod intake;
pub(crate) mod known;
mod metrics;
pub(crate) mod position;
mod progress;
mod reading;
mod recover;
mod regroup;
mod replay;
pub mod replica;
mod retention;
pub(crate) mod segment;
mod shared;
mod space;
mod tail;
mod working;
mod writer;

pub use clock::Clocks;
pub use config::{LocalConfig, Retention, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
pub use error::OpenError;
pub use faults::{DiskFaults, DiskStep};
pub use position::ShardPosition;
pub use regroup::Regrouped;
pub use replica::Replica;

use crate::store::{full_problem, stopped_problem};
use crate::{
    Access, AppendError, KeyPackageStock, Lent, LogStatus, LogStore, PendingAppend, ReadBatch, Readiness, StoreError,
};
use bytes::Bytes;
use clock::StoreClock;
use command::{Asked, Command, Teller};
use folder::Role;
use folding::{HELP_FROM, Stage};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use index::Indexer;
use intake::Bell;
use recover::{Recovered, recover};
use regroup::{RegroupThread, Regrouper};
use retention::{Keeper, KeeperThread};
use shared::Shared;
use skytale_proto::session::Durability;
use skytale_proto::{AccountId, AgentId, Frame, Header, LogId, Offset};
use space::LOOK_EVERY;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use tokio::sync::{Mutex, Semaphore, mpsc, watch};
use writer::Writer;

/// Logs on one node. Durable once acknowledged.
///
/// Dropping it finishes queued appends, in the background; [`LogStore::close`] waits for that.
pub struct LocalStore {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Command>,
    room: Arc<Semaphore>,
    /// Wakes the folding thread.
    help: Arc<Bell>,
    keeper: Arc<Keeper>,
    keeper_thread: Arc<KeeperThread>,
    regrouper: Arc<Regrouper>,
    regroup_thread: Arc<RegroupThread>,
    /// The folding thread and the writer.
    #[cfg(test)]
    stage: Arc<Stage>,
    threads: Mutex<Option<[JoinHandle<()>; 2]>>,
}

impl LocalStore {
    /// Opens the store in a folder, or makes one there. Reads the end of the last segment and what the index does not
    /// have; where the index is missing, all of it.
    pub async fn open(config: LocalConfig) -> Result<Self, OpenError> {
        Ok(Self::open_as(config, Role::Alone, true).await?.0)
    }

    /// Opens it as [`LocalStore::open`] does, but acknowledges without making anything durable. For the test that shows
    /// that it would notice.
    #[doc(hidden)]
    pub async fn open_without_sync(config: LocalConfig) -> Result<Self, OpenError> {
        Ok(Self::open_as(config, Role::Alone, false).await?.0)
    }

    async fn open_as(config: LocalConfig, role: Role, sync: bool) -> Result<(Self, Vec<ShardPosition>), OpenError> {
        if let Some(problem) = config.problem() {
            return Err(OpenError::Config { problem });
        }
        metrics::describe();
        let opened = tokio::task::spawn_blocking(move || {
            let recovered = recover(config, role, sync)?;
            let positions = recovered.beginning.positions.to_vec();
            let (store, owed) = Self::start(recovered)?;
            Ok::<_, OpenError>((store, owed, positions))
        });
        let (store, owed, positions) = opened.await.map_err(|error| OpenError::Store(panicked(&error)))??;
        // A replica's Welcomes come from the stream of their logs.
        if role == Role::Alone {
            store.settle(owed).await?;
        }
        Ok((store, positions))
    }

    fn start(recovered: Recovered) -> Result<(Self, Vec<Header>), OpenError> {
        let Recovered {
            shared,
            beginning,
            owed,
        } = recovered;
        let thread = |source| OpenError::Io {
            doing: "start a thread".into(),
            source,
        };
        // A replica drops what its streams gave up, whatever the time is.
        let judges_age = shared.role == Role::Alone && shared.config.retention.age.is_some();
        let clock = judges_age.then(|| StoreClock::open(&shared.config.dir, &shared.config.clocks, beginning.time_ms));
        let (queue, receiver) = mpsc::channel(shared.config.queue_frames_max);
        let room = Arc::new(Semaphore::new(shared.config.queue_bytes_max));
        shared.progress.indexed(beginning.next_batch - 1, 0);
        let indexer = Indexer::start(shared.clone()).map_err(thread)?;
        let stage = Arc::new(Stage::new(
            shared.clone(),
            receiver,
            beginning.next_batch,
            beginning.time_ms,
        ));
        let help = stage.help();
        let writer = Writer::new(shared.clone(), stage.clone(), room.clone(), indexer, beginning);
        #[cfg(test)]
        let for_tests = stage.clone();
        let folding = std::thread::Builder::new()
            .name("skytale-fold".into())
            .spawn(move || stage.fold_all())
            .map_err(thread)?;
        let writer = std::thread::Builder::new()
            .name("skytale-writer".into())
            .spawn(move || writer.run())
            .map_err(thread)?;
        let keeper = Arc::new(Keeper::new(shared.clone(), queue.clone(), clock));
        // Entries from before the store was closed do not share a segment with the next ones.
        keeper.seal()?;
        let keeper_thread = Arc::new(KeeperThread::start(keeper.clone()).map_err(thread)?);
        let regrouper = Arc::new(Regrouper::new(shared.clone()));
        let regroup_thread = Arc::new(RegroupThread::start(regrouper.clone()).map_err(thread)?);
        let store = Self {
            shared,
            queue,
            room,
            help,
            keeper,
            keeper_thread,
            regrouper,
            regroup_thread,
            threads: Mutex::new(Some([folding, writer])),
            #[cfg(test)]
            stage: for_tests,
        };
        Ok((store, owed))
    }

    /// Appends the Welcomes that a torn batch owes. Appending one twice changes nothing. Where there is no room, they are
    /// appended when there is some, before all else.
    async fn settle(&self, owed: Vec<Header>) -> Result<(), OpenError> {
        let owed = owed.into_iter().map(|header| {
            let (log, id) = (header.log, header.id);
            Frame::new(header, Bytes::new()).map_err(|error| {
                OpenError::Store(StoreError::Io {
                    doing: format!("make the Welcome {id} on {log}"),
                    error: error.to_string(),
                })
            })
        });
        let mut owed = owed.collect::<Result<VecDeque<_>, _>>()?;
        if self.appends().settle(&mut owed).await? {
            return Ok(());
        }
        self.shared.space.owes(true);
        let (shared, room, queue) = (self.shared.clone(), self.room.clone(), self.queue.downgrade());
        let help = self.help.clone();
        // Ends with the store, whose queue it does not keep open.
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let Some(queue) = queue.upgrade() else { return };
                let appends = Appends {
                    shared: &shared,
                    queue: &queue,
                    room: &room,
                    help: &help,
                };
                match appends.settle(&mut owed).await {
                    Ok(false) => {}
                    Ok(true) => return shared.space.owes(false),
                    Err(error) => return tracing::debug!(%error, "owed Welcomes wait for the next start"),
                }
            }
        });
        Ok(())
    }

    /// Drops the segments that [`Retention`] does not keep, and gives how many those were. The store does so by itself
    /// from time to time.
    pub async fn enforce_retention(&self) -> Result<u64, StoreError> {
        let keeper = self.keeper.clone();
        blocking(move || keeper.enforce()).await
    }

    /// Regroups by log the sealed segments that gain by it, at full speed. The store does so by itself, more slowly.
    pub async fn regroup(&self) -> Result<Regrouped, StoreError> {
        let regrouper = self.regrouper.clone();
        blocking(move || regrouper.regroup(None)).await
    }

    /// Returns the state of a log, from memory or disk.
    async fn known(&self, log: LogId) -> Result<Arc<known::Known>, StoreError> {
        if let Some(known) = self.shared.known_in_memory(&log) {
            return Ok(known);
        }
        let shared = self.shared.clone();
        blocking(move || shared.known(&log)).await
    }

    async fn read_entries(
        &self,
        log: LogId,
        after: Offset,
        bytes_max: usize,
        entries_max: u64,
    ) -> Result<ReadBatch, StoreError> {
        if let Some(read) = self.shared.read_recent(&log, after, bytes_max, entries_max) {
            return read;
        }
        let shared = self.shared.clone();
        blocking(move || shared.read(&log, after, bytes_max, entries_max)).await
    }

    async fn head(&self, log: LogId) -> Result<Offset, StoreError> {
        if let Some(head) = self.shared.tail.read().head(&log) {
            return Ok(head);
        }
        let shared = self.shared.clone();
        blocking(move || shared.head(&log)).await
    }

    fn appends(&self) -> Appends<'_> {
        Appends {
            shared: &self.shared,
            queue: &self.queue,
            room: &self.room,
            help: &self.help,
        }
    }

    async fn close_once(&self) -> Result<(), StoreError> {
        let mut threads = self.threads.lock().await;
        let Some(running) = threads.take() else {
            return Ok(());
        };
        self.keeper_thread.stop();
        self.regroup_thread.stop();
        // The queue is closed already where the writer has ended.
        let _ = self.queue.send(Command::Close).await;
        let (keeper, regroup) = (self.keeper_thread.clone(), self.regroup_thread.clone());
        let joined = tokio::task::spawn_blocking(move || {
            let joined = running.map(|thread| thread.join().is_ok()) == [true, true];
            keeper.join();
            regroup.join();
            joined
        })
        .await;
        match joined {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::Stopped {
                reason: "the writer panicked".into(),
            }),
            Err(error) => Err(panicked(&error)),
        }
    }
}

/// The way into the queue.
struct Appends<'a> {
    shared: &'a Arc<Shared>,
    queue: &'a mpsc::Sender<Command>,
    room: &'a Semaphore,
    help: &'a Bell,
}

impl Appends<'_> {
    async fn append(&self, frame: Frame, asked: Asked, lent: Option<Lent>) -> Result<PendingAppend, StoreError> {
        self.shared.running()?;
        if let Asked::Author(asked) = asked {
            let (space, log) = (&self.shared.space, frame.header().log);
            space.admits(&log, asked).inspect_err(|_| space.refused(log))?;
        }
        let closed = || self.shared.running().err().unwrap_or_else(closed);
        // The place in the queue comes first, so that giving up while waiting for room leaves nothing taken.
        let place = self.queue.reserve().await.map_err(|_| closed())?;
        let bytes = u32::try_from(frame.encoded().len()).unwrap_or(u32::MAX);
        let room = self.room.acquire_many(bytes).await.map_err(|_| closed())?;
        // The writer gives it back when the frame is answered.
        room.forget();
        let (answer, pending) = PendingAppend::new();
        let answer = Teller::new(answer, lent);
        place.send(Command::Append { frame, asked, answer });
        if self.queue.max_capacity() - self.queue.capacity() >= HELP_FROM {
            self.help.ring();
        }
        Ok(pending)
    }

    /// Appends Welcomes that are owed. False where there was no room for all of them.
    async fn settle(&self, owed: &mut VecDeque<Frame>) -> Result<bool, StoreError> {
        while let Some(frame) = owed.front() {
            let (log, id) = (frame.header().log, frame.header().id);
            match self.append(frame.clone(), Asked::Store, None).await?.verdict().await {
                Ok(accepted) => tracing::info!(%log, %id, offset = %accepted.offset, "put an owed Welcome on its log"),
                Err(AppendError::Store(StoreError::Full { .. })) => return Ok(false),
                // As it was before the restart: its author has claimed no package of the recipient.
                Err(AppendError::Refused(refused)) => tracing::debug!(%log, %id, %refused, "a Welcome is not an entry"),
                Err(error) => tracing::error!(%log, %id, %error, "an owed Welcome cannot be put on its log"),
            }
            owed.pop_front();
        }
        Ok(true)
    }
}

impl LogStore for LocalStore {
    fn append(&self, frame: Frame) -> BoxFuture<'_, Result<PendingAppend, StoreError>> {
        // Now, and not when the future is polled: its author knew the failures reported before this call.
        let asked = Asked::Author(self.shared.space.asked());
        async move { self.appends().append(frame, asked, None).await }.boxed()
    }

    fn append_lent(&self, frame: Frame, lent: Lent) -> BoxFuture<'_, Result<PendingAppend, StoreError>> {
        let asked = Asked::Author(self.shared.space.asked());
        async move { self.appends().append(frame, asked, Some(lent)).await }.boxed()
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
        async move {
            let watch = self.shared.watches.watch(log, self.head(log).await?);
            // The head may have moved before the watch was there.
            self.shared.watches.publish(log, self.head(log).await?);
            Ok(watch)
        }
        .boxed()
    }

    fn access(
        &self,
        log: LogId,
        agent: AgentId,
        account: AccountId,
        after: Offset,
    ) -> BoxFuture<'_, Result<Access, StoreError>> {
        async move { Ok(self.known(log).await?.state.access(agent, account, after)) }.boxed()
    }

    fn status(&self, log: LogId) -> BoxFuture<'_, Result<LogStatus, StoreError>> {
        async move { Ok(self.known(log).await?.state.status()) }.boxed()
    }

    fn key_packages(&self, agent: AgentId) -> BoxFuture<'_, Result<KeyPackageStock, StoreError>> {
        async move { Ok(self.known(agent.log()).await?.state.key_packages()) }.boxed()
    }

    fn durability(&self) -> Durability {
        Durability::NodeSynced
    }

    fn stopped(&self) -> watch::Receiver<Option<String>> {
        self.shared.stopped.subscribe()
    }

    fn given_up_ms(&self) -> u64 {
        self.shared.given_up_ms.load(Ordering::Relaxed)
    }

    fn readiness(&self) -> Readiness {
        let stopped = self.shared.stopped.borrow().clone();
        let stopped = stopped.iter().map(|why| stopped_problem(why));
        let full = self.shared.space.why();
        Readiness {
            problems: stopped.chain(full.iter().map(|why| full_problem(why))).collect(),
            remarks: self.keeper.remark().into_iter().collect(),
            ..Readiness::default()
        }
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.close_once().boxed()
    }
}

impl Drop for LocalStore {
    fn drop(&mut self) {
        self.keeper_thread.stop();
        self.regroup_thread.stop();
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(panicked(&error)))
}

fn panicked(error: &tokio::task::JoinError) -> StoreError {
    StoreError::Stopped {
        reason: format!("a task of the store ended early: {error}"),
    }
}

fn closed() -> StoreError {
    StoreError::Stopped {
        reason: "the store is closed".into(),
    }
}
