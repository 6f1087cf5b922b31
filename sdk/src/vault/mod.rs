//! The vault: one SQLCipher database with an agent's durable state and its secrets.
//!
//! - Every page is encrypted and authenticated (AES-256, HMAC-SHA512) with a key that [`VaultKey`] gives. A program that
//!   was linked with plain SQLite is refused before anything is written.
//! - One process at a time: `<vault>.lock` is held while the vault is open. Other processes attach to that one: see
//!   [`Agent::open_or_attach`](crate::agent::Agent::open_or_attach). The lock records how the vault was closed; after
//!   an unclean shutdown the vault is checked before use.
//! - A transaction is durable when it returns (write-ahead log, `synchronous = FULL`). A transaction that only replays
//!   a log is atomic, and becomes durable with the next durable one (`Durability`).
//! - A copy is recognized as one (`mark`): it takes fresh keys in every channel, since the original may have used its
//!   present keys.
//! - A full disk is survived: reads work, and space is reserved for operations that free more (`reserve`).
//! - Deleted secrets are overwritten (`secure_delete`), so that keys deleted by MLS do not linger in free pages for
//!   anyone who learns the vault's key later.

mod backup;
mod check;
mod error;
mod key;
mod lock;
mod mark;
mod reserve;
mod restore;
mod schema;

pub use backup::{BackupInfo, BackupKey};
pub use error::VaultError;
pub use key::VaultKey;
pub(crate) use key::{Key, random};
pub(crate) use mark::Restored;
pub use restore::{RestoreInfo, restore};

use lock::{Lock, Origin};
use reserve::Reserve;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction};
use skytale_proto::Offset;
use std::cell::Cell;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Time by which a transaction must reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// On return: state that others learn of because of it (a ciphertext, an acknowledgement) must not be lost.
    Now,
    /// With the next durable transaction, or a moment later. For state that can be fetched again: a log's entries after
    /// the stored cursor. A killed process loses nothing; a machine that loses power goes back to an earlier cursor and
    /// replays.
    Later,
}

/// An open vault.
pub(crate) struct Vault {
    connection: Connection,
    /// Current value of `PRAGMA synchronous`.
    durability: Cell<Durability>,
    path: PathBuf,
    key: Key,
    opened_with: key::Kind,
    reserve: Reserve,
    /// Whether the vault is open for reading only, because the disk was too full.
    read_only: bool,
    /// Dropped after the connection, since fields are dropped in order.
    _lock: Lock,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault([redacted])")
    }
}

/// Number of prepared statements in the cache.
const STATEMENTS_CACHED: usize = 96;
/// `PRAGMA auto_vacuum`, as a number.
const AUTO_VACUUM_INCREMENTAL: u64 = 2;
/// Number of pages freed per step.
const COMPACTED_PAGES_MAX: u32 = 2_048;
/// Number of pages freed per step on a full disk: the pages that take their places must fit into the reserve.
const COMPACTED_PAGES_FULL: u32 = 128;
/// At most one page in this many stays free for later use.
const FREE_SHARE_MAX: u64 = 4;

impl Vault {
    /// Opens a vault, or creates an empty one. On a full disk it may be read-only.
    pub(crate) fn open(path: &Path, key: &VaultKey) -> Result<Self, VaultError> {
        let mut lock = Lock::take(path)?;
        restore::settle(path, &lock)?;
        let origin = lock.origin();
        refuse_plain_sqlite()?;
        let (opened_with, key) = (key.kind(), key.resolve(path, origin != Origin::New)?);
        let reserve = Reserve::of(path);
        let open = || open_to_write(path, &key, origin).map_err(|error| full_if_it_is(path, error));
        let opened = match open() {
            Err(error) if error.is_full() && reserve.release() => open(),
            opened => opened,
        };
        let (connection, read_only) = match opened {
            Ok(connection) => (connection, false),
            Err(error) if error.is_full() => (open_to_read(path, &key, origin).map_err(|_| error)?, true),
            Err(error) => return Err(error),
        };
        if !read_only {
            lock.say_open();
            reserve.keep();
        }
        Ok(Self {
            connection,
            durability: Cell::new(Durability::Now),
            path: path.to_owned(),
            key,
            opened_with,
            reserve,
            read_only,
            _lock: lock,
        })
    }

    /// Begins a transaction. It is rolled back when it is dropped without a commit.
    pub(crate) fn begin(&self, durability: Durability) -> Result<Transaction<'_>, VaultError> {
        self.refuse_read_only()?;
        if self.durability.get() != durability {
            // Each transaction in the write-ahead log is after those before it: one sync makes all of them durable.
            self.connection.execute_batch(match durability {
                Durability::Now => "PRAGMA synchronous = FULL",
                Durability::Later => "PRAGMA synchronous = NORMAL",
            })?;
            self.durability.set(durability);
        }
        Ok(self.connection.unchecked_transaction()?)
    }

    fn refuse_read_only(&self) -> Result<(), VaultError> {
        match self.read_only {
            true => Err(VaultError::Full {
                doing: "writing to a vault that was opened on a full disk".into(),
            }),
            false => Ok(()),
        }
    }

    /// Releases the reserve, and as much of the write-ahead log as possible, to the file system. For operations that
    /// free space or must not fail for lack of it.
    pub(crate) fn make_room(&self) {
        self.reserve.release();
        if let Err(error) = self.empty_log() {
            tracing::debug!(vault = %self.path.display(), %error, "the write-ahead log stays as it is");
        }
    }

    /// Returns free pages to the file system, one step at a time, and empties the write-ahead log when none are left.
    /// Returns whether there are more.
    pub(crate) fn compact(&self) -> Result<bool, VaultError> {
        self.refuse_read_only()?;
        if self.number("PRAGMA auto_vacuum")? != AUTO_VACUUM_INCREMENTAL {
            // The vault was created by a version that did not set the mode. Done once, in memory: it takes as much as
            // is left in the vault.
            self.connection
                .execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM;")?;
        }
        let before = self.number("PRAGMA freelist_count")?;
        if before > 0 {
            match self.give_back(COMPACTED_PAGES_MAX) {
                Err(error) if error.is_full() => {
                    self.make_room();
                    self.give_back(COMPACTED_PAGES_FULL)?;
                    self.empty_log()?;
                }
                done => done?,
            }
        }
        let after = self.number("PRAGMA freelist_count")?;
        if after > 0 && after < before {
            return Ok(true);
        }
        self.empty_log()?;
        self.reserve.keep();
        Ok(false)
    }

    fn give_back(&self, pages_max: u32) -> Result<(), VaultError> {
        let mut statement = self
            .connection
            .prepare(&format!("PRAGMA incremental_vacuum({pages_max})"))?;
        let mut rows = statement.query([])?;
        // Each step frees a page.
        while rows.next()?.is_some() {}
        Ok(())
    }

    /// Removes deleted data, which is already overwritten in the database, from the write-ahead log, too. Compacts the
    /// file if much of it is free; otherwise free pages are kept for later use. Returns whether there is more to do.
    pub(crate) fn settle_freed(&self) -> Result<bool, VaultError> {
        self.refuse_read_only()?;
        let (free, all) = (self.number("PRAGMA freelist_count")?, self.number("PRAGMA page_count")?);
        if free.saturating_mul(FREE_SHARE_MAX) > all {
            return self.compact();
        }
        self.empty_log()?;
        Ok(false)
    }

    /// Checkpoints the whole write-ahead log into the database, and truncates its file.
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
        share_key(&self.key)
    }

    /// The database.
    pub(crate) fn sql(&self) -> &Connection {
        &self.connection
    }

    /// Stores a value under a name, replacing the previous one. For values that can be fetched again: it becomes
    /// durable with the next transaction.
    pub(crate) fn keep(&self, name: &str, value: &[u8]) -> Result<(), VaultError> {
        let transaction = self.begin(Durability::Later)?;
        transaction.execute(
            "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)",
            (name, value),
        )?;
        Ok(transaction.commit()?)
    }

    /// Returns the value stored under a name.
    pub(crate) fn kept(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, VaultError> {
        Ok(self
            .connection
            .query_row("SELECT value FROM meta WHERE key = ?1", [name], |row| {
                row.get::<_, Vec<u8>>(0).map(Zeroizing::new)
            })
            .optional()?)
    }

    /// Returns the secret of 32 bytes under a name; creates it on first use.
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

/// Number of bits of a message's id that hold its offset.
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

/// Opens a database for reading and writing; creates it if it does not exist. Checks and marks it as its origin
/// requires.
fn open_to_write(path: &Path, key: &Key, origin: Origin) -> Result<Connection, VaultError> {
    if origin == Origin::New {
        // SQLite would make it readable by others, as far as the umask allows.
        let fail = |error| VaultError::file(format!("making {}", path.display()), &error);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        options.open(path).and_then(|file| file.sync_all()).map_err(fail)?;
        key::sync_folder(path).map_err(fail)?;
    }
    let connection = keyed(path, key, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    if origin == Origin::New {
        // The mode for freeing pages must be set before anything is written. Setting it again is a write.
        connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL;")?;
    }
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA secure_delete = ON;
         PRAGMA wal_autocheckpoint = 2048;
         PRAGMA journal_size_limit = 16777216;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -16384;
         PRAGMA trusted_schema = OFF;",
    )?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    if matches!(origin, Origin::Left | Origin::Foreign) {
        check::structure(&connection)?;
    }
    if origin == Origin::Foreign {
        // Otherwise an empty database would become a vault with another identity.
        schema::refuse_foreign(&connection)?;
    }
    schema::migrate(&connection)?;
    if origin == Origin::New {
        mark::lineage(&connection)?;
    }
    if origin == Origin::Foreign || mark::backup(&connection)?.is_some() {
        let transaction = connection.unchecked_transaction()?;
        mark::set_restored(&transaction)?;
        transaction.commit()?;
    }
    Ok(connection)
}

/// Maps an error to a full disk if it is one. SQLite reports a write-ahead log that cannot be created only as one that
/// cannot be opened, so this creates another file as a test.
fn full_if_it_is(path: &Path, error: VaultError) -> VaultError {
    if !matches!(error, VaultError::Io { .. }) {
        return error;
    }
    let probe = key::beside(path, "probe");
    let made = OpenOptions::new().write(true).create(true).truncate(false).open(&probe);
    match made.map_err(|error| VaultError::file(format!("opening {}", path.display()), &error)) {
        Err(full) if full.is_full() => full,
        made => {
            if made.is_ok() {
                let _ = std::fs::remove_file(&probe);
            }
            error
        }
    }
}

/// Opens a database if not even an empty write-ahead log can be created. Its own write-ahead log must be empty.
fn open_to_read(path: &Path, key: &Key, origin: Origin) -> Result<Connection, VaultError> {
    if lock::has_log(path) {
        return Err(VaultError::io(
            format!("opening {}", path.display()),
            "it has a write-ahead log",
        ));
    }
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(*byte)),
            // Writing to a string does not fail.
            byte => _ = write!(uri, "%{byte:02x}"),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = keyed(Path::new(&uri), key, flags)?;
    schema::refuse_other(&connection)?;
    if origin != Origin::Closed {
        check::structure(&connection)?;
    }
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    Ok(connection)
}

/// Opens a database with its key; fails if the key is wrong.
fn keyed(path: &Path, key: &Key, flags: OpenFlags) -> Result<Connection, VaultError> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    unlock(&connection, key)?;
    // Exclusive: one process needs no shared memory beside the file, which takes room on the disk. It must be set
    // before anything is read.
    connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE;")?;
    match connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(())) {
        Err(rusqlite::Error::SqliteFailure(error, _)) if error.code == ErrorCode::NotADatabase => {
            Err(VaultError::Key {
                path: path.to_owned(),
                problem: "the key is wrong, or this is not a vault".into(),
            })
        }
        read => {
            read?;
            Ok(connection)
        }
    }
}

/// Derives the key that an attached process proves to know.
pub(crate) fn share_key(key: &Key) -> Key {
    Zeroizing::new(blake3::derive_key(
        "skytale 2026-11-28 vault shared between processes",
        key.as_slice(),
    ))
}

/// Refuses plain SQLite, before a file is touched: it accepts `PRAGMA key` and ignores it.
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
    connection.execute_batch(&statement)?;
    // SQLCipher would log a wrong key; the caller gets an error instead. The first key of a process resets the level,
    // so this comes after it.
    connection.execute_batch("PRAGMA cipher_log_level = NONE;")?;
    Ok(())
}

#[cfg(test)]
mod tests;
