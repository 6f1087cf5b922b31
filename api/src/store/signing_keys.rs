//! Keys that sign tokens: one that does, and those whose tokens have not all ended.

use super::{StoreError, Write, number, signed};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

/// A signing key as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct StoredSigningKey {
    pub kid: String,
    /// The public key, base64url.
    pub public_key: String,
    /// The seed, sealed; erased when the key was retired.
    pub sealed_seed: Option<String>,
    pub is_active: bool,
    pub created_s: u64,
}

fn stored(row: &AnyRow) -> Result<StoredSigningKey, StoreError> {
    Ok(StoredSigningKey {
        kid: row.try_get("kid")?,
        public_key: row.try_get("public_key")?,
        sealed_seed: row.try_get("sealed_seed")?,
        is_active: number(row, "active")? == 1,
        created_s: number(row, "created_s")?,
    })
}

/// Adds the key that signs. [`StoreError::is_taken`] where there is one.
pub(crate) async fn insert_active(connection: &mut AnyConnection, key: &StoredSigningKey) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO signing_keys (kid, public_key, sealed_seed, active, created_s, retired_s) \
         VALUES ($1, $2, $3, 1, $4, NULL)",
    )
    .bind(key.kid.clone())
    .bind(key.public_key.clone())
    .bind(key.sealed_seed.clone())
    .bind(signed(key.created_s))
    .execute(connection)
    .await?;
    Ok(())
}

/// The keys whose seeds are stored, with the seeds as they are sealed. They stay so until the transaction ends.
pub(crate) async fn lock_sealed(write: &mut Write) -> Result<Vec<(String, String)>, StoreError> {
    let sql = write.locking(
        "SELECT kid, sealed_seed FROM signing_keys WHERE sealed_seed IS NOT NULL ORDER BY kid",
        "SELECT kid, sealed_seed FROM signing_keys WHERE sealed_seed IS NOT NULL ORDER BY kid FOR UPDATE",
    );
    let rows = sqlx::query(sql).fetch_all(&mut **write).await?;
    let sealed = |row: &AnyRow| Ok((row.try_get("kid")?, row.try_get("sealed_seed")?));
    rows.iter().map(sealed).collect()
}

/// Puts another sealed seed in the place of a key's.
pub(crate) async fn reseal(connection: &mut AnyConnection, kid: &str, sealed: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE signing_keys SET sealed_seed = $2 WHERE kid = $1")
        .bind(kid.to_owned())
        .bind(sealed.to_owned())
        .execute(connection)
        .await?;
    Ok(())
}

/// Retires the key that signs, and erases its seed. `false` where another did so first.
pub(crate) async fn retire(connection: &mut AnyConnection, kid: &str, now_s: u64) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE signing_keys SET active = 0, retired_s = $2, sealed_seed = NULL WHERE kid = $1 AND active = 1",
    )
    .bind(kid.to_owned())
    .bind(signed(now_s))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The key that signs, and those retired after a time; the newest first.
pub(crate) async fn list(
    connection: &mut AnyConnection,
    retired_after_s: u64,
) -> Result<Vec<StoredSigningKey>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM signing_keys WHERE active = 1 OR retired_s > $1 ORDER BY active DESC, created_s DESC, kid",
    )
    .bind(signed(retired_after_s))
    .fetch_all(connection)
    .await?;
    rows.iter().map(stored).collect()
}

/// Drops the keys retired before a time.
pub(crate) async fn drop_retired(connection: &mut AnyConnection, before_s: u64) -> Result<u64, StoreError> {
    let done = sqlx::query("DELETE FROM signing_keys WHERE active = 0 AND retired_s <= $1")
        .bind(signed(before_s))
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}
