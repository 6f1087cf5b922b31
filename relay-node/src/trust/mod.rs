//! Whom the node believes: the API's keys, and which API keys it has revoked.
//!
//! Without keys no token holds, so nothing starts before the API was reached once. When the API can no longer be asked,
//! sessions that run go on until their tokens end (an hour at most); after
//! [`refuse_after_ms`](crate::TrustConfig::refuse_after_ms) no new session starts and no token is refreshed, because a
//! key may have been revoked in the meantime.

mod api;
mod bar;
mod follow;
mod refetch;
mod standing;

pub use api::ApiUrlError;
pub(crate) use api::{Api, ApiError};
pub(crate) use bar::Barred;
pub(crate) use follow::{About, follow_keys, follow_revocations, heard, register};
pub(crate) use standing::{NewlyRevoked, Problem, Standing};

use crate::clock::{unix_ms, unix_s};
use crate::config::TrustConfig;
use crate::refusal;
use bar::Bar;
use parking_lot::Mutex;
use parking_lot::RwLock;
use refetch::Refetch;
use skytale_proto::rest::{self, ENROLMENT_KEY_PREFIX, Jwks, Revocations};
use skytale_proto::session::Refusal;
use skytale_proto::token::{Claims, TokenError, TokenVerifier};
use skytale_proto::{Code, EnrolmentId};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use zeroize::Zeroizing;

/// How long an agent whose token names an unknown key waits at least, before it tries again.
const KEY_RETRY_AFTER_MIN: Duration = Duration::from_millis(500);

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
    bar: Mutex<Bar>,
    /// Whether keys may change: static ones do not.
    follows: bool,
    refetch: Mutex<Refetch>,
    /// A fetch became due before its time.
    wanted: Notify,
    fetched: watch::Sender<Fetched>,
}

/// The last fetch of keys that has ended.
#[derive(Clone, Copy, Debug)]
struct Fetched {
    started: Instant,
    well: bool,
}

#[derive(Debug)]
struct State {
    verifier: Option<Arc<TokenVerifier>>,
    standing: Standing,
}

impl Trust {
    pub(crate) fn new(config: TrustConfig, issuer: &str, audience: &str, source: &TrustSource) -> Self {
        let follows = matches!(source, TrustSource::Http { .. });
        let (now, every) = (Instant::now(), Duration::from_millis(config.keys_refetch_after_ms));
        let trust = Self {
            issuer: issuer.into(),
            audience: audience.into(),
            config,
            state: RwLock::new(State {
                verifier: None,
                standing: Standing::new(!follows),
            }),
            bar: Mutex::default(),
            follows,
            refetch: Mutex::new(Refetch::new(every, now)),
            wanted: Notify::new(),
            fetched: watch::Sender::new(Fetched {
                started: now,
                well: false,
            }),
        };
        if let TrustSource::Static(keys) = source {
            trust.set_keys(keys);
        }
        trust
    }

    /// Verifies a token and that its API key is in force. A key that is not known is fetched, not too often.
    pub(crate) async fn verify(&self, token: &str) -> Result<Claims, Refusal> {
        let claims = self.authentic(token).await?;
        self.in_force(&claims)?;
        Ok(claims)
    }

    /// The claims of a token that the API has made and that has not ended. They hold if they are [in force](Self::in_force), too.
    pub(crate) async fn authentic(&self, token: &str) -> Result<Claims, Refusal> {
        match self.verify_now(token)? {
            Err(error) if error.code == Code::TokenKeyUnknown => {}
            verified => return verified.map_err(|error| refusal::of_token(&error)),
        }
        let retry_after = self.newer_keys().await;
        let claims = self.verify_now(token)?;
        claims.map_err(|error| {
            let refusal = refusal::of_token(&error);
            match error.code {
                Code::TokenKeyUnknown => refusal.after(retry_after.max(KEY_RETRY_AFTER_MIN)),
                _ => refusal,
            }
        })
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

    fn verify_now(&self, token: &str) -> Result<Result<Claims, TokenError>, Refusal> {
        if let Some(barred) = self.barred() {
            return Err(barred.refusal());
        }
        let refuse_after = Duration::from_millis(self.config.refuse_after_ms);
        let stale = |problem: Problem| Refusal::because(Code::TrustStale, problem.to_string());
        let verifier = {
            let state = self.state.read();
            state.standing.admits(unix_ms(), refuse_after).map_err(stale)?;
            state.verifier.clone().ok_or_else(|| stale(Problem::NoKeys))?
        };
        Ok(verifier.verify(token, unix_s()))
    }

    /// Has the keys fetched for a token that names an unknown one, and waits for them unless it is too soon for another
    /// fetch. Gives how long to wait before the token is worth another try.
    async fn newer_keys(&self) -> Duration {
        let asked = Instant::now();
        if !self.follows {
            return Duration::ZERO;
        }
        let mut fetched = self.fetched.subscribe();
        let starts = self.refetch.lock().want(asked);
        self.wanted.notify_one();
        if starts > asked {
            return starts - asked;
        }
        // Only a fetch that starts after the token came is sure to know its key.
        let done = fetched.wait_for(|fetched| fetched.started >= asked);
        let within = Duration::from_millis(self.config.request_timeout_ms);
        match timeout(within, done).await {
            Ok(Ok(fetched)) if fetched.well => Duration::ZERO,
            _ => Duration::from_millis(self.config.keys_refetch_after_ms),
        }
    }

    /// Waits until it is time to fetch keys: `at` a time, or earlier for a token that names an unknown one.
    pub(crate) async fn keys_due(&self, at: Instant) {
        loop {
            let pending = self.refetch.lock().pending();
            let due = pending.map_or(at, |pending| pending.min(at));
            tokio::select! {
                () = sleep_until(due) => return,
                () = self.wanted.notified() => {}
            }
        }
    }

    /// Fetches the keys. One task does so, for everyone.
    async fn fetch_keys(&self, api: &Api) -> Result<(), ApiError> {
        let started = Instant::now();
        self.refetch.lock().started();
        let keys = api.keys().await;
        let well = keys.as_ref().is_ok_and(|keys| self.set_keys(keys));
        self.fetched.send_replace(Fetched { started, well });
        keys.map(|_| ())
    }

    /// These are the API's keys now; false where they cannot be used.
    fn set_keys(&self, keys: &Jwks) -> bool {
        match TokenVerifier::new(keys, &self.issuer, &self.audience) {
            Ok(verifier) => {
                let mut state = self.state.write();
                state.verifier = Some(Arc::new(verifier));
                state.standing.keys_told(unix_ms());
                true
            }
            Err(error) => {
                tracing::error!(%error, "the API's keys cannot be used; the former ones stay in force");
                false
            }
        }
    }

    /// The API has told these revocations; gives those that are new.
    pub(crate) fn revoke(&self, page: &Revocations) -> NewlyRevoked {
        self.state.write().standing.revoked(page, unix_s())
    }

    /// The API has told all revocations up to now.
    pub(crate) fn revocations_told(&self) {
        self.state.write().standing.revocations_told(unix_ms());
    }

    /// Whether the API key behind these claims was revoked, or their agent ended.
    pub(crate) fn is_revoked(&self, claims: &Claims) -> bool {
        self.state.read().standing.is_revoked(claims)
    }

    /// Why the API lets this node serve nobody, if it does not.
    pub(crate) fn barred(&self) -> Option<Barred> {
        self.bar.lock().barred()
    }

    /// The API answered a question of the time `asked` well, or not.
    fn heard(&self, about: About, asked: Instant, answered: Result<(), &ApiError>) {
        let code = match answered {
            Ok(()) => None,
            Err(error) => error.code(),
        };
        let mut bar = self.bar.lock();
        match (answered, code) {
            (_, Some(Code::EnrolmentRevoked)) => bar.enrolment(asked, true),
            (_, Some(Code::RelayTwin)) => {
                bar.enrolment(asked, false);
                bar.twin(true);
            }
            (Ok(()), _) => {
                bar.enrolment(asked, false);
                if matches!(about, About::Heartbeat) {
                    bar.twin(false);
                }
            }
            // Whatever else went wrong says nothing of either.
            (Err(_), _) => {}
        }
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
