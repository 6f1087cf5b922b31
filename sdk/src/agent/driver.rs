//! The background work: find a relay node, work with it until it is lost or to be left, find the next.
//!
//! ```text
//!   known relay nodes ──race──> session ──lost──> the next one, at once
//!                                  │
//!                                  └── drain, or refusals or silence that another node may not have ──> the next one first,
//!                                      then the work moves over, then the old session is closed
//! ```
//!
//! A relay node that works is not left for a nearer one. Cursors and the outbox are the engine's: they hold at every relay
//! node of a fleet.

use super::backoff::Backoff;
use super::config::{DriverConfig, RelaySource};
use super::core::{Core, CoreSigner};
use super::race::race;
use super::relays::Relays;
use super::running::{self, Ground};
use super::tokens::Tokens;
use crate::event::Event;
use crate::net::relay::Endpoint;
use crate::net::{Relay, RelayError, Session, Token, TokenProvider, TokenSubject};
use parking_lot::Mutex;
use skytale_proto::{Code, EndpointId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A session that lasted so long was a good one: what failed before it is forgotten.
const SESSION_GOOD: Duration = Duration::from_secs(5);
/// How long verdicts that are on their way are waited for before the work moves to another relay node.
const SETTLE_MAX: Duration = Duration::from_secs(1);
/// A relay node that drains is left after this time at the latest where there is no other to go to.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(2);
/// A relay node that drains is left alone for so long, where there are others.
const DRAINED_PAUSE: Duration = Duration::from_secs(2);
/// A relay node that was left for its refusals, or its silence, is left alone for so long at least; for twice as long each time
/// that the next one was no better.
const TROUBLE_PAUSE: Duration = Duration::from_secs(5);
/// The longest such time.
const TROUBLE_PAUSE_MAX: Duration = Duration::from_secs(60);

pub(super) struct Driver {
    pub(super) core: Arc<Core>,
    pub(super) endpoint: Endpoint,
    pub(super) tokens: Arc<Tokens>,
    pub(super) source: RelaySource,
    pub(super) region: Option<u8>,
    pub(super) config: DriverConfig,
    pub(super) relays: Mutex<Relays>,
    /// How often in a row a session was left for what its relay node refused, or did not answer.
    pub(super) troubles: AtomicU32,
    /// Where sessions that were left are closed.
    pub(super) tasks: TaskTracker,
}

/// Why a relay node was left.
#[derive(Clone)]
struct Left {
    relay: EndpointId,
    error: RelayError,
}

/// How the work with a session ended.
enum Ended {
    /// The session is gone.
    Lost(Left),
    /// Another one takes its place.
    Moved(Session, Left),
    /// The agent disconnects.
    Cancelled,
}

/// Where to go from a session that is to be left.
enum Elsewhere {
    There(Session, RelayError),
    /// Nowhere: the session is ended all the same.
    Nowhere(RelayError),
}

/// A round of attempts brought nothing.
struct Missed {
    error: RelayError,
    /// All said no, and to what would be no other the next time.
    for_good: bool,
    /// When it is worth another one; `None` where no relay node is known.
    again_at: Option<Instant>,
}

impl Driver {
    /// Runs until cancelled.
    pub(super) async fn run(self, cancel: CancellationToken) {
        self.tokens.load().await;
        // Of a session that ended with its runtime.
        let _ = self.core.call(|actor| actor.engine.connection_lost()).await;
        let mut backoff = Backoff::new(self.config.backoff_min, self.config.backoff_max);
        let (mut next, mut left) = (None, None);
        loop {
            let session = match next.take() {
                Some(session) => session,
                None => tokio::select! {
                    () = cancel.cancelled() => return,
                    session = self.seek(&mut backoff) => session,
                },
            };
            let ended = self.hold(session, left.take(), &cancel).await;
            match ended {
                Ended::Cancelled => return,
                Ended::Moved(session, from) => (next, left) = (Some(session), Some(from)),
                Ended::Lost(from) => {
                    let error = from.error.clone();
                    left = Some(from);
                    let pause = if error.is_retryable() {
                        // Not all of a relay node's agents at one moment.
                        self.config.move_jitter.mul_f64(rand::random())
                    } else {
                        // Neither here nor elsewhere, it seems.
                        let pause = backoff.longest(error.retry_after());
                        // Another token may do.
                        self.missed(&error, pause, !is_about_the_token(error.code()))
                    };
                    tokio::select! {
                        () = cancel.cancelled() => return,
                        () = sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// Looks for a relay node until there is one.
    async fn seek(&self, backoff: &mut Backoff) -> Session {
        let mut fresh = false;
        loop {
            let Missed {
                error,
                for_good,
                again_at,
            } = match self.round(fresh, None).await {
                Ok(session) => {
                    backoff.reset();
                    return session;
                }
                Err(missed) => missed,
            };
            let retry_in = match again_at {
                _ if !error.is_retryable() => backoff.longest(error.retry_after()),
                Some(at) => at.saturating_duration_since(Instant::now()),
                None => backoff.next(error.retry_after()),
            };
            sleep(self.missed(&error, retry_in, for_good)).await;
            // Those that are known may be the wrong ones.
            fresh = true;
        }
    }

    fn missed(&self, error: &RelayError, retry_in: Duration, for_good: bool) -> Duration {
        tracing::debug!(code = %error.code(), %error, ?retry_in, for_good, "no session with a relay node");
        self.core.bus.tell(Event::ConnectFailed {
            code: error.code(),
            reason: error.to_string(),
            retry_in,
        });
        if for_good {
            self.core.bus.despair(error.clone());
        }
        retry_in
    }

    /// Tries each relay node that may be tried, until one answers.
    async fn round(&self, fresh: bool, except: Option<EndpointId>) -> Result<Session, Missed> {
        let subject = TokenSubject {
            agent: self.core.agent,
            endpoint: self.endpoint.id(),
            region: self.region,
            signer: Arc::new(CoreSigner(Arc::clone(&self.core))),
        };
        let token = self.tokens.ready(&subject, fresh).await.map_err(|error| Missed {
            for_good: !error.is_retryable(),
            error: error.into(),
            again_at: None,
        })?;
        let token_is_fresh = self.tokens.is_fresh();
        let ready = {
            let mut relays = self.relays.lock();
            relays.update(match &self.source {
                RelaySource::Fixed(fixed) => fixed.clone(),
                RelaySource::Directory => self.tokens.relays(),
            });
            let mut ready = relays.ready(Instant::now());
            ready.retain(|relay| Some(relay.endpoint) != except);
            ready
        };
        let errors = Mutex::new(Vec::new());
        let failed = |relay: &Relay, error| {
            self.failed(relay.endpoint, &error);
            errors.lock().push(error);
        };
        let connect = |relay: Relay| self.connect(relay, subject.clone(), token.clone());
        if let Some((_, session)) = race(&ready, self.config.probe_stagger, connect, failed).await {
            return Ok(session);
        }
        let mut errors = errors.into_inner();
        let no = |error: &RelayError| !error.is_retryable() && (token_is_fresh || !is_about_the_token(error.code()));
        let for_good = !errors.is_empty() && errors.iter().all(no);
        if let Some(at) = errors.iter().position(|error| is_about_the_token(error.code())) {
            self.tokens.refused();
            errors.swap(0, at);
        }
        Err(Missed {
            for_good,
            again_at: self.relays.lock().next_at(Instant::now()),
            error: errors.into_iter().next().unwrap_or_else(|| RelayError::Unreachable {
                reason: "the relay directory names no relay node that may be tried now".into(),
            }),
        })
    }

    async fn connect(&self, relay: Relay, subject: TokenSubject, token: Token) -> Result<Session, RelayError> {
        let provider: Arc<dyn TokenProvider> = Arc::clone(&self.tokens) as _;
        Session::connect(&self.endpoint, &relay, subject, token, provider).await
    }

    /// A relay node failed, or a session with it.
    fn failed(&self, relay: EndpointId, error: &RelayError) {
        let now = Instant::now();
        let until = self.relays.lock().failed(relay, error.retry_after(), now);
        tracing::debug!(%relay, code = %error.code(), %error, "relay node failed");
        self.core.bus.tell(Event::RelayFailed {
            relay,
            code: error.code(),
            reason: error.to_string(),
            retry_in: until.saturating_duration_since(now),
        });
    }

    /// Works with a session until it ends or another takes its place, and cleans up after it.
    async fn hold(&self, session: Session, left: Option<Left>, cancel: &CancellationToken) -> Ended {
        let (bus, relay) = (&self.core.bus, session.relay());
        bus.session.send_replace(Some(session.clone()));
        bus.hope();
        bus.tell(Event::Connected { relay });
        tracing::info!(%relay, "connected");
        if let Some(Left { relay: from, error }) = left.filter(|left| left.relay != relay) {
            bus.tell(Event::Moved {
                from,
                to: relay,
                code: error.code(),
                reason: error.to_string(),
            });
        }
        let began = Instant::now();
        let ended = self.work(&session, cancel).await;
        bus.readiness.send_replace(Default::default());
        // Every frame in flight is ambiguous now: each is offered again in the next session.
        let _ = self.core.call(|actor| actor.engine.connection_lost()).await;
        self.judge(&ended, relay, began.elapsed() >= SESSION_GOOD);
        match &ended {
            Ended::Moved(next, Left { error, .. }) => {
                bus.session.send_replace(Some(next.clone()));
                tracing::info!(code = %error.code(), %error, from = %relay, to = %next.relay(), "moved");
                self.tasks.spawn(async move { session.close().await });
            }
            Ended::Lost(Left { error, .. }) => {
                bus.session.send_replace(None);
                session.close().await;
                tracing::info!(code = %error.code(), %error, "disconnected");
                bus.tell(Event::Disconnected {
                    code: error.code(),
                    reason: error.to_string(),
                });
            }
            Ended::Cancelled => {
                bus.session.send_replace(None);
                session.close().await;
                bus.tell(Event::Disconnected {
                    code: RelayError::Closed.code(),
                    reason: RelayError::Closed.to_string(),
                });
            }
        }
        ended
    }

    /// What the end of a session says of its relay node and of its token.
    fn judge(&self, ended: &Ended, relay: EndpointId, was_good: bool) {
        let (error, is_trouble) = match ended {
            Ended::Moved(_, left) => (&left.error, left.error.code() != Code::Draining),
            Ended::Lost(left) => (&left.error, false),
            Ended::Cancelled => return,
        };
        let troubles = match is_trouble {
            true => self.troubles.fetch_add(1, Ordering::Relaxed).min(16),
            false => self.troubles.swap(0, Ordering::Relaxed),
        };
        if is_about_the_token(error.code()) {
            self.tokens.refused();
            if was_good {
                return;
            }
        }
        let mut relays = self.relays.lock();
        if was_good && !is_trouble {
            relays.worked(relay);
        }
        let pause = match error.code() {
            _ if !relays.are_there_others(relay) => None,
            Code::Draining => Some(DRAINED_PAUSE),
            _ if is_trouble => Some(TROUBLE_PAUSE.saturating_mul(1 << troubles).min(TROUBLE_PAUSE_MAX)),
            _ => None,
        };
        relays.failed(relay, pause.max(error.retry_after()), Instant::now());
    }

    /// The work of a session, until it ends or is to go on in another one. When this returns, none of it runs.
    async fn work(&self, session: &Session, cancel: &CancellationToken) -> Ended {
        let relay = session.relay();
        let lost = |error| Ended::Lost(Left { relay, error });
        let ground = tokio::select! {
            () = cancel.cancelled() => return Ended::Cancelled,
            ground = Ground::new(&self.core, &self.config, session) => match ground {
                Ok(ground) => ground,
                Err(error) => return lost(error),
            },
        };
        let stop = CancellationToken::new();
        let mut work = Box::pin(running::run(&ground, &stop));
        let elsewhere = tokio::select! {
            () = cancel.cancelled() => None,
            error = &mut work => return lost(error),
            elsewhere = Box::pin(self.elsewhere(session, &ground)) => Some(elsewhere),
        };
        let Some(elsewhere) = elsewhere else {
            stop.cancel();
            work.await;
            return Ended::Cancelled;
        };
        // Nothing new is appended from here on; what was gets its verdict, if it comes soon.
        ground.leaving.send_replace(true);
        tokio::select! {
            // Another session is there: that this one ended by itself changes nothing.
            _ = &mut work => {}
            _ = timeout(SETTLE_MAX, ground.appender.settled()) => {
                stop.cancel();
                work.await;
            }
        }
        match elsewhere {
            Elsewhere::There(next, error) => Ended::Moved(next, Left { relay, error }),
            Elsewhere::Nowhere(error) => lost(error),
        }
    }

    /// Resolves when the session is to be left: with the one to go on in, where there is any.
    async fn elsewhere(&self, session: &Session, ground: &Ground) -> Elsewhere {
        let (mut draining, mut refused) = (session.draining(), ground.trouble.subscribe());
        let mut overdue = session.overdue();
        loop {
            let trouble = tokio::select! {
                within = drained(&mut draining) => return self.drain(session, ground, within).await,
                refused = told(&mut refused) => refused,
                overdue = told(&mut overdue) => {
                    tracing::warn!(relay = %session.relay(), error = %overdue, "the relay node is silent");
                    self.core.bus.tell(Event::RelaySilent {
                        relay: session.relay(),
                        code: overdue.code(),
                        reason: overdue.to_string(),
                    });
                    overdue
                }
            };
            let next = tokio::select! {
                within = drained(&mut draining) => return self.drain(session, ground, within).await,
                next = self.better(session.relay()) => next,
            };
            if let Some(next) = next {
                return Elsewhere::There(next, trouble);
            }
        }
    }

    /// A session elsewhere, where another relay node may be tried and answers.
    async fn better(&self, here: EndpointId) -> Option<Session> {
        let now = Instant::now();
        let others = self.relays.lock().ready(now).iter().any(|relay| relay.endpoint != here);
        // Where every other one was tried a moment ago, this one is as good.
        if !others {
            return None;
        }
        // Not all of its agents at one moment.
        sleep(self.config.move_jitter.mul_f64(rand::random())).await;
        self.round(false, Some(here)).await.ok()
    }

    /// The relay node is about to stop: finds another, as long as there is time for it.
    async fn drain(&self, session: &Session, ground: &Ground, within: Duration) -> Elsewhere {
        let here = session.relay();
        // The relay node takes no more: what is queued waits for the next one.
        ground.leaving.send_replace(true);
        let error = RelayError::Refused(crate::net::relay::Refused {
            number: Code::Draining.number(),
            message: "the relay node is about to stop".into(),
            retryable: true,
            retry_after: None,
            offset: skytale_proto::Offset::ZERO,
        });
        let deadline = Instant::now() + (within / 2).min(DRAIN_WAIT_MAX);
        if !self.relays.lock().are_there_others(here) {
            // Verdicts of what is in flight are waited for by the caller.
            return Elsewhere::Nowhere(error);
        }
        // Not all of its agents at one moment.
        sleep(self.config.move_jitter.min(within / 4).mul_f64(rand::random())).await;
        loop {
            let missed = match self.round(false, Some(here)).await {
                Ok(next) => return Elsewhere::There(next, error),
                Err(missed) => missed,
            };
            let again_at = missed
                .again_at
                .unwrap_or(deadline)
                .max(Instant::now() + self.config.backoff_min);
            if again_at >= deadline {
                sleep_until(deadline).await;
                return Elsewhere::Nowhere(error);
            }
            sleep_until(again_at).await;
        }
    }
}

/// Waits for the relay node's notice that it is about to stop.
async fn drained(draining: &mut tokio::sync::watch::Receiver<Option<Duration>>) -> Duration {
    match draining.wait_for(Option::is_some).await.map(|within| *within) {
        Ok(within) => within.unwrap_or_default(),
        // The control stream has ended: the session's end says why.
        Err(_) => std::future::pending().await,
    }
}

/// Waits for the next trouble that another relay node may not have.
async fn told(trouble: &mut tokio::sync::watch::Receiver<Option<RelayError>>) -> RelayError {
    loop {
        // The sender lives as long as the session and its ground.
        if trouble.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        if let Some(trouble) = trouble.borrow_and_update().clone() {
            return trouble;
        }
    }
}

/// Whether another token may help.
const fn is_about_the_token(code: Code) -> bool {
    matches!(code.number(), 3_001..=3_999)
}
