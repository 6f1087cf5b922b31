//! Puts a node's word for a checkpoint, and the checkpoint's bytes, into the bucket: beside the shard, which goes on.
//! And reports states that others vouch for and this node has folded differently.

use super::bucket::Bucket;
use super::checkpoint::Checkpoint;
use super::config::FleetConfig;
use super::guard::Contradiction;
use super::metrics;
use super::node::{Node, Shard};
use super::shards::ShardId;
use super::signer::Signer;
use super::vouch::{Object, Vouch};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Checkpoints of one shard on their way, at most: while the bucket does not answer, memory has a bound.
const UNDER_WAY_MAX: usize = 4;
/// The pause before the bucket is tried again, to begin with.
const AGAIN_FIRST: Duration = Duration::from_millis(500);
/// The longest such pause.
const AGAIN_MAX: Duration = Duration::from_secs(15);
/// Number of times that it is tried.
const TRIES: usize = 20;
/// Doubtful checkpoints that are remembered, at most.
const DOUBTS_MAX: usize = 64;

/// Reason why this node's vouching does not count, or nobody's does.
pub(super) fn problem(config: &FleetConfig) -> Option<String> {
    let names = match config.known_nodes.read() {
        Ok(names) => names,
        Err(problem) => return Some(format!("no checkpoint can be believed: {problem}")),
    };
    if names.is_empty() {
        return Some(
            "no checkpoint can be believed, and nothing is given up: relay.fleet.nodes_file names no nodes".to_owned(),
        );
    }
    match &config.signer {
        None => Some("this node vouches for no checkpoint: relay.fleet.checkpoint_key is not set".to_owned()),
        Some(signer) if !names.contains_key(signer.public()) => Some(
            "this node's word for checkpoints does not count: relay.fleet.nodes_file does not name the key in \
             relay.fleet.checkpoint_key"
                .to_owned(),
        ),
        Some(_) => None,
    }
}

/// Begins to vouch for a checkpoint.
pub(super) fn begin(node: &Arc<Node>, shard: &Shard, checkpoint: &Checkpoint) {
    let Some(signer) = node.config.signer.clone() else {
        return;
    };
    let position = &checkpoint.position;
    if shard.vouching.fetch_add(1, Ordering::AcqRel) >= UNDER_WAY_MAX {
        shard.vouching.fetch_sub(1, Ordering::AcqRel);
        tracing::warn!(shard = %shard.label, sequence = position.sequence, "no word for this checkpoint: the bucket does not answer");
        return;
    }
    let bytes = checkpoint.encode();
    let vouch = Vouch {
        shard: position.shard,
        stream: position.stream,
        sequence: position.sequence,
        time_ms: position.time_ms.max(node.fleet_now_ms().unwrap_or_default()),
        object: Object::of(&bytes, position.chain, position.repeated_after),
    };
    let (node, id) = (node.clone(), shard.id);
    node.tasks.clone().spawn(async move {
        tokio::select! {
            () = node.vouch(id, &vouch, &bytes, &signer) => {}
            () = node.ended.cancelled() => {}
        }
        if let Some(shard) = node.handles.get(&id) {
            shard.vouching.fetch_sub(1, Ordering::AcqRel);
        }
    });
}

impl Node {
    /// Whether this node is one of those that vouch without looking whether others do: as many as are needed, others at
    /// each checkpoint.
    pub(super) fn is_first_to_vouch(&self, shard: ShardId, sequence: u64) -> bool {
        let Some(signer) = &self.config.signer else {
            return false;
        };
        let names = self.config.known_nodes.read().unwrap_or_default();
        let place = |key: &str| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&shard.number().to_le_bytes());
            hasher.update(&sequence.to_le_bytes());
            hasher.update(key.as_bytes());
            *hasher.finalize().as_bytes()
        };
        let mine = place(signer.public());
        names.keys().filter(|key| place(key) < mine).count() < self.config.witnesses
    }

    async fn vouch(&self, id: ShardId, vouch: &Vouch, bytes: &Bytes, signer: &Signer) {
        let mut pause = AGAIN_FIRST;
        let (mut said, mut put) = (false, false);
        for _ in 0..TRIES {
            match self.vouch_once(id, vouch, bytes, signer, &mut said, &mut put).await {
                Ok(()) => return,
                Err(problem) => {
                    tracing::debug!(shard = %id, sequence = vouch.sequence, %problem, "the checkpoint is tried again");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(AGAIN_MAX);
        }
        tracing::warn!(shard = %id, sequence = vouch.sequence, "no word for this checkpoint: the bucket did not take it");
    }

    async fn vouch_once(
        &self,
        id: ShardId,
        vouch: &Vouch,
        bytes: &Bytes,
        signer: &Signer,
        said: &mut bool,
        put: &mut bool,
    ) -> Result<(), String> {
        let bucket = Bucket::open(&self.context, &self.config, id.region).await?;
        // The word comes last: what a node vouches for can be read.
        if !*put {
            bucket.put(id, vouch, bytes).await?;
            *put = true;
        }
        if !*said {
            bucket.say(id, vouch, signer).await?;
            *said = true;
            metrics::checkpoint_written(&id.to_string());
        }
        let judged = bucket.judged_at(id, vouch.stream, vouch.sequence).await?;
        self.doubt(id, judged.doubtful);
        if let Some(attested) = judged.attested.first()
            && attested.object != vouch.object
        {
            let nodes: Vec<String> = attested.nodes.iter().cloned().collect();
            let nodes = nodes.join(", ");
            if attested.object.chain != vouch.object.chain {
                if let Some(shard) = self.handles.get(&id) {
                    let diverged = Contradiction::Diverged {
                        stream: id.stream(),
                        sequence: vouch.sequence,
                    };
                    self.stop(shard, &diverged);
                }
                return Ok(());
            }
            tracing::error!(shard = %id, sequence = vouch.sequence, %nodes, "other nodes vouch for another state than this one has");
            let problem = format!("{nodes} vouch for another state than this node has folded from the same messages");
            self.doubt(id, BTreeMap::from([(vouch.sequence, problem)]));
        }
        Ok(())
    }

    /// Notes checkpoints that nodes contradict each other about.
    pub(super) fn doubt(&self, id: ShardId, doubtful: BTreeMap<u64, String>) {
        let mut doubts = self.doubts.lock();
        for (sequence, problem) in doubtful {
            if doubts
                .insert((id, sequence), problem.clone())
                .is_none_or(|before| before != problem)
            {
                tracing::error!(shard = %id, sequence, %problem, "a forged checkpoint, or a node that has folded something else");
            }
        }
        while doubts.len() > DOUBTS_MAX {
            doubts.pop_first();
        }
    }

    /// Forgets doubts about checkpoints that are gone: those up to a sequence.
    pub(super) fn settle_doubts(&self, id: ShardId, up_to: u64) {
        self.doubts
            .lock()
            .retain(|(shard, sequence), _| *shard != id || *sequence > up_to);
    }
}
