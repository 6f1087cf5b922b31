//! How a node without a (new enough) replica begins: with the checkpoint that the stream's first message follows.
//!
//! Entries before the checkpoint are not here. All of them were given up by Trims, which come later in the stream: so the
//! replica is ready only when it has caught up.

use super::bucket::{Bucket, covered};
use super::error::OpenError;
use super::shards::ShardId;
use super::streams::stream_id;
use crate::local::ShardPosition;
use crate::local::replica::Replica;
use async_nats::jetstream;
use async_nats::jetstream::stream::Info;
use std::collections::{BTreeMap, BTreeSet};

/// What a replica needs before it can follow.
pub(super) enum Need {
    /// Nothing.
    Nothing,
    /// To be made anew: a shard of it is older than its stream's beginning, or half a checkpoint was installed.
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
        // Without a checkpoint what is here is all that there is: it is read, and says why it is not followed.
        if behind && matches!(bucket.get(*shard, position.stream, first - 1).await, Ok(Some(_))) {
            tracing::warn!(%shard, position = position.sequence, first, "the replica is too old; it is made anew");
            return Need::Erase;
        }
    }
    Need::Nothing
}

/// Installs checkpoints for the shards that have no position and whose streams do not begin at their beginning. Gives the
/// positions; and of each shard the messages that change nothing.
pub(super) async fn install(
    bucket: &mut Lazy<'_>,
    replica: &Replica,
    shards: &[ShardId],
    positions: &mut BTreeMap<ShardId, ShardPosition>,
    infos: &BTreeMap<ShardId, Info>,
) -> Result<BTreeSet<ShardId>, OpenError> {
    let mut installed = BTreeSet::new();
    for shard in shards {
        let Some(info) = infos.get(shard) else { continue };
        let (first, stream) = (info.state.first_sequence, stream_id(info));
        if first <= 1 || positions.get(shard).is_some_and(|position| position.sequence > 0) {
            continue;
        }
        let named = |problem: String| OpenError::Stream {
            stream: shard.stream(),
            problem,
        };
        let checkpoint = bucket.get(*shard, stream, first - 1).await.map_err(named)?;
        let Some(checkpoint) = checkpoint else {
            return Err(named(format!(
                "it begins at {first}, and there is no checkpoint at {} to begin with",
                first - 1
            )));
        };
        let logs = checkpoint.logs.len();
        let position = ShardPosition {
            repeated_after: checkpoint.position.sequence,
            repeated: Vec::new(),
            ..checkpoint.position
        };
        replica.install(checkpoint.logs, position.clone()).await?;
        tracing::info!(%shard, sequence = position.sequence, logs, "began with a checkpoint");
        positions.insert(*shard, position);
        installed.insert(*shard);
    }
    Ok(installed)
}

/// The messages after a position that are known to repeat entries: from the checkpoints after it.
pub(super) async fn repeats(
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
    let listed = bucket.list(shard, position.stream).await.map_err(named)?;
    let to = covered(&listed, position.sequence.min(info.state.first_sequence - 1));
    for listed in listed.iter().filter(|listed| listed.sequence <= to) {
        if listed.sequence > position.sequence
            && let Some(checkpoint) = bucket
                .get(shard, position.stream, listed.sequence)
                .await
                .map_err(named)?
        {
            let later = checkpoint.position.repeated.into_iter();
            repeats.extend(later.filter(|sequence| *sequence > position.sequence));
        }
    }
    Ok(repeats)
}

/// The bucket, opened when it is first needed.
pub(super) struct Lazy<'a> {
    context: &'a jetstream::Context,
    replicas: usize,
    bucket: Option<Bucket>,
}

impl<'a> Lazy<'a> {
    pub(super) const fn new(context: &'a jetstream::Context, replicas: usize) -> Self {
        Self {
            context,
            replicas,
            bucket: None,
        }
    }

    async fn open(&mut self) -> Result<&Bucket, String> {
        let bucket = match self.bucket.take() {
            Some(bucket) => bucket,
            None => Bucket::open(self.context, self.replicas).await?,
        };
        Ok(self.bucket.insert(bucket))
    }

    async fn get(
        &mut self,
        shard: ShardId,
        stream: u64,
        sequence: u64,
    ) -> Result<Option<super::checkpoint::Checkpoint>, String> {
        self.open().await?.get(shard, stream, sequence).await
    }

    async fn list(&mut self, shard: ShardId, stream: u64) -> Result<Vec<super::bucket::Listed>, String> {
        self.open().await?.list(shard, stream).await
    }
}
