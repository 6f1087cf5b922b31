//! Whether the process lives, and whether it can do its work.

use crate::openapi::Refusals;
use crate::problem::Refusal;
use crate::service::Service;
use axum::extract::State;

/// The process lives.
#[utoipa::path(
    get,
    path = "/livez",
    tag = "health",
    operation_id = "get_liveness",
    responses((status = 200, description = "It lives.", body = String), Refusals)
)]
pub(crate) async fn livez() -> &'static str {
    "ok\n"
}

/// The database takes writes and there is a key to sign with. Where it does not, what needs no write is answered all the same.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    operation_id = "get_readiness",
    responses((status = 200, description = "It is ready.", body = String), Refusals)
)]
pub(crate) async fn readyz(State(service): State<Service>) -> Result<&'static str, Refusal> {
    let inner = service.inner();
    if let Some(trouble) = inner.health.trouble(&inner.store).await {
        return Err(trouble.into());
    }
    inner.ring.view(inner.now_s()).await?;
    Ok("ok\n")
}
