//! Gathers latencies and counts from many tasks at once.

use crate::results::{Count, Histogram64, LATENCY_US_MAX, Measure, Measured, histogram};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Tasks share so many locks.
const SHARDS: usize = 16;

/// Counts that are kept as they happen. The others of [`Count`] are computed from these and the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tick {
    Sent,
    Acknowledged,
    Delivered,
    Refused,
    GivenUp,
    CameOnline,
    WentOffline,
}

const TICKS: usize = 7;

#[derive(Debug)]
struct Shard {
    interval: usize,
    latencies: [Option<Histogram64>; Measure::ALL.len()],
    counts: [u64; TICKS],
}

#[derive(Debug, Default)]
struct Whole {
    latencies: BTreeMap<Measure, Vec<Histogram64>>,
    counts: Vec<[u64; TICKS]>,
}

#[derive(Debug)]
pub(crate) struct Recorder {
    start: Instant,
    interval: Duration,
    shards: Vec<Mutex<Shard>>,
    whole: Mutex<Whole>,
    has_latencies: bool,
}

/// Records that are made at once.
pub(crate) struct Records<'a> {
    shard: parking_lot::MutexGuard<'a, Shard>,
    has_latencies: bool,
}

impl Records<'_> {
    pub(crate) fn latency(&mut self, measure: Measure, took: Duration) {
        if self.has_latencies {
            let took_us = u64::try_from(took.as_micros())
                .unwrap_or(u64::MAX)
                .clamp(1, LATENCY_US_MAX);
            let histogram = self.shard.latencies[measure as usize].get_or_insert_with(histogram);
            histogram.saturating_record(took_us);
        }
    }

    pub(crate) fn count(&mut self, tick: Tick, count: u64) {
        self.shard.counts[tick as usize] += count;
    }
}

impl Recorder {
    pub(crate) fn new(start: Instant, interval: Duration, has_latencies: bool) -> Self {
        let shard = || Shard {
            interval: 0,
            latencies: std::array::from_fn(|_| None),
            counts: [0; TICKS],
        };
        Self {
            start,
            interval,
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
            whole: Mutex::default(),
            has_latencies,
        }
    }

    /// Records of an agent, now.
    pub(crate) fn of(&self, agent: u32) -> Records<'_> {
        let mut shard = self.shards[agent as usize % SHARDS].lock();
        let interval = (self.start.elapsed().as_nanos() / self.interval.as_nanos()) as usize;
        if interval > shard.interval {
            self.flush(&mut shard);
            shard.interval = interval;
        }
        Records {
            shard,
            has_latencies: self.has_latencies,
        }
    }

    fn flush(&self, shard: &mut Shard) {
        let mut whole = self.whole.lock();
        let at = shard.interval;
        for measure in Measure::ALL {
            let Some(histogram) = shard.latencies[measure as usize]
                .as_mut()
                .filter(|histogram| !histogram.is_empty())
            else {
                continue;
            };
            let all = whole.latencies.entry(measure).or_default();
            if all.len() <= at {
                all.resize_with(at + 1, crate::results::histogram);
            }
            // The bounds are the same: this never fails.
            let _ = all[at].add(&*histogram);
            histogram.reset();
        }
        if whole.counts.len() <= at {
            whole.counts.resize(at + 1, [0; TICKS]);
        }
        for (sum, count) in whole.counts[at].iter_mut().zip(&mut shard.counts) {
            *sum += std::mem::take(count);
        }
    }

    /// All that was recorded. `planned` are the planned times of appends.
    pub(crate) fn finish(&self, duration: Duration, planned: impl Iterator<Item = Duration>) -> Measured {
        for shard in &self.shards {
            self.flush(&mut shard.lock());
        }
        let mut whole = std::mem::take(&mut *self.whole.lock());
        // Intervals in which nothing happened are those that matter most.
        let intervals = (duration.as_nanos() / self.interval.as_nanos()) as usize + 1;
        let intervals = intervals.max(whole.counts.len());
        whole.counts.resize(intervals, [0; TICKS]);
        let mut due: Vec<u64> = vec![0; intervals];
        for at in planned {
            let interval = (at.as_nanos() / self.interval.as_nanos()) as usize;
            // Events that were due after the end do not count.
            if let Some(count) = due.get_mut(interval) {
                *count += 1;
            }
        }
        let ticks = |tick: Tick| {
            whole
                .counts
                .iter()
                .map(|counts| counts[tick as usize])
                .collect::<Vec<_>>()
        };
        let settled = ticks(Tick::Acknowledged)
            .into_iter()
            .zip(ticks(Tick::GivenUp))
            .map(|(one, other)| one + other);
        let backlog = balance(due.iter().copied(), settled);
        let online = balance(
            ticks(Tick::CameOnline).into_iter(),
            ticks(Tick::WentOffline).into_iter(),
        );
        let mut counts = BTreeMap::from([
            (Count::Sent, ticks(Tick::Sent)),
            (Count::Acknowledged, ticks(Tick::Acknowledged)),
            (Count::Delivered, ticks(Tick::Delivered)),
            (Count::Refused, ticks(Tick::Refused)),
            (Count::Online, online),
        ]);
        if self.has_latencies {
            counts.extend([(Count::Planned, due), (Count::Backlog, backlog)]);
        }
        for histograms in whole.latencies.values_mut() {
            histograms.resize_with(intervals, histogram);
        }
        Measured {
            interval: self.interval,
            latencies: whole.latencies,
            counts,
        }
    }
}

/// Returns the arrivals less the departures, up to the end of each interval.
fn balance(came: impl Iterator<Item = u64>, went: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut sums = (0u64, 0u64);
    came.zip(went)
        .map(|(came, went)| {
            sums = (sums.0 + came, sums.1 + went);
            sums.0.saturating_sub(sums.1)
        })
        .collect()
}
