//! Bytes of a segment's records, by where they were written: in a file as it was written, and in a regrouped one.

use super::super::folder::StoreId;
use super::file::Layout;
use super::{HEADER_BYTES, SegmentFile};
use bytes::Bytes;
use rustix::fs::SeekFrom;
use skytale_proto::record;
use skytale_proto::{LogId, Offset};
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// Bytes read at a time from a file as it was written, and from the spine of a regrouped one.
const WINDOW_BYTES: usize = 1024 * 1024;
/// Bytes that the windows of all logs of a regrouped segment take.
const GROUP_WINDOWS_BYTES: usize = 16 * 1024 * 1024;
/// Bytes read at a time from one log's group, at most.
const GROUP_WINDOW_BYTES_MAX: usize = 256 * 1024;

/// A record that a scan wants.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    /// The mark of a batch, or whatever else begins there.
    Mark,
    /// The entry of a log.
    Entry { log: LogId, offset: Offset },
    /// A log's state.
    State,
}

/// Reads records of one segment, by where they were written.
pub(super) struct Source {
    segment: Arc<SegmentFile>,
    /// End of the records as they were written, or of the file.
    pub(super) end: u32,
    window: Window,
    /// Where records are, in a regrouped file.
    grouped: Option<Grouped>,
}

struct Grouped {
    /// Where each batch was written and where its mark is, ascending.
    batches: Vec<(u32, u32)>,
    /// Positions in the windows of logs; the next entry of each, and where it is.
    logs: HashMap<LogId, (Offset, u32, Window)>,
    window_bytes: usize,
    /// The spine's record after the last one that was read.
    spine_next: u32,
}

/// A stretch of a file, in memory.
#[derive(Default)]
struct Window {
    bytes: Bytes,
    at: u32,
}

impl Window {
    /// Reads up to `length` bytes at a place, and `ahead` if the file is read at all; fewer at the end.
    fn read(&mut self, file: &SegmentFile, at: u32, length: usize, end: u32, ahead: usize) -> io::Result<Bytes> {
        let left = end.saturating_sub(at) as usize;
        let length = length.min(left);
        let start = at.wrapping_sub(self.at) as usize;
        if at < self.at || start + length > self.bytes.len() {
            let mut buffer = vec![0; length.max(ahead).min(left)];
            file.file.read_exact_at(&mut buffer, u64::from(at))?;
            self.bytes = buffer.into();
            self.at = at;
            return Ok(self.bytes.slice(..length));
        }
        Ok(self.bytes.slice(start..start + length))
    }
}

impl Source {
    /// The records of a segment, up to `end` where they were written as far as that is known.
    pub(super) fn new(segment: Arc<SegmentFile>, store: &StoreId, end: Option<u32>) -> io::Result<Self> {
        let length = segment.file.metadata()?.len();
        let length = u32::try_from(length).map_err(|_| io::Error::other("segment longer than 4 GiB"))?;
        let (end, grouped) = match segment.layout() {
            Layout::Written => (end.unwrap_or(length).min(length), None),
            Layout::Grouped { groups, .. } => {
                let grouped = Grouped {
                    batches: groups.batches(&segment.file, store)?,
                    logs: HashMap::new(),
                    window_bytes: (GROUP_WINDOWS_BYTES / groups.logs.len().max(1)).min(GROUP_WINDOW_BYTES_MAX),
                    spine_next: groups.spine_at,
                };
                (groups.written_end, Some(grouped))
            }
        };
        Ok(Self {
            segment,
            end,
            window: Window::default(),
            grouped,
        })
    }

    /// Whether the records are by log.
    pub(super) const fn is_grouped(&self) -> bool {
        self.grouped.is_some()
    }

    /// Bytes of a record that was written at a place: its header and, where `length` says more, its payload. `None`
    /// where no record is known to begin there.
    pub(super) fn record(&mut self, written: u32, wanted: Wanted, length: usize) -> io::Result<Option<Bytes>> {
        let Some(grouped) = &mut self.grouped else {
            return self.bytes_at(written, length).map(Some);
        };
        let Layout::Grouped { groups, .. } = self.segment.layout() else {
            return Ok(None);
        };
        if let Ok(batch) = grouped.batches.binary_search_by_key(&written, |(written, _)| *written) {
            let at = grouped.batches.get(batch).map_or(0, |(_, at)| *at);
            let bytes = self
                .window
                .read(&self.segment, at, length, groups.spine_end, WINDOW_BYTES)?;
            grouped.spine_next = at.saturating_add(bytes.len() as u32);
            return Ok(Some(bytes));
        }
        match wanted {
            Wanted::Mark => Ok(None),
            Wanted::State => {
                let at = grouped.spine_next;
                self.window
                    .read(&self.segment, at, length, groups.spine_end, WINDOW_BYTES)
                    .map(Some)
            }
            Wanted::Entry { log, offset } => {
                let Some(group) = groups.group(&log) else {
                    return Ok(None);
                };
                let (next, at, window) = grouped.logs.entry(log).or_default();
                if *next != offset {
                    let places = groups.places(&self.segment.file, &log, offset, 1)?;
                    (*next, *at) = (offset, places.first().copied().unwrap_or_default());
                }
                if *at < HEADER_BYTES {
                    return Ok(None);
                }
                window
                    .read(&self.segment, *at, length, group.end, grouped.window_bytes)
                    .map(Some)
            }
        }
    }

    /// An entry is not where its log's table says: looks for it by going along its log's. False where it is nowhere else.
    pub(super) fn relocate(&mut self, wanted: Wanted) -> io::Result<bool> {
        let (Some(grouped), Wanted::Entry { log, offset }) = (&mut self.grouped, wanted) else {
            return Ok(false);
        };
        let Some(found) = self.segment.find(&log, offset)? else {
            return Ok(false);
        };
        let (next, at, _) = grouped.logs.entry(log).or_default();
        let moved = *at != found;
        (*next, *at) = (offset, found);
        Ok(moved)
    }

    /// A record of this length was there, or should have been: the next one of its kind follows it.
    pub(super) fn passed(&mut self, wanted: Wanted, length: u32) {
        let Some(grouped) = &mut self.grouped else { return };
        match wanted {
            Wanted::Mark => {}
            Wanted::State => grouped.spine_next = grouped.spine_next.saturating_add(length),
            Wanted::Entry { log, offset } => {
                if let Some((next, at, _)) = grouped.logs.get_mut(&log)
                    && *next == offset
                {
                    (*next, *at) = (offset.next(), at.saturating_add(length));
                }
            }
        }
    }

    /// Reads up to `length` bytes at a place of a file as it was written; fewer at the end.
    pub(super) fn bytes_at(&mut self, at: u32, length: usize) -> io::Result<Bytes> {
        self.window.read(&self.segment, at, length, self.end, WINDOW_BYTES)
    }

    /// Whether nothing but zeroes follows, in a file as it was written.
    pub(super) fn zeroes_from(&mut self, mut at: u32) -> io::Result<bool> {
        if self.is_grouped() {
            return Ok(false);
        }
        while at < self.end {
            // Space that is reserved and was never written to need not be read.
            at = self.data_from(at)?;
            if at >= self.end {
                break;
            }
            let bytes = self.hole_from(at)?.saturating_sub(at) as usize;
            let bytes = self
                .window
                .read(&self.segment, at, bytes.min(WINDOW_BYTES), self.end, 0)?;
            if bytes.is_empty() || bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += bytes.len() as u32;
        }
        Ok(true)
    }

    /// Returns the first position, from this one on, that the file system has bytes of: all before are zeroes.
    fn data_from(&self, at: u32) -> io::Result<u32> {
        self.seek(SeekFrom::Data(u64::from(at))).map(|data| data.unwrap_or(at))
    }

    /// Returns the first position, from this one on, that the file system has no bytes of.
    fn hole_from(&self, at: u32) -> io::Result<u32> {
        self.seek(SeekFrom::Hole(u64::from(at)))
            .map(|hole| hole.unwrap_or(self.end))
    }

    /// `None` where the file system cannot tell. All reads say where they read: the file's own position is nobody's.
    fn seek(&self, to: SeekFrom) -> io::Result<Option<u32>> {
        match rustix::fs::seek(&self.segment.file, to) {
            Ok(at) => Ok(Some(u32::try_from(at).unwrap_or(u32::MAX))),
            Err(rustix::io::Errno::NXIO) => Ok(Some(self.end)),
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Places that may begin a mark, at or after a place: each begins with the store's id after a record's header. Gives
    /// the first one, and from where the search goes on after it.
    pub(super) fn next_candidate(&mut self, from: u32, store: &[u8; 16]) -> io::Result<Option<u32>> {
        if let Some(grouped) = &self.grouped {
            let next = grouped.batches.partition_point(|(written, _)| *written < from);
            return Ok(grouped.batches.get(next).map(|(written, _)| *written));
        }
        // The store's id is the first thing in a mark's payload.
        let mut at = from.saturating_add(record::HEADER_BYTES as u32);
        while at < self.end {
            let bytes = self.bytes_at(at, WINDOW_BYTES)?;
            if let Some(hit) = find(&bytes, store) {
                return Ok(Some(at + hit as u32 - record::HEADER_BYTES as u32));
            }
            if bytes.len() <= store.len() {
                break;
            }
            // Windows overlap by the length of the searched bytes.
            at += (bytes.len() - store.len()) as u32;
        }
        Ok(None)
    }
}

fn find(bytes: &[u8], needle: &[u8; 16]) -> Option<usize> {
    let mut from = 0;
    // Looking for the first byte alone is what the compiler makes fast.
    while let Some(hit) = bytes.get(from..)?.iter().position(|byte| *byte == needle[0]) {
        let place = from + hit;
        if bytes.get(place..place + needle.len()) == Some(needle) {
            return Some(place);
        }
        from = place + 1;
    }
    None
}
