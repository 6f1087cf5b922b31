//! A memory store that fails frames on demand, once each, and keeps what the door to a store promises of an author's order.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use skytale_log_store::{
    Accepted, Access, AppendError, KeyPackageStock, LogStore, MemoryStore, PendingAppend, ReadBatch, StoreError,
};
use skytale_proto::session::Durability;
use skytale_proto::{AccountId, AgentId, Frame, LogId, Offset};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

/// How a frame fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It is not taken.
    NotTaken,
    /// It is taken, and its verdict is an error at once.
    Failed,
    /// The same, but nothing is told until [`FaultyStore::tell`].
    FailedUntold,
}

type Teller = oneshot::Sender<Result<Accepted, AppendError>>;

#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: MemoryStore,
    /// By the frame's body.
    faults: Mutex<HashMap<Bytes, (Way, StoreError)>>,
    /// Failures that nobody has been told of, and the frames of their logs that came since.
    untold: Mutex<HashMap<LogId, (StoreError, VecDeque<Teller>)>>,
    taken: watch::Sender<usize>,
}

impl FaultyStore {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::new(),
            faults: Mutex::default(),
            untold: Mutex::default(),
            taken: watch::Sender::new(0),
        })
    }

    /// Fails the next frame with this body.
    pub(crate) fn fail(&self, body: impl Into<Bytes>, way: Way, error: StoreError) {
        self.faults.lock().insert(body.into(), (way, error));
    }

    /// Waits until so many frames have come, in all.
    pub(crate) async fn taken(&self, frames: usize) {
        let mut taken = self.taken.subscribe();
        taken
            .wait_for(|taken| *taken >= frames)
            .await
            .expect("the store is there");
    }

    pub(crate) fn frames(&self) -> usize {
        *self.taken.borrow()
    }

    /// Tells all failures that are untold.
    pub(crate) fn tell(&self) {
        for (error, tellers) in self.untold.lock().drain().map(|(_, untold)| untold) {
            for teller in tellers {
                let _ = teller.send(Err(error.clone().into()));
            }
        }
    }

    fn take(&self, frame: &Frame) -> Option<Result<PendingAppend, StoreError>> {
        let (teller, pending) = PendingAppend::new();
        let mut untold = self.untold.lock();
        if let Some((_, tellers)) = untold.get_mut(&frame.header().log) {
            tellers.push_back(teller);
            return Some(Ok(pending));
        }
        match self.faults.lock().remove(frame.body())? {
            (Way::NotTaken, error) => return Some(Err(error)),
            (Way::Failed, error) => drop(teller.send(Err(error.into()))),
            (Way::FailedUntold, error) => drop(untold.insert(frame.header().log, (error, [teller].into()))),
        }
        Some(Ok(pending))
    }
}

impl LogStore for FaultyStore {
    fn append(&self, frame: Frame) -> BoxFuture<'_, Result<PendingAppend, StoreError>> {
        async move {
            let taken = match self.take(&frame) {
                Some(taken) => taken,
                None => self.inner.append(frame).await,
            };
            self.taken.send_modify(|taken| *taken += 1);
            taken
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
