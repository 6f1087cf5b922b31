//! Results as a folder.

mod counts;
mod hlog;
mod read;
mod write;

pub use read::{ReadError, read_runs};
pub use write::WriteError;

/// The report.
pub const REPORT_FILE: &str = "report.json";
/// The page for people.
const PAGE_FILE: &str = "report.html";
/// Counts an interval.
const COUNTS_FILE: &str = "counts.csv";
/// The end of the name of a histogram log.
const HLOG: &str = ".hlog";
/// Files larger than these sizes cannot be read.
const REPORT_BYTES_MAX: u64 = 64 << 20;
const COUNTS_BYTES_MAX: u64 = 4 << 20;
const HLOG_BYTES_MAX: u64 = 256 << 20;

#[cfg(test)]
mod tests;
