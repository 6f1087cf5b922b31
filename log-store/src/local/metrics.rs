//! Every metric of the local store, with its unit.

use crate::{Accepted, AppendError};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use std::time::Duration;

const BATCH_FRAMES: &str = "skytale_store_batch_frames";
const BATCH_BYTES: &str = "skytale_store_batch_bytes";
const SYNC_SECONDS: &str = "skytale_store_sync_seconds";
const APPENDS: &str = "skytale_store_appends_total";
const INDEX_LAG: &str = "skytale_store_index_lag_bytes";
const SEGMENT_BYTES: &str = "skytale_store_segment_bytes";
const TRIMMED_SEGMENTS: &str = "skytale_store_dropped_segments_total";
const RETENTION_CHECKS: &str = "skytale_store_retention_checks_total";
const CLOCK_LEAP: &str = "skytale_store_clock_leap_seconds";
const DAMAGED_LOGS: &str = "skytale_store_damaged_logs";
const FULL: &str = "skytale_store_full";
const REGROUPED_BYTES: &str = "skytale_store_regrouped_bytes_total";
const REGROUPED_SEGMENTS: &str = "skytale_store_regrouped_segments_total";
const REGROUP_IO: &str = "skytale_store_regroup_io_bytes_total";
const REGROUP_LEFT: &str = "skytale_store_regroup_segments_left";
const REGROUP_FAILURES: &str = "skytale_store_regroup_failures_total";
const FREE_BYTES: &str = "skytale_store_free_bytes";

/// Tells the recorder what the metrics mean. Once a process is enough.
pub(crate) fn describe() {
    describe_histogram!(BATCH_FRAMES, Unit::Count, "Frames answered by one batch");
    describe_histogram!(BATCH_BYTES, Unit::Bytes, "Bytes written by one batch");
    describe_histogram!(SYNC_SECONDS, Unit::Seconds, "Time that making one batch durable took");
    describe_counter!(APPENDS, Unit::Count, "Frames answered, by verdict");
    describe_gauge!(
        INDEX_LAG,
        Unit::Bytes,
        "Bytes of batches that the index does not have yet"
    );
    describe_gauge!(SEGMENT_BYTES, Unit::Bytes, "Bytes of sealed segments");
    describe_counter!(TRIMMED_SEGMENTS, Unit::Count, "Segments dropped by retention");
    describe_counter!(
        RETENTION_CHECKS,
        Unit::Count,
        "Times that the store looked for what it need not keep"
    );
    describe_gauge!(
        CLOCK_LEAP,
        Unit::Seconds,
        "How far the machine's clock is ahead of the time that retention goes by, below zero where it is behind; 0 while they agree"
    );
    describe_gauge!(
        DAMAGED_LOGS,
        Unit::Count,
        "Logs that are served only up to a damaged entry"
    );
    describe_gauge!(
        FULL,
        Unit::Count,
        "1 while no appends are taken for lack of room on the disk"
    );
    describe_counter!(
        REGROUPED_BYTES,
        Unit::Bytes,
        "Bytes of segments that were rewritten with each log's entries together"
    );
    describe_counter!(
        REGROUPED_SEGMENTS,
        Unit::Count,
        "Segments that were rewritten with each log's entries together"
    );
    describe_counter!(
        REGROUP_IO,
        Unit::Bytes,
        "Bytes that were read and written to rewrite segments"
    );
    describe_gauge!(
        REGROUP_LEFT,
        Unit::Count,
        "Sealed segments that are to be rewritten with each log's entries together"
    );
    describe_counter!(
        REGROUP_FAILURES,
        Unit::Count,
        "Times that a segment could not be rewritten, because its files could not be read or written"
    );
    describe_gauge!(FREE_BYTES, Unit::Bytes, "Bytes that are free where the store lies");
    full(false);
}

/// Number of frames of a batch by verdict.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Verdicts {
    pub(crate) appended: u64,
    pub(crate) duplicate: u64,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
}

impl Verdicts {
    /// Counts one more.
    pub(crate) const fn count<T>(&mut self, outcome: &Result<(Accepted, T), AppendError>) {
        match outcome {
            Ok((accepted, _)) if accepted.duplicate => self.duplicate += 1,
            Ok(_) => self.appended += 1,
            Err(AppendError::Refused(_)) => self.refused += 1,
            Err(AppendError::Store(_)) => self.failed += 1,
        }
    }

    pub(crate) fn record(&self) {
        let counts = [
            ("appended", self.appended),
            ("duplicate", self.duplicate),
            ("refused", self.refused),
            ("failed", self.failed),
        ];
        for (verdict, count) in counts {
            if count > 0 {
                counter!(APPENDS, "verdict" => verdict).increment(count);
            }
        }
    }
}

pub(crate) fn batch(frames: usize, bytes: usize, sync: Duration) {
    histogram!(BATCH_FRAMES).record(frames as f64);
    histogram!(BATCH_BYTES).record(bytes as f64);
    histogram!(SYNC_SECONDS).record(sync.as_secs_f64());
}

pub(crate) fn index_lag(bytes: usize) {
    gauge!(INDEX_LAG).set(bytes as f64);
}

pub(crate) fn segment_bytes(bytes: u64) {
    gauge!(SEGMENT_BYTES).set(bytes as f64);
}

pub(crate) fn segment_dropped() {
    counter!(TRIMMED_SEGMENTS).increment(1);
}

pub(crate) fn regrouped(bytes: u64) {
    counter!(REGROUPED_BYTES).increment(bytes);
    counter!(REGROUPED_SEGMENTS).increment(1);
}

pub(crate) fn regroup_io(bytes: u64) {
    counter!(REGROUP_IO).increment(bytes);
}

pub(crate) fn regroup_left(segments: usize) {
    gauge!(REGROUP_LEFT).set(segments as f64);
}

pub(crate) fn regroup_failed() {
    counter!(REGROUP_FAILURES).increment(1);
}

pub(crate) fn retention_checked() {
    counter!(RETENTION_CHECKS).increment(1);
}

pub(crate) fn clock_leap(ahead_ms: i128) {
    gauge!(CLOCK_LEAP).set(ahead_ms as f64 / 1_000.0);
}

pub(crate) fn damaged_logs(count: usize) {
    gauge!(DAMAGED_LOGS).set(count as f64);
}

pub(crate) fn full(full: bool) {
    gauge!(FULL).set(f64::from(u8::from(full)));
}

pub(crate) fn free_bytes(bytes: u64) {
    gauge!(FREE_BYTES).set(bytes as f64);
}
