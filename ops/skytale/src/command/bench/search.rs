//! `skytale bench search`.

use super::results::unwritten;
use super::run::{LoadArgs, Side, Workload, in_folder, once};
use crate::command::Session;
use crate::config::is_of_servers;
use crate::output::{Context as _, Failure, Human, Outcome, Style, table};
use serde::Serialize;
use skytale_load::results::{Measure, Objective, Results, amount, duration_text};
use skytale_proto::Code;
use skytale_workload::report::{Axis, Line, Page, Part, Plot};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Finds the largest speed at which objectives hold: the speed is doubled until one does not, then the interval is halved.
///
/// --speed is where it begins. Each step is a run with fresh agents and channels; a step holds if its run is valid, passed, and meets all
/// objectives. A target that is offered too much falls behind gradually: a run must be long enough for that to show, so the search goes no
/// faster than --shortest allows. Give a longer workload, or add load at the same speed with --clone.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    load: LoadArgs,
    /// An objective, as in append.p99<50ms, caught_up.max<2s, acknowledged_per_s>1000 or refused<0.1%; may be given several times.
    #[arg(long = "objective", value_name = "OBJECTIVE", required = true, value_parser = objective)]
    objectives: Vec<Objective>,
    /// The speed at which the search ends.
    #[arg(long, value_name = "FACTOR", default_value_t = 10_000.0, value_parser = factor)]
    to: f64,
    /// The minimum length of a step: no speed is tried at which the workload is over sooner.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = super::duration)]
    shortest: Duration,
    /// The precision of the result: the search ends when the least speed that fails is within this share of the largest
    /// that passes.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share)]
    within: f64,
}

fn objective(text: &str) -> Result<Objective, String> {
    text.parse::<Objective>().map_err(|error| error.to_string())
}

fn factor(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok().filter(|factor| (0.001..=1e6).contains(factor));
    factor.ok_or_else(|| "give a number between 0.001 and 1000000".into())
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.01..=1.0).contains(share));
    share.ok_or_else(|| "give a share between 0.01 and 1".into())
}

/// One run of a search.
#[derive(Clone, Debug, Serialize)]
struct Step {
    speed: f64,
    holds: bool,
    /// The generator was the limit: the step says nothing of the target.
    valid: bool,
    passed: bool,
    faults: u64,
    interrupted: bool,
    offered_per_s: f64,
    acknowledged_per_s: f64,
    append_p99_us: u64,
    delivered_p99_us: u64,
    /// Results for the objectives.
    found: Vec<Found>,
    folder: PathBuf,
}

#[derive(Clone, Debug, Serialize)]
struct Found {
    objective: String,
    value: Option<f64>,
    text: String,
    holds: bool,
}

#[derive(Debug, Serialize)]
struct Searched {
    out: PathBuf,
    /// The largest speed at which everything held.
    speed: Option<f64>,
    acknowledged_per_s: Option<f64>,
    /// The least speed at which it did not.
    fails_at: Option<f64>,
    /// Reason why the search ended there.
    ended: &'static str,
    steps: Vec<Step>,
}

pub(crate) async fn run(args: Args, session: Session) -> Outcome {
    session.loaded.refuse_unused("bench search", is_of_servers)?;
    let first = args.load.knobs().factor().ok_or_else(|| {
        Failure::new(Code::Usage, "a search needs a speed to begin with, not max")
            .help("Give --speed 1, or leave it out.")
    })?;
    let workload = Workload::read(&args.load)?;
    let out = args.load.out()?;
    let lasts = workload.plan(&args.load.knobs().at(first))?.duration.mul_f64(first);
    let mut search = Search::new(first, args.to, args.within).lasting(lasts, args.shortest)?;
    let mut steps: Vec<Step> = Vec::new();
    while let Some(speed) = search.next() {
        let number = steps.len() + 1;
        session.output.note(format_args!("step {number}: speed {speed:.3}"));
        let step = step(
            &args,
            &session,
            &workload,
            speed,
            &in_folder(&out, &format!("step-{number}"))?,
        )
        .await?;
        session.output.note(format_args!("  {}", step.words()));
        let (failed, interrupted) = (step.faults > 0, step.interrupted);
        search.took(speed, step.holds, step.valid);
        steps.push(step);
        if failed {
            search.end("the target lost, doubled or reordered something");
        } else if interrupted {
            search.end("it was interrupted");
        }
    }
    let best = steps
        .iter()
        .filter(|step| step.holds)
        .max_by(|a, b| a.speed.total_cmp(&b.speed));
    let searched = Searched {
        speed: best.map(|step| step.speed),
        acknowledged_per_s: best.map(|step| step.acknowledged_per_s),
        fails_at: search.fails_at(),
        ended: search.ended(),
        out: out.clone(),
        steps: steps.clone(),
    };
    let page = out.join("search.html");
    std::fs::write(&page, page_of(&searched).to_string())
        .failing(Code::Environment, || format!("cannot write {}", page.display()))?;
    session.output.give(&searched)?;
    if let Some(step) = steps.iter().find(|step| step.faults > 0) {
        let what = format!(
            "the target did not keep what it promised at speed {:.3}: {} faults",
            step.speed, step.faults
        );
        return Err(
            Failure::new(Code::Mismatch, what).help(format!("See {}.", step.folder.join("report.html").display()))
        );
    }
    if steps.iter().any(|step| step.interrupted) {
        return session.shutdown.unless(std::future::pending()).await;
    }
    match searched.speed {
        Some(_) => Ok(()),
        None => Err(
            Failure::new(Code::Mismatch, "the objectives hold at no speed that was tried")
                .help("Begin with a smaller --speed, or look at the first step's report.html."),
        ),
    }
}

async fn step(args: &Args, session: &Session, workload: &Workload, speed: f64, folder: &Path) -> Outcome<Step> {
    let knobs = args.load.knobs().at(speed);
    let plan = Arc::new(workload.plan(&knobs)?);
    let results = once(&args.load, &knobs, Side::A, session, workload, &plan, None).await?;
    results.write(folder).map_err(unwritten)?;
    Ok(Step::of(&results, &args.objectives, speed, folder))
}

impl Step {
    fn of(results: &Results, objectives: &[Objective], speed: f64, folder: &Path) -> Self {
        let report = &results.report;
        let found: Vec<Found> = objectives
            .iter()
            .map(|objective| {
                let (holds, value) = objective.holds(report, &results.measured);
                Found {
                    objective: objective.to_string(),
                    value,
                    text: value.map_or_else(|| "not measured".into(), |value| objective.metric.text(value)),
                    holds,
                }
            })
            .collect();
        let (valid, passed) = (report.verdict.valid, report.verdict.passed);
        let p99 = |measure: Measure| report.latencies_us.get(measure.name()).map_or(0, |latency| latency.p99);
        let seconds = report.planned.duration_us as f64 / 1e6;
        Self {
            speed,
            holds: valid && passed && !report.verdict.interrupted && found.iter().all(|found| found.holds),
            valid,
            passed,
            faults: report.verdict.faults,
            interrupted: report.verdict.interrupted,
            offered_per_s: if seconds > 0.0 {
                report.planned.appends as f64 / seconds
            } else {
                0.0
            },
            acknowledged_per_s: report.totals.acknowledged_per_s,
            append_p99_us: p99(Measure::Append),
            delivered_p99_us: p99(Measure::Delivered),
            found,
            folder: folder.to_owned(),
        }
    }

    fn words(&self) -> String {
        let mut words = match (self.valid, self.passed, self.holds) {
            (_, false, _) => "did not pass".to_owned(),
            (false, ..) => "not valid: see its report".to_owned(),
            (.., true) => "holds".to_owned(),
            _ => "does not hold".to_owned(),
        };
        for found in &self.found {
            words.push_str(&format!(", {}: {}", found.objective, found.text));
        }
        words
    }
}

/// Returns the speed to try next.
#[derive(Debug)]
struct Search {
    next: Option<f64>,
    to: f64,
    /// Returns the reason why there is no speed beyond that.
    at_most: &'static str,
    within: f64,
    holds: Option<f64>,
    fails: Option<f64>,
    ended: &'static str,
}

impl Search {
    fn new(first: f64, to: f64, within: f64) -> Self {
        Self {
            next: Some(first.min(to)),
            to,
            at_most: "the objectives hold at the greatest speed",
            within,
            holds: None,
            fails: None,
            ended: "",
        }
    }

    /// Sets the limits of a workload that lasts so long at speed 1, with steps of at least another length.
    fn lasting(mut self, workload: Duration, shortest: Duration) -> Outcome<Self> {
        if shortest.is_zero() {
            return Ok(self);
        }
        let fastest = workload.as_secs_f64() / shortest.as_secs_f64();
        if let Some(first) = self.next.filter(|first| *first > fastest) {
            let what = format!(
                "at speed {first} the workload is over after {}",
                duration_text(workload.as_secs_f64() * 1e6 / first)
            );
            return Err(Failure::new(Code::Usage, what).help(
                "A run that short does not show whether the target keeps up. Give a longer workload, a smaller --speed, more load at \
                 the same speed (--clone), or a smaller --shortest.",
            ));
        }
        if fastest < self.to {
            (self.to, self.at_most) = (
                fastest,
                "faster, the workload is over before it shows whether the target keeps up: give a longer one, or --clone",
            );
        }
        Ok(self)
    }

    const fn next(&self) -> Option<f64> {
        self.next
    }

    const fn fails_at(&self) -> Option<f64> {
        self.fails
    }

    const fn ended(&self) -> &'static str {
        self.ended
    }

    fn end(&mut self, why: &'static str) {
        (self.next, self.ended) = (None, why);
    }

    fn took(&mut self, speed: f64, holds: bool, valid: bool) {
        if !valid {
            // This generator cannot measure more than that.
            return self.end("a run was not valid");
        }
        if holds {
            self.holds = Some(self.holds.unwrap_or(0.0).max(speed));
        } else {
            self.fails = Some(self.fails.unwrap_or(f64::INFINITY).min(speed));
        }
        match (self.holds, self.fails) {
            (Some(holds), _) if holds >= self.to => self.end(self.at_most),
            (Some(holds), None) => self.next = Some((holds * 2.0).min(self.to)),
            (Some(holds), Some(fails)) if fails - holds <= holds * self.within => self.end("found"),
            // Speeds are compared by ratio.
            (Some(holds), Some(fails)) => self.next = Some((holds * fails).sqrt()),
            (None, Some(fails)) if fails < 0.002 => self.end("nothing holds"),
            (None, Some(fails)) => self.next = Some(fails / 2.0),
            (None, None) => self.end("nothing was tried"),
        }
    }
}

const HEADS: [&str; 7] = [
    "speed",
    "offered/s",
    "messages/s",
    "append p99",
    "delivered p99",
    "holds",
    "objectives",
];

impl Searched {
    fn rows(&self) -> Vec<Vec<String>> {
        let mut steps: Vec<&Step> = self.steps.iter().collect();
        steps.sort_by(|a, b| a.speed.total_cmp(&b.speed));
        let row = |step: &Step| {
            vec![
                format!("{:.2}", step.speed),
                amount(step.offered_per_s),
                amount(step.acknowledged_per_s),
                duration_text(step.append_p99_us as f64),
                duration_text(step.delivered_p99_us as f64),
                if step.valid {
                    if step.holds { "yes" } else { "no" }
                } else {
                    "not valid"
                }
                .to_owned(),
                step.found
                    .iter()
                    .map(|found| format!("{}: {}", found.objective, found.text))
                    .collect::<Vec<_>>()
                    .join(", "),
            ]
        };
        steps.into_iter().map(row).collect()
    }

    fn words(&self) -> String {
        match (self.speed, self.fails_at) {
            (Some(speed), Some(fails)) => format!(
                "the objectives hold at speed {speed:.2} ({} messages/s), and not at {fails:.2}",
                amount(self.acknowledged_per_s.unwrap_or(0.0))
            ),
            (Some(speed), None) => format!(
                "the objectives hold at speed {speed:.2} ({} messages/s); {}",
                amount(self.acknowledged_per_s.unwrap_or(0.0)),
                self.ended
            ),
            (None, _) => "the objectives hold at no speed that was tried".to_owned(),
        }
    }
}

impl Human for Searched {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        writeln!(to, "{}\n", style.bold(&self.words()))?;
        table(to, style, &HEADS, self.rows())?;
        writeln!(to, "\nSee it: {}", self.out.join("search.html").display())
    }
}

/// The knee: latency against the offered load.
fn page_of(searched: &Searched) -> Page {
    let mut steps: Vec<&Step> = searched.steps.iter().filter(|step| step.valid).collect();
    steps.sort_by(|a, b| a.speed.total_cmp(&b.speed));
    let line = |label: &str, value: fn(&Step) -> f64| Line {
        label: label.to_owned(),
        points: steps.iter().map(|step| (step.offered_per_s, value(step))).collect(),
    };
    let plot = |title: &str, y_unit: &str, lines: Vec<Line>, y_axis: Axis| {
        Part::Plot(Plot {
            title: title.to_owned(),
            x_unit: "appends offered a second".into(),
            y_unit: y_unit.to_owned(),
            lines,
            y_axis,
            ..Plot::default()
        })
    };
    Page {
        title: "Search for the largest speed".into(),
        parts: vec![
            Part::Text(searched.words()),
            Part::Table {
                heads: HEADS.map(str::to_owned).to_vec(),
                rows: searched.rows(),
            },
            Part::Heading("Latency at the 99th percentile".into()),
            plot(
                "Latency at the 99th percentile against the rate offered",
                "ms",
                vec![
                    line("append", |step| step.append_p99_us as f64 / 1e3),
                    line("delivered", |step| step.delivered_p99_us as f64 / 1e3),
                ],
                Axis::Log,
            ),
            Part::Heading("Rate reached".into()),
            plot(
                "Messages acknowledged a second against the rate offered",
                "1/s",
                vec![line("messages", |step| step.acknowledged_per_s)],
                Axis::default(),
            ),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(first: f64, knee: f64) -> (Search, Vec<f64>) {
        let (mut search, mut tried) = (Search::new(first, 1_000.0, 0.1), Vec::new());
        while let Some(speed) = search.next() {
            tried.push(speed);
            search.took(speed, speed < knee, true);
        }
        (search, tried)
    }

    #[test]
    fn a_search_ends_near_the_knee_wherever_it_begins() {
        for (first, knee) in [(1.0, 37.0), (1.0, 1.5), (64.0, 3.0), (1.0, 0.4)] {
            let (search, tried) = search(first, knee);
            let (holds, fails) = (search.holds.expect("one holds"), search.fails.expect("one fails"));
            assert!(
                holds < knee && knee <= fails && fails <= holds * 1.1,
                "{knee}: {tried:?}"
            );
            assert!(tried.len() < 16, "{tried:?}");
        }
    }

    #[test]
    fn a_search_ends_where_nothing_or_everything_holds_or_the_generator_is_the_limit() {
        assert_eq!(search(1.0, 0.0).0.ended(), "nothing holds");
        assert_eq!(search(1.0, 1e9).0.holds, Some(1_000.0));
        let seconds = Duration::from_secs;
        let (mut short, mut tried) = (Search::new(1.0, 1_000.0, 0.1), Vec::new());
        short = short.lasting(seconds(60), seconds(5)).expect("long enough to begin");
        while let Some(speed) = short.next() {
            tried.push(speed);
            short.took(speed, true, true);
        }
        assert_eq!(tried, [1.0, 2.0, 4.0, 8.0, 12.0]);
        assert!(short.ended().contains("--clone"), "{}", short.ended());
        assert!(
            Search::new(16.0, 1_000.0, 0.1)
                .lasting(seconds(60), seconds(5))
                .is_err()
        );
        let mut limited = Search::new(1.0, 1_000.0, 0.1);
        limited.took(1.0, true, true);
        limited.took(2.0, false, false);
        assert_eq!((limited.next(), limited.holds), (None, Some(1.0)));
    }
}
