//! Tokens as the SDK holds them, and who gives them out.

use data_encoding::BASE64URL_NOPAD;
use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use skytale_proto::session::HELLO_PROOF_CONTEXT;
use skytale_proto::token::Claims;
use skytale_proto::{AccountId, AgentId, Code, EndpointId, Region, rest};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Gives out tokens for relay sessions. Called when a session begins and before each token's end.
///
/// Implement it with an `async fn`, or use [`TokenFn`].
pub trait TokenProvider: Send + Sync + 'static {
    /// A token for this agent on this endpoint.
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
    /// From a provider.
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

/// Whom a token is for.
#[derive(Clone)]
#[non_exhaustive]
pub struct TokenSubject {
    /// The agent.
    pub agent: AgentId,
    /// The iroh endpoint that will present the token.
    pub endpoint: EndpointId,
    /// The region that the agent is in or nearest to: relay nodes of it are named first. Without, the provider's own.
    pub region: Option<Region>,
    signer: Arc<dyn ProofSigner>,
}

impl TokenSubject {
    /// Of an agent whose proofs `signer` signs.
    #[doc(hidden)]
    pub fn new(agent: AgentId, endpoint: EndpointId, signer: Arc<dyn ProofSigner>) -> Self {
        Self {
            agent,
            endpoint,
            region: None,
            signer,
        }
    }

    /// In or nearest to a region.
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

/// Whether a message is a proof: the only ones that a [`ProofSigner`] has to sign.
pub(crate) fn is_proof(message: &[u8]) -> bool {
    [rest::PROOF_CONTEXT, HELLO_PROOF_CONTEXT]
        .iter()
        .any(|context| message.starts_with(context))
}

/// Signs with an agent's identity key, which stays where it is: proofs for the API and for relay nodes.
pub trait ProofSigner: Send + Sync + 'static {
    /// An Ed25519 signature (RFC 8032) over a message, 64 bytes.
    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<[u8; 64], TokenError>>;
}

/// A token and when it ends. The text is a secret.
#[derive(Clone)]
pub struct Token {
    text: SecretString,
    expires_s: u64,
    relays: Vec<rest::Relay>,
}

impl Token {
    /// A token that ends at `expires_s`, unix seconds.
    pub fn new(text: impl Into<String>, expires_s: u64) -> Self {
        Self {
            text: SecretString::from(text.into()),
            expires_s,
            relays: Vec::new(),
        }
    }

    /// With the relay nodes that it can be used at, nearest first.
    #[must_use]
    pub fn with_relays(mut self, relays: Vec<rest::Relay>) -> Self {
        self.relays = relays;
        self
    }

    /// When it ends, unix seconds.
    pub const fn expires_s(&self) -> u64 {
        self.expires_s
    }

    /// How long it still lives by this machine's clock.
    pub fn remaining(&self) -> Duration {
        Duration::from_secs(self.expires_s.saturating_sub(unix_now_s()))
    }

    /// Relay nodes that it can be used at, nearest first; empty where the provider has no directory.
    pub fn relays(&self) -> &[rest::Relay] {
        &self.relays
    }

    /// The account that it names. The relay node verifies the token; here it only says what to put into frames that
    /// name their author's account.
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

/// No token.
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
    /// With a code and what was wrong; whether to try again is the code's.
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
            retryable: code.is_retryable(),
            retry_after: None,
            nobody_there: false,
        }
    }

    /// With whether nothing listens where the provider asks: the connection was refused.
    #[must_use]
    pub const fn with_nobody_there(mut self, nobody_there: bool) -> Self {
        self.nobody_there = nobody_there;
        self
    }

    /// Whether nothing listens where the provider asks.
    pub const fn is_nobody_there(&self) -> bool {
        self.nobody_there
    }

    /// With how long to wait before trying again.
    #[must_use]
    pub const fn after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    /// The code.
    pub const fn code(&self) -> Code {
        self.code
    }

    /// What to do about it.
    pub const fn help(&self) -> &'static str {
        self.code.help()
    }

    /// Whether the same request may succeed later.
    pub const fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// How long to wait before trying again, where that was said.
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

/// A [`TokenProvider`] made of a function.
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
    /// From a function of the subject.
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

/// Now, unix seconds, by this machine's clock.
pub(crate) fn unix_now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
