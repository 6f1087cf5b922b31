//! `/v1/relays`: the directory of relay nodes.

use crate::asker::RelayNode;
use crate::audit::{Action, Actor, Series, Target};
use crate::auth::{Caller, Enrolled};
use crate::directory::{Asking, live_since_s, nearest};
use crate::openapi::Refusals;
use crate::problem::Refusal;
use crate::request::{Body, Meta, Params, Path, limit};
use crate::service::{Inner, Service};
use crate::store::{StoreError, enrolments, fleet, relays};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use skytale_proto::limits::RELAYS_NAMED_MAX;
use skytale_proto::rest::{RELAY_ADDRESSES_MAX, Relay, Relays, check_https_url};
use skytale_proto::{Code, EndpointId, InstanceId};
use sqlx::AnyConnection;
use std::net::{AddrParseError, SocketAddr};

/// Relay nodes in the directory that registered without heartbeats, and as many with.
pub(super) const RELAYS_MAX: u32 = 256;
/// Relay nodes in one answer.
const LISTED_MAX: u32 = 64;

/// Region of the caller, and number of relay nodes.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Nearest {
    /// The region from which the nearest are asked for; without, the API's own.
    region: Option<u8>,
    /// Relay nodes, from 1 to 64; 8 by default.
    #[param(minimum = 1, maximum = 64)]
    limit: Option<u32>,
}

/// Lists relay nodes, nearest first: of the region asked for, then by distance from it, then by their load. Those that
/// are far behind, and after them those that are about to stop, come last; those that missed three heartbeats are not
/// there.
#[utoipa::path(
    get,
    path = "/v1/relays",
    tag = "relays",
    operation_id = "list_relays",
    params(Nearest),
    security(("api_key" = [])),
    responses((status = 200, description = "The directory.", body = Relays), Refusals)
)]
pub(super) async fn list(
    State(service): State<Service>,
    caller: Caller,
    Params(from): Params<Nearest>,
) -> Result<Json<Relays>, Refusal> {
    let limit = limit(from.limit.or(Some(RELAYS_NAMED_MAX)), LISTED_MAX)?;
    let inner = service.inner();
    let asking = Asking {
        limit: limit as usize,
        ..Asking::new(from.region, inner.config.region, caller.key.as_bytes())
    };
    let mut connection = inner.store.read().await?;
    let relays = known(inner, &mut connection, asking).await?;
    Ok(Json(Relays {
        relays,
        account: Some(caller.account),
    }))
}

/// The relay nodes that an agent learns of.
pub(super) async fn known(
    inner: &Inner,
    connection: &mut AnyConnection,
    asking: Asking<'_>,
) -> Result<Vec<Relay>, StoreError> {
    let since_s = live_since_s(inner.now_s(), inner.config.relay_heartbeat);
    let live = fleet::live_since(connection, since_s, RELAYS_MAX).await?;
    let registered = relays::list(connection, RELAYS_MAX).await?;
    Ok(nearest(live, registered, &inner.distances, asking))
}

/// Puts a relay node into the directory, or renews it. One that is not renewed for seven days leaves it. For relay nodes
/// that are not enrolled: one that is sends heartbeats.
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
    node: RelayNode,
    meta: Meta,
    Path(endpoint): Path<String>,
    Body(relay): Body<Relay>,
) -> Result<StatusCode, Refusal> {
    if let RelayNode::Enrolled(_) = node {
        return Err(Refusal::new(
            Code::RelayUnauthorized,
            "this takes the relay nodes' secret; an enrolled relay node sends heartbeats",
        ));
    }
    check(&endpoint, &relay)?;
    let inner = service.inner();
    let now_s = inner.now_s();
    let mut write = inner.store.write().await?;
    if enrolments::has_endpoint(&mut write, relay.endpoint).await? {
        return Err(Refusal::new(
            Code::EnrolmentTaken,
            "the relay node is enrolled: it is in the directory by its heartbeats alone",
        ));
    }
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
        action(Actor::Relay, "relay.put", relay.endpoint)
            .record(&mut write, &meta, now_s)
            .await?;
    }
    write.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Process that leaves.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Leaving {
    /// Process of an enrolled relay node that leaves: another one that shows the same key stays. Without, any
    /// process leaves.
    instance: Option<InstanceId>,
}

/// Takes a relay node out of the directory: one that registered with the relays' secret, or the enrolled one whose key
/// this is.
#[utoipa::path(
    delete,
    path = "/v1/relays/{endpoint}",
    tag = "relays",
    operation_id = "remove_relay",
    params(("endpoint" = EndpointId, Path, description = "The relay node's endpoint."), Leaving),
    security(("relay" = []), ("enrolment" = [])),
    responses((status = 204, description = "It is gone."), Refusals)
)]
pub(super) async fn remove(
    State(service): State<Service>,
    node: RelayNode,
    meta: Meta,
    Path(endpoint): Path<String>,
    Params(leaving): Params<Leaving>,
) -> Result<StatusCode, Refusal> {
    let missing = || Refusal::new(Code::NotFound, "no such relay node in the directory");
    let endpoint: EndpointId = endpoint.parse().map_err(|_| missing())?;
    let inner = service.inner();
    let now_s = inner.now_s();
    let mut write = inner.store.write().await?;
    let (actor, removed) = match node {
        RelayNode::Shared => (Actor::Relay, relays::remove(&mut write, endpoint).await?),
        RelayNode::Enrolled(Enrolled {
            enrolment,
            endpoint: own,
        }) => {
            let removed = own == Some(endpoint)
                && match leaving.instance {
                    Some(instance) => fleet::leave(&mut write, enrolment, instance).await?,
                    None => fleet::remove(&mut write, enrolment).await?,
                };
            (Actor::Enrolment(enrolment), removed)
        }
    };
    if !removed {
        return Err(missing());
    }
    action(actor, "relay.remove", endpoint)
        .record(&mut write, &meta, now_s)
        .await?;
    write.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn check(endpoint: &str, relay: &Relay) -> Result<(), Refusal> {
    if endpoint.parse::<EndpointId>().ok() != Some(relay.endpoint) {
        return Err(Refusal::new(Code::BadRequest, "`endpoint` must be the one in the path"));
    }
    check_addresses(&relay.addresses)?;
    check_https(relay.https_url.as_deref())
}

/// An address in the directory is `ip:port`, and not too much of it.
pub(super) fn check_addresses(addresses: &[String]) -> Result<Vec<SocketAddr>, Refusal> {
    let bad = |detail: &str| Refusal::new(Code::BadRequest, detail);
    if addresses.is_empty() || addresses.len() > RELAY_ADDRESSES_MAX {
        return Err(bad("`addresses` must have 1 to 16 entries"));
    }
    let parsed: Result<_, AddrParseError> = addresses.iter().map(|address| address.parse()).collect();
    // A zone (`fe80::1%eth0`) means something on one machine alone.
    if addresses.iter().any(|address| address.contains('%')) {
        return Err(bad("`addresses` must have no zone (`%`)"));
    }
    parsed.map_err(|_| bad("`addresses` must be of the form `ip:port`"))
}

pub(super) fn check_https(url: Option<&str>) -> Result<(), Refusal> {
    match url.map(check_https_url) {
        Some(Err(problem)) => Err(Refusal::new(Code::BadRequest, format!("`https_url` {problem}"))),
        Some(Ok(())) | None => Ok(()),
    }
}

const fn action(actor: Actor, name: &'static str, endpoint: EndpointId) -> Action<'static> {
    Action {
        account: None,
        actor,
        name,
        target: Target::Relay(endpoint),
        code: None,
        counted: Series::Single,
    }
}
