//! A memory store that fails messages on demand, and keeps what the door to a store promises of an author's order.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use skytale_log_store::{
    Accepted, Access, AppendError, KeyPackageStock, LogStore, MemoryStore, PendingAppend, ReadBatch, StoreError,
};
use skytale_proto::session::Durability;
use skytale_proto::{AccountId, AgentId, Frame, FrameId, Kind, LogId, Offset};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// How a frame fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It is not taken.
    NotTaken,
    /// It is taken, and its verdict is an error at once.
    Failed,
    /// The same, a moment later.
    FailedLater,
}

type Teller = oneshot::Sender<Result<Accepted, AppendError>>;

#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: MemoryStore,
    plan: Mutex<Plan>,
    /// Failures that nobody has been told of, and the frames of their logs that came since, in order.
    untold: Arc<Mutex<HashMap<LogId, Vec<Teller>>>>,
}

#[derive(Debug)]
struct Plan {
    way: Way,
    /// Which messages fail, counted from when the plan was made; each message counts once.
    positions: Vec<usize>,
    seen: HashSet<FrameId>,
}

impl FaultyStore {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::new(),
            plan: Mutex::new(Plan {
                way: Way::NotTaken,
                positions: Vec::new(),
                seen: HashSet::new(),
            }),
            untold: Arc::default(),
        })
    }

    /// Fails some of the messages that come from now on, once each.
    pub(crate) fn fail(&self, way: Way, positions: &[usize]) {
        *self.plan.lock() = Plan {
            way,
            positions: positions.to_vec(),
            seen: HashSet::new(),
        };
    }

    /// Failures that have not happened yet.
    pub(crate) fn failures_left(&self) -> usize {
        self.plan.lock().positions.len()
    }

    /// The way in which this frame fails, if it does.
    fn fault(&self, frame: &Frame) -> Option<Way> {
        let mut plan = self.plan.lock();
        let position = plan.seen.len();
        if frame.header().kind() != Kind::Message || !plan.seen.insert(frame.header().id) {
            return None;
        }
        let at = plan.positions.iter().position(|due| *due == position)?;
        plan.positions.remove(at);
        Some(plan.way)
    }

    fn take(&self, frame: &Frame) -> Option<Result<PendingAppend, StoreError>> {
        let (teller, pending) = PendingAppend::new();
        let log = frame.header().log;
        let mut untold = self.untold.lock();
        if let Some(tellers) = untold.get_mut(&log) {
            tellers.push(teller);
            return Some(Ok(pending));
        }
        match self.fault(frame)? {
            Way::NotTaken => return Some(Err(failure())),
            Way::Failed => drop(teller.send(Err(failure().into()))),
            Way::FailedLater => {
                untold.insert(log, vec![teller]);
                let untold = Arc::clone(&self.untold);
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    let mut untold = untold.lock();
                    for teller in untold.remove(&log).into_iter().flatten() {
                        let _ = teller.send(Err(failure().into()));
                    }
                });
            }
        }
        Some(Ok(pending))
    }
}

fn failure() -> StoreError {
    StoreError::Io {
        doing: "test".into(),
        error: "not now".into(),
    }
}

impl LogStore for FaultyStore {
    fn append(&self, frame: Frame) -> BoxFuture<'_, Result<PendingAppend, StoreError>> {
        async move {
            match self.take(&frame) {
                Some(taken) => taken,
                None => self.inner.append(frame).await,
            }
        }
        .boxed()
    }

    fn read(
        &self,
        log: LogId,
        after: Offset,
        bytes_max: usize,
        entries_max: u64,
    ) -> BoxFuture<'_, Result<ReadBatch, StoreError>> {
        self.inner.read(log, after, bytes_max, entries_max)
    }

    fn watch_head(&self, log: LogId) -> BoxFuture<'_, Result<watch::Receiver<Offset>, StoreError>> {
        self.inner.watch_head(log)
    }

    fn access(
        &self,
        log: LogId,
        agent: AgentId,
        account: AccountId,
        after: Offset,
    ) -> BoxFuture<'_, Result<Access, StoreError>> {
        self.inner.access(log, agent, account, after)
    }

    fn key_packages(&self, agent: AgentId) -> BoxFuture<'_, Result<KeyPackageStock, StoreError>> {
        self.inner.key_packages(agent)
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }

    fn stopped(&self) -> watch::Receiver<Option<String>> {
        self.inner.stopped()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.close()
    }
}
