//! Enrolments of relay nodes: a key's hash, and the endpoint that it is bound to.

use super::page::{Ask, List, Paged};
use super::{StoreError, Write, number, optional_number, parse, signed};
use skytale_proto::rest::Enrolment;
use skytale_proto::{EndpointId, EnrolmentId};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

/// An enrolment as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct StoredEnrolment {
    pub enrolment: Enrolment,
    /// Argon2id, as a PHC string.
    pub hash: String,
}

fn stored(row: &AnyRow) -> Result<StoredEnrolment, StoreError> {
    let endpoint: Option<String> = row.try_get("endpoint")?;
    let corrupt = |_| StoreError::Corrupt {
        column: "endpoint",
        expected: "an endpoint id",
    };
    Ok(StoredEnrolment {
        enrolment: Enrolment {
            id: parse(row, "id", "an enrolment id")?,
            label: row.try_get("label")?,
            endpoint: endpoint.map(|text| text.parse().map_err(corrupt)).transpose()?,
            created_s: number(row, "created_s")?,
            revoked_s: optional_number(row, "revoked_s")?,
        },
        hash: row.try_get("hash")?,
    })
}

/// Adds an enrolment. [`StoreError::is_taken`] where its endpoint has one in force.
pub(crate) async fn insert(
    connection: &mut AnyConnection,
    enrolment: &Enrolment,
    hash: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO enrolments (id, label, hash, endpoint, created_s, revoked_s) VALUES ($1, $2, $3, $4, $5, NULL)",
    )
    .bind(enrolment.id.to_string())
    .bind(enrolment.label.clone())
    .bind(hash.to_owned())
    .bind(enrolment.endpoint.map(|endpoint| endpoint.to_string()))
    .bind(signed(enrolment.created_s))
    .execute(connection)
    .await?;
    Ok(())
}

/// The enrolment with an id.
pub(crate) async fn get(
    connection: &mut AnyConnection,
    id: EnrolmentId,
) -> Result<Option<StoredEnrolment>, StoreError> {
    let row = sqlx::query("SELECT * FROM enrolments WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(stored).transpose()
}

/// The enrolment with an id, which stays as it is until the transaction ends.
pub(crate) async fn lock(write: &mut Write, id: EnrolmentId) -> Result<Option<Enrolment>, StoreError> {
    let sql = write.locking(
        "SELECT * FROM enrolments WHERE id = $1",
        "SELECT * FROM enrolments WHERE id = $1 FOR NO KEY UPDATE",
    );
    let row = sqlx::query(sql)
        .bind(id.to_string())
        .fetch_optional(&mut **write)
        .await?;
    Ok(row.as_ref().map(stored).transpose()?.map(|stored| stored.enrolment))
}

/// Binds an enrolment to an endpoint. [`StoreError::is_taken`] where the endpoint has another one in force.
pub(crate) async fn bind(
    connection: &mut AnyConnection,
    id: EnrolmentId,
    endpoint: EndpointId,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE enrolments SET endpoint = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(endpoint.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// Whether an enrolment that is in force is bound to an endpoint.
pub(crate) async fn has_endpoint(connection: &mut AnyConnection, endpoint: EndpointId) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT id FROM enrolments WHERE endpoint = $1 AND revoked_s IS NULL")
        .bind(endpoint.to_string())
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

/// Counts those in force.
pub(crate) async fn count_in_force(connection: &mut AnyConnection) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT COUNT(*) AS n FROM enrolments WHERE revoked_s IS NULL")
        .fetch_one(connection)
        .await?;
    number(&row, "n")
}

/// A page of enrolments, by id.
pub(crate) async fn list(
    connection: &mut AnyConnection,
    ask: &Ask<EnrolmentId>,
) -> Result<Paged<Enrolment, EnrolmentId>, StoreError> {
    let list = List {
        select: "SELECT * FROM enrolments WHERE id > $1 ORDER BY id LIMIT $2",
        stored: |row| Ok(stored(row)?.enrolment),
        id: |enrolment| enrolment.id,
    };
    list.page(connection, None, ask).await
}

/// Marks an enrolment as revoked. `false` where it was before, or is not there.
pub(crate) async fn revoke(connection: &mut AnyConnection, id: EnrolmentId, now_s: u64) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE enrolments SET revoked_s = $2 WHERE id = $1 AND revoked_s IS NULL")
        .bind(id.to_string())
        .bind(signed(now_s))
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}
