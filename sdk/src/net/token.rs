//! Tokens of the SDK, and their providers.

use data_encoding::BASE64URL_NOPAD;
use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use skytale_proto::session::HELLO_PROOF_CONTEXT;
use skytale_proto::token::Claims;
use skytale_proto::{AccountId, AgentId, Code, EndpointId, Region, rest};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Provides tokens for relay sessions. Called when a session starts and before each token expires.
///
/// Implement it with an `async fn`, or use [`TokenFn`].
pub trait TokenProvider: Send + Sync + 'static {
    /// Returns a token for this agent on this endpoint.
    fn token(&self, subject: &TokenSubject) -> impl Future<Output = Result<Token, TokenError>> + Send;
}

impl<P: TokenProvider> TokenProvider for Arc<P> {
    async fn token(&self, subject: &TokenSubject) -> Result<Token, TokenError> {
        P::token(self.as_ref(), subject).await
    }
}

/// Any [`TokenProvider`]. Clones are the same provider.
#[derive(Clone)]
pub struct TokenSource(Arc<dyn Erased>);

/// A [`TokenProvider`] that can be a trait object.
trait Erased: Send + Sync {
    fn boxed<'a>(&'a self, subject: &'a TokenSubject) -> BoxFuture<'a, Result<Token, TokenError>>;
}

impl<P: TokenProvider> Erased for P {
    fn boxed<'a>(&'a self, subject: &'a TokenSubject) -> BoxFuture<'a, Result<Token, TokenError>> {
        Box::pin(self.token(subject))
    }
}

impl TokenSource {
    /// Creates a source from a provider.
    pub fn new(provider: impl TokenProvider) -> Self {
        Self(Arc::new(provider))
    }
}

impl TokenProvider for TokenSource {
    async fn token(&self, subject: &TokenSubject) -> Result<Token, TokenError> {
        self.0.boxed(subject).await
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSource").finish_non_exhaustive()
    }
}

/// The subject of a token: agent and endpoint.
#[derive(Clone)]
#[non_exhaustive]
pub struct TokenSubject {
    /// The agent.
    pub agent: AgentId,
    /// The iroh endpoint that will present the token.
    pub endpoint: EndpointId,
    /// The region that the agent is in or nearest to: its relay nodes are listed first. Without it, the provider uses
    /// its own region.
    pub region: Option<Region>,
    signer: Arc<dyn ProofSigner>,
}

impl TokenSubject {
    /// Creates the subject for an agent whose proofs `signer` signs.
    #[doc(hidden)]
    pub fn new(agent: AgentId, endpoint: EndpointId, signer: Arc<dyn ProofSigner>) -> Self {
        Self {
            agent,
            endpoint,
            region: None,
            signer,
        }
    }

    /// Sets the region that the agent is in or nearest to.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_region(mut self, region: Option<Region>) -> Self {
        self.region = region;
        self
    }

    /// Signs a proof of possession as the agent (Ed25519, RFC 8032): 64 bytes. The agent signs proofs and nothing else.
    pub async fn sign(&self, proof: &[u8]) -> Result<[u8; 64], TokenError> {
        self.signer.sign(proof).await
    }
}

impl fmt::Debug for TokenSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSubject")
            .field("agent", &self.agent)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// Whether a message is a proof: the only kind that a [`ProofSigner`] signs.
pub(crate) fn is_proof(message: &[u8]) -> bool {
    [rest::PROOF_CONTEXT, HELLO_PROOF_CONTEXT]
        .iter()
        .any(|context| message.starts_with(context))
}

/// Signs proofs for the API and for relay nodes with an agent's identity key, which never leaves the signer.
pub trait ProofSigner: Send + Sync + 'static {
    /// Returns an Ed25519 signature (RFC 8032) over a message, 64 bytes.
    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<[u8; 64], TokenError>>;
}

/// A token and its expiry time. The text is a secret.
#[derive(Clone)]
pub struct Token {
    text: SecretString,
    expires_s: u64,
    relays: Vec<rest::Relay>,
}

impl Token {
    /// Creates a token that expires at `expires_s`, unix seconds.
    pub fn new(text: impl Into<String>, expires_s: u64) -> Self {
        Self {
            text: SecretString::from(text.into()),
            expires_s,
            relays: Vec::new(),
        }
    }

    /// Sets the relay nodes that accept the token, nearest first.
    #[must_use]
    pub fn with_relays(mut self, relays: Vec<rest::Relay>) -> Self {
        self.relays = relays;
        self
    }

    /// Returns the expiry time, unix seconds.
    pub const fn expires_s(&self) -> u64 {
        self.expires_s
    }

    /// Returns the remaining lifetime by this machine's clock.
    pub fn remaining(&self) -> Duration {
        Duration::from_secs(self.expires_s.saturating_sub(unix_now_s()))
    }

    /// Returns the relay nodes that accept the token, nearest first; empty if the provider has no directory.
    pub fn relays(&self) -> &[rest::Relay] {
        &self.relays
    }

    /// Returns the account that the token names, for frames that name their author's account. The relay node verifies
    /// the token.
    pub fn account(&self) -> Option<AccountId> {
        let claims = self.expose().split('.').nth(1)?;
        let claims: Claims = serde_json::from_slice(&BASE64URL_NOPAD.decode(claims.as_bytes()).ok()?).ok()?;
        Some(claims.acct)
    }

    pub(crate) fn expose(&self) -> &str {
        self.text.expose_secret()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("text", &"[redacted]")
            .field("expires_s", &self.expires_s)
            .field("relays", &self.relays)
            .finish()
    }
}

/// Error from requesting a token.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no token: {reason}")]
pub struct TokenError {
    code: Code,
    reason: String,
    retryable: bool,
    retry_after: Option<Duration>,
    nobody_there: bool,
}

impl TokenError {
    /// Creates an error with a code and a reason. The code determines whether it is retryable.
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
            retryable: code.is_retryable(),
            retry_after: None,
            nobody_there: false,
        }
    }

    /// Sets whether nothing listens at the provider's address: the connection was refused.
    #[must_use]
    pub const fn with_nobody_there(mut self, nobody_there: bool) -> Self {
        self.nobody_there = nobody_there;
        self
    }

    /// Whether nothing listens at the provider's address.
    pub const fn is_nobody_there(&self) -> bool {
        self.nobody_there
    }

    /// Sets the delay before a retry.
    #[must_use]
    pub const fn after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    /// Returns the error code.
    pub const fn code(&self) -> Code {
        self.code
    }

    /// Returns what to do about it.
    pub const fn help(&self) -> &'static str {
        self.code.help()
    }

    /// Whether the same request may succeed later.
    pub const fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// Returns the requested delay before a retry, if there is one.
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

/// A [`TokenProvider`] from a function.
///
/// ```
/// use skytale_sdk::{Token, TokenFn};
///
/// let provider = TokenFn::new(|_subject| async { Ok(Token::new("header.claims.signature", 1_900_000_000)) });
/// # let _ = provider;
/// ```
pub struct TokenFn<F>(F);

impl<F, Given> TokenFn<F>
where
    F: Fn(TokenSubject) -> Given + Send + Sync + 'static,
    Given: Future<Output = Result<Token, TokenError>> + Send + 'static,
{
    /// Creates a provider from a function of the subject.
    pub const fn new(function: F) -> Self {
        Self(function)
    }
}

impl<F, Given> TokenProvider for TokenFn<F>
where
    F: Fn(TokenSubject) -> Given + Send + Sync + 'static,
    Given: Future<Output = Result<Token, TokenError>> + Send + 'static,
{
    fn token(&self, subject: &TokenSubject) -> impl Future<Output = Result<Token, TokenError>> + Send {
        (self.0)(subject.clone())
    }
}

/// Returns the current time, unix seconds, by this machine's clock.
pub(crate) fn unix_now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
