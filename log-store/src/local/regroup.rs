//! Regroups sealed segments in the background: entries of one log together, so that a replay reads a stretch of the file
//! and not a place for each entry.
//!
//! ```text
//!  sealed segment ──read, check──> <segment>.<n>.new ──sync, read back──> rename over the segment ──sync the folder
//! ```
//!
//! Until the rename the segment is as it was; after it both files say the same, so a crash at any point leaves one of
//! them. Positions do not change ([`super::segment`]). It reads and writes no faster than the settings say, a
//! quarter of that while batches are written, and never in the open segment.

use super::config::REGROUP_BUSY_PART;
use super::error::store_io;
use super::faults::DiskStep;
use super::metrics;
use super::segment::{NotReplaced, Rewrite, SegmentInfo, Unfit};
use super::shared::Shared;
use crate::StoreError;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Interval between looks for segments, if none is sealed meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Lower priority of the thread, as `nice` has it.
const NICE: i32 = 10;
/// A segment is worth it when its entries lie in at least so many times more stretches than it has logs.
const RUNS_PER_LOG: u32 = 2;

/// Asks the thread to look, or to end.
#[derive(Default)]
pub(crate) struct Signal {
    sealed: Mutex<bool>,
    moved: Condvar,
    stopped: AtomicBool,
}

impl Signal {
    /// A segment was sealed.
    pub(crate) fn sealed(&self) {
        *self.sealed.lock() = true;
        self.moved.notify_all();
    }

    /// Ends the work, wherever it is.
    pub(crate) fn stop(&self) {
        let _sealed = self.sealed.lock();
        self.stopped.store(true, Ordering::Release);
        self.moved.notify_all();
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Waits until a segment is sealed. Blocks.
    fn wait(&self) {
        let mut sealed = self.sealed.lock();
        if !*sealed && !self.is_stopped() {
            self.moved.wait_for(&mut sealed, LOOK_EVERY);
        }
        *sealed = false;
    }

    /// Waits for a time, or until it is stopped. Blocks.
    fn rest(&self, time: Duration) {
        let until = std::time::Instant::now() + time;
        let mut sealed = self.sealed.lock();
        while !self.is_stopped() && !self.moved.wait_until(&mut sealed, until).timed_out() {}
    }
}

/// Result of regrouping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regrouped {
    /// Segments that were regrouped.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Regroups segments, one caller at a time.
pub(crate) struct Regrouper {
    shared: Arc<Shared>,
    /// Segments that are left as they are, until the store is opened again.
    left: Mutex<BTreeSet<u32>>,
}

impl Regrouper {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            left: Mutex::default(),
        }
    }

    /// Regroups all segments that gain by it. `rate` is in bytes read and written a second. Blocks.
    pub(crate) fn regroup(&self, rate: Option<u64>) -> Result<Regrouped, StoreError> {
        let mut left = self.left.lock();
        let mut done = Regrouped::default();
        // The newest first: they are read soon by who was away, and kept the longest.
        loop {
            let mut candidates = self.candidates(&left);
            metrics::regroup_left(candidates.len());
            let Some((sequence, info)) = candidates.pop() else {
                break;
            };
            if self.shared.regroup.is_stopped() {
                break;
            }
            if self.shared.space.is_full() || !self.shared.space.may_reserve(info.bytes) {
                tracing::debug!(segment = sequence, "no room to regroup a segment");
                break;
            }
            match self.one(sequence, &info, rate) {
                Ok(Some(bytes)) => {
                    done.segments += 1;
                    done.bytes += bytes;
                    metrics::regrouped(bytes);
                    tracing::debug!(segment = sequence, bytes, "regrouped a segment");
                }
                Ok(None) => {
                    left.insert(sequence);
                }
                Err(Unfit::Stopped) => break,
                Err(Unfit::Damaged(why)) => {
                    tracing::warn!(segment = sequence, why, "a segment is not regrouped");
                    left.insert(sequence);
                }
                Err(Unfit::Io(error)) => {
                    metrics::regroup_failed();
                    return Err(store_io("regroup", &self.shared.segments.path(sequence))(error));
                }
            }
            metrics::segment_bytes(self.shared.segments.sealed_bytes());
        }
        left.retain(|sequence| self.shared.segments.info(*sequence).is_some());
        Ok(done)
    }

    /// Segments that gain by it, the oldest first.
    fn candidates(&self, left: &BTreeSet<u32>) -> Vec<(u32, SegmentInfo)> {
        let mut sealed = self.shared.segments.sealed();
        sealed.retain(|(sequence, info)| {
            // What a trailer of version 1 does not tell shows when the segment is read.
            let mix = info.trailer.map(|trailer| trailer.mix);
            let worth = mix.is_some_and(|mix| mix.is_none_or(|mix| is_worth(mix.runs, mix.logs)));
            !info.grouped && worth && !left.contains(sequence)
        });
        sealed
    }

    /// Regroups one segment, and gives its bytes; `None` where it was not worth it or is gone.
    fn one(&self, sequence: u32, info: &SegmentInfo, rate: Option<u64>) -> Result<Option<u64>, Unfit> {
        let segments = &self.shared.segments;
        let from = match segments.file(sequence) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            from => from?,
        };
        let mut pace = Pace::new(&self.shared, rate);
        let before = info.trailer.map_or(0, |trailer| trailer.first_batch.saturating_sub(1));
        let store = *segments.store();
        let rewrite = Rewrite::read(from, store, info.extent(), before, &mut |bytes| pace.took(bytes))?;
        let mix = rewrite.mix();
        if !is_worth(mix.runs, mix.logs) {
            return Ok(None);
        }
        let unfinished = Unfinished(segments.unfinished(sequence));
        let faults = &self.shared.config.faults;
        let regrouped = rewrite.write(&unfinished.0, faults, &mut |bytes| pace.took(bytes))?;
        faults.check(DiskStep::RegroupSwitch)?;
        let renamed = || faults.check(DiskStep::RegroupSwitched);
        match segments.replace(sequence, &unfinished.0, regrouped, renamed) {
            Ok(()) => Ok(Some(regrouped.bytes)),
            Err(NotReplaced::Gone) => Ok(None),
            Err(NotReplaced::Failed(error)) => Err(error.into()),
        }
    }
}

const fn is_worth(runs: u32, logs: u32) -> bool {
    logs > 1 && runs / RUNS_PER_LOG >= logs
}

/// A file that is removed unless it got another name.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(file = %self.0.display(), %error, "an unfinished file is left; the next start removes it");
            }
            _ => {}
        }
    }
}

/// Keeps to the rate, and to less of it while batches are written.
struct Pace<'a> {
    shared: &'a Shared,
    rate: Option<u64>,
    last_batch: u64,
}

impl<'a> Pace<'a> {
    fn new(shared: &'a Shared, rate: Option<u64>) -> Self {
        Self {
            shared,
            rate,
            last_batch: shared.tail.read().last(),
        }
    }

    /// So many bytes were read or written. False where the work is to end.
    fn took(&mut self, bytes: u64) -> bool {
        metrics::regroup_io(bytes);
        if let Some(rate) = self.rate {
            let batch = self.shared.tail.read().last();
            let busy = batch != std::mem::replace(&mut self.last_batch, batch);
            let rate = if busy { rate / REGROUP_BUSY_PART } else { rate };
            let micros = bytes.saturating_mul(1_000_000) / rate.max(1);
            self.shared.regroup.rest(Duration::from_micros(micros));
        }
        !self.shared.regroup.is_stopped()
    }
}

/// The thread that regroups what was sealed.
pub(crate) struct RegroupThread {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl RegroupThread {
    /// Starts it, where the settings have a rate.
    pub(crate) fn start(regrouper: Arc<Regrouper>) -> std::io::Result<Self> {
        let shared = regrouper.shared.clone();
        let rate = shared.config.regroup_bytes_per_second;
        let thread = (rate > 0).then(|| {
            std::thread::Builder::new()
                .name("skytale-regroup".into())
                .spawn(move || run(&regrouper, rate))
        });
        Ok(Self {
            shared,
            thread: Mutex::new(thread.transpose()?),
        })
    }

    /// Asks the thread to end; it ends soon, in the middle of its work.
    pub(crate) fn stop(&self) {
        self.shared.regroup.stop();
    }

    /// Waits until the thread has ended. Blocks.
    pub(crate) fn join(&self) {
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that regroups segments panicked");
        }
    }
}

fn run(regrouper: &Regrouper, rate: u64) {
    // On Linux this is the thread's, and no other's.
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "regrouping has the priority of appends");
    }
    let signal = &regrouper.shared.regroup;
    while !signal.is_stopped() {
        if let Err(error) = regrouper.regroup(Some(rate)) {
            tracing::warn!(%error, "a segment could not be regrouped; it is tried again later");
            signal.rest(LOOK_EVERY);
        }
        signal.wait();
    }
}
