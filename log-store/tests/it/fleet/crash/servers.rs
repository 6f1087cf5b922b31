//! The machine of NATS servers crashes: what was acknowledged is in the streams when they are back, and no node has folded more
//! than they hold.

use super::super::cluster::{Account, Cluster};
use super::super::script::*;
use super::disk::Disk;
use super::left::boot;
use super::load::{History, Load};
use super::node::NodeProcess;
use super::write_back::WriteBack;
use super::{Kind, random_ms, say};
use crate::local::script::copy_folder;
use skytale_log_store::fleet::{FleetConfig, ShardId};
use skytale_log_store::{FleetStore, LogStore as _};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Servers of the cluster.
pub(super) const SERVERS: usize = 3;
/// Authors at each node that does not crash.
const AUTHORS: usize = 3;
/// For what the kernel was writing when everybody was stopped.
const IN_FLIGHT: Duration = Duration::from_millis(200);
/// Waiting for longer is hanging.
const HANGING: Duration = Duration::from_secs(60);

fn all_stand_still(cluster: &Cluster) {
    for server in 0..SERVERS {
        cluster.signal(server, "STOP");
    }
}

/// Kills all servers, and starts them with what the disk has after the cut.
async fn cut(cluster: &Cluster, disk: &Disk) {
    for server in 0..SERVERS {
        cluster.kill(server);
    }
    disk.cut();
    for server in 0..SERVERS {
        cluster.run(server);
    }
}

/// All servers are on one machine, and a node with them; two nodes are elsewhere and stay up, a fourth was away meanwhile.
pub(super) async fn all(cluster: &Cluster, disk: &Disk, rounds: u32) {
    let account = cluster.account();
    let settings = |dir: &Path| Kind::TwoShards.settings(&account, dir);
    let outside = |_| TempDir::new_in(disk.outside()).expect("a folder");
    let [home, second, away] = [(), (), ()].map(outside);
    let one = Arc::new(open(settings(home.path())).await);
    let two = Arc::new(open(settings(second.path())).await);
    open(settings(away.path())).await.close().await.expect("closed");
    let (beside, said) = (disk.live().join("node-beside"), disk.outside().join("said"));
    let mut history = History::default();
    for round in 1..=rounds {
        let load = Load::start(&[&one, &two], AUTHORS);
        let node = NodeProcess::start(Kind::TwoShards, &account, &beside, said.clone());
        node.ready().await;
        load.goes_on().await;
        let before = checkpoints_are_whole(&account).await;
        let writes_back = WriteBack::start(&disk.live());
        tokio::time::sleep(random_ms(1_000, 3_000)).await;
        node.stand_still();
        all_stand_still(cluster);
        drop(writes_back);
        tokio::time::sleep(IN_FLIGHT).await;
        disk.copy();
        say("the power is cut");
        history.add(vec![node.acknowledged()]);
        node.kill();
        let begun = Instant::now();
        cut(cluster, disk).await;
        boot(&beside);
        cluster.settled().await;
        say("the servers are back");
        load.goes_on().await;
        say("it goes on");
        let away_for = begun.elapsed();
        history.add(load.finish().await);

        history.holds(&one, &two).await;
        // From the streams alone; from what the crash left; from before it.
        let empty = TempDir::new_in(disk.outside()).expect("a folder");
        for folder in [empty.path(), &beside, away.path()] {
            let node = open(settings(folder)).await;
            history.holds(&node, &one).await;
            node.close().await.expect("closed");
        }
        let checkpoints = checkpoints_are_whole(&account).await;
        assert!(
            checkpoints >= before,
            "there were {before} checkpoints, now {checkpoints}"
        );
        say(format_args!(
            "os-crash: servers, round {round}: {} acknowledged, 0 lost, no node ahead, {} were there before they were \
             acknowledged, {checkpoints} whole checkpoints; back in {:.1} s",
            history.len(),
            history.again(),
            away_for.as_secs_f64()
        ));
    }
    for store in [one, two] {
        store.close().await.expect("closed");
    }
}

/// One server's machine crashes under load. Without it things go on; when it is back, another one goes, so that nothing
/// is acknowledged without what came back.
pub(super) async fn one(cluster: &Cluster, disk: &Disk, rounds: u32) {
    let account = cluster.account();
    let settings = |dir: &Path| Kind::TwoShards.settings(&account, dir);
    let homes = [(), ()].map(|()| TempDir::new_in(disk.outside()).expect("a folder"));
    let one = Arc::new(open(settings(homes[0].path())).await);
    let two = Arc::new(open(settings(homes[1].path())).await);
    let mut history = History::default();
    for round in 1..=rounds {
        // Once the one that leads, once another.
        let crashes = (leader(&account).await + (round as usize + 1) % 2) % SERVERS;
        let goes = (crashes + 1) % SERVERS;
        let load = Load::start(&[&one, &two], AUTHORS);
        load.goes_on().await;
        let writes_back = WriteBack::start(&disk.live());
        tokio::time::sleep(random_ms(500, 2_500)).await;
        all_stand_still(cluster);
        drop(writes_back);
        tokio::time::sleep(IN_FLIGHT).await;
        disk.copy();
        say("the power is cut");
        cluster.kill(crashes);
        for server in (0..SERVERS).filter(|server| *server != crashes) {
            cluster.signal(server, "CONT");
        }
        load.goes_on().await;
        let data = cluster.data(crashes);
        let same = data.strip_prefix(disk.live()).expect("on the disk");
        fs::remove_dir_all(&data).expect("removed");
        disk.show(|copy| copy_folder(&copy.join(same), &data));
        load.goes_on().await;
        cluster.run(crashes);
        cluster.settled().await;
        say("the servers are back");
        cluster.kill(goes);
        load.goes_on().await;
        cluster.run(goes);
        cluster.settled().await;
        say("the servers are back");
        load.goes_on().await;
        say("it goes on");
        history.add(load.finish().await);

        history.holds(&one, &two).await;
        let empty = TempDir::new_in(disk.outside()).expect("a folder");
        let fresh = open(settings(empty.path())).await;
        history.holds(&fresh, &one).await;
        fresh.close().await.expect("closed");
        say(format_args!(
            "os-crash: one-server, round {round}: {} acknowledged, 0 lost, {} were there before they were acknowledged",
            history.len(),
            history.again()
        ));
    }
    for store in [one, two] {
        store.close().await.expect("closed");
    }
}

/// The server that leads the first shard's stream.
async fn leader(account: &Account) -> usize {
    let begun = Instant::now();
    loop {
        let stream = account.stream("SKYTALE_LOG_0_0").await;
        let leader = stream
            .cached_info()
            .cluster
            .as_ref()
            .and_then(|cluster| cluster.leader.clone());
        match leader.and_then(|name| name.strip_prefix('n')?.parse().ok()) {
            Some(leader) => return leader,
            None => assert!(begun.elapsed() < HANGING, "nobody leads"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// All parts of checkpoints that there are can be read to their ends, and none is a half; says how many checkpoints.
async fn checkpoints_are_whole(account: &Account) -> usize {
    let context = account.context().await.expect("JetStream");
    let parts = checkpoints(account, 0, "part").await;
    for (subject, _) in &parts {
        let stream = context
            .get_stream_no_info("SKYTALE_CHECKPOINTS_0")
            .await
            .expect("a stream");
        let part = stream
            .get_last_raw_message_by_subject(subject)
            .await
            .expect("it is there");
        // A checkpoint of this size is one part, and ends with the hash of all before.
        let (body, hash) = part.payload.split_at(part.payload.len() - 32);
        assert_eq!(blake3::hash(body).as_bytes(), hash, "{subject}");
    }
    parts.len()
}

/// Servers that acknowledge without syncing lose what they acknowledged; and a node that has more than they must stop taking
/// entries of what is shorter.
pub(super) async fn all_unsynced(cluster: &Cluster, disk: &Disk, rounds: u32) {
    let mut lost_rounds = 0;
    for round in 1..=rounds {
        let account = cluster.account();
        let home = TempDir::new_in(disk.outside()).expect("a folder");
        let node = Arc::new(open(weaker(&account, home.path())).await);
        let load = Load::start(&[&node], 2 * AUTHORS);
        load.goes_on().await;
        // The streams themselves are there: it is of what they hold.
        let synced = Command::new("sync").arg("-f").arg(disk.live()).status();
        assert!(synced.expect("sync").success());
        tokio::time::sleep(random_ms(1_000, 2_000)).await;
        all_stand_still(cluster);
        tokio::time::sleep(IN_FLIGHT).await;
        disk.copy();
        say("the power is cut");
        cut(cluster, disk).await;
        cluster.settled().await;
        say("the servers are back");

        let halted = halts(&node, |halted| !halted.is_empty()).await;
        let mut history = History::default();
        history.add(load.finish().await);
        let empty = TempDir::new_in(disk.outside()).expect("a folder");
        let fresh = open(weaker(&account, empty.path())).await;
        let lost = history.lost(&fresh).await;
        fresh.close().await.expect("closed");
        let shorter: BTreeSet<ShardId> = lost.iter().filter_map(|(log, _)| node.shard_of(log)).collect();
        // Each of them, and whatever was found first.
        let halted = halts(&node, |now| now.is_superset(&shorter) && now.is_superset(&halted)).await;
        node.close().await.expect("closed");
        say(format_args!(
            "os-crash: servers, unsynced, round {round}: {} acknowledged, {} lost, in {shorter:?}; the node that was ahead \
             takes nothing more in {halted:?}",
            history.len(),
            lost.len(),
        ));
        assert!(
            halted.is_superset(&shorter),
            "a node goes on with a stream that has lost entries"
        );
        lost_rounds += u32::from(!lost.is_empty());
    }
    assert!(lost_rounds > 0, "nothing was lost without syncs: this test cannot fail");
}

fn weaker(account: &Account, dir: &Path) -> FleetConfig {
    FleetConfig {
        allow_weaker: true,
        alarm_after: Duration::from_secs(2),
        ..Kind::TwoShards.settings(account, dir)
    }
}

/// The shards that a node has halted, when they are what is waited for or nothing more is to come.
async fn halts(node: &FleetStore, awaited: impl Fn(&BTreeSet<ShardId>) -> bool) -> BTreeSet<ShardId> {
    let begun = Instant::now();
    loop {
        let halted: BTreeSet<ShardId> = node.health().halted.into_iter().map(|halted| halted.shard).collect();
        if awaited(&halted) || begun.elapsed() > HANGING {
            return halted;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
