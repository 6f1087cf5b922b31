//! The background work: find a relay node, work with it until it is lost or to be left, find the next.
//!
//! ```text
//!   known relay nodes ──race──> session ──lost──> the next one, at once
//!                                  │
//!                                  └── drain, or refusals or silence that another node may not have ──> the next one first,
//!                                      then the work moves over, then the old session is closed
//! ```
//!
//! A healthy relay node is not left for a nearer one. Cursors and the outbox belong to the engine: they are valid at
//! every relay node of a fleet.

use super::config::{DriverConfig, RelaySource};
use super::core::{Core, CoreSigner};
use super::course::{AfterLoss, Course, Missed, Parting, is_about_the_token};
use super::race::race;
use super::running::{self, Ground};
use super::tokens::Tokens;
use crate::engine::Standing;
use crate::event::Event;
use crate::net::relay::Endpoint;
use crate::net::{Relay, RelayError, Session, Token, TokenSource, TokenSubject};
use parking_lot::Mutex;
use skytale_proto::{Code, EndpointId, Region};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// Longest wait for verdicts in flight before the work moves to another relay node.
const SETTLE_MAX: Duration = Duration::from_secs(1);
/// Maximum number of addresses named when nothing listens.
const TOLD_MAX: usize = 4;

pub(super) struct Driver {
    pub(super) core: Arc<Core>,
    pub(super) endpoint: Endpoint,
    pub(super) tokens: Arc<Tokens>,
    pub(super) source: RelaySource,
    pub(super) region: Option<Region>,
    pub(super) config: DriverConfig,
    /// Decides on the next relay node.
    pub(super) course: Mutex<Course>,
    /// Closes sessions that were left.
    pub(super) tasks: TaskTracker,
}

/// Reason for leaving a relay node.
#[derive(Clone)]
struct Left {
    relay: EndpointId,
    error: RelayError,
}

/// Result of the work with a session.
enum Ended {
    /// The session is lost.
    Lost(Left),
    /// Another session replaces it.
    Moved(Session, Left),
    /// The agent disconnects.
    Cancelled,
}

/// Destination after a session that is to be left.
enum Elsewhere {
    There(Session, RelayError),
    /// None: the session is ended anyway.
    Nowhere(RelayError),
}

impl Driver {
    /// Runs until cancelled, or until another copy of the vault has superseded this one: two copies would take the
    /// session from each other forever.
    pub(super) async fn run(self, cancel: CancellationToken) {
        let bus = Arc::clone(&self.core.bus);
        let known = self.core.try_call(|actor| {
            let channels = actor.engine.channels()?;
            Ok(channels.iter().any(|channel| channel.standing == Standing::Superseded))
        });
        // A vault that cannot be read has other problems.
        bus.superseded.send_replace(known.await.unwrap_or(false));
        let mut superseded = bus.superseded.subscribe();
        let stop = cancel.child_token();
        let mut work = Box::pin(self.work_on(stop.clone()));
        tokio::select! {
            biased;
            // The bus owns the sender.
            Ok(_) = superseded.wait_for(|superseded| *superseded) => {}
            () = &mut work => return,
        }
        stop.cancel();
        work.await;
        bus.fail_waits(RelayError::Local {
            code: Code::Superseded,
            reason: "another copy of this vault is in use and has taken its place".into(),
        });
    }

    async fn work_on(self, cancel: CancellationToken) {
        self.tokens.load().await;
        // Cleans up after a session that ended with its runtime.
        let _ = self.core.call(|actor| actor.engine.connection_lost()).await;
        let (mut next, mut left) = (None, None);
        loop {
            let session = match next.take() {
                Some(session) => session,
                None => tokio::select! {
                    () = cancel.cancelled() => return,
                    session = self.seek() => session,
                },
            };
            let ended = self.hold(session, left.take(), &cancel).await;
            match ended {
                Ended::Cancelled => return,
                Ended::Moved(session, from) => (next, left) = (Some(session), Some(from)),
                Ended::Lost(from) => {
                    let error = from.error.clone();
                    left = Some(from);
                    let after = self.course.lock().on_lost(&error);
                    let pause = match after {
                        AfterLoss::Soon => self.jitter(self.config.move_jitter),
                        AfterLoss::After { pause, for_good } => self.missed(&error, pause, for_good),
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
    async fn seek(&self) -> Session {
        let mut fresh = false;
        loop {
            let missed = match self.round(fresh, None, true).await {
                Ok(session) => {
                    self.course.lock().on_session();
                    return session;
                }
                Err(missed) => missed,
            };
            let retry_in = self.course.lock().on_missed(&missed, Instant::now());
            sleep(self.missed(&missed.error, retry_in, missed.for_good)).await;
            // The known ones may be outdated.
            fresh = true;
        }
    }

    /// Returns a random delay, so that a relay node's agents do not all move at the same moment.
    fn jitter(&self, most: Duration) -> Duration {
        most.mul_f64(rand::random())
    }

    fn missed(&self, error: &RelayError, retry_in: Duration, for_good: bool) -> Duration {
        tracing::debug!(code = %error.code(), %error, ?retry_in, for_good, "no session with a relay node");
        self.core.bus.tell(Event::ConnectFailed {
            code: error.code(),
            reason: error.to_string(),
            retry_in,
        });
        if for_good {
            self.core.bus.fail_waits(error.clone());
        }
        retry_in
    }

    /// Tries each eligible relay node, until one answers. With `any`, a node that prefers not to serve is used if no
    /// other one answers.
    async fn round(&self, fresh: bool, except: Option<EndpointId>, any: bool) -> Result<Session, Missed> {
        let signer = Arc::new(CoreSigner(Arc::clone(&self.core)));
        let subject = TokenSubject::new(self.core.agent, self.endpoint.id(), signer).with_region(self.region);
        self.core.bus.attempt();
        let token = self.tokens.ready(&subject, fresh).await.map_err(|error| {
            if error.is_nobody_there() {
                let reason = error.to_string();
                self.core.bus.tell(Event::NobodyListens { reason });
            }
            Missed {
                for_good: !error.is_retryable(),
                error: error.into(),
                again_at: None,
            }
        })?;
        let token_is_fresh = self.tokens.is_fresh();
        let list = match &self.source {
            RelaySource::Fixed(fixed) => fixed.clone(),
            RelaySource::Directory => self.tokens.relays(),
        };
        let ready = self.course.lock().ready(list, except, Instant::now());
        let (errors, unwilling) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let failed = |relay: &Relay, error: RelayError| {
            if error.code() == Code::ClockWrong {
                unwilling.lock().push(relay.clone());
            }
            self.failed(relay.endpoint, &error);
            errors.lock().push(error);
        };
        let connect = |relay: Relay| self.connect(&self.endpoint, relay, subject.clone(), token.clone());
        let raced = tokio::select! {
            biased;
            raced = race(&ready, self.config.probe_stagger, connect, failed) => raced,
            never = self.tell_if_nobody_listens(&ready) => match never {},
        };
        if let Some((_, session)) = raced {
            return Ok(session);
        }
        let last_resort = self.endpoint.clone().as_last_resort();
        let unwilling = unwilling.into_inner();
        let connect = |relay: Relay| self.connect(&last_resort, relay, subject.clone(), token.clone());
        if any && let Some((_, session)) = race(&unwilling, self.config.probe_stagger, connect, |_, _| {}).await {
            return Ok(session);
        }
        let errors = errors.into_inner();
        if errors.iter().any(|error| is_about_the_token(error.code())) {
            self.tokens.refused();
        }
        Err(self
            .course
            .lock()
            .on_round_failed(errors, token_is_fresh, Instant::now()))
    }

    /// Reports if nothing listens: QUIC over UDP would wait, which a caller may not want.
    async fn tell_if_nobody_listens(&self, relays: &[Relay]) -> Infallible {
        self.endpoint.nobody_listens(relays).await;
        let addresses = relays.iter().flat_map(|relay| &relay.addresses);
        let addresses: Vec<String> = addresses.take(TOLD_MAX).map(ToString::to_string).collect();
        let reason = format!("nothing listens at {}", addresses.join(", "));
        self.core.bus.tell(Event::NobodyListens { reason });
        std::future::pending().await
    }

    async fn connect(
        &self,
        endpoint: &Endpoint,
        relay: Relay,
        subject: TokenSubject,
        token: Token,
    ) -> Result<Session, RelayError> {
        let provider = TokenSource::new(Arc::clone(&self.tokens));
        Session::connect(endpoint, &relay, subject, token, provider).await
    }

    /// Handles a failure of a relay node, or of a session with it.
    fn failed(&self, relay: EndpointId, error: &RelayError) {
        let now = Instant::now();
        let until = self.course.lock().on_failed(relay, error, now);
        tracing::debug!(%relay, code = %error.code(), %error, "relay node failed");
        self.core.bus.tell(Event::RelayFailed {
            relay,
            code: error.code(),
            reason: error.to_string(),
            retry_in: until.saturating_duration_since(now),
        });
    }

    /// Works with a session until it ends or is replaced, and cleans up after it.
    async fn hold(&self, session: Session, left: Option<Left>, cancel: &CancellationToken) -> Ended {
        let (bus, relay) = (&self.core.bus, session.relay());
        bus.session.send_replace(Some(session.clone()));
        bus.allow_waits();
        let over_https = session.is_over_https();
        bus.tell(Event::Connected { relay, over_https });
        tracing::info!(%relay, over_https, "connected");
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
        // Every frame in flight is ambiguous now: all are offered again in the next session.
        let _ = self.core.call(|actor| actor.engine.connection_lost()).await;
        self.judge(&ended, relay, began.elapsed());
        match &ended {
            Ended::Moved(next, Left { error, .. }) => {
                bus.session.send_replace(Some(next.clone()));
                tracing::info!(code = %error.code(), %error, from = %relay, to = %next.relay(), "moved");
                self.tasks.spawn(async move { session.close().await }.in_current_span());
            }
            Ended::Lost(Left { error, .. }) => {
                bus.session.send_replace(None);
                // Over HTTPS it has its own endpoint, which takes seconds to close if the relay node is dead: do not
                // wait.
                self.tasks.spawn(async move { session.close().await }.in_current_span());
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

    /// Judges the relay node and the token by the end of a session.
    fn judge(&self, ended: &Ended, relay: EndpointId, lasted: Duration) {
        let (error, parting) = match ended {
            Ended::Moved(_, left) => (&left.error, Parting::Moved),
            Ended::Lost(left) => (&left.error, Parting::Lost),
            Ended::Cancelled => return,
        };
        let mut course = self.course.lock();
        let after = course.on_session_end(relay, parting, error, lasted, Instant::now());
        if after.renew_token {
            self.tokens.refused();
        }
    }

    /// Does the work of a session, until it ends or moves to another one. When this returns, none of it runs.
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
        // Nothing new is appended from here on; frames in flight get their verdict if it arrives soon.
        ground.leaving.send_replace(true);
        tokio::select! {
            // There is another session: it does not matter that this one ended by itself.
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

    /// Resolves when the session is to be left: with the next session, if there is one.
    async fn elsewhere(&self, session: &Session, ground: &Ground) -> Elsewhere {
        let (mut draining, mut refused) = (session.draining(), ground.trouble.subscribe());
        let (mut overdue, mut sent) = (session.overdue(), session.sent_elsewhere());
        loop {
            let trouble = tokio::select! {
                within = drained(&mut draining) => return self.drain(session, ground, within).await,
                refused = told(&mut refused) => refused,
                sent = told(&mut sent) => sent,
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

    /// Opens a session with another relay node, if one may be tried and answers.
    async fn better(&self, here: EndpointId) -> Option<Session> {
        if !self.course.lock().may_move(here, Instant::now()) {
            return None;
        }
        sleep(self.jitter(self.config.move_jitter)).await;
        self.round(false, Some(here), false).await.ok()
    }

    /// Handles a draining relay node: finds another one while there is time.
    async fn drain(&self, session: &Session, ground: &Ground, within: Duration) -> Elsewhere {
        let here = session.relay();
        // The relay node accepts no more: queued frames wait for the next one.
        ground.leaving.send_replace(true);
        let error = RelayError::Refused(crate::net::relay::Refused {
            number: Code::Draining.number(),
            message: "the relay node is about to stop".into(),
            retryable: true,
            retry_after: None,
            offset: skytale_proto::Offset::ZERO,
            agent: None,
        });
        let deadline = Course::drain_until(within, Instant::now());
        if !self.course.lock().are_there_others(here) {
            // The caller waits for verdicts of frames in flight.
            return Elsewhere::Nowhere(error);
        }
        sleep(self.jitter(self.config.move_jitter.min(within / 4))).await;
        loop {
            let missed = match self.round(false, Some(here), true).await {
                Ok(next) => return Elsewhere::There(next, error),
                Err(missed) => missed,
            };
            let again_at = self.course.lock().look_again_at(&missed, deadline, Instant::now());
            sleep_until(again_at.unwrap_or(deadline)).await;
            if again_at.is_none() {
                return Elsewhere::Nowhere(error);
            }
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

/// Waits for the next problem that another relay node may not have.
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
