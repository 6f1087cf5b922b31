//! Capacity of a fleet, computed from the costs of its parts. No clock, no randomness: the same costs give the same
//! answer.
//!
//! Two questions are answered. [`Machine::appends_per_s`]: how fast are appends when node, client and servers share one
//! machine, as in the benchmark? That is compared with measurements. And [`plan`]: how many nodes, shards and servers
//! does a load need, and which of their limits is met first?
//!
//! ```text
//!   an append costs    the node that took it      take       every other node     follow
//!                      the servers of its shard   servers    for every node       send on
//!                      and, shared by all frames of its batch,                    batch
//! ```
//!
//! Every node folds every message of the fleet: `follow` is paid by each of them, and more nodes do not carry more appends.

/// A kibibyte, a mebibyte and a gibibyte, in bytes.
pub const KIB: f64 = 1_024.0;
/// See [`KIB`].
pub const MIB: f64 = KIB * KIB;
/// See [`KIB`].
pub const GIB: f64 = MIB * KIB;

/// Costs of the parts, for frames of 1 KiB. Times are processor time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// An append, at the node that takes it and folds it, in µs.
    pub take_us: f64,
    /// An append, at all three servers of its shard together, in µs.
    pub servers_us: f64,
    /// A message that the servers send to one more node that follows, in µs.
    pub send_on_us: f64,
    /// A batch, at all three servers and the node together, beside what its frames cost, in µs.
    pub batch_us: f64,
    /// Time from an append to its verdict beside all processor time, in µs: syncs of the servers and of the replica,
    /// one after the other.
    pub round_trip_us: f64,
    /// A message of another node that is folded into the replica, in µs.
    pub follow_us: f64,
    /// Messages a second that one node folds at most, however many processors it has: folding, writing and indexing are a
    /// thread each.
    pub follow_per_s: f64,
    /// An entry that is replayed from the replica, in µs, without sending it.
    pub replay_us: f64,
    /// An append's way from its agent's session and its verdict's way back, at the node, in µs.
    pub session_us: f64,
    /// An entry that is sent to one subscriber, in µs.
    pub send_us: f64,
    /// An append or a delivery at the agent's end of its session, in µs: what a load generator pays.
    pub agent_us: f64,
    /// Keeping one idle agent, a second, in µs: a ping and its answer every 15 seconds.
    pub idle_us_per_s: f64,
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
    take_us: 20.0,
    servers_us: 48.0,
    send_on_us: 12.0,
    batch_us: 2_120.0,
    round_trip_us: 4_000.0,
    follow_us: 7.6,
    follow_per_s: 93_000.0,
    replay_us: 2.2,
    session_us: 18.0,
    send_us: 18.0,
    agent_us: 15.0,
    idle_us_per_s: 2.0,
    batches_per_s: 60.0,
    batch_frames: 512.0,
    node_bytes: 200.0 * MIB,
    agent_bytes: 98.6 * KIB,
    replica_disk: 1.36,
    server_disk: 1.17,
    subject_bytes: 800.0,
};

/// The part of the unanswered frames that is in a batch; the rest is on its way back. Measured: 0.5 to 0.7.
const GATHERED: f64 = 0.6;

/// One machine that node, client and servers share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Its processors.
    pub cores: f64,
    /// Shards that are appended to.
    pub shards: f64,
}

impl Machine {
    /// Processor time of an append in a batch of so many, at node and servers together, in µs.
    pub fn append_us(costs: &Costs, batch: f64) -> f64 {
        costs.take_us + costs.servers_us + costs.batch_us / batch
    }

    /// Messages a second of agents in sessions, each read by so many, when everything is on this machine: agents, nodes and
    /// servers, with batches as large as they get.
    pub fn messages_per_s(&self, costs: &Costs, nodes: f64, readers: f64) -> f64 {
        let log_us = Self::append_us(costs, costs.batch_frames) + (nodes - 1.0) * (costs.send_on_us + costs.follow_us);
        self.cores * 1e6 / (log_us + sessions_us(costs, readers))
    }

    /// Appends a second with so many unanswered. A part of them is on its way back through the replica; the others are what
    /// the shards' next batches are made of. Processors are shared by all batches; waiting for disks is not.
    pub fn appends_per_s(&self, costs: &Costs, in_flight: f64) -> f64 {
        let batch = (in_flight / self.shards * GATHERED).clamp(1.0, costs.batch_frames);
        let worked_us = in_flight * Self::append_us(costs, batch) / self.cores;
        in_flight * 1e6 / (costs.round_trip_us + worked_us)
    }
}

/// Returns the cost of sessions for a message that so many read, at both ends, in µs.
pub fn sessions_us(costs: &Costs, readers: f64) -> f64 {
    costs.session_us + readers * costs.send_us + (1.0 + readers) * costs.agent_us
}

/// Load that agents make.
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
    /// Retention of entries, in seconds.
    pub kept_s: f64,
}

/// Machines of the fleet.
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

/// Machines and resources that a load needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Appends a second, at the busiest time.
    pub appends_per_s: f64,
    /// Relay nodes: those needed, and one more.
    pub nodes: f64,
    /// Reason for their number.
    pub nodes_for: &'static str,
    /// Shards.
    pub shards: f64,
    /// NATS servers.
    pub servers: f64,
    /// Reason for their number.
    pub servers_for: &'static str,
    /// Disk that each node's replica fills, in bytes.
    pub replica_bytes: f64,
    /// Bytes a second that all servers together send to the nodes at the busiest time.
    pub sent_bytes_per_s: f64,
    /// The part of what one node can fold at most that the load is.
    pub folded: f64,
    /// Limits that no number of machines removes; empty if the load fits one fleet.
    pub impossible: Vec<&'static str>,
}

/// Shards are planned so that batches are a quarter full at the busiest time.
const BATCH_FILLED: f64 = 0.25;
/// Shards that a fleet has at least, so that it can grow.
const SHARDS_MIN: f64 = 8.0;

/// Computes the machines and resources that a load needs.
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
    let own_us = appends * ((costs.take_us - costs.follow_us).max(0.0) * size + costs.session_us)
        + appends * load.readers * costs.send_us
        + connected * costs.idle_us_per_s;
    let by_cpu = if left_us > 0.0 { own_us / left_us } else { f64::INFINITY };
    let by_memory = connected * costs.agent_bytes / (machines.node_bytes * machines.used - costs.node_bytes);
    let (needed, nodes_for) = largest(&[(by_memory, "memory"), (by_cpu, "processor"), (2.0, "safety")]);

    let nodes = needed.ceil() + 1.0;

    let shards = (appends / (costs.batches_per_s * costs.batch_frames * BATCH_FILLED)).ceil();
    let shards = power_of_two(shards.max(SHARDS_MIN));
    let subjects = load.channels + load.agents;
    // Each node has a batch of its own in flight for each shard: where there are many of both, batches are small.
    let batches = appends
        .min(shards * nodes * costs.batches_per_s)
        .max(appends / costs.batch_frames);
    let servers_us = appends * (costs.servers_us + (nodes - 1.0) * costs.send_on_us) * size + batches * costs.batch_us;
    let (servers, servers_for) = largest(&[
        (servers_us / (machines.server_cores * machines.used * 1e6), "processor"),
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
        nodes,
        nodes_for,
        shards,
        servers: servers.ceil(),
        servers_for,
        replica_bytes,
        sent_bytes_per_s: appends * nodes * load.frame_bytes,
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

/// Examples in docs/scaling.md: agents, channels, seconds from one append of a channel to the next at the busiest time,
/// and days that entries are kept.
pub const EXAMPLES: [(f64, f64, f64, f64); 6] = [
    (10_000.0, 1_000.0, 100.0, 30.0),
    (100_000.0, 10_000.0, 100.0, 30.0),
    (1_000_000.0, 100_000.0, 100.0, 30.0),
    (10_000_000.0, 1_000_000.0, 100.0, 30.0),
    (10_000_000.0, 1_000_000.0, 100.0, 7.0),
    (10_000_000.0, 1_000_000.0, 10.0, 1.0),
];

impl Load {
    /// One of the examples: a quarter of the agents is connected at the busiest time, each entry goes to three of them, and
    /// the average is a fifth of the busiest time.
    pub fn example((agents, channels, every_s, days): (f64, f64, f64, f64)) -> Self {
        Self {
            agents,
            connected: 0.25,
            channels,
            appends_per_channel_per_s: 1.0 / every_s,
            average: 0.2,
            readers: 3.0,
            frame_bytes: KIB,
            kept_s: days * 86_400.0,
        }
    }
}

/// The table of docs/scaling.md.
pub fn table(costs: &Costs, machines: &Machines) -> String {
    let mut out = String::from(
        "| agents | channels | appends/s | kept, days | nodes | shards | servers | replica on each node | servers send | of what a node folds | fits one fleet |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for example in EXAMPLES {
        let (agents, channels, _, days) = example;
        let plan = plan(costs, machines, &Load::example(example));
        let fits = match plan.impossible[..] {
            [] => "yes".to_owned(),
            ref bounds => format!("**no: {}**", bounds.join(", ")),
        };
        let count = |needed: f64, reason: &str| match needed.is_finite() {
            true => format!("{needed:.0} ({reason})"),
            false => format!("none ({reason})"),
        };
        out.push_str(&format!(
            "| {} | {} | {} | {days} | {} | {} | {} | {} | {} | {:.1} % | {fits} |\n",
            thousands(agents),
            thousands(channels),
            thousands(plan.appends_per_s),
            count(plan.nodes, plan.nodes_for),
            plan.shards,
            count(plan.servers, plan.servers_for),
            bytes(plan.replica_bytes),
            if plan.nodes.is_finite() {
                format!("{:.0} MB/s", plan.sent_bytes_per_s / 1e6)
            } else {
                "-".to_owned()
            },
            plan.folded * 100.0,
        ));
    }
    out
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    groups.join(",")
}

fn bytes(value: f64) -> String {
    if value < 1e12 {
        format!("{:.0} GB", value / 1e9)
    } else {
        format!("{:.1} TB", value / 1e12)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measured by `--bench fleet`: in flight, frames in a batch, µs of processor time an append, and appends a second.
    const MEASURED: [(f64, f64, f64, f64); 3] = [
        (64.0, 11.0, 279.0, 5_583.0),
        (512.0, 66.0, 100.0, 16_726.0),
        (4_096.0, 344.0, 74.0, 26_165.0),
    ];
    /// The raw publisher in the same run, which nothing was fitted to: frames in a batch, and µs an append.
    const MEASURED_RAW: [(f64, f64); 3] = [(16.0, 156.0), (128.0, 55.0), (512.0, 42.0)];
    /// Found by `skytale bench search` with 64 agents in pairs, two of which read each message: nodes of a fleet (0: a node with
    /// a log of its own), and messages a second.
    const SEARCHED: [(f64, f64); 3] = [(0.0, 15_813.0), (1.0, 11_157.0), (3.0, 9_513.0)];
    /// Maximum ratio between the model and a measurement.
    const FACTOR: f64 = 1.3;

    fn assert_near(what: &str, predicted: f64, measured: f64, most: f64) {
        let factor = (predicted / measured).max(measured / predicted);
        assert!(
            factor < most,
            "{what}: {predicted:.0} predicted, {measured:.0} measured"
        );
    }

    #[test]
    fn the_model_reproduces_what_was_measured() {
        let machine = Machine {
            cores: 2.0,
            shards: 4.0,
        };
        for (in_flight, batch, each_us, rate) in MEASURED {
            let what = format!("{in_flight} in flight");
            assert_near(&what, Machine::append_us(&COSTS, batch), each_us, FACTOR);
            assert_near(&what, machine.appends_per_s(&COSTS, in_flight), rate, FACTOR);
        }
    }

    #[test]
    fn the_model_gives_the_rate_at_which_load_was_found_to_hold() {
        let machine = Machine {
            cores: 2.0,
            shards: 8.0,
        };
        for (nodes, rate) in SEARCHED {
            let predicted = match nodes {
                // A log of its own costs less than its sessions are known to.
                0.0 => machine.cores * 1e6 / sessions_us(&COSTS, 2.0),
                nodes => machine.messages_per_s(&COSTS, nodes, 2.0),
            };
            assert_near(&format!("{nodes} nodes"), predicted, rate, FACTOR);
        }
    }

    #[test]
    fn the_cost_of_a_batch_is_that_of_a_publisher_without_a_replica_too() {
        // It has no follower, and its client does next to nothing.
        let raw = Costs {
            take_us: 2.0,
            servers_us: COSTS.servers_us - COSTS.send_on_us,
            ..COSTS
        };
        for (batch, each_us) in MEASURED_RAW {
            assert_near(
                &format!("batches of {batch}"),
                Machine::append_us(&raw, batch),
                each_us,
                FACTOR,
            );
        }
    }

    #[test]
    fn the_table_in_the_documentation_is_what_the_model_computes() {
        let documented = include_str!("../../docs/scaling.md");
        let computed = table(&COSTS, &MACHINES);
        for line in computed.lines() {
            assert!(
                documented.contains(line),
                "docs/scaling.md should have this:\n{computed}"
            );
        }
    }

    #[test]
    fn more_nodes_carry_more_agents_but_no_more_appends() {
        let load = Load::example((1_000_000.0, 100_000.0, 100.0, 1.0));
        let few = plan(&COSTS, &MACHINES, &load);
        let all = plan(&COSTS, &MACHINES, &Load { connected: 1.0, ..load });
        assert!(all.nodes > few.nodes && all.folded == few.folded, "{few:?} {all:?}");
        assert!(few.impossible.is_empty() && all.impossible.is_empty());

        let busy = Load {
            appends_per_channel_per_s: 1.0,
            kept_s: 3_600.0,
            ..load
        };
        assert_eq!(plan(&COSTS, &MACHINES, &busy).impossible, ["fold"]);
        let strong = Machines {
            node_cores: 1_000.0,
            ..MACHINES
        };
        assert_eq!(
            plan(&COSTS, &strong, &busy).impossible,
            ["fold"],
            "no machine is strong enough"
        );
    }

    #[test]
    fn what_is_kept_too_long_does_not_fit_one_disk() {
        let load = Load::example((10_000_000.0, 1_000_000.0, 100.0, 365.0));
        assert_eq!(plan(&COSTS, &MACHINES, &load).impossible, ["disk"]);
        let shorter = Load {
            kept_s: 86_400.0,
            ..load
        };
        assert!(plan(&COSTS, &MACHINES, &shorter).impossible.is_empty());
    }

    #[test]
    fn a_quiet_fleet_has_what_safety_asks_for() {
        let load = Load::example((100.0, 10.0, 100.0, 30.0));
        let plan = plan(&COSTS, &MACHINES, &load);
        assert_eq!((plan.nodes, plan.nodes_for), (3.0, "safety"));
        assert_eq!((plan.servers, plan.servers_for, plan.shards), (3.0, "quorum", 8.0));
    }
}
