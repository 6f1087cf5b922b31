//! Agents, each bound to the account that first proved it.

use super::page::{Ask, List, Paged};
use super::{StoreError, number, optional_number, parse, signed};
use skytale_proto::rest::Agent;
use skytale_proto::{AccountId, AgentId};
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

/// An agent, and whose it is.
#[derive(Clone, Debug)]
pub(crate) struct StoredAgent {
    pub account: AccountId,
    pub agent: Agent,
}

fn stored(row: &AnyRow) -> Result<StoredAgent, StoreError> {
    Ok(StoredAgent {
        account: parse(row, "account", "an account id")?,
        agent: Agent {
            id: parse(row, "id", "an agent id")?,
            bound_s: number(row, "bound_s")?,
            seen_s: number(row, "seen_s")?,
            ended_s: optional_number(row, "ended_s")?,
        },
    })
}

/// Binds an agent to an account, if it is bound to none. `true` where this did it.
pub(crate) async fn bind(
    connection: &mut AnyConnection,
    account: AccountId,
    agent: AgentId,
    now_s: u64,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO agents (id, account, bound_s, seen_s, ended_s) VALUES ($1, $2, $3, $3, NULL) \
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(agent.to_string())
    .bind(account.to_string())
    .bind(signed(now_s))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The agent with an id.
pub(crate) async fn get(connection: &mut AnyConnection, agent: AgentId) -> Result<Option<StoredAgent>, StoreError> {
    let row = sqlx::query("SELECT * FROM agents WHERE id = $1")
        .bind(agent.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(stored).transpose()
}

/// Notes that an agent got a token. `false` where it has ended.
pub(crate) async fn seen(connection: &mut AnyConnection, agent: AgentId, now_s: u64) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE agents SET seen_s = $2 WHERE id = $1 AND ended_s IS NULL")
        .bind(agent.to_string())
        .bind(signed(now_s))
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends an account's agent. `false` where it had ended before, or is not there.
pub(crate) async fn end(
    connection: &mut AnyConnection,
    account: AccountId,
    agent: AgentId,
    now_s: u64,
) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE agents SET ended_s = $3 WHERE id = $1 AND account = $2 AND ended_s IS NULL")
        .bind(agent.to_string())
        .bind(account.to_string())
        .bind(signed(now_s))
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Counts the agents of an account that have not ended.
pub(crate) async fn count(connection: &mut AnyConnection, account: AccountId) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT COUNT(*) AS n FROM agents WHERE account = $1 AND ended_s IS NULL")
        .bind(account.to_string())
        .fetch_one(connection)
        .await?;
    number(&row, "n")
}

/// A page of an account's agents, by id.
pub(crate) async fn list(
    connection: &mut AnyConnection,
    account: AccountId,
    ask: &Ask<AgentId>,
) -> Result<Paged<Agent, AgentId>, StoreError> {
    let list = List {
        select: "SELECT * FROM agents WHERE account = $1 AND id > $2 ORDER BY id LIMIT $3",
        stored: |row| Ok(stored(row)?.agent),
        id: |agent| agent.id,
    };
    list.page(connection, Some(account), ask).await
}
