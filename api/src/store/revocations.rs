//! The feeds of revocations: dense, in order, each entry there by the transaction that revoked, and gone from the front
//! when it ends nothing any more.

use super::{StoreError, number, parse, signed};
use skytale_proto::rest::{AgentRevocation, Revocation};
use skytale_proto::{AgentId, KeyId};
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

/// A part of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part<T> {
    /// Entries, each with the number after the one before it.
    pub entries: Vec<T>,
    /// The number to ask after next.
    pub next: u64,
    /// The feed does not continue from the requested number; this is its beginning.
    pub start_over: bool,
}

/// One of the feeds.
struct Feed {
    counter: &'static str,
    select: &'static str,
    /// Deletes the entries before the first that is still of use.
    drop: &'static str,
}

const KEYS: Feed = Feed {
    counter: "revocations",
    select: "SELECT * FROM revocations WHERE sequence > $1 ORDER BY sequence LIMIT $2",
    drop: "DELETE FROM revocations WHERE sequence < \
           COALESCE((SELECT MIN(sequence) FROM revocations WHERE revoked_s >= $1), 9223372036854775807)",
};

const AGENTS: Feed = Feed {
    counter: "agent_revocations",
    select: "SELECT * FROM agent_revocations WHERE sequence > $1 ORDER BY sequence LIMIT $2",
    drop: "DELETE FROM agent_revocations WHERE sequence < \
           COALESCE((SELECT MIN(sequence) FROM agent_revocations WHERE ended_s >= $1), 9223372036854775807)",
};

impl Feed {
    /// The next number. Its row stays locked until the transaction ends, so a number becomes visible after all before
    /// it, and one that was rolled back is given again.
    async fn next(&self, connection: &mut AnyConnection) -> Result<u64, StoreError> {
        let row = sqlx::query("UPDATE counters SET value = value + 1 WHERE name = $1 RETURNING value")
            .bind(self.counter)
            .fetch_one(connection)
            .await?;
        number(&row, "value")
    }

    /// Returns the entries after a number, and whether the feed continues there.
    async fn part<T>(
        &self,
        connection: &mut AnyConnection,
        after: u64,
        limit: u32,
        entry: impl Fn(&AnyRow) -> Result<(u64, T), StoreError>,
    ) -> Result<Part<T>, StoreError> {
        // The last number before the entries: where there are none, all up to this one have left. The other way around
        // an entry that came in between would be passed over.
        let row = sqlx::query("SELECT value FROM counters WHERE name = $1")
            .bind(self.counter)
            .fetch_one(&mut *connection)
            .await?;
        let last = number(&row, "value")?;
        let known = after <= last;
        let after = if known { after } else { 0 };
        let rows = sqlx::query(self.select)
            .bind(signed(after))
            .bind(i64::from(limit))
            .fetch_all(connection)
            .await?;
        let entries = rows.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        let follows = match entries.first() {
            Some((first, _)) => *first == after + 1,
            None => after == last,
        };
        Ok(Part {
            next: entries.last().map_or(last, |(sequence, _)| *sequence),
            start_over: !known || !follows,
            entries: entries.into_iter().map(|(_, entry)| entry).collect(),
        })
    }

    async fn drop_old(&self, connection: &mut AnyConnection, before_s: u64) -> Result<u64, StoreError> {
        let done = sqlx::query(self.drop)
            .bind(signed(before_s))
            .execute(connection)
            .await?;
        Ok(done.rows_affected())
    }
}

/// Puts a key into the feed.
pub(crate) async fn add_key(connection: &mut AnyConnection, key: KeyId, now_s: u64) -> Result<u64, StoreError> {
    let sequence = KEYS.next(connection).await?;
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
    let sequence = AGENTS.next(connection).await?;
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
) -> Result<Part<Revocation>, StoreError> {
    let revocation = |row: &AnyRow| {
        let revocation = Revocation {
            sequence: number(row, "sequence")?,
            key: parse(row, "api_key", "a key id")?,
            revoked_s: number(row, "revoked_s")?,
        };
        Ok((revocation.sequence, revocation))
    };
    KEYS.part(connection, after, limit, revocation).await
}

/// Agents after a sequence number.
pub(crate) async fn agents(
    connection: &mut AnyConnection,
    after: u64,
    limit: u32,
) -> Result<Part<AgentRevocation>, StoreError> {
    let revocation = |row: &AnyRow| {
        let revocation = AgentRevocation {
            sequence: number(row, "sequence")?,
            agent: parse(row, "agent", "an agent id")?,
            ended_s: number(row, "ended_s")?,
        };
        Ok((revocation.sequence, revocation))
    };
    AGENTS.part(connection, after, limit, revocation).await
}

/// Drops the entries from before a time, from the front of each feed up to the first that is not. The rest is dense.
pub(crate) async fn drop_old(connection: &mut AnyConnection, before_s: u64) -> Result<u64, StoreError> {
    let keys = KEYS.drop_old(connection, before_s).await?;
    Ok(keys + AGENTS.drop_old(connection, before_s).await?)
}
