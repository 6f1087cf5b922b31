//! The machine of a node crashes while what is old is given up: Trims in the stream, segments dropped, the stream purged.

use super::super::cluster::Cluster;
use super::super::script::{Keeping, open};
use super::disk::Disk;
use super::left::{back, boot, left, segments};
use super::load::{History, Load};
use super::node::NodeProcess;
use super::{Kind, random_ms, say};
use skytale_log_store::LogStore as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Authors at the node that does not crash.
const AUTHORS: usize = 4;
/// Waiting for longer is hanging.
const HANGING: Duration = Duration::from_secs(60);
/// For what the kernel was writing when everybody was stopped.
const IN_FLIGHT: Duration = Duration::from_millis(150);

/// A node that drops what was trimmed crashes again and again; what was left of it goes on.
pub(super) async fn given_up(cluster: &Cluster, disk: &Disk, rounds: u32) {
    let account = cluster.account();
    let settings = |dir: &Path| Kind::Retention.settings(&account, dir);
    let home = TempDir::new_in(disk.outside()).expect("a folder");
    let said = disk.outside().join("said");
    let _keeper = Keeping::start(settings(home.path()));
    let witness = Arc::new(open(settings(home.path())).await);
    let folder = disk.live().join("keeping-node");
    let mut history = History::default();
    for round in 1..=rounds {
        let load = Load::start(&[&witness], AUTHORS);
        let node = NodeProcess::start(Kind::Retention, &account, &folder, said.clone());
        node.ready().await;
        say("the node is up");
        tokio::time::sleep(random_ms(1_000, 4_000)).await;
        drops(&folder).await;
        tokio::time::sleep(random_ms(0, 150)).await;
        node.stand_still();
        tokio::time::sleep(IN_FLIGHT).await;
        disk.copy();
        let at = node.at();
        history.add(vec![node.acknowledged()]);
        node.kill();
        disk.cut();
        boot(&folder);
        say("the power was cut");
        let left = left(&folder, disk.outside()).await;
        let node = back(settings(&folder)).await;
        say("it is back");
        history.add(load.finish().await);
        history.holds(&node, &witness).await;
        node.close().await.expect("closed");
        say(format_args!(
            "os-crash: retention, round {round}: followed to {at}; left are the segments from {} to {}, up to {}; {} \
             acknowledged, 0 of what is kept lost, all the same",
            left.first_segment,
            left.first_segment + left.segments as u64 - 1,
            left.messages,
            history.len()
        ));
    }
    witness.close().await.expect("closed");
}

/// Waits until a replica drops a segment.
async fn drops(folder: &Path) {
    let (first, begun) = (segments(folder).first().copied(), Instant::now());
    while segments(folder).first().copied() == first {
        assert!(begun.elapsed() < HANGING, "no segment is dropped");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
