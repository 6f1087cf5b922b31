//! The engine on a thread of its own, and the door to it for async code.

use super::bus::Bus;
use super::error::AgentError;
use crate::engine::{Engine, EngineConfig, EngineError};
use crate::event::Event;
use crate::net::{ProofSigner, TokenError};
use crate::share::Owner;
use crate::vault::VaultKey;
use futures_util::future::BoxFuture;
use skytale_proto::{AgentId, Code, rest};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use zeroize::Zeroizing;

/// Calls waiting for the engine. Whoever comes then waits outside.
const CALLS_MAX: usize = 64;
/// How often histories are looked at, where there are calls at all.
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// Messages taken out of them at once.
const TIDIED_MAX: u32 = 256;

/// What runs on the engine's thread.
pub(crate) struct Actor {
    pub(crate) engine: Engine,
    pub(crate) bus: Arc<Bus>,
    stopping: bool,
    tidy_at: Instant,
}

type Call = Box<dyn FnOnce(&mut Actor) + Send>;

impl Actor {
    /// The next call. While nobody calls, what is due is tidied up; a call waits for one piece of that at most.
    fn next(&mut self, queue: &mut mpsc::Receiver<Call>) -> Option<Call> {
        loop {
            if !self.tidy() {
                return queue.blocking_recv();
            }
            match queue.try_recv() {
                Ok(call) => return Some(call),
                Err(mpsc::error::TryRecvError::Empty) => {}
                Err(mpsc::error::TryRecvError::Disconnected) => return None,
            }
        }
    }

    /// Holds to the setting for histories, a piece at a time. Whether there is more to be done.
    fn tidy(&mut self) -> bool {
        if Instant::now() < self.tidy_at {
            return false;
        }
        let more = self.engine.retain(TIDIED_MAX).unwrap_or_else(|error| {
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

/// The engine, from outside its thread. Calls are done in the order in which they came, whether or not the caller still
/// waits: a transaction that was begun is finished, and what it brought is told by the thread itself.
pub(crate) struct Core {
    calls: mpsc::Sender<Call>,
    ended: watch::Receiver<bool>,
    pub(crate) bus: Arc<Bus>,
    pub(crate) agent: AgentId,
    owner: Option<Owner>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

impl Core {
    /// Opens the vault on a thread of its own and gives the agent's endpoint secret.
    pub(crate) async fn open(
        vault: PathBuf,
        key: VaultKey,
        config: EngineConfig,
        events_max: usize,
    ) -> Result<(Self, Zeroizing<[u8; 32]>), AgentError> {
        let bus = Arc::new(Bus::new(events_max));
        let (calls, mut queue) = mpsc::channel::<Call>(CALLS_MAX);
        let (opened, opening) = oneshot::channel();
        let (end, ended) = watch::channel(false);
        let thread_bus = Arc::clone(&bus);
        let run = move || {
            // Set when the thread ends, also by a panic, after the vault was closed.
            let _end = EndOnDrop(end, Arc::clone(&thread_bus));
            let engine = match Engine::open(&vault, key, config) {
                Ok(engine) => engine,
                Err(error) => {
                    let _ = opened.send(Err(error));
                    return;
                }
            };
            let first = (engine.agent_id(), engine.endpoint_secret());
            if opened.send(Ok::<_, EngineError>(first)).is_err() {
                return;
            }
            let mut actor = Actor {
                engine,
                bus: thread_bus,
                stopping: false,
                tidy_at: Instant::now(),
            };
            while let Some(call) = actor.next(&mut queue) {
                call(&mut actor);
                if actor.stopping {
                    break;
                }
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
            calls,
            ended,
            bus,
            agent,
            owner: None,
        };
        Ok((core, secret))
    }

    /// An agent whose vault is open in another process. What that one tells goes to `bus`.
    pub(crate) fn attached(owner: Owner, bus: Arc<Bus>, ended: watch::Receiver<bool>, agent: AgentId) -> Self {
        // Nobody takes calls: each operation asks the owner.
        let (calls, _) = mpsc::channel(1);
        Self {
            calls,
            ended,
            bus,
            agent,
            owner: Some(owner),
        }
    }

    /// The process that has the vault open, if it is not this one.
    pub(crate) const fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// Why nothing comes any more.
    pub(crate) const fn gone(&self) -> AgentError {
        match self.owner {
            Some(_) => AgentError::OwnerGone { unknown: false },
            None => AgentError::Closed,
        }
    }

    /// Does something on the engine's thread.
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
            // The caller may have gone.
            let _ = answer.send(function(actor));
        });
        self.calls.send(call).await.map_err(|_| AgentError::Closed)?;
        answered.await.map_err(|_| AgentError::Closed)
    }

    /// Does something on the engine's thread that may be refused.
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

    /// Closes the vault after the calls that wait; returns when its file is released.
    pub(crate) async fn stop(&self) {
        let stop: Call = Box::new(|actor| actor.stopping = true);
        // A thread that has ended takes no call.
        let _ = self.calls.send(stop).await;
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

struct EndOnDrop(watch::Sender<bool>, Arc<Bus>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.1.close();
        self.0.send_replace(true);
    }
}

/// Signs proofs of possession, and nothing else, with the identity key in the vault.
pub(crate) struct CoreSigner(pub(crate) Arc<Core>);

impl ProofSigner for CoreSigner {
    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<[u8; 64], TokenError>> {
        Box::pin(async move {
            if !message.starts_with(rest::PROOF_CONTEXT) {
                return Err(TokenError::new(Code::BadRequest, "not a proof that this agent signs"));
            }
            let message = message.to_vec();
            let signed = self.0.call(move |actor| actor.engine.sign_proof(&message)).await;
            signed.map_err(|error| TokenError::new(error.code(), error.to_string()))
        })
    }
}
