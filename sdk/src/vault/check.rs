//! Checks of a vault's integrity.
//!
//! SQLCipher authenticates each page with its number, so a torn or foreign page is detected when it is read. A page of
//! an earlier moment is authentic, too: a copy of a vault in use may mix pages of two moments, which shows in an
//! inconsistent structure. `PRAGMA quick_check` reads all of it. It takes about a second for 100 MB, so it runs only
//! after an unclean shutdown, or if the vault was put here from elsewhere.

use super::VaultError;
use rusqlite::Connection;

/// Checks that the database's structure is consistent; reads each page that is in use.
pub(super) fn structure(sql: &Connection) -> Result<(), VaultError> {
    said_ok(sql, "PRAGMA quick_check(1)")
}

/// Checks everything: each page of the file, the structure, and indexes against their tables.
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
