//! `/v1/fleet`: the relay nodes, as operators see them.

use crate::asker::Operator;
use crate::directory::{is_behind, live_since_s};
use crate::openapi::Refusals;
use crate::problem::Refusal;
use crate::request::{Page, Params};
use crate::service::Service;
use crate::store::fleet::{self, StoredRelay, StoredTwin};
use axum::Json;
use axum::extract::State;
use skytale_proto::EndpointId;
use skytale_proto::rest::{Fleet, FleetRelay, RelayState};

/// Lists the enrolled relay nodes with their last heartbeats, those that miss them too. One that was not heard of for
/// seven days is forgotten.
#[utoipa::path(
    get,
    path = "/v1/fleet",
    tag = "relays",
    operation_id = "list_fleet",
    params(Page<EndpointId>),
    security(("operator" = [])),
    responses((status = 200, description = "A page of relay nodes.", body = Fleet), Refusals)
)]
pub(super) async fn list(
    State(service): State<Service>,
    _: Operator,
    Params(page): Params<Page<EndpointId>>,
) -> Result<Json<Fleet>, Refusal> {
    let ask = page.ask()?;
    let inner = service.inner();
    let page = fleet::list(&mut *inner.store.read().await?, &ask).await?;
    let since_s = live_since_s(inner.now_s(), inner.config.relay_heartbeat);
    let shown = |(stored, label)| shown(stored, label, since_s);
    Ok(Json(Fleet {
        relays: page.rows.into_iter().map(shown).collect(),
        next: page.next,
    }))
}

fn shown(stored: StoredRelay, label: String, since_s: u64) -> FleetRelay {
    let is_behind = stored.load.lag.iter().any(|lag| is_behind(lag.messages));
    let state = match stored {
        StoredRelay { seen_s, .. } if seen_s < since_s => RelayState::Missing,
        StoredRelay { draining: true, .. } => RelayState::Draining,
        _ if is_behind => RelayState::Behind,
        _ => RelayState::Live,
    };
    let is_recent = |stored: &StoredTwin| stored.twin.seen_s >= since_s;
    FleetRelay {
        twin: stored.twin.filter(is_recent).map(|stored| stored.twin),
        endpoint: stored.relay.endpoint,
        enrolment: stored.enrolment,
        label,
        state,
        seen_s: stored.seen_s,
        addresses: stored.relay.addresses,
        https_url: stored.relay.https_url,
        region: stored.relay.region,
        version: stored.version,
        load: stored.load,
    }
}
