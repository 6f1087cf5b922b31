//! The lock beside a vault, and its record of how the vault was closed.
//!
//! `<vault>.lock` is locked while the vault is open. By its first line, the next process to open the vault sees whether
//! its files are the ones that were left here:
//!
//! | line | means |
//! |---|---|
//! | `closed BYTES MODIFIED_NS` | closed in order, with the database file as described |
//! | `open INODE` | open; if nobody holds the lock, the process that had it open was killed |
//! | `restoring` | a restore puts another file in this one's place |
//! | `left` | nothing is known |
//!
//! The line is a hint and not synced, except around a restore. A vault that does not match it is checked before use:
//! that takes time, but loses nothing. Files copied from elsewhere do not match: neither those of a running agent,
//! whose database and write-ahead log were read at different moments, nor a vault without its lock.
//!
//! The second line is `process ID`: the process that took the lock last. It is meaningful only while the lock is held,
//! and may be missing, since older versions do not write it.

use super::{VaultError, key};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Fixed length of a line: overwriting it needs no room on a full disk.
const LINE_BYTES: usize = 64;
/// Start of the second line.
const PROCESS: &str = "process";

/// Origin of the files of a vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// There is no vault yet.
    New,
    /// Closed in order, and not touched since.
    Closed,
    /// The process that had it open was killed here; or nothing is known, since an older version closed it.
    Left,
    /// The files were put here by someone else: a copy.
    Foreign,
}

/// The held lock.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    vault: PathBuf,
    /// Whether there was a lock file.
    was_there: bool,
    /// Whether the vault is in use, so that its state must be recorded on closing.
    in_use: bool,
}

impl Lock {
    /// Takes the lock of a vault; fails if another process has it.
    pub(super) fn take(vault: &Path) -> Result<Self, VaultError> {
        let name = key::beside(vault, "lock");
        let fail = |error: &std::io::Error| VaultError::file(format!("locking {}", name.display()), error);
        let was_there = name.exists();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&name).map_err(|error| fail(&error))?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let lock = Self {
                    file,
                    vault: vault.to_owned(),
                    was_there,
                    in_use: false,
                };
                lock.say_process();
                Ok(lock)
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Err(VaultError::InUse {
                path: vault.to_owned(),
                process: holder(&file),
            }),
            Err(error) => Err(fail(&error.into())),
        }
    }

    /// Returns the origin of the vault's files.
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
            // `left`, or nothing, from an older version.
            _ if self.was_there => Origin::Left,
            _ => Origin::Foreign,
        }
    }

    /// Whether a restore was started and not finished.
    pub(super) fn is_restoring(&self) -> bool {
        self.line().is_ok_and(|line| line.trim_end() == "restoring")
    }

    /// Durably records that a restore is about to replace the vault.
    pub(super) fn say_restoring(&self) -> std::io::Result<()> {
        self.say("restoring")?;
        self.file.sync_all()
    }

    /// Durably records that the state of the vault is unknown.
    pub(super) fn say_left(&self) -> std::io::Result<()> {
        self.say("left")?;
        self.file.sync_all()
    }

    /// Records that the vault is in use. From here on its state is recorded on closing, too.
    pub(super) fn say_open(&mut self) {
        if let Some(found) = present(&self.vault) {
            self.hint(&format!("open {}", found.ino()));
        }
        self.in_use = true;
    }

    /// Records that the vault's file is complete.
    pub(super) fn say_closed(&self) {
        if let Some(found) = present(&self.vault) {
            self.hint(&format!("closed {} {}", found.len(), modified_ns(&found)));
        }
    }

    /// Records the process that has the vault open, as soon as it is locked: a check may take long.
    fn say_process(&self) {
        let said = || {
            // The first line is kept, whatever it is.
            if self.file.metadata()?.len() < LINE_BYTES as u64 {
                let before = self.line().unwrap_or_default();
                self.say(before.trim_end())?;
            }
            write_line(&self.file, 1, &format!("{PROCESS} {}", std::process::id()))
        };
        if let Err(error) = said() {
            // Only informs other processes: it may be missing.
            tracing::debug!(vault = %self.vault.display(), %error, "cannot write to the vault's lock file");
        }
    }

    fn line(&self) -> std::io::Result<String> {
        read_line(&self.file, 0)
    }

    fn say(&self, what: &str) -> std::io::Result<()> {
        write_line(&self.file, 0, what)
    }

    fn hint(&self, what: &str) {
        if let Err(error) = self.say(what) {
            // The only effect: the vault is checked the next time.
            tracing::debug!(vault = %self.vault.display(), %error, "cannot write to the vault's lock file");
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A clean close of the last connection removes the write-ahead log.
        if self.in_use && !has_log(&self.vault) {
            self.say_closed();
        }
        release(&self.file);
    }
}

/// Releases the lock of a file. Closing it is not enough: a process that is just being started has every open file until
/// it executes its program, and would hold the lock for that moment.
pub(super) fn release(file: &File) {
    if let Err(error) = rustix::fs::flock(file, rustix::fs::FlockOperation::Unlock) {
        tracing::debug!(%error, "cannot release a lock");
    }
}

fn read_line(mut file: &File, number: u64) -> std::io::Result<String> {
    file.seek(SeekFrom::Start(number * LINE_BYTES as u64))?;
    let mut line = String::new();
    file.take(LINE_BYTES as u64).read_to_string(&mut line)?;
    Ok(line)
}

fn write_line(mut file: &File, number: u64, what: &str) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(number * LINE_BYTES as u64))?;
    file.write_all(format!("{what:<width$}\n", width = LINE_BYTES - 1).as_bytes())
}

/// Returns the process that holds a lock, according to the lock's file. A version that writes no second line may leave
/// the id of a process that has ended.
fn holder(file: &File) -> Option<u32> {
    let line = read_line(file, 1).ok()?;
    let id = line.trim_end().strip_prefix(PROCESS)?.trim_start();
    let process = id.parse().ok()?;
    let processes = Path::new("/proc");
    let lives = !processes.join("self").exists() || processes.join(id).exists();
    lives.then_some(process)
}

/// Returns the metadata of the database file, if it is not empty.
pub(super) fn present(vault: &Path) -> Option<Metadata> {
    std::fs::metadata(vault).ok().filter(|found| found.len() > 0)
}

/// Whether the write-ahead log has data.
pub(super) fn has_log(vault: &Path) -> bool {
    std::fs::metadata(log_of(vault)).is_ok_and(|found| found.len() > 0)
}

/// Returns the path of a database's write-ahead log.
pub(super) fn log_of(vault: &Path) -> PathBuf {
    let mut name = vault.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

fn modified_ns(found: &Metadata) -> u64 {
    let (s, ns) = (found.mtime().unsigned_abs(), found.mtime_nsec().unsigned_abs());
    s.saturating_mul(1_000_000_000).saturating_add(ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_use(vault: &Path) -> Option<u32> {
        match Lock::take(vault) {
            Err(VaultError::InUse { process, .. }) => process,
            taken => panic!("{taken:?}"),
        }
    }

    #[test]
    fn who_holds_a_lock_is_named_and_how_the_vault_was_left_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let vault = folder.path().join("vault.db");
        std::fs::write(&vault, b"content").expect("written");
        // Like a version that wrote one line.
        let file = key::beside(&vault, "lock");
        let lock = Lock::take(&vault).expect("free");
        lock.say_closed();
        drop(lock);
        OpenOptions::new()
            .write(true)
            .open(&file)
            .and_then(|file| file.set_len(LINE_BYTES as u64))
            .expect("shortened");
        let before = std::fs::read(&file).expect("read");

        let mut lock = Lock::take(&vault).expect("free");
        assert_eq!(in_use(&vault), Some(std::process::id()));
        assert_eq!(lock.origin(), Origin::Closed);
        assert_eq!(std::fs::read(&file).expect("read")[..LINE_BYTES], before);
        lock.say_open();
        assert_eq!(in_use(&vault), Some(std::process::id()));
        drop(lock);
        let lock = Lock::take(&vault).expect("free");
        assert_eq!(lock.origin(), Origin::Closed);
        lock.say_restoring().expect("written");
        assert!(lock.is_restoring());
        drop(lock);
        assert!(Lock::take(&vault).expect("free").is_restoring());
    }

    #[test]
    fn a_released_lock_is_free_although_a_process_that_is_being_started_has_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let vault = folder.path().join("vault.db");
        let lock = Lock::take(&vault).expect("free");
        let _of_the_other = lock.file.try_clone().expect("cloned");
        drop(lock);
        Lock::take(&vault).expect("free");
    }

    #[test]
    fn a_lock_that_names_nobody_or_nonsense_is_in_use_all_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let vault = folder.path().join("vault.db");
        let held = Lock::take(&vault).expect("free");
        for (line, length) in [
            ("", 0),
            ("process", 1),
            ("process 1x", 1),
            ("4294967296", 1),
            ("process -1", 1),
        ] {
            held.file.set_len(LINE_BYTES as u64 * (1 + length)).expect("set");
            if length > 0 {
                write_line(&held.file, 1, line).expect("written");
            }
            assert_eq!(in_use(&vault), None, "{line}");
        }
        let name = key::beside(&vault, "lock");
        std::fs::write(&name, [0xff; 4 * LINE_BYTES]).expect("written");
        assert_eq!(in_use(&vault), None);
        assert_eq!(held.origin(), Origin::New);
    }
}
