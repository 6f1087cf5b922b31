//! Admin HTTP: `/livez`, `/readyz`, `/metrics`, on a port of its own.

use crate::hub::Hub;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use std::fmt;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Gives the process' metrics in Prometheus' text format.
#[derive(Clone)]
pub struct RenderMetrics(Arc<dyn Fn() -> String + Send + Sync>);

impl RenderMetrics {
    /// From a function, such as a `PrometheusHandle`'s `render`.
    pub fn new(render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(render))
    }
}

impl fmt::Debug for RenderMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RenderMetrics")
    }
}

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
    tokio::select! {
        served = async { axum::serve(listener, routes).await } => {
            if let Err(error) = served {
                tracing::warn!(%error, "admin HTTP ended");
            }
        }
        // Whoever keeps a connection open does not keep the bridge from stopping.
        () = stop.cancelled() => {}
    }
}

/// Ready while there is a relay node to work with.
async fn readyz(State(admin): State<Admin>) -> Response {
    if admin.hub.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response()
    } else if admin.hub.client.is_connected() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no session with a relay node\n").into_response()
    }
}

async fn render(State(admin): State<Admin>) -> Response {
    match admin.metrics {
        Some(render) => {
            let text = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
            (text, (render.0)()).into_response()
        }
        None => (StatusCode::NOT_FOUND, "this process records no metrics\n").into_response(),
    }
}
