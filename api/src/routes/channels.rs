//! `/v1/channels`: names of channels. A convenience: no relay node ever sees one.

use super::keys::still_in_force;
use crate::audit::{Action, Actor, Series, Target};
use crate::auth::Caller;
use crate::openapi::Refusals;
use crate::problem::Refusal;
use crate::request::{Body, Meta, Page, Params, Path, too_many_made};
use crate::service::Service;
use crate::store::{accounts, channels};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use skytale_proto::Code;
use skytale_proto::rest::schema::NamePart;
use skytale_proto::rest::{Channel, ChannelName, Channels, NameChannel};
use skytale_proto::token::Action as TokenAction;

fn need_create(caller: &Caller) -> Result<(), Refusal> {
    if caller.scopes.allows_somewhere(TokenAction::CreateChannel) {
        return Ok(());
    }
    Err(Refusal::new(Code::KeyScope, "the API key lacks `channels:create`"))
}

fn parse(org: &str, namespace: &str, name: &str) -> Result<ChannelName, Refusal> {
    format!("{org}/{namespace}/{name}")
        .parse()
        .map_err(|_| Refusal::not_found("channel name"))
}

/// Gives a channel a name. Needs `channels:create`. The same name for the same channel again is no error.
#[utoipa::path(
    post,
    path = "/v1/channels",
    tag = "channels",
    operation_id = "name_channel",
    request_body = NameChannel,
    security(("api_key" = [])),
    responses(
        (status = 201, description = "The channel has the name.", body = Channel),
        (status = 200, description = "It had it before.", body = Channel),
        Refusals
    )
)]
pub(super) async fn create(
    State(service): State<Service>,
    caller: Caller,
    meta: Meta,
    Body(request): Body<NameChannel>,
) -> Result<(StatusCode, Json<Channel>), Refusal> {
    need_create(&caller)?;
    let inner = service.inner();
    let now_s = inner.now_s();
    let channel = Channel {
        name: request.name,
        channel: request.channel,
        created_s: now_s,
    };
    let mut write = inner.store.write().await?;
    still_in_force(&mut write, &caller, now_s).await?;
    let org = accounts::org(&mut write, caller.account).await?.unwrap_or_default();
    if channel.name.org() != org {
        return Err(Refusal::new(
            Code::BadRequest,
            format!("names of this account begin with `{org}/`"),
        ));
    }
    if !channels::insert(&mut write, caller.account, &channel).await? {
        let there = channels::get(&mut write, caller.account, &channel.name).await?;
        return match there {
            Some(there) if there.channel == channel.channel => Ok((StatusCode::OK, Json(there))),
            _ => Err(Refusal::new(Code::Conflict, "the name stands for another channel")),
        };
    }
    accounts::lock(&mut write, caller.account).await?;
    let most = u64::from(inner.config.limits.channels_max);
    if channels::count(&mut write, caller.account).await? > most {
        return Err(Refusal::new(
            Code::ChannelNameQuota,
            format!("the account has {most} channel names"),
        ));
    }
    inner.rates.creation(caller.account).map_err(too_many_made)?;
    action(&caller, "channel.name", channel.name.as_str())
        .record(&mut write, &meta, now_s)
        .await?;
    write.commit().await?;
    Ok((StatusCode::CREATED, Json(channel)))
}

/// Lists the account's channel names.
#[utoipa::path(
    get,
    path = "/v1/channels",
    tag = "channels",
    operation_id = "list_channels",
    params(Page<ChannelName>),
    security(("api_key" = [])),
    responses((status = 200, description = "A page of names.", body = Channels), Refusals)
)]
pub(super) async fn list(
    State(service): State<Service>,
    caller: Caller,
    Params(page): Params<Page<ChannelName>>,
) -> Result<Json<Channels>, Refusal> {
    let ask = page.ask()?;
    let page = channels::list(&mut *service.inner().store.read().await?, caller.account, &ask).await?;
    Ok(Json(Channels {
        channels: page.rows,
        next: page.next,
    }))
}

/// Looks up the channel of a name.
#[utoipa::path(
    get,
    path = "/v1/channels/{org}/{namespace}/{name}",
    tag = "channels",
    operation_id = "get_channel",
    params(("org" = NamePart, Path), ("namespace" = NamePart, Path), ("name" = NamePart, Path)),
    security(("api_key" = [])),
    responses((status = 200, description = "The channel.", body = Channel), Refusals)
)]
pub(super) async fn get(
    State(service): State<Service>,
    caller: Caller,
    Path((org, namespace, name)): Path<(String, String, String)>,
) -> Result<Json<Channel>, Refusal> {
    let name = parse(&org, &namespace, &name)?;
    let mut connection = service.inner().store.read().await?;
    let channel = channels::get(&mut connection, caller.account, &name).await?;
    channel.map(Json).ok_or_else(|| Refusal::not_found("channel name"))
}

/// Takes a name away. The channel itself goes on. Needs `channels:create`.
#[utoipa::path(
    delete,
    path = "/v1/channels/{org}/{namespace}/{name}",
    tag = "channels",
    operation_id = "unname_channel",
    params(("org" = NamePart, Path), ("namespace" = NamePart, Path), ("name" = NamePart, Path)),
    security(("api_key" = [])),
    responses((status = 204, description = "The name is free."), Refusals)
)]
pub(super) async fn remove(
    State(service): State<Service>,
    caller: Caller,
    meta: Meta,
    Path((org, namespace, name)): Path<(String, String, String)>,
) -> Result<StatusCode, Refusal> {
    need_create(&caller)?;
    let name = parse(&org, &namespace, &name)?;
    let inner = service.inner();
    let now_s = inner.now_s();
    let mut write = inner.store.write().await?;
    still_in_force(&mut write, &caller, now_s).await?;
    if !channels::remove(&mut write, caller.account, &name).await? {
        return Err(Refusal::not_found("channel name"));
    }
    action(&caller, "channel.unname", name.as_str())
        .record(&mut write, &meta, now_s)
        .await?;
    write.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn action<'a>(caller: &Caller, what: &'static str, name: &'a str) -> Action<'a> {
    Action {
        account: Some(caller.account),
        actor: Actor::Key(caller.key),
        name: what,
        target: Target::Channel(name),
        code: None,
        counted: Series::Single,
    }
}
