//! All NATS servers are put back to an older copy of their stores. Nothing is added to a stream that is shorter than what a
//! node has followed, whichever node is asked; what was followed is served; and the other shards go on.

use super::cluster::{Account, Cluster};
use super::nodes::records;
use super::script::*;
use skytale_log_store::fleet::{FleetConfig, Phase, RestoreError, Restored, ShardId, restore};
use skytale_log_store::{AppendError, FleetStore, LogStore as _, StoreError};
use skytale_proto::{ChannelId, Code, Frame, FrameId, LogId};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// These tests do not depend on the time that a contradiction must last.
fn patient(account: &Account, dir: &Path) -> FleetConfig {
    FleetConfig {
        alarm_after: Duration::from_secs(600),
        append_timeout: Duration::from_secs(3),
        ..settings(account, dir)
    }
}

async fn refuses(store: &FleetStore, channel: ChannelId, expected: &str) {
    let begun = Instant::now();
    loop {
        let appended = append(store, &message(channel, 1, b"onto a shorter stream")).await;
        match appended {
            Err(AppendError::Store(error @ StoreError::HomeUnreachable { .. }))
                if error.to_string().contains(expected) =>
            {
                return assert_eq!(error.code(), Code::HomeUnreachable);
            }
            Err(error) => assert!(error.code().is_retryable(), "{error}"),
            Ok(accepted) => panic!("taken at {}", accepted.offset),
        }
        assert!(begun.elapsed() < HANGING, "{:?}", store.readiness());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Channels of two shards.
fn channels_of_two(store: &FleetStore) -> [ChannelId; 2] {
    let on = |index| {
        let mut channels = std::iter::repeat_with(ChannelId::generate);
        let is_there =
            |channel: &ChannelId| store.shard_of(&channel.log()).map(|ShardId { index, .. }| index) == Some(index);
        channels.find(is_there).expect("a channel")
    };
    [on(0), on(1)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_whose_stream_went_back_is_read_only_everywhere_and_the_others_go_on() {
    let cluster = Cluster::start().await;
    let account = cluster.account();
    let dirs = [(); 2].map(|()| TempDir::new().expect("a folder"));
    let copies = [(); 3].map(|()| TempDir::new().expect("a folder"));
    let ahead = open(patient(&account, dirs[0].path())).await;
    let lags = open(patient(&account, dirs[1].path())).await;
    let [hurt, whole] = channels_of_two(&ahead);
    for channel in [hurt, whole] {
        accept(&ahead, &create(channel)).await;
        accept(&ahead, &message(channel, 1, b"in the backup")).await;
    }
    // This one will know no more than the backup has.
    super::nodes::reaches(&lags, hurt.log(), at(2)).await;
    super::nodes::reaches(&lags, whole.log(), at(2)).await;
    lags.close().await.expect("closed");
    for (server, copy) in copies.iter().enumerate() {
        cluster.kill(server);
        crate::local::script::copy_folder(&cluster.data(server), copy.path());
    }
    for server in 0..3 {
        cluster.run(server);
    }
    cluster.settled().await;
    // Only one of the two shards goes on, so that only one will be shorter.
    for _ in 0..3 {
        taken_at_last(&ahead, &message(hurt, 1, b"not in the backup")).await;
    }
    let all = records(&ahead, hurt.log()).await;
    for (server, copy) in copies.iter().enumerate() {
        cluster.kill(server);
        std::fs::remove_dir_all(cluster.data(server)).expect("removed");
        crate::local::script::copy_folder(copy.path(), &cluster.data(server));
    }
    for server in 0..3 {
        cluster.run(server);
    }
    cluster.settled().await;

    refuses(&ahead, hurt, "went back").await;
    assert_eq!(records(&ahead, hurt.log()).await, all);
    assert!(
        ahead.settled(hurt.log()).await.is_err(),
        "nobody knows whether there is more"
    );
    // A node that follows no further than the stream goes, and one that has nothing, hear from the first.
    let lags = FleetStore::open(patient(&account, dirs[1].path()))
        .await
        .expect("it opens");
    refuses(&lags, hurt, "another node has followed it").await;
    let empty = TempDir::new().expect("a folder");
    let empty = FleetStore::open(patient(&account, empty.path()))
        .await
        .expect("it opens");
    refuses(&empty, hurt, "another node has followed it").await;
    for store in [&ahead, &lags, &empty] {
        taken_at_last(store, &message(whole, 1, b"the other shard")).await;
    }
    for store in [ahead, lags, empty] {
        store.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_halted_shard_goes_on_when_its_stream_is_put_right() {
    let cluster = Cluster::start_with(1, super::cluster::Sync::Always).await;
    let account = cluster.account();
    let (dir, newer) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let older = TempDir::new().expect("a folder");
    let store = open(FleetConfig {
        replicas: 1,
        allow_weaker: true,
        ..settings(&account, dir.path())
    })
    .await;
    let channel = ChannelId::generate();
    accept(&store, &create(channel)).await;
    cluster.kill(0);
    crate::local::script::copy_folder(&cluster.data(0), older.path());
    cluster.run(0);
    cluster.settled().await;
    taken_at_last(&store, &message(channel, 1, b"newer")).await;
    cluster.kill(0);
    crate::local::script::copy_folder(&cluster.data(0), newer.path());
    for (copy, halted) in [(&older, true), (&newer, false)] {
        cluster.kill(0);
        std::fs::remove_dir_all(cluster.data(0)).expect("removed");
        crate::local::script::copy_folder(copy.path(), &cluster.data(0));
        cluster.run(0);
        cluster.settled().await;
        let begun = Instant::now();
        let is_halted = || store.health().shards.iter().any(|shard| shard.phase == Phase::Halted);
        while is_halted() != halted {
            assert!(begun.elapsed() < HANGING, "{:?}", store.readiness());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let read_only = |text: &String| text.contains("takes no appends, and is served as far");
        let readiness = store.readiness();
        let said = readiness.problems.iter().chain(&readiness.remarks).any(read_only);
        assert_eq!(said, halted, "{readiness:?}");
        assert_eq!(records(&store, channel.log()).await.len(), 2);
    }
    taken_at_last(&store, &message(channel, 1, b"and on")).await;
    store.close().await.expect("closed");
}

/// One server whose store was put back to what it held before `lost` was acknowledged; and the replica, which has all.
struct PutBack {
    cluster: Cluster,
    account: Account,
    replica: TempDir,
    channel: ChannelId,
    agents: [skytale_proto::AgentId; 2],
    /// Of each log, what was acknowledged: frame ids by offset.
    logs: Vec<(LogId, Vec<FrameId>)>,
}

fn one_copy(account: &Account, dir: &Path) -> FleetConfig {
    FleetConfig {
        replicas: 1,
        allow_weaker: true,
        ..settings(account, dir)
    }
}

async fn ids(store: &FleetStore, log: LogId) -> Vec<FrameId> {
    let frames = records(store, log).await.into_iter();
    frames
        .map(|record| Frame::decode(record.payload).expect("a frame").header().id)
        .collect()
}

async fn put_back() -> PutBack {
    let cluster = Cluster::start_with(1, super::cluster::Sync::Always).await;
    let account = cluster.account();
    let (replica, older) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let store = open(one_copy(&account, replica.path())).await;
    let channel = ChannelId::generate();
    let agents = [someone(), someone()];
    accept(&store, &create(channel)).await;
    for agent in agents {
        accept(&store, &key_package(agent, false)).await;
    }
    accept(&store, &message(channel, 1, b"in the backup")).await;
    cluster.kill(0);
    crate::local::script::copy_folder(&cluster.data(0), older.path());
    cluster.run(0);
    cluster.settled().await;
    // Entries of every kind, what is refused between them, and a bundle whose recipients' logs go on before their Welcomes.
    let said = message(channel, 1, b"not in the backup");
    taken_at_last(&store, &said).await;
    for agent in agents {
        accept(&store, &claim(agent)).await;
    }
    accept(&store, &key_package(agents[0], false)).await;
    let parent = accept(&store, &bundle(channel, 1, &agents)).await.offset.get();
    append(&store, &bundle(channel, 1, &agents))
        .await
        .expect_err("a commit came first");
    accept(&store, &key_package(agents[1], true)).await;
    assert!(accept(&store, &said).await.duplicate);
    for _ in 0..200 {
        accept(&store, &message(channel, parent, b"nor this")).await;
    }
    let mut logs = Vec::new();
    for log in [channel.log(), agents[0].log(), agents[1].log()] {
        logs.push((log, ids(&store, log).await));
    }
    store.close().await.expect("closed");
    cluster.kill(0);
    std::fs::remove_dir_all(cluster.data(0)).expect("removed");
    crate::local::script::copy_folder(older.path(), &cluster.data(0));
    cluster.run(0);
    cluster.settled().await;
    PutBack {
        cluster,
        account,
        replica,
        channel,
        agents,
        logs,
    }
}

async fn restored(put_back: &PutBack, is_dry: bool) -> Result<Restored, RestoreError> {
    let empty = TempDir::new().expect("a folder");
    let replicas = [put_back.replica.path().to_owned()];
    restore(one_copy(&put_back.account, empty.path()), &replicas, is_dry, |_| {}).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_holds_is_put_back_at_the_offsets_that_it_had() {
    let put_back = put_back().await;
    let entries = put_back.logs.iter().map(|(_, ids)| ids.len() as u64).sum();
    let dry = restored(&put_back, true).await.expect("compared");
    assert_eq!((dry.entries, dry.logs), (entries, 3));
    assert_eq!(dry.missing, entries - 4);
    // A dry run appends nothing.
    assert_eq!(restored(&put_back, true).await.expect("compared again"), dry);
    assert_eq!(restored(&put_back, false).await.expect("put back"), dry);
    let again = restored(&put_back, false).await.expect("nothing is missing");
    assert_eq!((again.entries, again.missing, again.logs), (entries, 0, 0));

    let fresh = TempDir::new().expect("a folder");
    let store = open(one_copy(&put_back.account, fresh.path())).await;
    for (log, expected) in &put_back.logs {
        assert_eq!(ids(&store, *log).await, *expected, "{log}");
    }
    // The claim is remembered, and the package that it took is gone.
    let stock = store.key_packages(put_back.agents[0]).await.expect("a stock");
    assert_eq!((stock.live, stock.last_resort), (1, false));
    store.close().await.expect("closed");
    drop(put_back.cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_put_back_beside_running_nodes_or_onto_another_history() {
    let put_back = put_back().await;
    let fresh = TempDir::new().expect("a folder");
    let store = open(one_copy(&put_back.account, fresh.path())).await;
    let error = restored(&put_back, false).await.expect_err("a node runs");
    assert!(matches!(error, RestoreError::NodesRun { nodes: 1 }), "{error}");
    let another = accept(&store, &message(put_back.channel, 1, b"another history")).await;
    store.close().await.expect("closed");
    let before = extent_of(&put_back.account).await;
    let error = loop {
        match restored(&put_back, false).await.expect_err("another history") {
            // It was heard a moment ago.
            RestoreError::NodesRun { .. } => tokio::time::sleep(Duration::from_millis(500)).await,
            error => break error,
        }
    };
    let RestoreError::OtherEntry { log, offset, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((log, offset), (put_back.channel.log(), another.offset));
    assert_eq!(extent_of(&put_back.account).await, before, "nothing was appended");
}

/// Messages in all streams.
async fn extent_of(account: &Account) -> u64 {
    let mut all = 0;
    for stream in ["SKYTALE_LOG_0_0", "SKYTALE_LOG_0_1"] {
        all += account.stream(stream).await.cached_info().state.messages;
    }
    all
}
