//! The thread that keeps the index current, off the way of acknowledgements.

use super::super::batch::Batch;
use super::super::metrics;
use super::super::shared::{Shared, StopOnPanic};
use super::Round;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Entries put into the index at once, about.
const ROUND_ENTRIES_MAX: usize = 16_384;
/// How long a round gathers. A log's entries of one round are one row: more of them at once cost hardly more. Nobody
/// waits: what the index does not have yet is in memory.
const ROUND_GATHERS: Duration = Duration::from_millis(50);

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

    /// Lets the thread finish what it has, and waits for it.
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
    while let Ok(first) = batches.recv() {
        let mut round = Round::default();
        let mut last = first.number;
        round.batch(&first);
        drop(first);
        let until = Instant::now() + ROUND_GATHERS;
        while round.len() < ROUND_ENTRIES_MAX
            && round.bytes() < shared.config.index_lag_bytes_max / 4
            && let Ok(batch) = batches.recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            last = batch.number;
            round.batch(&batch);
        }
        if let Err(error) = index.write(shared.segments.store(), &mut round, false) {
            shared.stop(format!("the index cannot be written: {error}"));
            return;
        }
        shared.tail.write().indexed(last);
        shared.progress.indexed(last, round.bytes());
        metrics::index_lag(shared.progress.lag_bytes());
    }
}
