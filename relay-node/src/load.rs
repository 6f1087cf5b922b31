//! Load of the node: counted as it is done, reported as a rate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// The shortest time that a rate is over: operations of an instant are no rate.
const OVER_MIN: Duration = Duration::from_millis(100);

/// Counts since the node started.
#[derive(Debug, Default)]
pub(crate) struct Load {
    appends: AtomicU64,
    reads: AtomicU64,
}

/// Counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    appends: u64,
    reads: u64,
}

/// Turns counts into rates. Pure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    since: Instant,
    counts: Counts,
}

/// Operations per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rates {
    pub(crate) appends_per_second: u32,
    pub(crate) reads_per_second: u32,
}

impl Load {
    /// An append is acknowledged.
    pub(crate) fn appended(&self) {
        self.appends.fetch_add(1, Ordering::Relaxed);
    }

    /// Entries were sent to a reader.
    pub(crate) fn sent(&self, entries: u64) {
        self.reads.fetch_add(entries, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            appends: self.appends.load(Ordering::Relaxed),
            reads: self.reads.load(Ordering::Relaxed),
        }
    }
}

impl Meter {
    /// Begins to measure.
    pub(crate) const fn new(counts: Counts, now: Instant) -> Self {
        Self { since: now, counts }
    }

    /// Returns the rates since the last call.
    pub(crate) fn rates(&mut self, counts: Counts, now: Instant) -> Rates {
        let over = now.saturating_duration_since(self.since).max(OVER_MIN);
        let per_second = |before: u64, after: u64| {
            let done = u128::from(after.saturating_sub(before)) * 1_000;
            u32::try_from(done / over.as_millis().max(1)).unwrap_or(u32::MAX)
        };
        let rates = Rates {
            appends_per_second: per_second(self.counts.appends, counts.appends),
            reads_per_second: per_second(self.counts.reads, counts.reads),
        };
        *self = Self::new(counts, now);
        rates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_was_done_since_it_was_asked_last() {
        let load = Load::default();
        let begin = Instant::now();
        let mut meter = Meter::new(load.counts(), begin);
        load.appended();
        load.appended();
        load.sent(1_000);
        let after = |seconds| begin + Duration::from_secs(seconds);
        let rates = |appends_per_second, reads_per_second| Rates {
            appends_per_second,
            reads_per_second,
        };
        assert_eq!(meter.rates(load.counts(), after(2)), rates(1, 500));
        assert_eq!(meter.rates(load.counts(), after(4)), rates(0, 0));
        load.sent(7);
        // At once: as if over the shortest time.
        assert_eq!(meter.rates(load.counts(), after(4)), rates(0, 70));
        load.sent(u64::MAX / 2);
        assert_eq!(meter.rates(load.counts(), after(5)), rates(0, u32::MAX));
    }
}
