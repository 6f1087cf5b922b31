//! `/v1/relays/{endpoint}/heartbeat`: an enrolled relay node is there.

use super::relays::{RELAYS_MAX, check_addresses, check_https};
use crate::audit::{Action, Actor, Series, Target};
use crate::auth::Enrolled;
use crate::directory::{Claim, Claimant, Holder, claim, expires_after, live_since_s};
use crate::openapi::Refusals;
use crate::problem::Refusal;
use crate::request::{Body, Meta, Path};
use crate::service::{Inner, Service};
use crate::store::fleet::{self, StoredRelay, StoredTwin};
use crate::store::{Write, enrolments, relays};
use axum::Json;
use axum::extract::State;
use data_encoding::HEXLOWER_PERMISSIVE;
use ed25519_dalek::{Signature, VerifyingKey};
use skytale_proto::rest::{
    HEARTBEAT_SHARDS_MAX, Heartbeat, HeartbeatTaken, RELAY_VERSION_BYTES_MAX, Relay, Twin, registration_message,
};
use skytale_proto::{Code, EndpointId};
use std::collections::HashSet;

/// Reports a relay node: that it is there, its addresses, and its load. The first one registers it; three that do not
/// come take it out of the directory. The API's clock alone decides.
#[utoipa::path(
    put,
    path = "/v1/relays/{endpoint}/heartbeat",
    tag = "relays",
    operation_id = "put_heartbeat",
    params(("endpoint" = EndpointId, Path, description = "The relay node's endpoint.")),
    request_body = Heartbeat,
    security(("enrolment" = [])),
    responses((status = 200, description = "When to send the next.", body = HeartbeatTaken), Refusals)
)]
pub(super) async fn put(
    State(service): State<Service>,
    node: Enrolled,
    meta: Meta,
    Path(endpoint): Path<String>,
    Body(heartbeat): Body<Heartbeat>,
) -> Result<Json<HeartbeatTaken>, Refusal> {
    let bad = |_| Refusal::new(Code::BadRequest, "the path must name an endpoint, 64 hex digits");
    let endpoint: EndpointId = endpoint.parse().map_err(bad)?;
    check(&heartbeat)?;
    let inner = service.inner();
    let taken = take(inner, node, &meta, endpoint, heartbeat).await;
    if let Err(refusal) = &taken
        && is_about_the_node(refusal.code)
    {
        // The transaction that refused was rolled back; that it refused is a fact of its own.
        let mut write = inner.store.write().await?;
        let action = of(node, "relay.refuse", endpoint, Some(refusal.code));
        action.record(&mut write, &meta, inner.now_s()).await?;
        write.commit().await?;
    }
    let twin = taken?;
    let every = inner.config.relay_heartbeat;
    Ok(Json(HeartbeatTaken {
        next_ms: millis(every),
        expires_ms: millis(expires_after(every)),
        twin,
    }))
}

/// Takes a heartbeat in; gives another process that shows the same key.
async fn take(
    inner: &Inner,
    node: Enrolled,
    meta: &Meta,
    endpoint: EndpointId,
    heartbeat: Heartbeat,
) -> Result<Option<Twin>, Refusal> {
    check_proof(node, endpoint, &heartbeat.proof)?;
    let now_s = inner.now_s();
    let since_s = live_since_s(now_s, inner.config.relay_heartbeat);
    let mut write = inner.store.write().await?;
    bind(&mut write, node, endpoint).await?;
    let before = fleet::get(&mut write, endpoint).await?;
    if before.is_none() && fleet::count(&mut write).await? >= u64::from(RELAYS_MAX) {
        return Err(Refusal::new(
            Code::QuotaExceeded,
            format!("the directory has {RELAYS_MAX} relay nodes with heartbeats"),
        ));
    }
    let mut relay = StoredRelay {
        enrolment: node.enrolment,
        relay: Relay {
            endpoint,
            addresses: heartbeat.addresses,
            region: heartbeat.region,
            https_url: heartbeat.https_url,
        },
        version: heartbeat.version,
        draining: heartbeat.draining,
        load: heartbeat.load,
        seen_s: now_s,
        instance: heartbeat.instance,
        displaced: None,
        twin: None,
    };
    match judge(before.as_ref(), &relay, since_s) {
        Claim::Keeps => {
            relay.displaced = before.as_ref().and_then(|before| before.displaced);
            let twin = before.as_ref().and_then(|before| before.twin.clone());
            relay.twin = twin.filter(|stored| stored.twin.seen_s >= since_s);
        }
        Claim::Takes { displaced } => relay.displaced = displaced,
        Claim::TakesBack => relay.twin = before.as_ref().map(as_twin),
        Claim::Refused => {
            let holder = before.unwrap_or_else(|| relay.clone());
            return Err(refuse(inner, write, node, meta, holder, &relay).await?);
        }
    }
    fleet::put(&mut write, &relay).await?;
    // It may have registered without heartbeats, before it was enrolled: they alone say now whether it is there.
    relays::remove(&mut write, endpoint).await?;
    if let Some(name) = told(before.as_ref(), &relay) {
        of(node, name, endpoint, None).record(&mut write, meta, now_s).await?;
    }
    write.commit().await?;
    Ok(relay.twin.map(|stored| stored.twin))
}

/// Decides which process has the place.
fn judge(before: Option<&StoredRelay>, relay: &StoredRelay, since_s: u64) -> Claim {
    let holder = before.map(|before| Holder {
        instance: before.instance,
        displaced: before.displaced,
        twin: before.twin.as_ref().and_then(|stored| stored.instance),
        is_live: before.seen_s >= since_s,
    });
    let same_addresses = before.is_some_and(|before| before.relay == relay.relay);
    let claimant = Claimant {
        instance: relay.instance,
        same_addresses,
    };
    claim(holder, claimant)
}

fn as_twin(relay: &StoredRelay) -> StoredTwin {
    StoredTwin {
        instance: relay.instance,
        twin: Twin {
            addresses: relay.relay.addresses.clone(),
            seen_s: relay.seen_s,
        },
    }
}

/// Records that another process than the holder shows its key, so that both learn of it. Gives the refusal.
async fn refuse(
    inner: &Inner,
    mut write: Write,
    node: Enrolled,
    meta: &Meta,
    mut holder: StoredRelay,
    other: &StoredRelay,
) -> Result<Refusal, Refusal> {
    let twin = as_twin(other);
    let before = holder.twin.replace(twin.clone());
    fleet::put(&mut write, &holder).await?;
    // Each of its heartbeats is refused; one audit row and one log line say so.
    let is_new =
        before.is_none_or(|before| before.instance != twin.instance || before.twin.addresses != twin.twin.addresses);
    if is_new {
        let action = of(node, "relay.refuse", other.relay.endpoint, Some(Code::RelayTwin));
        action.record(&mut write, meta, inner.now_s()).await?;
        tracing::warn!(
            endpoint = %other.relay.endpoint,
            holder = ?holder.relay.addresses,
            refused = ?other.relay.addresses,
            code = %Code::RelayTwin,
            "two processes show the key of one relay node"
        );
    }
    write.commit().await?;
    Ok(Refusal::new(
        Code::RelayTwin,
        format!(
            "another process shows this relay node's key and is in the directory, at {}, heard of {} s ago",
            holder.relay.addresses.join(", "),
            other.seen_s.saturating_sub(holder.seen_s)
        ),
    ))
}

/// Returns the news in a heartbeat, as an action for the audit; a change of load alone is no news.
fn told(before: Option<&StoredRelay>, now: &StoredRelay) -> Option<&'static str> {
    let Some(before) = before.filter(|before| before.enrolment == now.enrolment) else {
        return Some("relay.register");
    };
    let same = before.relay == now.relay && before.version == now.version && before.draining == now.draining;
    (!same).then_some("relay.change")
}

/// The enrolment is in force and this endpoint's, from now on if it was nobody's.
async fn bind(write: &mut Write, node: Enrolled, endpoint: EndpointId) -> Result<(), Refusal> {
    let unknown = || Refusal::new(Code::EnrolmentUnknown, "no such enrolment");
    let enrolment = enrolments::lock(write, node.enrolment).await?.ok_or_else(unknown)?;
    if enrolment.revoked_s.is_some() {
        return Err(Refusal::new(Code::EnrolmentRevoked, "the enrolment was revoked"));
    }
    match enrolment.endpoint {
        Some(bound) if bound == endpoint => Ok(()),
        Some(_) => Err(Refusal::new(
            Code::EnrolmentTaken,
            "the enrolment is bound to another endpoint",
        )),
        None => enrolments::bind(write, node.enrolment, endpoint)
            .await
            .map_err(|error| {
                if error.is_taken() {
                    Refusal::new(Code::EnrolmentTaken, "the endpoint has another enrolment in force")
                } else {
                    error.into()
                }
            }),
    }
}

/// The relay node holds the secret key of the endpoint that it names.
fn check_proof(node: Enrolled, endpoint: EndpointId, proof: &str) -> Result<(), Refusal> {
    let bytes = HEXLOWER_PERMISSIVE.decode(proof.as_bytes()).ok();
    let proof: [u8; 64] = bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| Refusal::new(Code::BadRequest, "`proof` must be 128 hex digits"))?;
    let message = registration_message(&node.enrolment, &endpoint);
    let invalid = |_| Refusal::new(Code::RegistrationProof, "the signature by the endpoint does not verify");
    let key = VerifyingKey::from_bytes(endpoint.as_bytes()).map_err(invalid)?;
    key.verify_strict(&message, &Signature::from_bytes(&proof))
        .map_err(invalid)
}

fn check(heartbeat: &Heartbeat) -> Result<(), Refusal> {
    let bad = |detail: String| Err(Refusal::new(Code::BadRequest, detail));
    for address in check_addresses(&heartbeat.addresses)? {
        if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
            return bad(format!(
                "no agent can reach `{address}`; say in `relay.advertise` where they reach this node"
            ));
        }
    }
    check_https(heartbeat.https_url.as_deref())?;
    let version = heartbeat.version.as_bytes();
    if version.is_empty() || version.len() > RELAY_VERSION_BYTES_MAX || !version.iter().all(u8::is_ascii_graphic) {
        return bad(format!(
            "`version` must be visible ASCII, 1 to {RELAY_VERSION_BYTES_MAX} bytes"
        ));
    }
    let lag = &heartbeat.load.lag;
    if lag.len() > HEARTBEAT_SHARDS_MAX {
        return bad(format!("`load.lag` must have {HEARTBEAT_SHARDS_MAX} entries at most"));
    }
    let shards: HashSet<_> = lag.iter().map(|lag| (lag.region, lag.shard)).collect();
    if shards.len() != lag.len() {
        return bad("`load.lag` must have each shard once".to_owned());
    }
    Ok(())
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const fn is_about_the_node(code: Code) -> bool {
    matches!(
        code,
        Code::RegistrationProof | Code::EnrolmentTaken | Code::EnrolmentRevoked | Code::QuotaExceeded
    )
}

const fn of(node: Enrolled, name: &'static str, endpoint: EndpointId, code: Option<Code>) -> Action<'static> {
    Action {
        account: None,
        actor: Actor::Enrolment(node.enrolment),
        name,
        target: Target::Relay(endpoint),
        code,
        counted: Series::Single,
    }
}
