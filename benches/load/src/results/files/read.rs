//! Reads a folder.

use super::super::{Measure, Measured, REPORT_VERSION, Report, Results, Speed, compute};
use super::{COUNTS_BYTES_MAX, COUNTS_FILE, HLOG, HLOG_BYTES_MAX, REPORT_BYTES_MAX, REPORT_FILE, counts, hlog};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The most repeats in one folder.
const RUNS_MAX: usize = 1_000;

/// Reason why results cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file or folder is not there.
    #[error("{} is missing", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A folder holds neither results nor repeats.
    #[error("{} holds no results", .path.display())]
    NoResults {
        /// The folder.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        error: io::Error,
    },
    /// A file is larger than results can be.
    #[error("{} has more than {bytes_max} bytes", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that is read.
        bytes_max: u64,
    },
    /// The report is of a version that is not known here.
    #[error("{} is of version {version}; this program reads version {REPORT_VERSION}", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A file is damaged, or was changed.
    #[error("{} is damaged: {why}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The problem.
        why: String,
    },
    /// A histogram log that the report knows nothing of.
    #[error("{} does not belong to the report", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The report says something else than the files that it is computed from.
    #[error("{} and the files beside it disagree on {what}", .path.display())]
    Disagree {
        /// The report.
        path: PathBuf,
        /// The disagreement.
        what: String,
    },
}

impl ReadError {
    /// Returns the suggested fix.
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Missing { .. } | Self::Foreign { .. } | Self::Disagree { .. } => {
                "Copy the whole folder of one run again, and change nothing in it."
            }
            Self::NoResults { .. } => {
                "Name a folder with report.json, or one whose folders run-1, run-2, ... each have one."
            }
            Self::Io { .. } => "Check the path and its permissions.",
            Self::TooLarge { .. } | Self::Damaged { .. } => {
                "Copy the folder again from where it was written; if it is the same there, repeat the run."
            }
            Self::Version { .. } => "Use the version of skytale that wrote it, or a later one.",
        }
    }
}

impl Results {
    /// Reads the folder of one run. Everything in it agrees, or this fails.
    pub fn read(dir: &Path) -> Result<Self, ReadError> {
        let path = dir.join(REPORT_FILE);
        let report = read_report(&path)?;
        let interval_ms = report.series.measured_interval_ms;
        // Range of a u32 of intervals, each a whole number of milliseconds.
        if interval_ms == 0 || interval_ms > u64::from(u32::MAX) {
            let why = "series.measured_interval_ms is out of range".to_owned();
            return Err(ReadError::Damaged { path, why });
        }
        let mut measured = Measured {
            interval: Duration::from_millis(interval_ms),
            latencies: BTreeMap::new(),
            counts: read_counts(&dir.join(COUNTS_FILE), interval_ms)?,
        };
        for name in report.series.latencies_us.keys() {
            let Some(measure) = Measure::named(name) else {
                let why = format!("unknown latency {name:?}");
                return Err(ReadError::Damaged { path, why });
            };
            let path = dir.join(format!("{name}{HLOG}"));
            let bytes = read_file(&path, HLOG_BYTES_MAX)?;
            let intervals = hlog::decode(&bytes, report.run.started_ms, measured.interval)
                .map_err(|why| ReadError::Damaged { path, why })?;
            measured.latencies.insert(measure, intervals);
        }
        no_others(dir, &report)?;
        agree(&path, &report, &measured)?;
        Ok(Self { report, measured })
    }
}

/// Reads the results in a folder, or those of repeats in its folders `run-1`, `run-2` and so on, in the order of their numbers. `each`
/// takes the results of a run before the next ones are read, so that it can keep less of them.
pub fn read_runs<T>(dir: &Path, mut each: impl FnMut(Results) -> T) -> Result<Vec<T>, ReadError> {
    if dir.join(REPORT_FILE).exists() {
        return Ok(vec![each(Results::read(dir)?)]);
    }
    let mut repeats: Vec<(u32, PathBuf)> = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed(dir))? {
        let entry = entry.map_err(failed(dir))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("run-")?.parse().ok());
        if let Some(number) = number {
            repeats.push((number, entry.path()));
        }
    }
    repeats.sort();
    repeats.truncate(RUNS_MAX);
    if repeats.is_empty() {
        return Err(ReadError::NoResults { path: dir.into() });
    }
    repeats.iter().map(|(_, dir)| Ok(each(Results::read(dir)?))).collect()
}

/// Fields that every version has.
#[derive(Deserialize)]
struct Head {
    skytale_report: u32,
}

fn read_report(path: &Path) -> Result<Report, ReadError> {
    let bytes = read_file(path, REPORT_BYTES_MAX)?;
    let damaged = |error: serde_json::Error| ReadError::Damaged {
        path: path.into(),
        why: error.to_string(),
    };
    let Head { skytale_report } = serde_json::from_slice(&bytes).map_err(damaged)?;
    if skytale_report != REPORT_VERSION {
        return Err(ReadError::Version {
            path: path.into(),
            version: skytale_report,
        });
    }
    serde_json::from_slice(&bytes).map_err(damaged)
}

fn read_counts(path: &Path, interval_ms: u64) -> Result<BTreeMap<super::super::Count, Vec<u64>>, ReadError> {
    let damaged = |why: String| ReadError::Damaged { path: path.into(), why };
    let text = String::from_utf8(read_file(path, COUNTS_BYTES_MAX)?).map_err(|error| damaged(error.to_string()))?;
    counts::decode(&text, interval_ms).map_err(|(line, why)| damaged(format!("line {line}: {why}")))
}

/// Reads a file of at most so many bytes. The size that the folder tells is not trusted.
fn read_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, ReadError> {
    let file = File::open(path).map_err(failed(path))?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed(path))?;
    if bytes.len() as u64 > bytes_max {
        return Err(ReadError::TooLarge {
            path: path.into(),
            bytes_max,
        });
    }
    Ok(bytes)
}

/// Refuses histogram logs that the report does not know.
fn no_others(dir: &Path, report: &Report) -> Result<(), ReadError> {
    for entry in fs::read_dir(dir).map_err(failed(dir))? {
        let entry = entry.map_err(failed(dir))?;
        let name = entry.file_name();
        let foreign = match name.to_str() {
            Some(name) => name
                .strip_suffix(HLOG)
                .is_some_and(|measure| !report.series.latencies_us.contains_key(measure)),
            None => false,
        };
        if foreign {
            return Err(ReadError::Foreign { path: entry.path() });
        }
    }
    Ok(())
}

/// The report says what its files say.
fn agree(path: &Path, report: &Report, measured: &Measured) -> Result<(), ReadError> {
    let mut again = Report {
        run: report.run.clone(),
        ..Report::default()
    };
    compute::compute(&mut again, measured);
    let name = |what: &str, of: Option<&String>| match of {
        Some(of) => format!("{what}.{of}"),
        None => what.to_owned(),
    };
    let what = if report.run.speed == Speed::Max && !measured.latencies.is_empty() {
        name("run.speed", None)
    } else if again.latencies_us != report.latencies_us {
        let differs = |name: &&String| again.latencies_us.get(*name) != report.latencies_us.get(*name);
        let names = again.latencies_us.keys().chain(report.latencies_us.keys());
        name("latencies_us", names.into_iter().find(differs))
    } else if again.series.latencies_us != report.series.latencies_us {
        let differs = |name: &&String| again.series.latencies_us.get(*name) != report.series.latencies_us.get(*name);
        name("series.latencies_us", report.series.latencies_us.keys().find(differs))
    } else if again.series.counts != report.series.counts {
        let differs = |name: &&String| again.series.counts.get(*name) != report.series.counts.get(*name);
        let names = again.series.counts.keys().chain(report.series.counts.keys());
        name("series.counts", names.into_iter().find(differs))
    } else if again.series.interval_ms != report.series.interval_ms {
        name("series.interval_ms", None)
    } else {
        return Ok(());
    };
    Err(ReadError::Disagree {
        path: path.into(),
        what,
    })
}

fn failed(path: &Path) -> impl Fn(io::Error) -> ReadError {
    move |error| match error.kind() {
        io::ErrorKind::NotFound => ReadError::Missing { path: path.into() },
        _ => ReadError::Io {
            path: path.into(),
            error,
        },
    }
}
