//! Whether a vault is whole.
//!
//! SQLCipher authenticates each page with its number, so a page that is torn or foreign is found when it is read. A page of
//! an earlier moment is authentic, too: what a copy of a vault in use may have, pages of two moments, is found by the
//! structure that no longer fits. `PRAGMA quick_check` reads all of it. It takes about a second for 100 MB, so it is
//! run when a vault was not closed in order, or was put here from elsewhere, and not each time.

use super::VaultError;
use rusqlite::Connection;

/// Checks that the database's structure fits, reading each page that is in use.
pub(super) fn structure(sql: &Connection) -> Result<(), VaultError> {
    said_ok(sql, "PRAGMA quick_check(1)")
}

/// Checks all that can be checked: each page of the file, the structure, and indexes against their tables.
pub(super) fn all(sql: &Connection) -> Result<(), VaultError> {
    // One row for each page that is not authentic.
    let mut pages = sql.prepare("PRAGMA cipher_integrity_check")?;
    if let Some(row) = pages.query([])?.next()? {
        return Err(VaultError::damaged(row.get::<_, String>(0)?));
    }
    said_ok(sql, "PRAGMA integrity_check(1)")
}

fn said_ok(sql: &Connection, pragma: &str) -> Result<(), VaultError> {
    match sql.query_row(pragma, [], |row| row.get::<_, String>(0)) {
        Ok(said) if said == "ok" => Ok(()),
        Ok(said) => Err(VaultError::damaged(said.replace('\n', " "))),
        Err(error) => Err(error.into()),
    }
}
