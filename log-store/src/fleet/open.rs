//! How a node of a fleet starts.

use super::bootstrap::{self, Lazy, Need};
use super::config::{FleetConfig, MESSAGE_OVERHEAD_BYTES};
use super::connect::connect;
use super::error::OpenError;
use super::follower::{self, Beginning};
use super::guard::Contradiction;
use super::node::{Node, Shard};
use super::owed::Owed;
use super::shards::{ShardId, Shards};
use super::sync::Prober;
use super::{chain, keeper, mirror, publisher, streams, sweeper};
use crate::local::ShardPosition;
use crate::local::replica::Replica;
use async_nats::jetstream::stream::Info;
use async_nats::jetstream::{self, context::ContextBuilder};
use skytale_proto::limits;
use skytale_proto::session::Durability;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often the servers are asked again what an acknowledgement means.
const ASK_MEANING_EVERY: Duration = Duration::from_secs(60);
/// How long another region may be silent while a node starts.
const AWAY_AFTER: Duration = Duration::from_secs(3);

/// Starts a node.
pub(super) async fn open(config: FleetConfig) -> Result<Arc<Node>, OpenError> {
    if let Some(problem) = config.problem() {
        return Err(OpenError::Config { problem });
    }
    let shards = config.shards().map_err(|problem| OpenError::Config { problem })?;
    let client = connect(
        &config.nats,
        &config.nats.auth,
        config.request_timeout,
        config.open_timeout,
    )
    .await?;
    let needed = limits::FRAME_BYTES_MAX + MESSAGE_OVERHEAD_BYTES;
    if client.max_payload() < needed {
        return Err(OpenError::Config {
            problem: format!(
                "the NATS servers take messages of {} bytes; set max_payload to {needed} or more",
                client.max_payload()
            ),
        });
    }
    let context = ContextBuilder::new()
        .timeout(config.request_timeout)
        .build(client.clone());
    let (mut replica, positions) = Replica::open(config.local.clone()).await?;
    let mut positions = by_shard(positions, &shards)?;
    let opened = open_streams(&config, &shards, &context, &positions).await;
    let (infos, missing) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            close(&replica).await;
            return Err(error);
        }
    };
    let mut bucket = Lazy::new(&context, config.replicas);
    if matches!(bootstrap::need(&mut bucket, &positions, &infos).await, Need::Erase) {
        replica.close().await?;
        Replica::erase(&config.local.dir)?;
        (replica, _) = Replica::open(config.local.clone()).await?;
        positions.clear();
    }
    let installed = bootstrap::install(&mut bucket, &replica, shards.all(), &mut positions, &infos).await;
    let installed = match installed {
        Ok(installed) => installed,
        Err(error) => {
            close(&replica).await;
            return Err(error);
        }
    };
    let prober = Prober::new(&config).await?;
    let all: Vec<Info> = infos.values().cloned().collect();
    let meaning = prober.meaning(&all).await;
    let durability = match meaning {
        Some(meaning) => {
            if let (Some(problem), false) = (&meaning.problem, config.allow_weaker) {
                close(&replica).await;
                return Err(OpenError::Weaker {
                    problem: problem.clone(),
                });
            }
            meaning.durability
        }
        None if config.allow_weaker => Durability::Unsynced,
        None => {
            close(&replica).await;
            return Err(OpenError::Weaker {
                problem: "no server of the system account says whether sync_interval is `always`".into(),
            });
        }
    };
    let mut handles = BTreeMap::new();
    let mut queues = Vec::new();
    let mut beginnings = Vec::new();
    for &shard in shards.all() {
        let position = match (positions.get(&shard), infos.get(&shard)) {
            (Some(position), _) => position.clone(),
            (None, Some(info)) => chain::beginning(shard, streams::stream_id(info)),
            (None, None) => chain::beginning(shard, 0),
        };
        let mut beginning = Beginning {
            repeats: BTreeSet::new(),
            owes_after: 0,
            position,
        };
        if let Some(info) = infos.get(&shard) {
            beginning.repeats = bootstrap::repeats(&mut bucket, shard, &beginning.position, info).await?;
            if installed.contains(&shard) {
                beginning.owes_after = info.state.last_sequence;
            }
        }
        let (queue, receiver) = mpsc::unbounded_channel();
        handles.insert(shard, Shard::new(shard, queue, beginning.position.sequence));
        queues.push((shard, receiver));
        beginnings.push((shard, beginning));
    }
    let node = Arc::new(Node {
        frames: Arc::new(Semaphore::new(config.queue_frames_max)),
        bytes: Arc::new(Semaphore::new(config.queue_bytes_max)),
        config,
        shards,
        client,
        context,
        replica,
        handles,
        owed: Owed::new(),
        durability: watch::Sender::new(durability),
        ended: CancellationToken::new(),
        tasks: TaskTracker::new(),
    });
    if let Some((shard, contradiction)) = missing
        && let Some(shard) = node.handles.get(&shard)
    {
        node.stop(shard, &contradiction);
    }
    for (shard, receiver) in queues {
        node.tasks.spawn(publisher::publish_all(node.clone(), shard, receiver));
    }
    for (shard, beginning) in beginnings {
        node.tasks.spawn(follower::follow_all(node.clone(), shard, beginning));
    }
    if let Some(retention) = node.config.retention {
        node.tasks.spawn(keeper::keep_all(node.clone(), retention));
    }
    node.tasks.spawn(sweeper::sweep_all(node.clone()));
    node.tasks.spawn(ask_meaning(node.clone(), prober));
    Ok(node)
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

/// Finds or makes the streams. And what is wrong, where one that was followed is gone.
async fn open_streams(
    config: &FleetConfig,
    shards: &Shards,
    context: &jetstream::Context,
    positions: &BTreeMap<ShardId, ShardPosition>,
) -> Result<(BTreeMap<ShardId, Info>, Option<(ShardId, Contradiction)>), OpenError> {
    let mut infos = BTreeMap::new();
    let mut missing = None;
    for region in &config.regions {
        'shards: for index in 0..region.shards {
            let shard = ShardId {
                region: region.region,
                index,
            };
            let wanted = streams::wanted(shard, region, shards, config);
            let position = positions.get(&shard).map_or(0, |position| position.sequence);
            let begun = tokio::time::Instant::now();
            let info = loop {
                match streams::ensure(context, &wanted, position > 0, config.allow_weaker).await {
                    Ok(info) => break info,
                    // Another region may be cut off: what was followed of it is served, and its mirror goes on.
                    Err(OpenError::JetStream { .. })
                        if position > 0 && mirror::region(shard, config).is_some() && begun.elapsed() > AWAY_AFTER =>
                    {
                        tracing::warn!(%shard, "the home region does not answer");
                        continue 'shards;
                    }
                    // A cluster that has just started elects its leaders first.
                    Err(OpenError::JetStream { .. }) if begun.elapsed() < config.open_timeout => {
                        tokio::time::sleep(Duration::from_millis(250)).await;
                    }
                    Err(error) => return Err(error),
                }
            };
            if info.is_some() {
                mirror::ensure(context, shard, config).await;
            }
            match info {
                Some(info) => {
                    infos.insert(shard, info);
                }
                None => {
                    let stream = shard.stream();
                    missing = Some((shard, Contradiction::Missing { stream, position }));
                }
            }
        }
    }
    Ok((infos, missing))
}

/// Asks from time to time what an acknowledgement means.
async fn ask_meaning(node: Arc<Node>, prober: Prober) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(ASK_MEANING_EVERY) => {}
            () = node.ended.cancelled() => return,
        }
        let mut infos = Vec::new();
        for shard in node.shards.all() {
            if let Ok(streams::Found::There(info)) = streams::find(&node.context, &shard.stream()).await {
                infos.push(*info);
            }
        }
        // While servers are away nobody can say, and nothing is acknowledged by those.
        let settled = infos.len() == node.shards.all().len() && infos.iter().all(is_settled);
        let Some(meaning) = (if settled { prober.meaning(&infos).await } else { None }) else {
            continue;
        };
        node.durability.send_replace(meaning.durability);
        if let (Some(problem), false) = (meaning.problem, node.config.allow_weaker)
            && let Some(shard) = node.handles.values().next()
        {
            node.stop(shard, &Contradiction::Weaker { problem });
        }
    }
}

/// Whether all servers of a stream are up.
fn is_settled(info: &Info) -> bool {
    info.cluster
        .as_ref()
        .is_none_or(|cluster| cluster.leader.is_some() && cluster.replicas.iter().all(|peer| !peer.offline))
}

async fn close(replica: &Replica) {
    if let Err(error) = replica.close().await {
        tracing::warn!(%error, "the replica could not be closed");
    }
}
