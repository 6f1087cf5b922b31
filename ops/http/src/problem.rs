//! Problem documents, and routes whose every refusal is one.

use crate::head::check_head;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use skytale_proto::Code;
use skytale_proto::rest::Problem;

/// The media type of a problem document.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// The longest detail that is taken from an answer of the framework, in bytes.
const DETAIL_BYTES_MAX: usize = 300;

/// An answer that is a problem document.
pub fn problem(code: Code, status: StatusCode, detail: impl Into<String>) -> Response {
    let problem = Problem::new(code, status.as_u16(), detail);
    // A struct of strings and numbers is JSON.
    let mut response = Response::new(Body::from(serde_json::to_vec(&problem).unwrap_or_default()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The code of a refusal of which only the status is known.
pub fn code_of(status: StatusCode) -> Code {
    match status {
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            Code::BodyTooLarge
        }
        StatusCode::SERVICE_UNAVAILABLE => Code::ApiBusy,
        status if status.is_server_error() => Code::ApiInternal,
        _ => Code::BadRequest,
    }
}

/// A fallback: no such path.
pub async fn no_route(uri: Uri) -> Response {
    let detail = format!("no such path: {}", short(uri.path()));
    problem(Code::NotFound, StatusCode::NOT_FOUND, detail)
}

/// A fallback: the path has other methods, which the `Allow` header names.
pub async fn no_method() -> Response {
    problem(
        Code::MethodNotAllowed,
        StatusCode::METHOD_NOT_ALLOWED,
        "the path exists, but not with this method",
    )
}

/// Routes of a private port: whatever they refuse, and whatever is no request to them, is a problem document. They take
/// no bodies.
pub fn private(routes: Router) -> Router {
    routes
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn(async |request: Request, next: Next| {
            match check_head(request.version(), request.headers(), 0) {
                Ok(()) => with_problems(next.run(request).await).await,
                Err(error) => error.into_response(),
            }
        }))
}

/// Turns a refusal without a problem document, which a framework made, into one. Others pass as they are: JSON too, such
/// as the report of `/readyz`.
pub async fn with_problems(response: Response) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || is_json(&response) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, 16 * 1024).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let reason = || status.canonical_reason().unwrap_or("refused").to_ascii_lowercase();
    let is_plain = parts
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    let detail = match text.trim() {
        text if is_plain && !text.is_empty() => short(text).to_owned(),
        _ => reason(),
    };
    let mut response = problem(code_of(status), status, detail);
    for (name, value) in &parts.headers {
        if !matches!(
            *name,
            header::CONTENT_TYPE | header::CONTENT_LENGTH | header::CACHE_CONTROL
        ) {
            response.headers_mut().append(name, value.clone());
        }
    }
    response
}

fn is_json(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"application/problem+json") || kind.starts_with(b"application/json"))
}

/// The beginning of a text.
fn short(text: &str) -> &str {
    let mut end = text.len().min(DETAIL_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tower::ServiceExt as _;

    async fn answer(routes: Router, request: Request) -> (StatusCode, Problem) {
        let response = routes.oneshot(request).await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
        let status = response.status();
        let body = to_bytes(response.into_body(), 100_000).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn whatever_a_private_port_refuses_is_a_problem() {
        let plain = async || (StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
        let empty = async || StatusCode::BAD_REQUEST;
        let routes = || private(Router::new().route("/plain", get(plain)).route("/empty", get(empty)));
        let ask = |method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path);
            request.header(header::HOST, "localhost").body(Body::empty()).unwrap()
        };
        let (status, problem) = answer(routes(), ask("GET", "/plain")).await;
        assert_eq!(
            (status, problem.known_code()),
            (StatusCode::SERVICE_UNAVAILABLE, Some(Code::ApiBusy))
        );
        assert_eq!(problem.detail, "stopping");
        let (status, problem) = answer(routes(), ask("GET", "/empty")).await;
        assert_eq!(
            (status, problem.detail.as_str()),
            (StatusCode::BAD_REQUEST, "bad request")
        );
        let (status, problem) = answer(routes(), ask("GET", "/nothing")).await;
        assert_eq!(
            (status, problem.known_code()),
            (StatusCode::NOT_FOUND, Some(Code::NotFound))
        );
        let (status, problem) = answer(routes(), ask("POST", "/plain")).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(problem.known_code(), Some(Code::MethodNotAllowed));
        let headless = Request::get("/plain").body(Body::empty()).unwrap();
        assert_eq!(answer(routes(), headless).await.0, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn a_detail_is_cut_between_characters() {
        assert_eq!(short(&"ä".repeat(1_000)).len(), 300);
        assert_eq!(short(&format!("a{}", "ä".repeat(1_000))).len(), 299);
    }
}
