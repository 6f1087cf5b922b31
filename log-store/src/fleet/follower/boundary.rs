//! Work of a shard at the place of a checkpoint: it vouches for its own state, unless enough nodes vouch for one
//! already.
//!
//! ```text
//!   every node      at the same message   state ──> bytes ──> hash     the same on all that folded the same
//!   some of them    vouch for the hash, and see to it that the bytes are in the bucket (`vouching.rs`)
//! ```
//!
//! The bucket's contents move no node that has folded the messages itself. If others contradict it, it says so; it
//! stops only if as many known nodes as a new one would believe have seen other *messages* than it has.

use super::intake::outcome_of;
use super::{End, Follower};
use crate::fleet::bucket::Bucket;
use crate::fleet::chain::message_hash;
use crate::fleet::checkpoint::Checkpoint;
use crate::fleet::guard::Contradiction;
use crate::fleet::mark::Mark;
use crate::fleet::sweeper::random_fraction;
use crate::fleet::vouching;
use crate::local::ShardPosition;
use std::time::Duration;

/// Maximum time for which a shard stalls for a checkpoint.
const CHECKPOINT_WITHIN: Duration = Duration::from_secs(20);
/// Maximum random delay before a node vouches, so that nodes wait for each other.
const CHECKPOINT_JITTER: Duration = Duration::from_millis(300);

impl Follower<'_> {
    /// Whether the position is the place of a checkpoint that this node has not dealt with: it ended there.
    pub(super) fn owes_boundary(&self) -> bool {
        let position = &self.position;
        if position.sequence == 0 || position.repeated_after >= position.sequence {
            return false;
        }
        let mark = Mark::Checkpoint.subject(self.shard.id);
        position.sequence.is_multiple_of(self.node.config.checkpoint_every)
            || position.message == message_hash(&mark, b"")
    }

    /// The stream has come to the place of a checkpoint.
    pub(super) async fn boundary(&mut self) -> Result<(), End> {
        while !self.parts.is_empty() {
            let outcome = outcome_of(&mut self.parts).await;
            self.folded(outcome)?;
        }
        // No matter what becomes of this checkpoint: the facts in the next one begin here, on all nodes alike.
        let mut repeated = std::mem::take(&mut self.repeated);
        repeated.sort_unstable();
        repeated.dedup();
        let here = ShardPosition {
            repeated,
            owed_from: self.position.sequence + 1,
            ..self.position.clone()
        };
        self.position.repeated_after = self.position.sequence;
        if !self.answers {
            // Its bucket is where the stream is.
            tracing::debug!(shard = %self.shard.label, sequence = here.sequence, "no checkpoint here: its home is away");
            return Ok(());
        }
        let sequence = here.sequence;
        match tokio::time::timeout(CHECKPOINT_WITHIN, self.checkpoint(here)).await {
            Ok(Ok(Some(contradiction))) => return Err(End::Stop(contradiction)),
            Ok(Ok(None)) => {}
            Ok(Err(problem)) => self.no_checkpoint(sequence, &problem),
            Err(_) => self.no_checkpoint(sequence, "it took too long"),
        }
        Ok(())
    }

    fn no_checkpoint(&mut self, sequence: u64, problem: &str) {
        tracing::warn!(shard = %self.shard.label, sequence, %problem, "this node vouches for no checkpoint here");
        // Until the home is known to answer, no other is waited for.
        self.silent();
        self.shard.look.notify_one();
    }

    /// Vouches for what this node has folded, unless enough others do. All that was submitted is durable.
    async fn checkpoint(&self, here: ShardPosition) -> Result<Option<Contradiction>, String> {
        let (node, id) = (self.node, self.shard.id);
        if node.config.signer.is_none() {
            return Ok(None);
        }
        if !node.is_first_to_vouch(id, here.sequence) {
            tokio::time::sleep(CHECKPOINT_JITTER.mul_f64(random_fraction())).await;
            let looked = async {
                let bucket = Bucket::open(&node.context, &node.config, id.region).await?;
                bucket.attested_at(id, here.stream, here.sequence).await
            };
            let looked = tokio::time::timeout(node.config.request_timeout, looked).await;
            let attested = looked.unwrap_or_else(|_| Err("its bucket does not answer".into()))?;
            if let Some(attested) = attested {
                return Ok((attested.object.chain != here.chain).then(|| Contradiction::Diverged {
                    stream: id.stream(),
                    sequence: here.sequence,
                }));
            }
        }
        let shards = node.shards.clone();
        let logs = node.replica.snapshots(move |log| shards.of(log) == Some(id)).await;
        let checkpoint = Checkpoint {
            position: here,
            logs: logs.map_err(|error| error.to_string())?,
        };
        vouching::begin(node, self.shard, &checkpoint);
        Ok(None)
    }
}
