//! Admin HTTP: `/livez`, `/readyz`, `/metrics`, on a port of its own.

use crate::hub::Hub;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use skytale_http::{RenderMetrics, metrics_page};
use skytale_proto::Code;
use std::sync::Arc;
use tokio::net::TcpListener;

#[derive(Clone)]
struct Admin {
    hub: Arc<Hub>,
    metrics: Option<RenderMetrics>,
}

/// Serves until the bridge stops.
pub(crate) async fn serve(listener: TcpListener, hub: Arc<Hub>, metrics: Option<RenderMetrics>) {
    let stop = hub.stop.clone();
    let routes = Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state(Admin { hub, metrics });
    let listener = skytale_http::Listener::new(listener);
    tokio::select! {
        served = async { axum::serve(listener, skytale_http::private(routes)).await } => {
            if let Err(error) = served {
                tracing::warn!(%error, "admin HTTP ended");
            }
        }
        // An open connection does not keep the bridge from stopping.
        () = stop.cancelled() => {}
    }
}

/// Ready while there is a relay node to work with.
async fn readyz(State(admin): State<Admin>) -> Response {
    if admin.hub.stop.is_cancelled() {
        unready(Code::BridgeStopping, "the bridge is about to stop")
    } else if admin.hub.client.is_connected() {
        "ready\n".into_response()
    } else {
        unready(Code::LogUnreachable, "no session with a relay node")
    }
}

fn unready(code: Code, detail: &str) -> Response {
    skytale_http::problem(code, StatusCode::SERVICE_UNAVAILABLE, detail)
}

async fn render(State(admin): State<Admin>) -> Response {
    metrics_page(admin.metrics.as_ref())
}
