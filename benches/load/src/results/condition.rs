//! Conditions under which a comparison fails, as in `append.p99>1.1x`.

use super::statistics::Interval;
use super::{Compared, Metric};
use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A comparison fails if the second side's metric is more (or less) than so many times the first side's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Condition {
    /// The metric.
    pub metric: Metric,
    /// Whether more fails; otherwise less does.
    pub is_more: bool,
    /// The factor.
    pub factor: f64,
}

/// Reason why a text is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// Neither `<` nor `>`.
    #[error("no < or > in it; write METRIC>FACTORx or METRIC<FACTORx, as in append.p99>1.1x")]
    NoRelation,
    /// The metric is not one that is compared.
    #[error("no such metric: {0:?}; there are {names}", names = Metric::names(false))]
    Metric(String),
    /// The factor is no positive number that ends with x.
    #[error("no factor: {0:?}; give a positive number that ends with x, as in 1.1x")]
    Factor(String),
}

impl FromStr for Condition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at = text.find(['<', '>']).ok_or(ConditionError::NoRelation)?;
        let (name, rest) = text.split_at(at);
        let (name, is_more) = (name.trim(), rest.starts_with('>'));
        let factor = rest.get(1..).unwrap_or_default().trim();
        let metric = Metric::named(name)
            .filter(|metric| !matches!(metric, Metric::Share(_)))
            .ok_or_else(|| ConditionError::Metric(name.to_owned()))?;
        let number = factor
            .strip_suffix('x')
            .and_then(|number| number.trim().parse::<f64>().ok());
        let factor = number
            .filter(|factor| factor.is_finite() && *factor > 0.0)
            .ok_or_else(|| ConditionError::Factor(factor.to_owned()))?;
        Ok(Self {
            metric,
            is_more,
            factor,
        })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relation = if self.is_more { '>' } else { '<' };
        write!(f, "{}{relation}{}x", self.metric, self.factor)
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Judgement on a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// The comparison does not fail by it.
    Passed,
    /// The ratio lies beyond the factor, but the interval does not wholly: repeat the runs to know.
    Unsure,
    /// The comparison fails by it.
    Failed,
    /// The metric was not measured on both sides, so the comparison fails too.
    NotMeasured,
}

impl Judgement {
    /// Whether the comparison fails.
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::NotMeasured)
    }

    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Unsure => "passed, but the ratio is beyond: repeat the runs to be sure",
            Self::Failed => "failed",
            Self::NotMeasured => "failed: not measured on both sides",
        }
    }
}

/// A condition and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judged {
    /// The condition.
    pub condition: Condition,
    /// Judgement on it.
    pub judgement: Judgement,
}

impl Condition {
    /// Judges a metric's comparison. With an interval, all of it must lie beyond the factor; without one, the ratio.
    pub(super) fn judge(self, compared: &Compared) -> Judged {
        let is_beyond = |value: f64| match self.is_more {
            true => value > self.factor,
            false => value < self.factor,
        };
        let is_wholly = |interval: &Interval| is_beyond(interval.low) && is_beyond(interval.high);
        let judgement = match (compared.ratio, &compared.interval) {
            (None, _) => Judgement::NotMeasured,
            (Some(_), Some(interval)) if is_wholly(interval) => Judgement::Failed,
            (Some(ratio), Some(_)) if is_beyond(ratio) => Judgement::Unsure,
            (Some(ratio), None) if is_beyond(ratio) => Judgement::Failed,
            _ => Judgement::Passed,
        };
        Judged {
            condition: self,
            judgement,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Measure, Rate, Stat};
    use super::*;

    #[test]
    fn a_condition_is_what_it_says_and_errors_name_what_there_is() {
        let condition: Condition = " append.p99 > 1.1x".parse().expect("a condition");
        assert_eq!(condition.metric, Metric::Latency(Measure::Append, Stat::P99));
        assert!(condition.is_more && condition.factor == 1.1);
        assert_eq!(condition.to_string().parse(), Ok(condition));
        let condition: Condition = "acknowledged_per_s<0.9x".parse().expect("a condition");
        assert_eq!(condition.metric, Metric::Rate(Rate::Acknowledged));
        assert!(!condition.is_more);
        for (text, told) in [
            ("append.p99", "METRIC>FACTORx"),
            ("append.p98>1x", "acknowledged_per_s"),
            ("refused>1x", "catch_up_per_s"),
            ("append.p99>1.1", "ends with x"),
            ("append.p99>x", "ends with x"),
            ("append.p99>-1x", "positive"),
            ("append.p99>nanx", "positive"),
            ("append.p99>infx", "positive"),
            ("append.p99>", "positive"),
            ("é>é", "no such metric"),
        ] {
            let error = text.parse::<Condition>().expect_err(text).to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn an_interval_must_lie_wholly_beyond_and_without_one_the_ratio_counts() {
        let judge = |text: &str, ratio: Option<f64>, interval: Option<(f64, f64)>| {
            let condition: Condition = text.parse().expect("a condition");
            let compared = Compared {
                ratio,
                interval: interval.map(|(low, high)| Interval { low, high }),
                ..Compared::none(condition.metric)
            };
            condition.judge(&compared).judgement
        };
        let (more, less) = ("append.p99>1.1x", "acknowledged_per_s<0.9x");
        assert_eq!(judge(more, Some(1.3), Some((1.2, 1.4))), Judgement::Failed);
        assert_eq!(judge(more, Some(1.3), Some((1.0, 1.7))), Judgement::Unsure);
        assert_eq!(judge(more, Some(1.05), Some((1.0, 1.7))), Judgement::Passed);
        assert_eq!(judge(more, Some(1.3), None), Judgement::Failed);
        assert_eq!(judge(more, Some(1.1), None), Judgement::Passed);
        assert_eq!(judge(more, None, None), Judgement::NotMeasured);
        assert_eq!(judge(less, Some(0.8), Some((0.7, 0.89))), Judgement::Failed);
        assert_eq!(judge(less, Some(0.8), Some((0.7, 0.95))), Judgement::Unsure);
        assert_eq!(judge(less, Some(1.2), Some((1.1, 1.3))), Judgement::Passed);
        assert_eq!(judge(less, Some(0.8), None), Judgement::Failed);
    }
}
