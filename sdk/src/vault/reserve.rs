//! Reserved space for a full disk.
//!
//! Deleting takes space before it frees any: deleted data is overwritten, page by page, in the write-ahead log. So a
//! vault on a full disk could not be purged. `<vault>.reserve` is a file of [`RESERVE_BYTES`] whose blocks are
//! allocated while there is room. If the disk is full, an operation that frees space, or is needed for it, removes the
//! file and is repeated. The file is recreated when there is room.
//!
//! It is a file beside the vault, and not free pages inside it, because the write-ahead log is a separate file: it
//! cannot grow on a full disk, and free pages of the database are no use to it.
//!
//! The size: first the write-ahead log is checkpointed into the database, which may grow by the log's length at which
//! SQLite checkpoints by itself (2,048 pages, 8 MiB). Then messages are deleted one at a time: the longest fills 256
//! pages, and its deletion takes as much of the log, which is emptied before the next one.

use super::VaultError;
use super::key::beside;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Size of the reserve, in bytes.
pub(super) const RESERVE_BYTES: u64 = 10 * 1024 * 1024;
/// Divisors of the size to try if there is no room for all of it.
const SHARES: [u64; 4] = [1, 2, 4, 8];
/// Number of attempts to allocate space while the obstacle may pass.
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

    /// Completes the reserve if there is room. Lack of room is not a failure: the vault works without it.
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

    /// Returns the space to the file system. Returns whether there was any.
    pub(super) fn release(&self) -> bool {
        // Truncate first: a process that has the file open would keep its blocks.
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
                // A file system that cannot reserve blocks allocates them for written data.
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
