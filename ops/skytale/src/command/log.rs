//! `skytale log`: looks at a stopped node's data. Bodies stay opaque.

use crate::config::Loaded;
use crate::output::{Context as _, Failure, Human, Outcome, Output, Style, printable, table};
use crate::time::utc;
use clap::Subcommand;
use serde::Serialize;
use skytale_log_store::inspect::{self, DumpEntry, Exported, InspectError, Report};
use skytale_proto::{AgentId, Code, Detail, FrameId, LogId, Offset};
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check everything: checksums, density, and that the rule of the log accepts each entry again.
    Verify(Dir),
    /// List entries: headers, offsets, times, sizes.
    Dump {
        #[command(flatten)]
        dir: Dir,
        /// Only this log, as in `channel:<id>` or `agent:<id>`.
        #[arg(long, value_name = "LOG")]
        only: Option<LogId>,
    },
    /// Copy a log out, as the records that are on disk.
    Export {
        /// The log, as in `channel:<id>` or `agent:<id>`.
        #[arg(value_name = "LOG")]
        of: LogId,
        #[command(flatten)]
        dir: Dir,
        /// The file to write [default: standard output]. Never writes over a file.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

/// The data folder.
#[derive(Debug, clap::Args)]
pub(crate) struct Dir {
    /// The data folder of a relay node, or of `skytale dev` [key: relay.data_dir].
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) fn run(command: Command, loaded: &Loaded, output: &Output) -> Outcome {
    match command {
        Command::Verify(dir) => verify(&dir.find(loaded)?, output),
        Command::Dump { dir, only } => dump(&dir.find(loaded)?, only, output),
        Command::Export { of, dir, to } => export(&dir.find(loaded)?, of, to.as_deref(), output),
    }
}

impl Dir {
    /// Makes it from the folder that a command names, if it does.
    pub(crate) const fn new(dir: Option<PathBuf>) -> Self {
        Self { dir }
    }

    /// The folder of the log itself, given the folder of a relay node or of a whole local node.
    pub(crate) fn find(&self, loaded: &Loaded) -> Outcome<PathBuf> {
        let dir = match &self.dir {
            Some(dir) => dir,
            None => loaded.need("relay.data_dir", loaded.config.relay.data_dir.as_ref())?,
        };
        ["", "log", "relay/log"]
            .iter()
            .map(|place| dir.join(place))
            .find(|place| place.join("FORMAT").is_file())
            .ok_or_else(|| {
                Failure::new(Code::Environment, format!("there is no log in {}", dir.display()))
                    .help("Name the folder that the relay node has as `relay.data_dir`, or `skytale dev` as `--dir`.")
            })
    }
}

pub(crate) fn failed(dir: &Path) -> impl Fn(InspectError) -> Failure {
    move |error| {
        let failure =
            Failure::new(error.code(), format!("cannot look at the log in {}", dir.display())).because(&error);
        match &error {
            InspectError::Open(skytale_log_store::local::OpenError::Locked { .. }) => {
                failure.help("Stop the node first: the data of a running one changes under the reader.")
            }
            _ => failure,
        }
    }
}

fn verify(dir: &Path, output: &Output) -> Outcome {
    let report = inspect::verify(dir).map_err(failed(dir))?;
    let whole = report.is_whole();
    let damaged = report.problems.len();
    output.give(&Verified::new(dir, report))?;
    if whole {
        Ok(())
    } else {
        Err(Failure::new(
            Code::StoreCorrupt,
            format!("the log in {} has {damaged} problem(s)", dir.display()),
        )
        .help(
            "What is before the damage is served. Copy it out with `skytale log export`, keep the folder, and restore \
             from a copy or a replica.",
        ))
    }
}

#[derive(Serialize)]
struct Verified {
    ok: bool,
    dir: PathBuf,
    segments: u64,
    batches: u64,
    entries: u64,
    bytes: u64,
    logs: Vec<Log>,
    torn: Option<Place>,
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct Log {
    log: String,
    first: Offset,
    head: Offset,
    entries: u64,
}

#[derive(Serialize)]
struct Place {
    file: PathBuf,
    at: u32,
}

#[derive(Serialize)]
struct Problem {
    file: PathBuf,
    at: u32,
    log: Option<String>,
    offset: Option<Offset>,
    problem: String,
}

impl Verified {
    fn new(dir: &Path, report: Report) -> Self {
        Self {
            ok: report.is_whole(),
            dir: dir.to_owned(),
            segments: report.segments,
            batches: report.batches,
            entries: report.entries,
            bytes: report.bytes,
            logs: report
                .logs
                .into_iter()
                .map(|(log, found)| Log {
                    log: log.to_string(),
                    first: found.first,
                    head: found.head,
                    entries: found.entries,
                })
                .collect(),
            torn: report.torn.map(|(file, at)| Place { file, at }),
            problems: report
                .problems
                .into_iter()
                .map(|problem| Problem {
                    file: problem.path,
                    at: problem.at,
                    log: problem.log.map(|log| log.to_string()),
                    offset: problem.offset,
                    problem: problem.problem,
                })
                .collect(),
        }
    }
}

impl Human for Verified {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        writeln!(
            to,
            "{} segments, {} batches, {} entries, {} bytes, {} logs",
            self.segments,
            self.batches,
            self.entries,
            self.bytes,
            self.logs.len()
        )?;
        let rows = self.logs.iter().map(|log| {
            vec![
                log.log.clone(),
                log.first.to_string(),
                log.head.to_string(),
                log.entries.to_string(),
            ]
        });
        table(to, style, &["log", "first", "head", "entries"], rows)?;
        if let Some(torn) = &self.torn {
            let place = format!("{} at {}", torn.file.display(), torn.at);
            writeln!(
                to,
                "a crash cut off the last batch ({place}); it was never acknowledged"
            )?;
        }
        for problem in &self.problems {
            let entry = match (&problem.log, problem.offset) {
                (Some(log), Some(offset)) => format!("{log} entry {offset}: "),
                (Some(log), None) => format!("{log}: "),
                (None, _) => String::new(),
            };
            let (file, why) = (problem.file.display(), printable(&problem.problem));
            writeln!(to, "{} {file} at {}: {entry}{why}", style.bad("damaged:"), problem.at)?;
        }
        if self.ok {
            writeln!(to, "{}", style.good("ok"))
        } else {
            Ok(())
        }
    }
}

fn dump(dir: &Path, log: Option<LogId>, output: &Output) -> Outcome {
    let mut damaged = 0;
    for entry in inspect::dump(dir, log).map_err(failed(dir))? {
        match entry {
            Ok(entry) => output.give(&Entry::new(&entry))?,
            Err(error @ InspectError::Damaged { .. }) => {
                damaged += 1;
                output.note(error);
            }
            Err(error) => return Err(failed(dir)(error)),
        }
    }
    if damaged == 0 {
        Ok(())
    } else {
        Err(Failure::new(
            Code::StoreCorrupt,
            format!("{damaged} place(s) cannot be listed"),
        ))
    }
}

/// One line.
#[derive(Serialize)]
struct Entry {
    log: String,
    offset: Offset,
    /// By the relay node's clock, unix milliseconds.
    time_ms: u64,
    kind: &'static str,
    frame_id: FrameId,
    author: AgentId,
    parent: Offset,
    adds: Vec<AgentId>,
    removes: Vec<AgentId>,
    body_bytes: usize,
    record_bytes: usize,
    file: PathBuf,
    at: u32,
}

impl Entry {
    fn new(entry: &DumpEntry) -> Self {
        let (adds, removes) = match &entry.header.detail {
            Detail::Commit { adds, removes, .. } => (adds.clone(), removes.clone()),
            _ => (Vec::new(), Vec::new()),
        };
        Self {
            log: entry.header.log.to_string(),
            offset: entry.offset,
            time_ms: entry.time_ms,
            kind: entry.header.kind().name(),
            frame_id: entry.header.id,
            author: entry.header.author,
            parent: entry.header.parent,
            adds,
            removes,
            body_bytes: entry.body_bytes,
            record_bytes: entry.record_bytes,
            file: entry.path.clone(),
            at: entry.at,
        }
    }
}

impl Human for Entry {
    fn human(&self, to: &mut dyn fmt::Write, _: &Style) -> fmt::Result {
        write!(
            to,
            "{} {:>8} {} {:<17} by {} parent {} body {}",
            self.log,
            self.offset.get(),
            utc(self.time_ms / 1_000),
            self.kind,
            &self.author.to_string()[..8],
            self.parent,
            self.body_bytes
        )?;
        if !self.adds.is_empty() || !self.removes.is_empty() {
            write!(to, " +{} -{}", self.adds.len(), self.removes.len())?;
        }
        writeln!(to)
    }
}

fn export(dir: &Path, log: LogId, to: Option<&Path>, output: &Output) -> Outcome {
    let Some(path) = to else {
        if std::io::stdout().is_terminal() {
            return Err(Failure::new(Code::Usage, "records are bytes, not text for a terminal")
                .help("Give a file, `--to records.bin`, or pipe the output."));
        }
        let mut stdout = BufWriter::new(std::io::stdout().lock());
        let exported = match inspect::export(dir, log, &mut stdout) {
            // The reader has enough, as `head` does.
            Err(InspectError::Write { source }) if source.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            exported => exported.map_err(failed(dir))?,
        };
        output.note(Copied::new(log, exported, None).line());
        return Ok(());
    };
    let file = File::create_new(path).failing(Code::Environment, || format!("cannot write {}", path.display()))?;
    let mut out = BufWriter::new(&file);
    let exported = inspect::export(dir, log, &mut out).map_err(failed(dir))?;
    out.flush()
        .and_then(|()| file.sync_all())
        .failing(Code::Environment, || format!("cannot write {}", path.display()))?;
    drop(out);
    output.give(&Copied::new(log, exported, Some(path.to_owned())))
}

#[derive(Serialize)]
struct Copied {
    log: String,
    entries: u64,
    bytes: u64,
    first: Offset,
    last: Offset,
    to: Option<PathBuf>,
}

impl Copied {
    fn new(log: LogId, exported: Exported, to: Option<PathBuf>) -> Self {
        Self {
            log: log.to_string(),
            entries: exported.entries,
            bytes: exported.bytes,
            first: exported.first,
            last: exported.last,
            to,
        }
    }

    fn line(&self) -> String {
        let range = format!("entries {} to {}", self.first, self.last);
        format!("{}: {} ({range}), {} bytes", self.log, self.entries, self.bytes)
    }
}

impl Human for Copied {
    fn human(&self, to: &mut dyn fmt::Write, _: &Style) -> fmt::Result {
        writeln!(to, "{}", self.line())
    }
}
