//! A store that answers one append at a time, when a test says so: so that what goes before what can be counted.

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use skytale_log_store::{
    Accepted, Access, AppendError, KeyPackageStock, Lent, LogStatus, LogStore, MemoryStore, PendingAppend, ReadBatch,
    StoreError,
};
use skytale_proto::session::Durability;
use skytale_proto::{AccountId, AgentId, Frame, LogId, Offset};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{oneshot, watch};

/// A memory store that keeps appends in the order in which they come, until they are answered one by one.
pub(crate) struct SteppingStore {
    behind: MemoryStore,
    steps: AtomicBool,
    queue: Mutex<VecDeque<Queued>>,
    /// The authors of the frames that came, in order.
    came: watch::Sender<Vec<AgentId>>,
}

struct Queued {
    frame: Frame,
    answer: oneshot::Sender<Result<Accepted, AppendError>>,
    lent: Option<Lent>,
}

impl SteppingStore {
    /// Answers at once, to begin with.
    pub(crate) fn new() -> Self {
        Self {
            behind: MemoryStore::new(),
            steps: AtomicBool::new(false),
            queue: Mutex::default(),
            came: watch::Sender::default(),
        }
    }

    /// From now on appends wait to be answered.
    pub(crate) fn begin_steps(&self) {
        self.steps.store(true, Ordering::SeqCst);
    }

    /// Answers whatever waits, and from now on at once.
    pub(crate) async fn end_steps(&self) {
        self.steps.store(false, Ordering::SeqCst);
        while self.step().await.is_some() {}
    }

    /// Answers the append that came first, and gives its author.
    pub(crate) async fn step(&self) -> Option<AgentId> {
        let Queued { frame, answer, lent } = self.queue.lock().pop_front()?;
        let author = frame.header().author;
        let pending = self.behind.append(frame).await.expect("memory takes it");
        let _ = answer.send(pending.verdict().await);
        drop(lent);
        Some(author)
    }

    /// Returns the number of appends since steps began.
    pub(crate) fn came(&self) -> usize {
        self.came.borrow().len()
    }

    /// Waits until so many came, and gives their authors.
    pub(crate) async fn until_came(&self, appends: usize) -> Vec<AgentId> {
        let mut came = self.came.subscribe();
        let came = came.wait_for(|came| came.len() >= appends).await;
        came.expect("the sender lives as long as the store").clone()
    }

    async fn take(&self, frame: Frame, lent: Option<Lent>) -> Result<PendingAppend, StoreError> {
        if !self.steps.load(Ordering::SeqCst) {
            return self.behind.append(frame).await;
        }
        let (answer, pending) = PendingAppend::new();
        let author = frame.header().author;
        self.queue.lock().push_back(Queued { frame, answer, lent });
        self.came.send_modify(|came| came.push(author));
        Ok(pending)
    }
}

impl LogStore for SteppingStore {
    fn append(&self, frame: Frame) -> BoxFuture<'_, Result<PendingAppend, StoreError>> {
        self.take(frame, None).boxed()
    }

    fn append_lent(&self, frame: Frame, lent: Lent) -> BoxFuture<'_, Result<PendingAppend, StoreError>> {
        self.take(frame, Some(lent)).boxed()
    }

    fn read(
        &self,
        log: LogId,
        after: Offset,
        bytes_max: usize,
        entries_max: u64,
    ) -> BoxFuture<'_, Result<ReadBatch, StoreError>> {
        self.behind.read(log, after, bytes_max, entries_max)
    }

    fn watch_head(&self, log: LogId) -> BoxFuture<'_, Result<watch::Receiver<Offset>, StoreError>> {
        self.behind.watch_head(log)
    }

    fn access(
        &self,
        log: LogId,
        agent: AgentId,
        account: AccountId,
        after: Offset,
    ) -> BoxFuture<'_, Result<Access, StoreError>> {
        self.behind.access(log, agent, account, after)
    }

    fn status(&self, log: LogId) -> BoxFuture<'_, Result<LogStatus, StoreError>> {
        self.behind.status(log)
    }

    fn key_packages(&self, agent: AgentId) -> BoxFuture<'_, Result<KeyPackageStock, StoreError>> {
        self.behind.key_packages(agent)
    }

    fn durability(&self) -> Durability {
        self.behind.durability()
    }

    fn stopped(&self) -> watch::Receiver<Option<String>> {
        self.behind.stopped()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.behind.close()
    }
}

/// A body of so many bytes.
pub(crate) fn body(bytes: usize) -> Bytes {
    Bytes::from(vec![7; bytes])
}
