//! The owner's side: the socket, and access to it.

use super::connection;
use super::frame;
use super::hello::Refused;
use super::place::{Inode, Place, own_user};
use super::runtime;
use crate::agent::bus::Bus;
use crate::agent::core::span;
use crate::agent::{Agent, AgentError};
use crate::vault::Key;
use parking_lot::Mutex;
use skytale_proto::{AgentId, Code, EndpointId};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// Maximum number of guests. More must retry later.
const GUESTS_MAX: usize = 128;
/// Maximum bytes of all guests' large requests in memory.
const REQUEST_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Pause after an error of the socket itself, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Shortest time for started requests to finish, however short the deadline, so that guests learn their outcome.
const FINISH_WITHIN_MIN: Duration = Duration::from_secs(1);
/// Longest time for connections to write their last frames once the vault closes.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Returns the agent while the application holds it.
pub(crate) type Agents = Box<dyn Fn() -> Option<Agent> + Send + Sync>;

/// State shared by the connections of one vault.
pub(super) struct Host {
    pub(super) agents: Agents,
    pub(super) agent: AgentId,
    pub(super) endpoint: EndpointId,
    pub(super) key: Key,
    pub(super) bus: Arc<Bus>,
    pub(super) user: u32,
    /// Cancelled when the vault is being closed: nothing new is started.
    pub(super) closing: CancellationToken,
    /// Cancelled when everything must end.
    pub(super) ended: CancellationToken,
    /// Number of running requests, without waits, and of guests that may have sent more.
    pub(super) calls: watch::Sender<usize>,
    pub(super) budget: Arc<Semaphore>,
    guests: Arc<Semaphore>,
}

/// A vault's socket. Dropping it removes the socket at once, and disconnects its guests.
pub(crate) struct Share {
    host: Arc<Host>,
    tasks: TaskTracker,
    place: Place,
    /// Taken when the socket is removed: the next owner's may have the same inode.
    bound: Mutex<Option<Inode>>,
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Share {
    /// Opens the socket beside an open vault. `None`, with a warning in the log, if that is impossible: the agent still
    /// works.
    pub(crate) async fn start(
        vault: PathBuf,
        key: Key,
        endpoint: EndpointId,
        agent: AgentId,
        bus: &Arc<Bus>,
        agents: Agents,
    ) -> Option<Self> {
        let runtime = runtime()?;
        let bus = Arc::clone(bus);
        let starting = async move {
            let place = Place::beside(&vault)?;
            let user = own_user()?;
            let (listener, bound) = place.bind()?;
            listener.set_nonblocking(true)?;
            let host = Arc::new(Host {
                agents,
                agent,
                endpoint,
                key,
                bus,
                user,
                closing: CancellationToken::new(),
                ended: CancellationToken::new(),
                calls: watch::Sender::new(0),
                budget: frame::budget(REQUEST_BYTES_MAX),
                guests: Arc::new(Semaphore::new(GUESTS_MAX)),
            });
            let share = Self {
                host,
                tasks: TaskTracker::new(),
                place,
                bound: Mutex::new(Some(bound)),
            };
            let listener = UnixListener::from_std(listener)?;
            share
                .tasks
                .spawn(listen(Arc::clone(&share.host), listener, share.tasks.clone()).in_current_span());
            Ok::<_, io::Error>(share)
        };
        let starting = runtime.spawn(starting.instrument(span(agent)));
        let started = starting.await.map_err(io::Error::other).and_then(|started| started);
        started
            .inspect_err(|error| tracing::warn!(%error, "the vault is not shared with other processes"))
            .ok()
    }

    fn remove(&self) {
        if let Some(bound) = self.bound.lock().take() {
            self.place.remove(bound);
        }
    }

    /// Stops accepting requests, and notifies the guests. Returns at once.
    pub(crate) fn closing(&self) {
        self.host.closing.cancel();
    }

    /// Lets started requests finish, but not longer than `deadline`; then ends all connections and removes the socket.
    /// Call it while the vault's lock is held.
    pub(crate) async fn end(&self, deadline: Duration) {
        self.closing();
        let Some(runtime) = runtime() else { return };
        let (host, tasks) = (Arc::clone(&self.host), self.tasks.clone());
        let ending = runtime.spawn(async move {
            let mut calls = host.calls.subscribe();
            if timeout(deadline.max(FINISH_WITHIN_MIN), calls.wait_for(|calls| *calls == 0))
                .await
                .is_err()
            {
                tracing::warn!("other processes' requests did not finish before the vault closed");
            }
            host.ended.cancel();
            tasks.close();
            let _ = timeout(END_WITHIN, tasks.wait()).await;
        });
        let _ = ending.await;
        self.remove();
    }
}

#[cfg(test)]
impl Share {
    pub(crate) fn calls(&self) -> usize {
        *self.host.calls.borrow()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.host.closing.cancel();
        self.host.ended.cancel();
        self.remove();
    }
}

async fn listen(host: Arc<Host>, listener: UnixListener, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            () = host.ended.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection to the vault's socket");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(refused) = may_come(&host, &stream) {
            refuse(&stream, &refused);
            continue;
        }
        match Arc::clone(&host.guests).try_acquire_owned() {
            Ok(place) => {
                let host = Arc::clone(&host);
                let serving = async move {
                    connection::serve(&host, stream).await;
                    drop(place);
                };
                tasks.spawn(serving.in_current_span());
            }
            Err(_) => refuse(
                &stream,
                &Refused::new(
                    Code::VaultInUse,
                    format!("{GUESTS_MAX} processes already work through the one that has the vault open"),
                ),
            ),
        }
    }
}

fn may_come(host: &Host, stream: &UnixStream) -> Result<(), Refused> {
    if host.closing.is_cancelled() {
        return Err(Refused::new(Code::VaultOwnerGone, "the vault is being closed"));
    }
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == host.user => Ok(()),
        Ok(peer) => {
            tracing::warn!(
                user = peer.uid(),
                "another user's process was refused at the vault's socket"
            );
            Err(Refused::new(
                Code::VaultInUse,
                "the vault is open in a process of another user",
            ))
        }
        Err(error) => Err(Refused::new(Code::Environment, error.to_string())),
    }
}

/// Sends the reason, as far as possible without waiting.
fn refuse(stream: &UnixStream, refused: &Refused) {
    if let Ok(frame) = refused.frame() {
        let _ = stream.try_write(&frame);
    }
}

impl Host {
    /// Returns the agent, for one request.
    pub(super) fn agent(&self) -> Result<Agent, AgentError> {
        (self.agents)().ok_or(AgentError::Closed)
    }
}
