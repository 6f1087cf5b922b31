//! Whom the node believes: the API's keys, and which API keys it has revoked.
//!
//! Without keys no token holds, so nothing starts before the API was reached once. When the API can no longer be asked,
//! sessions that run go on until their tokens end (an hour at most); after
//! [`refuse_after_ms`](crate::TrustConfig::refuse_after_ms) no new session starts and no token is refreshed, because a
//! key may have been revoked in the meantime.

mod api;
mod follow;
mod standing;

pub(crate) use api::Api;
pub use api::ApiUrlError;
pub(crate) use follow::{follow_keys, follow_revocations, register};
pub(crate) use standing::{NewlyRevoked, Problem, Standing};

use crate::clock::{Clock, unix_ms};
use crate::config::TrustConfig;
use crate::refusal;
use parking_lot::RwLock;
use skytale_proto::rest::{self, ENROLMENT_KEY_PREFIX, Jwks, Revocations};
use skytale_proto::session::Refusal;
use skytale_proto::token::{Claims, TokenError, TokenVerifier};
use skytale_proto::{Code, EnrolmentId};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// Where keys and revocations come from.
#[derive(Clone, Debug)]
pub enum TrustSource {
    /// These keys, for ever, and no revocations: for tests.
    Static(Jwks),
    /// An API, asked every few seconds.
    Http {
        /// Its base URL: `https://...`, or `http://...` where the way there is trusted.
        api_url: String,
        /// What relay nodes show to it: an enrolment's key (`rk_live_...`), by which the node is in the relay directory
        /// through its heartbeats; or the secret that all nodes share.
        relay_secret: RelaySecret,
    },
}

/// What a relay node shows to the API. Printed as `[redacted]`, erased when dropped.
#[derive(Clone)]
pub struct RelaySecret(Zeroizing<String>);

impl RelaySecret {
    /// From its text.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(Zeroizing::new(secret.into()))
    }

    fn expose(&self) -> &str {
        &self.0
    }

    /// The enrolment whose key this is; `None` for the secret that all nodes share.
    pub(crate) fn enrolment(&self) -> Result<Option<EnrolmentId>, EnrolmentKeyError> {
        if !self.0.starts_with(ENROLMENT_KEY_PREFIX) {
            return Ok(None);
        }
        rest::enrolment_of(&self.0).map(Some).ok_or(EnrolmentKeyError)
    }
}

/// A relay secret that looks like an enrolment's key and is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the relay secret begins with `{ENROLMENT_KEY_PREFIX}` and is no enrolment's key: give all of what `skytale relay enrol` showed"
)]
pub struct EnrolmentKeyError;

impl fmt::Debug for RelaySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What is believed now.
#[derive(Debug)]
pub(crate) struct Trust {
    issuer: String,
    audience: String,
    config: TrustConfig,
    state: RwLock<State>,
    /// Asked for keys when a token names one that is not known; `None` for static keys.
    api: Option<Api>,
    clock: Arc<Clock>,
    refetched: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct State {
    verifier: Option<Arc<TokenVerifier>>,
    standing: Standing,
}

/// What verification by the keys at hand gave.
enum Verified {
    /// The token names a key that is not at hand.
    UnknownKey(TokenError),
    /// All other outcomes.
    Known(Result<Claims, TokenError>),
}

impl Verified {
    fn claims(self) -> Result<Claims, TokenError> {
        match self {
            Self::UnknownKey(error) => Err(error),
            Self::Known(verified) => verified,
        }
    }
}

impl Trust {
    pub(crate) fn new(
        config: TrustConfig,
        issuer: &str,
        audience: &str,
        source: &TrustSource,
        api: Option<Api>,
        clock: Arc<Clock>,
    ) -> Self {
        let trust = Self {
            issuer: issuer.into(),
            audience: audience.into(),
            config,
            state: RwLock::new(State {
                verifier: None,
                standing: Standing::new(api.is_none()),
            }),
            api,
            clock,
            refetched: tokio::sync::Mutex::new(None),
        };
        if let TrustSource::Static(keys) = source {
            trust.set_keys(keys);
        }
        trust
    }

    /// Verifies a token and that its API key is in force. A key that is not known is asked for, not too often.
    pub(crate) async fn verify(&self, token: &str) -> Result<Claims, Refusal> {
        let claims = self.authentic(token).await?;
        self.in_force(&claims)?;
        Ok(claims)
    }

    /// The claims of a token that the API has made and that has not ended. They hold if they are [in force](Self::in_force), too.
    pub(crate) async fn authentic(&self, token: &str) -> Result<Claims, Refusal> {
        let claims = match self.verify_now(token)? {
            Verified::UnknownKey(_) if self.refetch_keys().await => self.verify_now(token)?.claims(),
            verified => verified.claims(),
        };
        claims.map_err(|error| refusal::of_token(&error))
    }

    /// Whether the API key behind claims was not revoked.
    pub(crate) fn in_force(&self, claims: &Claims) -> Result<(), Refusal> {
        if self.is_revoked(claims) {
            return Err(Refusal::because(
                Code::TokenRevoked,
                "the API key behind the token was revoked, or its agent was ended",
            ));
        }
        Ok(())
    }

    fn verify_now(&self, token: &str) -> Result<Verified, Refusal> {
        let refuse_after = Duration::from_millis(self.config.refuse_after_ms);
        let stale = |problem: Problem| Refusal::because(Code::TrustStale, problem.to_string());
        let verifier = {
            let state = self.state.read();
            state.standing.admits(unix_ms(), refuse_after).map_err(stale)?;
            state.verifier.clone().ok_or_else(|| stale(Problem::NoKeys))?
        };
        Ok(match verifier.verify(token, self.clock.tokens_s()) {
            Err(error) if error.code == Code::TokenSignature && !verifier.knows_kid(token) => {
                Verified::UnknownKey(error)
            }
            verified => Verified::Known(verified),
        })
    }

    /// Fetches the keys anew, unless that was done a moment ago; whether there may be others now.
    async fn refetch_keys(&self) -> bool {
        let Some(api) = &self.api else { return false };
        let asked = Instant::now();
        let mut refetched = self.refetched.lock().await;
        let apart = Duration::from_millis(self.config.keys_refetch_after_ms);
        if let Some(last) = *refetched {
            if last > asked {
                // Another session fetched while this one waited.
                return true;
            }
            if last.elapsed() < apart {
                return false;
            }
        }
        *refetched = Some(Instant::now());
        match api.keys().await {
            Ok(keys) => {
                self.set_keys(&keys);
                *refetched = Some(Instant::now());
                true
            }
            Err(error) => {
                tracing::warn!(%error, "keys could not be fetched for a token with an unknown one");
                false
            }
        }
    }

    /// These are the API's keys now.
    pub(crate) fn set_keys(&self, keys: &Jwks) {
        match TokenVerifier::new(keys, &self.issuer, &self.audience) {
            Ok(verifier) => {
                let mut state = self.state.write();
                state.verifier = Some(Arc::new(verifier));
                state.standing.keys_told(unix_ms());
            }
            Err(error) => tracing::error!(%error, "the API's keys cannot be used; the former ones stay in force"),
        }
    }

    /// The API has told these revocations; gives those that are new.
    pub(crate) fn revoke(&self, page: &Revocations) -> NewlyRevoked {
        self.state.write().standing.revoked(page, self.clock.tokens_s())
    }

    /// The API has told all revocations up to now.
    pub(crate) fn revocations_told(&self) {
        self.state.write().standing.revocations_told(unix_ms());
    }

    /// Whether the API key behind these claims was revoked, or their agent ended.
    pub(crate) fn is_revoked(&self, claims: &Claims) -> bool {
        self.state.read().standing.is_revoked(claims)
    }

    /// What is wrong with what is believed; empty where it is fresh.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let keys_stale_after = Duration::from_millis(self.config.keys_stale_after_ms);
        let revocations_stale_after = Duration::from_millis(self.config.revocations_stale_after_ms);
        let state = self.state.read();
        state
            .standing
            .problems(unix_ms(), keys_stale_after, revocations_stale_after)
    }

    /// How old revocations and keys are.
    pub(crate) fn ages(&self) -> (Option<Duration>, Option<Duration>) {
        self.state.read().standing.ages(unix_ms())
    }
}
