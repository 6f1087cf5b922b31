//! The feeds of what was revoked: dense, in order, each entry there by the transaction that revoked.

use super::{StoreError, number, parse, signed};
use skytale_proto::rest::{AgentRevocation, Revocation};
use skytale_proto::{AgentId, KeyId};
use sqlx::AnyConnection;

/// The next number of a feed. Its row stays locked until the transaction ends, so a number becomes visible after
/// all before it, and one that was rolled back is given again.
async fn next(connection: &mut AnyConnection, feed: &'static str) -> Result<u64, StoreError> {
    let row = sqlx::query("UPDATE counters SET value = value + 1 WHERE name = $1 RETURNING value")
        .bind(feed)
        .fetch_one(connection)
        .await?;
    number(&row, "value")
}

/// Puts a key into the feed.
pub(crate) async fn add_key(connection: &mut AnyConnection, key: KeyId, now_s: u64) -> Result<u64, StoreError> {
    let sequence = next(connection, "revocations").await?;
    sqlx::query("INSERT INTO revocations (sequence, api_key, revoked_s) VALUES ($1, $2, $3)")
        .bind(signed(sequence))
        .bind(key.to_string())
        .bind(signed(now_s))
        .execute(connection)
        .await?;
    Ok(sequence)
}

/// Puts an agent into its feed.
pub(crate) async fn add_agent(connection: &mut AnyConnection, agent: AgentId, now_s: u64) -> Result<u64, StoreError> {
    let sequence = next(connection, "agent_revocations").await?;
    sqlx::query("INSERT INTO agent_revocations (sequence, agent, ended_s) VALUES ($1, $2, $3)")
        .bind(signed(sequence))
        .bind(agent.to_string())
        .bind(signed(now_s))
        .execute(connection)
        .await?;
    Ok(sequence)
}

/// Keys after a sequence number.
pub(crate) async fn keys(
    connection: &mut AnyConnection,
    after: u64,
    limit: u32,
) -> Result<Vec<Revocation>, StoreError> {
    let rows = sqlx::query("SELECT * FROM revocations WHERE sequence > $1 ORDER BY sequence LIMIT $2")
        .bind(signed(after))
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await?;
    let revocation = |row| {
        Ok(Revocation {
            sequence: number(row, "sequence")?,
            key: parse(row, "api_key", "a key id")?,
            revoked_s: number(row, "revoked_s")?,
        })
    };
    rows.iter().map(revocation).collect()
}

/// Agents after a sequence number.
pub(crate) async fn agents(
    connection: &mut AnyConnection,
    after: u64,
    limit: u32,
) -> Result<Vec<AgentRevocation>, StoreError> {
    let rows = sqlx::query("SELECT * FROM agent_revocations WHERE sequence > $1 ORDER BY sequence LIMIT $2")
        .bind(signed(after))
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await?;
    let revocation = |row| {
        Ok(AgentRevocation {
            sequence: number(row, "sequence")?,
            agent: parse(row, "agent", "an agent id")?,
            ended_s: number(row, "ended_s")?,
        })
    };
    rows.iter().map(revocation).collect()
}
