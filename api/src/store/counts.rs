//! Numbers of rows of each kind, for metrics.

use super::{StoreError, number, signed};
use sqlx::AnyConnection;

/// Numbers of rows of each kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub accounts: u64,
    /// API keys in force.
    pub keys: u64,
    /// Agents that have not ended.
    pub agents: u64,
    /// Names of channels.
    pub channels: u64,
    /// Heard of since.
    pub relays_live: u64,
    /// Not heard of since.
    pub relays_missing: u64,
}

/// Counts. Relay nodes are missing that were not heard of since `live_since_s`.
pub(crate) async fn counts(
    connection: &mut AnyConnection,
    now_s: u64,
    live_since_s: u64,
) -> Result<Counts, StoreError> {
    let row = sqlx::query(
        "SELECT (SELECT COUNT(*) FROM accounts) AS accounts, \
         (SELECT COUNT(*) FROM api_keys WHERE revoked_s IS NULL AND (expires_s IS NULL OR expires_s > $1)) AS api_keys, \
         (SELECT COUNT(*) FROM agents WHERE ended_s IS NULL) AS agents, \
         (SELECT COUNT(*) FROM channels) AS channels, \
         (SELECT COUNT(*) FROM fleet_relays WHERE seen_s >= $2) AS live, \
         (SELECT COUNT(*) FROM fleet_relays WHERE seen_s < $2) AS missing",
    )
    .bind(signed(now_s))
    .bind(signed(live_since_s))
    .fetch_one(connection)
    .await?;
    Ok(Counts {
        accounts: number(&row, "accounts")?,
        keys: number(&row, "api_keys")?,
        agents: number(&row, "agents")?,
        channels: number(&row, "channels")?,
        relays_live: number(&row, "live")?,
        relays_missing: number(&row, "missing")?,
    })
}
