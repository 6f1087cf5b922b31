//! The trailer of a sealed segment, at the very end of its file.
//!
//! ```text
//!  version 2
//!  0       8         12       16          20          24            32           40          48        52     56     60     64
//!  | magic | version | crc32c | footer at | groups at | first batch | last batch | newest_ms | entries | logs | runs | zero |
//!  version 1 ends with newest_ms
//! ```
//!
//! In a regrouped segment `footer at` is where records ended as they were written; the directory is at `groups at`, and the
//! footer follows it.
//!
//! `crc32c` covers everything after itself; from version 2 on the store's id comes before that, which no author knows:
//! no frame at the end of a segment that is not sealed can pass for a trailer. Numbers are little-endian. Persisted:
//! keep stable.

use super::super::folder::StoreId;
use super::{SegmentHeader, take, take_u32, take_u64};
use bytes::{BufMut as _, BytesMut};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

const MAGIC: &[u8; 8] = b"skytaleE";
const BYTES_V1: u32 = 48;
const BYTES: u32 = 64;
/// Bytes before those that the checksum covers.
const CHECKED_FROM: usize = 16;

/// Contents of a sealed segment's last bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    /// The version of the segment's format.
    pub(crate) version: u32,
    /// Position of the footer's record as the segment was written; records end there.
    pub(crate) footer_at: u32,
    /// Position of the directory of a regrouped segment ([`super::groups`]); else 0.
    pub(crate) groups_at: u32,
    /// The first batch's number; 0 where there is none.
    pub(crate) first_batch: u64,
    /// The last batch's number.
    pub(crate) last_batch: u64,
    /// The newest entry's time, unix milliseconds.
    pub(crate) newest_ms: u64,
    /// `None` in version 1.
    pub(crate) mix: Option<Mix>,
}

/// How the entries of logs are mixed in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mix {
    /// Entries, with those that were damaged when the segment was sealed.
    pub(crate) entries: u32,
    /// Logs with entries.
    pub(crate) logs: u32,
    /// Stretches of entries of one log, as they were written.
    pub(crate) runs: u32,
}

impl Trailer {
    /// Bytes that it takes.
    pub(crate) const fn encoded_len(&self) -> u32 {
        length_of(self.version)
    }

    pub(super) fn encode_into(&self, store: &StoreId, out: &mut BytesMut) {
        let start = out.len();
        out.put_slice(MAGIC);
        out.put_u32_le(self.version);
        out.put_u32_le(0);
        out.put_u32_le(self.footer_at);
        out.put_u32_le(self.groups_at);
        for number in [self.first_batch, self.last_batch, self.newest_ms] {
            out.put_u64_le(number);
        }
        if let Some(mix) = &self.mix {
            for count in [mix.entries, mix.logs, mix.runs, 0] {
                out.put_u32_le(count);
            }
        }
        let checksum = checksum(&out[start + CHECKED_FROM..], self.version, store);
        out[start + 12..start + CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Reads the trailer of a file of `length` bytes with this header; `None` where there is no (whole) one.
    pub(crate) fn read(file: &File, length: u64, header: &SegmentHeader) -> io::Result<Option<Self>> {
        let bytes = length_of(header.version);
        let Some(at) = length.checked_sub(u64::from(bytes)) else {
            return Ok(None);
        };
        let mut buffer = [0; BYTES as usize];
        let buffer = &mut buffer[..bytes as usize];
        file.read_exact_at(buffer, at)?;
        let fits = |trailer: &Self| {
            u64::from(trailer.footer_at.max(trailer.groups_at)) < at && (trailer.groups_at > 0) == header.grouped
        };
        Ok(Self::decode(buffer, header).filter(fits))
    }

    fn decode(bytes: &[u8], header: &SegmentHeader) -> Option<Self> {
        let mut rest = bytes;
        if take(&mut rest, 8)? != MAGIC || take_u32(&mut rest)? != header.version {
            return None;
        }
        if take_u32(&mut rest)? != checksum(rest, header.version, &header.store) {
            return None;
        }
        Some(Self {
            version: header.version,
            footer_at: take_u32(&mut rest)?,
            groups_at: take_u32(&mut rest)?,
            first_batch: take_u64(&mut rest)?,
            last_batch: take_u64(&mut rest)?,
            newest_ms: take_u64(&mut rest)?,
            mix: match header.version {
                1 => None,
                _ => Some(Mix {
                    entries: take_u32(&mut rest)?,
                    logs: take_u32(&mut rest)?,
                    runs: take_u32(&mut rest)?,
                }),
            },
        })
    }
}

const fn length_of(version: u32) -> u32 {
    if version == 1 { BYTES_V1 } else { BYTES }
}

fn checksum(bytes: &[u8], version: u32, store: &StoreId) -> u32 {
    let keyed = if version == 1 { 0 } else { crc32c::crc32c(&store.0) };
    crc32c::crc32c_append(keyed, bytes)
}
