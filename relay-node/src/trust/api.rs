//! Requests to the API, with their answers bounded in size and time.

use crate::clock::{self, Clock, Source, Span};
use crate::config::TrustConfig;
use crate::metrics;
use crate::trust::RelaySecret;
use reqwest::header::HeaderMap;
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url, header};
use serde::de::DeserializeOwned;
use skytale_proto::rest::{Heartbeat, HeartbeatTaken, Jwks, Problem, Relay, Revocations};
use skytale_proto::{Code, EndpointId, InstanceId};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// An answer of the API, in bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// The `Date` of an answer is in whole seconds.
const DATE_PRECISION: Duration = Duration::from_secs(1);
/// Maximum characters shown of a refusal's own words.
const DETAIL_CHARS_MAX: usize = 300;

/// The API, as a relay node sees it.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    client: Client,
    base: Url,
    secret: RelaySecret,
    /// Told the API's time by each answer.
    clock: Arc<Clock>,
}

/// A request to the API that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("the API cannot be reached: {0}")]
    Request(String),
    #[error("the API answered {status}{detail}")]
    Status {
        status: StatusCode,
        code: Option<Code>,
        /// The API's code and words, where it gave some.
        detail: String,
        retryable: bool,
        retry_after: Option<Duration>,
    },
    #[error("the API's answer is over {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the API's answer cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl ApiError {
    /// Whether the same request may succeed later, as far as the API said.
    pub(crate) const fn is_retryable(&self) -> bool {
        match self {
            Self::Status { retryable, .. } => *retryable,
            Self::Request(_) | Self::TooLarge | Self::Malformed(_) => true,
        }
    }

    /// The API's code, where it gave one that is known.
    pub(crate) const fn code(&self) -> Option<Code> {
        match self {
            Self::Status { code, .. } => *code,
            Self::Request(_) | Self::TooLarge | Self::Malformed(_) => None,
        }
    }

    /// Returns the time for which the API asks to be left alone.
    pub(crate) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Request(_) | Self::TooLarge | Self::Malformed(_) => None,
        }
    }
}

impl From<reqwest::Error> for ApiError {
    fn from(error: reqwest::Error) -> Self {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::Request(text)
    }
}

/// A base URL that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("API URL `{url}`: {problem}")]
pub struct ApiUrlError {
    url: String,
    problem: String,
}

impl Api {
    /// An API under `base`; `tls` says which certificates are believed.
    pub(crate) fn new(
        base: &str,
        secret: RelaySecret,
        tls: impl std::any::Any,
        config: &TrustConfig,
        clock: Arc<Clock>,
    ) -> Result<Self, ApiUrlError> {
        let wrong = |problem: String| ApiUrlError {
            url: skytale_proto::shown(base, 300),
            problem,
        };
        let mut url: Url = base.parse().map_err(|error| wrong(format!("{error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("must be http or https".into()));
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .timeout(Duration::from_millis(config.request_timeout_ms))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("skytale-relay/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| wrong(ApiError::from(error).to_string()))?;
        Ok(Self {
            client,
            base: url,
            secret,
            clock,
        })
    }

    /// The keys that verify tokens.
    pub(crate) async fn keys(&self) -> Result<Jwks, ApiError> {
        // Not what a cache on the way has kept: the key that is looked for may be a second old.
        let request = self.client.get(self.url(".well-known/jwks.json"));
        let request = request.header(header::CACHE_CONTROL, "no-cache");
        self.ask("keys", request).await
    }

    /// API keys revoked and agents ended after a sequence number each.
    pub(crate) async fn revocations(&self, after: u64, agents_after: u64) -> Result<Revocations, ApiError> {
        let mut url = self.url("v1/revocations");
        url.query_pairs_mut()
            .append_pair("after", &after.to_string())
            .append_pair("agents_after", &agents_after.to_string());
        self.ask("revocations", self.with_secret(self.client.get(url))).await
    }

    /// Tells the relay directory where this node is.
    pub(crate) async fn register(&self, relay: &Relay) -> Result<(), ApiError> {
        let request = self.client.put(self.url(&format!("v1/relays/{}", relay.endpoint)));
        let answered = self.answer(self.with_secret(request).json(relay)).await;
        metrics::api_asked("register", answered.is_ok());
        answered.map(|_| ())
    }

    /// Tells the relay directory that this node is there, and how it does.
    pub(crate) async fn heartbeat(
        &self,
        endpoint: &EndpointId,
        heartbeat: &Heartbeat,
    ) -> Result<HeartbeatTaken, ApiError> {
        let request = self.client.put(self.url(&format!("v1/relays/{endpoint}/heartbeat")));
        self.ask("heartbeat", self.with_secret(request).json(heartbeat)).await
    }

    /// Takes this process of the node out of the relay directory.
    pub(crate) async fn remove(&self, endpoint: &EndpointId, instance: &InstanceId) -> Result<(), ApiError> {
        let mut url = self.url(&format!("v1/relays/{endpoint}"));
        url.query_pairs_mut().append_pair("instance", &instance.to_string());
        let request = self.client.delete(url);
        let answered = self.answer(self.with_secret(request)).await;
        metrics::api_asked("remove", answered.is_ok());
        answered.map(|_| ())
    }

    async fn ask<T: DeserializeOwned>(&self, what: &'static str, request: RequestBuilder) -> Result<T, ApiError> {
        let answered = self
            .answer(request)
            .await
            .and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
        metrics::api_asked(what, answered.is_ok());
        answered
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Vec<u8>, ApiError> {
        let asked_ms = clock::running_ms();
        let mut response = request.send().await?;
        if let Some(span) = told_time(response.headers(), asked_ms, clock::running_ms()) {
            self.clock.tell(Source::Api, span);
        }
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        body(&mut response).await
    }

    fn with_secret(&self, request: RequestBuilder) -> RequestBuilder {
        request.bearer_auth(self.secret.expose())
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path()));
        url
    }
}

/// Returns the API's clock, as an answer gives it (RFC 9110 section 6.6.1). One that a cache kept gives an old time
/// (RFC 9111 section 5.1).
fn told_time(headers: &HeaderMap, asked_ms: u64, answered_ms: u64) -> Option<Span> {
    if headers.contains_key(header::AGE) {
        return None;
    }
    let date = httpdate::parse_http_date(headers.get(header::DATE)?.to_str().ok()?).ok()?;
    let time_ms = date.duration_since(UNIX_EPOCH).ok()?.as_millis();
    let time_ms = u64::try_from(time_ms).ok()?;
    Some(Span::told(time_ms, DATE_PRECISION, asked_ms, answered_ms))
}

/// Returns the API's reason for a refusal, in its own words if it has some.
async fn refusal(mut response: Response) -> ApiError {
    let status = response.status();
    let seconds = response.headers().get(header::RETRY_AFTER);
    let seconds = seconds.and_then(|value| value.to_str().ok()?.parse().ok());
    let problem = body(&mut response).await.ok();
    let problem: Option<Problem> = problem.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    ApiError::Status {
        status,
        code: problem.as_ref().and_then(Problem::known_code),
        retryable: problem
            .as_ref()
            .map_or(!status.is_client_error(), |problem| problem.retryable),
        retry_after: seconds.map(Duration::from_secs),
        detail: problem.map_or_else(String::new, |problem| {
            let words = format!(": {} {}", problem.code, problem.detail);
            words
                .chars()
                .filter(|character| !character.is_control())
                .take(DETAIL_CHARS_MAX)
                .collect()
        }),
    }
}

async fn body(response: &mut Response) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(ApiError::TooLarge);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
