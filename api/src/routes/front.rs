//! Layers that every request passes, from outside in: its id and its log line, answers' headers, panics, time, rate.

use crate::metrics;
use crate::problem::Refusal;
use crate::request::{Meta, rate_limited};
use crate::service::Service;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, Response, header};
use axum::middleware::Next;
use axum::response::IntoResponse;
use std::any::Any;
use std::time::Instant;
use tracing::Instrument as _;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives the request its id, logs and counts its end. The path is logged as its pattern, so that nothing that a
/// client wrote is.
pub(super) async fn observe(State(service): State<Service>, mut request: Request, next: Next) -> Response<Body> {
    let meta = Meta::of(&request, service.inner().config.behind_tls_proxy);
    let method = known(request.method());
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "other".to_owned(), |path| path.as_str().to_owned());
    let span = tracing::info_span!("request", id = meta.request, method, path);
    let id = HeaderValue::from_str(&meta.request);
    request.extensions_mut().insert(meta);
    let began = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    if let Some(trouble) = response.extensions().get() {
        service.inner().health.met(*trouble);
    }
    let (status, took) = (response.status().as_u16(), began.elapsed());
    span.in_scope(|| tracing::info!(status, took_ms = took.as_millis() as u64, "answered"));
    metrics::answered(method, path, status, took);
    if let Ok(id) = id {
        response.headers_mut().insert(REQUEST_ID.clone(), id);
    }
    response
}

/// A method's name, if it is one that routes have: a client may write any, and each would be a series of its own.
const fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// Answers are not guessed at, not framed, and not kept unless a route says so.
pub(super) async fn harden(request: Request, next: Next) -> Response<Body> {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Refuses what no route needs to see: a request without a host, a body that is too long by its own announcement.
pub(super) async fn check_head(State(service): State<Service>, request: Request, next: Next) -> Response<Body> {
    let limit = service.inner().config.limits.body_bytes_max;
    match skytale_http::check_head(request.version(), request.headers(), limit) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            let mut response = Refusal::new(error.code, error.detail)
                .status(error.status)
                .into_response();
            // The next bytes on the connection may be a body that nobody reads.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
            response
        }
    }
}

/// Gives a problem to refusals that a framework made.
pub(super) async fn complete(request: Request, next: Next) -> Response<Body> {
    skytale_http::with_problems(next.run(request).await).await
}

/// Turns a panic into an answer.
pub(super) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response<Body> {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message");
    Refusal::internal("a request panicked", &text).into_response()
}

/// Ends a request that takes too long. A transaction that was open is rolled back.
pub(super) async fn limit_time(State(service): State<Service>, request: Request, next: Next) -> Response<Body> {
    let limit = service.inner().config.limits.request_timeout;
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refusal::busy("the request took too long").into_response(),
    }
}

/// Bounds the requests from one address.
pub(super) async fn limit_address(
    State(service): State<Service>,
    meta: Meta,
    request: Request,
    next: Next,
) -> Result<Response<Body>, Refusal> {
    // Probes of the process must be answered.
    if !["/livez", "/readyz"].contains(&request.uri().path()) {
        service.inner().rates.address(meta.address).map_err(rate_limited)?;
    }
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::routing::get;
    use tower::ServiceExt as _;
    use tower_http::catch_panic::CatchPanicLayer;

    #[tokio::test]
    async fn a_panic_is_answered_and_its_message_is_not_told() {
        async fn panics() {
            panic!("the marker");
        }
        let router: Router = Router::new()
            .route("/", get(panics))
            .layer(CatchPanicLayer::custom(panicked));
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.contains("SKY-4013") && !text.contains("marker"), "{text}");
    }
}
