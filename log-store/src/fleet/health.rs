//! Health that a node reports to those who watch over it.

use super::node::Node;
use super::shards::ShardId;
use skytale_proto::session::Durability;

/// State of a shard's follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has not caught up with what the stream held when the node started.
    CatchingUp,
    /// It follows.
    Following,
    /// Its stream does not answer; the followed entries are served.
    Unreachable,
    /// Its stream contradicts the replica: it is served as far as it was followed, and no appends are taken for it.
    Halted,
    /// It follows no more: see why the store stopped.
    Stopped,
}

/// One shard of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardHealth {
    /// The shard.
    pub shard: ShardId,
    /// Its state.
    pub phase: Phase,
    /// It has once caught up with what the stream held when the node started.
    pub ready: bool,
    /// The last message folded.
    pub position: u64,
    /// The stream's last message, as far as this node knows.
    pub last: u64,
    /// Copies of the stream that its leader misses, or that are far behind it: in two looks, one after the other.
    pub copies_behind: usize,
    /// Its stream begins with a message that is far older than the retention.
    pub unpurged: bool,
}

impl ShardHealth {
    pub(super) const fn new(shard: ShardId, position: u64) -> Self {
        Self {
            shard,
            phase: Phase::CatchingUp,
            ready: false,
            position,
            last: position,
            copies_behind: 0,
            unpurged: false,
        }
    }

    /// Messages that this node has not folded yet, as far as it knows.
    pub const fn lag(&self) -> u64 {
        self.last.saturating_sub(self.position)
    }
}

/// A shard whose stream contradicts the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HaltedShard {
    /// The shard.
    pub shard: ShardId,
    /// The contradiction.
    pub reason: String,
    /// Another node has followed it further than this one: it serves more.
    pub others_have_more: bool,
}

/// Knowledge of a node about its own clock and others'.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClockHealth {
    /// More than half of the clocks of nodes and NATS servers agree with each other, and not with this node's: how far it is
    /// ahead of them, in milliseconds.
    pub wrong_by_ms: Option<i64>,
    /// NATS servers whose clocks do not agree with the fleet's time, and how far each is ahead of it, in milliseconds.
    pub wrong_servers: Vec<(String, i64)>,
}

impl ClockHealth {
    pub(super) fn of(node: &Node) -> Self {
        let Some(judged) = node.clocks.lock().clone() else {
            return Self::default();
        };
        Self {
            wrong_by_ms: judged.is_wrong.then(|| judged.ahead_ms.saturating_neg()),
            wrong_servers: judged.wrong_servers,
        }
    }
}

impl Node {
    pub(super) fn doubtful(&self) -> Vec<(ShardId, u64, String)> {
        let doubts = self.doubts.lock();
        let doubts = doubts
            .iter()
            .map(|((shard, sequence), problem)| (*shard, *sequence, problem.clone()));
        doubts.collect()
    }

    pub(super) fn halted(&self) -> Vec<HaltedShard> {
        let halted = self.handles.values().filter_map(|shard| {
            let (phase, place) = (shard.health.lock().phase, *shard.place.lock());
            (phase == Phase::Halted).then(|| HaltedShard {
                shard: shard.id,
                reason: shard.why_unchecked().unwrap_or_default(),
                others_have_more: self
                    .peers
                    .furthest(shard.id, place.stream)
                    .is_some_and(|furthest| furthest > place.sequence),
            })
        });
        halted.collect()
    }
}

/// Health of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// All shards are caught up with what their streams held when the node started, and nothing has stopped.
    pub ready: bool,
    /// Reason why it takes no appends any more, if it has stopped.
    pub stopped: Option<String>,
    /// Reason why it follows nothing and takes no appends for now, if its disk is full. It goes on by itself.
    pub full: Option<String>,
    /// Meaning of an acknowledgement.
    pub durability: Durability,
    /// NATS servers of which it is not known whether they sync before they acknowledge, and why not. A majority of each
    /// stream's servers is known to.
    pub unread: Vec<String>,
    /// State of the clocks.
    pub clocks: ClockHealth,
    /// Shards whose streams contradict the replica.
    pub halted: Vec<HaltedShard>,
    /// Checkpoints that nodes contradict each other about: which shard, where, and how.
    pub doubtful: Vec<(ShardId, u64, String)>,
    /// Rights of this node's NATS key that differ from those that it must have.
    pub rights: Vec<String>,
    /// It is connected to a NATS server.
    pub connected: bool,
    /// A shard whose stream could not be checked since the node started, so that no append is taken for it; and why not.
    pub unchecked: Option<(ShardId, String)>,
    /// Its shards.
    pub shards: Vec<ShardHealth>,
    /// Accepted bundles whose Welcomes are not all on their logs.
    pub bundles_owing: usize,
}
