//! Space kept for the day when the disk is full.
//!
//! To delete takes space before it gives any: what is deleted is overwritten, page by page, in the write-ahead log. So a
//! vault on a full disk could not be purged. `<vault>.reserve` is a file of [`RESERVE_BYTES`] whose blocks are allocated
//! while there is room. An operation that frees space, or is needed for it, removes the file when the disk is full, and
//! is done again; the file is made again when there is room.
//!
//! Why a file beside the vault, and not free pages inside of it: the write-ahead log, which is what cannot grow on a full
//! disk, is a file of its own. Free pages of the database are of no use to it.
//!
//! The size: first the write-ahead log is brought into the database, which may grow by what the log holds before SQLite
//! does that by itself (2,048 pages, 8 MiB). Then messages are deleted one at a time: the longest fills 256 pages, and to
//! delete it takes as much of the log, which is emptied before the next one.

use super::VaultError;
use super::key::beside;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bytes kept.
pub(super) const RESERVE_BYTES: u64 = 10 * 1024 * 1024;
/// Less is kept if there is no room for all of it, but not less than this share.
const SHARES: [u64; 4] = [1, 2, 4, 8];
/// How often it is tried to allocate space while the obstacle may pass.
const ATTEMPTS_MAX: u32 = 16;

/// The reserve of one vault.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    pub(super) fn of(vault: &Path) -> Self {
        Self {
            path: beside(vault, "reserve"),
        }
    }

    /// Makes the reserve whole if there is room. That there is none is no failure: the vault works without it.
    pub(super) fn keep(&self) {
        let kept = std::fs::metadata(&self.path).map_or(0, |found| found.len());
        for bytes in SHARES.map(|share| RESERVE_BYTES / share) {
            if bytes <= kept {
                return;
            }
            match self.allocate(bytes) {
                Ok(()) => return,
                Err(error) if VaultError::file("", &error).is_full() => self.remove(),
                Err(error) => {
                    tracing::debug!(reserve = %self.path.display(), %error, "no reserve beside the vault");
                    self.remove();
                    return;
                }
            }
        }
    }

    /// Gives the space back to the file system. Whether there was any.
    pub(super) fn release(&self) -> bool {
        // Cut first: whoever has the file open would keep its blocks.
        let cut = OpenOptions::new().write(true).truncate(true).open(&self.path);
        let removed = std::fs::remove_file(&self.path);
        cut.is_ok() && removed.is_ok()
    }

    fn remove(&self) {
        self.release();
    }

    fn allocate(&self, bytes: u64) -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&self.path)?;
        for _ in 0..ATTEMPTS_MAX {
            match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
                // Interrupted, or a file system in memory while the machine is short of it.
                Err(Errno::INTR | Errno::NOMEM) => {}
                // A file system that cannot promise blocks gives them for what is written.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return write_zeros(&mut file, bytes),
                done => return Ok(done?),
            }
        }
        Err(Errno::AGAIN.into())
    }
}

fn write_zeros(file: &mut File, bytes: u64) -> std::io::Result<()> {
    let zeros = [0; 16 * 1024];
    for _ in 0..bytes / zeros.len() as u64 {
        file.write_all(&zeros)?;
    }
    file.sync_all()
}
