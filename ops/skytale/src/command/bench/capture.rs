//! `skytale bench capture`.

use super::{Written, made_by, put, unreadable, write};
use crate::command::log::{Dir, failed};
use crate::config::Loaded;
use crate::output::{Context as _, Failure, Outcome, Output};
use skytale_log_store::inspect::{Dump, InspectError, dump, dump_running};
use skytale_log_store::local::OpenError;
use skytale_proto::Code;
use skytale_workload::{
    End, Entry, Header, LogCapture, NotOfATap, Pseudonyms, Reader, Sample, Source, TapCapture, Window,
};
use std::cell::Cell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The workload file to write; never over another file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Read a relay node's log, of a node that is stopped or running: its data folder, or that of `skytale dev`
    /// [key: relay.data_dir].
    #[arg(long, value_name = "DIR", num_args = 0..=1, required_unless_present = "from_tap", conflicts_with = "from_tap")]
    from_log: Option<Option<PathBuf>>,
    /// Read the files of a relay node's tap, which hold sessions, reads and refusals too: its folder [key: relay.tap.dir].
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    from_tap: Option<Option<PathBuf>>,
    /// Leave out events before this time (RFC 3339, as in 2026-01-31T09:00:00Z).
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<u64>,
    /// Leave out events at this time or later.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<u64>,
    /// Capture a share of all channels, as in 0.1; which ones is drawn.
    #[arg(long, value_name = "SHARE", default_value = "1", value_parser = sample)]
    sample: Sample,
    /// Keep the time of the first event. Without it a workload has no absolute time.
    #[arg(long)]
    keep_start: bool,
}

fn time(text: &str) -> Result<u64, String> {
    let time = humantime::parse_rfc3339_weak(text)
        .map_err(|error| format!("{error}; give a time in UTC, as in 2026-01-31T09:00:00Z"))?;
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| "a time before 1970")?;
    u64::try_from(since.as_millis()).map_err(|error| error.to_string())
}

fn sample(text: &str) -> Result<Sample, String> {
    let share: f64 = text.parse().map_err(|_| "not a number")?;
    Sample::new(share).map_err(|error| error.to_string())
}

pub(super) fn run(args: &Args, loaded: &Loaded, output: &Output) -> Outcome {
    match &args.from_tap {
        Some(dir) => from_tap(args, dir.as_deref(), loaded, output),
        None => from_log(args, loaded, output),
    }
}

impl Args {
    const fn window(&self) -> Window {
        Window {
            from_ms: self.from,
            until_ms: self.until,
        }
    }

    fn header(&self, source: Source, start_ms: Option<u64>) -> Header {
        let mut header = Header::new(source, made_by());
        header.sample = self.sample.share();
        header.start_ms = start_ms.filter(|_| self.keep_start);
        header
    }
}

fn nothing(help: &str) -> Failure {
    Failure::new(Code::NotFound, "there is nothing to capture").help(help)
}

fn from_tap(args: &Args, dir: Option<&Path>, loaded: &Loaded, output: &Output) -> Outcome {
    let configured = loaded.config.relay.tap.dir.clone();
    let dir = dir.map(Path::to_owned).or(configured).ok_or_else(|| {
        Failure::new(Code::Usage, "no folder of a tap is known").help("Name it, or set `relay.tap.dir`.")
    })?;
    let files = tap_files(&dir)?;
    let mut capture = TapCapture::new(args.window(), args.sample);
    if capture.learns() {
        for file in &files {
            let (header, mut reader) = open_tap(file)?;
            while let Some(event) = reader.next_event().map_err(unreadable(file))? {
                capture.learn(&header, &event).map_err(not_of_a_tap(file))?;
            }
        }
    }
    let start_ms = Cell::new(None);
    let cut = Cell::new(0);
    let made_up = Cell::new(0);
    let header = || args.header(Source::Tap, start_ms.get());
    let (totals, file_bytes) = write(&args.file, header, |writer| {
        let mut events = Vec::new();
        for (number, file) in files.iter().enumerate() {
            let (header, mut reader) = open_tap(file)?;
            capture.file(&header, &mut events).map_err(not_of_a_tap(file))?;
            while let Some(event) = reader.next_event().map_err(unreadable(file))? {
                capture.event(event, &mut events);
                for event in events.drain(..) {
                    put(writer, &event)?;
                }
            }
            // The last file of a node that runs has no end yet.
            if reader.end() == Some(&End::Cut) && number + 1 < files.len() {
                cut.set(cut.get() + 1);
                output.note(format_args!("{} ends early: its node was killed", file.display()));
            }
        }
        start_ms.set(capture.start_ms());
        made_up.set(capture.made_up());
        if writer.totals().events == 0 {
            return Err(nothing("Give a later --until, an earlier --from or a larger --sample."));
        }
        Ok(())
    })?;
    output.give(&Written {
        file: args.file.clone(),
        file_bytes,
        totals,
        made_up: made_up.get(),
        damaged: cut.get(),
    })
}

/// The files of a tap, in the order of their names, which is that of time.
fn tap_files(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let unlisted = || format!("cannot list {}", dir.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).failing(Code::Environment, unlisted)? {
        let path = entry.failing(Code::Environment, unlisted)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("tap-") && name.ends_with(".skw") {
            files.push(path);
        }
    }
    files.sort_unstable();
    if files.is_empty() {
        return Err(
            Failure::new(Code::NotFound, format!("no files of a tap in {}", dir.display()))
                .help("A relay node with `relay.tap.dir` writes them; see docs/workloads.md."),
        );
    }
    Ok(files)
}

fn open_tap(file: &Path) -> Outcome<(Header, Reader<File>)> {
    let failed = unreadable(file);
    let reader = Reader::new(File::open(file).map_err(|error| failed(error.into()))?).map_err(failed)?;
    Ok((reader.header().clone(), reader))
}

fn not_of_a_tap(file: &Path) -> impl Fn(NotOfATap) -> Failure {
    move |error| Failure::new(Code::BadRequest, format!("cannot capture {}", file.display())).because(&error)
}

fn from_log(args: &Args, loaded: &Loaded, output: &Output) -> Outcome {
    let dir = Dir::new(args.from_log.clone().flatten()).find(loaded)?;
    let entries = open(&dir, output)?;
    let ids = Pseudonyms::new(args.sample).failing(Code::Environment, || "cannot draw a key for ids".into())?;
    let mut capture = LogCapture::new(ids, args.window());
    let (start_ms, damaged) = (Cell::new(None), Cell::new(0));
    let header = || args.header(Source::Log, start_ms.get());
    let (totals, file_bytes) = write(&args.file, header, |writer| {
        let mut events = Vec::new();
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error @ InspectError::Damaged { .. }) => {
                    damaged.set(damaged.get() + 1);
                    output.note(error);
                    continue;
                }
                Err(error) => return Err(failed(&dir)(error)),
            };
            let entry = Entry {
                offset: entry.offset,
                time_ms: entry.time_ms,
                header: &entry.header,
                body_bytes: entry.body_bytes,
            };
            capture.entry(&entry, &mut events);
            for event in events.drain(..) {
                put(writer, &event)?;
            }
        }
        start_ms.set(capture.start_ms());
        if writer.totals().events == 0 {
            return Err(nothing(
                "Give a later --until, an earlier --from or a larger --sample; `skytale log dump` lists entries.",
            ));
        }
        Ok(())
    })?;
    output.give(&Written {
        file: args.file.clone(),
        file_bytes,
        totals,
        made_up: capture.made_up(),
        damaged: damaged.get(),
    })
}

/// The entries of a stopped node's log; of a running one's, up to now.
fn open(dir: &Path, output: &Output) -> Outcome<Dump> {
    match dump(dir, None) {
        Err(InspectError::Open(OpenError::Locked { .. })) => {
            output.note("the relay node is running: capturing what it has written by now");
            dump_running(dir, None)
        }
        opened => opened,
    }
    .map_err(failed(dir))
}
