//! The API's client: nonce, proof, token; the relay directory.

use super::token::{Token, TokenError, TokenProvider, TokenSubject};
use data_encoding::HEXLOWER;
use reqwest::{StatusCode, Url, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use skytale_proto::{AgentId, Code, limits, rest};
use std::fmt;
use std::time::Duration;

/// Longest answer of the API, in bytes. A longer one is an error, not an allocation.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Longest part kept of a foreign error text, in characters.
const DETAIL_CHARS_MAX: usize = 300;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest wait that a server may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// An API key (`sk_live_...`). Prints `[redacted]`, is zeroed when dropped.
#[derive(Clone)]
pub struct ApiKey(SecretString);

impl ApiKey {
    /// Creates a key from its text. Refuses a text that cannot be a key, without repeating it.
    pub fn new(text: impl Into<String>) -> Result<Self, ApiError> {
        let text = SecretString::from(text.into());
        let secret = text.expose_secret();
        let fits = secret.starts_with(rest::API_KEY_PREFIX) && secret.len() <= 256;
        if !fits || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ApiError::Config {
                problem: format!("not an API key: it begins with `{}`", rest::API_KEY_PREFIX),
            });
        }
        Ok(Self(text))
    }

    /// Creates a key from the operator's secret, which has no fixed form: a client with it creates accounts.
    pub fn operator(text: impl Into<String>) -> Result<Self, ApiError> {
        let text = SecretString::from(text.into());
        let secret = text.expose_secret();
        if secret.is_empty() || secret.len() > 1_024 || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ApiError::Config {
                problem: "the operator's secret must be 1 to 1024 visible ASCII characters".into(),
            });
        }
        Ok(Self(text))
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey([redacted])")
    }
}

/// Method of an API request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// Reads a resource.
    Get,
    /// Creates a resource.
    Post,
    /// Replaces a resource.
    Put,
    /// Deletes a resource.
    Delete,
}

impl From<Method> for reqwest::Method {
    fn from(method: Method) -> Self {
        match method {
            Method::Get => Self::GET,
            Method::Post => Self::POST,
            Method::Put => Self::PUT,
            Method::Delete => Self::DELETE,
        }
    }
}

/// Error of an API request.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// The URL or the key cannot be used.
    #[error("API client: {problem}")]
    Config {
        /// The problem, in words.
        problem: String,
    },
    /// No answer.
    #[error("API not reached: {reason}")]
    Unreachable {
        /// The reason, in words.
        reason: String,
        /// Whether nothing listens at its address: the connection was refused.
        nobody_there: bool,
    },
    /// The API refused (RFC 9457).
    #[error("API refused ({status} {code}): {detail}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The code.
        code: Code,
        /// The problem, in the API's words.
        detail: String,
        /// Whether a retry may succeed.
        retryable: bool,
        /// Delay before a retry.
        retry_after: Option<Duration>,
    },
    /// The answer is not the API's.
    #[error("API answered with something else: {problem}")]
    Answer {
        /// The problem, in words.
        problem: String,
    },
}

impl ApiError {
    /// Returns the error code.
    pub const fn code(&self) -> Code {
        match self {
            Self::Config { .. } => Code::BadRequest,
            Self::Unreachable { .. } => Code::Offline,
            Self::Refused { code, .. } => *code,
            Self::Answer { .. } => Code::ApiInternal,
        }
    }

    /// Returns what to do about it.
    pub const fn help(&self) -> &'static str {
        self.code().help()
    }

    /// Whether the same request may succeed later.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { retryable, .. } => *retryable,
            Self::Unreachable { .. } | Self::Answer { .. } => true,
            Self::Config { .. } => false,
        }
    }

    /// Returns the delay before a retry, if the API requested one.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl From<ApiError> for TokenError {
    fn from(error: ApiError) -> Self {
        let nobody_there = matches!(error, ApiError::Unreachable { nobody_there: true, .. });
        Self::new(error.code(), error.to_string())
            .after(error.retry_after())
            .with_nobody_there(nobody_there)
    }
}

/// A client of the API, for one API key.
///
/// Plain HTTP is accepted only for loopback addresses, since requests carry an API key. Redirects are not followed.
#[derive(Clone, Debug)]
pub struct ApiClient {
    http: reqwest::Client,
    base: Url,
    key: ApiKey,
    scopes: Vec<String>,
}

impl ApiClient {
    /// Creates a client of the API at `base` (such as `https://api.example.org`).
    pub fn new(base: &str, key: ApiKey) -> Result<Self, ApiError> {
        let config = |problem: String| ApiError::Config { problem };
        let base = Url::parse(base).map_err(|error| config(format!("URL `{base}`: {error}")))?;
        match base.scheme() {
            "https" => {}
            "http" if is_loopback(&base) => {}
            _ => {
                return Err(config(format!(
                    "URL `{base}`: must be https (http is for loopback addresses alone)"
                )));
            }
        }
        if base.cannot_be_a_base() || !base.username().is_empty() || base.password().is_some() {
            return Err(config(format!(
                "URL must be `https://host[:port]`, not `{}`",
                base.host_str().unwrap_or("")
            )));
        }
        let tls = iroh::tls::CaTlsConfig::default()
            .client_config(iroh::tls::default_provider())
            .map_err(|error| config(format!("TLS: {error}")))?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .user_agent(concat!("skytale-sdk/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| config(error.to_string()))?;
        Ok(Self {
            http,
            base,
            key,
            scopes: Vec::new(),
        })
    }

    /// Requests tokens with only these scopes (as text). Without this, a token has all scopes that the key may grant.
    #[must_use]
    pub fn with_scopes(mut self, scopes: Vec<String>) -> Self {
        self.scopes = scopes;
        self
    }

    /// `POST /v1/nonce`.
    #[doc(hidden)]
    pub async fn nonce(&self, agent: AgentId) -> Result<rest::NonceResponse, ApiError> {
        self.call(Method::Post, "/v1/nonce", Some(&rest::NonceRequest { agent }))
            .await
    }

    /// Requests a token: gets a nonce, signs it as the agent, and sends the proof (`POST /v1/token`).
    pub async fn token(&self, subject: &TokenSubject) -> Result<Token, TokenError> {
        let nonce = self.nonce(subject.agent).await?;
        let bytes: [u8; 32] = HEXLOWER
            .decode(nonce.nonce.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| ApiError::Answer {
                problem: "a nonce that is not 32 bytes of hex".into(),
            })?;
        let proof = rest::proof_message(&bytes, &subject.agent, &subject.endpoint);
        let signature = subject.sign(&proof).await?;
        let request = rest::TokenRequest {
            agent: subject.agent,
            endpoint: subject.endpoint,
            nonce: nonce.nonce,
            signature: HEXLOWER.encode(&signature),
            scopes: self.scopes.clone(),
            region: subject.region.map(|region| region.0),
        };
        let answer: rest::TokenResponse = self.call(Method::Post, "/v1/token", Some(&request)).await?;
        if answer.token.len() > limits::TOKEN_BYTES_MAX {
            return Err(ApiError::Answer {
                problem: format!("a token of {} bytes", answer.token.len()),
            }
            .into());
        }
        Ok(Token::new(answer.token, answer.expires_s).with_relays(answer.relays))
    }

    /// `GET /v1/relays`: the relay directory.
    pub async fn relays(&self) -> Result<Vec<rest::Relay>, ApiError> {
        let answer: rest::Relays = self.call(Method::Get, "/v1/relays", None::<&()>).await?;
        Ok(answer.relays)
    }

    /// Sends any other API request, with the client's key, bounds and errors. `path` begins with `/`.
    #[doc(hidden)]
    pub async fn call<B, A>(&self, method: Method, path: &str, body: Option<&B>) -> Result<A, ApiError>
    where
        B: Serialize + Sync,
        A: DeserializeOwned,
    {
        let url = self.base.join(path).map_err(|error| ApiError::Config {
            problem: format!("path `{path}`: {error}"),
        })?;
        let mut authorization = header::HeaderValue::from_str(&format!("Bearer {}", self.key.0.expose_secret()))
            .map_err(|_| ApiError::Config {
                problem: "the API key has characters that a header cannot hold".into(),
            })?;
        authorization.set_sensitive(true);
        let mut request = self
            .http
            .request(method.into(), url)
            .header(header::AUTHORIZATION, authorization);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let retry_after = retry_after(answer.headers());
        let body = bounded(answer).await?;
        if status.is_success() {
            let body: &[u8] = if body.is_empty() { b"null" } else { &body };
            return serde_json::from_slice(body).map_err(|error| ApiError::Answer {
                // Name a position and a type, not the value, which may be a token.
                problem: format!("JSON at line {} column {}", error.line(), error.column()),
            });
        }
        Err(refused(status, retry_after, &body))
    }
}

impl TokenProvider for ApiClient {
    async fn token(&self, subject: &TokenSubject) -> Result<Token, TokenError> {
        Self::token(self, subject).await
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url
        .host_str()
        .unwrap_or("")
        .trim_start_matches('[')
        .trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Converts reqwest's error of a request without an answer: without the URL, with its causes.
fn unreachable(error: reqwest::Error) -> ApiError {
    let error = error.without_url();
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(&error);
    let mut nobody_there = false;
    while let Some(cause) = source {
        reason = format!("{reason}: {cause}");
        let io = cause.downcast_ref::<std::io::Error>();
        nobody_there |= io.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
        source = cause.source();
    }
    if nobody_there {
        reason = "the connection was refused".into();
    }
    ApiError::Unreachable { reason, nobody_there }
}

async fn bounded(mut answer: reqwest::Response) -> Result<Vec<u8>, ApiError> {
    let too_long = || ApiError::Answer {
        problem: format!("longer than {ANSWER_BYTES_MAX} bytes"),
    };
    if answer
        .content_length()
        .is_some_and(|length| length > ANSWER_BYTES_MAX as u64)
    {
        return Err(too_long());
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(too_long());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Reads `Retry-After` in seconds (RFC 9110 section 10.2.3; the API sends no dates).
fn retry_after(headers: &header::HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

fn refused(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> ApiError {
    let shown = |text: &str| skytale_proto::shown(text, DETAIL_CHARS_MAX);
    match serde_json::from_slice::<rest::Problem>(body) {
        Ok(problem) => ApiError::Refused {
            status: status.as_u16(),
            code: problem.known_code().unwrap_or_else(|| code_of(status)),
            detail: shown(&problem.detail),
            retryable: problem.retryable,
            retry_after,
        },
        // Possibly a proxy's answer.
        Err(_) => ApiError::Refused {
            status: status.as_u16(),
            code: code_of(status),
            detail: "no problem document in the answer".into(),
            retryable: code_of(status).is_retryable(),
            retry_after,
        },
    }
}

const fn code_of(status: StatusCode) -> Code {
    match status.as_u16() {
        401 => Code::KeyUnknown,
        403 => Code::KeyScope,
        404 => Code::NotFound,
        409 => Code::Conflict,
        413 => Code::BodyTooLarge,
        429 => Code::ApiRateLimited,
        503 => Code::ApiBusy,
        500..=599 => Code::ApiInternal,
        _ => Code::BadRequest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ApiKey {
        ApiKey::new("sk_live_0123456789").expect("a key")
    }

    #[test]
    fn a_key_is_never_printed() {
        let shown = format!("{:?}", ApiClient::new("http://127.0.0.1:1", key()).expect("a client"));
        assert!(!shown.contains("0123456789"), "{shown}");
        let refused = ApiKey::new("pk_secret_of_something_else").map_err(|error| error.to_string());
        assert!(refused.is_err_and(|text| !text.contains("secret")));
    }

    #[test]
    fn a_key_goes_over_plain_http_to_loopback_alone() {
        for fine in [
            "http://127.0.0.1:8080",
            "http://[::1]:1",
            "http://localhost:3",
            "https://api.example.org",
        ] {
            assert!(ApiClient::new(fine, key()).is_ok(), "{fine}");
        }
        for refused in [
            "http://api.example.org",
            "ftp://127.0.0.1",
            "https://user:pass@host",
            "nonsense",
        ] {
            assert!(ApiClient::new(refused, key()).is_err(), "{refused}");
        }
    }
}
