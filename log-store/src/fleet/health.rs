//! What a node says of itself to those who watch over it.

use super::shards::ShardId;
use skytale_proto::session::Durability;

/// How a shard's follower is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has not caught up with what the stream held when the node started.
    CatchingUp,
    /// It follows.
    Following,
    /// Its stream does not answer; what was followed is served.
    Unreachable,
    /// It follows no more: see why the store stopped.
    Stopped,
}

/// One shard of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardHealth {
    /// Which.
    pub shard: ShardId,
    /// How it is doing.
    pub phase: Phase,
    /// It has once caught up with what the stream held when the node started.
    pub ready: bool,
    /// The last message folded.
    pub position: u64,
    /// The stream's last message, as far as this node knows.
    pub last: u64,
    /// Copies of the stream that its leader misses, or that are far behind it: in two looks, one after the other.
    pub copies_behind: usize,
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
        }
    }

    /// Messages that this node has not folded yet, as far as it knows.
    pub const fn lag(&self) -> u64 {
        self.last.saturating_sub(self.position)
    }
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// All shards are caught up with what their streams held when the node started, and nothing has stopped.
    pub ready: bool,
    /// Why it takes no appends any more, if it has stopped.
    pub stopped: Option<String>,
    /// Why it follows nothing and takes no appends for now, if its disk is full. It goes on by itself.
    pub full: Option<String>,
    /// What an acknowledgement means.
    pub durability: Durability,
    /// It is connected to a NATS server.
    pub connected: bool,
    /// A shard whose stream could not be checked since the node started, so that no append is taken for it; and why not.
    pub unchecked: Option<(ShardId, String)>,
    /// Its shards.
    pub shards: Vec<ShardHealth>,
    /// Accepted bundles whose Welcomes are not all on their logs.
    pub bundles_owing: usize,
}
