//! Measurements: sums of them, and fewer intervals of them.

use super::{Count, Histogram64, Measure, Measured, histogram};

/// The most intervals that results hold: an interval's histogram takes up to 190 KB of memory. Longer runs have longer intervals.
pub(super) const INTERVALS_MAX: usize = 4_000;

impl Measured {
    /// Returns the number of intervals.
    pub fn intervals(&self) -> usize {
        let latencies = self.latencies.values().map(Vec::len);
        latencies.chain(self.counts.values().map(Vec::len)).max().unwrap_or(0)
    }

    /// The histogram of a latency over the whole run; none if nothing was measured.
    pub fn whole(&self, measure: Measure) -> Option<Histogram64> {
        let intervals = self.latencies.get(&measure)?;
        let sum = sum(intervals);
        (!sum.is_empty()).then_some(sum)
    }

    /// Joins every `width` neighbours to one interval.
    pub(super) fn join(&mut self, width: usize) {
        let width = width.max(1);
        if width == 1 {
            return;
        }
        self.interval = self.interval.saturating_mul(u32::try_from(width).unwrap_or(u32::MAX));
        for intervals in self.latencies.values_mut() {
            *intervals = intervals.chunks(width).map(sum).collect();
        }
        for (count, values) in &mut self.counts {
            *values = joined(*count, values, width);
        }
    }

    /// Joins all intervals to one for each latency: what a comparison needs, in little memory.
    pub fn condense(&mut self) {
        let intervals = self.intervals();
        self.join(intervals);
    }

    /// Joins neighbours until there are no more intervals than results hold.
    pub(super) fn bound(&mut self) {
        self.join(self.intervals().div_ceil(INTERVALS_MAX));
    }
}

/// Neighbours joined: levels are those of the last, others are added.
pub(super) fn joined(count: Count, values: &[u64], width: usize) -> Vec<u64> {
    let join = |chunk: &[u64]| match count.is_level() {
        true => chunk.last().copied().unwrap_or(0),
        false => chunk.iter().fold(0, |sum: u64, value| sum.saturating_add(*value)),
    };
    values.chunks(width.max(1)).map(join).collect()
}

/// All of them in one.
pub(super) fn sum(intervals: &[Histogram64]) -> Histogram64 {
    let mut sum = histogram();
    for interval in intervals {
        add(&mut sum, interval);
    }
    sum
}

/// Adds the values of one histogram to another.
pub(super) fn add(to: &mut Histogram64, from: &Histogram64) {
    if to.add(from).is_err() {
        // Wider bounds than ours: values beyond count as the greatest.
        for value in from.iter_recorded() {
            to.saturating_record_n(value.value_iterated_to(), value.count_at_value());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    #[test]
    fn joining_neighbours_keeps_every_value_and_the_last_level() {
        let interval = |value: u64| {
            let mut histogram = histogram();
            histogram.record(value).expect("in bounds");
            histogram
        };
        let mut measured = Measured {
            interval: Duration::from_millis(250),
            latencies: BTreeMap::from([(Measure::Append, (1..=5).map(interval).collect())]),
            counts: BTreeMap::from([
                (Count::Sent, vec![1, 2, 3, 4, 5]),
                (Count::Backlog, vec![9, 8, 7, 6, 5]),
            ]),
        };
        let before = measured.whole(Measure::Append);
        measured.join(2);
        assert_eq!(measured.interval, Duration::from_millis(500));
        assert_eq!(measured.intervals(), 3);
        assert_eq!(measured.whole(Measure::Append), before);
        assert_eq!(measured.counts[&Count::Sent], [3, 7, 5]);
        assert_eq!(measured.counts[&Count::Backlog], [8, 6, 5]);
        measured.condense();
        assert_eq!((measured.intervals(), measured.whole(Measure::Append)), (1, before));
        assert_eq!(measured.whole(Measure::Token), None);
    }

    #[test]
    fn values_beyond_the_bounds_are_not_lost() {
        let mut wide = Histogram64::new(3).expect("3 digits");
        wide.record(u64::MAX / 4).expect("it grows");
        let mut sum = histogram();
        add(&mut sum, &wide);
        assert_eq!(sum.len(), 1);
        assert!(sum.max() >= super::super::LATENCY_US_MAX);
    }
}
