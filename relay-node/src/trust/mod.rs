//! Trust of the node: the API's keys, and the API keys that it has revoked.
//!
//! Without keys no token holds, so nothing starts before the API was reached once, by this process or by one before it,
//! which [kept](kept) its beliefs. When the API can no longer be asked, the node serves on for
//! [`serve_without_api_ms`](crate::TrustConfig::serve_without_api_ms); then it serves nobody, since a key may have been
//! revoked in the meantime. The API's word that this node may not serve [bars](bar) it at once.

mod api;
mod bar;
mod follow;
mod kept;
mod reach;
mod refetch;
mod standing;

pub use api::ApiUrlError;
pub(crate) use api::{Api, ApiError};
pub(crate) use bar::Barred;
pub(crate) use follow::{About, end_unserved, follow_keys, follow_revocations, heard, register};
pub(crate) use kept::{Keeper, KeptFor};
pub use reach::{ReachError, reach_api};
pub(crate) use standing::{NewlyRevoked, Problem};

use crate::clock::{Clock, Now};
use crate::config::TrustConfig;
use crate::refusal;
use bar::Bar;
use kept::Kept;
use parking_lot::{Mutex, RwLock};
use refetch::Refetch;
use skytale_proto::rest::{self, ENROLMENT_KEY_PREFIX, Jwks, Revocations};
use skytale_proto::session::Refusal;
use skytale_proto::token::{Claims, TokenError, TokenVerifier};
use skytale_proto::{Code, EnrolmentId, limits};
use standing::{Ages, Standing};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use zeroize::Zeroizing;

/// Minimum time that an agent whose token names an unknown key waits before it retries.
const KEY_RETRY_AFTER_MIN: Duration = Duration::from_millis(500);
/// Maximum interval between two copies of the beliefs, if nothing new was revoked.
const KEEP_EVERY: Duration = Duration::from_secs(30);

/// Source of keys and revocations.
#[derive(Clone, Debug)]
pub enum TrustSource {
    /// These keys, for ever, and no revocations: for tests.
    Static(Jwks),
    /// An API, asked every few seconds.
    Http {
        /// Its base URL: `https://...`, or `http://...` where the way there is trusted.
        api_url: String,
        /// Secret that relay nodes show to it: an enrolment's key (`rk_live_...`), by which the node is in the relay
        /// directory through its heartbeats; or the one that all nodes share.
        relay_secret: RelaySecret,
    },
}

/// Secret that a relay node shows to the API. Printed as `[redacted]`, erased when dropped.
#[derive(Clone)]
pub struct RelaySecret(Zeroizing<String>);

impl RelaySecret {
    /// Makes it from its text.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(Zeroizing::new(secret.into()))
    }

    fn expose(&self) -> &str {
        &self.0
    }

    /// Keeps the beliefs in a folder.
    pub(crate) fn keeper(&self, folder: &Path, kept_for: KeptFor<'_>) -> Keeper {
        Keeper::new(folder, &self.0, kept_for)
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

/// Current beliefs.
#[derive(Debug)]
pub(crate) struct Trust {
    issuer: String,
    audience: String,
    config: TrustConfig,
    state: RwLock<State>,
    bar: Mutex<Bar>,
    keeping: Option<Keeping>,
    clock: Arc<Clock>,
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
    /// Keys of the verifier.
    keys: Option<Jwks>,
    standing: Standing,
}

/// Storage of the beliefs.
#[derive(Debug)]
struct Keeping {
    keeper: Arc<Keeper>,
    /// Time at which they were kept last, and whether that failed.
    last: Mutex<(Option<Instant>, bool)>,
}

impl Trust {
    pub(crate) fn new(
        config: TrustConfig,
        issuer: &str,
        audience: &str,
        source: &TrustSource,
        keeper: Option<Keeper>,
        clock: Arc<Clock>,
    ) -> Self {
        let follows = matches!(source, TrustSource::Http { .. });
        let (now, every) = (Instant::now(), Duration::from_millis(config.keys_refetch_after_ms));
        let trust = Self {
            issuer: issuer.into(),
            audience: audience.into(),
            config,
            state: RwLock::new(State {
                verifier: None,
                keys: None,
                standing: Standing::new(!follows),
            }),
            bar: Mutex::default(),
            keeping: keeper.map(|keeper| Keeping {
                keeper: Arc::new(keeper),
                last: Mutex::default(),
            }),
            follows,
            refetch: Mutex::new(Refetch::new(every, now)),
            wanted: Notify::new(),
            fetched: watch::Sender::new(Fetched {
                started: now,
                well: false,
            }),
            clock,
        };
        if let TrustSource::Static(keys) = source {
            trust.set_keys(keys, trust.clock.now());
        }
        trust.recall();
        trust
    }

    /// Takes the kept beliefs, as old as they are.
    fn recall(&self) {
        let Some(keeping) = &self.keeping else { return };
        let kept = match keeping.keeper.read() {
            Ok(Some(kept)) => kept,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "the API's keys and revocations of before cannot be used: the API must be reached first");
                return;
            }
        };
        let now = self.clock.now();
        let (Some(keys_heard), Some(revocations_heard)) = (
            heard_at(kept.keys_heard_ms, now),
            heard_at(kept.revocations_heard_ms, now),
        ) else {
            tracing::warn!(
                "the API's keys and revocations of before are from the future by this clock: the API must be reached first"
            );
            return;
        };
        if self.set_keys(&kept.keys, keys_heard) {
            let mut state = self.state.write();
            state
                .standing
                .take(kept.revoked.into_iter(), kept.ended.into_iter(), now.unix_ms / 1000);
            state.standing.revocations_heard(revocations_heard);
            let age_s = now.unix_ms.saturating_sub(kept.revocations_heard_ms) / 1000;
            tracing::info!(age_s, "the API's keys and revocations of before are known");
        }
    }

    /// Keeps the beliefs, now and then, and at once if they are `new`.
    async fn keep(&self, is_new: bool) {
        let Some(keeping) = &self.keeping else { return };
        // So that a node that restarts has most of the time left for which it may serve without the API.
        let every = KEEP_EVERY.min(self.ages().serve / 3);
        let is_due = keeping.last.lock().0.is_none_or(|at| at.elapsed() >= every);
        if !is_new && !is_due {
            return;
        }
        let kept = {
            let state = self.state.read();
            let (Some(keys), Some((keys_heard_ms, revocations_heard_ms))) = (&state.keys, state.standing.heard_ms())
            else {
                return;
            };
            Kept {
                keys: keys.clone(),
                keys_heard_ms,
                revocations_heard_ms,
                revoked: state.standing.revoked_keys(),
                ended: state.standing.ended_agents(),
            }
        };
        if self.barred() == Some(Barred::Revoked) {
            return;
        }
        let keeper = keeping.keeper.clone();
        let wrote = tokio::task::spawn_blocking(move || keeper.write(&kept)).await;
        let wrote = wrote.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        if self.barred() == Some(Barred::Revoked) {
            // Said while it was written.
            self.forget_kept();
        }
        let mut last = keeping.last.lock();
        let failed_before = std::mem::replace(&mut *last, (Some(Instant::now()), wrote.is_err())).1;
        if let Err(error) = wrote
            && !failed_before
        {
            tracing::warn!(%error, "the API's keys and revocations cannot be kept for a restart");
        }
    }

    /// Forgets the kept beliefs: the API lets this node serve nobody.
    fn forget_kept(&self) {
        if let Some(keeping) = &self.keeping
            && let Err(error) = keeping.keeper.remove()
        {
            tracing::warn!(%error, "the API's keys and revocations of before cannot be removed");
        }
    }

    /// Returns the operator's choice, if it is to serve for longer without the API than a revocation may take.
    pub(crate) fn prefers_availability(&self) -> Option<String> {
        let serve = Duration::from_millis(self.config.serve_without_api_ms);
        (!self.state.read().standing.is_timeless() && serve > limits::REVOCATION_WITHIN).then(|| {
            format!(
                "relay.trust.serve_without_api_ms is {}: while the API is away, a key that is revoked may be used here for up \
                 to {} s",
                serve.as_millis(),
                serve.as_secs()
            )
        })
    }

    fn ages(&self) -> Ages {
        let ms = Duration::from_millis;
        let config = &self.config;
        Ages {
            serve: ms(config.serve_without_api_ms),
            serve_keys: ms(config.serve_without_api_ms.max(config.keys_stale_after_ms)),
            stale: ms(config.revocations_stale_after_ms),
            stale_keys: ms(config.keys_stale_after_ms),
        }
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
        let stale = |problem: Problem| Refusal::because(Code::TrustStale, problem.to_string());
        let verifier = {
            let state = self.state.read();
            state.standing.admits(self.clock.now(), &self.ages()).map_err(stale)?;
            state.verifier.clone().ok_or_else(|| stale(Problem::NoKeys))?
        };
        Ok(verifier.verify(token, self.clock.tokens_s()))
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

    /// Fetches the keys; whether they are others than before. One task does so, for everyone.
    async fn fetch_keys(&self, api: &Api) -> Result<bool, ApiError> {
        let started = Instant::now();
        self.refetch.lock().started();
        let before = self.state.read().keys.clone();
        let keys = api.keys().await;
        let well = keys.as_ref().is_ok_and(|keys| self.set_keys(keys, self.clock.now()));
        self.fetched.send_replace(Fetched { started, well });
        keys.map(|keys| before != Some(keys))
    }

    /// These are the API's keys now; false where they cannot be used.
    fn set_keys(&self, keys: &Jwks, heard: Now) -> bool {
        match TokenVerifier::new(keys, &self.issuer, &self.audience) {
            Ok(verifier) => {
                let mut state = self.state.write();
                state.verifier = Some(Arc::new(verifier));
                state.keys = Some(keys.clone());
                state.standing.keys_heard(heard);
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
        self.state.write().standing.revoked(page, self.clock.tokens_s())
    }

    /// The API has told all revocations up to now.
    fn revocations_heard(&self) {
        self.state.write().standing.revocations_heard(self.clock.now());
    }

    /// The API has answered that it tells this node no revocations.
    fn denied(&self) {
        self.state.write().standing.denied();
    }

    /// Returns the reason why the node serves nobody on its beliefs, if that is so.
    pub(crate) fn unserved(&self) -> Option<Problem> {
        let admits = self.state.read().standing.admits(self.clock.now(), &self.ages());
        admits.err()
    }

    /// Whether the API key behind these claims was revoked, or their agent ended.
    pub(crate) fn is_revoked(&self, claims: &Claims) -> bool {
        self.state.read().standing.is_revoked(claims)
    }

    /// Returns the reason why the API lets this node serve nobody, if it does not.
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
            // Any other error proves nothing about either.
            (Err(_), _) => {}
        }
    }

    /// Beliefs that are missing or stale, and whether the node serves nobody for it.
    pub(crate) fn problems(&self) -> (Vec<Problem>, bool) {
        let (now, ages) = (self.clock.now(), self.ages());
        let state = self.state.read();
        let mut problems = state.standing.problems(now, &ages);
        let unserved = state.standing.admits(now, &ages).err();
        problems.extend(unserved.filter(|problem| !problems.contains(problem)));
        (problems, unserved.is_some())
    }

    /// Returns the ages of revocations and keys.
    pub(crate) fn heard_ago(&self) -> (Option<Duration>, Option<Duration>) {
        self.state.read().standing.ages(self.clock.now())
    }
}

/// A moment of before, on both clocks; `None` where it is in the future, or this machine cannot count so far back.
fn heard_at(unix_ms: u64, now: Now) -> Option<Now> {
    let skew_ms = u64::try_from(limits::CLOCK_SKEW_MAX.as_millis()).unwrap_or(u64::MAX);
    if unix_ms > now.unix_ms.saturating_add(skew_ms) {
        return None;
    }
    let age = Duration::from_millis(now.unix_ms.saturating_sub(unix_ms));
    Some(Now {
        instant: now.instant.checked_sub(age)?,
        unix_ms,
    })
}
