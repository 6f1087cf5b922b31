//! Starting and stopping an agent's background work: one change at a time.
//!
//! Each change runs in a task, which makes progress even if the caller stops polling. So a caller never holds a lock
//! that another one needs, and a started change is finished. Changes are made in the order in which they were started.

use super::core::Core;
use super::course::Course;
use super::driver::Driver;
use super::tokens::Tokens;
use super::{AgentError, DriverConfig, RelaySource, runtime};
use crate::net::relay::{Endpoint, NetworkConfig};
use crate::net::{RelayError, TokenSource};
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use skytale_proto::{Code, EndpointId, Region};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use zeroize::Zeroizing;

/// Longest time for the background work to end. It ends much sooner, unless nobody runs its runtime.
const END_MAX: Duration = Duration::from_secs(10);

/// Settings of the background work, and its state.
pub(super) struct Link {
    pub(super) core: Arc<Core>,
    pub(super) tokens: TokenSource,
    pub(super) relays: RelaySource,
    pub(super) region: Option<Region>,
    pub(super) network: NetworkConfig,
    pub(super) config: DriverConfig,
    pub(super) secret: Zeroizing<[u8; 32]>,
    pub(super) state: Mutex<State>,
    /// Held only by tasks; callers take a place in its queue. Replaced if a task with a place will never run.
    pub(super) changing: Mutex<Arc<tokio::sync::Mutex<()>>>,
}

#[derive(Default)]
pub(super) struct State {
    /// Whether nothing may be started any more.
    closing: bool,
    /// The runtime of the background work, or the last one.
    home: Option<Handle>,
    driving: Option<Driving>,
}

struct Driving {
    endpoint: Endpoint,
    tasks: TaskTracker,
    cancel: DropGuard,
}

impl State {
    /// Whether the background work runs. Also false if its runtime is gone.
    fn is_driving(&self) -> bool {
        self.driving.as_ref().is_some_and(|driving| !driving.tasks.is_empty())
    }
}

impl Link {
    pub(super) fn endpoint_id(&self) -> EndpointId {
        let secret = iroh::SecretKey::from_bytes(&self.secret);
        EndpointId::from_bytes(*secret.public().as_bytes())
    }

    pub(super) async fn connect(self: &Arc<Self>) -> Result<(), AgentError> {
        let here = {
            let mut state = self.state.lock();
            if state.closing || self.core.is_shut() {
                return Err(AgentError::Closed);
            }
            // It may be about to end.
            if state.is_driving() && self.changing.lock().try_lock().is_ok() {
                return Ok(());
            }
            let here = runtime::current()?;
            state.home = Some(here.clone());
            here
        };
        let (link, turn) = (Arc::clone(self), self.turn());
        let beginning = async move {
            let _changing = turn.await;
            Box::pin(link.begin()).await
        };
        let begun = here.spawn(beginning.instrument(self.core.span()));
        begun.await.unwrap_or_else(|failed| {
            Err(AgentError::Environment {
                reason: format!("the background work could not be started: {failed}"),
            })
        })
    }

    /// Takes a place behind the changes that were started before. Tasks begin in any order.
    fn turn(&self) -> impl Future<Output = OwnedMutexGuard<()>> + Send + use<> {
        let changing = Arc::clone(&self.changing.lock());
        let mut turn = Box::pin(changing.lock_owned());
        let at_once = (&mut turn).now_or_never();
        async move {
            match at_once {
                Some(changing) => changing,
                None => turn.await,
            }
        }
    }

    async fn begin(&self) -> Result<(), AgentError> {
        let old = {
            let mut state = self.state.lock();
            if state.is_driving() {
                return Ok(());
            }
            state.driving.take()
        };
        drop(old);
        let endpoint = Endpoint::bind(&self.secret, self.network.clone())
            .await?
            .with_patience(self.config.answer_timeout);
        let refused = {
            let mut state = self.state.lock();
            let refused = state.closing || self.core.is_shut();
            if !refused {
                state.driving = Some(self.drive(endpoint.clone()));
            }
            refused
        };
        if refused {
            endpoint.close().await;
            return Err(AgentError::Closed);
        }
        Ok(())
    }

    fn drive(&self, endpoint: Endpoint) -> Driving {
        let (core, config) = (&self.core, &self.config);
        let cancel = CancellationToken::new();
        let tasks = TaskTracker::new();
        let driver = Driver {
            core: Arc::clone(core),
            endpoint: endpoint.clone(),
            tokens: Arc::new(Tokens::new(Arc::clone(core), self.tokens.clone())),
            source: self.relays.clone(),
            region: self.region,
            course: Mutex::new(Course::new(config.backoff_min, config.backoff_max)),
            config: config.clone(),
            tasks: tasks.clone(),
        };
        core.bus.allow_waits();
        let presence = Presence {
            core: Arc::clone(core),
            cancel: cancel.clone(),
        };
        let cancelled = cancel.clone();
        let driving = async move {
            let _presence = presence;
            driver.run(cancelled).await;
        };
        tasks.spawn(driving.instrument(core.span()));
        tasks.close();
        Driving {
            endpoint,
            tasks,
            cancel: cancel.drop_guard(),
        }
    }

    /// Ends the background work.
    pub(super) async fn disconnect(self: &Arc<Self>) {
        let Some(home) = self.state.lock().home.clone() else {
            return;
        };
        let (link, turn) = (Arc::clone(self), self.turn());
        let ending = async move {
            let _changing = turn.await;
            link.end().await;
        };
        let ended = home.spawn(ending.instrument(self.core.span()));
        tokio::pin!(ended);
        let done = match runtime::within(END_MAX, &mut ended).await {
            Ok(done) => done.is_some_and(|done| done.is_ok()),
            // This runtime has no timer.
            Err(_) => ended.await.is_ok(),
        };
        if !done {
            // Its runtime is gone with all its tasks, or nobody runs it: later changes must not wait for that one.
            *self.changing.lock() = Arc::default();
            let gone = self.state.lock().driving.take();
            drop(gone);
            self.core.bus.offline();
        }
    }

    async fn end(&self) {
        let (driving, closing) = {
            let mut state = self.state.lock();
            (state.driving.take(), state.closing)
        };
        if let Some(Driving {
            endpoint,
            tasks,
            cancel,
        }) = driving
        {
            drop(cancel);
            tasks.wait().await;
            endpoint.close().await;
            self.core.bus.allow_waits();
        }
        if closing {
            self.core.shut();
        }
    }

    /// Ends the background work permanently, and closes the vault. Returns when its file is released.
    pub(super) async fn close(self: &Arc<Self>) {
        self.state.lock().closing = true;
        self.disconnect().await;
        self.core.stop().await;
    }

    /// Like [`Link::close`], without waiting.
    pub(super) fn abandon(&self) {
        let driving = {
            let mut state = self.state.lock();
            state.closing = true;
            state.driving.take()
        };
        drop(driving);
        self.core.shut();
    }
}

/// Cleans up after the driver, even if its runtime is shut down under it.
struct Presence {
    core: Arc<Core>,
    cancel: CancellationToken,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let bus = &self.core.bus;
        bus.offline();
        // A superseded copy has ended by itself, and has reported it.
        if !self.cancel.is_cancelled() && !*bus.superseded.borrow() {
            bus.fail_waits(RelayError::Local {
                code: Code::Environment,
                reason: "the agent's background work has ended: its runtime was shut down, or it panicked".into(),
            });
        }
    }
}
