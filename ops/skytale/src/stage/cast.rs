//! The agents of a demonstration.

use super::ledger::{Comparison, Ledger, Reading};
use crate::agent::{connect, current, failed};
use crate::output::{Failure, Outcome};
use parking_lot::Mutex;
use serde::Serialize;
use skytale_proto::{ChannelId, Code, Offset};
use skytale_sdk::{Agent, AgentConfig, ApiClient, Channel, Event, NetworkConfig, VaultKey};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Maximum time without progress before something is taken for stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Maximum time for sent messages to go out when an agent goes away.
const CLOSE_WITHIN: Duration = Duration::from_secs(30);
/// Messages read from the vault at once.
const PAGE: u32 = 512;
/// An acknowledgement is a transaction: the application makes one for so many messages.
const ACK_EVERY: u64 = 64;

/// One agent's end.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AgentReport {
    pub name: String,
    pub agent: String,
    /// The last offset that it processed.
    pub cursor: u64,
    /// The channel digest there.
    pub digest: Option<String>,
    /// BLAKE3 of its decrypted transcript.
    pub transcript: String,
    #[serde(skip)]
    pub compared: Comparison,
}

/// An agent, with what its application has been given.
#[derive(Debug)]
pub(crate) struct Actor {
    pub name: String,
    vault: PathBuf,
    client: ApiClient,
    /// Its region, in a fleet of several.
    region: Option<u8>,
    network: NetworkConfig,
    pub agent: Agent,
    application: Option<Application>,
    received: Arc<Mutex<Received>>,
}

/// Messages that an application was given over all its lives.
#[derive(Debug, Default)]
struct Received {
    last: Offset,
    count: u64,
    again: u64,
    /// Events that must never happen, in words.
    alarms: Vec<String>,
}

/// An application that reads its channel and acknowledges the messages that it has read.
#[derive(Debug)]
struct Application {
    stop: CancellationToken,
    reading: JoinHandle<Outcome>,
    watching: JoinHandle<()>,
}

impl Actor {
    /// Makes an agent with a vault of its own, and brings it online.
    pub(crate) async fn enter(
        dir: &Path,
        name: &str,
        client: &ApiClient,
        region: Option<u8>,
        network: NetworkConfig,
    ) -> Outcome<Self> {
        let vault = dir.join(format!("{name}.vault"));
        let agent = open(&vault, client, region, &network).await?;
        connect(&agent, PATIENCE).await?;
        current(&agent, PATIENCE).await?;
        Ok(Self {
            name: name.to_owned(),
            vault,
            client: client.clone(),
            region,
            network,
            agent,
            application: None,
            received: Arc::default(),
        })
    }

    /// The agent's application begins to read a channel.
    pub(crate) async fn listen(&mut self, channel: ChannelId) -> Outcome {
        let channel = self.channel(channel).await?;
        let stop = CancellationToken::new();
        let watching = tokio::spawn(watch(self.agent.clone(), self.received.clone(), stop.clone()));
        let reading = tokio::spawn(read(channel, self.received.clone(), stop.clone()));
        self.application = Some(Application {
            stop,
            reading,
            watching,
        });
        Ok(())
    }

    pub(crate) async fn channel(&self, channel: ChannelId) -> Outcome<Channel> {
        self.agent
            .channel(channel)
            .await
            .map_err(failed("a channel is missing"))
    }

    /// The agent's process ends, as far as the agent is concerned: application, session and vault.
    pub(crate) async fn go_away(&mut self) -> Outcome {
        self.stop_listening().await?;
        self.agent.close(CLOSE_WITHIN).await;
        Ok(())
    }

    /// Opens the vault again, from nothing but its file.
    pub(crate) async fn come_back(&mut self, channel: ChannelId) -> Outcome {
        self.agent = open(&self.vault, &self.client, self.region, &self.network).await?;
        self.listen(channel).await?;
        connect(&self.agent, PATIENCE).await
    }

    /// Waits until the channel was processed up to an offset.
    pub(crate) async fn reach(&self, channel: &Channel, offset: Offset, each: impl Fn(Offset)) -> Outcome {
        let (mut last, mut moved) = (Offset::ZERO, Instant::now());
        loop {
            let cursor = channel.cursor().await.map_err(failed("cannot read the cursor"))?;
            each(cursor);
            if cursor >= offset {
                return Ok(());
            }
            if cursor > last {
                (last, moved) = (cursor, Instant::now());
            } else if moved.elapsed() > PATIENCE {
                let what = format!("{} stays at offset {cursor} and does not get to {offset}", self.name);
                return Err(Failure::new(Code::Mismatch, what));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the application was given as many messages of others as there are.
    pub(crate) async fn given(&self, count: u64) -> Outcome {
        let (mut last, mut moved) = (0, Instant::now());
        loop {
            let got = self.received.lock().count;
            if got >= count {
                return Ok(());
            }
            if got > last {
                (last, moved) = (got, Instant::now());
            } else if moved.elapsed() > PATIENCE {
                let what = format!("{}'s application was given {got} of {count} messages", self.name);
                return Err(Failure::new(Code::Mismatch, what));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the agent, which was added, has joined.
    pub(crate) async fn joined(&self, channel: ChannelId) -> Outcome {
        let joining = async {
            while self.agent.channel(channel).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, joining)
            .await
            .map_err(|_| Failure::new(Code::Mismatch, format!("{} was added and never joined", self.name)))
    }

    async fn stop_listening(&mut self) -> Outcome {
        let Some(application) = self.application.take() else {
            return Ok(());
        };
        application.stop.cancel();
        let read = application.reading.await;
        let watched = application.watching.await;
        let panicked = |error: tokio::task::JoinError| {
            Failure::new(Code::Mismatch, format!("{}'s application ended by itself", self.name)).because(&error)
        };
        watched.map_err(panicked)?;
        read.map_err(panicked)?
    }

    /// Compares the agent's messages with those that were sent, and takes its leave.
    pub(crate) async fn report(&mut self, channel: ChannelId, ledger: &Ledger) -> Outcome<AgentReport> {
        let (handle, what) = (self.channel(channel).await?, "cannot read the history");
        let mut reading = Reading::new(ledger);
        let mut after = Offset::ZERO;
        loop {
            let messages = handle.history(after, PAGE).await.map_err(failed(what))?;
            let Some(last) = messages.last() else { break };
            after = last.offset;
            for message in &messages {
                reading.message(message.offset, &message.author, &message.payload);
            }
        }
        let (mut compared, transcript) = reading.finish();
        let (cursor, digest) = handle.digest().await.map_err(failed("cannot read the digest"))?;
        self.go_away().await?;
        let received = self.received.lock();
        if let Some(alarm) = received.alarms.first() {
            return Err(Failure::new(Code::Mismatch, format!("{}: {alarm}", self.name)));
        }
        // The application's messages must be those of the history, less the agent's own.
        let others = ledger.sent() - ledger.sent_by(&self.agent.id());
        compared.duplicated += received.again;
        compared.lost += others.saturating_sub(received.count);
        Ok(AgentReport {
            name: self.name.clone(),
            agent: self.agent.id().to_string(),
            cursor: cursor.get(),
            digest: digest.map(|digest| digest.to_string()),
            transcript: transcript.to_string(),
            compared,
        })
    }
}

async fn open(vault: &Path, client: &ApiClient, region: Option<u8>, network: &NetworkConfig) -> Outcome<Agent> {
    let mut key = vault.as_os_str().to_owned();
    key.push(".key");
    let mut config = AgentConfig::new(vault, VaultKey::file(key), client.clone());
    config.region = region.map(skytale_sdk::Region);
    config.network = network.clone();
    Agent::open(config).await.map_err(failed("cannot open a vault"))
}

async fn read(channel: Channel, received: Arc<Mutex<Received>>, stop: CancellationToken) -> Outcome {
    let what = "an application cannot read";
    let mut messages = channel.messages();
    let mut unacknowledged = None;
    loop {
        // With nothing more to read for a moment, all that was read is acknowledged.
        let message = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            message = messages.next() => message.map_err(failed(what))?,
            () = tokio::time::sleep(Duration::from_millis(50)), if unacknowledged.is_some() => {
                acknowledge(&mut unacknowledged, &channel).await?;
                continue;
            }
        };
        let count = {
            let mut received = received.lock();
            if message.offset <= received.last {
                received.again += 1;
            } else {
                received.last = message.offset;
                received.count += 1;
            }
            received.count
        };
        unacknowledged = Some(message.offset);
        if count.is_multiple_of(ACK_EVERY) {
            acknowledge(&mut unacknowledged, &channel).await?;
        }
    }
    acknowledge(&mut unacknowledged, &channel).await
}

async fn acknowledge(offset: &mut Option<Offset>, channel: &Channel) -> Outcome {
    match offset.take() {
        Some(offset) => channel
            .ack(offset)
            .await
            .map_err(failed("an application cannot acknowledge")),
        None => Ok(()),
    }
}

/// Notes what must never happen.
async fn watch(agent: Agent, received: Arc<Mutex<Received>>, stop: CancellationToken) {
    let mut events = agent.events();
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.next() => event,
        };
        let alarm = match event {
            None => return,
            Some(Event::Divergence { offset, .. }) => format!("the relay showed another log at offset {offset}"),
            Some(Event::Gap { expected, found, .. }) => format!("the log has a gap: {found} came after {expected}"),
            Some(Event::EntryUnreadable { offset, reason, .. }) => format!("entry {offset} is unreadable: {reason}"),
            Some(Event::HeaderLied { offset, problem, .. }) => format!("the header of entry {offset} lied: {problem}"),
            Some(Event::SendFailed { code, .. }) => format!("a send failed: {code}"),
            Some(_) => continue,
        };
        received.lock().alarms.push(alarm);
    }
}
