//! `/v1/relays`: the directory of relay nodes.

use crate::audit::{Action, Actor, Target};
use crate::auth::Caller;
use crate::openapi::Refusals;
use crate::problem::Refusal;
use crate::request::{Body, Meta, RelayNode};
use crate::service::Service;
use crate::store::relays;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use skytale_proto::rest::{Relay, Relays};
use skytale_proto::{Code, EndpointId};
use std::net::SocketAddr;

/// Relay nodes in the directory.
const RELAYS_MAX: u32 = 256;
/// Addresses of one relay node.
const ADDRESSES_MAX: usize = 16;

/// Lists the relay nodes, those heard of last first.
#[utoipa::path(
    get,
    path = "/v1/relays",
    tag = "relays",
    operation_id = "list_relays",
    security(("api_key" = [])),
    responses((status = 200, description = "The directory.", body = Relays), Refusals)
)]
pub(super) async fn list(State(service): State<Service>, _: Caller) -> Result<Json<Relays>, Refusal> {
    let mut connection = service.inner().store.read().await?;
    let relays = relays::list(&mut connection, RELAYS_MAX).await?;
    Ok(Json(Relays { relays }))
}

/// Puts a relay node into the directory, or renews it. One that is not renewed for seven days leaves it.
#[utoipa::path(
    put,
    path = "/v1/relays/{endpoint}",
    tag = "relays",
    operation_id = "put_relay",
    params(("endpoint" = EndpointId, Path, description = "The relay node's endpoint.")),
    request_body = Relay,
    security(("relay" = [])),
    responses((status = 204, description = "It is there."), Refusals)
)]
pub(super) async fn put(
    State(service): State<Service>,
    _: RelayNode,
    meta: Meta,
    Path(endpoint): Path<String>,
    Body(relay): Body<Relay>,
) -> Result<StatusCode, Refusal> {
    check(&endpoint, &relay)?;
    let inner = service.inner();
    let now_s = inner.now_s();
    let mut write = inner.store.write().await?;
    let before = relays::get(&mut write, relay.endpoint).await?;
    if before.is_none() && relays::count(&mut write).await? >= u64::from(RELAYS_MAX) {
        return Err(Refusal::new(
            Code::QuotaExceeded,
            format!("the directory has {RELAYS_MAX} relay nodes"),
        ));
    }
    relays::put(&mut write, &relay, now_s).await?;
    // A renewal tells nothing new.
    if before.as_ref() != Some(&relay) {
        action("relay.put", relay.endpoint)
            .record(&mut write, &meta, now_s)
            .await?;
    }
    write.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a relay node out of the directory.
#[utoipa::path(
    delete,
    path = "/v1/relays/{endpoint}",
    tag = "relays",
    operation_id = "remove_relay",
    params(("endpoint" = EndpointId, Path, description = "The relay node's endpoint.")),
    security(("relay" = [])),
    responses((status = 204, description = "It is gone."), Refusals)
)]
pub(super) async fn remove(
    State(service): State<Service>,
    _: RelayNode,
    meta: Meta,
    Path(endpoint): Path<String>,
) -> Result<StatusCode, Refusal> {
    let missing = || Refusal::new(Code::NotFound, "no such relay node in the directory");
    let endpoint: EndpointId = endpoint.parse().map_err(|_| missing())?;
    let inner = service.inner();
    let now_s = inner.now_s();
    let mut write = inner.store.write().await?;
    if !relays::remove(&mut write, endpoint).await? {
        return Err(missing());
    }
    action("relay.remove", endpoint)
        .record(&mut write, &meta, now_s)
        .await?;
    write.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn check(endpoint: &str, relay: &Relay) -> Result<(), Refusal> {
    let bad = |detail: &str| Err(Refusal::new(Code::BadRequest, detail));
    if endpoint.parse::<EndpointId>().ok() != Some(relay.endpoint) {
        return bad("`endpoint` must be the one in the path");
    }
    if relay.addresses.is_empty() || relay.addresses.len() > ADDRESSES_MAX {
        return bad("`addresses` must have 1 to 16 entries");
    }
    if relay
        .addresses
        .iter()
        .any(|address| address.parse::<SocketAddr>().is_err())
    {
        return bad("`addresses` must be of the form `ip:port`");
    }
    Ok(())
}

const fn action(name: &'static str, endpoint: EndpointId) -> Action<'static> {
    Action {
        account: None,
        actor: Actor::Relay,
        name,
        target: Target::Relay(endpoint),
        code: None,
    }
}
