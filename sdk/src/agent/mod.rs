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
//! Everything that an application does to its channels works offline: it goes into the vault, and the driver brings it to
//! the log when there is a session. The one exception is adding agents, which claims their KeyPackages.
//!
//! Where there are several relay nodes over one log, the driver goes to another when the one that it has is lost, drains, or
//! cannot append; the next session then stands before the last one is closed, where that can be.

mod attach;
mod backoff;
pub(crate) mod bus;
mod config;
pub(crate) mod core;
mod driver;
mod error;
#[cfg(test)]
mod faults;
mod follow;
mod outcome;
mod race;
mod relays;
mod running;
mod stock;
mod tokens;
mod turn;
mod worker;

pub use config::{AgentConfig, DriverConfig, RelaySource};
pub use error::AgentError;

use self::bus::Followed;
use self::core::Core;
use self::driver::Driver;
use self::relays::Relays;
use self::tokens::Tokens;
use crate::channel::Channel;
use crate::engine::{ChannelInfo, ChannelState, Queued};
use crate::event::Events;
use crate::net::relay::Endpoint;
use crate::net::{Session, TokenProvider};
use crate::share::Share;
use parking_lot::Mutex;
use skytale_proto::{AgentId, ChannelId, EndpointId, Region};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// An agent. Clones are the same agent; when the last one is gone its work ends, as it does by [`Agent::close`], but
/// without waiting for anything.
///
/// ```no_run
/// use skytale_sdk::agent::{Agent, AgentConfig};
/// use skytale_sdk::net::{ApiClient, ApiKey};
/// use skytale_sdk::vault::VaultKey;
/// use std::sync::Arc;
///
/// # async fn run(key: VaultKey) -> Result<(), Box<dyn std::error::Error>> {
/// let api = ApiClient::new("https://api.example.org", ApiKey::new("sk_live_...")?)?;
/// let agent = Agent::open(AgentConfig::new("agent.vault", key, Arc::new(api))).await?;
/// agent.connect().await?;
/// let channel = agent.create_channel("planning").await?;
/// channel.send("hello").await?.delivered().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Agent {
    /// Of the application's handles alone; gone before the rest.
    share: Option<Arc<Share>>,
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    tokens: Arc<dyn TokenProvider>,
    relays: RelaySource,
    region: Option<u8>,
    bind: Option<std::net::SocketAddr>,
    config: DriverConfig,
    secret: zeroize::Zeroizing<[u8; 32]>,
    driving: Mutex<Option<Driving>>,
    // One change of the driver at a time.
    changing: tokio::sync::Mutex<()>,
}

struct Driving {
    endpoint: Endpoint,
    tasks: TaskTracker,
    cancel: DropGuard,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("id", &self.core.agent)
            .finish_non_exhaustive()
    }
}

impl Agent {
    /// Opens a vault, or makes one with a new identity. Works offline: nothing is sent before [`Agent::connect`]. Where another
    /// process has it open this is an error; see [`Agent::open_or_attach`].
    pub async fn open(config: AgentConfig) -> Result<Self, AgentError> {
        let AgentConfig {
            vault,
            key,
            tokens,
            relays,
            region,
            bind,
            sharing,
            engine,
            driver,
        } = config;
        let (core, secret) = Core::open(vault.clone(), key, engine, driver.events_max).await?;
        let agent = Self {
            share: None,
            inner: Arc::new(Inner {
                core: Arc::new(core),
                tokens,
                relays,
                region,
                bind,
                config: driver,
                secret,
                driving: Mutex::new(None),
                changing: tokio::sync::Mutex::new(()),
            }),
        };
        match sharing {
            true => agent.share(vault).await,
            false => Ok(agent),
        }
    }

    /// The agent's identity: its public key.
    pub fn id(&self) -> AgentId {
        self.inner.core.agent
    }

    /// The iroh endpoint that the agent connects from. Made with the vault; it is not the identity.
    pub fn endpoint_id(&self) -> Result<EndpointId, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return Ok(owner.endpoint());
        }
        let secret = iroh::SecretKey::from_bytes(&self.inner.secret);
        Ok(EndpointId::from_bytes(*secret.public().as_bytes()))
    }

    // ---- connection

    /// Starts the background work: a session with a relay node, and another one whenever it is lost. Returns at once;
    /// see [`Agent::connected`]. Does nothing where it runs.
    pub async fn connect(&self) -> Result<(), AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.connect().await;
        }
        let _changing = self.inner.changing.lock().await;
        if self.inner.driving.lock().is_some() {
            return Ok(());
        }
        let endpoint = Endpoint::bind(&self.inner.secret, self.inner.bind)
            .await?
            .with_patience(self.inner.config.answer_timeout);
        let cancel = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (core, config) = (&self.inner.core, &self.inner.config);
        let driver = Driver {
            core: Arc::clone(core),
            endpoint: endpoint.clone(),
            tokens: Arc::new(Tokens::new(Arc::clone(core), Arc::clone(&self.inner.tokens))),
            source: self.inner.relays.clone(),
            region: self.inner.region,
            relays: Mutex::new(Relays::new(config.backoff_min, config.backoff_max)),
            config: config.clone(),
            troubles: Default::default(),
            tasks: tasks.clone(),
        };
        tasks.spawn(driver.run(cancel.clone()));
        tasks.close();
        *self.inner.driving.lock() = Some(Driving {
            endpoint,
            tasks,
            cancel: cancel.drop_guard(),
        });
        Ok(())
    }

    /// Ends the session and the background work; the vault stays open. What is sent then waits in the outbox. Does nothing
    /// where another process has the vault open.
    pub async fn disconnect(&self) {
        let _changing = self.inner.changing.lock().await;
        let driving = self.inner.driving.lock().take();
        if let Some(Driving {
            endpoint,
            tasks,
            cancel,
        }) = driving
        {
            drop(cancel);
            tasks.wait().await;
            endpoint.close().await;
        }
    }

    /// The relay node that the agent has a session with now.
    pub fn relay(&self) -> Option<EndpointId> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.relay();
        }
        self.inner.core.bus.session.borrow().as_ref().map(Session::relay)
    }

    /// Whether there is a session now.
    pub fn is_connected(&self) -> bool {
        self.relay().is_some()
    }

    /// Waits for a session.
    pub async fn connected(&self) {
        if let Some(owner) = self.inner.core.owner() {
            // Once the owner is gone every other call says so.
            let _ = owner.connected().await;
            return;
        }
        // The sender lives as long as the agent.
        let _ = self.inner.core.bus.session.subscribe().wait_for(Option::is_some).await;
    }

    /// Waits until, in the session that there is then, the agent is current: its own log is replayed, channels that it was
    /// added to are joined, KeyPackages are on offer, and each channel is replayed to its head, paused or left.
    pub async fn caught_up(&self) -> Result<(), AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.all_caught_up().await;
        }
        let mut readiness = self.inner.core.bus.readiness.subscribe();
        let _ = readiness
            .wait_for(|ready| ready.log && ready.joins && ready.stock)
            .await;
        for channel in self.channels().await? {
            if matches!(channel.state, ChannelState::Active | ChannelState::Leaving) {
                self.inner
                    .core
                    .bus
                    .followed(channel.id, |followed| followed != Followed::Behind)
                    .await?;
            }
        }
        Ok(())
    }

    /// Events from now on.
    pub fn events(&self) -> Events {
        Events::new(self.inner.core.bus.subscribe())
    }

    // ---- channels

    /// Makes a channel with this agent as its only member. `label` stays in the vault. Its log is at home in the agent's
    /// region, or else in that of the relay node that was named nearest: see [`Agent::create_channel_in`].
    pub async fn create_channel(&self, label: &str) -> Result<Channel, AgentError> {
        self.create(label, self.inner.region.map(Region)).await
    }

    /// Makes a channel whose log is at home in a region of the fleet, for ever: appends go there, wherever they come from.
    pub async fn create_channel_in(&self, label: &str, home: Region) -> Result<Channel, AgentError> {
        self.create(label, Some(home)).await
    }

    async fn create(&self, label: &str, home: Option<Region>) -> Result<Channel, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            let created = owner.create(label.to_owned(), home.map(|home| home.0)).await?;
            return Ok(self.handle(created));
        }
        let label = label.to_owned();
        let created = self.inner.core.try_call(move |actor| {
            let home = match home {
                Some(home) => home,
                None => tokens::nearest_region(actor.engine.kept(tokens::RELAYS)?).unwrap_or_default(),
            };
            let channel = actor.engine.create_channel_in(&label, home)?;
            actor.bus.channels_changed.notify_one();
            Ok(channel)
        });
        Ok(self.handle(created.await?))
    }

    /// A channel of the vault.
    pub async fn channel(&self, channel: ChannelId) -> Result<Channel, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            owner.info(channel).await?;
            return Ok(self.handle(channel));
        }
        self.inner
            .core
            .try_call(move |actor| actor.engine.channel(channel))
            .await?;
        Ok(self.handle(channel))
    }

    /// All channels of the vault, those that were left too, in the order in which they came.
    pub async fn channels(&self) -> Result<Vec<ChannelInfo>, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.channels().await;
        }
        self.inner.core.try_call(|actor| actor.engine.channels()).await
    }

    /// All that waits in the outboxes, channel by channel. See [`Channel::outbox`].
    pub async fn outbox(&self) -> Result<Vec<Queued>, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.all_outboxes().await;
        }
        let waiting = self.inner.core.try_call(|actor| {
            let mut waiting = Vec::new();
            for channel in actor.engine.channels()?.iter().filter(|channel| channel.outbox > 0) {
                waiting.extend(actor.engine.outbox(channel.id)?);
            }
            Ok(waiting)
        });
        waiting.await
    }

    pub(crate) fn handle(&self, channel: ChannelId) -> Channel {
        Channel::new(Arc::clone(&self.inner.core), channel, self.inner.config.online_timeout)
    }

    // ---- end

    /// Waits until nothing is left in any outbox. Does not end while the agent is offline.
    pub async fn flushed(&self) -> Result<(), AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.flushed().await;
        }
        let mut settled = self.inner.core.bus.settled.subscribe();
        loop {
            settled.mark_unchanged();
            let channels = self.channels().await?;
            let waiting = channels.iter().filter(|channel| channel.state != ChannelState::Left);
            if waiting.map(|channel| channel.outbox).sum::<u64>() == 0 {
                return Ok(());
            }
            settled.changed().await.map_err(|_| AgentError::Closed)?;
        }
    }

    /// Ends everything: sends what can be sent within `deadline` where there is a session, ends the session, closes the
    /// vault. What was not sent waits in the outbox for the next time. Returns when the vault's file is released. Other
    /// processes that work through this one are told; what they have begun is finished within `deadline`.
    pub async fn close(&self, deadline: Duration) {
        if let Some(owner) = self.inner.core.owner() {
            return owner.detach();
        }
        let begun = Instant::now();
        if let Some(share) = &self.share {
            share.closing();
        }
        if self.is_connected() {
            // What does not go out in time is in the vault.
            let _ = timeout(deadline, self.flushed()).await;
        }
        if let Some(share) = &self.share {
            share.end(deadline.saturating_sub(begun.elapsed())).await;
        }
        self.disconnect().await;
        self.inner.core.stop().await;
    }
}
