//! Room on the disk: whether appends are taken, and if not, why.
//!
//! Appends end before the disk is full. The rest is for retention, whose Trims and states make room, and for the index.
//! A write that finds no room all the same, because others fill the disk or a quota is used up, ends appends too; they
//! go on when a trial shows that there is room again.

use super::config::LocalConfig;
use super::faults::DiskFaults;
use super::metrics;
use crate::StoreError;
use crate::refusals::Refusals;
use parking_lot::Mutex;
use rustix::fs::FallocateFlags;
use skytale_proto::LogId;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Interval between looks at the disk.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Appends go on when this part more is free than the least: so that they do not end and begin with every batch.
const MORE_PART: u64 = 8;
/// Bytes that a trial takes at least: a batch of one frame of the largest size fits.
const TRIAL_BYTES_MIN: u64 = 2 * 1024 * 1024;
/// Below this many free bytes the index is not even opened on the disk: it writes when it opens, and in the background.
const INDEX_BYTES_MIN: u64 = 2 * 1024 * 1024;
/// The file of a trial, in the store's folder.
const TRIAL: &str = "TRIAL";

/// Room on the disk of a store.
pub(crate) struct Space {
    dir: PathBuf,
    free_bytes_min: u64,
    faults: DiskFaults,
    state: Mutex<State>,
    full: watch::Sender<Option<String>>,
    refusals: Refusals,
    /// Followed messages wait for room.
    waiting: AtomicBool,
}

/// Shortages of room.
#[derive(Default)]
struct State {
    /// Less is free than must be.
    low: bool,
    /// A write found no room.
    failed: Option<String>,
    /// The index is in memory.
    index: Option<String>,
    /// Welcomes of an accepted bundle are not on their logs yet.
    owed: bool,
}

impl Space {
    pub(crate) fn new(config: &LocalConfig) -> Self {
        let total = match rustix::fs::statvfs(&config.dir) {
            Ok(status) => status.f_blocks.saturating_mul(status.f_frsize),
            Err(_) => u64::MAX,
        };
        let space = Self {
            dir: config.dir.clone(),
            free_bytes_min: config.kept_free(total),
            faults: config.faults.clone(),
            state: Mutex::default(),
            full: watch::Sender::new(None),
            refusals: Refusals::default(),
            waiting: AtomicBool::new(false),
        };
        space.look();
        space
    }

    /// Returns the planned failures of its files.
    pub(crate) const fn faults(&self) -> &DiskFaults {
        &self.faults
    }

    /// Whether no appends are taken now.
    pub(crate) fn is_full(&self) -> bool {
        self.full.borrow().is_some()
    }

    /// Returns the reason why no appends are taken now, if none are.
    pub(crate) fn why(&self) -> Option<String> {
        self.full.borrow().clone()
    }

    /// Returns the number of refusals so far; an append that is asked for now remembers it.
    pub(crate) fn asked(&self) -> u64 {
        self.refusals.now()
    }

    /// Whether an append to a log is taken that was asked for then: not while the disk is full, and not after an append to
    /// the log was refused that it was asked for before.
    pub(crate) fn admits(&self, log: &LogId, asked: u64) -> Result<(), StoreError> {
        if self.is_full() || self.refusals.is_before(log, asked) {
            return Err(self.refusal());
        }
        Ok(())
    }

    /// Returns the error with which an append is refused.
    pub(crate) fn refusal(&self) -> StoreError {
        let reason = self.why();
        let reason = reason.unwrap_or_else(|| "there was no room a moment ago, for this frame or one before it".into());
        StoreError::Full { reason }
    }

    /// An append to a log was refused for lack of room, and its author told so.
    pub(crate) fn refused(&self, log: LogId) {
        self.refusals.add(log);
    }

    /// A write found no room: nothing of it is in the log.
    pub(crate) fn failed(&self, reason: String) -> StoreError {
        self.change(|state| state.failed = Some(reason.clone()));
        StoreError::Full { reason }
    }

    /// The index is in memory, for this reason; or on the disk again.
    pub(crate) fn index_in_memory(&self, reason: Option<String>) {
        self.change(|state| state.index = reason);
    }

    /// Welcomes of an accepted bundle are not on their logs: no other append may come before them.
    pub(crate) fn owes(&self, owed: bool) {
        self.change(|state| state.owed = owed);
    }

    /// Whether there is room for all but the index.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.state.lock();
        !state.low && state.failed.is_none()
    }

    /// Whether the index may be opened on the disk.
    pub(crate) fn has_room_for_index(&self) -> bool {
        self.free().is_none_or(|free| free >= INDEX_BYTES_MIN)
    }

    /// Whether so many bytes may be reserved, and appends go on.
    pub(crate) fn may_reserve(&self, bytes: u64) -> bool {
        let Some(free) = self.free() else { return true };
        free.saturating_sub(bytes) >= self.enough()
    }

    /// Sets whether followed messages wait for room.
    pub(crate) fn set_waiting(&self, waiting: bool) {
        self.waiting.store(waiting, Ordering::Release);
    }

    /// Whether something waits that need not any more.
    pub(crate) fn may_resume(&self) -> bool {
        self.waiting.load(Ordering::Acquire) && !self.is_full()
    }

    /// Looks at how much is free.
    pub(crate) fn look(&self) {
        let Some(free) = self.free() else { return };
        metrics::free_bytes(free);
        self.change(|state| {
            if free < self.free_bytes_min {
                state.low = true;
            } else if free >= self.enough() {
                state.low = false;
            }
        });
    }

    /// Finds out, after a write that found no room, whether there is some now. Blocks.
    pub(crate) fn try_again(&self) {
        let failed = {
            let state = self.state.lock();
            !state.low && state.failed.is_some()
        };
        if failed && self.trial().is_ok() {
            self.change(|state| state.failed = None);
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        let why = self.reason(&state);
        let full = why.is_some();
        let before = self.full.borrow().clone();
        if why == before {
            return;
        }
        match (&before, &why) {
            (None, Some(reason)) => {
                tracing::error!(%reason, "the disk is full: no appends are taken until there is room")
            }
            (Some(_), None) => tracing::info!("there is room on the disk again: appends are taken"),
            _ => {}
        }
        metrics::full(full);
        self.full.send_replace(why);
    }

    fn reason(&self, state: &State) -> Option<String> {
        let low = || {
            let (min, dir) = (self.free_bytes_min, self.dir.display());
            format!("less than {min} bytes are free in {dir}")
        };
        let owed = || "Welcomes of an accepted bundle are to be written first".to_owned();
        let failed = state.failed.clone().or_else(|| state.low.then(low));
        failed.or_else(|| state.index.clone()).or_else(|| state.owed.then(owed))
    }

    /// Free bytes with which appends go on.
    const fn enough(&self) -> u64 {
        self.free_bytes_min + self.free_bytes_min / MORE_PART
    }

    fn free(&self) -> Option<u64> {
        if let Some(free) = self.faults.free_bytes() {
            return Some(free);
        }
        let status = rustix::fs::statvfs(&self.dir).ok()?;
        Some(status.f_bavail.saturating_mul(status.f_frsize))
    }

    /// Takes as much room as must be free, and gives it back. A quota shows only so.
    fn trial(&self) -> io::Result<()> {
        let path = self.dir.join(TRIAL);
        let outcome = take_room(&path, self.free_bytes_min.max(TRIAL_BYTES_MIN));
        // The next trial takes over a file that is left.
        let removed = fs::remove_file(&path);
        outcome.and(removed)
    }
}

fn take_room(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            file.write_all(&vec![0; TRIAL_BYTES_MIN as usize])?;
            file.sync_all()
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether an error says that there is no room: on the disk, or for this user.
pub(crate) fn no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
