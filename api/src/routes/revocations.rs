//! `/v1/revocations`: what relay nodes follow to end the sessions of revoked keys and ended agents.

use crate::asker::RelayNode;
use crate::openapi::Refusals;
use crate::problem::Refusal;
use crate::request::{Params, limit};
use crate::service::Service;
use crate::store::revocations;
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use skytale_proto::Code;
use skytale_proto::rest::Revocations;
use skytale_proto::rest::schema::{NUMBER_MAX, Sequence};

/// Entries in one answer, of each feed.
const FEED_MAX: u32 = 1_000;

/// Start of the answer in each feed.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct From {
    /// Keys: the `next` of the answer before; 0 is from the beginning.
    #[serde(default)]
    #[param(value_type = Sequence)]
    after: u64,
    /// Agents: the `agents_next` of the answer before; 0 is from the beginning.
    #[serde(default)]
    #[param(value_type = Sequence)]
    agents_after: u64,
    /// Entries of each feed, from 1 to 1000; 1000 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Lists the revoked API keys and the ended agents, in order. A number that follows another in the answer is the next
/// one: none is left out, and none comes late. Entries that end no token any more leave the feed. If the feed does not
/// continue from a node's number, the answer begins at the feed's start, and has `start_over` set.
#[utoipa::path(
    get,
    path = "/v1/revocations",
    tag = "relays",
    operation_id = "list_revocations",
    params(From),
    security(("relay" = []), ("enrolment" = [])),
    responses((status = 200, description = "What came after.", body = Revocations), Refusals)
)]
pub(super) async fn list(
    State(service): State<Service>,
    _: RelayNode,
    Params(from): Params<From>,
) -> Result<Json<Revocations>, Refusal> {
    if from.after.max(from.agents_after) > NUMBER_MAX {
        return Err(Refusal::new(
            Code::BadRequest,
            format!("`after` and `agents_after` must be at most {NUMBER_MAX}"),
        ));
    }
    let limit = limit(from.limit.or(Some(FEED_MAX)), FEED_MAX)?;
    let mut connection = service.inner().store.read().await?;
    let keys = revocations::keys(&mut connection, from.after, limit).await?;
    let agents = revocations::agents(&mut connection, from.agents_after, limit).await?;
    Ok(Json(Revocations {
        revocations: keys.entries,
        next: keys.next,
        start_over: keys.start_over,
        agents: agents.entries,
        agents_next: agents.next,
        agents_start_over: agents.start_over,
    }))
}
