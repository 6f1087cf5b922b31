//! Nonces that wait for their proof. In the database, so that several API processes agree on which was used.

use super::{StoreError, number, signed};
use skytale_proto::{AccountId, AgentId};
use sqlx::AnyConnection;

/// Agent and key that a nonce is for. Its hash alone is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NonceOf<'a> {
    pub nonce: &'a [u8; 32],
    pub account: AccountId,
    pub agent: AgentId,
}

impl NonceOf<'_> {
    fn hash(&self) -> String {
        blake3::hash(self.nonce).to_hex().to_string()
    }
}

/// Adds a nonce.
pub(crate) async fn insert(
    connection: &mut AnyConnection,
    nonce: NonceOf<'_>,
    expires_s: u64,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO nonces (hash, account, agent, expires_s) VALUES ($1, $2, $3, $4)")
        .bind(nonce.hash())
        .bind(nonce.account.to_string())
        .bind(nonce.agent.to_string())
        .bind(signed(expires_s))
        .execute(connection)
        .await?;
    Ok(())
}

/// Counts an account's nonces that wait for their proof; no further than `most`.
pub(crate) async fn count(
    connection: &mut AnyConnection,
    account: AccountId,
    now_s: u64,
    most: u32,
) -> Result<u64, StoreError> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS n FROM \
         (SELECT 1 FROM nonces WHERE account = $1 AND expires_s > $2 LIMIT $3) AS waiting",
    )
    .bind(account.to_string())
    .bind(signed(now_s))
    .bind(i64::from(most))
    .fetch_one(connection)
    .await?;
    number(&row, "n")
}

/// Uses a nonce up. `true` for exactly one caller, and only while it is good.
pub(crate) async fn take(connection: &mut AnyConnection, nonce: NonceOf<'_>, now_s: u64) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM nonces WHERE hash = $1 AND account = $2 AND agent = $3 AND expires_s > $4")
        .bind(nonce.hash())
        .bind(nonce.account.to_string())
        .bind(nonce.agent.to_string())
        .bind(signed(now_s))
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Drops the nonces that are too old.
pub(crate) async fn drop_old(connection: &mut AnyConnection, now_s: u64) -> Result<u64, StoreError> {
    let done = sqlx::query("DELETE FROM nonces WHERE expires_s <= $1")
        .bind(signed(now_s))
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}
