//! Whether the process lives, and whether it can do its work.

use crate::openapi::Refusals;
use crate::problem::Refusal;
use crate::service::Service;
use axum::extract::State;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(3);

/// The process lives.
#[utoipa::path(
    get,
    path = "/livez",
    tag = "health",
    operation_id = "get_liveness",
    responses((status = 200, description = "It lives.", body = String))
)]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// The database answers and there is a key to sign with.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    operation_id = "get_readiness",
    responses((status = 200, description = "It is ready.", body = String), Refusals)
)]
pub(super) async fn readyz(State(service): State<Service>) -> Result<&'static str, Refusal> {
    let inner = service.inner();
    let check = async {
        inner.store.ping().await?;
        let view = inner.ring.view(inner.now_s()).await;
        view.map_err(|error| Refusal::internal("not ready", &error))
    };
    match tokio::time::timeout(PATIENCE, check).await {
        Ok(Ok(_)) => Ok("ok\n"),
        Ok(Err(refusal)) => Err(refusal),
        Err(_) => Err(Refusal::busy("the database does not answer")),
    }
}
