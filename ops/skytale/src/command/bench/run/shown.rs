//! Display of a run for a person.

use super::KnobArgs;
use crate::command::bench::results::show;
use crate::output::{Failure, Human, Outcome, Output, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use skytale_load::results::{Report, Results, verdict_words};
use skytale_load::run::Progress;
use skytale_proto::Code;
use skytale_workload::plan::Plan;
use std::fmt;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Interval between lines if there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Plan of a dry run.
#[derive(Serialize)]
pub(super) struct Dry {
    operations: u64,
    appends: u64,
    appends_per_s: f64,
    duration_s: f64,
    agents: u32,
    channels: u32,
    body_bytes: u64,
    deliveries: u64,
    made_up: u64,
    /// Appends whose bodies were too large for a frame, and are shorter now.
    clamped: u64,
    closed_loop: bool,
    part: String,
}

impl Dry {
    pub(super) fn new(plan: &Plan, knobs: &KnobArgs) -> Self {
        let duration_s = plan.duration.as_secs_f64();
        let appends = plan.appends();
        Self {
            operations: plan.events.len() as u64,
            appends,
            appends_per_s: if duration_s > 0.0 {
                appends as f64 / duration_s
            } else {
                0.0
            },
            duration_s,
            agents: plan.agents,
            channels: plan.channels,
            body_bytes: plan.body_bytes(),
            deliveries: plan.deliveries(),
            made_up: plan.made_up,
            clamped: plan.clamped,
            closed_loop: knobs.in_flight().is_some(),
            part: format!("{}/{}", knobs.part.0, knobs.part.1),
        }
    }
}

impl Human for Dry {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        writeln!(
            to,
            "{} agents, {} channels; {} appends of {} bytes in all; {} deliveries to readers",
            self.agents, self.channels, self.appends, self.body_bytes, self.deliveries
        )?;
        if self.closed_loop {
            writeln!(to, "as fast as the target takes it")?;
        } else {
            writeln!(
                to,
                "{:.1} s, {:.1} appends a second on average",
                self.duration_s, self.appends_per_s
            )?;
        }
        if self.made_up > 0 {
            writeln!(
                to,
                "{} operations stand for what is not in the workload: sessions, subscriptions, what was before it",
                self.made_up
            )?;
        }
        if self.clamped > 0 {
            writeln!(
                to,
                "{} bodies were too large for a frame, and are shorter",
                self.clamped
            )?;
        }
        writeln!(to, "{} nothing was sent", style.good("dry run:"))
    }
}

/// Progress of a run: a line that is drawn over itself on a terminal, a line now and then elsewhere.
pub(super) struct Live {
    output: Output,
    bar: ProgressBar,
    on_terminal: bool,
    appends: u64,
    last: (Instant, Progress),
    written: Instant,
}

const NOTHING: Progress = Progress {
    elapsed: Duration::ZERO,
    due: 0,
    sent: 0,
    acknowledged: 0,
    delivered: 0,
    online: 0,
    refused: 0,
    given_up: 0,
    faults: 0,
    is_ending: false,
};

impl Live {
    pub(super) fn new(output: Output, plan: &Plan) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(
            Some(plan.appends()),
            if on_terminal {
                ProgressDrawTarget::stderr()
            } else {
                ProgressDrawTarget::hidden()
            },
        );
        if let Ok(style) = ProgressStyle::with_template("  {bar:24} {msg}") {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        Self {
            output,
            bar,
            on_terminal,
            appends: plan.appends(),
            last: (Instant::now(), NOTHING),
            written: Instant::now(),
        }
    }

    pub(super) fn show(&mut self, progress: &Progress) {
        let (then, before) = self.last;
        let seconds = then.elapsed().as_secs_f64();
        if seconds < 0.5 {
            return;
        }
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let mut text = format!(
            "{:>6.1} s  {:.0} appends/s, {:.0} deliveries/s, {} of {} acknowledged, {} behind, {} online",
            progress.elapsed.as_secs_f64(),
            rate(progress.acknowledged, before.acknowledged),
            rate(progress.delivered, before.delivered),
            progress.acknowledged,
            self.appends,
            progress.due.saturating_sub(progress.acknowledged + progress.given_up),
            progress.online,
        );
        if progress.refused + progress.given_up > 0 {
            text.push_str(&format!(
                ", {} refused, {} given up",
                progress.refused, progress.given_up
            ));
        }
        if progress.faults > 0 {
            text.push_str(&format!(", {} FAULTS", progress.faults));
        }
        self.last = (Instant::now(), *progress);
        if self.on_terminal {
            self.bar.set_position(progress.acknowledged);
            self.bar.set_message(text);
        } else if self.written.elapsed() >= LINE_EVERY {
            self.written = Instant::now();
            self.output.note(text);
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A run's end.
#[derive(Serialize)]
pub(super) struct Finished<'a> {
    out: PathBuf,
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip)]
    results: &'a Results,
}

impl<'a> Finished<'a> {
    pub(super) fn new(results: &'a Results, out: &Path) -> Self {
        Self {
            out: out.to_owned(),
            report: &results.report,
            results,
        }
    }

    /// A failure, where the run failed or says nothing.
    pub(super) fn outcome(&self) -> Outcome {
        let verdict = &self.report.verdict;
        if verdict.faults > 0 {
            let what = format!("the target did not keep what it promised: {} faults", verdict.faults);
            let first = verdict.first_faults.first().cloned().unwrap_or_default();
            return Err(Failure::new(Code::Mismatch, what).since(first));
        }
        if !verdict.passed && !verdict.interrupted {
            let words = verdict_words(self.report);
            let why = words
                .into_iter()
                .find(|(is_bad, text)| *is_bad && text.starts_with("Not passed"));
            return Err(Failure::new(Code::Mismatch, "the run did not pass")
                .since(why.map(|(_, text)| text).unwrap_or_default())
                .help("If the target was only slow, give the end of the run more time with --patience."));
        }
        if !verdict.valid {
            let what = "the run is not valid: its figures say nothing of the target";
            return Err(Failure::new(Code::Environment, what).since(verdict.invalid_because.join("; ")));
        }
        Ok(())
    }
}

impl Human for Finished<'_> {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        show(to, style, self.results)?;
        writeln!(to, "\nSee it: {}", self.out.join("report.html").display())
    }
}
