//! The beginning of a segment file.
//!
//! ```text
//!  0       8         12       16         20      24         40           48
//!  | magic | version | crc32c | sequence | flags | store id | created_ms |
//! ```
//!
//! Numbers are little-endian; `crc32c` covers everything after itself. Persisted: keep stable.
//!
//! | version | what it added |
//! |---|---|
//! | 1 | |
//! | 2 | a replica's positions in the footer, a trailer that tells how logs are mixed, flag 1: regrouped (groups.rs) |

use super::super::error::OpenError;
use super::super::folder::StoreId;
use super::{take, take_u32, take_u64};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Bytes of the header; the first record is kept after them.
pub(crate) const HEADER_BYTES: u32 = 48;
/// The version of the segment format that this crate writes.
pub(crate) const SEGMENT_VERSION: u32 = 2;
/// The oldest version that it reads.
const SEGMENT_VERSION_MIN: u32 = 1;
const MAGIC: &[u8; 8] = b"skytaleS";
/// The flag of a segment whose records lie by log.
const GROUPED: u32 = 1;

/// Header of a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The version of the format of the whole file.
    pub(crate) version: u32,
    pub(crate) sequence: u32,
    pub(crate) store: StoreId,
    pub(crate) created_ms: u64,
    /// Its records lie by log ([`super::groups`]).
    pub(crate) grouped: bool,
}

/// The file of a segment.
pub(crate) fn file_name(sequence: u32) -> String {
    format!("{sequence:010}.seg")
}

/// The segment of a file name.
pub(super) fn sequence_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    let sequence = digits.parse().ok()?;
    (file_name(sequence) == name).then_some(sequence)
}

impl SegmentHeader {
    /// A new segment's header.
    pub(crate) const fn new(sequence: u32, store: StoreId, created_ms: u64) -> Self {
        Self {
            version: SEGMENT_VERSION,
            sequence,
            store,
            created_ms,
            grouped: false,
        }
    }

    /// The header of the same segment, regrouped.
    pub(crate) const fn regrouped(&self) -> Self {
        Self {
            version: SEGMENT_VERSION,
            grouped: true,
            ..*self
        }
    }

    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut out = [0; HEADER_BYTES as usize];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&self.version.to_le_bytes());
        out[16..20].copy_from_slice(&self.sequence.to_le_bytes());
        out[20..24].copy_from_slice(&u32::from(self.grouped).to_le_bytes());
        out[24..40].copy_from_slice(&self.store.0);
        out[40..48].copy_from_slice(&self.created_ms.to_le_bytes());
        let checksum = crc32c::crc32c(&out[16..]);
        out[12..16].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads and checks the header of a segment that should belong to `store`. `None` is a file whose creation a crash
    /// cut off: shorter than a header, or with no byte of one.
    pub(crate) fn read(file: &File, path: &Path, sequence: u32, store: &StoreId) -> Result<Option<Self>, OpenError> {
        let foreign = |problem: &str| OpenError::Foreign {
            path: path.to_owned(),
            problem: problem.into(),
        };
        let mut bytes = [0; HEADER_BYTES as usize];
        let length = file.metadata().map_err(OpenError::io("read", path))?.len();
        if length < u64::from(HEADER_BYTES) {
            return Ok(None);
        }
        file.read_exact_at(&mut bytes, 0).map_err(OpenError::io("read", path))?;
        if bytes == [0; HEADER_BYTES as usize] {
            return Ok(None);
        }
        let mut rest = bytes.as_slice();
        if take(&mut rest, 8) != Some(MAGIC) {
            return Err(foreign("not a segment of a log store"));
        }
        let version = take_u32(&mut rest).unwrap_or_default();
        if !(SEGMENT_VERSION_MIN..=SEGMENT_VERSION).contains(&version) {
            return Err(OpenError::Version {
                path: path.to_owned(),
                found: version.to_string(),
                supported: SEGMENT_VERSION,
            });
        }
        let stored = take_u32(&mut rest).unwrap_or_default();
        if stored != crc32c::crc32c(rest) {
            return Err(foreign("the segment's header is damaged"));
        }
        let found = take_u32(&mut rest).unwrap_or_default();
        let (flags, id) = (take_u32(&mut rest).unwrap_or_default(), take(&mut rest, 16));
        if found != sequence {
            return Err(foreign(&format!("holds segment {found}: the file was renamed")));
        }
        if id != Some(&store.0) {
            return Err(foreign("belongs to another store"));
        }
        if flags > GROUPED {
            return Err(foreign(&format!(
                "has flags {flags:#x}, which this program does not know"
            )));
        }
        let created_ms = take_u64(&mut rest).unwrap_or_default();
        Ok(Some(Self {
            version,
            sequence,
            store: *store,
            created_ms,
            grouped: flags == GROUPED,
        }))
    }
}
