//! A relay node's way to the log that all share, which can be shut for appends.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use skytale_log_store::{Access, KeyPackageStock, LogStore, MemoryStore, PendingAppend, ReadBatch, StoreError};
use skytale_proto::session::Durability;
use skytale_proto::{AccountId, AgentId, Frame, LogId, Offset};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::watch;

#[derive(Debug)]
pub(crate) struct Gate {
    log: Arc<MemoryStore>,
    shut: AtomicBool,
    /// Appends that it kept out.
    pub(crate) kept_out: AtomicU64,
}

impl Gate {
    pub(crate) fn new(log: Arc<MemoryStore>) -> Arc<Self> {
        Arc::new(Self {
            log,
            shut: AtomicBool::new(false),
            kept_out: AtomicU64::new(0),
        })
    }

    /// Replay goes on, nothing is appended: as where a log's home region does not answer.
    pub(crate) fn shut(&self, shut: bool) {
        self.shut.store(shut, Ordering::SeqCst);
    }
}

impl LogStore for Gate {
    fn append(&self, frame: Frame) -> BoxFuture<'_, Result<PendingAppend, StoreError>> {
        if self.shut.load(Ordering::SeqCst) {
            self.kept_out.fetch_add(1, Ordering::SeqCst);
            let error = StoreError::Io {
                doing: "asking the home region".into(),
                error: "no answer".into(),
            };
            return async { Err(error) }.boxed();
        }
        self.log.append(frame)
    }

    fn read(
        &self,
        log: LogId,
        after: Offset,
        bytes_max: usize,
        entries_max: u64,
    ) -> BoxFuture<'_, Result<ReadBatch, StoreError>> {
        self.log.read(log, after, bytes_max, entries_max)
    }

    fn watch_head(&self, log: LogId) -> BoxFuture<'_, Result<watch::Receiver<Offset>, StoreError>> {
        self.log.watch_head(log)
    }

    fn access(
        &self,
        log: LogId,
        agent: AgentId,
        account: AccountId,
        after: Offset,
    ) -> BoxFuture<'_, Result<Access, StoreError>> {
        self.log.access(log, agent, account, after)
    }

    fn key_packages(&self, agent: AgentId) -> BoxFuture<'_, Result<KeyPackageStock, StoreError>> {
        self.log.key_packages(agent)
    }

    fn durability(&self) -> Durability {
        self.log.durability()
    }

    fn stopped(&self) -> watch::Receiver<Option<String>> {
        self.log.stopped()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.log.close()
    }
}
