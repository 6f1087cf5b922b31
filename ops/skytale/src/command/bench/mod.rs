//! `skytale bench`: workloads, from a log or from a profile, as load, and the results of it.

mod capture;
mod compare;
mod inspect;
mod merge;
mod results;
mod run;
mod search;
mod synth;

use super::Session;
use super::examples;
use crate::config::Loaded;
use crate::output::{Context as _, Failure, Human, Outcome, Output, Style};
use clap::Subcommand;
use serde::Serialize;
use skytale_load::results::WorkloadSource;
use skytale_proto::Code;
use skytale_workload::plan::EVENTS_MAX;
use skytale_workload::report::Page;
use skytale_workload::{End, Event, Header, ReadError, Reader, Totals, WriteError, Writer, write_whole};
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Capture a workload from a relay node's log, or from its tap.
    #[command(after_help = examples::BENCH_CAPTURE)]
    Capture(capture::Args),
    /// Make a workload from a profile.
    #[command(after_help = examples::BENCH_SYNTH)]
    Synth(synth::Args),
    /// Show what a workload holds.
    #[command(after_help = examples::BENCH_INSPECT)]
    Inspect(inspect::Args),
    /// Replay a workload as load.
    #[command(after_help = examples::BENCH_RUN)]
    Run(Box<run::Args>),
    /// Find the largest speed at which objectives hold.
    #[command(after_help = examples::BENCH_SEARCH)]
    Search(Box<search::Args>),
    /// Join the results of the parts of one load run.
    Merge(merge::Args),
    /// Compare the results of two load runs, or of repeats of them.
    #[command(after_help = examples::BENCH_COMPARE)]
    Compare(compare::Args),
}

pub(crate) fn run(command: Command, loaded: &Loaded, output: &Output) -> Outcome {
    match command {
        Command::Capture(args) => capture::run(&args, loaded, output),
        Command::Synth(args) => synth::run(&args, output),
        Command::Inspect(args) => inspect::run(&args, output),
        Command::Merge(args) => merge::run(&args, output),
        Command::Compare(args) => compare::run(&args, output),
        // See `load`.
        Command::Run(_) | Command::Search(_) => Ok(()),
    }
}

impl Command {
    /// Whether it is one for [`load`]: it needs a runtime, and ends in order when it is interrupted.
    pub(crate) const fn is_load(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Search(_))
    }
}

/// The commands that put load on something.
pub(crate) async fn load(command: Command, session: Session) -> Outcome {
    match command {
        Command::Run(args) => run::run(*args, session).await,
        Command::Search(args) => search::run(*args, session).await,
        command => run(command, &session.loaded, &session.output),
    }
}

/// A workload file that was written.
#[derive(Serialize)]
struct Written {
    file: PathBuf,
    file_bytes: u64,
    #[serde(flatten)]
    totals: Totals,
    /// Events that represent a state before the capture, or an unknown one.
    made_up: u64,
    /// Places of the log that could not be read.
    damaged: u64,
}

impl Human for Written {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let Totals {
            events,
            duration_us,
            agents,
            channels,
            ..
        } = &self.totals;
        writeln!(
            to,
            "{} {}: {events} events of {agents} agents in {channels} channels, {:.1} s, {} bytes",
            style.good("wrote"),
            self.file.display(),
            *duration_us as f64 / 1e6,
            self.file_bytes
        )?;
        if self.made_up > 0 {
            writeln!(
                to,
                "{} of the events stand for what was before the capture",
                self.made_up
            )?;
        }
        writeln!(to, "See it: skytale bench inspect {}", self.file.display())
    }
}

/// Writes a workload file, and never over another one. `events` gives the events to a writer.
fn write(
    path: &Path,
    header: impl FnOnce() -> Header,
    events: impl FnOnce(&mut Writer<&mut dyn Write>) -> Outcome,
) -> Outcome<(Totals, u64)> {
    let unwritable = || format!("cannot write {}", path.display());
    let file = File::create_new(path).failing(Code::Environment, unwritable)?;
    let scratch = tempfile::tempfile().failing(Code::Environment, || "cannot make a temporary file".into())?;
    let written = write_whole::<Failed>(BufWriter::new(&file), scratch, header, |writer| {
        events(writer).map_err(Failed)
    })
    .map_err(|Failed(failure)| failure)
    .and_then(|totals| {
        file.sync_all().failing(Code::Environment, unwritable)?;
        let bytes = file.metadata().failing(Code::Environment, unwritable)?.len();
        Ok((totals, bytes))
    });
    if written.is_err() {
        // The file there is no workload.
        let _ = std::fs::remove_file(path);
    }
    written
}

/// A failure, also where writing fails.
struct Failed(Failure);

impl From<WriteError> for Failed {
    fn from(error: WriteError) -> Self {
        Self(unwritten(&error))
    }
}

fn unwritten(error: &WriteError) -> Failure {
    Failure::new(Code::Environment, "cannot write the workload").because(error)
}

fn put(writer: &mut Writer<&mut dyn Write>, event: &Event) -> Outcome {
    writer.write(event).map_err(|error| unwritten(&error))
}

fn unreadable(path: &Path) -> impl Fn(ReadError) -> Failure {
    move |error| {
        let failure = Failure::new(Code::BadRequest, format!("cannot read {}", path.display())).because(&error);
        match error {
            ReadError::Version { .. } => failure.help("Use the version of skytale that wrote it, or a later one."),
            ReadError::NoHeader { .. } => {
                failure.help("Name a workload: `skytale bench capture` and `skytale bench synth` write them.")
            }
            _ => failure,
        }
    }
}

/// A workload's events, and its description.
fn read_events(path: &Path) -> Outcome<(Vec<Event>, WorkloadSource)> {
    let failed = unreadable(path);
    let file = File::open(path).map_err(|error| failed(error.into()))?;
    let mut reader = Reader::new(file).map_err(&failed)?;
    let mut events = Vec::new();
    while let Some(event) = reader.next_event().map_err(&failed)? {
        events.push(event);
        if events.len() > EVENTS_MAX {
            return Err(Failure::new(
                Code::BadRequest,
                format!("{} has over {EVENTS_MAX} events", path.display()),
            )
            .help("Capture a shorter time, or a sample of the channels."));
        }
    }
    if reader.end() == Some(&End::Cut) {
        return Err(Failure::new(Code::BadRequest, format!("{} was cut", path.display()))
            .help("What it holds up to the cut can be looked at with `skytale bench inspect`; capture it again to run it."));
    }
    let duration = events.last().map_or(std::time::Duration::ZERO, |event| event.at);
    let source = run::source(path, reader.header(), events.len() as u64, duration)?;
    Ok((events, source))
}

/// Writes a page of HTML, and never over another file.
fn write_page(to: &Path, page: &Page) -> Outcome {
    let writing = || format!("cannot write {}", to.display());
    let mut file = File::create_new(to).failing(Code::Environment, writing)?;
    write!(file, "{page}").failing(Code::Environment, writing)
}

/// A duration, as in `90s`, `10m` or `1h 30m`.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; give a number and a unit, as in 90s, 10m, 2h"))
}

/// Returns the program that makes the workload, for its header.
fn made_by() -> String {
    format!("skytale {}", env!("CARGO_PKG_VERSION"))
}
