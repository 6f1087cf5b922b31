//! `skytale bench compare`.

use super::results::unread;
use super::write_page;
use crate::output::{Failure, Human, Outcome, Output, Style, printable, table};
use skytale_load::results::{Allow, CompareError, Comparison, Condition, Results, compare, comparison_page, read_runs};
use skytale_proto::Code;
use std::fmt;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The first side: a folder with the results of a run, or with repeats of it in run-1, run-2, ...
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The second side.
    #[arg(value_name = "B")]
    b: PathBuf,
    /// Fail if a metric of B is beyond a factor of A's, as in 'append.p99>1.1x' or 'acknowledged_per_s<0.9x'. With repeats on
    /// both sides, its whole interval must be. May be given several times.
    #[arg(long, value_name = "CONDITION")]
    fail_if: Vec<Condition>,
    /// Compare runs of different workloads or settings.
    #[arg(long)]
    unlike: bool,
    /// Compare runs whose verdict is that they are not valid.
    #[arg(long)]
    invalid: bool,
    /// Write a page of HTML too; never over another file.
    #[arg(long, value_name = "PAGE")]
    html: Option<PathBuf>,
}

pub(super) fn run(args: &Args, output: &Output) -> Outcome {
    let (a, b) = (side(&args.a)?, side(&args.b)?);
    let allow = Allow {
        unlike: args.unlike,
        invalid: args.invalid,
    };
    let comparison = compare(&a, &b, &args.fail_if, allow).map_err(refused)?;
    if let Some(to) = &args.html {
        write_page(to, &comparison_page(&comparison, &a, &b))?;
    }
    output.give(&comparison)?;
    if comparison.failed {
        Err(failed(&comparison))
    } else {
        Ok(())
    }
}

/// Reads a side. Of each run one histogram for each latency is kept: a comparison needs no more.
fn side(dir: &Path) -> Outcome<Vec<Results>> {
    let condensed = |mut results: Results| {
        results.measured.condense();
        results
    };
    read_runs(dir, condensed).map_err(unread)
}

fn refused(error: CompareError) -> Failure {
    Failure::new(Code::BadRequest, "cannot compare the results")
        .because(&error)
        .help(error.help())
}

fn failed(comparison: &Comparison) -> Failure {
    let failing = comparison
        .conditions
        .iter()
        .filter(|judged| judged.judgement.is_failure());
    let mut failure = Failure::new(Code::Mismatch, "the comparison failed");
    for judged in failing {
        failure = failure.since(format!("{}: {}", judged.condition, judged.judgement.text()));
    }
    failure.help("Find out what changed between both sides; more repeats make the intervals narrower.")
}

impl Human for Comparison {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        writeln!(to, "a: {}", printable(&self.a.to_string()))?;
        writeln!(to, "b: {}", printable(&self.b.to_string()))?;
        for note in &self.notes {
            writeln!(to, "{} {}", style.bad("note:"), printable(note))?;
        }
        for difference in &self.unlike {
            writeln!(to, "{} {}", style.bad("not alike:"), printable(&difference.to_string()))?;
        }
        writeln!(to)?;
        table(to, style, &Self::HEADS, self.metrics.iter().map(|metric| metric.row()))?;
        if !self.different.is_empty() {
            writeln!(to)?;
            let rows = self
                .different
                .iter()
                .map(|one| vec![one.field.clone(), one.a.clone(), one.b.clone()]);
            table(to, style, &["what differs", "a", "b"], rows)?;
        }
        if !self.conditions.is_empty() {
            writeln!(to)?;
            table(to, style, &["fail if", "outcome"], self.condition_rows())?;
        }
        Ok(())
    }
}
