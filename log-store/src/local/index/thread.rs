//! The thread that keeps the index current, off the way of acknowledgements.

use super::super::batch::Batch;
use super::super::metrics;
use super::super::recover::{IN_MEMORY, Place, rebuild};
use super::super::shared::{Shared, StopOnPanic};
use super::super::space::LOOK_EVERY;
use super::{Index, Round};
use crate::StoreError;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Entries put into the index at once, about.
const ROUND_ENTRIES_MAX: usize = 16_384;
/// Time for which a round gathers. A log's entries of one round are one row: more of them at once cost hardly more.
/// Nobody waits: entries that the index does not have yet are in memory.
const ROUND_GATHERS: Duration = Duration::from_millis(50);
/// Meanwhile the thread looks for batches at these times alone: waking it for each of them would cost more than its work.
const GATHER_STEP: Duration = Duration::from_millis(5);

/// Number of attempts on an index that cannot be built in memory.
const REBUILD_ATTEMPTS: u32 = 5;
/// Interval between attempts to build an index in memory on the disk: each may read all segments.
const RETURN_EVERY: Duration = Duration::from_secs(2);

/// Hands batches to the index. The channel is bounded by [`super::super::progress::Progress`], in bytes.
pub(crate) struct Indexer {
    batches: Sender<Arc<Batch>>,
    thread: JoinHandle<()>,
}

impl Indexer {
    /// Starts the thread.
    pub(crate) fn start(shared: Arc<Shared>) -> std::io::Result<Self> {
        let (batches, receiver) = channel();
        let thread = std::thread::Builder::new()
            .name("skytale-index".into())
            .spawn(move || {
                let _ended = EndedOnDrop(&shared);
                let _guard = StopOnPanic {
                    shared: &shared,
                    thread: "keeps the index",
                };
                run(&shared, &receiver);
            })?;
        Ok(Self { batches, thread })
    }

    /// Hands a durable batch over; waits while the index is too far behind.
    pub(crate) fn hand(&self, shared: &Shared, batch: Arc<Batch>) {
        shared
            .progress
            .handed(batch.weight_bytes(), shared.config.index_lag_bytes_max);
        // The thread ends early only when the index failed; then the store is stopped, and says why.
        let _ = self.batches.send(batch);
    }

    /// Lets the thread finish its work, and waits for it.
    pub(crate) fn finish(self) {
        drop(self.batches);
        if self.thread.join().is_err() {
            tracing::error!("the index thread panicked; the index is built again at the next start");
        }
    }
}

/// Lets those go who wait for the index, however its thread ends.
struct EndedOnDrop<'a>(&'a Shared);

impl Drop for EndedOnDrop<'_> {
    fn drop(&mut self) {
        self.0.progress.ended();
    }
}

fn run(shared: &Shared, batches: &Receiver<Arc<Batch>>) {
    let Ok(index) = shared.index() else { return };
    let mut keeping = Keeping {
        shared,
        index,
        last: shared.progress.last(),
        tried: Instant::now(),
    };
    loop {
        let kept = match batches.recv_timeout(LOOK_EVERY) {
            Ok(first) => keeping.round(first, batches),
            Err(RecvTimeoutError::Timeout) => keeping.look(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if let Err(error) = kept {
            shared.stop(format!("the index cannot be written: {error}"));
            return;
        }
    }
}

/// The index, and its progress.
struct Keeping<'a> {
    shared: &'a Shared,
    index: Arc<Index>,
    /// The last batch that it has.
    last: u64,
    /// Last attempt to build it on the disk.
    tried: Instant,
}

impl Keeping<'_> {
    /// Puts batches in: this one, and those that come soon.
    fn round(&mut self, first: Arc<Batch>, batches: &Receiver<Arc<Batch>>) -> Result<(), StoreError> {
        let shared = self.shared;
        let mut round = Round::default();
        let mut last = first.number;
        round.batch(&first);
        drop(first);
        let until = Instant::now() + ROUND_GATHERS;
        while round.len() < ROUND_ENTRIES_MAX && round.bytes() < shared.config.index_lag_bytes_max / 4 {
            match batches.try_recv() {
                Ok(batch) => {
                    last = batch.number;
                    round.batch(&batch);
                }
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => match until.checked_duration_since(Instant::now()) {
                    Some(left) => std::thread::sleep(left.min(GATHER_STEP)),
                    None => break,
                },
            }
        }
        let mut bytes = round.bytes();
        match self.index.write(shared.segments.store(), &mut round, false) {
            Ok(()) => self.last = last,
            // Entries of the round that are in the segments are put in with the rest.
            Err(StoreError::Full { reason }) => match batches.try_recv() {
                Err(TryRecvError::Disconnected) => self.distrust(),
                Err(TryRecvError::Empty) => self.leave_disk(&reason, last)?,
                Ok(batch) => {
                    (last, bytes) = (batch.number, bytes + batch.weight_bytes());
                    self.leave_disk(&reason, last)?;
                }
            },
            Err(error) => return Err(error),
        }
        shared.tail.write().indexed(last);
        shared.progress.indexed(last, bytes);
        metrics::index_lag(shared.progress.lag_bytes());
        Ok(())
    }

    /// Nothing came for a while: looks whether the index can stay where it is.
    fn look(&mut self) -> Result<(), StoreError> {
        if self.index.is_in_memory() {
            self.return_to_disk();
        } else if self.shared.space.is_full()
            && let Err(StoreError::Full { reason }) = self.index.flush()
        {
            return self.leave_disk(&reason, self.last);
        }
        Ok(())
    }

    /// The disk has no room for what the index writes: sled takes and gives nothing any more. Readers get one in memory.
    fn leave_disk(&mut self, reason: &str, last: u64) -> Result<(), StoreError> {
        let shared = self.shared;
        tracing::error!(%reason, "no room on the disk for the index: it is built in memory, and serves readers alone");
        shared.space.index_in_memory(Some(IN_MEMORY.into()));
        self.distrust();
        let mut attempts = 1;
        let index = loop {
            match rebuild(shared, Place::Memory, last) {
                Ok(index) => break index,
                // A segment may have been dropped under it.
                Err(error) if attempts < REBUILD_ATTEMPTS => {
                    tracing::debug!(%error, "building the index again");
                    attempts += 1;
                }
                Err(error) => {
                    return Err(StoreError::Io {
                        doing: "build the index in memory".into(),
                        error: error.to_string(),
                    });
                }
            }
        };
        self.take(index, last);
        Ok(())
    }

    /// The index on the disk is not to be used again: it lacks something.
    fn distrust(&self) {
        if let Err(error) = self.index.distrust() {
            tracing::warn!(%error, "the index on the disk is incomplete, and does not say so");
        }
    }

    /// Builds the index on the disk again, where there is room; then appends are taken.
    fn return_to_disk(&mut self) {
        let space = &self.shared.space;
        if !space.has_room() || self.tried.elapsed() < RETURN_EVERY {
            return;
        }
        self.tried = Instant::now();
        match rebuild(self.shared, Place::Disk, self.last) {
            Ok(index) => {
                tracing::info!("the index is on the disk again");
                self.take(index, self.last);
                space.index_in_memory(None);
            }
            Err(error) => tracing::warn!(%error, "the index cannot be built on the disk yet"),
        }
    }

    fn take(&mut self, index: Arc<Index>, last: u64) {
        self.last = last;
        if self.shared.replace_index(index.clone()) {
            self.index = index;
        }
    }
}
