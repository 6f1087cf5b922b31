//! Configuration of an agent.

use crate::engine::{EngineConfig, Keep};
use crate::net::relay::{NetworkConfig, PATIENCE};
use crate::net::{Relay, TokenProvider, TokenSource};
use crate::vault::VaultKey;
use skytale_proto::Region;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Source of the list of relay nodes.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum RelaySource {
    /// The directory that each token carries.
    #[default]
    Directory,
    /// A fixed list, nearest first.
    Fixed(Vec<Relay>),
}

/// Configuration of an [`Agent`](super::Agent), as a builder. Start with [`AgentConfig::new`] or
/// [`AgentConfig::from_env`]; every other setting has a default.
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
    /// The vault's file. Created if it does not exist.
    pub vault: PathBuf,
    /// The vault's key.
    pub key: VaultKey,
    /// Provider of tokens: an [`ApiClient`](crate::ApiClient), or another one.
    pub tokens: TokenSource,
    /// Source of the list of relay nodes.
    pub relays: RelaySource,
    /// The region that the agent is in or nearest to. Sent with each token request, so the directory lists relay nodes
    /// of that region first. Without it, the API uses its own region.
    pub region: Option<Region>,
    /// Network settings for connections to relay nodes.
    pub network: NetworkConfig,
    /// Whether other processes of this user that have the vault's key may attach to this one while the agent is open.
    /// They connect through a socket beside the vault, `<vault>.sock`; see
    /// [`Agent::open_or_attach`](super::Agent::open_or_attach).
    pub sharing: bool,
    /// The engine's settings.
    pub engine: EngineConfig,
    /// The driver's settings.
    pub driver: DriverConfig,
}

/// Settings of the background work.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DriverConfig {
    /// Shortest delay before reconnecting; doubled after each failure, with jitter. If there are several relay nodes,
    /// one that failed is not retried for at least a second.
    pub backoff_min: Duration,
    /// Longest delay before reconnecting.
    pub backoff_max: Duration,
    /// Delay after which an unanswered connection attempt no longer blocks the next relay node: that one is tried in
    /// parallel.
    pub probe_stagger: Duration,
    /// Longest delay before an agent moves to another relay node. Each agent waits a random part of it, so that the
    /// agents of one node do not all reach the next one at the same moment.
    pub move_jitter: Duration,
    /// Longest time that a reachable relay node may owe an answer (a verdict, a part of a replay). After it, the agent
    /// moves to another node if there is one. It must exceed the time that a healthy node needs even if that node
    /// cannot reach others: in a fleet, twice the store's `append_timeout_ms`.
    pub answer_timeout: Duration,
    /// Number of unacknowledged messages in a channel's inbox at which the channel pauses. It resumes when half of them
    /// are acknowledged, or when something is to be sent there.
    pub inbox_messages_max: u64,
    /// Events kept for a slow receiver.
    pub events_max: usize,
    /// Longest time that an operation that needs the relay (a claim of KeyPackages) waits for a session.
    pub online_timeout: Duration,
    /// Longest time that messages sent after [`Channel::ensure_members`](crate::channel::Channel::ensure_members) wait
    /// for an agent that has no KeyPackages on offer. It starts at the first attempt to add the agent; time without a
    /// session before that does not count.
    pub member_wait: Duration,
    /// Interval at which the stock of KeyPackages is counted if nothing else triggers it.
    pub stock_interval: Duration,
}

impl AgentConfig {
    /// Creates a configuration with defaults for all other settings.
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

    /// Sets the region that the agent is in or nearest to.
    #[must_use]
    pub const fn with_region(mut self, region: Region) -> Self {
        self.region = Some(region);
        self
    }

    /// Sets the network settings for connections to relay nodes.
    #[must_use]
    pub fn with_network(mut self, network: NetworkConfig) -> Self {
        self.network = network;
        self
    }

    /// Sets how much acknowledged history each channel keeps.
    #[must_use]
    pub const fn with_history(mut self, keep: Keep) -> Self {
        self.engine.history = keep;
        self
    }

    /// Sets the number of unacknowledged messages that pauses a channel. See [`DriverConfig::inbox_messages_max`].
    #[must_use]
    pub const fn with_inbox_messages_max(mut self, messages: u64) -> Self {
        self.driver.inbox_messages_max = messages;
        self
    }

    /// Sets how long an operation that needs a relay node waits for a session.
    #[must_use]
    pub const fn with_online_timeout(mut self, timeout: Duration) -> Self {
        self.driver.online_timeout = timeout;
        self
    }

    /// Sets whether other processes of this user may attach to this one.
    #[must_use]
    pub const fn with_sharing(mut self, sharing: bool) -> Self {
        self.sharing = sharing;
        self
    }

    /// Uses the given relay nodes instead of the directory's.
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
