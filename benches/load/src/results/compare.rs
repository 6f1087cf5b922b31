//! Compares two sides, each one run or several repeats of it.

use super::metric::Runs;
use super::statistics::{self, Interval};
use super::{Condition, Difference, Judged, Measured, Metric, Report, Results, Speed, alike};
use serde::Serialize;
use std::fmt;

/// Doubtful comparisons that are allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    /// Sides that replayed different workloads, or in different ways.
    pub unlike: bool,
    /// Runs whose verdict is that they are not valid.
    pub invalid: bool,
}

/// Reason why sides cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A side without runs.
    #[error("side {side} has no runs")]
    Nothing {
        /// `a` or `b`.
        side: char,
    },
    /// Repeats of a side differ.
    #[error("run {number} of side {side} is no repeat of run 1: {difference}")]
    NoRepeat {
        /// `a` or `b`.
        side: char,
        /// The run, from 1.
        number: usize,
        /// The difference.
        difference: Difference,
    },
    /// The sides are not alike.
    #[error("the sides are not alike: {}", listed(.0))]
    Unlike(Vec<Difference>),
    /// A run is not valid.
    #[error("run {number} of side {side} is not valid: {because}")]
    Invalid {
        /// `a` or `b`.
        side: char,
        /// The run, from 1.
        number: usize,
        /// The reason.
        because: String,
    },
    /// A part of a run stands for nothing.
    #[error("run {number} of side {side} is part {part} of {parts} of a run")]
    Part {
        /// `a` or `b`.
        side: char,
        /// The run, from 1.
        number: usize,
        /// Its part.
        part: u32,
        /// Parts of the run.
        parts: u32,
    },
    /// A condition on a latency where a side ran at speed max.
    #[error("condition {0} is on a latency, and a run at speed max has none")]
    ClosedLoop(Condition),
}

fn listed(differences: &[Difference]) -> String {
    let texts: Vec<String> = differences.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

impl CompareError {
    /// Returns the suggested fix.
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Nothing { .. } => "Give at least one run for each side.",
            Self::NoRepeat { .. } => "Keep only repeats of one run in a folder.",
            Self::Unlike(_) => "Compare runs of one workload with the same settings, or allow it with --unlike.",
            Self::Invalid { .. } => "Repeat the run with a stronger generator, or allow it with --invalid.",
            Self::Part { .. } => "Join the parts with `skytale bench merge` first.",
            Self::ClosedLoop(_) => "Use a condition on a rate, as in acknowledged_per_s<0.9x.",
        }
    }
}

/// A side as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SideShown {
    /// Runs.
    pub runs: usize,
    /// The kind of target.
    pub target: String,
    /// Place of the run.
    pub place: String,
    /// Program that made the results.
    pub made_by: String,
    /// Its revision.
    pub revision: Option<String>,
}

/// Reason why a metric has no interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoInterval {
    /// A side has one run only.
    OneRun,
    /// A repeat has no value, or 0.
    NoValue,
}

/// A metric of both sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// The metric. Latencies are microseconds.
    pub metric: Metric,
    /// Its value over all runs of the first side as one.
    pub a: Option<f64>,
    /// Its value over all runs of the second side as one.
    pub b: Option<f64>,
    /// Its value in each run of the first side.
    pub runs_a: Vec<Option<f64>>,
    /// Its value in each run of the second side.
    pub runs_b: Vec<Option<f64>>,
    /// b / a.
    pub ratio: Option<f64>,
    /// The interval of 95 % of the ratio of the runs' geometric means.
    pub interval: Option<Interval>,
    /// Reason why there is none.
    pub no_interval: Option<NoInterval>,
}

impl Compared {
    /// A metric that was not measured.
    pub(super) const fn none(metric: Metric) -> Self {
        Self {
            metric,
            a: None,
            b: None,
            runs_a: Vec::new(),
            runs_b: Vec::new(),
            ratio: None,
            interval: None,
            no_interval: None,
        }
    }

    fn new(metric: Metric, a: Runs<'_>, b: Runs<'_>) -> Self {
        let each = |runs: Runs<'_>| -> Vec<Option<f64>> { runs.iter().map(|run| metric.of(&[*run])).collect() };
        let mut compared = Self {
            a: metric.of(a),
            b: metric.of(b),
            runs_a: each(a),
            runs_b: each(b),
            ..Self::none(metric)
        };
        let (Some(of_a), Some(of_b)) = (compared.a, compared.b) else {
            return compared;
        };
        compared.ratio = (of_a > 0.0).then(|| of_b / of_a);
        let all = |values: &[Option<f64>]| values.iter().copied().collect::<Option<Vec<f64>>>();
        let (each_a, each_b) = (all(&compared.runs_a), all(&compared.runs_b));
        compared.interval = each_a.zip(each_b).and_then(|(a, b)| statistics::ratio(&a, &b));
        compared.no_interval = match compared.interval {
            Some(_) => None,
            None if a.len() < 2 || b.len() < 2 => Some(NoInterval::OneRun),
            None => Some(NoInterval::NoValue),
        };
        compared
    }

    /// Whether the ratio lies outside its interval: one run differs much from the others of its side.
    pub fn is_uneven(&self) -> bool {
        let outside = |ratio: f64, interval: Interval| ratio < interval.low || ratio > interval.high;
        self.ratio
            .zip(self.interval)
            .is_some_and(|(ratio, interval)| outside(ratio, interval))
    }

    /// The row of a table under [`Comparison::HEADS`].
    pub fn row(&self) -> Vec<String> {
        let value = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| self.metric.text(value));
        let interval = match (self.interval, self.no_interval) {
            (Some(Interval { low, high }), _) => {
                let uneven = if self.is_uneven() { ", uneven runs" } else { "" };
                format!("{low:.3} to {high:.3}{uneven}")
            }
            (None, Some(NoInterval::OneRun)) => "none: one run on a side".to_owned(),
            (None, Some(NoInterval::NoValue)) => "none: a run has no value".to_owned(),
            (None, None) => "-".to_owned(),
        };
        let ratio = self.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
        vec![self.metric.to_string(), value(self.a), value(self.b), ratio, interval]
    }
}

/// Two sides, compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The first side.
    pub a: SideShown,
    /// The second side.
    pub b: SideShown,
    /// Differences in fields that should be the same.
    pub unlike: Vec<Difference>,
    /// Other differences: target, version, machine.
    pub different: Vec<Difference>,
    /// Notes to read before the figures.
    pub notes: Vec<String>,
    /// The metrics that both sides have, and those of conditions.
    pub metrics: Vec<Compared>,
    /// The conditions.
    pub conditions: Vec<Judged>,
    /// Whether a condition fails.
    pub failed: bool,
}

impl Comparison {
    /// Heads of a table of metrics.
    pub const HEADS: [&'static str; 5] = ["metric", "a", "b", "b / a", "95 % interval"];

    /// Rows of a table of conditions: the condition, and what became of it.
    pub fn condition_rows(&self) -> Vec<Vec<String>> {
        let row = |judged: &Judged| vec![judged.condition.to_string(), judged.judgement.text().to_owned()];
        self.conditions.iter().map(row).collect()
    }
}

impl fmt::Display for SideShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = if self.runs == 1 { "run" } else { "runs" };
        write!(
            f,
            "{} {runs} against {} ({}), {}",
            self.runs, self.target, self.place, self.made_by
        )?;
        match &self.revision {
            Some(revision) => write!(f, " at {revision}"),
            None => Ok(()),
        }
    }
}

/// Compares two sides. The repeats of a side are pooled for its values: percentiles are of all values together. The interval of a ratio comes
/// from the values of each repeat. See `docs/load-results.md`.
pub fn compare(
    a: &[Results],
    b: &[Results],
    conditions: &[Condition],
    allow: Allow,
) -> Result<Comparison, CompareError> {
    let (first_a, first_b) = (side('a', a, allow)?, side('b', b, allow)?);
    let unlike = alike::load(first_a, first_b);
    if !unlike.is_empty() && !allow.unlike {
        return Err(CompareError::Unlike(unlike));
    }
    let is_closed = [first_a, first_b].iter().any(|report| report.run.speed == Speed::Max);
    if let Some(condition) = conditions
        .iter()
        .find(|condition| is_closed && condition.metric.is_latency())
    {
        return Err(CompareError::ClosedLoop(*condition));
    }
    let (runs_a, runs_b) = (runs(a), runs(b));
    let compared = |metric: Metric| Compared::new(metric, &runs_a, &runs_b);
    let mut metrics: Vec<Compared> = Metric::COMPARED.into_iter().map(compared).collect();
    metrics.retain(|metric| metric.a.is_some() || metric.b.is_some());
    let mut judged = Vec::new();
    for condition in conditions {
        let known = metrics.iter().position(|compared| compared.metric == condition.metric);
        let compared = match known.and_then(|known| metrics.get(known)) {
            Some(known) => known.clone(),
            None => {
                let new = compared(condition.metric);
                metrics.push(new.clone());
                new
            }
        };
        judged.push(condition.judge(&compared));
    }
    Ok(Comparison {
        a: shown(first_a, a.len()),
        b: shown(first_b, b.len()),
        different: [alike::target(first_a, first_b), alike::surroundings(first_a, first_b)].concat(),
        unlike,
        notes: [('a', a), ('b', b)]
            .into_iter()
            .flat_map(|(side, runs)| notes(side, runs))
            .collect(),
        metrics,
        failed: judged.iter().any(|judged: &Judged| judged.judgement.is_failure()),
        conditions: judged,
    })
}

fn runs(side: &[Results]) -> Vec<(&Report, &Measured)> {
    side.iter().map(|run| (&run.report, &run.measured)).collect()
}

/// Checks a side, and gives its first report.
fn side(side: char, runs: &[Results], allow: Allow) -> Result<&Report, CompareError> {
    let first = &runs.first().ok_or(CompareError::Nothing { side })?.report;
    for (number, report) in (1..).zip(runs.iter().map(|run| &run.report)) {
        let differences = [alike::load(first, report), alike::target(first, report)].concat();
        if let Some(difference) = differences.into_iter().next() {
            return Err(CompareError::NoRepeat {
                side,
                number,
                difference,
            });
        }
        let (part, parts) = (report.run.part, report.run.parts);
        if parts > 1 {
            return Err(CompareError::Part {
                side,
                number,
                part,
                parts,
            });
        }
        if !report.verdict.valid && !allow.invalid {
            let because = report.verdict.invalid_because.join("; ");
            return Err(CompareError::Invalid { side, number, because });
        }
    }
    Ok(first)
}

fn shown(report: &Report, runs: usize) -> SideShown {
    SideShown {
        runs,
        target: report.run.target.clone(),
        place: report.run.place.clone(),
        made_by: report.run.made_by.clone(),
        revision: report.run.revision.clone(),
    }
}

fn notes(side: char, runs: &[Results]) -> Vec<String> {
    let mut notes = Vec::new();
    for (number, report) in (1..).zip(runs.iter().map(|run| &run.report)) {
        let mut note = |text: &str| notes.push(format!("run {number} of side {side} {text}"));
        let verdict = &report.verdict;
        if !verdict.valid {
            note(&format!("is not valid: {}", verdict.invalid_because.join("; ")));
        }
        if !verdict.passed {
            note(&format!("failed with {} faults", verdict.faults));
        }
        if verdict.interrupted {
            note("was interrupted");
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::super::{Judgement, Measure, sample};
    use super::*;

    /// Repeats whose append latencies are so many times those of the sample.
    fn repeats(seeds: std::ops::Range<u64>, times: u64) -> Vec<Results> {
        let run = |seed| {
            let (mut report, mut measured) = sample::run(seed, 40);
            for interval in measured.latencies.get_mut(&Measure::Append).into_iter().flatten() {
                let mut slower = super::super::histogram();
                for value in interval.iter_recorded() {
                    let slow = value.value_iterated_to() * times;
                    slower.record_n(slow, value.count_at_value()).expect("in bounds");
                }
                *interval = slower;
            }
            report.run.made_by = format!("skytale 0.{times}.0");
            let mut results = Results::new(report, measured);
            results.measured.condense();
            results
        };
        seeds.map(run).collect()
    }

    fn conditions(texts: &[&str]) -> Vec<Condition> {
        texts.iter().map(|text| text.parse().expect(text)).collect()
    }

    #[test]
    fn twice_as_slow_is_found_with_its_interval_and_the_rest_is_as_before() {
        let (a, b) = (repeats(1..6, 1), repeats(6..11, 2));
        let conditions = conditions(&[
            "append.p99>1.1x",
            "append.p50>3x",
            "acknowledged_per_s<0.9x",
            "append.p50<0.5x",
        ]);
        let comparison = compare(&a, &b, &conditions, Allow::default()).expect("alike");
        let p50 = &comparison.metrics[0];
        let interval = p50.interval.expect("repeats");
        assert!(
            interval.low < 2.0 && interval.high > 2.0 && interval.low > 1.8 && interval.high < 2.2,
            "{p50:?}"
        );
        assert!((p50.ratio.expect("a ratio") - 2.0).abs() < 0.1);
        assert_eq!(p50.runs_a.len(), 5);
        let judgements: Vec<Judgement> = comparison.conditions.iter().map(|judged| judged.judgement).collect();
        let passed = Judgement::Passed;
        assert_eq!(judgements, [Judgement::Failed, passed, passed, passed]);
        assert!(comparison.failed && comparison.unlike.is_empty());
        assert_eq!(comparison.different[0].field, "run.made_by");
        assert!(
            serde_json::to_string(&comparison)
                .expect("JSON")
                .contains("\"append.p999\"")
        );
    }

    #[test]
    fn one_run_has_no_interval_and_says_so() {
        let (a, b) = (repeats(1..2, 1), repeats(2..4, 2));
        let comparison = compare(&a, &b, &conditions(&["append.p50>1.5x"]), Allow::default()).expect("alike");
        assert_eq!(comparison.metrics[0].no_interval, Some(NoInterval::OneRun));
        assert!(comparison.metrics[0].row()[4].contains("one run"));
        assert!(comparison.failed);
    }

    #[test]
    fn what_does_not_compare_is_refused_and_named() {
        let (a, mut b) = (repeats(1..3, 1), repeats(3..5, 1));
        let refused = |a: &[Results], b: &[Results], texts: &[&str]| {
            let error = compare(a, b, &conditions(texts), Allow::default()).expect_err("refused");
            assert!(!error.help().is_empty());
            error.to_string()
        };
        assert!(refused(&a, &[], &[]).contains("side b has no runs"));
        b[1].report.run.settings.insert("window".into(), 8.into());
        assert!(refused(&a, &b, &[]).contains("run 2 of side b is no repeat of run 1: run.settings.window"));
        b[0].report.run.settings.insert("window".into(), 8.into());
        assert!(refused(&a, &b, &[]).contains("run.settings.window is 64 in one and 8 in the other"));
        let unlike = Allow {
            unlike: true,
            invalid: false,
        };
        let comparison = compare(&a, &b, &[], unlike).expect("allowed");
        assert_eq!(comparison.unlike[0].field, "run.settings.window");
        b = repeats(3..5, 1);
        b[1].report.verdict.valid = false;
        b[1].report.verdict.invalid_because = vec!["late".into()];
        assert!(refused(&a, &b, &[]).contains("run 2 of side b is not valid: late"));
        let invalid = Allow {
            unlike: false,
            invalid: true,
        };
        assert!(compare(&a, &b, &[], invalid).expect("allowed").notes[0].contains("late"));
        b = repeats(3..5, 1);
        b[0].report.run.parts = 2;
        assert!(refused(&a, &b, &[]).contains("part 1 of 2"));
        let mut max = repeats(1..3, 1);
        for run in &mut max {
            run.report.run.speed = Speed::Max;
        }
        assert!(refused(&max, &max, &["append.p99>1x"]).contains("speed max"));
        let rates = compare(&max, &max, &conditions(&["delivered_per_s<0.5x"]), Allow::default()).expect("rates");
        assert!(rates.metrics.iter().all(|compared| !compared.metric.is_latency()) && rates.metrics.len() == 3);
        // A metric that neither side has is no silent pass.
        let mut none = repeats(1..3, 1);
        for run in &mut none {
            run.measured.latencies.remove(&Measure::Token);
        }
        let comparison = compare(&none, &none, &conditions(&["token.p99>9x"]), Allow::default()).expect("alike");
        assert_eq!(comparison.conditions[0].judgement, Judgement::NotMeasured);
        assert!(comparison.failed);
    }
}
