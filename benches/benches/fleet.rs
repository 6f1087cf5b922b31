//! A node of a fleet against JetStream itself, on one real cluster of three NATS servers that sync before they answer.
//!
//! - **append**: frames of 1 KiB to 100 logs over four shards through the fleet's store, answered when this node has
//!   folded and synced them. The limit publishes the same bytes in atomic batches to four streams of the same kind, with as
//!   many bytes unanswered, and is answered when the stream has them. It keeps no replica and gives no verdict.
//! - **replay**: one channel of 100 of a shard, read from the node's replica. The limit is JetStream's own ordered consumer
//!   of that subject, of the same stream.
//! - **join**: an empty node, a process of its own, until it has folded all of a shard. The limit reads the same stream with
//!   an ordered consumer and keeps nothing.
//! - **return**: a thousand readers at once in that process, each with entries of its own to read, against one of them.
//!   Readers are tasks that read from the store: no connection, no token and no encryption has a part in this.
//!
//! Node, client and servers share the machine. Below the table stands what each part cost in processor time, disk and memory.

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use skytale_benches::figures::Figures;
use skytale_benches::frames::{Channel, append_windowed, nobody};
use skytale_benches::nats::{self, Message};
use skytale_benches::process::{Process, disk_bytes};
use skytale_benches::stopwatch::{Stopwatch, Took};
use skytale_benches::versus::{Aim, Bench, Case, Pair, Side, Work, in_turn, median, sized};
use skytale_log_store::LogStore;
use skytale_log_store::cluster::{Account, Cluster};
use skytale_log_store::fleet::{FleetConfig, FleetStore, RegionConfig};
use skytale_proto::{Frame, LogId, Offset, Record, Region, limits};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// An encoded frame, in bytes.
const FRAME_BYTES: usize = 1_024;
const LOGS: usize = 100;
/// Shards that are appended to.
const SHARDS: usize = 4;
/// Appends in flight, frames in one of the limit's batches, and how many appends a turn makes. In each case the limit has as
/// many frames in flight, over all streams.
const WINDOWS: [(usize, usize, usize); 3] = [(64, 16, 8_192), (512, 128, 24_576), (4_096, 512, 32_768)];
/// Appends in flight while a shard is filled.
const FILL_WINDOW: usize = 4_096;
const READERS: usize = 1_000;
/// The role of a child process: its arguments, one a line.
const ROLE: &str = "SKYTALE_BENCH_FLEET_ROLE";

fn main() -> anyhow::Result<()> {
    if let Ok(role) = std::env::var(ROLE) {
        let arguments: Vec<&str> = role.lines().collect();
        return joined(&arguments);
    }
    if !std::env::args().any(|argument| argument == "--bench") {
        // `cargo test --benches` only asks whether it starts.
        return Ok(());
    }
    let mut bench =
        Bench::new("fleet: a node over three NATS servers (R3, sync_interval always), against JetStream itself");
    let figures = Figures::install()?;
    let runtime = Runtime::new()?;
    let cluster = runtime.block_on(Cluster::start());
    let servers = Servers::of(&cluster)?;
    appends(&mut bench, &runtime, &cluster, &servers, &figures)?;
    replays(&mut bench, &runtime, &cluster, &servers)?;
    bench.close();
    Ok(())
}

/// The settings of a node with so many shards and its replica in a folder: otherwise the defaults.
fn settings(account: &Account, folder: &Path, shards: u16) -> FleetConfig {
    let settings = account.settings(folder);
    FleetConfig {
        regions: vec![RegionConfig {
            region: Region(0),
            shards,
            cluster: None,
            tags: Vec::new(),
        }],
        verify_every: Duration::from_secs(10),
        alarm_after: Duration::from_secs(30),
        ..settings
    }
}

async fn node(account: &Account, folder: &Path, shards: u16) -> anyhow::Result<FleetStore> {
    let store = FleetStore::open(settings(account, folder, shards)).await?;
    store.ready().await?;
    Ok(store)
}

/// Channels with their streams: as many on each shard, in turn.
async fn channels(store: &FleetStore, shards: usize) -> anyhow::Result<Vec<Channel>> {
    let mut by_shard = vec![Vec::new(); shards];
    let mut number = 0;
    while by_shard
        .iter()
        .any(|channels: &Vec<Channel>| channels.len() < LOGS / shards)
    {
        let channel = Channel::create(store, nobody(number), &[]).await?;
        number += 1;
        let shard = store.shard_of(&channel.log).context("a shard")?;
        by_shard[usize::from(shard.index)].push(channel);
    }
    let turns = (0..LOGS / shards).flat_map(|turn| by_shard.iter().map(move |channels| channels[turn]));
    Ok(turns.collect())
}

// ---- what the servers cost

/// The processes of the cluster's servers.
struct Servers {
    processes: Vec<Process>,
}

impl Servers {
    fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        let pid_files = (0..cluster.ports.len()).map(|server| cluster.data(server).with_file_name("pid"));
        let processes = pid_files.map(|path| Process::from_pid_file(&path));
        Ok(Self {
            processes: processes.collect::<anyhow::Result<_>>()?,
        })
    }

    /// The processor time of all of them.
    fn cpu(&self) -> Duration {
        self.processes.iter().filter_map(|process| process.cpu().ok()).sum()
    }

    fn resident_mib(&self) -> Vec<u64> {
        let memory = self.processes.iter().filter_map(|process| process.memory().ok());
        memory.map(|memory| memory.resident_kib / 1_024).collect()
    }
}

/// Processor time of one side, summed over its turns.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    node: Duration,
    servers: Duration,
    elements: u64,
}

impl Cost {
    fn add(&mut self, node: Took, servers: Duration, elements: usize) {
        self.node += node.cpu.unwrap_or_default();
        self.servers += servers;
        self.elements += elements as u64;
    }

    fn each_us(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.elements.max(1) as f64
    }
}

// ---- append

fn appends(
    bench: &mut Bench,
    runtime: &Runtime,
    cluster: &Cluster,
    servers: &Servers,
    figures: &Figures,
) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let account = cluster.account();
    let store = runtime.block_on(node(&account, folder.path(), SHARDS as u16))?;
    let logs = runtime.block_on(channels(&store, SHARDS))?;
    let context = runtime.block_on(account.context()).map_err(anyhow::Error::msg)?;
    for shard in 0..SHARDS {
        let (name, subjects) = (format!("RAW_{shard}"), format!("raw.log.0.{shard}.*"));
        runtime.block_on(nats::make_stream(&context, &name, &subjects))?;
    }
    for (window, batch, appends) in WINDOWS {
        let appends = sized(appends, appends / 8);
        let costs = RefCell::new([Cost::default(); 2]);
        let batches = Cell::new((0.0, 0.0));
        let mut turn = |side| {
            let frames = Channel::messages(&logs, appends, FRAME_BYTES).expect("frames within the limits");
            let published = published(figures);
            let raw = raw_messages(&store, &frames);
            let before = servers.cpu();
            let stopwatch = Stopwatch::start();
            match side {
                Side::Ours => runtime.block_on(append_windowed(&store, frames, window)),
                Side::Limit => runtime.block_on(publish_raw(&context, &raw, batch, window / SHARDS / batch)),
            }
            .expect("the cluster takes what is sound");
            let took = stopwatch.took();
            costs.borrow_mut()[side as usize].add(took, servers.cpu() - before, appends);
            let now = self::published(figures);
            let (count, frames) = batches.get();
            batches.set((count + now.0 - published.0, frames + now.1 - published.1));
            took
        };
        let pairs: Vec<Pair> = (0..sized(8, 3)).map(|number| in_turn(number, &mut turn)).collect();
        let case = Case {
            name: format!("fleet append/{window} in flight"),
            work: Work::Elements {
                count: appends as u64,
                bytes: FRAME_BYTES as u64,
            },
            aim: Aim::AtLeast(0.6),
            pairs: pairs.len(),
        };
        bench.add(case, pairs);
        let (batches, frames) = batches.get();
        let [ours, limit] = costs.into_inner();
        bench.note(format!(
            "append, {window} in flight: {:.0} frames a batch, the limit's {batch}; processor time an append: {:.0} µs \
             in the node and {:.0} in the three servers; the limit's: {:.0} and {:.0}",
            frames / f64::max(batches, 1.0),
            ours.each_us(ours.node),
            ours.each_us(ours.servers),
            limit.each_us(limit.node),
            limit.each_us(limit.servers),
        ));
    }
    runtime.block_on(store.close())?;
    Ok(())
}

/// Batches that nodes of this process have published, and frames in them.
fn published(figures: &Figures) -> (f64, f64) {
    let value = |what| figures.value(&format!("skytale_fleet_publish_batch_frames_{what}"));
    (value("count"), value("sum"))
}

/// The frames as messages for streams of the same kind: by shard.
fn raw_messages(store: &FleetStore, frames: &[Frame]) -> Vec<Vec<Message>> {
    let mut raw = vec![Vec::new(); SHARDS];
    for frame in frames {
        let log = frame.header().log;
        let shard = store.shard_of(&log).map_or(0, |shard| usize::from(shard.index));
        raw[shard].push(Message {
            subject: raw_subject(shard, &log),
            payload: frame.encoded().clone(),
        });
    }
    raw
}

/// As long as the subject in the shard's own stream, or nearly.
fn raw_subject(shard: usize, log: &LogId) -> String {
    let hex: String = log.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("raw.log.0.{shard}.{hex}")
}

async fn publish_raw(
    context: &async_nats::jetstream::Context,
    raw: &[Vec<Message>],
    batch: usize,
    in_flight: usize,
) -> anyhow::Result<()> {
    try_join_all(raw.iter().map(|raw| nats::publish(context, raw, batch, in_flight))).await?;
    Ok(())
}

// ---- replay, join, return

fn replays(bench: &mut Bench, runtime: &Runtime, cluster: &Cluster, servers: &Servers) -> anyhow::Result<()> {
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

    joins(bench, runtime, &account, &shard.stream(), &context, &logs, each)?;
    runtime.block_on(store.close())?;
    Ok(())
}

/// Empty nodes that join, one after another, each against a reader of the whole stream.
fn joins(
    bench: &mut Bench,
    runtime: &Runtime,
    account: &Account,
    stream: &str,
    context: &async_nats::jetstream::Context,
    logs: &[Channel],
    each: usize,
) -> anyhow::Result<()> {
    let messages = (each * LOGS + LOGS) as u64;
    let reports = RefCell::new(Vec::new());
    let mut turn = |side| match side {
        Side::Ours => {
            let report = join(account, logs, each).expect("an empty node joins");
            let took = Took::wall(Duration::from_secs_f64(report["join_s"]));
            reports.borrow_mut().push(report);
            took
        }
        Side::Limit => {
            let stopwatch = Stopwatch::start();
            let read = runtime.block_on(nats::read(context, stream, ">", messages));
            assert_eq!(read.expect("the stream serves it").messages, messages);
            Took::wall(stopwatch.took().wall)
        }
    };
    let pairs: Vec<Pair> = (0..sized(4, 2)).map(|number| in_turn(number, &mut turn)).collect();
    bench.add(
        Case {
            name: format!(
                "fleet join/{} MiB in the shard",
                messages as usize * FRAME_BYTES / (1_024 * 1_024)
            ),
            work: Work::Elements {
                count: messages,
                bytes: FRAME_BYTES as u64,
            },
            aim: Aim::None,
            pairs: pairs.len(),
        },
        pairs,
    );
    let reports = reports.into_inner();
    let middle = |name: &str| median(reports.iter().map(|report| report[name]));
    bench.note(format!(
        "join: {:.1} s; processor time a message: {:.1} µs in the node; resident: {:.0} MiB before, {:.0} after, {:.0} at most",
        middle("join_s"),
        middle("join_cpu_s") * 1e6 / messages as f64,
        middle("before_kib") / 1_024.0,
        middle("joined_kib") / 1_024.0,
        middle("join_peak_kib") / 1_024.0,
    ));
    let (one, all) = (middle("one_s"), middle("all_s"));
    let (entries, mib) = (middle("entries"), middle("entries") * FRAME_BYTES as f64 / 1_048_576.0);
    bench.note(format!(
        "return: one reader reads {entries:.0} entries in {:.1} ms, {READERS} at once theirs in {all:.2} s: {:.2} times as long \
         each; {:.0} and {:.0} MiB/s; {:.1} µs of processor time an entry; resident: {:.0} MiB before, {:.0} at most",
        one * 1e3,
        all / (one * READERS as f64),
        mib / one,
        mib * READERS as f64 / all,
        middle("all_cpu_s") * 1e6 / (entries * READERS as f64),
        middle("idle_kib") / 1_024.0,
        middle("all_peak_kib") / 1_024.0,
    ));
    Ok(())
}

/// Lets a process of its own join, and gives what it reports.
fn join(account: &Account, logs: &[Channel], each: usize) -> anyhow::Result<HashMap<String, f64>> {
    let folder = tempfile::tempdir()?;
    let mut role = format!(
        "{}\n{}\n{}\n{}",
        account.user,
        account.servers.join(","),
        folder.path().display(),
        each
    );
    for channel in logs {
        role.push_str(&format!("\n{}", channel.log));
    }
    let output = Command::new(std::env::current_exe()?)
        .env(ROLE, role)
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the child joins");
    let mut report = HashMap::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let (name, value) = line.split_once(' ').context("a name and a value")?;
        report.insert(name.to_owned(), value.parse()?);
    }
    Ok(report)
}

/// The child: an empty node joins, and readers return to it.
#[allow(clippy::print_stdout)]
fn joined(arguments: &[&str]) -> anyhow::Result<()> {
    let [user, servers, folder, each, logs @ ..] = arguments else {
        anyhow::bail!("no such role: {arguments:?}");
    };
    let account = Account {
        user: (*user).to_owned(),
        servers: servers.split(',').map(str::to_owned).collect(),
    };
    let each: u64 = each.parse()?;
    let logs = logs
        .iter()
        .map(|log| Ok(log.parse()?))
        .collect::<anyhow::Result<Vec<LogId>>>()?;
    let (runtime, process) = (Runtime::new()?, Process::this());
    let before = process.memory()?;
    let stopwatch = Stopwatch::start();
    let store = Arc::new(runtime.block_on(node(&account, folder.as_ref(), 1))?);
    let took = stopwatch.took();
    let after = process.memory()?;
    println!("before_kib {}\njoined_kib {}", before.resident_kib, after.resident_kib);
    println!("join_peak_kib {}\njoin_s {}", after.peak_kib, took.wall.as_secs_f64());
    println!("join_cpu_s {}", took.cpu.unwrap_or_default().as_secs_f64());
    for log in &logs {
        ensure!(
            runtime.block_on(check(&store, *log))? == each + 1,
            "all entries are there"
        );
    }

    // As many of the newest entries as each of them missed.
    let entries = each.min(512);
    let after = Offset::new(each + 1 - entries);
    let mut one = Vec::new();
    for log in logs.iter().cycle().take(21) {
        let stopwatch = Stopwatch::start();
        let read = runtime.block_on(runtime.spawn(reader(store.clone(), *log, after)))??;
        one.push(stopwatch.took().wall.as_secs_f64());
        ensure!(read.entries == entries, "one reader reads all it missed");
    }
    process.forget_peak()?;
    let idle = process.memory()?;
    let stopwatch = Stopwatch::start();
    let readers = logs.iter().cycle().take(READERS);
    let readers: Vec<_> = readers
        .map(|log| runtime.spawn(reader(store.clone(), *log, after)))
        .collect();
    for read in runtime.block_on(try_join_all(readers))? {
        ensure!(read?.entries == entries, "each reader reads all it missed");
    }
    let took = stopwatch.took();
    println!("entries {entries}\none_s {}", median(one.into_iter()));
    println!(
        "all_s {}\nall_cpu_s {}",
        took.wall.as_secs_f64(),
        took.cpu.unwrap_or_default().as_secs_f64()
    );
    println!(
        "idle_kib {}\nall_peak_kib {}",
        idle.resident_kib,
        process.memory()?.peak_kib
    );
    runtime.block_on(store.close())?;
    Ok(())
}

async fn reader(store: Arc<FleetStore>, log: LogId, after: Offset) -> anyhow::Result<ReadLog> {
    read_all(&store, log, after).await
}

/// What was read of a log.
#[derive(Clone, Copy, Debug, Default)]
struct ReadLog {
    entries: u64,
    bytes: usize,
}

/// Reads a log from after a cursor to its head, in batches such as a subscription sends. Each is held while others run.
async fn read_all(store: &FleetStore, log: LogId, mut after: Offset) -> anyhow::Result<ReadLog> {
    let mut read = ReadLog::default();
    loop {
        let batch = store.read(log, after, limits::BATCH_BYTES_MAX, u64::MAX).await?;
        tokio::task::yield_now().await;
        read.entries += batch.last.get() - after.get();
        read.bytes += batch.records.iter().map(bytes::Bytes::len).sum::<usize>();
        after = batch.last;
        if batch.last == batch.head {
            ensure!(read.bytes as u64 >= read.entries, "entries have bytes");
            return Ok(read);
        }
    }
}

/// Reads a log and checks every record; gives the number of entries.
async fn check(store: &FleetStore, log: LogId) -> anyhow::Result<u64> {
    let mut after = Offset::ZERO;
    loop {
        let batch = store.read(log, after, limits::BATCH_BYTES_MAX, u64::MAX).await?;
        for records in batch.records {
            for record in Record::decode_batch(records) {
                let record = record?;
                ensure!(record.offset == after.next(), "a gap after {after}");
                after = record.offset;
            }
        }
        if after == batch.head {
            return Ok(after.get());
        }
    }
}
