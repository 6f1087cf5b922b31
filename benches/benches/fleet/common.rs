//! Parts shared by this benchmark: nodes, channels, and the cost of the servers.

use crate::LOGS;
use anyhow::{Context as _, ensure};
use skytale_benches::frames::{Channel, nobody};
use skytale_benches::process::Process;
use skytale_benches::stopwatch::Took;
use skytale_log_store::LogStore as _;
use skytale_log_store::cluster::{Account, Cluster};
use skytale_log_store::fleet::{FleetConfig, FleetStore, RegionConfig};
use skytale_proto::{LogId, Offset, Record, Region, limits};
use std::path::Path;
use std::time::Duration;

/// The settings of a node with so many shards and its replica in a folder: otherwise the defaults.
pub(crate) fn settings(account: &Account, folder: &Path, shards: u16) -> FleetConfig {
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

/// A node that has caught up.
pub(crate) async fn node(account: &Account, folder: &Path, shards: u16) -> anyhow::Result<FleetStore> {
    let store = FleetStore::open(settings(account, folder, shards)).await?;
    store.ready().await?;
    Ok(store)
}

/// Channels with their streams: as many on each shard, in turn.
pub(crate) async fn channels(store: &FleetStore, shards: usize) -> anyhow::Result<Vec<Channel>> {
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

/// The processes of the cluster's servers.
pub(crate) struct Servers {
    processes: Vec<Process>,
}

impl Servers {
    pub(crate) fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        let pid_files = (0..cluster.ports.len()).map(|server| cluster.data(server).with_file_name("pid"));
        let processes = pid_files.map(|path| Process::from_pid_file(&path));
        Ok(Self {
            processes: processes.collect::<anyhow::Result<_>>()?,
        })
    }

    /// The processor time of all of them.
    pub(crate) fn cpu(&self) -> Duration {
        self.processes.iter().filter_map(|process| process.cpu().ok()).sum()
    }

    pub(crate) fn resident_mib(&self) -> Vec<u64> {
        let memory = self.processes.iter().filter_map(|process| process.memory().ok());
        memory.map(|memory| memory.resident_kib / 1_024).collect()
    }
}

/// Processor time of one side, summed over its turns.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) node: Duration,
    pub(crate) servers: Duration,
    pub(crate) elements: u64,
}

impl Cost {
    pub(crate) fn add(&mut self, node: Took, servers: Duration, elements: usize) {
        self.node += node.cpu.unwrap_or_default();
        self.servers += servers;
        self.elements += elements as u64;
    }

    pub(crate) fn each_us(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.elements.max(1) as f64
    }
}

// ---- reading

/// Entries read from a log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadLog {
    pub(crate) entries: u64,
    pub(crate) bytes: usize,
}

/// Reads a log from after a cursor to its head, in batches such as a subscription sends. Each is held while others run.
pub(crate) async fn read_all(store: &FleetStore, log: LogId, mut after: Offset) -> anyhow::Result<ReadLog> {
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
pub(crate) async fn check(store: &FleetStore, log: LogId) -> anyhow::Result<u64> {
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
