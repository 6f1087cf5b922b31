//! Segment files: one append-only sequence of records, every log interleaved.
//!
//! ```text
//!  header | mark  entry entry entry | mark  entry entry | ... | footer | trailer
//!           \____ one batch ______/                             \_ sealed only _/
//! ```
//!
//! Entries are [`skytale_proto::record`]s, stored as they go on the wire. Records of the store itself have kinds of
//! their own. A batch was synced before the next one was written: so damage before a later mark is damage, and bad
//! bytes after the last mark are a batch that a crash cut off. A sealed segment may be rewritten with the entries of each
//! log together (`groups.rs`); positions stay those at which records were written. Persisted: keep stable.

mod file;
mod footer;
mod groups;
mod header;
mod mark;
mod open;
mod rewrite;
mod scan;
mod set;
mod source;
#[cfg(test)]
mod tests;
mod trailer;

pub(crate) use file::SegmentFile;
pub(crate) use footer::{Footer, FooterBuilder};
pub(crate) use header::{HEADER_BYTES, SegmentHeader, file_name};
pub(crate) use mark::{Mark, MarkRecord};
pub(crate) use open::{OpenSegment, WriteError};
pub(crate) use rewrite::{Rewrite, Unfit};
pub(crate) use scan::{End, Extent, Scan, Step};
pub(crate) use set::{NotReplaced, SegmentInfo, Segments, Unsealed};
use trailer::Trailer;

use skytale_proto::LogId;

/// The kind of a record that begins a batch ([`Mark`]).
pub(crate) const KIND_MARK: u8 = 2;
/// The kind of a record that holds the state of a log ([`super::snapshot`]).
pub(crate) const KIND_STATE: u8 = 3;
/// The kind of a record that ends a sealed segment ([`Footer`]).
pub(crate) const KIND_FOOTER: u8 = 4;
/// The kind of a record that says where the records of a regrouped segment are ([`groups`]).
pub(crate) const KIND_GROUPS: u8 = 5;
/// The longest payload of a record of the store's own kinds, in bytes.
pub(crate) const OWN_PAYLOAD_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Position of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position {
    /// The segment's number in the sequence, from 1.
    pub(crate) segment: u32,
    /// Bytes from the beginning of the file.
    pub(crate) at: u32,
}

/// Takes `length` bytes from the beginning of `bytes`.
pub(crate) fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

pub(crate) fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*taken))
}

pub(crate) fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*taken))
}

/// Takes a log id, whose first byte says how long it is.
pub(crate) fn take_log(bytes: &mut &[u8]) -> Option<LogId> {
    let length = match bytes.first()? {
        1 => 17,
        2 => 33,
        _ => return None,
    };
    LogId::try_from(take(bytes, length)?).ok()
}
