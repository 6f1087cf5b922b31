//! Admin HTTP: `/livez`, `/readyz`, `/metrics`, on a port of its own.

mod ready;

use crate::https::Https;
use crate::metrics::{self, Standing};
use crate::node::Shared;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use skytale_http::{RenderMetrics, metrics_page};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

#[derive(Clone)]
struct Admin {
    node: Arc<Shared>,
    metrics: Option<RenderMetrics>,
}

/// Serves until the node stops.
pub(crate) async fn serve(
    listener: TcpListener,
    node: Arc<Shared>,
    metrics: Option<RenderMetrics>,
    stop: CancellationToken,
) {
    let routes = Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state(Admin { node, metrics });
    let listener = skytale_http::Listener::new(listener);
    let ended = stop.clone();
    let server = axum::serve(listener, skytale_http::private(routes))
        .with_graceful_shutdown(async move { stop.cancelled().await });
    tokio::select! {
        served = async { server.await } => {
            if let Err(error) = served {
                warn!(%error, "admin HTTP ended");
            }
        }
        // An open connection does not keep the node from stopping.
        () = async {
            ended.cancelled().await;
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        } => {}
    }
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let report = ready::report(&admin.node);
    let status = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(report)).into_response()
}

async fn render(State(admin): State<Admin>) -> Response {
    let Some(metrics) = &admin.metrics else {
        // The gauges belong to the process: without a recorder, this node must not write over those of another node.
        return metrics_page(None);
    };
    let node = &admin.node;
    let (revocations_age, keys_age) = node.trust.heard_ago();
    metrics::standing(Standing {
        connections: node.connections(),
        before_hello: node.addresses.count(),
        appends_waiting: node.turns.waiting(),
        receive_free_bytes: node.incoming.free(),
        sessions: node.sessions.len(),
        subscriptions: node.readers.len(),
        lag_entries_max: node.readers.lag_max(),
        revocations_age,
        keys_age,
        heartbeat_age: node.presence.age(),
        https: node.https.get().map(Https::traffic),
        ready: ready::report(node).ready,
        draining: node.is_draining(),
        barred: node.trust.barred(),
        twin: node.presence.twin().is_some(),
    });
    metrics_page(Some(metrics))
}
