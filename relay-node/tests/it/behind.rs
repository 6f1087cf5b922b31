//! A replica of a memory store that is behind it: it shows a head of its own, and follows only where it is asked for more.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use skytale_log_store::{
    Access, KeyPackageStock, LogStatus, LogStore, MemoryStore, PendingAppend, ReadBatch, StoreError,
};
use skytale_proto::session::Durability;
use skytale_proto::{AccountId, AgentId, Frame, LogId, Offset};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

#[derive(Debug)]
pub(crate) struct BehindStore {
    inner: Arc<MemoryStore>,
    /// The head that it shows, of every log.
    shown: watch::Sender<Offset>,
    follows: AtomicBool,
}

impl BehindStore {
    /// A replica that has got to `shown`, and cannot follow yet.
    pub(crate) fn new(inner: Arc<MemoryStore>, shown: Offset) -> Arc<Self> {
        Arc::new(Self {
            inner,
            shown: watch::Sender::new(shown),
            follows: AtomicBool::new(false),
        })
    }

    /// From now on it follows, where it is asked for more than it has.
    pub(crate) fn follow(&self) {
        self.follows.store(true, Ordering::SeqCst);
    }
}

impl LogStore for BehindStore {
    fn append(&self, frame: Frame) -> BoxFuture<'_, Result<PendingAppend, StoreError>> {
        self.inner.append(frame)
    }

    fn read(
        &self,
        log: LogId,
        after: Offset,
        bytes_max: usize,
        entries_max: u64,
    ) -> BoxFuture<'_, Result<ReadBatch, StoreError>> {
        async move {
            if after > *self.shown.borrow() {
                if !self.follows.load(Ordering::SeqCst) {
                    return Err(StoreError::CatchingUp { home: "0/0".into() });
                }
                let head = *self.inner.watch_head(log).await?.borrow();
                self.shown.send_replace(head);
                if after > head {
                    return Err(StoreError::BeyondHead { after, head });
                }
            }
            let shown = *self.shown.borrow();
            let left = shown.get() - after.get();
            if left == 0 {
                return Ok(ReadBatch {
                    records: Vec::new(),
                    last: after,
                    head: shown,
                });
            }
            self.inner.read(log, after, bytes_max, entries_max.min(left)).await
        }
        .boxed()
    }

    fn watch_head(&self, _log: LogId) -> BoxFuture<'_, Result<watch::Receiver<Offset>, StoreError>> {
        async move { Ok(self.shown.subscribe()) }.boxed()
    }

    fn settled(&self, log: LogId) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            if !self.follows.load(Ordering::SeqCst) {
                return Err(StoreError::CatchingUp { home: "0/0".into() });
            }
            let head = *self.inner.watch_head(log).await?.borrow();
            self.shown.send_replace(head);
            Ok(())
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
        self.inner.access(log, agent, account, after)
    }

    fn status(&self, log: LogId) -> BoxFuture<'_, Result<LogStatus, StoreError>> {
        self.inner.status(log)
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
