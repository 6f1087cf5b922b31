//! An agent: one identity, one vault, one session with a relay node at a time.
//!
//! ```text
//!   application --- Agent, Channel ---> engine (its own thread, one vault)
//!                                          ^            |
//!                                  entries |            | frames
//!                                          |            v
//!                     driver: session, followers, one worker a channel  <---> relay node
//! ```
//!
//! Everything that an application does to its channels works offline. The vault stores it, and the driver appends it to
//! the log when there is a session. The one exception is adding agents, which claims their KeyPackages.
//!
//! If several relay nodes serve one log, the driver moves to another one when its node is lost, drains, or cannot
//! append. If possible, the next session is up before the last one is closed.

mod attach;
pub(crate) mod backoff;
pub(crate) mod bus;
mod config;
mod consent;
mod contacts;
pub(crate) mod core;
#[cfg(test)]
mod costs;
mod course;
mod deferred;
mod driver;
mod ensure;
mod error;
#[cfg(test)]
mod faults;
mod follow;
mod invitations;
mod link;
mod merged;
mod outcome;
mod race;
mod refusals;
mod relays;
mod running;
pub(crate) mod runtime;
mod seats;
mod stock;
mod tokens;
mod turn;
mod watching;
mod worker;

pub use config::{AgentConfig, DriverConfig, RelaySource};
pub use error::AgentError;
pub use invitations::{Invitation, Invitations};
pub use merged::AllMessages;

use self::bus::Followed;
use self::core::{Actor, Core};
use self::link::Link;
use crate::channel::Channel;
use crate::engine::{ChannelInfo, ChannelState, DeferredAdd, EngineError, FailedSend, Problem, Queued, Standing};
use crate::event::Events;
use crate::net::Session;
use crate::share::Share;
use crate::vault::BackupInfo;
use skytale_proto::{AgentId, ChannelId, EndpointId, Policy, Region};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An agent. Clones share the same agent. Dropping the last one ends the background work, as [`Agent::close`] does, but
/// without waiting. Calls on its channels then return [`AgentError::Closed`], or [`AgentError::OwnerGone`] if another
/// process has the vault open; that process goes on.
///
/// # Waits
/// A wait for something that needs a session ([`Agent::connected`], [`Agent::caught_up`], [`Agent::flushed`],
/// [`Sent::delivered`](crate::channel::Sent::delivered), [`Messages::next`](crate::channel::Messages::next),
/// [`Channel::add`](crate::channel::Channel::add)) lasts while the agent is offline. It fails with the reason if it
/// cannot succeed: the agent was closed or dropped, the API rejects its key, another process took over its session, or
/// the runtime that [`Agent::connect`] was called in is gone. The agent still tries to reconnect, at a low rate; sent
/// messages stay in the outbox.
///
/// Futures of an agent may be dropped at any time, and left unpolled for any time: they hold nothing that others need.
/// A call that is dropped early takes effect completely or not at all.
///
/// ```no_run
/// use skytale_sdk::{Agent, AgentConfig, ApiClient, ApiKey, VaultKey};
///
/// # async fn run(key: VaultKey) -> Result<(), Box<dyn std::error::Error>> {
/// let api = ApiClient::new("https://api.example.org", ApiKey::new("sk_live_...")?)?;
/// let agent = Agent::open(AgentConfig::new("agent.vault", key, api)).await?;
/// agent.connect().await?;
/// let channel = agent.create_channel("planning").await?;
/// channel.send("hello").await?.delivered().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Agent {
    /// Held by the application's handles only; dropped before the other fields.
    hold: Option<Arc<Hold>>,
    inner: Arc<Inner>,
}

/// State that only the application's handles share, not the handles that serve other processes' requests. Dropping it
/// ends the agent's work, even while requests are in progress.
struct Hold {
    share: Option<Share>,
    core: Arc<Core>,
    link: Arc<Link>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Close the socket first: it may exist only while the vault's lock is held.
        drop(self.share.take());
        self.link.abandon();
        if let Some(owner) = self.core.owner() {
            owner.detach();
        }
    }
}

struct Inner {
    core: Arc<Core>,
    link: Arc<Link>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.link.abandon();
    }
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hold")
            .field("share", &self.share)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("id", &self.core.agent)
            .finish_non_exhaustive()
    }
}

impl Agent {
    /// Opens a vault, or creates one with a new identity. Works offline: nothing is sent before [`Agent::connect`].
    /// Fails if another process has the vault open; see [`Agent::open_or_attach`].
    pub async fn open(config: AgentConfig) -> Result<Self, AgentError> {
        let AgentConfig {
            vault,
            key,
            tokens,
            relays,
            region,
            network,
            sharing,
            engine,
            driver,
        } = config;
        let (core, secret) = Core::open(vault.clone(), key, engine, driver.events_max).await?;
        let core = Arc::new(core);
        let link = Link {
            core: Arc::clone(&core),
            tokens,
            relays,
            region,
            network,
            config: driver,
            secret,
            state: Default::default(),
            changing: Default::default(),
        };
        let agent = Self {
            hold: None,
            inner: Arc::new(Inner {
                core,
                link: Arc::new(link),
            }),
        };
        let share = match sharing {
            true => agent.share(vault).await?,
            false => None,
        };
        Ok(agent.held(share))
    }

    /// The application's handle.
    fn held(self, share: Option<Share>) -> Self {
        let hold = Hold {
            share,
            core: Arc::clone(&self.inner.core),
            link: Arc::clone(&self.inner.link),
        };
        Self {
            hold: Some(Arc::new(hold)),
            ..self
        }
    }

    fn shared(&self) -> Option<&Share> {
        self.hold.as_ref()?.share.as_ref()
    }

    /// The agent's identity: its public key.
    pub fn id(&self) -> AgentId {
        self.inner.core.agent
    }

    /// The iroh endpoint that the agent connects from. It is created with the vault, and is not the identity.
    pub fn endpoint_id(&self) -> Result<EndpointId, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return Ok(owner.endpoint());
        }
        Ok(self.inner.link.endpoint_id())
    }

    // ---- connection

    /// Starts the background work: it opens a session with a relay node and reconnects whenever the session is lost.
    /// Returns once the work has started; [`Agent::connected`] waits for the session. Does nothing if the work already
    /// runs.
    ///
    /// The background work runs in the tokio runtime of the caller. The runtime needs its I/O and time drivers
    /// (`enable_all`); without them this fails with [`AgentError::Environment`]. After [`Agent::close`] it fails with
    /// [`AgentError::Closed`].
    pub async fn connect(&self) -> Result<(), AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.connect().await;
        }
        self.inner.link.connect().await
    }

    /// Ends the session and the background work; the vault stays open. Messages sent later wait in the outbox. Does
    /// nothing if another process has the vault open.
    pub async fn disconnect(&self) {
        self.inner.link.disconnect().await;
    }

    /// The relay node of the current session.
    pub fn relay(&self) -> Option<EndpointId> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.relay();
        }
        self.inner.core.bus.session.borrow().as_ref().map(Session::relay)
    }

    /// Whether HTTPS carries the current session because UDP is blocked. Also false without a session, and if another
    /// process has the vault open.
    pub fn is_over_https(&self) -> bool {
        let session = self.inner.core.bus.session.borrow();
        session.as_ref().is_some_and(Session::is_over_https)
    }

    /// Whether there is a session now.
    pub fn is_connected(&self) -> bool {
        self.relay().is_some()
    }

    /// Waits for a session. Fails with the reason if there cannot be one: see [waits](Agent#waits).
    pub async fn connected(&self) -> Result<(), AgentError> {
        let bus = &self.inner.core.bus;
        if let Some(owner) = self.inner.core.owner() {
            return bus.wait(owner.connected()).await?;
        }
        let mut session = bus.session.subscribe();
        let there = async { session.wait_for(Option::is_some).await.map(drop) };
        // The sender lives as long as the agent.
        bus.wait(there).await?.map_err(|_| AgentError::Closed)
    }

    /// Waits until the agent is current in its session:
    ///
    /// - Its own log is replayed, and it has joined the channels that it was added to.
    /// - KeyPackages are on offer, and deferred additions were tried.
    /// - Each channel is replayed to its head, paused, left for good, or known not to be followed in this session
    ///   ([`Channel::not_followed`]).
    ///
    /// If the agent was removed from a channel and added again meanwhile, the channel is replayed beyond both entries.
    pub async fn caught_up(&self) -> Result<(), AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.all_caught_up().await;
        }
        let bus = &self.inner.core.bus;
        let mut readiness = bus.readiness.subscribe();
        loop {
            let ready = async { readiness.wait_for(|ready| ready.is_complete()).await.map(drop) };
            bus.wait(ready).await?.map_err(|_| AgentError::Closed)?;
            // Replay may have found more work: check until none is left.
            match self.inner.core.try_call(Actor::behind).await? {
                Behind::Nothing => return Ok(()),
                Behind::Joins => {}
                Behind::Channels(channels) => {
                    for channel in channels {
                        bus.followed(channel, |followed| followed != Followed::Behind).await?;
                    }
                }
            }
        }
    }

    /// Returns a receiver of all events from now on.
    pub fn events(&self) -> Events {
        Events::new(self.inner.core.bus.subscribe())
    }

    // ---- channels

    /// Creates a channel with this agent as its only member. `label` stays in the vault. The home of its log is the
    /// agent's region, or else the region of the relay node listed as nearest: see [`Agent::create_channel_in`].
    pub async fn create_channel(&self, label: &str) -> Result<Channel, AgentError> {
        self.create(label, self.inner.link.region).await
    }

    /// Creates a channel whose log has a given home region of the fleet. All appends go to the home region, and it
    /// never changes.
    pub async fn create_channel_in(&self, label: &str, home: Region) -> Result<Channel, AgentError> {
        self.create(label, Some(home)).await
    }

    /// Creates a channel with a policy other than [`Policy::new`]; this agent is its only admin. Without `home`,
    /// [`Agent::create_channel`] describes the default.
    pub async fn create_channel_with(
        &self,
        label: &str,
        home: Option<Region>,
        policy: &Policy,
    ) -> Result<Channel, AgentError> {
        let home = home.or(self.inner.link.region);
        if let Some(owner) = self.inner.core.owner() {
            let home = home.map(|home| home.0);
            let created = owner.create_with(label.to_owned(), home, policy.clone()).await?;
            return Ok(self.handle(created));
        }
        self.create_here(label, home, policy.clone()).await
    }

    async fn create(&self, label: &str, home: Option<Region>) -> Result<Channel, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            let created = owner.create(label.to_owned(), home.map(|home| home.0)).await?;
            return Ok(self.handle(created));
        }
        self.create_here(label, home, Policy::new(self.id())).await
    }

    async fn create_here(&self, label: &str, home: Option<Region>, policy: Policy) -> Result<Channel, AgentError> {
        let label = label.to_owned();
        let created = self
            .inner
            .core
            .try_call(move |actor| actor.create(&label, home, &policy));
        Ok(self.handle(created.await?))
    }

    /// Returns a channel of the vault.
    pub async fn channel(&self, channel: ChannelId) -> Result<Channel, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            owner.info(channel).await?;
            return Ok(self.handle(channel));
        }
        self.inner
            .core
            .try_call(move |actor| match actor.bus.is_hidden(channel) {
                true => Err(EngineError::ChannelUnknown { channel }),
                false => actor.engine.channel(channel),
            })
            .await?;
        Ok(self.handle(channel))
    }

    /// Lists all channels of the vault, including those that were left, in the order in which they were added.
    pub async fn channels(&self) -> Result<Vec<ChannelInfo>, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.channels().await;
        }
        self.inner.core.try_call(|actor| actor.shown_channels()).await
    }

    /// Lists everything in the outboxes, channel by channel. See [`Channel::outbox`].
    pub async fn outbox(&self) -> Result<Vec<Queued>, AgentError> {
        if self.inner.core.owner().is_some() {
            let mut waiting = Vec::new();
            for channel in self.channels().await?.iter().filter(|channel| channel.outbox > 0) {
                waiting.extend(self.handle(channel.id).outbox().await?);
            }
            return Ok(waiting);
        }
        let waiting = self.inner.core.try_call(|actor| {
            let mut waiting = Vec::new();
            for channel in actor.shown_channels()?.iter().filter(|channel| channel.outbox > 0) {
                waiting.extend(actor.engine.outbox(channel.id)?);
            }
            Ok(waiting)
        });
        waiting.await
    }

    /// Lists all failed sends, channel by channel, including channels that were left. See [`Channel::failed`].
    pub async fn failed(&self) -> Result<Vec<FailedSend>, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.all_failed().await;
        }
        let failed = self.inner.core.try_call(|actor| {
            let mut failed = Vec::new();
            for channel in actor.shown_channels()?.iter().filter(|channel| channel.failed > 0) {
                failed.extend(actor.engine.failed(channel.id)?);
            }
            Ok(failed)
        });
        failed.await
    }

    /// Lists all deferred additions, channel by channel. See [`Channel::add_later`].
    pub async fn deferred_adds(&self) -> Result<Vec<DeferredAdd>, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.all_deferred_adds().await;
        }
        let deferred = self.inner.core.try_call(|actor| {
            let mut deferred = Vec::new();
            for channel in actor.shown_channels()? {
                deferred.extend(actor.engine.deferred_adds(channel.id)?);
            }
            Ok(deferred)
        });
        deferred.await
    }

    /// Lists the problems of each channel that has any, and of the agent's own log (`None`). See [`Channel::problems`].
    pub async fn problems(&self) -> Result<Vec<(Option<ChannelId>, Vec<Problem>)>, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.all_problems().await;
        }
        let problems = self.inner.core.try_call(|actor| {
            let channels = actor.shown_channels()?;
            let logs = std::iter::once(None).chain(channels.iter().map(|channel| Some(channel.id)));
            let mut all = Vec::new();
            for log in logs {
                let problems = actor.engine.problems(log)?;
                if !problems.is_empty() {
                    all.push((log, problems));
                }
            }
            Ok(all)
        });
        problems.await
    }

    /// Takes over from the copy of the vault that has superseded this one. This copy asks to be added again to each of
    /// its channels, which supersedes the other copy. Returns the channels in which it asks. Use only one copy from
    /// then on.
    pub async fn take_over(&self) -> Result<Vec<ChannelId>, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.take_over().await;
        }
        let taken = self.inner.core.try_call(|actor| {
            let channels = actor.engine.channels()?.into_iter();
            let superseded = channels.filter(|channel| channel.standing == Standing::Superseded);
            let superseded: Vec<_> = superseded.map(|channel| channel.id).collect();
            let events = actor.engine.take_over()?;
            actor.bus.superseded.send_replace(false);
            actor.bus.tell_all(events);
            for channel in &superseded {
                actor.bus.signals(*channel).work.notify_one();
            }
            Ok(superseded)
        });
        taken.await
    }

    /// Writes a consistent copy of the vault while the agent works. The copy is encrypted with the vault's key, and is
    /// durable and checked when this returns. An existing file is replaced only if `replace` is set. The agent's other
    /// calls wait meanwhile: a few seconds for 100 MB. See [`restore`](crate::vault::restore) for the way back.
    pub async fn backup(&self, path: impl Into<PathBuf>, replace: bool) -> Result<BackupInfo, AgentError> {
        let path = path.into();
        if let Some(owner) = self.inner.core.owner() {
            return attach::backup(owner, path, replace).await;
        }
        let made = self
            .inner
            .core
            .try_call(move |actor| actor.engine.backup(&path, replace));
        made.await
    }

    pub(crate) fn handle(&self, channel: ChannelId) -> Channel {
        Channel::new(
            Arc::clone(&self.inner.core),
            channel,
            self.inner.link.config.online_timeout,
        )
    }

    // ---- end

    /// Waits until all outboxes are empty. Does not end while the agent is offline: see [waits](Agent#waits).
    pub async fn flushed(&self) -> Result<(), AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.flushed().await;
        }
        self.flushed_where(|channel| channel.state != ChannelState::Left).await
    }

    async fn flushed_where(&self, counts: impl Fn(&ChannelInfo) -> bool) -> Result<(), AgentError> {
        let Inner { core, .. } = &*self.inner;
        let mut settled = core.bus.settled.subscribe();
        // Channels whose outbox was not empty at the last look at all of them: there may be very many.
        let mut waiting: Vec<ChannelId> = Vec::new();
        loop {
            settled.mark_unchanged();
            let Some(channel) = waiting.last().copied() else {
                // Declined channels, too: the requests to leave them must go out.
                let channels = core.try_call(|actor| actor.engine.unsent()).await?;
                let channels = channels.iter().filter(|channel| counts(channel));
                waiting.extend(channels.map(|channel| channel.id));
                if waiting.is_empty() {
                    return Ok(());
                }
                continue;
            };
            match core.try_call(move |actor| actor.engine.channel(channel)).await {
                Ok(info) if info.outbox > 0 && counts(&info) => {
                    core.bus
                        .wait(settled.changed())
                        .await?
                        .map_err(|_| AgentError::Closed)?;
                }
                Ok(_) | Err(AgentError::Engine(EngineError::ChannelUnknown { .. })) => {
                    waiting.pop();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Closes the agent: if there is a session, sends what it can within `deadline` and ends it; then closes the vault.
    /// Unsent messages stay in the outbox for the next run. Returns when the vault's file is released. Attached
    /// processes are notified; their pending calls get until `deadline` to finish.
    pub async fn close(&self, deadline: Duration) {
        if let Some(owner) = self.inner.core.owner() {
            return owner.detach();
        }
        let begun = Instant::now();
        if let Some(share) = self.shared() {
            share.closing();
        }
        if self.is_connected() {
            let bus = &self.inner.core.bus;
            let may_go = |channel: &ChannelInfo| {
                let is_followed = !matches!(*bus.signals(channel.id).followed.borrow(), Followed::Refused(_));
                is_followed && channel.state != ChannelState::Left && channel.standing != Standing::Superseded
            };
            // Messages that do not go out in time stay in the vault.
            let _ = runtime::within(deadline, self.flushed_where(may_go)).await;
        }
        if let Some(share) = self.shared() {
            share.end(deadline.saturating_sub(begun.elapsed())).await;
        }
        self.inner.link.close().await;
    }
}

/// Reason why an agent is not current.
enum Behind {
    Nothing,
    /// Bundles still to be fetched.
    Joins,
    /// Channels that are not replayed to their heads.
    Channels(Vec<ChannelId>),
}

impl Actor {
    /// Creates a channel with a home region; the default is the region of the relay node listed as nearest.
    fn create(&mut self, label: &str, home: Option<Region>, policy: &Policy) -> Result<ChannelId, EngineError> {
        let home = match home {
            Some(home) => home,
            None => tokens::nearest_region(self.engine.kept(tokens::RELAYS)?).unwrap_or_default(),
        };
        let channel = self.engine.create_channel_with(label, home, policy)?;
        self.bus.channel_is_new(channel);
        Ok(channel)
    }

    fn behind(&mut self) -> Result<Behind, EngineError> {
        if self.joins_pending()? {
            return Ok(Behind::Joins);
        }
        // Nobody waits for declined channels.
        let mut behind = self.engine.followed()?;
        behind.retain(|channel| {
            !self.bus.is_hidden(*channel) && *self.bus.signals(*channel).followed.borrow() == Followed::Behind
        });
        Ok(match behind.is_empty() {
            true => Behind::Nothing,
            false => Behind::Channels(behind),
        })
    }

    /// The channels, without those that were declined.
    fn shown_channels(&self) -> Result<Vec<ChannelInfo>, EngineError> {
        let mut channels = self.engine.channels()?;
        channels.retain(|channel| !self.bus.is_hidden(channel.id));
        Ok(channels)
    }

    /// Whether there are bundles to fetch. Notifies the task that fetches them and all waiters.
    fn joins_pending(&mut self) -> Result<bool, EngineError> {
        let pending = self.bus.waits_for(&self.engine.pending_joins()?);
        self.bus.readiness.send_if_modified(|ready| {
            let changes = ready.joins == pending;
            ready.joins = !pending;
            changes
        });
        if pending {
            self.bus.joins_pending.notify_one();
        }
        Ok(pending)
    }
}
