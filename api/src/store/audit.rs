//! Audit rows.

use super::page::{Ask, List, Paged};
use super::{StoreError, number, signed};
use skytale_proto::AccountId;
use skytale_proto::rest::AuditEvent;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

fn stored(row: &AnyRow) -> Result<AuditEvent, StoreError> {
    Ok(AuditEvent {
        id: row.try_get("id")?,
        at_s: number(row, "at_s")?,
        actor: row.try_get("actor")?,
        action: row.try_get("action")?,
        target: row.try_get("target")?,
        request: row.try_get("request")?,
        code: row.try_get("code")?,
        count: number(row, "count")?,
        last_at_s: row
            .try_get::<Option<i64>, _>("last_s")?
            .map_or_else(|| number(row, "at_s"), |_| number(row, "last_s"))?,
    })
}

/// Adds a row. With a series that has one, the event is counted there, and the row's target and request become its own.
pub(crate) async fn insert(
    connection: &mut AnyConnection,
    account: Option<AccountId>,
    event: &AuditEvent,
    series: Option<String>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit (id, account, at_s, actor, action, target, request, code, series) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
         ON CONFLICT (series) DO UPDATE SET count = audit.count + 1, last_s = excluded.at_s, \
         target = excluded.target, request = excluded.request",
    )
    .bind(event.id.clone())
    .bind(account.map(|account| account.to_string()))
    .bind(signed(event.at_s))
    .bind(event.actor.clone())
    .bind(event.action.clone())
    .bind(event.target.clone())
    .bind(event.request.clone())
    .bind(event.code.clone())
    .bind(series)
    .execute(connection)
    .await?;
    Ok(())
}

/// A page of an account's rows, the newest first.
pub(crate) async fn list(
    connection: &mut AnyConnection,
    account: AccountId,
    before: Option<String>,
    limit: u32,
) -> Result<Paged<AuditEvent, String>, StoreError> {
    let list = List {
        select: "SELECT * FROM audit WHERE account = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
        stored,
        id: |event| event.id.clone(),
    };
    // `z` comes after every hexadecimal digit, in every collation: the list begins with the newest.
    let after = Some(before.unwrap_or_else(|| "z".to_owned()));
    list.page(connection, Some(account), &Ask { after, limit }).await
}

/// Drops the rows from before a time.
pub(crate) async fn drop_old(connection: &mut AnyConnection, before_s: u64) -> Result<u64, StoreError> {
    let done = sqlx::query("DELETE FROM audit WHERE at_s < $1")
        .bind(signed(before_s))
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}
