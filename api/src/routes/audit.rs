//! `/v1/audit`: the actions in an account.

use super::keys::need;
use crate::auth::{Caller, KeyScope};
use crate::openapi::Refusals;
use crate::problem::Refusal;
use crate::request::{PAGE_MAX, Params, limit};
use crate::service::Service;
use crate::store::audit;
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use skytale_proto::rest::AuditPage;
use skytale_proto::rest::schema::EventId;
use skytale_proto::{Code, KeyId};

/// Page of the audit.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Before {
    /// Start of the page: `next` of the page before it in the list.
    #[param(value_type = Option<EventId>)]
    before: Option<String>,
    /// Rows, from 1 to 200; 50 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// Lists the actions on the account's keys, tokens, agents and names, newest first. Needs `audit:read`.
#[utoipa::path(
    get,
    path = "/v1/audit",
    tag = "audit",
    operation_id = "list_audit_events",
    params(Before),
    security(("api_key" = [])),
    responses((status = 200, description = "A page of events.", body = AuditPage), Refusals)
)]
pub(super) async fn list(
    State(service): State<Service>,
    caller: Caller,
    Params(page): Params<Before>,
) -> Result<Json<AuditPage>, Refusal> {
    need(&caller, KeyScope::AuditRead)?;
    let limit = limit(page.limit, PAGE_MAX)?;
    let before = page
        .before
        // Any UUID has this form.
        .map(|id| id.parse().map(|id: KeyId| id.to_string()))
        .transpose()
        .map_err(|_| Refusal::new(Code::BadRequest, "`before` must be an event's id"))?;
    let page = audit::list(&mut *service.inner().store.read().await?, caller.account, before, limit).await?;
    Ok(Json(AuditPage {
        events: page.rows,
        next: page.next,
    }))
}
