//! A node of a fleet against JetStream itself, on real clusters of three NATS servers that sync before they answer.
//!
//! Each part is a mode of its own: `cargo bench -p skytale-benches --bench fleet -- append join`. Without a mode, all of them.
//!
//! - **append**: frames of 1 KiB to 100 logs over four shards through the fleet's store, answered when this node has
//!   folded and written them. The limit publishes the same bytes in atomic batches to four streams of the same kind, with as
//!   many bytes unanswered, and is answered when the stream has them. It keeps no replica and gives no verdict.
//! - **batches**: what bare atomic batches do by their size, by how many are in flight, and with message ids.
//! - **replay**: one channel of 100 of a shard, read from the node's replica. The limit is JetStream's own ordered consumer
//!   of that subject, of the same stream.
//! - **return**: a thousand agents that come back at once to a relay node in a process of its own, each over a QUIC connection
//!   of its own, with entries of its own to read; against one of them.
//! - **join**: an empty node, a process of its own, until it has folded all of a shard of 1 GiB. The limit reads the same stream
//!   with an ordered consumer and keeps nothing.
//! - **outage**: how long nothing is acknowledged when a server dies or is taken away. The limit is a bare publisher to the
//!   same stream that tries every 100 ms.
//!
//! Node, client and servers share the machine. Below the tables is what each part cost in processor time, disk and memory.

mod append;
mod batches;
mod child;
mod common;
mod join;
mod outage;
mod replay;
mod returning;

use anyhow::ensure;
use common::Servers;
use skytale_benches::figures::Figures;
use skytale_benches::versus::Bench;
use skytale_log_store::cluster::Cluster;
use tokio::runtime::Runtime;

/// An encoded frame, in bytes.
const FRAME_BYTES: usize = 1_024;
const LOGS: usize = 100;
/// All parts, in the order in which they run.
const MODES: [&str; 6] = ["append", "batches", "replay", "return", "join", "outage"];

fn main() -> anyhow::Result<()> {
    if let Ok(role) = std::env::var(child::ROLE) {
        let arguments: Vec<&str> = role.lines().collect();
        return child::play(&arguments);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        // `cargo test --benches` only asks whether it starts.
        return Ok(());
    }
    let named: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    for mode in &named {
        ensure!(MODES.contains(mode), "no such mode: {mode}; there are {MODES:?}");
    }
    let wanted = |mode: &&str| named.is_empty() || named.contains(mode);

    let figures = Figures::install()?;
    let runtime = Runtime::new()?;
    for mode in MODES.into_iter().filter(wanted) {
        // Each part has servers of its own: none pays for what another left behind.
        let cluster = runtime.block_on(Cluster::start());
        let servers = Servers::of(&cluster)?;
        let title = format!(
            "fleet {mode}: a node over three NATS servers (R3, sync_interval always), against JetStream itself"
        );
        let mut bench = Bench::tabled(title);
        match mode {
            "append" => append::run(&mut bench, &runtime, &cluster, &servers, &figures)?,
            "batches" => batches::run(&mut bench, &runtime, &cluster)?,
            "replay" => replay::run(&mut bench, &runtime, &cluster, &servers)?,
            "return" => returning::run(&mut bench, &runtime, &cluster)?,
            "join" => join::run(&mut bench, &runtime, &cluster, &servers)?,
            _ => outage::run(&mut bench, &runtime, &cluster)?,
        }
        bench.close();
    }
    Ok(())
}
