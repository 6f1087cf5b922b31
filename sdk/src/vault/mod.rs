//! The vault: one SQLCipher database that holds all that an agent must not lose, and secrets that nobody else may have.
//!
//! - Every page is encrypted and authenticated (AES-256, HMAC-SHA512) with a key that [`VaultKey`] gives. A program that
//!   was linked with plain SQLite is refused before anything is written.
//! - One process at a time: `<vault>.lock` is held as long as the vault is open. Others work through that one: see
//!   [`Agent::open_or_attach`](crate::agent::Agent::open_or_attach).
//! - A transaction is durable when it returns (write-ahead log, `synchronous = FULL`); one that only replays a log is whole
//!   or not there, and durable with the next one that is (`Durability`).
//! - Deleted secrets are overwritten (`secure_delete`), so that a key that MLS has thrown away does not linger in a free
//!   page for whoever learns the vault's key later.

mod error;
mod key;
mod schema;

pub use error::VaultError;
pub use key::VaultKey;
pub(crate) use key::{Key, random};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction};
use skytale_proto::Offset;
use std::cell::Cell;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use zeroize::Zeroizing;

/// When a transaction must have reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// When it returns: what leaves the vault because of it (a ciphertext, an acknowledgement) must not be forgotten.
    Now,
    /// With the next one that is durable, or a moment later. For what can be had again: a log's entries after the cursor
    /// that the vault remembers. A process that is killed loses nothing; a machine that loses power goes back to
    /// an earlier cursor, and replays.
    Later,
}

/// An open vault.
pub(crate) struct Vault {
    connection: Connection,
    /// What `PRAGMA synchronous` is set to.
    durability: Cell<Durability>,
    share_key: Key,
    /// Dropped after the connection: fields are dropped in order.
    _lock: File,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault([redacted])")
    }
}

/// Statements kept prepared.
const STATEMENTS_CACHED: usize = 96;
/// `PRAGMA auto_vacuum`, as a number.
const AUTO_VACUUM_INCREMENTAL: u64 = 2;
/// Pages given back at once.
const COMPACTED_PAGES_MAX: u32 = 2_048;
/// No more than one page of so many is left free for what comes.
const FREE_SHARE_MAX: u64 = 4;
/// What is read of a lock's file.
const PROCESS_ID_BYTES_MAX: u64 = 16;

impl Vault {
    /// Opens a vault, or makes an empty one.
    pub(crate) fn open(path: &Path, key: &VaultKey) -> Result<Self, VaultError> {
        let lock = lock(path)?;
        let exists = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0);
        refuse_plain_sqlite()?;
        let key = key.resolve(path, exists)?;
        if !exists {
            // SQLite would make it readable by others, as far as the umask lets it.
            let fail = |error| VaultError::io(format!("making {}", path.display()), error);
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600);
            options.open(path).and_then(|file| file.sync_all()).map_err(fail)?;
            key::sync_folder(path).map_err(fail)?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)
            .map_err(|error| VaultError::io(format!("opening {}", path.display()), error))?;
        unlock(&connection, &key)?;
        match connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(())) {
            Err(rusqlite::Error::SqliteFailure(error, _)) if error.code == ErrorCode::NotADatabase => {
                return Err(VaultError::Key {
                    path: path.to_owned(),
                    problem: "the key is wrong, or this is not a vault".into(),
                });
            }
            other => other?,
        }
        // Exclusive: with one process there is no need for shared memory beside the file. How free pages are given back has
        // to be said before anything is written.
        connection.execute_batch(
            "PRAGMA auto_vacuum = INCREMENTAL;
             PRAGMA locking_mode = EXCLUSIVE;
             PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA secure_delete = ON;
             PRAGMA wal_autocheckpoint = 2048;
             PRAGMA journal_size_limit = 16777216;
             PRAGMA temp_store = MEMORY;
             PRAGMA cache_size = -16384;
             PRAGMA trusted_schema = OFF;",
        )?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
        schema::migrate(&connection)?;
        Ok(Self {
            connection,
            durability: Cell::new(Durability::Now),
            share_key: share_key(&key),
            _lock: lock,
        })
    }

    /// Begins a transaction. It is rolled back when it is dropped without a commit.
    pub(crate) fn begin(&self, durability: Durability) -> Result<Transaction<'_>, VaultError> {
        if self.durability.get() != durability {
            // Each transaction in the write-ahead log stands after those before it: one sync makes all of them durable.
            self.connection.execute_batch(match durability {
                Durability::Now => "PRAGMA synchronous = FULL",
                Durability::Later => "PRAGMA synchronous = NORMAL",
            })?;
            self.durability.set(durability);
        }
        Ok(self.connection.unchecked_transaction()?)
    }

    /// Gives free pages back to the file system, a piece at a time, and empties the write-ahead log when there are none
    /// left. Whether there are more.
    pub(crate) fn compact(&self) -> Result<bool, VaultError> {
        if self.number("PRAGMA auto_vacuum")? != AUTO_VACUUM_INCREMENTAL {
            // Made by a version that did not say how. Once, in memory: it takes as much as is left in the vault.
            self.connection
                .execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM;")?;
        }
        let before = self.number("PRAGMA freelist_count")?;
        if before > 0 {
            let mut statement = self
                .connection
                .prepare(&format!("PRAGMA incremental_vacuum({COMPACTED_PAGES_MAX})"))?;
            let mut rows = statement.query([])?;
            // Each step gives back a page.
            while rows.next()?.is_some() {}
        }
        let after = self.number("PRAGMA freelist_count")?;
        if after > 0 && after < before {
            return Ok(true);
        }
        self.empty_log()?;
        Ok(false)
    }

    /// What was deleted is overwritten in the database: makes it be gone from the write-ahead log, too, and compacts where
    /// much of the file is free. Otherwise free pages wait for what comes. Whether there is more to be done.
    pub(crate) fn settle_freed(&self) -> Result<bool, VaultError> {
        let (free, all) = (self.number("PRAGMA freelist_count")?, self.number("PRAGMA page_count")?);
        if free.saturating_mul(FREE_SHARE_MAX) > all {
            return self.compact();
        }
        self.empty_log()?;
        Ok(false)
    }

    /// Brings all of the write-ahead log into the database, and cuts its file to nothing.
    fn empty_log(&self) -> Result<(), VaultError> {
        let busy: i64 = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        match busy {
            0 => Ok(()),
            _ => Err(VaultError::io("emptying the write-ahead log", "the database is busy")),
        }
    }

    fn number(&self, pragma: &str) -> Result<u64, VaultError> {
        unsigned(self.connection.query_row(pragma, [], |row| row.get(0))?)
    }

    /// The key by which another process proves that it may use this vault.
    pub(crate) fn share_key(&self) -> Key {
        self.share_key.clone()
    }

    /// The database.
    pub(crate) fn sql(&self) -> &Connection {
        &self.connection
    }

    /// Keeps a value under a name, in the place of the one before. For what can be had again: it is durable with what comes
    /// next.
    pub(crate) fn keep(&self, name: &str, value: &[u8]) -> Result<(), VaultError> {
        let transaction = self.begin(Durability::Later)?;
        transaction.execute(
            "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)",
            (name, value),
        )?;
        Ok(transaction.commit()?)
    }

    /// What is kept under a name.
    pub(crate) fn kept(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, VaultError> {
        Ok(self
            .connection
            .query_row("SELECT value FROM meta WHERE key = ?1", [name], |row| {
                row.get::<_, Vec<u8>>(0).map(Zeroizing::new)
            })
            .optional()?)
    }

    /// A secret of 32 bytes that is made once, under a name.
    pub(crate) fn secret(&self, name: &str) -> Result<Zeroizing<[u8; 32]>, VaultError> {
        let stored = self.kept(name)?;
        let mut secret = Zeroizing::new([0; 32]);
        match stored {
            Some(stored) if stored.len() == secret.len() => secret.copy_from_slice(&stored),
            Some(_) => return Err(VaultError::damaged(format!("secret `{name}`"))),
            None => {
                random(secret.as_mut_slice())?;
                self.connection.execute(
                    "INSERT INTO meta (key, value) VALUES (?1, ?2)",
                    (name, secret.as_slice()),
                )?;
            }
        }
        Ok(secret)
    }
}

/// Bits of a message's id that are its offset.
const OFFSET_BITS: u32 = 40;

/// The id of a channel's message: its number, then the offset.
pub(crate) fn message_id(channel_no: i64, offset: Offset) -> Result<i64, VaultError> {
    let offset = integer(offset.get())?;
    if offset >> OFFSET_BITS != 0 || channel_no >> (63 - OFFSET_BITS) != 0 {
        return Err(VaultError::damaged("offset or channel number out of range"));
    }
    Ok((channel_no << OFFSET_BITS) | offset)
}

/// The offset in a message's id.
pub(crate) fn message_offset(id: i64) -> Offset {
    Offset::new((id & ((1 << OFFSET_BITS) - 1)).unsigned_abs())
}

/// A number as SQLite stores it.
pub(crate) fn integer(value: u64) -> Result<i64, VaultError> {
    i64::try_from(value).map_err(|_| VaultError::damaged("number out of range"))
}

/// A stored number that is never negative.
pub(crate) fn unsigned(value: i64) -> Result<u64, VaultError> {
    u64::try_from(value).map_err(|_| VaultError::damaged("negative number"))
}

/// A stored id.
pub(crate) fn id<'a, T: TryFrom<&'a [u8]>>(bytes: &'a [u8]) -> Result<T, VaultError> {
    T::try_from(bytes).map_err(|_| VaultError::damaged("id of a wrong length"))
}

fn lock(path: &Path) -> Result<File, VaultError> {
    let name = key::beside(path, "lock");
    let fail = |error: std::io::Error| VaultError::io(format!("locking {}", name.display()), error);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&name).map_err(fail)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            // For a person who asks which process it is: it need not be there.
            let _ = file
                .set_len(0)
                .and_then(|()| (&file).write_all(format!("{}\n", std::process::id()).as_bytes()));
            Ok(file)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => Err(VaultError::InUse {
            path: path.to_owned(),
            process: holder(&name),
        }),
        Err(error) => Err(fail(error.into())),
    }
}

/// The process that holds a lock, as the lock's file says. A version that wrote nothing there may have left the id of a
/// process that has ended.
fn holder(lock: &Path) -> Option<u32> {
    let mut text = String::new();
    File::open(lock)
        .ok()?
        .take(PROCESS_ID_BYTES_MAX)
        .read_to_string(&mut text)
        .ok()?;
    let process = text.trim().parse().ok()?;
    let processes = Path::new("/proc");
    let lives = !processes.join("self").exists() || processes.join(text.trim()).exists();
    lives.then_some(process)
}

/// Derives the key that a process proves to know which works through the one that has the vault open.
pub(crate) fn share_key(key: &Key) -> Key {
    Zeroizing::new(blake3::derive_key(
        "skytale 2026-11-28 vault shared between processes",
        key.as_slice(),
    ))
}

/// Plain SQLite takes `PRAGMA key` and does nothing with it. So it is asked, before a file is touched, what it is.
fn refuse_plain_sqlite() -> Result<(), VaultError> {
    let probe = Connection::open_in_memory()?;
    let version: Option<String> = probe
        .query_row("PRAGMA cipher_version", [], |row| row.get(0))
        .optional()?;
    match version {
        Some(version) if !version.is_empty() => Ok(()),
        _ => Err(VaultError::Plain),
    }
}

fn unlock(connection: &Connection, key: &Key) -> Result<(), VaultError> {
    // A raw key, not a passphrase: SQLCipher derives nothing from it.
    let mut statement = Zeroizing::new(String::with_capacity(96));
    statement.push_str("PRAGMA key = \"x'");
    for byte in key.iter() {
        // Writing to a string does not fail.
        let _ = write!(statement, "{byte:02x}");
    }
    statement.push_str("'\";");
    // SQLCipher would print what it thinks of a wrong key; the caller is told.
    connection.execute_batch("PRAGMA cipher_log_level = NONE;")?;
    connection.execute_batch(&statement)?;
    Ok(())
}

#[cfg(test)]
mod tests;
