//! A batch: entries that are written, synced and shown at once.

use super::index::Seen;
use super::known::Known;
use super::segment::Position;
use bytes::Bytes;
use skytale_proto::{FrameId, LogId, Offset};
use std::sync::Arc;

/// A batch that is durable.
pub(crate) struct Batch {
    pub(crate) number: u64,
    pub(crate) time_ms: u64,
    pub(crate) segment: u32,
    /// Position of its mark.
    pub(crate) mark_at: u32,
    /// Position of its first record.
    pub(crate) start: u32,
    /// Its records, as they are in the segment.
    pub(crate) records: Bytes,
    pub(crate) logs: Vec<BatchLog>,
    pub(crate) entries: Vec<BatchEntry>,
    /// Logs (by place in `logs`) whose state it holds as a record, with the place of that record.
    pub(crate) states: Vec<(u32, u32)>,
    /// States for the index to keep.
    pub(crate) saved: Vec<(LogId, Bytes)>,
}

/// A log in a batch.
pub(crate) struct BatchLog {
    pub(crate) log: LogId,
    /// The first entry's offset here, or where it would be.
    pub(crate) first: Offset,
    pub(crate) head: Offset,
    pub(crate) first_available: Offset,
    /// State of the log after the batch, if more than the head changed.
    pub(crate) changed: Option<Arc<Known>>,
}

/// An entry in a batch.
#[derive(Clone, Copy)]
pub(crate) struct BatchEntry {
    /// Index of its log among the batch's.
    pub(crate) log: u32,
    /// Position of its record, from the beginning of the batch's records.
    pub(crate) at: u32,
    /// The record's length, in bytes.
    pub(crate) length: u32,
    pub(crate) offset: Offset,
    pub(crate) id: FrameId,
    /// The time stored with it, unix milliseconds.
    pub(crate) time_ms: u64,
}

impl BatchEntry {
    /// Its frame id, as the log has seen it.
    pub(crate) const fn seen(&self) -> Seen {
        Seen {
            id: self.id,
            offset: self.offset,
            time_ms: self.time_ms,
        }
    }
}

impl Batch {
    /// Returns the start of the next batch, if it is in the same segment.
    pub(crate) fn end(&self) -> Position {
        Position {
            segment: self.segment,
            at: self.start + u32::try_from(self.records.len()).unwrap_or(u32::MAX),
        }
    }

    /// The log of an entry.
    pub(crate) fn log_of(&self, entry: &BatchEntry) -> LogId {
        self.logs[entry.log as usize].log
    }

    /// Memory that it takes, about.
    pub(crate) fn weight_bytes(&self) -> usize {
        self.records.len() + self.entries.len() * size_of::<BatchEntry>() + self.logs.len() * size_of::<BatchLog>()
    }
}
