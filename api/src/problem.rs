//! Refusals: a code, a status, a sentence; as `application/problem+json` (RFC 9457).

use crate::auth::{HashError, RETRY_AFTER};
use crate::metrics;
use crate::signing::SigningError;
use crate::store::{StoreError, Trouble};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use skytale_proto::Code;
use skytale_proto::rest::Problem;
use std::time::Duration;

/// Time for which a client leaves an API alone whose database needs the operator.
const TROUBLE_RETRY_AFTER: Duration = Duration::from_secs(5);
/// The longest detail that repeats something of the request, in characters.
const DETAIL_CHARS_MAX: usize = 300;

/// Reason why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub code: Code,
    pub status: StatusCode,
    pub detail: String,
    pub retry_after: Option<Duration>,
    /// Trouble that the request met with in the database.
    met: Option<Trouble>,
}

impl Refusal {
    /// A refusal with the code's own status.
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        let detail: String = detail.into();
        Self {
            code,
            status: status_of(code),
            detail: detail.chars().take(DETAIL_CHARS_MAX).collect(),
            retry_after: None,
            met: None,
        }
    }

    /// Sets the time after which it may be retried.
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Sets another status than the code's own.
    pub(crate) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Something that the client cannot mend. The cause is logged here, and not in the answer.
    pub(crate) fn internal(what: &str, error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "{what}");
        Self::new(
            Code::ApiInternal,
            "something failed here; the request was not carried out",
        )
    }

    pub(crate) fn busy(detail: &str) -> Self {
        Self::new(Code::ApiBusy, detail).retry_after(RETRY_AFTER)
    }

    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("no such {what} in this account"))
    }
}

const fn status_of(code: Code) -> StatusCode {
    match code {
        Code::BadRequest | Code::NonceInvalid => StatusCode::BAD_REQUEST,
        Code::KeyUnknown
        | Code::KeyRevoked
        | Code::KeyExpired
        | Code::AdminUnauthorized
        | Code::RelayUnauthorized
        | Code::EnrolmentUnknown
        | Code::EnrolmentRevoked => StatusCode::UNAUTHORIZED,
        Code::KeyScope
        | Code::QuotaExceeded
        | Code::AgentQuota
        | Code::KeyQuota
        | Code::ChannelNameQuota
        | Code::AgentEnded
        | Code::ProofInvalid
        | Code::RegistrationProof => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::Conflict | Code::AgentTaken | Code::EnrolmentTaken | Code::RelayTwin => StatusCode::CONFLICT,
        Code::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::ApiRateLimited | Code::AccountTooMany => StatusCode::TOO_MANY_REQUESTS,
        Code::ApiBusy | Code::DatabaseReadOnly | Code::DatabaseFull | Code::DatabaseAway => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error.trouble() {
            // Told in the log once, by `health`, and not for each request.
            Some(trouble) => {
                tracing::debug!(%error, "{}", trouble.detail());
                Self {
                    met: Some(trouble),
                    ..trouble.into()
                }
            }
            None => Self::internal("a request failed", &error),
        }
    }
}

impl From<Trouble> for Refusal {
    fn from(trouble: Trouble) -> Self {
        Self::new(trouble.code(), trouble.detail()).retry_after(match trouble {
            Trouble::Busy => RETRY_AFTER,
            Trouble::ReadOnly | Trouble::Full | Trouble::Away => TROUBLE_RETRY_AFTER,
        })
    }
}

impl From<SigningError> for Refusal {
    fn from(error: SigningError) -> Self {
        match error {
            SigningError::Store(error) => error.into(),
            error => Self::internal("no signing key", &error),
        }
    }
}

impl From<HashError> for Refusal {
    fn from(error: HashError) -> Self {
        match error {
            HashError::TooBusy => Self::busy("too many API keys wait to be checked"),
            HashError::Failed(_) => Self::internal("a key could not be hashed", &error),
        }
    }
}

impl From<getrandom::Error> for Refusal {
    fn from(error: getrandom::Error) -> Self {
        Self::internal("the system gave no random bytes", &error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        metrics::refused(self.code);
        let problem = Problem::new(self.code, self.status.as_u16(), self.detail);
        // A struct of strings and numbers is JSON.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        if let Some(met) = self.met {
            response.extensions_mut().insert(met);
        }
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(wait) = self.retry_after {
            // Whole seconds (RFC 9110 section 10.2.3), rounded up.
            let wait_s = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait_s.max(1)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_api_has_a_status_of_its_own_kind() {
        for code in Code::ALL.iter().filter(|code| code.number() / 1_000 == 4) {
            let status = status_of(*code);
            let is_ours = matches!(
                code,
                Code::ApiInternal | Code::ApiBusy | Code::DatabaseReadOnly | Code::DatabaseFull | Code::DatabaseAway
            );
            assert_eq!(status.is_server_error(), is_ours, "{code}");
        }
    }

    #[test]
    fn retry_after_is_in_whole_seconds_and_never_zero() {
        let header = |wait| {
            let response = Refusal::busy("x").retry_after(wait).into_response();
            response.headers()[header::RETRY_AFTER].to_str().unwrap().to_owned()
        };
        assert_eq!(header(Duration::ZERO), "1");
        assert_eq!(header(Duration::from_millis(1_001)), "2");
        assert_eq!(header(Duration::from_secs(7)), "7");
    }
}
