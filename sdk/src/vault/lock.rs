//! The lock beside a vault, and what it says of how the vault was left.
//!
//! `<vault>.lock` is locked as long as the vault is open. It also holds one line, so that the next one to open the vault
//! knows whether these are the very files that were left here:
//!
//! | line | means |
//! |---|---|
//! | `closed BYTES MODIFIED_NS` | closed in order, with the database file as described |
//! | `open INODE` | open; if nobody holds the lock, the process that had it open was killed |
//! | `restoring` | a restore puts another file in this one's place |
//! | `left` | nothing is known |
//!
//! The line is a hint and not synced, except around a restore. A vault that does not fit it is checked before it is used:
//! that takes time, and loses nothing. Files that were copied here from elsewhere do not fit: neither those of a running
//! agent, whose database and write-ahead log were read at different moments, nor a vault without its lock.

use super::{VaultError, key};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The line has a fixed length: written over, it needs no more room on a full disk.
const LINE_BYTES: usize = 64;

/// How the files of a vault got to be what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// There is no vault yet.
    New,
    /// Closed in order, and not touched since.
    Closed,
    /// The process that had it open was killed here; or nothing is known, as an older version has left it.
    Left,
    /// They were put here by someone else: a copy.
    Foreign,
}

/// The lock, held.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    vault: PathBuf,
    /// There was a lock file.
    was_there: bool,
    /// The vault is in use: say how it is left.
    in_use: bool,
}

impl Lock {
    /// Takes the lock of a vault, or says that another process has it.
    pub(super) fn take(vault: &Path) -> Result<Self, VaultError> {
        let name = key::beside(vault, "lock");
        let fail = |error: &std::io::Error| VaultError::file(format!("locking {}", name.display()), error);
        let was_there = name.exists();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&name).map_err(|error| fail(&error))?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                file,
                vault: vault.to_owned(),
                was_there,
                in_use: false,
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(VaultError::InUse { path: vault.to_owned() }),
            Err(error) => Err(fail(&error.into())),
        }
    }

    /// How the vault's files got to be what they are.
    pub(super) fn origin(&self) -> Origin {
        let Some(found) = present(&self.vault) else {
            return Origin::New;
        };
        let line = self.line().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let number = |word: &str| -> Option<u64> { word.parse().ok() };
        match (words.next(), words.next(), words.next()) {
            (Some("closed"), Some(bytes), Some(modified)) => {
                if (number(bytes), number(modified)) != (Some(found.len()), Some(modified_ns(&found))) {
                    Origin::Foreign
                } else if has_log(&self.vault) {
                    Origin::Left
                } else {
                    Origin::Closed
                }
            }
            (Some("open"), Some(inode), None) if number(inode) == Some(found.ino()) => Origin::Left,
            (Some("open"), ..) => Origin::Foreign,
            // `left`, or what an older version left: nothing.
            _ if self.was_there => Origin::Left,
            _ => Origin::Foreign,
        }
    }

    /// Whether a restore was begun and not finished.
    pub(super) fn is_restoring(&self) -> bool {
        self.line().is_ok_and(|line| line.trim_end() == "restoring")
    }

    /// Says, durably, that a restore is about to replace the vault.
    pub(super) fn say_restoring(&self) -> std::io::Result<()> {
        self.say("restoring")?;
        self.file.sync_all()
    }

    /// Says, durably, that nothing is known of how the vault was left.
    pub(super) fn say_left(&self) -> std::io::Result<()> {
        self.say("left")?;
        self.file.sync_all()
    }

    /// Says that the vault is in use. From here on it also says how it is left.
    pub(super) fn say_open(&mut self) {
        if let Some(found) = present(&self.vault) {
            self.hint(&format!("open {}", found.ino()));
        }
        self.in_use = true;
    }

    /// Says that nothing is left to be done with the vault's file as it is.
    pub(super) fn say_closed(&self) {
        if let Some(found) = present(&self.vault) {
            self.hint(&format!("closed {} {}", found.len(), modified_ns(&found)));
        }
    }

    fn line(&self) -> std::io::Result<String> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        let mut line = String::new();
        file.take(LINE_BYTES as u64).read_to_string(&mut line)?;
        Ok(line)
    }

    fn say(&self, what: &str) -> std::io::Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(format!("{what:<width$}\n", width = LINE_BYTES - 1).as_bytes())
    }

    fn hint(&self, what: &str) {
        if let Err(error) = self.say(what) {
            // The vault is checked the next time, that is all.
            tracing::debug!(vault = %self.vault.display(), %error, "cannot write to the vault's lock file");
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The last connection that is closed in order takes the write-ahead log away.
        if self.in_use && !has_log(&self.vault) {
            self.say_closed();
        }
    }
}

/// The database file, if there is anything in it.
pub(super) fn present(vault: &Path) -> Option<Metadata> {
    std::fs::metadata(vault).ok().filter(|found| found.len() > 0)
}

/// Whether something waits in the write-ahead log.
pub(super) fn has_log(vault: &Path) -> bool {
    std::fs::metadata(log_of(vault)).is_ok_and(|found| found.len() > 0)
}

/// SQLite's write-ahead log of a database.
pub(super) fn log_of(vault: &Path) -> PathBuf {
    let mut name = vault.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

fn modified_ns(found: &Metadata) -> u64 {
    let (s, ns) = (found.mtime().unsigned_abs(), found.mtime_nsec().unsigned_abs());
    s.saturating_mul(1_000_000_000).saturating_add(ns)
}
