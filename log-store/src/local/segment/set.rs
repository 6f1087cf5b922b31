//! All segments of a store: which there are, and open files to read them.

use super::super::error::OpenError;
use super::super::folder::{StoreId, sync_dir};
use super::header::sequence_of;
use super::{SegmentHeader, Trailer, file_name};
use lru::LruCache;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Segment files kept open for reading, at most.
const FILES_OPEN_MAX: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not 0");

/// A segment's file, open for reading.
pub(crate) struct SegmentFile {
    pub(crate) sequence: u32,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
}

impl SegmentFile {
    /// Opens a segment's file to read it.
    pub(crate) fn open(path: PathBuf, sequence: u32) -> io::Result<Self> {
        Ok(Self {
            sequence,
            file: File::open(&path)?,
            path,
        })
    }
}

/// Facts about a sealed segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentInfo {
    /// The file's length.
    pub(crate) bytes: u64,
    /// `None` where the trailer is damaged: then the segment's end is found by reading it.
    pub(crate) trailer: Option<Trailer>,
}

/// The segments of a store.
pub(crate) struct Segments {
    dir: PathBuf,
    store: StoreId,
    /// Sealed segments. The one after the last of them is open for writing.
    sealed: Mutex<BTreeMap<u32, SegmentInfo>>,
    files: Mutex<LruCache<u32, Arc<SegmentFile>>>,
}

impl Segments {
    /// Finds the segments in a folder: their headers and trailers are read, nothing else. Gives the set and, where
    /// the last one is not sealed, its number and whether even its header is missing (a crash while it was made).
    pub(crate) fn find(dir: &Path, store: StoreId) -> Result<(Self, Option<Unsealed>), OpenError> {
        let numbers = numbers(dir)?;
        let mut sealed = BTreeMap::new();
        let mut unsealed = None;
        let last = numbers.last().copied();
        for (index, &sequence) in numbers.iter().enumerate() {
            let path = dir.join(file_name(sequence));
            if let Some(before) = index.checked_sub(1).and_then(|index| numbers.get(index))
                && before + 1 != sequence
            {
                return Err(OpenError::MissingSegment {
                    path: dir.join(file_name(before + 1)),
                });
            }
            let file = File::open(&path).map_err(OpenError::io("open", &path))?;
            let is_last = Some(sequence) == last;
            let Some(header) = SegmentHeader::read(&file, &path, sequence, &store)? else {
                if !is_last {
                    return Err(OpenError::Foreign {
                        path,
                        problem: "the segment's header is missing, and later segments are there".into(),
                    });
                }
                unsealed = Some(Unsealed { sequence, header: None });
                continue;
            };
            let bytes = file.metadata().map_err(OpenError::io("read", &path))?.len();
            let trailer = Trailer::read(&file, bytes, &header).map_err(OpenError::io("read", &path))?;
            if trailer.is_none() && is_last {
                unsealed = Some(Unsealed {
                    sequence,
                    header: Some(header),
                });
            } else {
                sealed.insert(sequence, SegmentInfo { bytes, trailer });
            }
        }
        let segments = Self {
            dir: dir.to_owned(),
            store,
            sealed: Mutex::new(sealed),
            files: Mutex::new(LruCache::new(FILES_OPEN_MAX)),
        };
        Ok((segments, unsealed))
    }

    /// Sealed segments, oldest first.
    pub(crate) fn sealed(&self) -> Vec<(u32, SegmentInfo)> {
        self.sealed
            .lock()
            .iter()
            .map(|(sequence, info)| (*sequence, *info))
            .collect()
    }

    /// Bytes of sealed segments.
    pub(crate) fn sealed_bytes(&self) -> u64 {
        self.sealed.lock().values().map(|info| info.bytes).sum()
    }

    /// Returns the facts about a segment, if it is sealed.
    pub(crate) fn info(&self, sequence: u32) -> Option<SegmentInfo> {
        self.sealed.lock().get(&sequence).copied()
    }

    pub(crate) fn add_sealed(&self, sequence: u32, info: SegmentInfo) {
        self.sealed.lock().insert(sequence, info);
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) const fn store(&self) -> &StoreId {
        &self.store
    }

    pub(crate) fn path(&self, sequence: u32) -> PathBuf {
        self.dir.join(file_name(sequence))
    }

    /// A segment's file. Open files are kept, up to a limit.
    pub(crate) fn file(&self, sequence: u32) -> io::Result<Arc<SegmentFile>> {
        if let Some(file) = self.files.lock().get(&sequence) {
            return Ok(file.clone());
        }
        let path = self.path(sequence);
        let file = Arc::new(SegmentFile::open(path, sequence)?);
        self.files.lock().put(sequence, file.clone());
        Ok(file)
    }

    /// Removes the oldest segment's file, durably. Readers that have it open may finish.
    pub(crate) fn remove(&self, sequence: u32) -> Result<(), OpenError> {
        let path = self.path(sequence);
        fs::remove_file(&path).map_err(OpenError::io("remove", &path))?;
        self.files.lock().pop(&sequence);
        self.sealed.lock().remove(&sequence);
        sync_dir(&self.dir)
    }
}

/// The last segment, where it has no trailer.
#[derive(Clone, Copy)]
pub(crate) struct Unsealed {
    pub(crate) sequence: u32,
    /// `None` where it has no header either: nothing was ever written to it.
    pub(crate) header: Option<SegmentHeader>,
}

/// The numbers of the segments in a folder, in order.
fn numbers(dir: &Path) -> Result<Vec<u32>, OpenError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(OpenError::io("list", dir))? {
        let name = entry.map_err(OpenError::io("list", dir))?.file_name();
        numbers.extend(name.to_str().and_then(sequence_of));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
