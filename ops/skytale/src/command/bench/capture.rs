//! `skytale bench capture`.

use super::{Written, made_by, put, write};
use crate::command::log::{Dir, failed};
use crate::config::Loaded;
use crate::output::{Context as _, Failure, Outcome, Output};
use skytale_log_store::inspect::{Dump, InspectError, dump, dump_running};
use skytale_log_store::local::OpenError;
use skytale_proto::Code;
use skytale_workload::{Entry, Header, LogCapture, Pseudonyms, Sample, Source, Window};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The workload file to write; never over another file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Read a relay node's log, of a node that is stopped or running: its data folder, or that of `skytale dev`
    /// [key: relay.data_dir].
    #[arg(long, value_name = "DIR", num_args = 0..=1, required = true)]
    from_log: Option<Option<PathBuf>>,
    /// Leave out what was before this time (RFC 3339, as in 2026-01-31T09:00:00Z).
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<u64>,
    /// Leave out what was at this time or later.
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
    let dir = Dir::new(args.from_log.clone().flatten()).find(loaded)?;
    let entries = open(&dir, output)?;
    let ids = Pseudonyms::new(args.sample).failing(Code::Environment, || "cannot draw a key for ids".into())?;
    let window = Window {
        from_ms: args.from,
        until_ms: args.until,
    };
    let mut capture = LogCapture::new(ids, window);
    let (start_ms, damaged) = (Cell::new(None), Cell::new(0));
    let header = || {
        let mut header = Header::new(Source::Log, made_by());
        header.sample = args.sample.share();
        header.start_ms = start_ms.get().filter(|_| args.keep_start);
        header
    };
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
            return Err(Failure::new(Code::NotFound, "there is nothing to capture").help(
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
