//! The segment that takes batches.

use super::super::error::OpenError;
use super::super::faults::{DiskFaults, DiskStep};
use super::super::folder::sync_dir;
use super::super::space::{Space, no_room};
use super::{FooterBuilder, HEADER_BYTES, SegmentHeader, Trailer, file_name};
use rustix::fs::FallocateFlags;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// The unit in which a file's blocks are counted.
const BLOCK_BYTES: u64 = 512;

/// The segment that takes batches: the last one of the sequence, and not sealed.
pub(crate) struct OpenSegment {
    file: File,
    pub(crate) path: PathBuf,
    pub(crate) sequence: u32,
    /// Position of the next batch.
    pub(crate) at: u32,
    pub(crate) footer: FooterBuilder,
    header: SegmentHeader,
    /// Its space is reserved, as far as that can be.
    reserved: bool,
    faults: DiskFaults,
}

/// Reason why a segment was not written to.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// There is no room. The segment ends where it did, durably, and may be written to again.
    Full(io::Error),
    /// The bytes on the disk are unknown: nothing may be written to it again.
    Unknown(io::Error),
}

impl OpenSegment {
    /// Makes a new segment, durable under its name, with its space reserved: a sync that does not change a file's
    /// size costs much less. Where there is no room to reserve it, the file grows as it is written.
    pub(crate) fn create(
        segments: &Path,
        header: &SegmentHeader,
        segment_bytes: u32,
        space: &Space,
    ) -> Result<Self, OpenError> {
        let path = segments.join(file_name(header.sequence));
        let begun = Self::begin(&path, header, segment_bytes, space);
        let (file, reserved) = begun.inspect_err(|_| {
            // Half of a header is no segment. Where this fails, the next start removes it.
            let _ = fs::remove_file(&path);
        })?;
        file.sync_all().map_err(OpenError::io("sync", &path))?;
        sync_dir(segments)?;
        Ok(Self {
            file,
            path,
            sequence: header.sequence,
            at: HEADER_BYTES,
            footer: FooterBuilder::default(),
            header: *header,
            reserved,
            faults: space.faults().clone(),
        })
    }

    fn begin(
        path: &Path,
        header: &SegmentHeader,
        segment_bytes: u32,
        space: &Space,
    ) -> Result<(File, bool), OpenError> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(path)
            .map_err(OpenError::io("create", path))?;
        let written = space.faults().check(DiskStep::Begin);
        written
            .and_then(|()| file.write_all(&header.encode()))
            .map_err(OpenError::io("write", path))?;
        let reserved = reserve(&file, HEADER_BYTES, segment_bytes, space);
        Ok((file, reserved.map_err(OpenError::io("reserve space for", path))?))
    }

    /// Goes on with a segment whose records end at `at`. Bytes after that are cut off, durably.
    pub(crate) fn resume(
        path: PathBuf,
        header: SegmentHeader,
        at: u32,
        footer: FooterBuilder,
        torn: bool,
        segment_bytes: u32,
        space: &Space,
    ) -> Result<Self, OpenError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(OpenError::io("open", &path))?;
        if torn {
            file.set_len(u64::from(at))
                .map_err(OpenError::io("cut the torn end of", &path))?;
        }
        let reserved = reserve(&file, at, segment_bytes, space).map_err(OpenError::io("reserve space for", &path))?;
        file.sync_all().map_err(OpenError::io("sync", &path))?;
        file.seek(SeekFrom::Start(u64::from(at)))
            .map_err(OpenError::io("seek in", &path))?;
        Ok(Self {
            file,
            path,
            sequence: header.sequence,
            at,
            footer,
            header,
            reserved,
            faults: space.faults().clone(),
        })
    }

    /// Whether it holds no batch.
    pub(crate) const fn is_empty(&self) -> bool {
        self.at == HEADER_BYTES
    }

    /// Reserves its space, where that was not possible before and is now.
    pub(crate) fn reserve(&mut self, segment_bytes: u32, space: &Space) -> Result<(), WriteError> {
        if !self.reserved {
            self.reserved = reserve(&self.file, self.at, segment_bytes, space).map_err(WriteError::Unknown)?;
        }
        Ok(())
    }

    /// Writes a batch. Not durable before [`OpenSegment::sync`].
    pub(crate) fn write(&mut self, mark: &[u8], records: &[u8]) -> Result<(), WriteError> {
        let too_long = || WriteError::Unknown(io::Error::other("a segment cannot grow past 4 GiB"));
        let length = u32::try_from(mark.len() + records.len()).map_err(|_| too_long())?;
        let end = self.at.checked_add(length).ok_or_else(too_long)?;
        match self.write_all(mark, records) {
            Ok(()) => {
                self.at = end;
                Ok(())
            }
            Err(error) => Err(self.cut_back(error)),
        }
    }

    fn write_all(&mut self, mark: &[u8], records: &[u8]) -> io::Result<()> {
        let mut slices = [IoSlice::new(mark), IoSlice::new(records)];
        let mut left = slices.as_mut_slice();
        IoSlice::advance_slices(&mut left, 0);
        if self.faults.is_some()
            && let Err(error) = self.faults.check(DiskStep::Batch)
        {
            self.file.write_all(&records[..records.len() / 2])?;
            return Err(error);
        }
        while !left.is_empty() {
            match self.file.write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut left, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Cuts the segment back after a write that found no room: all before `at` was synced, so later bytes are cut off,
    /// durably, and the segment's end is certain again.
    fn cut_back(&mut self, error: io::Error) -> WriteError {
        if !no_room(&error) {
            return WriteError::Unknown(error);
        }
        self.reserved = false;
        let at = u64::from(self.at);
        let cut = self
            .file
            .set_len(at)
            .and_then(|()| self.file.seek(SeekFrom::Start(at)))
            .and_then(|_| self.file.sync_all());
        match cut {
            Ok(()) => WriteError::Full(error),
            Err(error) => WriteError::Unknown(error),
        }
    }

    /// Makes all that was written durable. After an error nothing more may be written.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.faults.check(DiskStep::Sync)?;
        self.file.sync_data()
    }

    /// Writes the footer and makes the file exactly as long as it must be, durably. Where there is no room for the footer,
    /// the segment stays as it is.
    pub(crate) fn seal(&mut self) -> Result<(Trailer, u64), WriteError> {
        let (footer, trailer) = self.footer.finish(self.at, 0, &self.header);
        // A footer says that all before it is durable, whichever of the two a crash leaves.
        self.sync().map_err(WriteError::Unknown)?;
        let written = self
            .faults
            .check(DiskStep::Seal)
            .and_then(|()| self.file.write_all_at(&footer, u64::from(self.at)));
        if let Err(error) = written {
            return Err(self.cut_back(error));
        }
        let length = u64::from(self.at) + footer.len() as u64;
        self.file
            .set_len(length)
            .and_then(|()| self.file.sync_all())
            .map_err(WriteError::Unknown)?;
        Ok((trailer, length))
    }
}

/// Reserves a file's space, where the file system can and has enough. Whether it need not be tried again; where it was
/// not reserved, the file grows as it is written.
fn reserve(file: &File, at: u32, bytes: u32, space: &Space) -> io::Result<bool> {
    let status = file.metadata()?;
    let missing = u64::from(bytes).saturating_sub(status.blocks().saturating_mul(BLOCK_BYTES));
    if missing > 0 && !space.may_reserve(missing) {
        return Ok(false);
    }
    let reserved = space.faults().check(DiskStep::Reserve).and_then(|()| {
        rustix::fs::fallocate(file, FallocateFlags::empty(), 0, u64::from(bytes)).map_err(io::Error::from)
    });
    match reserved {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(true),
        Err(error) if no_room(&error) => {
            // The space that it did get is given back.
            file.set_len(u64::from(at))?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
