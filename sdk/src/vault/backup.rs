//! Backups: a consistent copy of a vault, made while the vault is in use.

use super::lock::release;
use super::{Vault, VaultError, check, key, keyed, mark};
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A backup that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BackupInfo {
    /// The file.
    #[serde(with = "crate::share::octets::path")]
    pub path: PathBuf,
    /// Its length, in bytes.
    pub bytes: u64,
    /// Time of the backup, unix milliseconds by this machine's clock.
    pub at_ms: u64,
    /// The key that opens it.
    pub key: BackupKey,
}

/// Key of a backup: the key of the vault that it was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum BackupKey {
    /// The passphrase, with the parameters in this file, which was written beside the backup and belongs to it.
    Passphrase {
        /// `<backup>.kdf`.
        #[serde(with = "crate::share::octets::path")]
        parameters: PathBuf,
    },
    /// The vault's key file. It is not part of the backup.
    File {
        /// The file that the vault uses.
        #[serde(with = "crate::share::octets::path")]
        path: PathBuf,
    },
    /// The raw key, which the application has.
    Raw,
}

/// A file in progress, before it has its final name.
struct Partial {
    file: File,
    path: PathBuf,
    done: bool,
}

impl Vault {
    /// Writes a copy of the vault as it is now: encrypted with the vault's key, readable by its owner only, durable and
    /// checked before it gets its name. An existing file is replaced only if `replace` is set.
    pub(crate) fn backup(&self, target: &Path, replace: bool) -> Result<BackupInfo, VaultError> {
        self.refuse_own_files(target)?;
        let parameters = key::beside(target, "kdf");
        let needs_parameters = self.opened_with == key::Kind::Passphrase;
        for path in [target, &parameters]
            .into_iter()
            .take(1 + usize::from(needs_parameters))
        {
            if !replace && path.symlink_metadata().is_ok() {
                return Err(VaultError::Exists { path: path.to_owned() });
            }
        }
        let mut partial = Partial::create(target)?;
        let name = partial.path.to_str().ok_or_else(|| VaultError::Unsuitable {
            path: target.to_owned(),
            problem: "a backup needs a name in UTF-8".into(),
        })?;
        // The copy has no free pages, and so no deleted data. It gets the key of the original database.
        match mark::lineage(&self.connection) {
            // Only a vault of an older version has none. If it cannot be stored there, it is stored in the copy.
            Err(error) if !error.is_full() && !self.read_only => return Err(error),
            _ => {}
        }
        self.connection.execute("VACUUM INTO ?1", [name])?;
        let copy = keyed(&partial.path, &self.key, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // Nobody else uses the copy before it has its name: it needs no journal.
        copy.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF;")?;
        let made = mark::set_backup(&copy, mark::lineage(&copy)?)?;
        close(copy)?;
        partial.sync()?;
        check::all(&keyed(&partial.path, &self.key, OpenFlags::SQLITE_OPEN_READ_ONLY)?)?;
        let bytes = partial.bytes()?;
        let key = match &self.opened_with {
            key::Kind::Passphrase => {
                key::copy_parameters(&key::beside(&self.path, "kdf"), &parameters)?;
                BackupKey::Passphrase { parameters }
            }
            key::Kind::File(path) => BackupKey::File { path: path.clone() },
            key::Kind::Raw => BackupKey::Raw,
        };
        partial.publish(target, replace)?;
        Ok(BackupInfo {
            path: target.to_owned(),
            bytes,
            at_ms: made.at_ms,
            key,
        })
    }

    /// Refuses to replace the vault, its lock or its write-ahead log, which would destroy the vault.
    fn refuse_own_files(&self, target: &Path) -> Result<(), VaultError> {
        let same = |own: &Path| match (own.metadata(), target.metadata()) {
            (Ok(own), Ok(target)) => (own.dev(), own.ino()) == (target.dev(), target.ino()),
            _ => false,
        };
        let mut own = vec![self.path.clone(), super::lock::log_of(&self.path)];
        own.extend(["lock", "kdf", "key", "reserve"].map(|suffix| key::beside(&self.path, suffix)));
        if let key::Kind::File(path) = &self.opened_with {
            own.push(path.clone());
        }
        if own.iter().any(|own| own == target || same(own)) {
            return Err(VaultError::Unsuitable {
                path: target.to_owned(),
                problem: "it is a file of the vault itself".into(),
            });
        }
        Ok(())
    }
}

impl Partial {
    fn create(target: &Path) -> Result<Self, VaultError> {
        let path = key::beside(target, "partial");
        let fail = |error: &std::io::Error| VaultError::file(format!("writing {}", path.display()), error);
        let busy = || VaultError::Unsuitable {
            path: target.to_owned(),
            problem: "another backup is being written there".into(),
        };
        let lock = |file: &File| match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Err(busy()),
            locked => locked.map_err(|error| fail(&error.into())),
        };
        // A killed backup may have left a file. Others may use the folder, too: nothing of theirs is written to.
        if let Ok(left) = File::open(&path) {
            lock(&left)?;
            std::fs::remove_file(&path).map_err(|error| fail(&error))?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = match options.open(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(busy()),
            file => file.map_err(|error| fail(&error))?,
        };
        lock(&file)?;
        Ok(Self {
            file,
            path,
            done: false,
        })
    }

    fn sync(&self) -> Result<(), VaultError> {
        self.file
            .sync_all()
            .map_err(|error| VaultError::file(format!("writing {}", self.path.display()), &error))
    }

    fn bytes(&self) -> Result<u64, VaultError> {
        let found = self.file.metadata();
        Ok(found
            .map_err(|error| VaultError::file(format!("writing {}", self.path.display()), &error))?
            .len())
    }

    fn publish(&mut self, target: &Path, replace: bool) -> Result<(), VaultError> {
        let fail = |error: &std::io::Error| VaultError::file(format!("writing {}", target.display()), error);
        match rename(&self.path, target, replace) {
            Ok(()) => self.done = true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(VaultError::Exists {
                    path: target.to_owned(),
                });
            }
            Err(error) => return Err(fail(&error)),
        }
        key::sync_folder(target).map_err(|error| fail(&error))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.done {
            let _ = std::fs::remove_file(&self.path);
        }
        release(&self.file);
    }
}

/// Renames a file; the new name must be free, unless `replace` is set.
pub(super) fn rename(from: &Path, to: &Path, replace: bool) -> std::io::Result<()> {
    if replace {
        return std::fs::rename(from, to);
    }
    let cwd = rustix::fs::CWD;
    match renameat_with(cwd, from, cwd, to, RenameFlags::NOREPLACE) {
        // A file system that cannot tell.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => match to.symlink_metadata() {
            Ok(_) => Err(ErrorKind::AlreadyExists.into()),
            Err(_) => std::fs::rename(from, to),
        },
        done => Ok(done?),
    }
}

/// Closes a database; fails if SQLite cannot close it.
pub(super) fn close(connection: Connection) -> Result<(), VaultError> {
    connection.close().map_err(|(_, error)| error.into())
}
