//! Restoring a vault from a backup.
//!
//! A crash at any instruction loses nothing. The replaced vault first gets a second name, as does its write-ahead log.
//! Then:
//! ```text
//!   <vault>.restoring      checked, marked, synced
//!   lock: "restoring"      synced
//!   rename(<vault>.restoring, <vault>)
//!   remove <vault>-wal     it belongs to the vault that was replaced
//!   lock: "closed"
//! ```
//! After a crash in between, the next open undoes the restore if the rename was not done, and completes it if it was.
//! Otherwise SQLite would apply the old write-ahead log to the new file.

use super::backup::{close, rename};
use super::lock::{Lock, has_log, log_of, present};
use super::{VaultError, VaultKey, check, key, keyed, mark, refuse_plain_sqlite, schema};
use rusqlite::OpenFlags;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Result of restoring a vault from a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoreInfo {
    /// The vault.
    pub vault: PathBuf,
    /// Its length, in bytes.
    pub bytes: u64,
    /// Time of the backup, unix milliseconds; `None` if it is a plain copy of a vault.
    pub backup_ms: Option<u64>,
    /// Path of the replaced vault.
    pub replaced: Option<PathBuf>,
}

/// Restores a vault from a backup. `key` opens the backup; for a passphrase its parameters are beside it
/// (`<file>.kdf`).
///
/// An existing vault is replaced only if `replace` is set, and is never deleted: [`RestoreInfo::replaced`] names it. An
/// agent that has the vault open must be closed first. The restored vault takes fresh keys in every channel when it is
/// used.
pub fn restore(file: &Path, vault: &Path, key: &VaultKey, replace: bool) -> Result<RestoreInfo, VaultError> {
    refuse_plain_sqlite()?;
    let reading = |error: &std::io::Error| VaultError::file(format!("reading {}", file.display()), error);
    let source = File::open(file).map_err(|error| reading(&error))?;
    let found = source.metadata().map_err(|error| reading(&error))?;
    let unsuitable = |problem: &str| {
        Err(VaultError::Unsuitable {
            path: file.to_owned(),
            problem: problem.into(),
        })
    };
    if !found.is_file() || found.len() == 0 {
        return unsuitable("it is not a backup");
    }
    if has_log(file) {
        return unsuitable("there is a write-ahead log beside it, so it is a vault, not a backup: open it as it is");
    }
    let lock = Lock::take(vault)?;
    settle(vault, &lock)?;
    let before = present(vault);
    if before
        .as_ref()
        .is_some_and(|before| (before.dev(), before.ino()) == (found.dev(), found.ino()))
    {
        return unsuitable("it is the vault itself");
    }
    if before.is_some() && !replace {
        return Err(VaultError::Exists { path: vault.to_owned() });
    }
    let opened = key.resolve(file, true)?;

    let mut begun = Begun::default();
    let restoring = begun.file(key::beside(vault, "restoring"));
    copy(source, &restoring)?;
    let sql = keyed(&restoring, &opened, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    schema::refuse_foreign(&sql)?;
    check::all(&sql)?;
    // Nobody else uses the copy before it has its name: it needs no journal.
    sql.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF;")?;
    let backup = mark::backup(&sql)?;
    let transaction = sql.unchecked_transaction()?;
    mark::set_restored(&transaction)?;
    transaction.commit()?;
    close(sql)?;
    let bytes = sync(&restoring)?;
    if key.kind() == key::Kind::Passphrase {
        let parameters = begun.file(key::beside(&key::beside(vault, "kdf"), "restoring"));
        key::copy_parameters(&key::beside(file, "kdf"), &parameters)?;
    }

    let writing = |error: &std::io::Error| VaultError::file(format!("writing {}", vault.display()), error);
    let replaced = before.map(|_| keep_aside(vault, &mut begun)).transpose()?;
    key::sync_folder(vault).map_err(|error| writing(&error))?;
    lock.say_restoring().map_err(|error| writing(&error))?;
    if let Err(error) = rename(&restoring, vault, true) {
        settle(vault, &lock)?;
        return Err(writing(&error));
    }
    begun.done();
    finish(vault, &lock)?;
    Ok(RestoreInfo {
        vault: vault.to_owned(),
        bytes,
        backup_ms: backup.map(|mark| mark.at_ms),
        replaced,
    })
}

/// Completes or undoes an interrupted restore.
pub(super) fn settle(vault: &Path, lock: &Lock) -> Result<(), VaultError> {
    if !lock.is_restoring() {
        return Ok(());
    }
    let restoring = key::beside(vault, "restoring");
    if restoring.symlink_metadata().is_err() {
        return finish(vault, lock);
    }
    let fail = |error: &std::io::Error| VaultError::file(format!("writing {}", vault.display()), error);
    remove(&key::beside(&key::beside(vault, "kdf"), "restoring")).map_err(|error| fail(&error))?;
    // The vault is as it was, even if a crash happens right after this.
    lock.say_left().map_err(|error| fail(&error))?;
    remove(&restoring).map_err(|error| fail(&error))
}

fn finish(vault: &Path, lock: &Lock) -> Result<(), VaultError> {
    let fail = |error: &std::io::Error| VaultError::file(format!("writing {}", vault.display()), error);
    let done = || {
        remove(&log_of(vault))?;
        remove(&journal_of(vault))?;
        let parameters = key::beside(vault, "kdf");
        match std::fs::rename(key::beside(&parameters, "restoring"), &parameters) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        key::sync_folder(vault)
    };
    done().map_err(|error| fail(&error))?;
    lock.say_closed();
    Ok(())
}

/// Gives each file of a vault a second name, and returns the vault's.
fn keep_aside(vault: &Path, begun: &mut Begun) -> Result<PathBuf, VaultError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let aside = key::beside(vault, &format!("replaced-{}", since.as_millis()));
    let fail = |error: &std::io::Error| VaultError::file(format!("keeping {}", aside.display()), error);
    let names = [
        (vault.to_owned(), aside.clone()),
        (log_of(vault), log_of(&aside)),
        (journal_of(vault), journal_of(&aside)),
        (key::beside(vault, "kdf"), key::beside(&aside, "kdf")),
    ];
    for (from, to) in names {
        if from.symlink_metadata().is_err() {
            continue;
        }
        match std::fs::hard_link(&from, &to) {
            Ok(()) => {
                begun.file(to);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(VaultError::Exists { path: to }),
            // A file system without second names.
            Err(_) => {
                let to = begun.file(to);
                copy(File::open(&from).map_err(|error| fail(&error))?, &to)?;
                sync(&to)?;
            }
        }
    }
    Ok(aside)
}

/// Files to remove if the restore is not completed.
#[derive(Default)]
struct Begun(Vec<PathBuf>);

impl Begun {
    fn file(&mut self, path: PathBuf) -> PathBuf {
        self.0.push(path.clone());
        path
    }

    fn done(&mut self) {
        self.0.clear();
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = remove(path);
        }
    }
}

fn copy(mut from: File, to: &Path) -> Result<(), VaultError> {
    let fail = |error: &std::io::Error| VaultError::file(format!("writing {}", to.display()), error);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(to).map_err(|error| fail(&error))?;
    std::io::copy(&mut from, &mut file)
        .map(drop)
        .map_err(|error| fail(&error))
}

/// Makes a file durable, and returns its length.
fn sync(path: &Path) -> Result<u64, VaultError> {
    let synced = File::open(path).and_then(|file| {
        file.sync_all()?;
        Ok(file.metadata()?.len())
    });
    synced.map_err(|error| VaultError::file(format!("writing {}", path.display()), &error))
}

fn journal_of(vault: &Path) -> PathBuf {
    let mut name = vault.as_os_str().to_owned();
    name.push("-journal");
    name.into()
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
