//! What a fleet carries, computed from what its parts cost. No clock, no randomness: the same costs give the same answer.
//!
//! Two questions are answered. [`Machine::appends_per_s`]: how fast are appends when node, client and servers share one
//! machine, as in the benchmark? That is compared with what was measured. And [`plan`]: how many nodes, shards and servers does
//! a load need, and which of their limits is met first?
//!
//! ```text
//!   an append costs    the node that took it     take        every node, once     follow
//!                      all servers of a shard    server      every batch of it    batch
//! ```
//!
//! Every node folds every message of the fleet: `follow` is paid by each of them, and more nodes do not carry more appends.

/// A kibibyte, a mebibyte and a gibibyte, in bytes.
pub const KIB: f64 = 1_024.0;
/// See [`KIB`].
pub const MIB: f64 = KIB * KIB;
/// See [`KIB`].
pub const GIB: f64 = MIB * KIB;

/// What the parts cost, for frames of 1 KiB. Times are processor time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// An append, at the node that takes it and folds it, in µs.
    pub take_us: f64,
    /// An append, at all three servers of its shard together, in µs.
    pub servers_us: f64,
    /// A batch, at all three servers and the node together, beside what its frames cost, in µs.
    pub batch_us: f64,
    /// A message of another node that is folded into the replica, in µs.
    pub follow_us: f64,
    /// Messages a second that one node folds at most, however many processors it has: folding, writing and indexing are a
    /// thread each.
    pub follow_per_s: f64,
    /// An entry that is replayed from the replica, in µs, without sending it.
    pub replay_us: f64,
    /// An entry that is sent to one subscriber, in µs.
    pub send_us: f64,
    /// Batches a second of one shard: one is in flight.
    pub batches_per_s: f64,
    /// Frames in a batch, at most.
    pub batch_frames: f64,
    /// Memory of a node before the first agent comes, in bytes.
    pub node_bytes: f64,
    /// Memory of an idle agent at its node, in bytes.
    pub agent_bytes: f64,
    /// Disk of a replica for each byte of frames.
    pub replica_disk: f64,
    /// Disk of a server for each byte of frames of the streams that it has a copy of.
    pub server_disk: f64,
    /// Memory of a server for each log whose stream it has a copy of, in bytes.
    pub subject_bytes: f64,
}

/// The costs in docs/scaling.md, which says where each comes from.
pub const COSTS: Costs = Costs {
    take_us: 40.0,
    servers_us: 60.0,
    batch_us: 1_500.0,
    follow_us: 15.0,
    follow_per_s: 25_000.0,
    replay_us: 2.0,
    send_us: 40.0,
    batches_per_s: 40.0,
    batch_frames: 512.0,
    node_bytes: 200.0 * MIB,
    agent_bytes: 98.6 * KIB,
    replica_disk: 1.1,
    server_disk: 1.1,
    subject_bytes: 800.0,
};

/// One machine that node, client and servers share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Its processors.
    pub cores: f64,
    /// Shards that are appended to.
    pub shards: f64,
}

impl Machine {
    /// Appends a second with so many unanswered: all that is waiting for a shard is its next batch, and what a batch and its
    /// frames cost is shared by the processors.
    pub fn appends_per_s(&self, costs: &Costs, in_flight: f64) -> f64 {
        let batch = (in_flight / self.shards).clamp(1.0, costs.batch_frames);
        let each_us = costs.take_us + costs.servers_us + costs.batch_us / batch;
        self.cores * 1e6 / each_us
    }
}

/// What agents do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Agents that are known; each has a log of its own.
    pub agents: f64,
    /// The part of them that is connected at the busiest time.
    pub connected: f64,
    /// Channels.
    pub channels: f64,
    /// Appends to one channel a second, at the busiest time.
    pub appends_per_channel_per_s: f64,
    /// The part of that which is the average over the time that entries are kept.
    pub average: f64,
    /// Members of a channel that are connected and get each entry.
    pub readers: f64,
    /// A frame, in bytes.
    pub frame_bytes: f64,
    /// How long entries are kept, in seconds.
    pub kept_s: f64,
}

/// What the fleet's machines are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machines {
    /// Processors of a relay node.
    pub node_cores: f64,
    /// Memory of a relay node, in bytes.
    pub node_bytes: f64,
    /// Disk of a relay node, in bytes.
    pub node_disk: f64,
    /// Processors of a NATS server.
    pub server_cores: f64,
    /// Memory of a NATS server, in bytes.
    pub server_bytes: f64,
    /// Disk of a NATS server, in bytes.
    pub server_disk: f64,
    /// The part of each that is planned to be used.
    pub used: f64,
}

/// Relay nodes with 8 processors, 32 GiB and 4 TB, servers with 8, 32 GiB and 4 TB, all used by half.
pub const MACHINES: Machines = Machines {
    node_cores: 8.0,
    node_bytes: 32.0 * GIB,
    node_disk: 4e12,
    server_cores: 8.0,
    server_bytes: 32.0 * GIB,
    server_disk: 4e12,
    used: 0.5,
};

/// What a load needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Appends a second, at the busiest time.
    pub appends_per_s: f64,
    /// Relay nodes: what is needed, and one more.
    pub nodes: f64,
    /// What decided their number.
    pub nodes_for: &'static str,
    /// Shards.
    pub shards: f64,
    /// NATS servers.
    pub servers: f64,
    /// What decided their number.
    pub servers_for: &'static str,
    /// Disk that each node's replica fills, in bytes.
    pub replica_bytes: f64,
    /// The part of what one node can fold at most that the load is.
    pub folded: f64,
    /// What no number of machines helps against; empty where the load fits one fleet.
    pub impossible: Vec<&'static str>,
}

/// Shards are planned so that batches are a quarter full at the busiest time.
const BATCH_FILLED: f64 = 0.25;
/// Shards that a fleet has at least, so that it can grow.
const SHARDS_MIN: f64 = 8.0;

/// How much of everything a load needs.
pub fn plan(costs: &Costs, machines: &Machines, load: &Load) -> Plan {
    let appends = load.channels * load.appends_per_channel_per_s;
    let connected = load.agents * load.connected;
    let kept_bytes = appends * load.average * load.kept_s * load.frame_bytes;
    let replica_bytes = kept_bytes * costs.replica_disk;
    let size = load.frame_bytes / KIB;

    let mut impossible = Vec::new();
    let folded = appends / costs.follow_per_s;
    let used_us = machines.node_cores * machines.used * 1e6;
    let left_us = used_us - appends * costs.follow_us * size;
    if folded > machines.used || left_us <= 0.0 {
        impossible.push("fold");
    }
    if replica_bytes > machines.node_disk * machines.used {
        impossible.push("disk");
    }
    let own_us = appends * (costs.take_us - costs.follow_us).max(0.0) * size + appends * load.readers * costs.send_us;
    let by_cpu = if left_us > 0.0 { own_us / left_us } else { f64::INFINITY };
    let by_memory = connected * costs.agent_bytes / (machines.node_bytes * machines.used - costs.node_bytes);
    let (needed, nodes_for) = largest(&[(by_memory, "memory"), (by_cpu, "processor"), (2.0, "safety")]);

    let shards = (appends / (costs.batches_per_s * costs.batch_frames * BATCH_FILLED)).ceil();
    let subjects = load.channels + load.agents;
    let batches_us = appends / (costs.batch_frames * BATCH_FILLED) * costs.batch_us;
    let (servers, servers_for) = largest(&[
        (
            (appends * costs.servers_us * size + batches_us) / (machines.server_cores * machines.used * 1e6),
            "processor",
        ),
        (
            3.0 * subjects * costs.subject_bytes / (machines.server_bytes * machines.used),
            "memory",
        ),
        (
            3.0 * kept_bytes * costs.server_disk / (machines.server_disk * machines.used),
            "disk",
        ),
        (3.0, "quorum"),
    ]);
    Plan {
        appends_per_s: appends,
        nodes: needed.ceil() + 1.0,
        nodes_for,
        shards: power_of_two(shards.max(SHARDS_MIN)),
        servers: servers.ceil(),
        servers_for,
        replica_bytes,
        folded,
        impossible,
    }
}

fn largest(needs: &[(f64, &'static str)]) -> (f64, &'static str) {
    let larger = |a: (f64, &'static str), b: (f64, &'static str)| if b.0 > a.0 { b } else { a };
    needs.iter().copied().fold((0.0, ""), larger)
}

fn power_of_two(least: f64) -> f64 {
    least.log2().ceil().exp2()
}
