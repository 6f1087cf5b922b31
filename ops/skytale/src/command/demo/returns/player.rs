//! An agent that goes away and comes back, perhaps from an older copy of its vault, perhaps in another time.

use crate::agent::{connect, current, failed};
use crate::local::{copy_folder, private_folder, replace_folder};
use crate::output::{Failure, Outcome};
use crate::stage::PATIENCE;
use futures_util::FutureExt as _;
use skytale_proto::{ChannelId, Code, Offset};
use skytale_sdk::{Agent, AgentConfig, ApiClient, Channel, Clock, Event, Events, VaultKey};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Maximum time for sent messages to go out when an agent goes away.
const CLOSE_WITHIN: Duration = Duration::from_secs(30);
/// Interval between checks of something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct Player {
    pub name: &'static str,
    /// The folder of its vault, which holds nothing else.
    dir: PathBuf,
    client: ApiClient,
    /// Offset of its clock from this machine's.
    pub ahead: Duration,
    pub agent: Agent,
    events: Events,
    /// The ways back that it learned of.
    went: Vec<(ChannelId, Way)>,
}

/// A way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By an external commit of its own.
    NewKeys,
    /// By another member's commit.
    Rejoin,
}

impl Way {
    pub(super) const fn describe(self) -> &'static str {
        match self {
            Self::NewKeys => "took new keys",
            Self::Rejoin => "rejoined",
        }
    }
}

impl Player {
    /// Makes an agent with a vault of its own, and brings it online.
    pub(super) async fn enter(dir: &Path, name: &'static str, client: &ApiClient) -> Outcome<Self> {
        let dir = dir.join(name);
        let (agent, events) = open(&dir, client, Duration::ZERO).await?;
        let player = Self {
            name,
            dir,
            client: client.clone(),
            ahead: Duration::ZERO,
            agent,
            events,
            went: Vec::new(),
        };
        connect(&player.agent, PATIENCE).await?;
        current(&player.agent, PATIENCE).await?;
        Ok(player)
    }

    /// The agent's process ends, as far as the agent is concerned.
    pub(super) async fn go_away(&mut self) {
        self.agent.close(CLOSE_WITHIN).await;
    }

    /// Opens the vault again, from nothing but its files.
    pub(super) async fn come_back(&mut self) -> Outcome {
        (self.agent, self.events) = open(&self.dir, &self.client, self.ahead).await?;
        self.went.clear();
        connect(&self.agent, PATIENCE).await
    }

    /// Copies the files of the vault, which is closed.
    pub(super) fn copy_vault(&self, to: &Path) -> Outcome {
        copy_folder(&self.dir, to)
    }

    /// Puts a copy in the place of the vault, which is closed.
    pub(super) fn put_back(&self, copy: &Path) -> Outcome {
        replace_folder(&self.dir, copy)
    }

    pub(super) async fn channel(&self, channel: ChannelId) -> Outcome<Channel> {
        let channel = self.agent.channel(channel).await;
        channel.map_err(failed("a channel is missing"))
    }

    /// Waits until it has processed a channel up to an offset; first of all, until it is in it.
    pub(super) async fn reach(&self, channel: ChannelId, offset: Offset) -> Outcome {
        let reached = async {
            loop {
                if let Ok(channel) = self.agent.channel(channel).await
                    && channel.cursor().await.map_err(failed("cannot read the cursor"))? >= offset
                {
                    return Ok(());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let never = || format!("{} never got to offset {offset}", self.name);
        within(never, reached).await
    }

    /// Whether it got back into a channel in this way since it was opened.
    pub(super) fn went(&mut self, channel: ChannelId, way: Way) -> bool {
        while let Some(Some(event)) = self.events.next().now_or_never() {
            let went = match event {
                Event::Renewed { channel, .. } => (channel, Way::NewKeys),
                Event::Rejoined { channel, .. } => (channel, Way::Rejoin),
                _ => continue,
            };
            self.went.push(went);
        }
        self.went.contains(&(channel, way))
    }
}

/// Waits for something that must come.
pub(super) async fn within<T>(never: impl FnOnce() -> String, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => Err(Failure::new(Code::Mismatch, never())),
    }
}

async fn open(dir: &Path, client: &ApiClient, ahead: Duration) -> Outcome<(Agent, Events)> {
    private_folder(dir)?;
    let key = VaultKey::file(dir.join("vault.key"));
    let mut config = AgentConfig::new(dir.join("vault"), key, client.clone());
    // Its history is read, and nothing is acknowledged.
    config.driver.inbox_messages_max = u64::MAX;
    config.engine.clock = Clock::new(move || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + ahead;
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    });
    let agent = Agent::open(config).await.map_err(failed("cannot open a vault"))?;
    let events = agent.events();
    Ok((agent, events))
}
