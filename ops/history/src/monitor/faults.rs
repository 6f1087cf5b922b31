//! The faults of all channels.

use crate::Fault;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most faults kept. All are counted.
pub const FAULTS_KEPT_MAX: usize = 1_000;

/// The first faults, and how many there were.
#[derive(Default)]
pub(super) struct Faults {
    kept: Mutex<Vec<Fault>>,
    count: AtomicU64,
}

impl Faults {
    pub(super) fn push(&self, fault: Fault) {
        let mut kept = self.kept.lock();
        if kept.len() < FAULTS_KEPT_MAX {
            kept.push(fault);
        }
        // Under the lock, so that `snapshot` sees both or neither.
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn kept(&self) -> Vec<Fault> {
        self.kept.lock().clone()
    }

    /// A copy to which others can be added.
    pub(super) fn snapshot(&self) -> Self {
        let kept = self.kept.lock();
        Self {
            count: AtomicU64::new(self.count()),
            kept: Mutex::new(kept.clone()),
        }
    }
}
