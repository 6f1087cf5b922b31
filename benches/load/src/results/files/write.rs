//! Writes a folder.

use super::super::measured::INTERVALS_MAX;
use super::super::{Results, page};
use super::{
    COUNTS_BYTES_MAX, COUNTS_FILE, HLOG, HLOG_BYTES_MAX, PAGE_FILE, REPORT_BYTES_MAX, REPORT_FILE, counts, hlog,
};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Reason why results cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The folder is there, and results never replace others.
    #[error("{} exists", .path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A file or the folder cannot be written.
    #[error("cannot write {}: {error}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        #[source]
        error: io::Error,
    },
    /// Results that could not be read back are not written.
    #[error("cannot write {}: {why}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
}

impl WriteError {
    /// Returns the suggested fix.
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Exists { .. } => "Name a folder that does not exist yet.",
            Self::Io { .. } => "Check that the parent folder exists and has space.",
            Self::Unreadable { .. } => "Make the results with `Results::new`; report this if you ran a command.",
        }
    }
}

impl Results {
    /// Writes a new folder. On failure nothing of it is left.
    pub fn write(&self, dir: &Path) -> Result<(), WriteError> {
        fs::create_dir(dir).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => WriteError::Exists { path: dir.into() },
            _ => failed(dir)(error),
        })?;
        let written = self.fill(dir);
        if written.is_err() {
            // The folder is ours: it did not exist.
            let _ = fs::remove_dir_all(dir);
        }
        written
    }

    /// The report comes last: a folder without it is not whole.
    fn fill(&self, dir: &Path) -> Result<(), WriteError> {
        let measured = &self.measured;
        let unreadable = |name: &str, why: &str| WriteError::Unreadable {
            path: dir.join(name),
            why: why.to_owned(),
        };
        if measured.intervals() > INTERVALS_MAX {
            return Err(unreadable(COUNTS_FILE, "there are too many intervals"));
        }
        if measured.interval.is_zero() || !measured.interval.subsec_nanos().is_multiple_of(1_000_000) {
            return Err(unreadable(COUNTS_FILE, "the interval is not a number of milliseconds"));
        }
        for (measure, intervals) in &measured.latencies {
            let name = format!("{}{HLOG}", measure.name());
            if !intervals.iter().all(hlog::is_ours) {
                return Err(unreadable(
                    &name,
                    "a histogram has other bounds than `histogram()` gives",
                ));
            }
            let bytes = hlog::encode(*measure, self.report.run.started_ms, measured.interval, intervals)
                .map_err(|why| unreadable(&name, &why))?;
            put(dir, &name, &bytes, HLOG_BYTES_MAX)?;
        }
        put(dir, COUNTS_FILE, counts::encode(measured).as_bytes(), COUNTS_BYTES_MAX)?;
        put(dir, PAGE_FILE, page::page(self).to_string().as_bytes(), u64::MAX)?;
        let mut report =
            serde_json::to_vec_pretty(&self.report).map_err(|error| unreadable(REPORT_FILE, &error.to_string()))?;
        report.push(b'\n');
        put(dir, REPORT_FILE, &report, REPORT_BYTES_MAX)?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed(dir))
    }
}

fn put(dir: &Path, name: &str, bytes: &[u8], bytes_max: u64) -> Result<(), WriteError> {
    let path = dir.join(name);
    if bytes.len() as u64 > bytes_max {
        let why = format!("it would have {} bytes, {bytes_max} at most can be read", bytes.len());
        return Err(WriteError::Unreadable { path, why });
    }
    File::create_new(&path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .map_err(failed(&path))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> WriteError {
    move |error| WriteError::Io {
        path: path.into(),
        error,
    }
}
