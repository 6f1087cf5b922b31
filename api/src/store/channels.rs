//! Channel names.

use super::page::{Ask, List, Paged};
use super::{StoreError, number, parse, signed};
use skytale_proto::AccountId;
use skytale_proto::rest::{Channel, ChannelName};
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

fn stored(row: &AnyRow) -> Result<Channel, StoreError> {
    Ok(Channel {
        name: parse(row, "name", "a channel name")?,
        channel: parse(row, "channel", "a channel id")?,
        created_s: number(row, "created_s")?,
    })
}

/// Adds a name. `false` where it is taken.
pub(crate) async fn insert(
    connection: &mut AnyConnection,
    account: AccountId,
    channel: &Channel,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO channels (name, account, channel, created_s) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(channel.name.as_str())
    .bind(account.to_string())
    .bind(channel.channel.to_string())
    .bind(signed(channel.created_s))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Looks up the channel of an account's name.
pub(crate) async fn get(
    connection: &mut AnyConnection,
    account: AccountId,
    name: &ChannelName,
) -> Result<Option<Channel>, StoreError> {
    let row = sqlx::query("SELECT * FROM channels WHERE name = $1 AND account = $2")
        .bind(name.as_str())
        .bind(account.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(stored).transpose()
}

/// Takes an account's name away. `false` where it is not there.
pub(crate) async fn remove(
    connection: &mut AnyConnection,
    account: AccountId,
    name: &ChannelName,
) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM channels WHERE name = $1 AND account = $2")
        .bind(name.as_str())
        .bind(account.to_string())
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Counts an account's names.
pub(crate) async fn count(connection: &mut AnyConnection, account: AccountId) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT COUNT(*) AS n FROM channels WHERE account = $1")
        .bind(account.to_string())
        .fetch_one(connection)
        .await?;
    number(&row, "n")
}

/// A page of an account's names, in order.
pub(crate) async fn list(
    connection: &mut AnyConnection,
    account: AccountId,
    ask: &Ask<ChannelName>,
) -> Result<Paged<Channel, ChannelName>, StoreError> {
    let list = List {
        select: "SELECT * FROM channels WHERE account = $1 AND name > $2 ORDER BY name LIMIT $3",
        stored,
        id: |channel| channel.name.clone(),
    };
    list.page(connection, Some(account), ask).await
}
