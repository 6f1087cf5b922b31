//! One channel of a hundred, from a node's replica and by JetStream's own consumer.

use crate::common::{Cost, Servers, channels, node, read_all};
use crate::{FRAME_BYTES, LOGS};
use anyhow::Context as _;
use skytale_benches::frames::append_windowed;
use skytale_benches::nats;
use skytale_benches::process::disk_bytes;
use skytale_benches::stopwatch::Stopwatch;
use skytale_benches::versus::{Aim, Bench, Case, Pair, Side, Work, in_turn, sized};
use skytale_log_store::LogStore as _;
use skytale_log_store::cluster::Cluster;
use skytale_proto::Offset;
use std::cell::RefCell;
use tokio::runtime::Runtime;

/// Appends in flight while the shard is filled.
const FILL_WINDOW: usize = 4_096;

pub(crate) fn run(bench: &mut Bench, runtime: &Runtime, cluster: &Cluster, servers: &Servers) -> anyhow::Result<()> {
    let (folder, account) = (tempfile::tempdir()?, cluster.account());
    let disk = |server: usize| disk_bytes(&cluster.data(server)).unwrap_or_default();
    let before: Vec<u64> = (0..cluster.ports.len()).map(disk).collect();
    let store = runtime.block_on(node(&account, folder.path(), 1))?;
    let logs = runtime.block_on(channels(&store, 1))?;
    let mib = sized(256, 24);
    let each = mib * 1_024 * 1_024 / FRAME_BYTES / LOGS;
    let frames = (0..each * LOGS).map_while(|number| logs[number % LOGS].message(FRAME_BYTES).ok());
    runtime.block_on(append_windowed(&store, frames, FILL_WINDOW))?;
    let context = runtime.block_on(account.context()).map_err(anyhow::Error::msg)?;
    let shard = store.shard_of(&logs[0].log).context("a shard")?;

    let payload = (each * LOGS * FRAME_BYTES) as f64;
    let grown = (0..cluster.ports.len()).map(|server| (disk(server).saturating_sub(before[server])) as f64 / payload);
    let grown: Vec<String> = grown.map(|bytes| format!("{bytes:.2}")).collect();
    bench.note(format!(
        "disk bytes per byte of frames: {:.2} in the replica, {} in the servers; resident in the servers: {:?} MiB",
        disk_bytes(folder.path())? as f64 / payload,
        grown.join(", "),
        servers.resident_mib()
    ));

    let cost = RefCell::new([Cost::default(); 2]);
    let mut turn = |side| {
        // Another channel each time: no turn finds what an earlier one left in memory.
        let number = cost.borrow()[side as usize].elements as usize / each;
        let log = logs[number % LOGS].log;
        let (stopwatch, before) = (Stopwatch::start(), servers.cpu());
        match side {
            Side::Ours => {
                let read = runtime.block_on(read_all(&store, log, Offset::FIRST));
                assert_eq!(read.expect("the replica serves it").entries, each as u64);
            }
            Side::Limit => {
                let (stream, subject) = (shard.stream(), shard.subject(&log));
                let read = nats::read(&context, &stream, &subject, each as u64 + 1);
                let read = runtime.block_on(read).expect("the stream serves it");
                assert!(read.bytes > (each * FRAME_BYTES) as u64);
            }
        }
        let took = stopwatch.took();
        cost.borrow_mut()[side as usize].add(took, servers.cpu() - before, each);
        took
    };
    let pairs: Vec<Pair> = (0..sized(12, 4)).map(|number| in_turn(number, &mut turn)).collect();
    bench.add(
        Case {
            name: "fleet replay/1 channel of 100".into(),
            work: Work::Elements {
                count: each as u64,
                bytes: FRAME_BYTES as u64,
            },
            aim: Aim::AtLeast(10.0),
            pairs: pairs.len(),
        },
        pairs,
    );
    let [ours, limit] = cost.into_inner();
    bench.note(format!(
        "replay: processor time an entry: {:.1} µs in the node; the limit's: {:.1} in the client and {:.1} in the servers",
        ours.each_us(ours.node),
        limit.each_us(limit.node),
        limit.each_us(limit.servers),
    ));
    runtime.block_on(store.close())?;
    Ok(())
}
