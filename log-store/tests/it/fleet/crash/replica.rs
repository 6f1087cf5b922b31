//! The machine of a node crashes: its replica is cut off at the first damage, and goes on to what the others have.

use super::super::cluster::{Account, Cluster};
use super::super::script::*;
use super::disk::Disk;
use super::load::{History, Load, kept, the_same};
use super::node::NodeProcess;
use super::{config, random, random_ms};
use crate::local::script::{copy_folder, frame, segments};
use skytale_log_store::fleet::FleetConfig;
use skytale_log_store::local::replica::Replica;
use skytale_log_store::{FleetStore, LogStore as _};
use skytale_proto::{ChannelId, Detail, LogId};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Authors at the node that does not crash.
const AUTHORS: usize = 4;
/// Disks made of each that crashed, with more of it missing.
const DAMAGED: u32 = 2;
/// Channels with a large roster: a checkpoint of them is installed in parts.
const LARGE: usize = 40;
const LARGE_ROSTER: usize = 2_000;
const RETENTION: Duration = Duration::from_secs(1);
/// Waiting for longer is hanging.
const HANGING: Duration = Duration::from_secs(90);

/// A replica as a crash left it.
struct Left {
    /// Messages folded, of all shards.
    messages: u64,
    segments: usize,
    half_installed: bool,
}

/// What opening a replica's folder finds in it: of a copy, so that nothing is mended.
async fn left(folder: &Path, outside: &Path) -> Left {
    let copy = TempDir::new_in(outside).expect("a folder");
    if folder.is_dir() {
        copy_folder(folder, copy.path());
    }
    let segments = fs::read_dir(copy.path().join("segments")).map_or(0, Iterator::count);
    let local = config("replica", &nobody(), copy.path()).local;
    let (replica, positions) = Replica::open(local).await.expect("the replica opens");
    replica.close().await.expect("closed");
    Left {
        messages: positions.iter().map(|position| position.sequence).sum(),
        segments,
        half_installed: positions.iter().any(Replica::is_half_installed),
    }
}

fn nobody() -> Account {
    Account {
        user: String::new(),
        servers: Vec::new(),
    }
}

/// Takes pages and sectors out of a replica's last segment: a crash may take any of it.
fn take_pages(folder: &Path) {
    let Some(path) = segments(folder).pop() else { return };
    let mut bytes = fs::read(&path).expect("read");
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for _ in 0..=random(3) {
        let size = if random(2) == 0 { 4_096 } else { 512 };
        let at = random((used / size) as u64 + 1) as usize * size;
        let end = (at + size).min(bytes.len());
        bytes[at..end].fill(0);
    }
    fs::write(&path, bytes).expect("written");
}

/// Opens a node on what is left, and waits until it has the whole.
async fn back(config: FleetConfig) -> FleetStore {
    let store = FleetStore::open(config).await.expect("the node opens");
    let ready = tokio::time::timeout(HANGING, store.ready()).await;
    ready.expect("it catches up in time").expect("it catches up");
    store
}

/// A node that follows, and takes appends, crashes again and again; what was left of it goes on.
pub(super) async fn followed(disk: &Disk, rounds: u32) {
    let cluster = Cluster::start().await;
    let account = cluster.account();
    let settings = |dir: &Path| config("replica", &account, dir);
    let (home, said) = (TempDir::new().expect("a folder"), disk.outside().join("said"));
    let witness = Arc::new(open(settings(home.path())).await);
    let folder = disk.live().join("node");
    let mut history = History::default();
    for round in 1..=rounds {
        let load = Load::start(&[&witness], AUTHORS);
        let node = NodeProcess::start(&account, &folder, said.clone());
        node.ready().await;
        tokio::time::sleep(random_ms(500, 2_500)).await;
        node.stand_still();
        tokio::time::sleep(Duration::from_millis(150)).await;
        disk.copy();
        let (at, acknowledged) = (node.at(), node.acknowledged());
        node.kill();
        disk.cut();
        history.add(vec![acknowledged]);
        let whole = left(&folder, disk.outside()).await;
        let mut damaged = Vec::new();
        for _ in 0..DAMAGED {
            let copy = TempDir::new_in(disk.outside()).expect("a folder");
            copy_folder(&folder, copy.path());
            take_pages(copy.path());
            damaged.push((left(copy.path(), disk.outside()).await, copy));
        }

        // It comes back while the others go on.
        let node = back(settings(&folder)).await;
        history.add(load.finish().await);
        history.holds(&node, &witness).await;
        node.close().await.expect("closed");
        let less: Vec<u64> = damaged.iter().map(|(left, _)| left.messages).collect();
        for (_, copy) in damaged {
            let node = back(settings(copy.path())).await;
            history.holds(&node, &witness).await;
            node.close().await.expect("closed");
        }
        println!(
            "os-crash: replica, round {round}: followed to {at}, {} of that left in {} segments, {less:?} with pages \
             missing; {} acknowledged, 0 lost, all the same",
            whole.messages,
            whole.segments,
            history.len()
        );
    }
    witness.close().await.expect("closed");
    same_states(home.path(), &folder).await;
}

/// Two replicas that followed the same stand at the same place, and go on with the same states.
async fn same_states(one: &Path, two: &Path) {
    let mut found = Vec::new();
    for folder in [one, two] {
        let local = config("replica", &nobody(), folder).local;
        let (replica, positions) = Replica::open(local).await.expect("the replica opens");
        let states = replica.snapshots(|_| true).await.expect("snapshots");
        let states: Vec<_> = states.iter().map(|state| (state.log(), state.encode())).collect();
        let stands = positions.into_iter().map(|position| {
            let at = (position.shard, position.stream, position.sequence);
            (at, position.time_ms, position.chain, position.message)
        });
        found.push((stands.collect::<Vec<_>>(), states));
        replica.close().await.expect("closed");
    }
    assert!(!found[0].1.is_empty());
    assert!(found[0].0 == found[1].0, "they stand at the same place");
    assert!(found[0].1 == found[1].1, "they have the same states");
}

/// The beginning of the stream is given up: who has no replica begins with a checkpoint of large states.
async fn give_up_the_beginning(account: &Account, dir: &Path) -> BTreeSet<LogId> {
    let settings = config("bootstrap", account, dir);
    let store = open(settings.clone()).await;
    let mut logs = BTreeSet::new();
    for _ in 0..LARGE {
        let channel = ChannelId::generate();
        accept(&store, &create(channel)).await;
        let detail = Detail::Commit {
            adds: (0..LARGE_ROSTER).map(|_| someone()).collect(),
            removes: Vec::new(),
            recipients: Vec::new(),
        };
        accept(
            &store,
            &frame(channel.log(), crate::local::script::ALICE, 1, detail, b"many"),
        )
        .await;
        logs.insert(channel.log());
    }
    let filled = ChannelId::generate();
    logs.insert(filled.log());
    accept(&store, &create(filled)).await;
    for _ in 0..settings.checkpoint_every {
        accept(&store, &message(filled, 1, b"before the checkpoint")).await;
    }
    store.close().await.expect("closed");
    tokio::time::sleep(RETENTION).await;
    let enforcing = FleetConfig {
        retention: Some(RETENTION),
        retention_every: Duration::from_millis(200),
        ..settings
    };
    let store = open(enforcing).await;
    let context = account.context().await.expect("JetStream");
    let begun = Instant::now();
    let channel = ChannelId::generate();
    logs.insert(channel.log());
    accept(&store, &create(channel)).await;
    loop {
        let stream = context.get_stream("SKYTALE_LOG_0_0").await.expect("the stream");
        if stream.cached_info().state.first_sequence > 1 {
            break;
        }
        assert!(begun.elapsed() < HANGING, "nothing is purged");
        accept(&store, &message(channel, 1, b"later")).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    store.close().await.expect("closed");
    logs
}

/// A node without a replica begins with a checkpoint, and crashes while it does, or soon after.
pub(super) async fn bootstrapped(disk: &Disk, rounds: u32) {
    let cluster = Cluster::start().await;
    let account = cluster.account();
    let settings = |dir: &Path| config("bootstrap", &account, dir);
    let (home, said) = (TempDir::new().expect("a folder"), disk.outside().join("said"));
    let old = give_up_the_beginning(&account, home.path()).await;
    let witness = Arc::new(open(settings(home.path())).await);
    let folder = disk.live().join("node");
    let mut history = History::default();

    // How long it takes, where nothing happens.
    let begun = Instant::now();
    let node = NodeProcess::start(&account, &folder, said.clone());
    node.ready().await;
    let took = u64::try_from(begun.elapsed().as_millis()).expect("short");
    node.kill();
    for round in 1..=rounds {
        fs::remove_dir_all(&folder).expect("removed");
        let load = Load::start(&[&witness], AUTHORS);
        let node = NodeProcess::start(&account, &folder, said.clone());
        // In its beginning, in its middle, or a while after it.
        let part = u64::from(round % 4);
        tokio::time::sleep(random_ms(took * part / 4, took * (part + 1) / 3)).await;
        node.stand_still();
        tokio::time::sleep(Duration::from_millis(150)).await;
        disk.copy();
        let (was_ready, acknowledged) = (node.is_ready(), node.acknowledged());
        node.kill();
        disk.cut();
        history.add(vec![acknowledged]);
        let left = left(&folder, disk.outside()).await;
        let node = back(settings(&folder)).await;
        history.add(load.finish().await);
        history.holds(&node, &witness).await;
        the_same(&node, &witness, &old).await;
        let mut given_up = 0;
        for log in &old {
            given_up += u64::from(kept(&node, *log).await.0 > at(1));
        }
        assert!(given_up > 0, "it began with a checkpoint");
        node.close().await.expect("closed");
        println!(
            "os-crash: bootstrap, round {round}: crashed {}, {} left; {} acknowledged, 0 lost, all the same",
            if was_ready { "after it was ready" } else { "on the way" },
            match (left.half_installed, left.messages) {
                (true, _) => "half a checkpoint".to_owned(),
                (false, 0) => "nothing".to_owned(),
                (false, messages) => format!("{messages} messages' state"),
            },
            history.len()
        );
        fs::create_dir_all(&folder).expect("a folder");
    }
    witness.close().await.expect("closed");
}
