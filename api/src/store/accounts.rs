//! Accounts.

use super::{StoreError, Write, signed};
use skytale_proto::AccountId;
use skytale_proto::rest::OrgName;
use sqlx::{AnyConnection, Row as _};

/// Adds an account. [`StoreError::is_taken`] where the org is.
pub(crate) async fn insert(
    connection: &mut AnyConnection,
    id: AccountId,
    org: &OrgName,
    now_s: u64,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO accounts (id, org, created_s) VALUES ($1, $2, $3)")
        .bind(id.to_string())
        .bind(org.as_str())
        .bind(signed(now_s))
        .execute(connection)
        .await?;
    Ok(())
}

/// The org of an account.
pub(crate) async fn org(connection: &mut AnyConnection, id: AccountId) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT org FROM accounts WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| row.try_get("org")).transpose()?)
}

/// Locks the account until the transaction ends, so that a count under a quota stays right.
pub(crate) async fn lock(write: &mut Write, id: AccountId) -> Result<(), StoreError> {
    // Not FOR UPDATE: rows that refer to the account hold a key share of it, which that would have to wait for.
    let sql = write.locking(
        "SELECT id FROM accounts WHERE id = $1",
        "SELECT id FROM accounts WHERE id = $1 FOR NO KEY UPDATE",
    );
    sqlx::query(sql).bind(id.to_string()).fetch_one(&mut **write).await?;
    Ok(())
}
