//! Servers or streams that become weaker than promised while a node runs.

use super::cluster::{Account, Cluster, Sync};
use super::nodes::records;
use super::script::*;
use crate::disk::Disk;
use skytale_log_store::fleet::{FleetConfig, Phase};
use skytale_log_store::{AppendError, FleetStore, LogStore as _, StoreError};
use skytale_proto::ChannelId;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn asking(account: &Account, dir: &Path) -> FleetConfig {
    FleetConfig {
        ask_sync_every: Duration::from_millis(500),
        ..settings(account, dir)
    }
}

/// The reason for which a store stops; it is read, and takes nothing.
async fn stops(store: &FleetStore, channel: ChannelId) -> String {
    let reason = why_stopped(store).await;
    assert_eq!(records(store, channel.log()).await.len(), 1);
    let refused = append(store, &message(channel, 1, b"for less")).await;
    assert!(
        matches!(&refused, Err(AppendError::Store(StoreError::Stopped { reason: why })) if *why == reason),
        "{refused:?}"
    );
    assert!(store.health().shards.iter().any(|shard| shard.phase == Phase::Stopped));
    assert!(
        store
            .readiness()
            .problems
            .iter()
            .any(|problem| problem.contains(&reason))
    );
    reason
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_with_fewer_copies_than_promised_stops_a_running_node() {
    let (account, _streams) = shared_account().await;
    let dir = TempDir::new().expect("a folder");
    let store = open(asking(&account, dir.path())).await;
    let channel = ChannelId::generate();
    accept(&store, &create(channel)).await;
    let stream = account.stream("SKYTALE_LOG_0_0").await;
    let mut fewer = stream.cached_info().config.clone();
    fewer.num_replicas = 1;
    update_stream(&account, &fewer).await;
    let reason = stops(&store, channel).await;
    assert!(reason.contains("one copy"), "{reason}");
    store.close().await.expect("closed");
}

/// Waits until the node says so of copies of its streams.
async fn copies(store: &FleetStore, missing: bool) {
    let begun = Instant::now();
    loop {
        let behind = store.health().shards.iter().any(|shard| shard.copies_behind > 0);
        let readiness = store.readiness();
        let remarked = readiness
            .remarks
            .iter()
            .any(|remark| remark.contains("copies of streams"));
        if (behind, remarked) == (missing, missing) {
            assert_eq!(readiness.problems, Vec::<String>::new());
            return;
        }
        assert!(begun.elapsed() < HANGING, "missing: {behind}, {readiness:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_missing_is_told_and_appends_go_on() {
    let cluster = Cluster::start().await;
    let account = cluster.account();
    let dir = TempDir::new().expect("a folder");
    let store = open(settings(&account, dir.path())).await;
    let channel = ChannelId::generate();
    accept(&store, &create(channel)).await;
    copies(&store, false).await;
    cluster.kill(1);
    copies(&store, true).await;
    taken_at_last(&store, &message(channel, 1, b"with two copies")).await;
    cluster.run(1);
    copies(&store, false).await;
    store.close().await.expect("closed");
}

/// A node without a memory of the fleet, which may not wait until the others take a killed server for gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_while_a_killed_server_is_not_yet_taken_for_gone() {
    let cluster = Cluster::start().await;
    let account = cluster.account();
    let first = TempDir::new().expect("a folder");
    let store = open(settings(&account, first.path())).await;
    let channel = ChannelId::generate();
    accept(&store, &create(channel)).await;
    cluster.kill(2);
    let second = TempDir::new().expect("a folder");
    let other = open(settings(&account, second.path())).await;
    other.ready().await.expect("ready");
    assert_eq!(other.durability(), skytale_proto::session::Durability::QuorumSynced);
    taken_at_last(&other, &message(channel, 1, b"by two")).await;
    // And one that has followed, again.
    store.close().await.expect("closed");
    let store = open(settings(&account, first.path())).await;
    store.ready().await.expect("ready");
    taken_at_last(&store, &message(channel, 1, b"by two, again")).await;
    assert_eq!(store.readiness().problems, Vec::<String>::new());
    store.close().await.expect("closed");
    other.close().await.expect("closed");
}

/// JetStream of a server whose disk is full is off, and says nothing of how it would sync.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_disk_is_full_is_remarked_and_the_others_serve() {
    let cluster = Cluster::start().await;
    cluster.kill(2);
    let Some(disk) = Disk::mounted_at(&cluster.data(2), 24) else {
        return;
    };
    cluster.run(2);
    cluster.settled().await;
    let account = cluster.account();
    let dirs = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
    let store = open(asking(&account, dirs[0].path())).await;
    let channel = ChannelId::generate();
    accept(&store, &create(channel)).await;
    disk.take_all();
    let remarked = |store: &FleetStore| {
        let readiness = store.readiness();
        assert_eq!(readiness.problems, Vec::<String>::new());
        readiness
            .remarks
            .iter()
            .any(|remark| remark.contains("n2") && remark.contains("JetStream is off"))
    };
    let begun = Instant::now();
    let mut sent = 0u32;
    while !remarked(&store) {
        assert!(begun.elapsed() < HANGING, "{:?}", store.readiness());
        taken_at_last(&store, &message(channel, 1, &[7; 100_000])).await;
        sent += 1;
    }
    // A node that starts now is as good.
    let other = open(asking(&account, dirs[1].path())).await;
    other.ready().await.expect("ready");
    taken_at_last(&other, &message(channel, 1, b"by two")).await;
    assert!(remarked(&other), "{:?}", other.readiness());
    assert_eq!(records(&other, channel.log()).await.len() as u32, sent + 2);
    for store in [store, other] {
        store.close().await.expect("closed");
    }
    // Before its disk goes.
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_without_syncing_stops_a_running_node() {
    let cluster = Cluster::start().await;
    let account = cluster.account();
    let dir = TempDir::new().expect("a folder");
    let store = open(asking(&account, dir.path())).await;
    let channel = ChannelId::generate();
    accept(&store, &create(channel)).await;
    cluster.kill(2);
    cluster.syncs(Sync::Sometimes);
    cluster.run(2);
    let reason = stops(&store, channel).await;
    assert!(reason.contains("sync_interval is not `always` on n2"), "{reason}");
    store.close().await.expect("closed");

    // Nor does one begin, that has followed or not.
    for dir in [dir, TempDir::new().expect("a folder")] {
        let reason = match FleetStore::open(asking(&account, dir.path())).await {
            Err(error) => error.to_string(),
            // The server was too slow to say it, and has to be asked once more.
            Ok(store) => {
                let reason = why_stopped(&store).await;
                store.close().await.expect("closed");
                reason
            }
        };
        assert!(reason.contains("sync_interval"), "{reason}");
    }
}
