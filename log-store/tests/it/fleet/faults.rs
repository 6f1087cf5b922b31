//! Servers that die, stop and come back: nothing acknowledged is lost, nothing is twice, and what cannot be taken is said.

use super::cluster::Cluster;
use super::nodes::{agree, reaches};
use super::script::*;
use skytale_log_store::fleet::FleetConfig;
use skytale_log_store::{AppendError, FleetStore, LogStore as _, StoreError};
use skytale_proto::{ChannelId, Code, Frame, FrameId, Offset};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// Writes a channel at a node as an outbox does: each frame until it is acknowledged, in order. Gives what was.
async fn write(node: Arc<FleetStore>, channel: ChannelId, stop: Arc<AtomicBool>) -> Vec<(FrameId, Offset)> {
    let mut acknowledged = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let frame = message(channel, 1, &[7; 300]);
        loop {
            match append(&node, &frame).await {
                Ok(accepted) => {
                    acknowledged.push((frame.header().id, accepted.offset));
                    break;
                }
                Err(error) if error.code().is_retryable() => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error}"),
            }
        }
    }
    acknowledged
}

/// Every acknowledged frame is there: at its offset, once, each author's in their order.
async fn check(one: &FleetStore, two: &FleetStore, channel: ChannelId, authors: &[Vec<(FrameId, Offset)>]) {
    let entries = agree(one, two, channel.log()).await;
    let mut places: HashMap<FrameId, Offset> = HashMap::new();
    for record in &entries {
        let id = Frame::decode(record.payload.clone()).expect("a frame").header().id;
        assert_eq!(places.insert(id, record.offset), None, "an entry twice");
    }
    for author in authors {
        assert!(!author.is_empty(), "something was acknowledged");
        assert!(author.is_sorted_by_key(|(_, offset)| *offset), "an author's order");
        for (id, offset) in author {
            assert_eq!(places.get(id), Some(offset), "acknowledged, and not there");
        }
    }
}

/// Two nodes under load while something happens to the servers.
async fn under_load<F: Future<Output = ()>>(cluster: &Cluster, fault: F) {
    let account = cluster.account();
    let dirs = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
    let quick = |dir: &TempDir| FleetConfig {
        request_timeout: Duration::from_secs(1),
        alarm_after: Duration::from_secs(20),
        ..settings(&account, dir.path())
    };
    let one = Arc::new(open(quick(&dirs[0])).await);
    let two = Arc::new(open(quick(&dirs[1])).await);
    let channels = [ChannelId::generate(), ChannelId::generate(), ChannelId::generate()];
    for channel in channels {
        accept(&one, &create(channel)).await;
        reaches(&two, channel.log(), at(1)).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for channel in channels {
        for node in [&one, &two] {
            writers.push((channel, tokio::spawn(write(node.clone(), channel, stop.clone()))));
        }
    }
    fault.await;
    // It goes on afterwards.
    for channel in channels {
        for node in [&one, &two] {
            taken_at_last(node, &message(channel, 1, b"afterwards")).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut written: HashMap<ChannelId, Vec<_>> = HashMap::new();
    for (channel, writer) in writers {
        written
            .entry(channel)
            .or_default()
            .push(writer.await.expect("the writer ends"));
    }
    for (channel, authors) in &written {
        check(&one, &two, *channel, authors).await;
    }
    assert_eq!((one.health().stopped, two.health().stopped), (None, None));
    for store in [one, two] {
        store.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_server_killed_in_turn_loses_nothing_acknowledged() {
    let cluster = Cluster::start().await;
    Box::pin(under_load(&cluster, async {
        for round in 0..rounds(3) {
            let server = round as usize % 3;
            tokio::time::sleep(Duration::from_millis(700)).await;
            cluster.kill(server);
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            cluster.run(server);
            cluster.settled().await;
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_servers_killed_at_once_lose_nothing_acknowledged() {
    let cluster = Cluster::start().await;
    Box::pin(under_load(&cluster, async {
        for _ in 0..rounds(2) {
            tokio::time::sleep(Duration::from_millis(1_000)).await;
            for server in 0..3 {
                cluster.kill(server);
            }
            for server in 0..3 {
                cluster.run(server);
            }
            cluster.settled().await;
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_for_a_while_is_done_without() {
    let cluster = Cluster::start().await;
    Box::pin(under_load(&cluster, async {
        for round in 0..rounds(2) {
            let server = round as usize % 3;
            tokio::time::sleep(Duration::from_millis(500)).await;
            cluster.signal(server, "STOP");
            tokio::time::sleep(Duration::from_secs(12)).await;
            cluster.signal(server, "CONT");
            cluster.settled().await;
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_home_is_away_appends_are_retryable_and_reads_go_on() {
    let cluster = Cluster::start().await;
    let account = cluster.account();
    let dir = TempDir::new().expect("a folder");
    let config = FleetConfig {
        request_timeout: Duration::from_millis(500),
        append_timeout: Duration::from_secs(2),
        ..settings(&account, dir.path())
    };
    let store = open(config).await;
    let channel = ChannelId::generate();
    accept(&store, &create(channel)).await;
    // Without a quorum nothing is taken.
    cluster.kill(0);
    cluster.kill(1);
    let frame = message(channel, 1, b"kept by its author");
    let refused = append(&store, &frame).await;
    assert!(
        matches!(refused, Err(AppendError::Store(StoreError::HomeUnreachable { .. }))),
        "{refused:?}"
    );
    assert_eq!(refused.map_err(|error| error.code()), Err(Code::HomeUnreachable));
    let batch = store
        .read(channel.log(), Offset::ZERO, 1_000, 10)
        .await
        .expect("a read");
    assert_eq!(batch.head, at(1));
    cluster.run(0);
    cluster.run(1);
    cluster.settled().await;
    let taken = taken_at_last(&store, &frame).await;
    assert_eq!(taken, at(2), "once, however often it got there");
    let batch = store
        .read(channel.log(), Offset::ZERO, 10_000, 10)
        .await
        .expect("a read");
    assert_eq!(batch.head, at(2));
    store.close().await.expect("closed");
}
