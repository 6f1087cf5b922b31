//! Lag of the index, and the callers that wait for it.

use parking_lot::{Condvar, Mutex};

/// Batches on their way from the writer to the index.
#[derive(Default)]
pub(crate) struct Progress {
    inner: Mutex<Inner>,
    moved: Condvar,
}

#[derive(Default)]
struct Inner {
    /// The last batch that the index has.
    indexed: u64,
    lag_bytes: usize,
    ended: bool,
}

impl Progress {
    /// A batch is handed to the index. Waits while the index is further behind than `lag_bytes_max`.
    pub(crate) fn handed(&self, bytes: usize, lag_bytes_max: usize) {
        let mut inner = self.inner.lock();
        while inner.lag_bytes > lag_bytes_max && !inner.ended {
            self.moved.wait(&mut inner);
        }
        inner.lag_bytes += bytes;
    }

    /// The index has all batches up to and with this one; `bytes` are those that it has just taken.
    pub(crate) fn indexed(&self, batch: u64, bytes: usize) {
        let mut inner = self.inner.lock();
        inner.indexed = inner.indexed.max(batch);
        inner.lag_bytes = inner.lag_bytes.saturating_sub(bytes);
        self.moved.notify_all();
    }

    /// The index takes no more.
    pub(crate) fn ended(&self) {
        self.inner.lock().ended = true;
        self.moved.notify_all();
    }

    /// The last batch that the index has.
    pub(crate) fn last(&self) -> u64 {
        self.inner.lock().indexed
    }

    /// Bytes that the index is behind.
    pub(crate) fn lag_bytes(&self) -> usize {
        self.inner.lock().lag_bytes
    }

    /// Waits until the index has a batch. False where it never will.
    pub(crate) fn wait_for(&self, batch: u64) -> bool {
        let mut inner = self.inner.lock();
        while inner.indexed < batch && !inner.ended {
            self.moved.wait(&mut inner);
        }
        inner.indexed >= batch
    }
}
