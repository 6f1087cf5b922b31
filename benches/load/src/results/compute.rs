//! Figures of a report, computed from the measurements.

use super::measured::{joined, sum};
use super::report::CATCH_UP_MAX;
use super::{CatchUp, Histogram64, Latency, LatencySeries, Measured, Report, Results, Series, Speed};
use std::time::Duration;

/// The most intervals of a series in `report.json`.
const SERIES_MAX: usize = 600;

impl Results {
    /// Results of a run. Fills `report.latencies_us` and `report.series` from `measured`, and bounds what grows with the length of a run.
    pub fn new(mut report: Report, mut measured: Measured) -> Self {
        if report.run.speed == Speed::Max {
            // A closed loop waits for the target: its latencies mean nothing.
            measured.latencies.clear();
        }
        measured.interval = Duration::from_millis(interval_ms(&measured));
        measured.bound();
        report.catch_up = thinned(report.catch_up, CATCH_UP_MAX);
        tidy(&mut report);
        compute(&mut report, &measured);
        Self { report, measured }
    }
}

/// Fills what a report has from the measurements.
pub(super) fn compute(report: &mut Report, measured: &Measured) {
    let width = measured.intervals().div_ceil(SERIES_MAX).max(1);
    let measured_interval_ms = interval_ms(measured);
    report.latencies_us.clear();
    report.series = Series {
        interval_ms: measured_interval_ms.saturating_mul(width as u64),
        measured_interval_ms,
        ..Series::default()
    };
    for (count, values) in &measured.counts {
        let values = joined(*count, values, width);
        report.series.counts.insert(count.name().to_owned(), values);
    }
    for (measure, intervals) in &measured.latencies {
        let whole = sum(intervals);
        if !whole.is_empty() {
            report.latencies_us.insert(measure.name().to_owned(), latency(&whole));
        }
        let mut series = LatencySeries::default();
        for interval in intervals.chunks(width).map(sum) {
            series.count.push(interval.len());
            series.p50.push(interval.value_at_quantile(0.5));
            series.p99.push(interval.value_at_quantile(0.99));
            series.max.push(interval.max());
        }
        report.series.latencies_us.insert(measure.name().to_owned(), series);
    }
}

/// The length of an interval; at least one millisecond.
pub(super) fn interval_ms(measured: &Measured) -> u64 {
    u64::try_from(measured.interval.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn latency(whole: &Histogram64) -> Latency {
    Latency {
        count: whole.len(),
        min: whole.min(),
        mean: thousandths(whole.mean()),
        p50: whole.value_at_quantile(0.5),
        p90: whole.value_at_quantile(0.9),
        p99: whole.value_at_quantile(0.99),
        p999: whole.value_at_quantile(0.999),
        max: whole.max(),
    }
}

/// Returns so many of them, evenly over all, in the order of their times.
pub(super) fn thinned(mut all: Vec<CatchUp>, most: usize) -> Vec<CatchUp> {
    all.sort_by_key(|one| one.at_ms);
    let count = all.len();
    if count <= most {
        return all;
    }
    (0..most)
        .filter_map(|number| all.get(number * count / most).copied())
        .collect()
}

/// Rounded to three decimals: JSON of it is short, and read back exactly.
pub(super) fn thousandths(value: f64) -> f64 {
    digits((value * 1_000.0).round() / 1_000.0)
}

/// Rounds to the digits that JSON gives back exactly.
fn digits(value: f64) -> f64 {
    if !value.is_finite() {
        return 0.0;
    }
    format!("{value:.14e}").parse().unwrap_or(value)
}

/// Numbers that are not finite become 0, of nodes nothing: JSON has none.
fn tidy(report: &mut Report) {
    let totals = &mut report.totals;
    totals.acknowledged_per_s = thousandths(totals.acknowledged_per_s);
    totals.delivered_per_s = thousandths(totals.delivered_per_s);
    if let Speed::Factor(factor) = &mut report.run.speed {
        *factor = digits(*factor);
    }
    for values in report.nodes.iter_mut().flat_map(|node| node.metrics.values_mut()) {
        for value in values.iter_mut() {
            *value = value.filter(|value| value.is_finite()).map(digits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Count, Measure, sample};
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_histograms_and_series_are_bounded() {
        let (report, mut measured) = sample::run(7, 700);
        let whole = measured.whole(Measure::Append).expect("appends");
        let sent: u64 = measured.counts[&Count::Sent].iter().sum();
        measured.latencies.insert(Measure::Token, Vec::new());
        let Results { report, measured } = Results::new(report, measured);
        let told = report.latencies_us["append"];
        assert_eq!(
            (told.count, told.p99, told.max),
            (whole.len(), whole.value_at_quantile(0.99), whole.max())
        );
        assert!(!report.latencies_us.contains_key("token"));
        let series = &report.series;
        assert_eq!(series.counts["sent"].len(), 350);
        assert_eq!(series.counts["sent"].iter().sum::<u64>(), sent);
        assert_eq!(series.interval_ms, 2 * series.measured_interval_ms);
        assert_eq!(series.latencies_us["append"].count.iter().sum::<u64>(), whole.len());
        assert_eq!(series.latencies_us["append"].max.iter().max(), Some(&whole.max()));
        assert_eq!(measured.intervals(), 700);
    }

    #[test]
    fn a_closed_loop_has_no_latencies() {
        let (mut report, measured) = sample::run(7, 10);
        report.run.speed = Speed::Max;
        let results = Results::new(report, measured);
        assert!(results.report.latencies_us.is_empty() && results.report.series.latencies_us.is_empty());
        assert!(results.measured.latencies.is_empty() && !results.report.series.counts.is_empty());
    }

    #[test]
    fn a_long_run_gets_longer_intervals_and_few_of_those_who_came_back() {
        let (mut report, mut measured) = sample::run(1, 2);
        measured.counts = [(Count::Sent, vec![1; 4_001])].into();
        measured.latencies.clear();
        let one = |at_ms| CatchUp {
            at_ms,
            missed: 1,
            took_us: 1,
        };
        report.catch_up = (0..25_000).rev().map(one).collect();
        let results = Results::new(report, measured);
        assert_eq!(results.measured.intervals(), 2_001);
        assert_eq!(results.report.series.counts["sent"].iter().sum::<u64>(), 4_001);
        assert_eq!(results.report.catch_up.len(), CATCH_UP_MAX);
        assert_eq!(results.report.catch_up[1].at_ms, 2);
        assert!(results.report.catch_up.last().map(|last| last.at_ms) > Some(24_990));
    }
}
