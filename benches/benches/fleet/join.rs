//! An empty node that joins, against a reader of the whole stream.

use crate::LOGS;
use crate::child;
use crate::common::{Servers, channels, node};
use anyhow::Context as _;
use skytale_benches::frames::append_windowed;
use skytale_benches::nats;
use skytale_benches::process::disk_bytes;
use skytale_benches::stopwatch::{Stopwatch, Took};
use skytale_benches::versus::{Aim, Bench, Case, Pair, Side, Work, in_turn, median, sized};
use skytale_log_store::LogStore as _;
use skytale_log_store::cluster::Cluster;
use skytale_proto::LogId;
use std::cell::RefCell;
use std::time::Duration;
use tokio::runtime::Runtime;

const KIB: usize = 1_024;
/// An encoded frame in bytes, how many MiB of them are in the shard, and appends in flight while it is filled.
const SHARDS: [(usize, usize, usize); 2] = [(KIB, 256, 4_096), (16 * KIB, 1_024, 512)];

pub(crate) fn run(bench: &mut Bench, runtime: &Runtime, cluster: &Cluster, servers: &Servers) -> anyhow::Result<()> {
    for (frame, mib, window) in SHARDS {
        let mib = sized(mib, mib / 16);
        one(bench, runtime, cluster, servers, Shard { frame, mib, window })?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Shard {
    frame: usize,
    mib: usize,
    window: usize,
}

fn one(bench: &mut Bench, runtime: &Runtime, cluster: &Cluster, servers: &Servers, shard: Shard) -> anyhow::Result<()> {
    let (folder, account) = (tempfile::tempdir()?, cluster.account());
    let store = runtime.block_on(node(&account, folder.path(), 1))?;
    let logs = runtime.block_on(channels(&store, 1))?;
    let each = shard.mib * KIB * KIB / shard.frame / LOGS;
    let filled = Stopwatch::start();
    let frames = (0..each * LOGS).map_while(|number| logs[number % LOGS].message(shard.frame).ok());
    runtime.block_on(append_windowed(&store, frames, shard.window))?;
    let filled = filled.took().wall.as_secs_f64();
    let stream = store.shard_of(&logs[0].log).context("a shard")?.stream();
    runtime.block_on(store.close())?;
    drop(store);
    let disk = disk_bytes(folder.path())? as f64 / (each * LOGS * shard.frame) as f64;
    let context = runtime.block_on(account.context()).map_err(anyhow::Error::msg)?;

    let logs: Vec<LogId> = logs.iter().map(|channel| channel.log).collect();
    // A Create each, and the messages.
    let entries = each as u64 + 1;
    let messages = entries * LOGS as u64;
    let reports = RefCell::new(Vec::new());
    let mut turn = |side| match side {
        Side::Ours => {
            let report = child::join(&account, &logs, entries).expect("an empty node joins");
            let took = Took::wall(Duration::from_secs_f64(report["join_s"]));
            reports.borrow_mut().push(report);
            took
        }
        Side::Limit => {
            let stopwatch = Stopwatch::start();
            let read = runtime.block_on(nats::read(&context, &stream, ">", messages));
            assert_eq!(read.expect("the stream serves it").messages, messages);
            Took::wall(stopwatch.took().wall)
        }
    };
    let pairs: Vec<Pair> = (0..sized(4, 2)).map(|number| in_turn(number, &mut turn)).collect();
    let name = format!("{} MiB in frames of {} KiB", shard.mib, shard.frame / KIB);
    bench.add(
        Case {
            name: format!("fleet join/{name}"),
            work: Work::Elements {
                count: messages,
                bytes: shard.frame as u64,
            },
            aim: Aim::None,
            pairs: pairs.len(),
        },
        pairs,
    );
    let reports = reports.into_inner();
    let middle = |name: &str| median(reports.iter().map(|report| report[name]));
    bench.note(format!(
        "join, {name}: {:.1} s; processor time a message: {:.1} µs in the node; resident: {:.0} MiB before, {:.0} after, \
         {:.0} at most; the shard was filled in {filled:.0} s; {disk:.2} bytes of the replica for each of frames; \
         resident in the servers: {:?} MiB",
        middle("join_s"),
        middle("cpu_s") * 1e6 / messages as f64,
        middle("before_kib") / 1_024.0,
        middle("joined_kib") / 1_024.0,
        middle("peak_kib") / 1_024.0,
        servers.resident_mib(),
    ));
    // Its streams are in nobody's way any more.
    runtime.block_on(context.delete_stream(&stream))?;
    Ok(())
}
