//! Checks of a request's head, before anything else of the request is looked at.

use crate::problem::problem;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use axum::response::Response;
use skytale_proto::Code;

/// Reason why a request is refused by its head alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadError {
    /// The code.
    pub code: Code,
    /// The status.
    pub status: StatusCode,
    /// The problem.
    pub detail: String,
}

impl HeadError {
    /// Returns it as an answer. The connection ends with it: a body that nobody reads may follow on it.
    pub fn into_response(self) -> Response {
        let mut response = problem(self.code, self.status, self.detail);
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

/// Checks the `Host` (RFC 9112 section 3.2: exactly one, and a name) and the length of the body, if it is announced.
pub fn check_head(version: Version, headers: &HeaderMap, body_bytes_max: usize) -> Result<(), HeadError> {
    let bad = |detail: &str| {
        Err(HeadError {
            code: Code::BadRequest,
            status: StatusCode::BAD_REQUEST,
            detail: detail.to_owned(),
        })
    };
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return bad("the request has more than one Host header"),
        (None, _) if version >= Version::HTTP_11 => {
            return bad("the request has no Host header (RFC 9112 section 3.2)");
        }
        (Some(host), None) if !is_host(host.as_bytes()) => return bad("the Host header is not a host and a port"),
        _ => {}
    }
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok());
    // One that is not a number, or is larger than any, has not come through hyper.
    let is_over = |length: &str| length.parse().is_ok_and(|bytes: u64| bytes > body_bytes_max as u64);
    if length.is_some_and(is_over) {
        return Err(HeadError {
            code: Code::BodyTooLarge,
            status: StatusCode::PAYLOAD_TOO_LARGE,
            detail: format!("the body is over the limit of {body_bytes_max} bytes"),
        });
    }
    Ok(())
}

/// Whether this is a host with or without a port; it may be empty (RFC 9112 section 3.2).
fn is_host(host: &[u8]) -> bool {
    host.is_empty() || !host.contains(&b'@') && Authority::try_from(host).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(version: Version, pairs: &[(header::HeaderName, &str)]) -> Result<(), StatusCode> {
        let headers = pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
        check_head(version, &headers.collect(), 100).map_err(|error| error.status)
    }

    #[test]
    fn a_request_of_http_1_1_names_one_host() {
        let refused = Err(StatusCode::BAD_REQUEST);
        assert_eq!(check(Version::HTTP_11, &[]), refused);
        assert_eq!(check(Version::HTTP_10, &[]), Ok(()));
        for good in ["", "localhost", "127.0.0.1:7600", "[::1]:7600", "api.example.org"] {
            assert_eq!(check(Version::HTTP_11, &[(header::HOST, good)]), Ok(()), "{good}");
        }
        for wrong in ["a b", "user@host", "host/path", "http://host", "a,b:1:2"] {
            assert_eq!(check(Version::HTTP_11, &[(header::HOST, wrong)]), refused, "{wrong}");
        }
        assert_eq!(
            check(Version::HTTP_11, &[(header::HOST, "a"), (header::HOST, "a")]),
            refused
        );
    }

    #[test]
    fn a_body_that_is_too_long_is_refused_by_its_announcement() {
        let length = |text| check(Version::HTTP_10, &[(header::CONTENT_LENGTH, text)]);
        assert_eq!(length("100"), Ok(()));
        assert_eq!(length("101"), Err(StatusCode::PAYLOAD_TOO_LARGE));
        assert_eq!(length("10000000000"), Err(StatusCode::PAYLOAD_TOO_LARGE));
    }
}
