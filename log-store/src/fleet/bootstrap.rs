//! Start of a node without a (new enough) replica: with the checkpoint that the stream's first message follows, if
//! enough known nodes vouch for it. No single node is believed; a stream that still has its first message needs no
//! voucher.
//!
//! Entries before the checkpoint are not here. All of them were given up by Trims, which come later in the stream: so the
//! replica is ready only when it has caught up.

use super::bucket::Bucket;
use super::chain;
use super::checkpoint::Checkpoint;
use super::config::FleetConfig;
use super::error::OpenError;
use super::facts::Facts;
use super::follower::Beginning;
use super::shards::ShardId;
use super::streams::stream_id;
use super::vouch::{Attested, Judged, covered};
use crate::local::ShardPosition;
use crate::local::replica::Replica;
use async_nats::jetstream;
use async_nats::jetstream::stream::Info;
use skytale_proto::Region;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// Preparation that a replica needs before it can follow.
pub(super) enum Need {
    /// Nothing.
    Nothing,
    /// To be recreated: a shard of it is older than its stream's beginning, or half a checkpoint was installed.
    Erase,
}

/// Whether a replica that is there can be followed on from.
pub(super) async fn need(
    bucket: &mut Lazy<'_>,
    positions: &BTreeMap<ShardId, ShardPosition>,
    infos: &BTreeMap<ShardId, Info>,
) -> Need {
    for (shard, position) in positions {
        if Replica::is_half_installed(position) {
            return Need::Erase;
        }
        let Some(info) = infos.get(shard) else { continue };
        let first = info.state.first_sequence;
        let behind = position.sequence > 0 && position.stream == stream_id(info) && position.sequence + 1 < first;
        // Without a checkpoint there is only the replica: it is read, and says why it is not followed.
        if behind && matches!(bucket.at(*shard, position.stream, first - 1).await, Ok(Some(_))) {
            tracing::warn!(%shard, position = position.sequence, first, "the replica is too old; it is recreated");
            return Need::Erase;
        }
    }
    Need::Nothing
}

/// Returns the place from which a shard is followed on. One that has no position, and whose stream does not begin at
/// its beginning, begins with the checkpoint that the stream's first message follows.
pub(super) async fn begin(
    bucket: &mut Lazy<'_>,
    replica: &Replica,
    facts: &mut Facts,
    shard: ShardId,
    position: Option<ShardPosition>,
    info: &Info,
) -> Result<Beginning, OpenError> {
    let (first, stream) = (info.state.first_sequence, stream_id(info));
    let position = match position {
        Some(position) if position.sequence > 0 => position,
        _ if first <= 1 => chain::beginning(shard, stream),
        _ => {
            facts.begins(shard, info.state.last_sequence);
            facts.save(&bucket.config.local.dir)?;
            install(bucket, replica, shard, info).await?
        }
    };
    Ok(Beginning {
        repeats: repeats(bucket, shard, &position, info).await?,
        // Other nodes saw to the Welcomes that were owed before.
        owes_after: facts.began_at(shard),
        position,
        checked: true,
    })
}

async fn install(
    bucket: &mut Lazy<'_>,
    replica: &Replica,
    shard: ShardId,
    info: &Info,
) -> Result<ShardPosition, OpenError> {
    let (first, stream) = (info.state.first_sequence, stream_id(info));
    let named = |problem: String| OpenError::Stream {
        stream: shard.stream(),
        problem,
    };
    let Some(attested) = bucket.at(shard, stream, first - 1).await.map_err(named)? else {
        return Err(OpenError::Unattested {
            stream: shard.stream(),
            first,
            witnesses: bucket.config.witnesses,
        });
    };
    let Some(checkpoint) = bucket.get(shard, stream, &attested).await.map_err(named)? else {
        return Err(named(format!("parts of the checkpoint at {} are not there", first - 1)));
    };
    let nodes: Vec<String> = attested.nodes.into_iter().collect();
    let logs = checkpoint.logs.len();
    let position = ShardPosition {
        repeated_after: checkpoint.position.sequence,
        repeated: Vec::new(),
        ..checkpoint.position
    };
    replica.install(checkpoint.logs, position.clone()).await?;
    tracing::info!(%shard, sequence = position.sequence, logs, vouched = %nodes.join(", "), "began with a checkpoint");
    Ok(position)
}

/// The messages after a position that are known to repeat entries: from the checkpoints after it.
async fn repeats(
    bucket: &mut Lazy<'_>,
    shard: ShardId,
    position: &ShardPosition,
    info: &Info,
) -> Result<BTreeSet<u64>, OpenError> {
    let mut repeats = BTreeSet::new();
    if position.sequence >= info.state.last_sequence || info.state.first_sequence <= 1 {
        // Nothing is missing here: the fold knows every frame id.
        return Ok(repeats);
    }
    let named = |problem: String| OpenError::Stream {
        stream: shard.stream(),
        problem,
    };
    let judged = bucket.judged(shard, position.stream).await.map_err(named)?;
    for (sequence, problem) in &judged.doubtful {
        tracing::error!(%shard, sequence, %problem, "a checkpoint that nodes contradict each other about");
    }
    let listed = judged.attested;
    let to = covered(&listed, position.sequence.min(info.state.first_sequence - 1));
    let mut gap = None;
    for listed in listed.iter().filter(|listed| listed.sequence <= to) {
        if listed.sequence > position.sequence {
            // One by which the stream was purged can be read; later messages repeat nothing from before the checkpoint.
            let Some(checkpoint) = bucket.get(shard, position.stream, listed).await.map_err(named)? else {
                gap.get_or_insert(listed.sequence);
                continue;
            };
            if let Some(gap) = gap {
                return Err(named(format!(
                    "parts of the checkpoint at {gap} are not there, and later ones are"
                )));
            }
            let later = checkpoint.position.repeated.into_iter();
            repeats.extend(later.filter(|sequence| *sequence > position.sequence));
        }
    }
    Ok(repeats)
}

/// The buckets, opened when they are first needed.
pub(super) struct Lazy<'a> {
    context: &'a jetstream::Context,
    config: &'a FleetConfig,
    buckets: BTreeMap<u8, Bucket>,
}

impl<'a> Lazy<'a> {
    pub(super) const fn new(context: &'a jetstream::Context, config: &'a FleetConfig) -> Self {
        Self {
            context,
            config,
            buckets: BTreeMap::new(),
        }
    }

    async fn of(&mut self, home: Region) -> Result<&Bucket, String> {
        Ok(match self.buckets.entry(home.0) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(vacant) => vacant.insert(Bucket::open(self.context, self.config, home).await?),
        })
    }

    async fn at(&mut self, shard: ShardId, stream: u64, sequence: u64) -> Result<Option<Attested>, String> {
        self.of(shard.region).await?.attested_at(shard, stream, sequence).await
    }

    async fn get(&mut self, shard: ShardId, stream: u64, attested: &Attested) -> Result<Option<Checkpoint>, String> {
        self.of(shard.region).await?.get(shard, stream, attested).await
    }

    async fn judged(&mut self, shard: ShardId, stream: u64) -> Result<Judged, String> {
        self.of(shard.region).await?.judged(shard, stream).await
    }
}
