//! The segment that takes batches.

use super::super::error::OpenError;
use super::super::folder::sync_dir;
use super::{FooterBuilder, HEADER_BYTES, SegmentHeader, Trailer, file_name};
use rustix::fs::FallocateFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// The segment that takes batches: the last one of the sequence, and not sealed.
pub(crate) struct OpenSegment {
    file: File,
    pub(crate) path: PathBuf,
    pub(crate) sequence: u32,
    /// Where the next batch goes.
    pub(crate) at: u32,
    pub(crate) footer: FooterBuilder,
}

impl OpenSegment {
    /// Makes a new segment, durable under its name, with its space reserved: a sync that does not change a file's
    /// size costs much less.
    pub(crate) fn create(segments: &Path, header: &SegmentHeader, segment_bytes: u32) -> Result<Self, OpenError> {
        let path = segments.join(file_name(header.sequence));
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(OpenError::io("create", &path))?;
        file.write_all(&header.encode())
            .map_err(OpenError::io("write", &path))?;
        reserve(&file, segment_bytes).map_err(OpenError::io("reserve space for", &path))?;
        file.sync_all().map_err(OpenError::io("sync", &path))?;
        sync_dir(segments)?;
        Ok(Self {
            file,
            path,
            sequence: header.sequence,
            at: HEADER_BYTES,
            footer: FooterBuilder::default(),
        })
    }

    /// Goes on with a segment whose records end at `at`. What stands after that is cut off, durably.
    pub(crate) fn resume(
        path: PathBuf,
        sequence: u32,
        at: u32,
        footer: FooterBuilder,
        torn: bool,
        segment_bytes: u32,
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
        reserve(&file, segment_bytes).map_err(OpenError::io("reserve space for", &path))?;
        file.sync_all().map_err(OpenError::io("sync", &path))?;
        file.seek(SeekFrom::Start(u64::from(at)))
            .map_err(OpenError::io("seek in", &path))?;
        Ok(Self {
            file,
            path,
            sequence,
            at,
            footer,
        })
    }

    /// Whether it holds no batch.
    pub(crate) const fn is_empty(&self) -> bool {
        self.at == HEADER_BYTES
    }

    /// Writes a batch. Not durable before [`OpenSegment::sync`]; after an error of either, nothing more may be written.
    pub(crate) fn write(&mut self, mark: &[u8], records: &[u8]) -> io::Result<()> {
        let too_long = || io::Error::other("a segment cannot grow past 4 GiB");
        let length = u32::try_from(mark.len() + records.len()).map_err(|_| too_long())?;
        let end = self.at.checked_add(length).ok_or_else(too_long)?;
        let mut slices = [IoSlice::new(mark), IoSlice::new(records)];
        let mut left = slices.as_mut_slice();
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match self.file.write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut left, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.at = end;
        Ok(())
    }

    /// Makes all that was written durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Writes the footer and makes the file exactly as long as it must be, durably.
    pub(crate) fn seal(self) -> io::Result<(Trailer, u64)> {
        let (footer, trailer) = self.footer.finish(self.at);
        // A footer says that all before it is durable, whichever of the two a crash leaves.
        self.sync()?;
        self.file.write_all_at(&footer, u64::from(self.at))?;
        let length = u64::from(self.at) + footer.len() as u64;
        self.file.set_len(length)?;
        self.file.sync_all()?;
        Ok((trailer, length))
    }
}

/// Reserves a file's space, where the file system can; where it cannot, the file grows as it is written.
fn reserve(file: &File, bytes: u32) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, u64::from(bytes)) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
