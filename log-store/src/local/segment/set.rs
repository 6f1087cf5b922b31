//! All segments of a store: which there are, and open files to read them.

use super::super::error::OpenError;
use super::super::folder::{StoreId, sync_dir};
use super::header::sequence_of;
use super::{SegmentFile, SegmentHeader, Trailer, file_name};
use lru::LruCache;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Segment files kept open for reading, at most.
const FILES_OPEN_MAX: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not 0");
/// The extension of a file that may become a segment's.
const UNFINISHED: &str = "new";

/// Facts about a sealed segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentInfo {
    /// The file's length.
    pub(crate) bytes: u64,
    /// `None` where the trailer is damaged: then the segment's end is found by reading it.
    pub(crate) trailer: Option<Trailer>,
    /// Its records lie by log.
    pub(crate) grouped: bool,
}

/// Reason why a segment's file was not replaced.
#[derive(Debug)]
pub(crate) enum NotReplaced {
    /// It was dropped, or the store was closed: there is nothing to replace.
    Gone,
    /// The file could not get its name; the segment is as it was.
    Failed(io::Error),
}

/// The segments of a store.
pub(crate) struct Segments {
    dir: PathBuf,
    store: StoreId,
    /// Sealed segments. The one after the last of them is open for writing.
    sealed: Mutex<BTreeMap<u32, SegmentInfo>>,
    files: Mutex<LruCache<u32, Arc<SegmentFile>>>,
    /// Number of files that were replaced: one that was opened before is not kept open.
    replaced: AtomicU64,
    /// Held while a file gets or loses its name. False once the folder is another's.
    names: Mutex<bool>,
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
            if trailer.is_none() && is_last && !header.grouped {
                unsealed = Some(Unsealed {
                    sequence,
                    header: Some(header),
                });
            } else {
                sealed.insert(
                    sequence,
                    SegmentInfo {
                        bytes,
                        trailer,
                        grouped: header.grouped,
                    },
                );
            }
        }
        let segments = Self {
            dir: dir.to_owned(),
            store,
            sealed: Mutex::new(sealed),
            files: Mutex::new(LruCache::new(FILES_OPEN_MAX)),
            replaced: AtomicU64::new(0),
            names: Mutex::new(true),
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
        let replaced = self.replaced.load(Ordering::Acquire);
        let file = Arc::new(SegmentFile::open(self.path(sequence), sequence, &self.store)?);
        let mut files = self.files.lock();
        if self.replaced.load(Ordering::Acquire) == replaced {
            files.put(sequence, file.clone());
        }
        Ok(file)
    }

    /// Puts another file of the same records in the place of a sealed segment's. It must be durable. Readers that have the
    /// old one open may finish. `renamed` is called between the change of the name and its being durable.
    pub(crate) fn replace(
        &self,
        sequence: u32,
        with: &Path,
        info: SegmentInfo,
        renamed: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), NotReplaced> {
        let names = self.names.lock();
        if !*names || self.info(sequence).is_none() {
            return Err(NotReplaced::Gone);
        }
        fs::rename(with, self.path(sequence)).map_err(NotReplaced::Failed)?;
        self.replaced.fetch_add(1, Ordering::AcqRel);
        self.files.lock().pop(&sequence);
        self.sealed.lock().insert(sequence, info);
        // Where this fails, a crash may bring the old file back: it holds the same.
        let synced = renamed().and_then(|()| File::open(&self.dir)?.sync_all());
        if let Err(error) = synced {
            tracing::warn!(segment = sequence, %error, "a regrouped segment's name may not be durable");
        }
        Ok(())
    }

    /// No file gets or loses its name any more: the folder may be another's.
    pub(crate) fn release(&self) {
        *self.names.lock() = false;
    }

    /// Removes files that a regrouping has left which was cut off.
    pub(crate) fn remove_unfinished(&self) -> Result<(), OpenError> {
        for entry in fs::read_dir(&self.dir).map_err(OpenError::io("list", &self.dir))? {
            let path = entry.map_err(OpenError::io("list", &self.dir))?.path();
            if path.extension().is_some_and(|extension| extension == UNFINISHED) {
                fs::remove_file(&path).map_err(OpenError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// A name, in the folder, for a file that is not a segment yet.
    pub(crate) fn unfinished(&self, sequence: u32) -> PathBuf {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        self.dir.join(format!("{sequence:010}.{process}-{count}.{UNFINISHED}"))
    }

    /// Removes the oldest segment's file, durably. Readers that have it open may finish.
    pub(crate) fn remove(&self, sequence: u32) -> Result<(), OpenError> {
        let _names = self.names.lock();
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
