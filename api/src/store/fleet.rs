//! The last heartbeat of each enrolled relay node.

use super::page::{Ask, List, Paged};
use super::relays::addresses;
use super::{StoreError, number, optional_number, parse, signed};
use skytale_proto::rest::{Relay, RelayLoad, ShardLag, Twin};
use skytale_proto::{EndpointId, EnrolmentId, InstanceId};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

/// A relay node, as its last heartbeat told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredRelay {
    pub enrolment: EnrolmentId,
    pub relay: Relay,
    pub version: String,
    pub draining: bool,
    pub load: RelayLoad,
    pub seen_s: u64,
    /// Process of it that was heard.
    pub instance: Option<InstanceId>,
    /// Process whose place that one took under the same addresses.
    pub displaced: Option<InstanceId>,
    /// Another process that showed its key.
    pub twin: Option<StoredTwin>,
}

/// Another process that showed a relay node's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredTwin {
    /// `None` for one of a version that does not tell it.
    pub instance: Option<InstanceId>,
    pub twin: Twin,
}

/// Parts of it that decide which agents are sent there.
#[derive(Clone, Debug)]
pub(crate) struct LiveRelay {
    pub relay: Relay,
    pub draining: bool,
    pub agents: u64,
    pub agents_max: u64,
    /// The most that it is behind in any shard, in messages.
    pub lag_max: u64,
}

fn narrow<T: TryFrom<u64>>(row: &AnyRow, column: &'static str) -> Result<T, StoreError> {
    let corrupt = |_| StoreError::Corrupt {
        column,
        expected: "a smaller number",
    };
    number(row, column)?.try_into().map_err(corrupt)
}

fn relay(row: &AnyRow) -> Result<Relay, StoreError> {
    Ok(Relay {
        endpoint: parse(row, "endpoint", "an endpoint id")?,
        addresses: addresses(row)?,
        region: narrow(row, "region")?,
        https_url: row.try_get("https_url")?,
    })
}

fn live(row: &AnyRow) -> Result<LiveRelay, StoreError> {
    Ok(LiveRelay {
        relay: relay(row)?,
        draining: number(row, "draining")? == 1,
        agents: number(row, "agents")?,
        agents_max: number(row, "agents_max")?,
        lag_max: number(row, "lag_max")?,
    })
}

fn stored(row: &AnyRow) -> Result<StoredRelay, StoreError> {
    let lag: String = row.try_get("lag")?;
    let lag: Vec<ShardLag> = serde_json::from_str(&lag).map_err(|_| StoreError::Corrupt {
        column: "lag",
        expected: "a JSON list",
    })?;
    Ok(StoredRelay {
        enrolment: parse(row, "enrolment", "an enrolment id")?,
        relay: relay(row)?,
        version: row.try_get("version")?,
        draining: number(row, "draining")? == 1,
        load: RelayLoad {
            agents: narrow(row, "agents")?,
            agents_max: narrow(row, "agents_max")?,
            appends_per_second: narrow(row, "appends_per_second")?,
            reads_per_second: narrow(row, "reads_per_second")?,
            lag,
        },
        seen_s: number(row, "seen_s")?,
        instance: instance(row, "instance")?,
        displaced: instance(row, "displaced")?,
        twin: twin(row)?,
    })
}

fn instance(row: &AnyRow, column: &'static str) -> Result<Option<InstanceId>, StoreError> {
    let text: Option<String> = row.try_get(column)?;
    let corrupt = |_| StoreError::Corrupt {
        column,
        expected: "an instance id",
    };
    text.map(|text| text.parse().map_err(corrupt)).transpose()
}

fn twin(row: &AnyRow) -> Result<Option<StoredTwin>, StoreError> {
    let Some(seen_s) = optional_number(row, "twin_seen_s")? else {
        return Ok(None);
    };
    let addresses: Option<String> = row.try_get("twin_addresses")?;
    let addresses = serde_json::from_str(&addresses.unwrap_or_default()).map_err(|_| StoreError::Corrupt {
        column: "twin_addresses",
        expected: "a JSON list",
    })?;
    Ok(Some(StoredTwin {
        instance: instance(row, "twin")?,
        twin: Twin { addresses, seen_s },
    }))
}

/// Takes a heartbeat in.
pub(crate) async fn put(connection: &mut AnyConnection, relay: &StoredRelay) -> Result<(), StoreError> {
    let load = &relay.load;
    let twin = relay.twin.as_ref();
    let lag = serde_json::json!(load.lag).to_string();
    let lag_max = load.lag.iter().map(|shard| shard.messages).max().unwrap_or_default();
    sqlx::query(
        "INSERT INTO fleet_relays (endpoint, enrolment, addresses, region, version, draining, agents, agents_max, \
         appends_per_second, reads_per_second, lag, lag_max, seen_s, https_url, instance, displaced, twin, \
         twin_addresses, twin_seen_s) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19) \
         ON CONFLICT (endpoint) DO UPDATE SET enrolment = excluded.enrolment, addresses = excluded.addresses, \
         region = excluded.region, version = excluded.version, draining = excluded.draining, \
         agents = excluded.agents, agents_max = excluded.agents_max, \
         appends_per_second = excluded.appends_per_second, reads_per_second = excluded.reads_per_second, \
         lag = excluded.lag, lag_max = excluded.lag_max, \
         seen_s = excluded.seen_s, https_url = excluded.https_url, instance = excluded.instance, \
         displaced = excluded.displaced, twin = excluded.twin, twin_addresses = excluded.twin_addresses, \
         twin_seen_s = excluded.twin_seen_s",
    )
    .bind(relay.relay.endpoint.to_string())
    .bind(relay.enrolment.to_string())
    .bind(serde_json::json!(relay.relay.addresses).to_string())
    .bind(i64::from(relay.relay.region))
    .bind(relay.version.clone())
    .bind(i64::from(relay.draining))
    .bind(i64::from(load.agents))
    .bind(i64::from(load.agents_max))
    .bind(i64::from(load.appends_per_second))
    .bind(i64::from(load.reads_per_second))
    .bind(lag)
    .bind(signed(lag_max))
    .bind(signed(relay.seen_s))
    .bind(relay.relay.https_url.clone())
    .bind(relay.instance.map(|instance| instance.to_string()))
    .bind(relay.displaced.map(|instance| instance.to_string()))
    .bind(twin.and_then(|twin| twin.instance).map(|instance| instance.to_string()))
    .bind(twin.map(|twin| serde_json::json!(twin.twin.addresses).to_string()))
    .bind(twin.map(|twin| signed(twin.twin.seen_s)))
    .execute(connection)
    .await?;
    Ok(())
}

/// One relay node.
pub(crate) async fn get(
    connection: &mut AnyConnection,
    endpoint: EndpointId,
) -> Result<Option<StoredRelay>, StoreError> {
    let row = sqlx::query("SELECT * FROM fleet_relays WHERE endpoint = $1")
        .bind(endpoint.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(stored).transpose()
}

/// Those heard of since a time.
pub(crate) async fn live_since(
    connection: &mut AnyConnection,
    since_s: u64,
    limit: u32,
) -> Result<Vec<LiveRelay>, StoreError> {
    let rows = sqlx::query(
        "SELECT endpoint, addresses, region, https_url, draining, agents, agents_max, lag_max FROM fleet_relays \
         WHERE seen_s >= $1 ORDER BY endpoint LIMIT $2",
    )
    .bind(signed(since_s))
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(live).collect()
}

/// A page of all of them, by endpoint, each with its enrolment's label.
pub(crate) async fn list(
    connection: &mut AnyConnection,
    ask: &Ask<EndpointId>,
) -> Result<Paged<(StoredRelay, String), EndpointId>, StoreError> {
    let list = List {
        select: "SELECT fleet_relays.*, enrolments.label AS label FROM fleet_relays \
                 JOIN enrolments ON enrolments.id = fleet_relays.enrolment \
                 WHERE fleet_relays.endpoint > $1 ORDER BY fleet_relays.endpoint LIMIT $2",
        stored: |row| Ok((stored(row)?, row.try_get("label")?)),
        id: |(stored, _)| stored.relay.endpoint,
    };
    list.page(connection, None, ask).await
}

/// Counts them.
pub(crate) async fn count(connection: &mut AnyConnection) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT COUNT(*) AS n FROM fleet_relays")
        .fetch_one(connection)
        .await?;
    number(&row, "n")
}

/// Takes one process of the relay node of an enrolment out. `false` where it is another one that is there, or none is.
pub(crate) async fn leave(
    connection: &mut AnyConnection,
    enrolment: EnrolmentId,
    instance: InstanceId,
) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM fleet_relays WHERE enrolment = $1 AND (instance IS NULL OR instance = $2)")
        .bind(enrolment.to_string())
        .bind(instance.to_string())
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes the relay node of an enrolment out. `false` where it is not there.
pub(crate) async fn remove(connection: &mut AnyConnection, enrolment: EnrolmentId) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM fleet_relays WHERE enrolment = $1")
        .bind(enrolment.to_string())
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Drops those not heard of since a time.
pub(crate) async fn drop_silent(connection: &mut AnyConnection, before_s: u64) -> Result<u64, StoreError> {
    let done = sqlx::query("DELETE FROM fleet_relays WHERE seen_s < $1")
        .bind(signed(before_s))
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}
