//! Admin HTTP: `/livez`, `/readyz`, `/metrics`, on a port of its own. There is no authorization on it.

use crate::directory::live_since_s;
use crate::metrics;
use crate::routes::health;
use crate::service::Service;
use crate::store::counts;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use skytale_http::metrics_page;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Counts that are younger than this are shown again: counting reads whole tables.
const COUNTS_AGE_MAX: Duration = Duration::from_secs(10);
/// Maximum time for which an open connection may keep the API from stopping.
const LEAVE_WITHIN: Duration = Duration::from_millis(500);

/// Serves until the API stops.
pub(crate) async fn serve(listener: TcpListener, service: Service, stop: CancellationToken) {
    let routes = Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(render))
        .with_state(service);
    let listener = skytale_http::Listener::new(listener);
    let ended = stop.clone();
    let server = axum::serve(listener, skytale_http::private(routes))
        .with_graceful_shutdown(async move { stop.cancelled().await });
    tokio::select! {
        served = async { server.await } => {
            if let Err(error) = served {
                tracing::warn!(%error, "admin HTTP ended");
            }
        }
        () = async {
            ended.cancelled().await;
            tokio::time::sleep(LEAVE_WITHIN).await;
        } => {}
    }
}

async fn render(State(service): State<Service>) -> Response {
    count(&service).await;
    metrics_page(service.inner().config.metrics.as_ref())
}

/// Counts again, if the last count is old. A database that does not answer leaves the last one.
async fn count(service: &Service) {
    let inner = service.inner();
    let mut counted = inner.counted.lock().await;
    if counted.is_some_and(|at| at.elapsed() < COUNTS_AGE_MAX) {
        return;
    }
    let now_s = inner.now_s();
    let since_s = live_since_s(now_s, inner.config.relay_heartbeat);
    let found = async { counts(&mut *inner.store.read().await?, now_s, since_s).await };
    match found.await {
        Ok(counts) => {
            metrics::counted(&counts);
            *counted = Some(Instant::now());
        }
        Err(error) => tracing::debug!(%error, "nothing was counted"),
    }
}
