//! Objectives that a run meets or does not, as in `append.p99<50ms`.

use super::{Measured, Metric, Report};
use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// An objective: a metric below or above a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// The metric.
    pub metric: Metric,
    /// Whether it must be more; otherwise less.
    pub is_more: bool,
    /// The value: microseconds of a latency, a number a second of a rate, 0 to 1 of a share.
    pub value: f64,
}

/// Reason why a text is no objective.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectiveError {
    /// Neither `<` nor `>`.
    #[error("no < or > in it; write METRIC<VALUE or METRIC>VALUE, as in append.p99<50ms")]
    NoRelation,
    /// No such metric.
    #[error("no such metric: {0:?}; there are {names}", names = Metric::names(true))]
    Metric(String),
    /// The value is not one of the metric.
    #[error("no value of {metric}: {value:?}; give {expected}")]
    Value {
        /// The metric.
        metric: String,
        /// The text.
        value: String,
        /// The expected syntax.
        expected: &'static str,
    },
}

impl FromStr for Objective {
    type Err = ObjectiveError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at = text.find(['<', '>']).ok_or(ObjectiveError::NoRelation)?;
        let (name, rest) = text.split_at(at);
        let name = name.trim();
        let metric = Metric::named(name).ok_or_else(|| ObjectiveError::Metric(name.to_owned()))?;
        let value = rest.get(1..).unwrap_or_default().trim();
        let (units, expected): (&[(&str, f64)], _) = match metric {
            // The first suffix that fits is taken: `s` comes last.
            Metric::Latency(..) => (
                &[("us", 1.0), ("µs", 1.0), ("ms", 1e3), ("s", 1e6)],
                "a number with us, ms or s, as in 50ms",
            ),
            Metric::Rate(_) => (&[("/s", 1.0), ("", 1.0)], "a number, as in 1000"),
            Metric::Share(_) => (&[("%", 0.01)], "a number with %, as in 0.1%"),
        };
        let scaled = units
            .iter()
            .find_map(|(unit, scale)| Some((value.strip_suffix(unit)?, scale)));
        let number = scaled.and_then(|(number, scale)| Some(number.trim().parse::<f64>().ok()? * scale));
        let value = number
            .filter(|number| number.is_finite() && *number >= 0.0)
            .ok_or_else(|| ObjectiveError::Value {
                metric: metric.to_string(),
                value: value.to_owned(),
                expected,
            })?;
        Ok(Self {
            metric,
            is_more: rest.starts_with('>'),
            value,
        })
    }
}

impl Objective {
    /// Whether a run meets it, and the value that the run has. An objective that was not measured is not met. Whether
    /// the run means anything is in its verdict, and not looked at here.
    pub fn holds(&self, report: &Report, measured: &Measured) -> (bool, Option<f64>) {
        let found = self.metric.of(&[(report, measured)]);
        let holds = found.is_some_and(|found| match self.is_more {
            true => found > self.value,
            false => found < self.value,
        });
        (holds, found)
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relation = if self.is_more { '>' } else { '<' };
        // Rounded, so that 0.1 % does not become 0.1000000001 %.
        let number = |value: f64| (value * 1e9).round() / 1e9;
        write!(f, "{}{relation}", self.metric)?;
        match self.metric {
            Metric::Latency(..) if self.value >= 1e6 => write!(f, "{}s", number(self.value / 1e6)),
            Metric::Latency(..) if self.value >= 1e3 => write!(f, "{}ms", number(self.value / 1e3)),
            Metric::Latency(..) => write!(f, "{}us", number(self.value)),
            Metric::Rate(_) => write!(f, "{}", number(self.value)),
            Metric::Share(_) => write!(f, "{}%", number(self.value * 100.0)),
        }
    }
}

impl Serialize for Objective {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Speed, sample};
    use super::*;

    #[test]
    fn an_objective_is_what_it_says_and_errors_name_what_there_is() {
        for (text, value, again) in [
            ("append.p99<50ms", 50_000.0, "append.p99<50ms"),
            ("caught_up.max < 2s", 2e6, "caught_up.max<2s"),
            ("token.p50<900 us", 900.0, "token.p50<900us"),
            ("append.mean<1.5ms", 1_500.0, "append.mean<1.5ms"),
            ("acknowledged_per_s>1000", 1_000.0, "acknowledged_per_s>1000"),
            ("delivered_per_s>10/s", 10.0, "delivered_per_s>10"),
            ("refused<0.1%", 0.001, "refused<0.1%"),
        ] {
            let objective: Objective = text.parse().expect(text);
            assert!((objective.value - value).abs() < 1e-9, "{text}");
            assert_eq!(objective.is_more, text.contains('>'));
            assert_eq!(objective.to_string(), again);
        }
        for (text, told) in [
            ("append.p99", "METRIC<VALUE"),
            ("append.p98<1ms", "unacknowledged"),
            ("append.p99<50", "us, ms or s"),
            ("append.p99<-1ms", "us, ms or s"),
            ("append.p99<nans", "us, ms or s"),
            ("acknowledged_per_s>1k", "a number"),
            ("refused<1", "with %"),
            ("refused<", "with %"),
        ] {
            let error = text.parse::<Objective>().expect_err(text).to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn a_run_meets_what_it_measured_and_nothing_else() {
        let mut results = sample::results(3, 40);
        let p99 = results.report.latencies_us["append"].p99;
        let holds = |text: &str, results: &super::super::Results| {
            let objective: Objective = text.parse().expect(text);
            objective.holds(&results.report, &results.measured)
        };
        assert_eq!(holds("append.p99<10s", &results), (true, Some(p99 as f64)));
        assert_eq!(
            holds(&format!("append.p99<{p99}us"), &results),
            (false, Some(p99 as f64))
        );
        assert!(holds("acknowledged_per_s>1", &results).0 && !holds("acknowledged_per_s>1000000", &results).0);
        assert!(holds("refused<99%", &results).0 && !holds("refused<0.0001%", &results).0);
        results.report.run.speed = Speed::Max;
        assert_eq!(holds("append.p99<10s", &results), (false, None));
    }
}
