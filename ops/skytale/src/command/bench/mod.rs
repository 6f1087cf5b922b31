//! `skytale bench`: workloads, from a log or from a profile.

mod capture;
mod inspect;
mod synth;

use crate::config::Loaded;
use crate::output::{Context as _, Failure, Human, Outcome, Output, Style};
use clap::Subcommand;
use serde::Serialize;
use skytale_proto::Code;
use skytale_workload::{Event, Header, ReadError, Totals, WriteError, Writer, write_whole};
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Capture a workload from a relay node's log.
    Capture(capture::Args),
    /// Make a workload from a profile.
    Synth(synth::Args),
    /// Show what a workload holds.
    Inspect(inspect::Args),
}

pub(crate) fn run(command: Command, loaded: &Loaded, output: &Output) -> Outcome {
    match command {
        Command::Capture(args) => capture::run(&args, loaded, output),
        Command::Synth(args) => synth::run(&args, output),
        Command::Inspect(args) => inspect::run(&args, output),
    }
}

/// A workload file that was written.
#[derive(Serialize)]
struct Written {
    file: PathBuf,
    file_bytes: u64,
    #[serde(flatten)]
    totals: Totals,
    /// Events that stand for what was before the capture, or is not known.
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
        // What is there is no workload.
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

/// A duration, as in `90s`, `10m` or `1h 30m`.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; give a number and a unit, as in 90s, 10m, 2h"))
}

/// What makes the workload, for its header.
fn made_by() -> String {
    format!("skytale {}", env!("CARGO_PKG_VERSION"))
}
