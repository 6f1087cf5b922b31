//! The machine of a node crashes: its replica is cut off at the first damage, and goes on to what the others have.

use super::super::cluster::Cluster;
use super::super::script::open;
use super::disk::Disk;
use super::left::{back, boot, left};
use super::load::{History, Load};
use super::node::NodeProcess;
use super::{Kind, local, random, random_ms, say};
use crate::local::script::{copy_folder, segments};
use skytale_log_store::LogStore as _;
use skytale_log_store::local::replica::Replica;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Authors at the node that does not crash.
const AUTHORS: usize = 4;
/// Disks made in each round on which everything is, except for some pages.
const DAMAGED: u32 = 3;
/// For what the kernel was writing when everybody was stopped.
const IN_FLIGHT: Duration = Duration::from_millis(150);

/// A node that follows, and takes appends, crashes again and again; what was left of it goes on.
pub(super) async fn followed(cluster: &Cluster, disk: &Disk, rounds: u32) {
    let account = cluster.account();
    let settings = |dir: &Path| Kind::TwoShards.settings(&account, dir);
    let outside = || TempDir::new_in(disk.outside()).expect("a folder");
    let (home, said) = (outside(), disk.outside().join("said"));
    let witness = Arc::new(open(settings(home.path())).await);
    let folder = disk.live().join("node");
    let mut history = History::default();
    for round in 1..=rounds {
        let load = Load::start(&[&witness], AUTHORS);
        let node = NodeProcess::start(Kind::TwoShards, &account, &folder, said.clone());
        node.ready().await;
        say("the node is up");
        tokio::time::sleep(random_ms(500, 2_500)).await;
        node.stand_still();
        tokio::time::sleep(IN_FLIGHT).await;
        disk.copy();
        // Data that the kernel has in memory: all of it, except for some pages.
        let damaged: Vec<TempDir> = (0..DAMAGED)
            .map(|_| {
                let copy = outside();
                copy_folder(&folder, copy.path());
                take_pages(copy.path());
                copy
            })
            .collect();
        let (at, acknowledged) = (node.at(), node.acknowledged());
        node.kill();
        disk.cut();
        boot(&folder);
        say("the power was cut");
        history.add(vec![acknowledged]);
        let whole = left(&folder, disk.outside()).await;

        // It comes back while the others go on.
        let node = back(settings(&folder)).await;
        say("it is back");
        history.add(load.finish().await);
        history.holds(&node, &witness).await;
        node.close().await.expect("closed");
        let mut less = Vec::new();
        for copy in damaged {
            less.push(left(copy.path(), disk.outside()).await.messages);
            let node = back(settings(copy.path())).await;
            history.holds(&node, &witness).await;
            node.close().await.expect("closed");
        }
        say(format_args!(
            "os-crash: replica, round {round}: followed to {at}; left are {} in {} segments, {less:?} where pages are \
             missing; {} acknowledged, 0 lost, all the same",
            whole.messages,
            whole.segments,
            history.len()
        ));
    }
    witness.close().await.expect("closed");
    same_states(home.path(), &folder).await;
}

/// Takes pages and sectors out of a replica's last segment: it is not synced, and a crash may take any of it.
pub(super) fn take_pages(folder: &Path) {
    let Some(path) = segments(folder).pop() else { return };
    let mut bytes = fs::read(&path).expect("read");
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for _ in 0..=random(2) {
        let size = if random(2) == 0 { 4_096 } else { 512 };
        let at = usize::try_from(random((used / size) as u64 + 1)).expect("small") * size;
        let end = (at + size).min(bytes.len());
        bytes[at..end].fill(0);
    }
    fs::write(&path, bytes).expect("written");
}

/// Two replicas that followed the same are at the same place, and go on with the same states.
async fn same_states(one: &Path, two: &Path) {
    let mut found = Vec::new();
    for folder in [one, two] {
        let (replica, positions) = Replica::open(local(folder)).await.expect("the replica opens");
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
