//! A memory store behind a gate: appends are taken, but their verdicts wait until it opens. Counts what passes.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use skytale_log_store::{
    Access, KeyPackageStock, LogStore, MemoryStore, PendingAppend, ReadBatch, Readiness, StoreError,
};
use skytale_proto::session::Durability;
use skytale_proto::{AccountId, AgentId, Frame, LogId, Offset};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::watch;

#[derive(Debug)]
pub(crate) struct GatedStore {
    pub(crate) inner: Arc<MemoryStore>,
    open: watch::Sender<bool>,
    appended_bytes: AtomicUsize,
    read_bytes: AtomicUsize,
    readiness: Mutex<Readiness>,
}

impl GatedStore {
    pub(crate) fn new(open: bool) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::new(MemoryStore::new()),
            open: watch::Sender::new(open),
            appended_bytes: AtomicUsize::new(0),
            read_bytes: AtomicUsize::new(0),
            readiness: Mutex::default(),
        })
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    pub(crate) fn close_gate(&self) {
        self.open.send_replace(false);
    }

    /// What it says of itself from now on.
    pub(crate) fn stands(&self, readiness: Readiness) {
        *self.readiness.lock() = readiness;
    }

    /// Bytes of frames taken so far.
    pub(crate) fn appended_bytes(&self) -> usize {
        self.appended_bytes.load(Ordering::SeqCst)
    }

    /// Bytes of records read so far.
    pub(crate) fn read_bytes(&self) -> usize {
        self.read_bytes.load(Ordering::SeqCst)
    }
}

impl LogStore for GatedStore {
    fn append(&self, frame: Frame) -> BoxFuture<'_, Result<PendingAppend, StoreError>> {
        async move {
            self.appended_bytes.fetch_add(frame.encoded().len(), Ordering::SeqCst);
            let taken = self.inner.append(frame).await?;
            if *self.open.borrow() {
                return Ok(taken);
            }
            let (answer, pending) = PendingAppend::new();
            let mut open = self.open.subscribe();
            tokio::spawn(async move {
                if open.wait_for(|open| *open).await.is_ok() {
                    let _ = answer.send(taken.verdict().await);
                }
            });
            Ok(pending)
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
        async move {
            let batch = self.inner.read(log, after, bytes_max, entries_max).await?;
            let bytes: usize = batch.records.iter().map(Bytes::len).sum();
            self.read_bytes.fetch_add(bytes, Ordering::SeqCst);
            Ok(batch)
        }
        .boxed()
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

    fn readiness(&self) -> Readiness {
        self.readiness.lock().clone()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.close()
    }
}
