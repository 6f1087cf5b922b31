//! Numbers that runs are compared by and that objectives are of, by name.

use super::measured::add;
use super::{Histogram64, Measure, Measured, Report, Speed, histogram};
use serde::{Serialize, Serializer};
use std::fmt;

/// A number of a latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Stat {
    P50,
    P90,
    P99,
    P999,
    Max,
    Mean,
}

/// Something a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rate {
    /// Messages and raw frames acknowledged.
    Acknowledged,
    /// Entries delivered.
    Delivered,
    /// Entries that a reader that came back catches up on, while it does.
    CatchUp,
}

/// A part of all, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Share {
    /// Refusals, of all refusals and acknowledgements.
    Refused,
    /// Appends given up, of those sent.
    GivenUp,
    /// Appends without an acknowledgement at the end, of those sent.
    Unacknowledged,
}

/// A number of a run. Latencies are microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Statistic of a latency, as in `append.p99`.
    Latency(Measure, Stat),
    /// A rate, as in `acknowledged_per_s`.
    Rate(Rate),
    /// A share, as in `refused`.
    Share(Share),
}

/// Runs of which metrics are computed: one, or several as one.
pub(super) type Runs<'a> = &'a [(&'a Report, &'a Measured)];

impl Stat {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::P50, Self::P90, Self::P99, Self::P999, Self::Max, Self::Mean];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::P999 => "p999",
            Self::Max => "max",
            Self::Mean => "mean",
        }
    }

    pub(super) fn of(self, histogram: &Histogram64) -> f64 {
        let quantile = |share| histogram.value_at_quantile(share) as f64;
        match self {
            Self::P50 => quantile(0.5),
            Self::P90 => quantile(0.9),
            Self::P99 => quantile(0.99),
            Self::P999 => quantile(0.999),
            Self::Max => histogram.max() as f64,
            Self::Mean => histogram.mean(),
        }
    }
}

impl Metric {
    /// Metrics that a comparison shows, with any conditions.
    pub const COMPARED: [Self; 11] = [
        Self::Latency(Measure::Append, Stat::P50),
        Self::Latency(Measure::Append, Stat::P90),
        Self::Latency(Measure::Append, Stat::P99),
        Self::Latency(Measure::Append, Stat::P999),
        Self::Latency(Measure::Delivered, Stat::P99),
        Self::Latency(Measure::CaughtUp, Stat::P99),
        Self::Latency(Measure::Connected, Stat::P99),
        Self::Latency(Measure::Token, Stat::P99),
        Self::Rate(Rate::Acknowledged),
        Self::Rate(Rate::Delivered),
        Self::Rate(Rate::CatchUp),
    ];
    const OTHERS: [(&'static str, Self); 6] = [
        ("acknowledged_per_s", Self::Rate(Rate::Acknowledged)),
        ("delivered_per_s", Self::Rate(Rate::Delivered)),
        ("catch_up_per_s", Self::Rate(Rate::CatchUp)),
        ("refused", Self::Share(Share::Refused)),
        ("given_up", Self::Share(Share::GivenUp)),
        ("unacknowledged", Self::Share(Share::Unacknowledged)),
    ];

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        if let Some((measure, stat)) = name.split_once('.') {
            let stat = Stat::ALL.into_iter().find(|known| known.name() == stat)?;
            return Some(Self::Latency(Measure::named(measure)?, stat));
        }
        let other = Self::OTHERS.into_iter().find(|(known, _)| *known == name)?;
        Some(other.1)
    }

    /// All names, for an error: latencies as `MEASURE.STAT`.
    pub(super) fn names(with_shares: bool) -> String {
        let measures: Vec<&str> = Measure::ALL.into_iter().map(Measure::name).collect();
        let stats: Vec<&str> = Stat::ALL.into_iter().map(Stat::name).collect();
        let others = Self::OTHERS.into_iter();
        let others: Vec<&str> = others
            .filter(|(_, metric)| with_shares || !matches!(metric, Self::Share(_)))
            .map(|(name, _)| name)
            .collect();
        format!(
            "{}, or one of {} followed by one of .{}",
            others.join(", "),
            measures.join(", "),
            stats.join(", .")
        )
    }

    /// Whether it is a latency.
    pub const fn is_latency(self) -> bool {
        matches!(self, Self::Latency(..))
    }

    /// Its value over all of some runs as one: percentiles of all values, rates over all the time. None if it was not measured.
    pub(super) fn of(self, runs: Runs<'_>) -> Option<f64> {
        let sum = |of: &dyn Fn(&Report) -> f64| runs.iter().map(|(report, _)| of(report)).sum::<f64>();
        let totals = |of: fn(&super::Totals) -> u64| sum(&|report| of(&report.totals) as f64);
        let value = match self {
            Self::Latency(measure, stat) => {
                if runs.iter().any(|(report, _)| report.run.speed == Speed::Max) {
                    return None;
                }
                let mut all = histogram();
                for whole in runs.iter().filter_map(|(_, measured)| measured.whole(measure)) {
                    add(&mut all, &whole);
                }
                (!all.is_empty()).then(|| stat.of(&all))
            }
            Self::Rate(Rate::Acknowledged) => {
                let messages = sum(&|report| report.totals.acknowledged_per_s * report.totals.appending_s());
                ratio(messages, sum(&|report| report.totals.appending_s()))
            }
            Self::Rate(Rate::Delivered) => ratio(totals(|of| of.delivered), totals(|of| of.duration_us) / 1e6),
            Self::Rate(Rate::CatchUp) => {
                let back = |of: fn(&super::CatchUp) -> u64| {
                    let missed = |report: &Report| {
                        let readers = report.catch_up.iter().filter(|one| one.missed > 0);
                        readers.map(|one| of(one) as f64).sum::<f64>()
                    };
                    sum(&missed)
                };
                ratio(back(|one| one.missed), back(|one| one.took_us) / 1e6)
            }
            Self::Share(Share::Refused) => {
                let refused = sum(&|report| report.refusals.values().map(|count| *count as f64).sum());
                ratio(refused, refused + totals(|of| of.acknowledged))
            }
            Self::Share(Share::GivenUp) => ratio(totals(|of| of.given_up), totals(|of| of.sent)),
            Self::Share(Share::Unacknowledged) => ratio(totals(|of| of.unacknowledged), totals(|of| of.sent)),
        };
        value.filter(|value| value.is_finite())
    }

    /// Its value in words.
    pub fn text(self, value: f64) -> String {
        match self {
            Self::Latency(..) => super::duration_text(value),
            Self::Rate(_) => format!("{}/s", super::amount(value)),
            Self::Share(_) => format!("{} %", super::amount(value * 100.0)),
        }
    }
}

fn ratio(of: f64, all: f64) -> Option<f64> {
    (all > 0.0).then(|| of / all)
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latency(measure, stat) => write!(f, "{}.{}", measure.name(), stat.name()),
            other => {
                let named = Self::OTHERS.into_iter().find(|(_, metric)| metric == other);
                f.write_str(named.map_or("", |(name, _)| name))
            }
        }
    }
}

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn every_metric_has_a_name_that_leads_back_to_it() {
        let latencies = Measure::ALL
            .into_iter()
            .flat_map(|measure| Stat::ALL.map(|stat| Metric::Latency(measure, stat)));
        for metric in latencies.chain(Metric::OTHERS.map(|(_, metric)| metric)) {
            let name = metric.to_string();
            assert_eq!(Metric::named(&name), Some(metric), "{name}");
            let said = Metric::names(true);
            assert!(name.split('.').all(|word| said.contains(word)), "{name}: {said}");
        }
        for other in ["", "append", "append.", "append.p98", ".p99", "cpu", "append.p99.p99"] {
            assert_eq!(Metric::named(other), None, "{other}");
        }
    }

    #[test]
    fn several_runs_count_as_one_and_a_closed_loop_has_no_latency() {
        let (one, mut other) = (sample::results(1, 20), sample::results(2, 60));
        let both = [(&one.report, &one.measured), (&other.report, &other.measured)];
        let p99 = Metric::Latency(Measure::Append, Stat::P99);
        let rate = Metric::Rate(Rate::Delivered);
        let [a, b, all] = [&both[..1], &both[1..], &both].map(|runs| p99.of(runs).expect("appends"));
        assert!(a.min(b) <= all && all <= a.max(b));
        let delivered = (one.report.totals.delivered + other.report.totals.delivered) as f64;
        let seconds = (one.report.totals.duration_us + other.report.totals.duration_us) as f64 / 1e6;
        assert_eq!(rate.of(&both), Some(delivered / seconds));
        assert!((rate.of(&both[..1]).expect("a rate") - one.report.totals.delivered_per_s).abs() < 1.0);
        assert!(Metric::Share(Share::Refused).of(&both) > Some(0.0));
        other.report.run.speed = Speed::Max;
        let both = [(&one.report, &one.measured), (&other.report, &other.measured)];
        assert_eq!(p99.of(&both), None);
        assert!(rate.of(&both).is_some());
        assert_eq!(rate.of(&[]), None);
    }
}
