//! Lists entries: headers, offsets, times, sizes.

use super::InspectError;
use super::source::Source;
use crate::local::segment::{Scan, SegmentFile, Step};
use skytale_proto::{Frame, Header, LogId, Offset, Record};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An entry, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpEntry {
    /// The file it is in.
    pub path: PathBuf,
    /// Bytes from the file's beginning.
    pub at: u32,
    /// Its offset.
    pub offset: Offset,
    /// The time stored with it, unix milliseconds.
    pub time_ms: u64,
    /// Its frame's header.
    pub header: Header,
    /// Its body's length, in bytes.
    pub body_bytes: usize,
    /// Its record's length, in bytes.
    pub record_bytes: usize,
}

/// The entries of a stopped store, in the order in which they were accepted; of one log, where one is named.
///
/// Damaged records come as errors in their places, and the listing goes on after them.
pub fn dump(dir: &Path, log: Option<LogId>) -> Result<Dump, InspectError> {
    Ok(Dump {
        source: Source::open(dir)?,
        log,
        next_segment: 0,
        current: None,
        is_running: false,
    })
}

/// The same of a store that a node may be writing to, up to its last write. Takes no lock and disturbs nobody.
///
/// A segment that retention removes meanwhile is left out. An incomplete end of the newest segment is not given.
pub fn dump_running(dir: &Path, log: Option<LogId>) -> Result<Dump, InspectError> {
    Ok(Dump {
        source: Source::open_running(dir)?,
        log,
        next_segment: 0,
        current: None,
        is_running: true,
    })
}

/// Entries of a store. Of a stopped one it holds the folder's lock.
pub struct Dump {
    source: Source,
    log: Option<LogId>,
    next_segment: usize,
    current: Option<(Arc<SegmentFile>, Scan)>,
    is_running: bool,
}

/// The entries of a stopped store with their bodies, in the order in which they were accepted: of a replica, in the
/// order in which each shard's were folded. Damaged records come as errors in their places.
#[cfg(feature = "fleet")]
pub(crate) fn frames(dir: &Path) -> Result<impl Iterator<Item = Result<(Offset, Frame), InspectError>>, InspectError> {
    let mut dump = dump(dir, None)?;
    Ok(std::iter::from_fn(move || {
        dump.find_map(|file, step| {
            whole(file, step, None).map(|found| found.map(|(_, record, frame)| (record.offset, frame)))
        })
    }))
}

impl Iterator for Dump {
    type Item = Result<DumpEntry, InspectError>;

    fn next(&mut self) -> Option<Self::Item> {
        let log = self.log;
        self.find_map(|file, step| listed(file, step, log))
    }
}

impl Dump {
    /// Goes on until a step of a segment gives something.
    fn find_map<T>(
        &mut self,
        mut each: impl FnMut(&SegmentFile, Step) -> Option<Result<T, InspectError>>,
    ) -> Option<Result<T, InspectError>> {
        loop {
            let Some((file, scan)) = &mut self.current else {
                match self.begin_segment() {
                    Ok(true) => continue,
                    Ok(false) => return None,
                    Err(error) => return Some(Err(error)),
                }
            };
            match scan.next() {
                Ok(Some(step)) => {
                    if let Some(found) = each(file, step) {
                        return Some(found);
                    }
                }
                Ok(None) => self.current = None,
                Err(error) => {
                    let error = InspectError::read(&file.path)(error);
                    self.current = None;
                    return Some(Err(error));
                }
            }
        }
    }

    fn begin_segment(&mut self) -> Result<bool, InspectError> {
        let segment = self.source.segment(self.next_segment);
        self.next_segment += 1;
        let segment = match segment {
            Err(error) if self.is_running && error.is_not_found() => return Ok(true),
            segment => segment?,
        };
        let Some((file, extent, before)) = segment else {
            return Ok(false);
        };
        let store = self.source.folder().id;
        let scan = Scan::new(file.clone(), store, extent, 0, before).map_err(InspectError::read(&file.path))?;
        self.current = Some((file, scan));
        Ok(true)
    }
}

fn listed(file: &SegmentFile, step: Step, wanted: Option<LogId>) -> Option<Result<DumpEntry, InspectError>> {
    let entry = |(at, record, frame): (u32, Record, Frame)| DumpEntry {
        path: file.path.clone(),
        at,
        offset: record.offset,
        time_ms: record.time_ms,
        header: frame.header().clone(),
        body_bytes: frame.body().len(),
        record_bytes: record.encoded_len(),
    };
    whole(file, step, wanted).map(|found| found.map(entry))
}

/// An entry, where a step is one; an error, where it may have been one.
fn whole(file: &SegmentFile, step: Step, wanted: Option<LogId>) -> Option<Result<(u32, Record, Frame), InspectError>> {
    let is_wanted = |log: LogId| wanted.is_none_or(|wanted| wanted == log);
    let damaged = |at: u32, what: String| {
        Some(Err(InspectError::Damaged {
            place: format!("{} at {at}: {what}", file.path.display()),
        }))
    };
    match step {
        Step::Entry { at, log, record } if is_wanted(log) => match Frame::decode(record.payload.clone()) {
            Ok(frame) => Some(Ok((at, record, frame))),
            Err(error) => damaged(at, error.to_string()),
        },
        Step::Damaged { at, log, offset, why } if is_wanted(log) => damaged(at, format!("{log} entry {offset}: {why}")),
        Step::Lost { at, to, why } => damaged(at, format!("no batch can be read up to {to}: {why}")),
        _ => None,
    }
}
