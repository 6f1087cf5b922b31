//! API keys: hash, scopes, and when they end.

use super::page::{Ask, List, Paged};
use super::{StoreError, Write, number, optional_number, parse, signed};
use crate::auth::KeyScopes;
use skytale_proto::rest::Key;
use skytale_proto::{AccountId, KeyId};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

/// An API key as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct StoredKey {
    pub id: KeyId,
    pub account: AccountId,
    pub label: String,
    pub scopes: KeyScopes,
    /// Argon2id, as a PHC string.
    pub hash: String,
    pub created_s: u64,
    pub expires_s: Option<u64>,
    pub revoked_s: Option<u64>,
}

impl StoredKey {
    /// Returns it as it is shown.
    pub(crate) fn shown(&self) -> Key {
        Key {
            id: self.id,
            label: self.label.clone(),
            scopes: self.scopes.to_texts(),
            created_s: self.created_s,
            expires_s: self.expires_s,
            revoked_s: self.revoked_s,
        }
    }
}

fn stored(row: &AnyRow) -> Result<StoredKey, StoreError> {
    Ok(StoredKey {
        id: parse(row, "id", "a key id")?,
        account: parse(row, "account", "an account id")?,
        label: row.try_get("label")?,
        scopes: parse(row, "scopes", "scopes")?,
        hash: row.try_get("hash")?,
        created_s: number(row, "created_s")?,
        expires_s: optional_number(row, "expires_s")?,
        revoked_s: optional_number(row, "revoked_s")?,
    })
}

/// Adds a key.
pub(crate) async fn insert(connection: &mut AnyConnection, key: &StoredKey) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO api_keys (id, account, label, scopes, hash, created_s, expires_s, revoked_s) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, NULL)",
    )
    .bind(key.id.to_string())
    .bind(key.account.to_string())
    .bind(key.label.clone())
    .bind(key.scopes.to_string())
    .bind(key.hash.clone())
    .bind(signed(key.created_s))
    .bind(key.expires_s.map(signed))
    .execute(connection)
    .await?;
    Ok(())
}

/// The key with an id.
pub(crate) async fn get(connection: &mut AnyConnection, id: KeyId) -> Result<Option<StoredKey>, StoreError> {
    let row = sqlx::query("SELECT * FROM api_keys WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(stored).transpose()
}

/// Whether a key is in force, and it stays so until the transaction ends: a revocation waits for that.
pub(crate) async fn lock_in_force(write: &mut Write, id: KeyId, now_s: u64) -> Result<bool, StoreError> {
    let sql = write.locking(
        "SELECT id FROM api_keys WHERE id = $1 AND revoked_s IS NULL AND (expires_s IS NULL OR expires_s > $2)",
        "SELECT id FROM api_keys WHERE id = $1 AND revoked_s IS NULL AND (expires_s IS NULL OR expires_s > $2) \
         FOR SHARE",
    );
    let row = sqlx::query(sql)
        .bind(id.to_string())
        .bind(signed(now_s))
        .fetch_optional(&mut **write)
        .await?;
    Ok(row.is_some())
}

/// Counts an account's keys in force.
pub(crate) async fn count_in_force(
    connection: &mut AnyConnection,
    account: AccountId,
    now_s: u64,
) -> Result<u64, StoreError> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS n FROM api_keys \
         WHERE account = $1 AND revoked_s IS NULL AND (expires_s IS NULL OR expires_s > $2)",
    )
    .bind(account.to_string())
    .bind(signed(now_s))
    .fetch_one(connection)
    .await?;
    number(&row, "n")
}

/// A page of an account's keys, by id.
pub(crate) async fn list(
    connection: &mut AnyConnection,
    account: AccountId,
    ask: &Ask<KeyId>,
) -> Result<Paged<StoredKey, KeyId>, StoreError> {
    let list = List {
        select: "SELECT * FROM api_keys WHERE account = $1 AND id > $2 ORDER BY id LIMIT $3",
        stored,
        id: |key| key.id,
    };
    list.page(connection, Some(account), ask).await
}

/// Marks an account's key as revoked. `false` where it was before, or is not there.
pub(crate) async fn revoke(
    connection: &mut AnyConnection,
    account: AccountId,
    id: KeyId,
    now_s: u64,
) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE api_keys SET revoked_s = $3 WHERE id = $1 AND account = $2 AND revoked_s IS NULL")
        .bind(id.to_string())
        .bind(account.to_string())
        .bind(signed(now_s))
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}
