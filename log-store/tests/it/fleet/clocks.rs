//! A node whose clock is wrong gives nothing up, and says so; the others go on.

use super::checkpoints::{extent, one_shard};
use super::cluster::Account;
use super::nodes::{reaches, records};
use super::script::*;
use skytale_log_store::fleet::FleetConfig;
use skytale_log_store::{FleetStore, LogStore as _};
use skytale_proto::ChannelId;
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(86_400);
const RETENTION: Duration = Duration::from_secs(30 * 86_400);

fn ahead() -> SystemTime {
    SystemTime::now() + 40 * DAY
}

fn behind() -> SystemTime {
    SystemTime::now() - Duration::from_secs(3_600)
}

fn with_clock(account: &Account, dir: &TempDir, wall_clock: fn() -> SystemTime) -> FleetConfig {
    FleetConfig {
        wall_clock,
        ..one_shard(account, dir, Some(RETENTION))
    }
}

/// Waits until a node says something of its clock.
async fn says(store: &FleetStore, what: &str) {
    let begun = Instant::now();
    while !store.readiness().problems.iter().any(|problem| problem.contains(what)) {
        assert!(begun.elapsed() < HANGING, "{:?}", store.readiness());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_is_ahead_trims_nothing_and_says_so() {
    let (account, _streams) = shared_account().await;
    let dirs = [(); 3].map(|()| TempDir::new().expect("a folder"));
    let clocks: [fn() -> SystemTime; 3] = [SystemTime::now, ahead, SystemTime::now];
    let mut stores = Vec::new();
    for (dir, clock) in dirs.iter().zip(clocks) {
        stores.push(open(with_clock(&account, dir, clock)).await);
    }
    let channel = ChannelId::generate();
    accept(&stores[0], &create(channel)).await;
    // A message may be in the stream twice: entries are counted as they are accepted.
    let mut accepted = 1;
    while extent(&account).await.1 < 70 {
        accept(&stores[0], &message(channel, 1, b"thirty days are not over")).await;
        accepted += 1;
    }
    says(&stores[1], "clock is 40 days ahead").await;
    // It has looked for what may be given up many times since the checkpoints were there.
    tokio::time::sleep(20 * one_shard(&account, &dirs[0], None).retention_every).await;
    for store in &stores {
        reaches(store, channel.log(), at(accepted)).await;
        assert_eq!(records(store, channel.log()).await.len() as u64, accepted);
        let status = store.status(channel.log()).await.expect("a status");
        assert_eq!(status.first, skytale_proto::Offset::FIRST);
    }
    assert_eq!(stores[0].readiness().problems, Vec::<String>::new());
    assert_eq!(stores[2].readiness().problems, Vec::<String>::new());
    for store in stores {
        store.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_is_behind_says_so_too() {
    let (account, _streams) = shared_account().await;
    let dirs = [(); 3].map(|()| TempDir::new().expect("a folder"));
    let clocks: [fn() -> SystemTime; 3] = [behind, SystemTime::now, SystemTime::now];
    let mut stores = Vec::new();
    for (dir, clock) in dirs.iter().zip(clocks) {
        stores.push(open(with_clock(&account, dir, clock)).await);
    }
    says(&stores[0], "clock is 60 min behind").await;
    assert_eq!(stores[1].readiness().problems, Vec::<String>::new());
    for store in stores {
        store.close().await.expect("closed");
    }
}

/// A node and a server alone: neither is called wrong, and what only one of them calls old stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_alone_does_not_trim_by_its_own_clock() {
    let (account, _streams) = shared_account().await;
    let dir = TempDir::new().expect("a folder");
    let config = with_clock(&account, &dir, ahead);
    let every = config.retention_every;
    let store = open(config).await;
    let channel = ChannelId::generate();
    accept(&store, &create(channel)).await;
    while extent(&account).await.1 < 70 {
        accept(&store, &message(channel, 1, b"thirty days are not over")).await;
    }
    tokio::time::sleep(20 * every).await;
    let status = store.status(channel.log()).await.expect("a status");
    assert_eq!(status.first, skytale_proto::Offset::FIRST);
    store.close().await.expect("closed");
}
