//! What a shard does at the place of a checkpoint: it compares with the one that is there, or writes it.

use super::intake::outcome_of;
use super::{End, Follower};
use crate::fleet::asking::{self, AGAIN_AFTER};
use crate::fleet::bucket::{Bucket, shown};
use crate::fleet::checkpoint::Checkpoint;
use crate::fleet::guard::Contradiction;
use crate::fleet::metrics;
use crate::fleet::sweeper::random_fraction;
use crate::local::ShardPosition;
use std::time::Duration;

/// How long a shard stalls for a checkpoint, at most.
const CHECKPOINT_WITHIN: Duration = Duration::from_secs(20);
/// How long nodes wait for each other to write one.
const CHECKPOINT_JITTER: Duration = Duration::from_millis(300);

impl Follower<'_> {
    /// The stream has come to the place of a checkpoint.
    pub(super) async fn boundary(&mut self) -> Result<(), End> {
        while !self.parts.is_empty() {
            let outcome = outcome_of(&mut self.parts).await;
            self.folded(outcome)?;
        }
        if !self.answers {
            // Its bucket is where the stream is. The next checkpoint says what this one would have said.
            tracing::debug!(shard = %self.shard.label, sequence = self.position.sequence, "no checkpoint here: its home is away");
            return Ok(());
        }
        let checkpoint = tokio::time::timeout(CHECKPOINT_WITHIN, self.checkpoint()).await;
        match checkpoint.unwrap_or_else(|_| Err("it took too long".into())) {
            Ok(Some(contradiction)) => return Err(End::Stop(contradiction)),
            Ok(None) => {
                self.repeated.clear();
                self.position.repeated_after = self.position.sequence;
            }
            // The next one says what this one would have said.
            Err(problem) => {
                tracing::warn!(shard = %self.shard.label, sequence = self.position.sequence, %problem, "no checkpoint here");
                // Until the home is known to answer, no other is waited for.
                self.silent();
                self.shard.look.notify_one();
            }
        }
        Ok(())
    }

    /// Compares with the checkpoint that is there, or writes it. All that was submitted is durable.
    async fn checkpoint(&self) -> Result<Option<Contradiction>, String> {
        let (node, home) = (self.node, self.shard.id.region);
        // The server that led the bucket may be gone, with or without the one that led the stream. Where all are, the shard
        // stalls for no longer than one question takes.
        let within = node.config.request_timeout;
        let open = || Bucket::open(&node.context, &node.config, home);
        let bucket = asking::again(AGAIN_AFTER, within, Result::is_ok, open).await?;
        let look = || bucket.chain_at(self.shard.id, &self.position);
        let mine = shown(&self.position.chain);
        let mut found = asking::again(AGAIN_AFTER, within, Result::is_ok, look).await?;
        if found.is_none() {
            // One node writes it, whichever is first.
            tokio::time::sleep(CHECKPOINT_JITTER.mul_f64(random_fraction())).await;
            found = asking::again(AGAIN_AFTER, within, Result::is_ok, look).await?;
        }
        if let Some(found) = found {
            return Ok((found != mine).then(|| Contradiction::Diverged {
                stream: self.shard.id.stream(),
                sequence: self.position.sequence,
            }));
        }
        let (shards, id) = (self.node.shards.clone(), self.shard.id);
        let logs = self.node.replica.snapshots(move |log| shards.of(log) == Some(id)).await;
        let mut repeated = self.repeated.clone();
        repeated.sort_unstable();
        let checkpoint = Checkpoint {
            position: ShardPosition {
                repeated,
                ..self.position.clone()
            },
            logs: logs.map_err(|error| error.to_string())?,
        };
        let now_ms = self.node.fleet_now_ms().unwrap_or_default();
        bucket.put(self.shard.id, &checkpoint, now_ms).await?;
        metrics::checkpoint_written(&self.shard.label);
        Ok(None)
    }
}
