//! Relay nodes that registered themselves with the relays' secret, without heartbeats.

use super::{StoreError, number, parse, signed};
use skytale_proto::EndpointId;
use skytale_proto::rest::Relay;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

/// Reads a relay node's addresses.
pub(super) fn addresses(row: &AnyRow) -> Result<Vec<String>, StoreError> {
    let addresses: String = row.try_get("addresses")?;
    serde_json::from_str(&addresses).map_err(|_| StoreError::Corrupt {
        column: "addresses",
        expected: "a JSON list",
    })
}

fn stored(row: &AnyRow) -> Result<Relay, StoreError> {
    Ok(Relay {
        endpoint: parse(row, "endpoint", "an endpoint id")?,
        addresses: addresses(row)?,
        region: number(row, "region")?.try_into().map_err(|_| StoreError::Corrupt {
            column: "region",
            expected: "a region",
        })?,
        https_url: row.try_get("https_url")?,
    })
}

/// Adds a relay node, or renews it.
pub(crate) async fn put(connection: &mut AnyConnection, relay: &Relay, now_s: u64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO relays (endpoint, addresses, region, seen_s, https_url) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (endpoint) DO UPDATE SET \
         addresses = excluded.addresses, region = excluded.region, seen_s = excluded.seen_s, \
         https_url = excluded.https_url",
    )
    .bind(relay.endpoint.to_string())
    .bind(serde_json::Value::from(relay.addresses.clone()).to_string())
    .bind(i64::from(relay.region))
    .bind(signed(now_s))
    .bind(relay.https_url.clone())
    .execute(connection)
    .await?;
    Ok(())
}

/// One relay node.
pub(crate) async fn get(connection: &mut AnyConnection, endpoint: EndpointId) -> Result<Option<Relay>, StoreError> {
    let row = sqlx::query("SELECT * FROM relays WHERE endpoint = $1")
        .bind(endpoint.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(stored).transpose()
}

/// Takes a relay node out. `false` where it is not there.
pub(crate) async fn remove(connection: &mut AnyConnection, endpoint: EndpointId) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM relays WHERE endpoint = $1")
        .bind(endpoint.to_string())
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Counts them.
pub(crate) async fn count(connection: &mut AnyConnection) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT COUNT(*) AS n FROM relays")
        .fetch_one(connection)
        .await?;
    number(&row, "n")
}

/// Those that were heard of last, first.
pub(crate) async fn list(connection: &mut AnyConnection, limit: u32) -> Result<Vec<Relay>, StoreError> {
    let rows = sqlx::query("SELECT * FROM relays ORDER BY seen_s DESC, endpoint LIMIT $1")
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await?;
    rows.iter().map(stored).collect()
}

/// Drops those not heard of since a time.
pub(crate) async fn drop_silent(connection: &mut AnyConnection, before_s: u64) -> Result<u64, StoreError> {
    let done = sqlx::query("DELETE FROM relays WHERE seen_s < $1")
        .bind(signed(before_s))
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}
