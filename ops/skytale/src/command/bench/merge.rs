//! `skytale bench merge`.

use super::results::{show, unread, unwritten};
use crate::output::{Failure, Human, Outcome, Output, Style};
use serde::Serialize;
use skytale_load::results::{MergeError, Report, Results, merge};
use skytale_proto::Code;
use std::fmt;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder to write; never over another one.
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// The folders with the results of all parts of the run.
    #[arg(value_name = "DIR", required = true)]
    parts: Vec<PathBuf>,
}

pub(super) fn run(args: &Args, output: &Output) -> Outcome {
    let parts: Result<Vec<Results>, _> = args.parts.iter().map(|dir| Results::read(dir)).collect();
    let joined = merge(parts.map_err(unread)?).map_err(apart)?;
    joined.write(&args.out).map_err(unwritten)?;
    output.give(&Merged {
        folder: &args.out,
        report: &joined.report,
        joined: &joined,
    })
}

fn apart(error: MergeError) -> Failure {
    Failure::new(Code::BadRequest, "cannot join the results")
        .because(&error)
        .help(error.help())
}

/// Results that were joined.
#[derive(Serialize)]
struct Merged<'a> {
    folder: &'a Path,
    report: &'a Report,
    #[serde(skip)]
    joined: &'a Results,
}

impl Human for Merged<'_> {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        writeln!(
            to,
            "{} {}: {} parts joined",
            style.good("wrote"),
            self.folder.display(),
            self.report.run.joined
        )?;
        show(to, style, self.joined)?;
        writeln!(to, "\nSee it: {}", self.folder.join("report.html").display())
    }
}
