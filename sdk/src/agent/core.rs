//! The engine on its own thread, and its handle for async code.

use super::bus::Bus;
use super::error::AgentError;
use crate::engine::{Engine, EngineConfig, EngineError};
use crate::event::Event;
use crate::line::Line;
use crate::net::token::is_proof;
use crate::net::{ProofSigner, TokenError};
use crate::share::Owner;
use crate::vault::VaultKey;
use futures_util::future::BoxFuture;
use skytale_proto::{AgentId, Code};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tracing::Span;
use zeroize::Zeroizing;

/// Interval between checks of histories, if there are calls at all.
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// Maximum number of messages deleted at once.
const TIDIED_MAX: u32 = 256;

/// State on the engine's thread.
pub(crate) struct Actor {
    pub(crate) engine: Engine,
    pub(crate) bus: Arc<Bus>,
    tidy_at: Instant,
}

impl Actor {
    /// Forgets declined channels that were left by now, and gives up those that never let this agent go.
    fn forget_declined(&mut self) -> Result<(), EngineError> {
        if self.engine.forget_declined()? {
            self.bus.hide(self.engine.declined()?);
        }
        for channel in self.engine.give_up_declined()? {
            // Whoever follows it notices that it was left. It is forgotten the next time.
            self.bus.signals(channel).work.notify_one();
        }
        Ok(())
    }
}

type Call = Box<dyn FnOnce(&mut Actor) + Send>;

impl Actor {
    /// Waits for the next call. Tidies up while there are no calls; a call waits for at most one step of that.
    fn next(&mut self, line: &Line<Call>) -> Option<Call> {
        while self.tidy() && line.is_idle() {}
        line.next()
    }

    /// Enforces the setting for histories, one step at a time. Returns whether there is more to do.
    fn tidy(&mut self) -> bool {
        if Instant::now() < self.tidy_at {
            return false;
        }
        let declined = self.forget_declined();
        // Whatever a declined channel does.
        let retained = self.engine.retain(TIDIED_MAX);
        let tidied = declined.and(retained);
        let more = tidied.unwrap_or_else(|error| {
            self.bus.tell(Event::VaultFailed {
                code: error.code(),
                reason: error.to_string(),
            });
            false
        });
        if !more {
            self.tidy_at = Instant::now() + TIDY_EVERY;
        }
        more
    }
}

/// Returns the span for all log lines of an agent's work, in every task and thread. It has the highest level, so that
/// every filter that keeps a line keeps its span, too.
pub(crate) fn span(agent: AgentId) -> Span {
    tracing::error_span!(target: "skytale_sdk", "agent", agent_id = %agent)
}

/// Handle of the engine, for use outside its thread. Calls are executed in order. A call that has started is finished,
/// even if its caller no longer waits, and the thread itself reports its events. A call whose caller is dropped before
/// it starts is not executed.
///
/// Calling never waits for room: only calls with a waiting caller are queued (see [`Line`]). An application's messages
/// are bounded by the outbox in the vault.
pub(crate) struct Core {
    door: Door,
    ended: watch::Receiver<bool>,
    pub(crate) bus: Arc<Bus>,
    pub(crate) agent: AgentId,
    span: Span,
    owner: Option<Owner>,
}

/// The queue of calls. Dropping it closes the queue and ends the thread.
struct Door(Arc<Line<Call>>);

impl Drop for Door {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

impl Core {
    /// Opens the vault on its own thread and returns the agent's endpoint secret.
    pub(crate) async fn open(
        vault: PathBuf,
        key: VaultKey,
        config: EngineConfig,
        events_max: usize,
    ) -> Result<(Self, Zeroizing<[u8; 32]>), AgentError> {
        let bus = Arc::new(Bus::new(events_max));
        let door = Door(Arc::new(Line::new()));
        let (opened, opening) = oneshot::channel();
        let (end, ended) = watch::channel(false);
        let (thread_bus, thread_line) = (Arc::clone(&bus), Arc::clone(&door.0));
        let run = move || {
            // Set when the thread ends, even by a panic, after the vault was closed.
            let _end = EndOnDrop(end, Arc::clone(&thread_bus), Arc::clone(&thread_line));
            let engine = match Engine::open(&vault, key, config) {
                Ok(engine) => engine,
                Err(error) => {
                    let _ = opened.send(Err(error));
                    return;
                }
            };
            match engine.declined() {
                Ok(declined) => thread_bus.hide(declined),
                Err(error) => {
                    let _ = opened.send(Err(error));
                    return;
                }
            }
            let agent = engine.agent_id();
            let first = (agent, engine.endpoint_secret());
            if opened.send(Ok::<_, EngineError>(first)).is_err() {
                return;
            }
            let span = span(agent);
            let _in_span = span.enter();
            let mut actor = Actor {
                engine,
                bus: thread_bus,
                tidy_at: Instant::now(),
            };
            while let Some(call) = actor.next(&thread_line) {
                call(&mut actor);
            }
        };
        std::thread::Builder::new()
            .name("skytale-engine".into())
            .spawn(run)
            .map_err(|error| AgentError::Environment {
                reason: format!("no thread for the engine: {error}"),
            })?;
        let (agent, secret) = opening.await.map_err(|_| AgentError::Closed)??;
        let core = Self {
            door,
            ended,
            bus,
            agent,
            span: span(agent),
            owner: None,
        };
        Ok((core, secret))
    }

    /// Creates the handle of an agent whose vault is open in another process. Its reports go to `bus`.
    pub(crate) fn attached(owner: Owner, bus: Arc<Bus>, ended: watch::Receiver<bool>, agent: AgentId) -> Self {
        // Nobody executes calls: each operation goes to the owner.
        let door = Door(Arc::new(Line::new()));
        door.0.close();
        Self {
            door,
            ended,
            bus,
            agent,
            span: span(agent),
            owner: Some(owner),
        }
    }

    /// Returns the span for log lines of the agent's work.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Returns the process that has the vault open, if it is not this one.
    pub(crate) const fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// Runs a function on the engine's thread.
    pub(crate) async fn call<T, F>(&self, function: F) -> Result<T, AgentError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Actor) -> T + Send + 'static,
    {
        if self.owner.is_some() {
            return Err(AgentError::Owner {
                code: Code::VaultInUse,
                reason: "this needs the vault itself, which another process has open".into(),
                retryable: true,
            });
        }
        let (answer, answered) = oneshot::channel();
        let call: Call = Box::new(move |actor| {
            // The caller may be gone.
            let _ = answer.send(function(actor));
        });
        let place = self.door.0.join(call).ok_or(AgentError::Closed)?;
        let answer = answered.await;
        drop(place);
        answer.map_err(|_| AgentError::Closed)
    }

    /// Runs a fallible function on the engine's thread.
    pub(crate) async fn try_call<T, F>(&self, function: F) -> Result<T, AgentError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Actor) -> Result<T, EngineError> + Send + 'static,
    {
        Ok(self.call(function).await??)
    }

    /// Resolves when the vault is closed.
    pub(crate) async fn closed(&self) {
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Stops accepting calls: the vault is closed after the queued ones.
    pub(crate) fn shut(&self) {
        self.door.0.close();
    }

    /// Whether no more calls are accepted.
    pub(crate) fn is_shut(&self) -> bool {
        self.door.0.is_closed()
    }

    /// Closes the vault after the queued calls; returns when its file is released.
    pub(crate) async fn stop(&self) {
        self.shut();
        self.closed().await;
    }
}

struct EndOnDrop(watch::Sender<bool>, Arc<Bus>, Arc<Line<Call>>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        // Items are left only after a panic.
        self.2.abandon();
        self.1.close();
        self.0.send_replace(true);
    }
}

/// Signs proofs of possession, and nothing else, with the identity key in the vault.
pub(crate) struct CoreSigner(pub(crate) Arc<Core>);

impl ProofSigner for CoreSigner {
    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<[u8; 64], TokenError>> {
        Box::pin(async move {
            if !is_proof(message) {
                return Err(TokenError::new(Code::BadRequest, "not a proof that this agent signs"));
            }
            let message = message.to_vec();
            let signed = self.0.call(move |actor| actor.engine.sign_proof(&message)).await;
            signed.map_err(|error| TokenError::new(error.code(), error.to_string()))
        })
    }
}
