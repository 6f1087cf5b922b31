//! Marks in a vault that identify it as a copy, and its original.
//!
//! A copy of a vault has ratchet keys that the original may have used since. So an agent whose vault was restored takes
//! fresh keys in every channel before it sends anything there. This is based on the mark `restored`, which is set
//! - by a restore;
//! - when a vault with the mark `backup` is opened: someone has copied a backup to the place of a vault;
//! - when a vault is opened whose files are not those that were left there ([`Origin::Foreign`](super::lock::Origin)).

use super::{Vault, VaultError, id, random};
use rusqlite::{Connection, OptionalExtension};
use std::time::{SystemTime, UNIX_EPOCH};

/// Names in `meta`. Persisted: keep stable.
const LINEAGE: &str = "lineage";
const BACKUP: &str = "backup";
const RESTORED: &str = "restored";

const LINEAGE_BYTES: usize = 16;

/// Identity of one line of a vault's history without copies. A restored vault starts a new line.
pub(crate) type Lineage = [u8; LINEAGE_BYTES];

/// A mark: its lineage, and the time at which it was set. Persisted as the lineage, then the time as 8 bytes,
/// big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// For a backup: the lineage of the original vault. For a restored vault: its own new lineage.
    pub(crate) lineage: Lineage,
    /// Unix milliseconds by this machine's clock.
    pub(crate) at_ms: u64,
}

/// Mark of a restored vault that has not taken fresh keys in every channel yet.
pub(crate) type Restored = Mark;

impl Mark {
    fn new(lineage: Lineage) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            lineage,
            at_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn encode(&self) -> Vec<u8> {
        [self.lineage.as_slice(), &self.at_ms.to_be_bytes()].concat()
    }

    fn decode(name: &str, bytes: &[u8]) -> Result<Self, VaultError> {
        let damaged = || VaultError::damaged(format!("mark `{name}`"));
        let (lineage, at_ms) = bytes.split_first_chunk().ok_or_else(damaged)?;
        Ok(Self {
            lineage: *lineage,
            at_ms: u64::from_be_bytes(at_ms.try_into().map_err(|_| damaged())?),
        })
    }

    /// Removes the mark `restored`, in the current transaction, unless the vault was restored again since.
    pub(crate) fn clear(&self, sql: &Connection) -> Result<(), VaultError> {
        sql.execute(
            "DELETE FROM meta WHERE key = ?1 AND value = ?2",
            (RESTORED, self.encode()),
        )?;
        Ok(())
    }
}

impl Vault {
    /// Returns the mark of a restored vault that has not taken fresh keys in every channel since. See [`Mark::clear`].
    pub(crate) fn restored(&self) -> Result<Option<Restored>, VaultError> {
        read(self.sql(), RESTORED)
    }
}

/// Returns the lineage of a vault; creates it if there is none.
pub(super) fn lineage(sql: &Connection) -> Result<Lineage, VaultError> {
    match value(sql, LINEAGE)? {
        Some(stored) => id(&stored),
        None => new_lineage(sql),
    }
}

/// Marks a database as a backup of a vault.
pub(super) fn set_backup(sql: &Connection, of: Lineage) -> Result<Mark, VaultError> {
    let mark = Mark::new(of);
    put(sql, BACKUP, &mark.encode())?;
    Ok(mark)
}

/// Returns the mark of a backup.
pub(super) fn backup(sql: &Connection) -> Result<Option<Mark>, VaultError> {
    read(sql, BACKUP)
}

/// Makes a copy a vault of its own, in the current transaction: a new lineage, restored, not a backup.
pub(super) fn set_restored(sql: &Connection) -> Result<Mark, VaultError> {
    let mark = Mark::new(new_lineage(sql)?);
    put(sql, RESTORED, &mark.encode())?;
    sql.execute("DELETE FROM meta WHERE key = ?1", [BACKUP])?;
    Ok(mark)
}

fn new_lineage(sql: &Connection) -> Result<Lineage, VaultError> {
    let mut lineage = [0; LINEAGE_BYTES];
    random(&mut lineage)?;
    put(sql, LINEAGE, &lineage)?;
    Ok(lineage)
}

fn read(sql: &Connection, name: &str) -> Result<Option<Mark>, VaultError> {
    value(sql, name)?.map(|bytes| Mark::decode(name, &bytes)).transpose()
}

fn value(sql: &Connection, name: &str) -> Result<Option<Vec<u8>>, VaultError> {
    Ok(sql
        .query_row("SELECT value FROM meta WHERE key = ?1", [name], |row| row.get(0))
        .optional()?)
}

fn put(sql: &Connection, name: &str, value: &[u8]) -> Result<(), VaultError> {
    sql.execute(
        "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)",
        (name, value),
    )?;
    Ok(())
}
