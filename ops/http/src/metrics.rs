//! The process' metrics, as a page.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use skytale_proto::Code;
use std::fmt;
use std::sync::Arc;

/// Gives the process' metrics in Prometheus' text format; the handle of the recorder that the binary installed.
#[derive(Clone)]
pub struct RenderMetrics(Arc<dyn Fn() -> String + Send + Sync>);

impl RenderMetrics {
    /// Makes it from a function, such as a `PrometheusHandle`'s `render`.
    pub fn new(render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(render))
    }

    /// The metrics as they are now.
    pub fn render(&self) -> String {
        (self.0)()
    }
}

impl fmt::Debug for RenderMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RenderMetrics")
    }
}

/// The page `/metrics`.
pub fn metrics_page(metrics: Option<&RenderMetrics>) -> Response {
    let Some(metrics) = metrics else {
        let detail = "this process records no metrics";
        return crate::problem(Code::NotFound, StatusCode::NOT_FOUND, detail);
    };
    let text = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (text, metrics.render()).into_response()
}
