//! Last writer of the index, and whether its data can be trusted.
//!
//! sled's flush is no fsync: after a crash of the machine its files may hold anything. After a crash of the process
//! alone they hold all writes, since the kernel still has it. So the file `OWNER` in the index's folder says either
//! that the index was closed (and synced by us), or which boot of which machine and which folder it was open in.

use super::super::folder::replace_file;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const CLEAN: &str = "closed\n";
const OWNER_BYTES_MAX: u64 = 4_096;

/// The process that has the index open, as far as it matters.
pub(super) struct Owner(String);

impl Owner {
    /// This process, and the folder as it finds it.
    pub(super) fn here(dir: &Path) -> io::Result<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(
            |_| format!("unknown-{}", std::process::id()),
            |boot| boot.trim().to_owned(),
        );
        let folder = fs::metadata(dir)?;
        Ok(Self(format!(
            "open boot {boot} device {} inode {}\n",
            folder.dev(),
            folder.ino()
        )))
    }

    /// Whether the index in the folder can be trusted.
    pub(super) fn may_trust(&self, dir: &Path) -> bool {
        let path = path(dir);
        let short = fs::metadata(&path).is_ok_and(|file| file.len() <= OWNER_BYTES_MAX);
        short && fs::read_to_string(&path).is_ok_and(|owner| owner == CLEAN || owner == self.0)
    }

    /// Says, durably, that the index is open here.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        replace_file(&path(dir), self.0.as_bytes())
    }

    /// Marks the index there as not to be trusted. Needs no room.
    pub(super) fn forget(dir: &Path) -> io::Result<()> {
        match fs::remove_file(path(dir)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Says, durably, that the index was closed.
    pub(super) fn write_clean(dir: &Path) -> io::Result<()> {
        replace_file(&path(dir), CLEAN.as_bytes())
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("OWNER")
}
