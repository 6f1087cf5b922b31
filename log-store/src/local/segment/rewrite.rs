//! Rewrites a sealed segment with the entries of each log together.
//!
//! ```text
//!  as written:  header | mark  a1 b1 a2 | mark  state-of-a  b2 a3 | footer | trailer
//!  regrouped:   header | a1 a2 a3 | b1 b2 | mark  mark  state-of-a | tables | directory | footer | trailer
//! ```
//!
//! Records are copied byte for byte, each checked before and after. A segment with damage is left as it is: what is
//! left of it is found best where it was written.

use super::super::faults::{DiskFaults, DiskStep};
use super::super::folder::StoreId;
use super::footer::FooterBuilder;
use super::groups::GroupsBuilder;
use super::trailer::Mix;
use super::{Extent, HEADER_BYTES, Scan, SegmentFile, SegmentHeader, SegmentInfo, Step};
use skytale_proto::record;
use skytale_proto::{LogId, Offset, Record};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

/// Bytes read and written at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// Bytes after which what was written is synced: a sync of much holds back those of appends.
const SYNC_EVERY_BYTES: usize = 4 * 1024 * 1024;
/// Steps of a scan between two calls that say how far it is.
const SCAN_BYTES: u64 = 256 * 1024;

/// Reason why a segment is not regrouped.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// It is damaged, or holds the rest of a batch that a crash cut off: it is left as it is.
    Damaged(String),
    /// The store is about to close.
    Stopped,
    /// The files cannot be read or written.
    Io(io::Error),
}

impl From<io::Error> for Unfit {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Called with the bytes that were read or written since the last time. False ends the work.
pub(crate) type Pace<'a> = dyn FnMut(u64) -> bool + 'a;

/// A sealed segment that is to be regrouped.
pub(crate) struct Rewrite {
    from: Arc<SegmentFile>,
    header: SegmentHeader,
    store: StoreId,
    /// The entries of each log: the first one's offset, and where each was written with its length.
    logs: BTreeMap<LogId, (Offset, Vec<(u32, u32)>)>,
    /// Marks and states: where each was written, its length, and whether it is a mark.
    spine: Vec<(u32, u32, bool)>,
    footer: FooterBuilder,
    written_end: u32,
    print: u64,
}

impl Rewrite {
    /// Reads a sealed segment.
    pub(crate) fn read(
        from: Arc<SegmentFile>,
        store: StoreId,
        extent: Extent,
        before: u64,
        pace: &mut Pace<'_>,
    ) -> Result<Self, Unfit> {
        let header = match from.header() {
            Some(header) if !header.grouped => *header,
            _ => return Err(Unfit::Damaged("its header is damaged".into())),
        };
        let mut rewrite = Self {
            from: from.clone(),
            header,
            store,
            logs: BTreeMap::new(),
            spine: Vec::new(),
            footer: FooterBuilder::default(),
            written_end: HEADER_BYTES,
            print: 0,
        };
        let mut scan = Scan::new(from, store, extent, 0, before)?;
        rewrite.print = print(&mut scan, pace, |step| rewrite.take(step))?;
        match extent {
            Extent::Sealed { footer_at } if footer_at == rewrite.written_end => Ok(rewrite),
            _ => Err(Unfit::Damaged("its footer is not where its records end".into())),
        }
    }

    /// How its entries are mixed.
    pub(crate) fn mix(&self) -> Mix {
        self.footer.mix()
    }

    fn take(&mut self, step: &Step) -> Result<(), Unfit> {
        // A mark's length shows when the next record comes.
        if let Some((at, length, true)) = self.spine.last_mut()
            && *length == 0
            && let Step::Entry { at: next, .. } | Step::State { at: next, .. } | Step::BatchEnd { at: next, .. } = step
        {
            *length = next - *at;
        }
        match step {
            Step::Batch { at, .. } => {
                if *at != self.written_end {
                    return Err(Unfit::Damaged(format!("there is a gap before {at}")));
                }
                self.spine.push((*at, 0, true));
            }
            Step::Entry { at, log, record } => {
                let (first, entries) = self.logs.entry(*log).or_insert_with(|| (record.offset, Vec::new()));
                let expected = first.get() + entries.len() as u64;
                if record.offset.get() != expected {
                    return Err(Unfit::Damaged(format!("entry {expected} of {log} is not in it")));
                }
                entries.push((*at, length(record)?));
            }
            Step::State { at, record, .. } => self.spine.push((*at, length(record)?, false)),
            Step::BatchEnd { at, whole: true } => self.written_end = *at,
            Step::BatchEnd { at, whole: false } => {
                return Err(Unfit::Damaged(format!("a batch was cut off at {at}")));
            }
            Step::Damaged { at, why, .. } | Step::DamagedState { at, why, .. } | Step::Lost { at, why, .. } => {
                return Err(Unfit::Damaged(format!("damaged at {at}: {why}")));
            }
            Step::End(_) => {}
        }
        self.footer.take(step);
        Ok(())
    }

    /// Writes the regrouped file, durably, and reads it back. `path` is not a segment's name yet.
    pub(crate) fn write(&self, path: &Path, faults: &DiskFaults, pace: &mut Pace<'_>) -> Result<SegmentInfo, Unfit> {
        let file = OpenOptions::new().create_new(true).write(true).open(path)?;
        let mut out = Output {
            file,
            buffer: Vec::with_capacity(CHUNK_BYTES),
            at: 0,
            unsynced: 0,
            pace,
        };
        out.put(&self.header.regrouped().encode())?;
        let mut builder = GroupsBuilder::default();
        for (log, (first, entries)) in &self.logs {
            let mut table = Vec::with_capacity(entries.len());
            for near in entries.chunk_by(|(at, length), (next, _)| at + length == *next) {
                self.copy(near, &mut out, |at| table.push(at))?;
            }
            builder.group(*log, *first, table, out.position()?);
        }
        faults.check(DiskStep::Regroup)?;
        builder.groups.spine_at = out.position()?;
        for (written, length, is_mark) in &self.spine {
            let at = out.position()?;
            if *is_mark {
                builder.groups.batches.push((*written, at));
            }
            self.copy(&[(*written, *length)], &mut out, |_| {})?;
        }
        builder.groups.spine_end = out.position()?;
        builder.groups.written_end = self.written_end;
        let (directory, groups_at) = builder.finish(out.position()?, self.footer.last_batch())?;
        out.put(&directory)?;
        let (footer, trailer) = self
            .footer
            .finish(self.written_end, groups_at, &self.header.regrouped());
        out.put(&footer)?;
        out.position()?;
        out.flush()?;
        faults.check(DiskStep::RegroupSync)?;
        out.file.sync_all()?;
        let bytes = out.at;
        self.check(
            path,
            Extent::Sealed {
                footer_at: self.written_end,
            },
            pace,
        )?;
        Ok(SegmentInfo {
            bytes,
            trailer: Some(trailer),
            grouped: true,
        })
    }

    /// Copies records that were written one after another; `copied` learns where each is now.
    fn copy(&self, records: &[(u32, u32)], out: &mut Output<'_, '_>, mut copied: impl FnMut(u32)) -> Result<(), Unfit> {
        let mut rest = records;
        while let Some((begin, _)) = rest.first().copied() {
            let (mut together, mut bytes) = (0, 0);
            for (_, length) in rest {
                if together > 0 && bytes + *length as usize > CHUNK_BYTES {
                    break;
                }
                together += 1;
                bytes += *length as usize;
            }
            let (now, later) = rest.split_at(together);
            let mut buffer = vec![0; bytes];
            self.from.file.read_exact_at(&mut buffer, u64::from(begin))?;
            for (written, length) in now {
                let from = (written - begin) as usize;
                let record = buffer.get(from..from + *length as usize).unwrap_or_default();
                let head = record::check(record, super::OWN_PAYLOAD_BYTES_MAX).ok();
                if head.is_none_or(|head| head.length != record.len()) {
                    return Err(Unfit::Damaged(format!("damaged at {written} since it was read")));
                }
                copied(out.position()?);
                out.put(record)?;
            }
            if !(out.pace)(buffer.len() as u64) {
                return Err(Unfit::Stopped);
            }
            rest = later;
        }
        Ok(())
    }

    /// Reads the new file as a reader of the store would: it must say the same as the old one, to the byte.
    fn check(&self, path: &Path, extent: Extent, pace: &mut Pace<'_>) -> Result<(), Unfit> {
        let file = Arc::new(SegmentFile::open(path.to_owned(), self.from.sequence, &self.store)?);
        let mut scan = Scan::new(file.clone(), self.store, extent, 0, 0)?;
        let printed = print(&mut scan, pace, |_| Ok(()))?;
        let mut tables = true;
        for (log, (first, entries)) in &self.logs {
            let places = file.places(log, *first, vec![0; entries.len()])?;
            let follows = |pair: &[u32]| pair.first() < pair.last();
            tables &= !places.contains(&0) && places.windows(2).all(follows);
        }
        if printed != self.print || !tables || file.footer()?.is_none() || !file.is_grouped() {
            return Err(Unfit::Damaged(
                "the regrouped file does not say the same; it is thrown away".into(),
            ));
        }
        Ok(())
    }
}

/// Reads a segment to its end, and gives a hash of all that it says.
fn print(scan: &mut Scan, pace: &mut Pace<'_>, mut each: impl FnMut(&Step) -> Result<(), Unfit>) -> Result<u64, Unfit> {
    let mut hasher = DefaultHasher::new();
    let mut bytes = 0;
    while let Some(step) = scan.next()? {
        let record = match &step {
            Step::Batch {
                at, number, time_ms, ..
            } => {
                (0, *at, *number, *time_ms).hash(&mut hasher);
                None
            }
            Step::Entry { at, log, record } => Some((1, *at, log, record)),
            Step::State { at, log, record } => Some((2, *at, log, record)),
            Step::BatchEnd { at, whole } => {
                (3, *at, *whole).hash(&mut hasher);
                None
            }
            Step::End(_) => None,
            Step::Damaged { at, .. } | Step::DamagedState { at, .. } | Step::Lost { at, .. } => {
                (4, *at).hash(&mut hasher);
                None
            }
        };
        if let Some((kind, at, log, record)) = record {
            (kind, at, log, record.offset, record.time_ms).hash(&mut hasher);
            (record.kind, record.payload.len(), crc32c::crc32c(&record.payload)).hash(&mut hasher);
            bytes += record.encoded_len() as u64;
        }
        each(&step)?;
        if bytes >= SCAN_BYTES && !pace(std::mem::take(&mut bytes)) {
            return Err(Unfit::Stopped);
        }
    }
    Ok(hasher.finish())
}

/// The file that is written.
struct Output<'a, 'b> {
    file: File,
    buffer: Vec<u8>,
    /// Bytes written, without those in the buffer.
    at: u64,
    unsynced: usize,
    pace: &'a mut Pace<'b>,
}

impl Output<'_, '_> {
    /// Position of what comes next.
    fn position(&self) -> io::Result<u32> {
        u32::try_from(self.at + self.buffer.len() as u64)
            .map_err(|_| io::Error::other("a segment cannot grow past 4 GiB"))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Unfit> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Unfit> {
        self.file.write_all(&self.buffer)?;
        self.at += self.buffer.len() as u64;
        self.unsynced += self.buffer.len();
        let bytes = self.buffer.len() as u64;
        self.buffer.clear();
        if self.unsynced >= SYNC_EVERY_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        if !(self.pace)(bytes) {
            return Err(Unfit::Stopped);
        }
        Ok(())
    }
}

fn length(record: &Record) -> Result<u32, Unfit> {
    u32::try_from(record.encoded_len()).map_err(|_| Unfit::Damaged("a record is too long".into()))
}
