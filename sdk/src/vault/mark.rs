//! Marks in a vault that say that it is a copy, and of which vault.
//!
//! A copy of a vault has ratchet keys that the vault itself may have used since. So an agent whose vault was restored takes
//! fresh keys in every channel before it sends anything there. That rests on the mark `restored`, which is set
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

/// One line of a vault's life: a vault, and what it becomes without being copied. A restored vault begins another one.
pub(crate) type Lineage = [u8; LINEAGE_BYTES];

/// A mark: whose, and when it was set. Persisted as the lineage, then the time as 8 bytes, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Of a backup: the lineage of the vault that was backed up. Of a restored vault: its own, a new one.
    pub(crate) lineage: Lineage,
    /// Unix milliseconds by this machine's clock.
    pub(crate) at_ms: u64,
}

/// A vault was restored, and has not taken fresh keys in every channel yet.
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

    /// Takes the mark `restored` away, in the transaction under way, unless the vault was restored again since.
    pub(crate) fn clear(&self, sql: &Connection) -> Result<(), VaultError> {
        sql.execute(
            "DELETE FROM meta WHERE key = ?1 AND value = ?2",
            (RESTORED, self.encode()),
        )?;
        Ok(())
    }
}

impl Vault {
    /// Whether the vault was restored and has not taken fresh keys in every channel since. See [`Mark::clear`].
    pub(crate) fn restored(&self) -> Result<Option<Restored>, VaultError> {
        read(self.sql(), RESTORED)
    }
}

/// The lineage of a vault; made if it has none yet.
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

/// The mark of a backup.
pub(super) fn backup(sql: &Connection) -> Result<Option<Mark>, VaultError> {
    read(sql, BACKUP)
}

/// Makes a copy a vault of its own, in the transaction under way: another lineage, restored, no backup.
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
