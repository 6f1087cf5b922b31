//! Start of a node of a fleet.

use super::bootstrap::{self, Lazy, Need};
use super::config::{FleetConfig, MESSAGE_OVERHEAD_BYTES};
use super::connect::{connect, connect_later};
use super::error::OpenError;
use super::facts::Facts;
use super::follower::{self, Beginning};
use super::node::{Node, Shard};
use super::owed::Owed;
use super::peers::{self, Peers};
use super::shards::{ShardId, Shards};
use super::sync::{self, Meaning, Prober};
use super::{chain, keys, metrics, mirror, publisher, retention, rights, streams, sweeper};
use crate::local::ShardPosition;
use crate::local::replica::Replica;
use async_nats::connection::State;
use async_nats::jetstream::stream::Info;
use async_nats::jetstream::{self, context::ContextBuilder};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use skytale_proto::limits;
use skytale_proto::session::Durability;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Time that NATS, or a stream, may be silent before a node that has followed it starts without.
const AWAY_AFTER: Duration = Duration::from_secs(3);
/// The pause before what did not answer is asked once more.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// Streams that are looked for at once.
const STREAMS_AT_ONCE: usize = 8;

/// Purpose of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To serve agents.
    Serve,
    /// To put back the entries of others: it publishes no Welcomes of its own accord.
    Restore,
}

/// Starts a node.
pub(super) async fn open(config: FleetConfig, purpose: Purpose) -> Result<Arc<Node>, OpenError> {
    if let Some(problem) = config.problem() {
        return Err(OpenError::Config { problem });
    }
    let shards = config.shards().map_err(|problem| OpenError::Config { problem })?;
    let mut config = config;
    // Trims in the streams give entries up; the replica seals its segments so that they can go then.
    config.local.retention.age = config.retention;
    let (replica, positions) = Replica::open(config.local.clone()).await?;
    let mut opening = Opening {
        begun: Instant::now(),
        config,
        purpose,
        shards,
        replica,
        facts: None,
    };
    match opening.find(positions).await {
        Ok(found) => Ok(opening.start(found)),
        Err(error) => {
            close(&opening.replica).await;
            Err(error)
        }
    }
}

/// Returns the problem of the connection, if there is one.
pub(super) fn payload_problem(client: &async_nats::Client) -> Option<String> {
    let (needed, taken) = (limits::FRAME_BYTES_MAX + MESSAGE_OVERHEAD_BYTES, client.max_payload());
    (taken < needed)
        .then(|| format!("the NATS servers take messages of {taken} bytes; set max_payload to {needed} or more"))
}

/// A node that is starting.
struct Opening {
    begun: Instant,
    config: FleetConfig,
    purpose: Purpose,
    shards: Shards,
    replica: Replica,
    facts: Option<Facts>,
}

/// Streams that it found.
struct Found {
    client: async_nats::Client,
    context: jetstream::Context,
    prober: Prober,
    unread: Vec<String>,
    durability: Durability,
    beginnings: Vec<(ShardId, Beginning)>,
}

impl Opening {
    async fn find(&mut self, positions: Vec<ShardPosition>) -> Result<Found, OpenError> {
        let dir = self.config.local.dir.clone();
        let mut positions = by_shard(positions, &self.shards)?;
        let told = Facts::of(&self.shards, &self.config);
        self.facts = Facts::load(&dir);
        if let Some(problem) = self.facts.as_ref().and_then(|facts| facts.problem(&told)) {
            return Err(OpenError::Config { problem });
        }
        // A node with something to serve does without the streams that are away.
        let followed = positions.values().any(|position| position.sequence > 0)
            && !positions.values().any(Replica::is_half_installed);
        let client = self.connect(followed).await?;
        let context = ContextBuilder::new()
            .timeout(self.config.request_timeout)
            .build(client.clone());
        let connected = client.connection_state() == State::Connected;
        let infos = if connected {
            if let Some(problem) = payload_problem(&client) {
                return Err(OpenError::Config { problem });
            }
            self.streams(&context, &positions, followed).await?
        } else {
            BTreeMap::new()
        };
        let config = self.config.clone();
        let mut bucket = Lazy::new(&context, &config);
        if matches!(bootstrap::need(&mut bucket, &positions, &infos).await, Need::Erase) {
            self.replica.close().await?;
            Replica::erase(&dir)?;
            (self.replica, _) = Replica::open(self.config.local.clone()).await?;
            self.facts = None;
            positions.clear();
        }
        if !infos.is_empty() && self.facts.is_none() {
            told.save(&dir)?;
            self.facts = Some(told);
        }
        let mut beginnings = Vec::new();
        for &shard in self.shards.all() {
            let position = positions.remove(&shard);
            let beginning = match (infos.get(&shard), &mut self.facts) {
                (Some(info), Some(facts)) => {
                    bootstrap::begin(&mut bucket, &self.replica, facts, shard, position, info).await?
                }
                _ => Beginning {
                    repeats: BTreeSet::new(),
                    owes_after: 0,
                    position: position.unwrap_or_else(|| chain::beginning(shard, 0)),
                    checked: false,
                },
            };
            beginnings.push((shard, beginning));
        }
        let prober = Prober::new(&config, !connected).await?;
        let infos: Vec<Info> = infos.into_values().collect();
        let meaning = self.meaning(&prober, &infos, followed).await?;
        drop(bucket);
        if meaning.is_none() {
            // Checked once more, with all else, before anything is put into a stream.
            beginnings
                .iter_mut()
                .for_each(|(_, beginning)| beginning.checked = false);
        }
        let unread = meaning.as_ref().map(|meaning| meaning.unread.clone());
        let durability = match meaning {
            Some(meaning) => meaning.durability,
            None if config.allow_weaker => Durability::Unsynced,
            None => Durability::QuorumSynced,
        };
        Ok(Found {
            client,
            context,
            prober,
            unread: unread.unwrap_or_default(),
            durability,
            beginnings,
        })
    }

    async fn connect(&self, followed: bool) -> Result<async_nats::Client, OpenError> {
        let config = &self.config;
        let within = if followed {
            AWAY_AFTER.min(config.open_timeout)
        } else {
            config.open_timeout
        };
        match connect(&config.nats, &config.nats.auth, config.request_timeout, within).await {
            Err(error @ OpenError::Unreachable { .. }) if followed => {
                tracing::warn!(%error, "what was followed is served; the rest waits for NATS");
                connect_later(&config.nats, &config.nats.auth, config.request_timeout).await
            }
            connected => connected,
        }
    }

    /// Finds or makes the streams; not those that were followed and are gone.
    async fn streams(
        &self,
        context: &jetstream::Context,
        positions: &BTreeMap<ShardId, ShardPosition>,
        followed: bool,
    ) -> Result<BTreeMap<ShardId, Info>, OpenError> {
        let away_at = Instant::now() + AWAY_AFTER;
        let asked = self.shards.all().to_vec().into_iter().map(|shard| async move {
            let position = positions.get(&shard).map_or(0, |position| position.sequence);
            let found = self
                .stream(context, shard, position > 0, followed.then_some(away_at))
                .await;
            (shard, found)
        });
        let mut asked = futures_util::stream::iter(asked).buffer_unordered(STREAMS_AT_ONCE);
        let mut infos = BTreeMap::new();
        while let Some((shard, found)) = asked.next().await {
            match found? {
                Sought::There(info) => {
                    infos.insert(shard, *info);
                }
                // Its follower looks again, and says what that means.
                Sought::Missing => tracing::warn!(%shard, "its stream is missing; what was followed is served"),
                Sought::Away => tracing::warn!(%shard, "its stream does not answer; what was followed is served"),
            }
        }
        Ok(infos)
    }

    /// Finds or makes one, within the time for opening; until `away_at`, where it may be done without.
    async fn stream(
        &self,
        context: &jetstream::Context,
        shard: ShardId,
        existed: bool,
        away_at: Option<Instant>,
    ) -> Result<Sought, OpenError> {
        let wanted = streams::wanted(shard, &self.shards, &self.config);
        loop {
            let asked = streams::ensure(context, &wanted, existed, self.config.allow_weaker);
            let asked = match away_at {
                Some(away_at) => match tokio::time::timeout_at(away_at, asked).await {
                    Ok(asked) => asked,
                    Err(_) => return Ok(Sought::Away),
                },
                None => asked.await,
            };
            match asked {
                Ok(Some(info)) => {
                    if let Err(reason) = mirror::ensure(context, shard, &self.config).await {
                        tracing::warn!(stream = %shard.stream(), %reason, "the stream itself is followed");
                    }
                    return Ok(Sought::There(Box::new(info)));
                }
                Ok(None) => return Ok(Sought::Missing),
                // A cluster that has just started elects its leaders first.
                Err(OpenError::JetStream { .. }) if away_at.is_some() || self.has_time() => {
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn has_time(&self) -> bool {
        self.begun.elapsed() < self.config.open_timeout
    }

    /// Returns the meaning of an acknowledgement at the streams that answered; `None` if nobody says, and this node can
    /// do without.
    async fn meaning(&self, prober: &Prober, infos: &[Info], followed: bool) -> Result<Option<Meaning>, OpenError> {
        let weaker = |problem: String| OpenError::Weaker { problem };
        let allowed = self.config.allow_weaker;
        if infos.is_empty() {
            return Ok(None);
        }
        let away_at = Instant::now() + AWAY_AFTER;
        loop {
            match prober.meaning(infos).await {
                Ok(meaning) => match meaning.problem {
                    Some(problem) if !allowed => return Err(weaker(problem)),
                    _ => return Ok(Some(meaning)),
                },
                Err(problem) if followed && Instant::now() >= away_at => {
                    tracing::warn!(%problem, "nothing is appended until it is known");
                    return Ok(None);
                }
                Err(problem) if self.has_time() => {
                    tracing::debug!(%problem, "it is asked once more");
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                Err(problem) if allowed => {
                    return Ok(Some(Meaning {
                        durability: Durability::Unsynced,
                        problem: Some(problem),
                        unread: Vec::new(),
                    }));
                }
                Err(problem) => return Err(weaker(problem)),
            }
        }
    }

    fn start(self, found: Found) -> Arc<Node> {
        let (mut handles, mut queues) = (BTreeMap::new(), Vec::new());
        for (shard, beginning) in &found.beginnings {
            let (queue, receiver) = mpsc::unbounded_channel();
            // Its follower accepts the stream when it has looked at it, and heard the other nodes.
            let handle = Shard::new(*shard, queue, &beginning.position);
            handles.insert(*shard, handle);
            queues.push((*shard, receiver));
        }
        let purpose = self.purpose;
        let peers = Peers::new(self.shards.all(), self.config.clock_tolerance);
        let node = Arc::new(Node {
            frames: Arc::new(Semaphore::new(self.config.queue_frames_max)),
            bytes: Arc::new(Semaphore::new(self.config.queue_bytes_max)),
            config: self.config,
            purpose,
            shards: self.shards,
            client: found.client,
            context: found.context,
            replica: self.replica,
            handles,
            owed: Owed::new(),
            durability: watch::Sender::new(found.durability),
            prober: found.prober,
            unread: Mutex::new(Vec::new()),
            peers,
            clocks: Mutex::new(None),
            doubts: Mutex::new(BTreeMap::new()),
            rights: Mutex::new(Vec::new()),
            ask_sync: Notify::new(),
            facts: tokio::sync::Mutex::new(self.facts),
            ended: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        metrics::begin(node.handles.values().map(|shard| shard.label.as_str()));
        node.cannot_read(&found.unread);
        for (shard, receiver) in queues {
            node.tasks.spawn(publisher::publish_all(node.clone(), shard, receiver));
        }
        for (shard, beginning) in found.beginnings {
            node.tasks.spawn(follower::follow_all(node.clone(), shard, beginning));
        }
        if let Some(retention) = node.config.retention {
            node.tasks.spawn(retention::enforce_all(node.clone(), retention));
        }
        if purpose == Purpose::Serve {
            node.tasks.spawn(sweeper::sweep_all(node.clone()));
        }
        node.tasks.spawn(peers::tell_all(node.clone()));
        node.tasks.spawn(sync::ask_again(node.clone()));
        node.tasks.spawn(keys::follow(node.clone()));
        node.tasks.spawn(rights::watch(node.clone()));
        node
    }
}

/// Result of a search for a stream.
enum Sought {
    There(Box<Info>),
    Missing,
    /// It does not answer, and is done without for now.
    Away,
}

/// The positions by shard. One of a shard that there is not means that the settings are another fleet's.
fn by_shard(positions: Vec<ShardPosition>, shards: &Shards) -> Result<BTreeMap<ShardId, ShardPosition>, OpenError> {
    let mut found = BTreeMap::new();
    for position in positions {
        let shard = shards.all().iter().find(|shard| shard.number() == position.shard);
        let Some(shard) = shard else {
            return Err(OpenError::Config {
                problem: format!(
                    "the replica has followed shard {}/{}, which the settings do not name",
                    position.shard >> 16,
                    position.shard & 0xffff
                ),
            });
        };
        found.insert(*shard, position);
    }
    Ok(found)
}

async fn close(replica: &Replica) {
    if let Err(error) = replica.close().await {
        tracing::warn!(%error, "the replica could not be closed");
    }
}
