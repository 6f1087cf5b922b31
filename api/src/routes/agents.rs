//! `/v1/agents`: the agents of an account.

use super::keys::{need, still_in_force};
use crate::audit::{Action, Actor, Series, Target};
use crate::auth::{Caller, KeyScope};
use crate::openapi::Refusals;
use crate::problem::Refusal;
use crate::request::{Meta, Page, Params, Path};
use crate::service::Service;
use crate::store::{agents, revocations};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use skytale_proto::AgentId;
use skytale_proto::rest::Agents;

/// Lists the account's agents.
#[utoipa::path(
    get,
    path = "/v1/agents",
    tag = "agents",
    operation_id = "list_agents",
    params(Page<AgentId>),
    security(("api_key" = [])),
    responses((status = 200, description = "A page of agents.", body = Agents), Refusals)
)]
pub(super) async fn list(
    State(service): State<Service>,
    caller: Caller,
    Params(page): Params<Page<AgentId>>,
) -> Result<Json<Agents>, Refusal> {
    let ask = page.ask()?;
    let page = agents::list(&mut *service.inner().store.read().await?, caller.account, &ask).await?;
    Ok(Json(Agents {
        agents: page.rows,
        next: page.next,
    }))
}

/// Ends an agent, for good: it gets no tokens from now on, and relay nodes end its sessions. Needs `agents:write`.
#[utoipa::path(
    delete,
    path = "/v1/agents/{id}",
    tag = "agents",
    operation_id = "end_agent",
    params(("id" = AgentId, Path, description = "The agent.")),
    security(("api_key" = [])),
    responses((status = 204, description = "It has ended, now or before."), Refusals)
)]
pub(super) async fn end(
    State(service): State<Service>,
    caller: Caller,
    meta: Meta,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    need(&caller, KeyScope::AgentsWrite)?;
    let id: AgentId = id.parse().map_err(|_| Refusal::not_found("agent"))?;
    let inner = service.inner();
    let now_s = inner.now_s();
    let mut write = inner.store.write().await?;
    still_in_force(&mut write, &caller, now_s).await?;
    if agents::end(&mut write, caller.account, id, now_s).await? {
        revocations::add_agent(&mut write, id, now_s).await?;
        let action = Action {
            account: Some(caller.account),
            actor: Actor::Key(caller.key),
            name: "agent.end",
            target: Target::Agent(id),
            code: None,
            counted: Series::Single,
        };
        action.record(&mut write, &meta, now_s).await?;
        write.commit().await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    match agents::get(&mut write, id).await? {
        Some(agent) if agent.account == caller.account => Ok(StatusCode::NO_CONTENT),
        _ => Err(Refusal::not_found("agent")),
    }
}
