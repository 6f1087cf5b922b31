//! What an agent is opened with.

use crate::engine::{EngineConfig, Keep};
use crate::net::relay::{NetworkConfig, PATIENCE};
use crate::net::{Relay, TokenProvider, TokenSource};
use crate::vault::VaultKey;
use skytale_proto::Region;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where relay nodes are.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum RelaySource {
    /// The directory that comes with each token.
    #[default]
    Directory,
    /// These, nearest first.
    Fixed(Vec<Relay>),
}

/// How an agent is opened, and how it behaves: the builder of an [`Agent`](super::Agent). [`AgentConfig::new`] or
/// [`AgentConfig::from_env`] begins one; what they do not ask for has a default.
///
/// ```
/// use skytale_sdk::{Agent, AgentConfig, ApiClient, ApiKey, Keep, Region, VaultKey};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let vault = folder.path().join("agent.vault");
/// let api = ApiClient::new("https://api.example.org", ApiKey::new("sk_live_...")?)?;
/// let config = AgentConfig::new(&vault, VaultKey::beside(&vault), api)
///     .with_region(Region(1))
///     .with_history(Keep::Newest(10_000))
///     .with_inbox_messages_max(1_000);
///
/// // Offline: what is sent waits in the vault until `connect`.
/// let agent = Agent::open(config).await?;
/// let channel = agent.create_channel("plans").await?;
/// let sent = channel.send("hello").await?;
/// assert!(channel.outbox().await?.iter().any(|queued| queued.frame_id == sent.frame_id()));
/// # agent.close(std::time::Duration::ZERO).await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct AgentConfig {
    /// The vault's file. Made where there is none.
    pub vault: PathBuf,
    /// The vault's key.
    pub key: VaultKey,
    /// Who gives out tokens: an [`ApiClient`](crate::ApiClient), or another.
    pub tokens: TokenSource,
    /// Where relay nodes are.
    pub relays: RelaySource,
    /// The region that the agent is in or nearest to: asked for with each token, so that the directory names relay nodes of
    /// it first. Without, the API takes its own.
    pub region: Option<Region>,
    /// How relay nodes are reached.
    pub network: NetworkConfig,
    /// Whether other processes of this user that have the vault's key may work through this one, by a socket beside the
    /// vault, `<vault>.sock`. As long as the agent is open; see [`Agent::open_or_attach`](super::Agent::open_or_attach).
    pub sharing: bool,
    /// The engine's settings.
    pub engine: EngineConfig,
    /// The driver's settings.
    pub driver: DriverConfig,
}

/// How the background work behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DriverConfig {
    /// The shortest wait before another attempt to connect; doubled each time, with jitter. Where there are several relay
    /// nodes, one that failed is left alone for a second at least.
    pub backoff_min: Duration,
    /// The longest.
    pub backoff_max: Duration,
    /// A relay node that has not answered for so long is not waited for alone: the next one is tried beside it.
    pub probe_stagger: Duration,
    /// The longest time, of which each agent takes a random part, before it goes to another relay node: a node's agents do
    /// not all come at one moment to the next.
    pub move_jitter: Duration,
    /// A relay node that is there and owes an answer (a verdict, a part of a replay) for so long is left for another, where there
    /// is one. It must be longer than a sound one may take, whatever it cannot reach itself: in a fleet twice the store's
    /// `append_timeout_ms`.
    pub answer_timeout: Duration,
    /// With as many messages in a channel's inbox that the application has not acknowledged, the channel is no longer
    /// followed until half of them are, or until something is to be sent there.
    pub inbox_messages_max: u64,
    /// Events kept for a slow receiver.
    pub events_max: usize,
    /// How long an operation that needs the relay (a claim of KeyPackages) waits for a session.
    pub online_timeout: Duration,
    /// How long what was sent after [`Channel::ensure_members`](crate::channel::Channel::ensure_members) waits for an agent that
    /// has no KeyPackages on offer, from the first attempt to add it on. Time without a session does not count before that
    /// attempt.
    pub member_wait: Duration,
    /// How often the stock of KeyPackages is counted when nothing else gives reason to.
    pub stock_interval: Duration,
}

impl AgentConfig {
    /// With defaults for the rest.
    pub fn new(vault: impl Into<PathBuf>, key: VaultKey, tokens: impl TokenProvider) -> Self {
        Self {
            vault: vault.into(),
            key,
            tokens: TokenSource::new(tokens),
            relays: RelaySource::default(),
            region: None,
            network: NetworkConfig::default(),
            sharing: true,
            engine: EngineConfig::default(),
            driver: DriverConfig::default(),
        }
    }

    /// In or nearest to a region.
    #[must_use]
    pub const fn with_region(mut self, region: Region) -> Self {
        self.region = Some(region);
        self
    }

    /// With how relay nodes are reached.
    #[must_use]
    pub fn with_network(mut self, network: NetworkConfig) -> Self {
        self.network = network;
        self
    }

    /// With how much of each channel's history is kept, of what the application has acknowledged.
    #[must_use]
    pub const fn with_history(mut self, keep: Keep) -> Self {
        self.engine.history = keep;
        self
    }

    /// With how many messages that the application has not acknowledged pause their channel. See
    /// [`DriverConfig::inbox_messages_max`].
    #[must_use]
    pub const fn with_inbox_messages_max(mut self, messages: u64) -> Self {
        self.driver.inbox_messages_max = messages;
        self
    }

    /// With how long an operation that needs a relay node waits for a session.
    #[must_use]
    pub const fn with_online_timeout(mut self, timeout: Duration) -> Self {
        self.driver.online_timeout = timeout;
        self
    }

    /// Lets other processes of this user work through this one, or not.
    #[must_use]
    pub const fn with_sharing(mut self, sharing: bool) -> Self {
        self.sharing = sharing;
        self
    }

    /// With relay nodes given, instead of the directory's.
    #[must_use]
    pub fn with_relays(mut self, relays: Vec<Relay>) -> Self {
        self.relays = RelaySource::Fixed(relays);
        self
    }
}

impl Default for DriverConfig {
    fn default() -> Self {
        Self {
            backoff_min: Duration::from_millis(200),
            backoff_max: Duration::from_secs(30),
            probe_stagger: Duration::from_millis(250),
            move_jitter: Duration::from_millis(250),
            answer_timeout: PATIENCE,
            inbox_messages_max: 10_000,
            events_max: 4_096,
            online_timeout: Duration::from_secs(30),
            member_wait: Duration::from_secs(60),
            stock_interval: Duration::from_secs(300),
        }
    }
}

impl fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentConfig")
            .field("vault", &self.vault)
            .field("relays", &self.relays)
            .field("region", &self.region)
            .field("network", &self.network)
            .field("sharing", &self.sharing)
            .field("engine", &self.engine)
            .field("driver", &self.driver)
            .finish_non_exhaustive()
    }
}
