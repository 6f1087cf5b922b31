//! The tap: what the log does not hold, written down for `skytale bench capture`.
//!
//! ```text
//!   sessions ── put ──> queue (bounded, never waited for) ── a thread of its own ──> TapWriter ──> files
//! ```
//!
//! Sessions put facts under a lock that is held to move them, and nobody is woken: the thread looks by itself. Facts
//! that do not fit are dropped and counted. A disk that is slow, full or gone stops the thread and nothing else.

use crate::clock::unix_ms;
use crate::config::TapConfig;
use crate::metrics;
use parking_lot::Mutex;
use skytale_proto::{AgentId, Code};
use skytale_workload::tap::{Fact, Observed, TapLimits, TapWriter, Turn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

/// Facts that wait for the thread at most.
const QUEUED_MAX: usize = 65_536;
/// Facts for which the queue keeps its memory when it has little to do.
const QUEUED_KEPT: usize = 1_024;
/// Interval between looks of the thread.
const TURN_EVERY: Duration = Duration::from_millis(50);
/// Time for which a node that stops waits for its tap.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// A tap that runs. Dropped, it ends by itself.
#[derive(Debug)]
pub(crate) struct Tap {
    queue: Arc<Queue>,
    start: Instant,
    thread: Thread,
    finished: Mutex<Option<oneshot::Receiver<()>>>,
}

#[derive(Debug, Default)]
struct Queue {
    facts: Mutex<Vec<Observed>>,
    dropped: AtomicU64,
    is_closed: AtomicBool,
}

impl Tap {
    /// Starts the tap that is configured. A tap that cannot start is not worth a node: it says so, and there is none.
    pub(crate) fn start(config: &TapConfig) -> Option<Self> {
        let dir = config.dir.clone()?;
        let limits = TapLimits {
            file_bytes: config.file_bytes,
            bytes_max: config.bytes_max,
        };
        let (start, start_ms) = (Instant::now(), unix_ms());
        let made_by = format!("skytale {}", env!("CARGO_PKG_VERSION"));
        let writer = match TapWriter::new(dir.clone(), limits, made_by, start_ms) {
            Ok(writer) => writer,
            Err(error) => {
                warn!(%error, "no tap");
                return None;
            }
        };
        let queue = Arc::new(Queue::default());
        let (told, finished) = oneshot::channel();
        let of_thread = queue.clone();
        let run = move || {
            run(&of_thread, writer, start);
            // A node that was dropped does not ask.
            let _ = told.send(());
        };
        match thread::Builder::new().name("skytale-tap".into()).spawn(run) {
            Ok(handle) => {
                info!(dir = %dir.display(), "the tap records sessions, subscriptions, appends and refusals");
                Some(Self {
                    queue,
                    start,
                    thread: handle.thread().clone(),
                    finished: Mutex::new(Some(finished)),
                })
            }
            Err(error) => {
                warn!(%error, "no tap");
                None
            }
        }
    }

    /// Records a fact of a moment ago.
    pub(crate) fn put_at(&self, at: Instant, fact: Fact) {
        self.queue.put(self.observed(at, fact));
    }

    /// Records a fact of now. Facts that are put one after the other have times in that order.
    pub(crate) fn put_now(&self, fact: Fact) {
        let mut queued = self.queue.facts.lock();
        let observed = self.observed(Instant::now(), fact);
        self.queue.put_locked(&mut queued, observed);
    }

    /// Records that an agent was refused something now. A code that is not known here cannot be recorded.
    pub(crate) fn refused(&self, agent: AgentId, code: Option<Code>) {
        if let Some(code) = code {
            self.put_now(Fact::Refused { agent, code });
        }
    }

    /// A fact for [`Tap::put_all`].
    pub(crate) fn observed(&self, at: Instant, fact: Fact) -> Observed {
        Observed {
            at: at.saturating_duration_since(self.start),
            fact,
        }
    }

    /// Records facts, and leaves none in `facts`.
    pub(crate) fn put_all(&self, facts: &mut Vec<Observed>) {
        let mut queued = self.queue.facts.lock();
        for observed in facts.drain(..) {
            self.queue.put_locked(&mut queued, observed);
        }
    }

    /// Ends the tap: all facts are written, and the last file has its totals. Not waited for without end.
    pub(crate) async fn finish(&self) {
        self.close();
        let Some(finished) = self.finished.lock().take() else {
            return;
        };
        if timeout(FINISH_WITHIN, finished).await.is_err() {
            warn!("the tap took too long to finish");
        }
    }

    fn close(&self) {
        self.queue.is_closed.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl Queue {
    fn put(&self, observed: Observed) {
        self.put_locked(&mut self.facts.lock(), observed);
    }

    fn put_locked(&self, queued: &mut Vec<Observed>, observed: Observed) {
        if queued.len() < QUEUED_MAX {
            queued.push(observed);
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.close();
    }
}

/// The thread.
fn run(queue: &Queue, mut writer: TapWriter, start: Instant) {
    let mut taken = Vec::new();
    let mut is_failing = false;
    loop {
        let is_closed = queue.is_closed.load(Ordering::Acquire);
        std::mem::swap(&mut *queue.facts.lock(), &mut taken);
        if taken.len() < taken.capacity() / 8 {
            taken.shrink_to(QUEUED_KEPT);
        }
        taken.drain(..).for_each(|observed| writer.observe(observed));
        metrics::tap_dropped("queue_full", queue.dropped.swap(0, Ordering::Relaxed));
        if is_closed {
            report(writer.finish(start.elapsed()), &mut is_failing);
            return;
        }
        report(writer.turn(start.elapsed()), &mut is_failing);
        thread::park_timeout(TURN_EVERY);
    }
}

/// Counts, and says once that the disk fails and once that it works again.
fn report(turn: Turn, is_failing: &mut bool) {
    metrics::tap_written(turn.written);
    metrics::tap_dropped("write_failed", turn.dropped);
    if turn.written > 0 && *is_failing {
        *is_failing = false;
        info!("the tap writes again");
    }
    if let Some(error) = turn.error
        && !std::mem::replace(is_failing, true)
    {
        warn!(%error, "the tap drops what it cannot write, and tries again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: AgentId = AgentId::from_bytes([1; 32]);

    #[test]
    fn what_does_not_fit_is_dropped_and_counted_and_nobody_waits() {
        // A queue that no thread empties.
        let tap = Tap {
            queue: Arc::default(),
            start: Instant::now(),
            thread: thread::current(),
            finished: Mutex::new(None),
        };
        let fact = || tap.observed(Instant::now(), Fact::Token(AGENT));
        let mut facts = Vec::new();
        for _ in 0..QUEUED_MAX / 64 {
            facts.extend((0..64).map(|_| fact()));
            tap.put_all(&mut facts);
            assert!(facts.is_empty());
        }
        assert_eq!(tap.queue.dropped.load(Ordering::Relaxed), 0);
        facts.extend((0..10).map(|_| fact()));
        tap.put_all(&mut facts);
        tap.put_now(Fact::Token(AGENT));
        assert!(facts.is_empty());
        assert_eq!(tap.queue.dropped.load(Ordering::Relaxed), 11);
        assert_eq!(tap.queue.facts.lock().len(), QUEUED_MAX);
    }
}
