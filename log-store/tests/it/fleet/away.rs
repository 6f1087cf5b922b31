//! Servers that are away, or cut off from each other: a node says so, serves what it has, and goes on by itself.

use super::cluster::{Account, Cluster, Sync};
use super::nodes::{reaches, records};
use super::script::*;
use skytale_log_store::fleet::{FleetConfig, Phase, RegionConfig};
use skytale_log_store::{Access, AppendError, FleetStore, LogStore as _, StoreError};
use skytale_proto::{ChannelId, Code, Region};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A node connected to one server first, with so many shards.
fn at_server(account: &Account, server: usize, shards: u16, dir: &Path) -> FleetConfig {
    let mut config = FleetConfig {
        regions: vec![RegionConfig {
            region: Region(0),
            shards,
            cluster: None,
            tags: Vec::new(),
        }],
        request_timeout: Duration::from_secs(1),
        append_timeout: Duration::from_secs(3),
        ..settings(account, dir)
    };
    config.nats.servers = vec![account.servers[server].clone()];
    config
}

async fn until(store: &FleetStore, what: &str, holds: impl Fn(&FleetStore) -> bool) {
    let begun = Instant::now();
    while !holds(store) {
        assert!(begun.elapsed() < HANGING, "{what}: {:?}", store.health());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn all(store: &FleetStore, phase: Phase) -> bool {
    store.health().shards.iter().all(|shard| shard.phase == phase)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_without_their_majority_are_said_not_to_answer_until_they_do() {
    let cluster = Cluster::start().await;
    let account = cluster.account();
    let dir = TempDir::new().expect("a folder");
    // Enough shards that some are followed by way of the server that stays.
    let store = open(at_server(&account, 2, 8, dir.path())).await;
    assert!(all(&store, Phase::Following));
    cluster.kill(0);
    cluster.kill(1);
    until(&store, "every shard is away", |store| all(store, Phase::Unreachable)).await;
    let readiness = store.readiness();
    assert!(
        readiness
            .problems
            .iter()
            .any(|problem| problem.contains("do not answer")),
        "{readiness:?}"
    );
    for server in [0, 1] {
        cluster.run(server);
    }
    cluster.settled().await;
    until(&store, "every shard is back", |store| all(store, Phase::Following)).await;
    assert_eq!(store.readiness().problems, Vec::<String>::new());
    store.close().await.expect("closed");
}

/// The server that leads a stream.
async fn leader_of(account: &Account, stream: &str) -> usize {
    let begun = Instant::now();
    loop {
        let found = account.stream(stream).await;
        let cluster = found.cached_info().cluster.as_ref().expect("a cluster");
        if let Some(leader) = &cluster.leader {
            let number = leader.strip_prefix('n').and_then(|number| number.parse().ok());
            return number.expect("a server");
        }
        assert!(begun.elapsed() < HANGING, "nobody leads {stream}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Reads after a cursor that nobody gave out, until the node says so.
async fn is_beyond_head(store: &FleetStore, channel: ChannelId) {
    let begun = Instant::now();
    loop {
        match store.read(channel.log(), at(2), 1_000, 10).await {
            Err(StoreError::BeyondHead { .. }) => return,
            Err(error) => assert!(error.code().is_retryable() && begun.elapsed() < HANGING, "{error}"),
            Ok(batch) => panic!("{batch:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_cut_off_calls_no_cursor_wrong() {
    let cluster = Cluster::start().await;
    let account = cluster.account();
    let dir = TempDir::new().expect("a folder");
    let maker = open(at_server(&account, 0, 1, dir.path())).await;
    let channel = ChannelId::generate();
    accept(&maker, &create(channel)).await;
    maker.close().await.expect("closed");
    // A node that talks to the leader alone.
    let leader = leader_of(&account, "SKYTALE_LOG_0_0").await;
    let dir = TempDir::new().expect("a folder");
    let store = open(at_server(&account, leader, 1, dir.path())).await;
    is_beyond_head(&store, channel).await;
    for server in (0..3).filter(|server| *server != leader) {
        cluster.kill(server);
    }
    // The others may have acknowledged the next entry to somebody: the leader would not know.
    let cut_off = Instant::now();
    while cut_off.elapsed() < Duration::from_secs(8) {
        let beyond = store.read(channel.log(), at(2), 1_000, 10).await;
        let code = beyond.expect_err("no such entry is here").code();
        assert!(matches!(code, Code::CatchingUp | Code::HomeUnreachable), "{code}");
        let stranger = someone();
        let has_noticed = cut_off.elapsed() > Duration::from_secs(5);
        let access = store.access(channel.log(), stranger, ACCOUNT, at(0)).await;
        if has_noticed {
            let code = access.expect_err("nobody can say").code();
            assert!(matches!(code, Code::CatchingUp | Code::HomeUnreachable), "{code}");
        }
    }
    for server in (0..3).filter(|server| *server != leader) {
        cluster.run(server);
    }
    cluster.settled().await;
    is_beyond_head(&store, channel).await;
    let begun = Instant::now();
    let access = loop {
        match store.access(channel.log(), someone(), ACCOUNT, at(0)).await {
            Err(error) if error.code().is_retryable() && begun.elapsed() < HANGING => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            access => break access,
        }
    };
    assert_eq!(access, Ok(Access::NotMember { next: None }));
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_that_nobody_gave_out_cost_the_stream_next_to_nothing() {
    let (account, _streams) = shared_account().await;
    let dir = TempDir::new().expect("a folder");
    // What counts here is the number of messages: a slow answer is no failure.
    let patient = settings(&account, dir.path());
    let config = FleetConfig {
        request_timeout: patient.request_timeout,
        append_timeout: patient.append_timeout,
        ..at_server(&account, 0, 1, dir.path())
    };
    let store = std::sync::Arc::new(open(config).await);
    let channel = ChannelId::generate();
    accept(&store, &create(channel)).await;
    let mut readers = Vec::new();
    for _ in 0..64 {
        let store = store.clone();
        readers.push(tokio::spawn(async move {
            for _ in 0..8 {
                let read = store.read(channel.log(), at(99), 1_000, 10).await;
                let error = read.expect_err("no such entry");
                assert!(
                    matches!(error, StoreError::BeyondHead { .. }) || error.code().is_retryable(),
                    "{error}"
                );
            }
        }));
    }
    for reader in readers {
        reader.await.expect("it ends");
    }
    let last = account
        .stream("SKYTALE_LOG_0_0")
        .await
        .cached_info()
        .state
        .last_sequence;
    assert!(last < 100, "{last} messages for 512 reads");
    // They are no entries, on any node.
    accept(&store, &message(channel, 1, b"after the marks")).await;
    let other = TempDir::new().expect("a folder");
    let other = open(at_server(&account, 1, 1, other.path())).await;
    reaches(&other, channel.log(), at(2)).await;
    assert_eq!(
        records(&other, channel.log()).await,
        records(&store, channel.log()).await
    );
    other.close().await.expect("closed");
    store.close().await.expect("closed");
}

async fn refused_for_now(store: &FleetStore, frame: &skytale_proto::Frame) {
    let refused = append(store, frame).await;
    assert!(
        matches!(refused, Err(AppendError::Store(StoreError::HomeUnreachable { .. }))),
        "{refused:?}"
    );
}

/// A node that has followed a channel of three entries, closed.
async fn followed(config: FleetConfig) -> ChannelId {
    let store = open(config).await;
    let channel = ChannelId::generate();
    accept(&store, &create(channel)).await;
    for _ in 0..2 {
        accept(&store, &message(channel, 1, b"kept")).await;
    }
    store.close().await.expect("closed");
    channel
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_from_its_replica_while_nats_is_away_and_goes_on_by_itself() {
    let cluster = Cluster::start().await;
    let account = cluster.account();
    let dirs = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
    let config = |dir: &TempDir| at_server(&account, 0, 2, dir.path());
    let channel = followed(config(&dirs[0])).await;
    // Entries that it has not seen.
    let other = open(at_server(&account, 1, 2, dirs[1].path())).await;
    accept(&other, &message(channel, 1, b"while it was away")).await;
    other.close().await.expect("closed");
    for server in 0..3 {
        cluster.kill(server);
    }

    let store = FleetStore::open(config(&dirs[0])).await.expect("it opens without NATS");
    assert_eq!(
        records(&store, channel.log()).await.len(),
        3,
        "what was followed is served"
    );
    let frame = message(channel, 1, b"kept by its author");
    refused_for_now(&store, &frame).await;
    // It reports nothing as wrong that it cannot know.
    for error in [
        store
            .read(channel.log(), at(9), 1_000, 10)
            .await
            .expect_err("no such entry"),
        store
            .access(ChannelId::generate().log(), someone(), ACCOUNT, at(0))
            .await
            .expect_err("no such log here"),
    ] {
        assert!(
            matches!(error.code(), Code::CatchingUp | Code::HomeUnreachable),
            "{error}"
        );
    }
    let readiness = store.readiness();
    for reason in ["no NATS server is connected", "appends are refused until the stream"] {
        assert!(
            readiness.problems.iter().any(|problem| problem.contains(reason)),
            "{readiness:?}"
        );
    }
    assert!(store.health().stopped.is_none() && !store.health().ready);

    for server in 0..3 {
        cluster.run(server);
    }
    cluster.settled().await;
    assert_eq!(taken_at_last(&store, &frame).await, at(5), "after what it had not seen");
    store.ready().await.expect("it catches up");
    until(&store, "every shard is there", |store| all(store, Phase::Following)).await;
    assert_eq!(store.readiness().problems, Vec::<String>::new());
    let other = open(config(&dirs[1])).await;
    assert_eq!(
        records(&other, channel.log()).await,
        records(&store, channel.log()).await
    );
    for store in [store, other] {
        store.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_while_its_streams_have_no_majority() {
    let cluster = Cluster::start().await;
    let account = cluster.account();
    let dir = TempDir::new().expect("a folder");
    let channel = followed(at_server(&account, 0, 2, dir.path())).await;
    cluster.kill(1);
    cluster.kill(2);
    let store = FleetStore::open(at_server(&account, 0, 2, dir.path()))
        .await
        .expect("it opens");
    assert_eq!(records(&store, channel.log()).await.len(), 3);
    let frame = message(channel, 1, b"kept by its author");
    let refused = append(&store, &frame).await.map_err(|error| error.code());
    assert_eq!(refused, Err(Code::HomeUnreachable));
    cluster.run(1);
    cluster.run(2);
    cluster.settled().await;
    assert_eq!(taken_at_last(&store, &frame).await, at(4));
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_contradicts_is_found_when_nats_comes_before_anything_is_appended() {
    let cluster = Cluster::start_with(1, Sync::Always).await;
    let account = cluster.account();
    let dir = TempDir::new().expect("a folder");
    let config = |shards| FleetConfig {
        replicas: 1,
        allow_weaker: true,
        ..at_server(&account, 0, shards, dir.path())
    };
    let channel = followed(config(1)).await;
    // Somebody made the fleet's streams for two shards meanwhile.
    let stream = account.stream("SKYTALE_LOG_0_0").await;
    let mut other = stream.cached_info().config.clone();
    other.metadata.insert("skytale-shards".into(), "0:2".into());
    update_stream(&account, &other).await;
    cluster.kill(0);

    let Err(error) = FleetStore::open(config(2)).await else {
        panic!("the replica was followed with one shard");
    };
    assert_eq!(error.code(), Code::Config);
    assert!(error.to_string().contains("`0:1`"), "{error}");

    let store = FleetStore::open(config(1)).await.expect("it opens without NATS");
    let frame = message(channel, 1, b"of another fleet");
    refused_for_now(&store, &frame).await;
    cluster.run(0);
    let mut stopped = store.stopped();
    loop {
        tokio::select! {
            stopped = stopped.wait_for(Option::is_some) => {
                let reason = stopped.expect("the store is there").clone().unwrap_or_default();
                assert!(reason.contains("skytale-shards is `0:2`"), "{reason}");
                break;
            }
            answer = append(&store, &frame) => assert!(answer.is_err(), "it was taken"),
            () = tokio::time::sleep(HANGING) => panic!("it does not stop"),
        }
    }
    assert_eq!(records(&store, channel.log()).await.len(), 3);
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_nothing_to_serve_does_not_start_without_nats() {
    let dir = TempDir::new().expect("a folder");
    let nowhere = Account {
        user: "relay0".into(),
        servers: vec!["nats://127.0.0.1:1".into()],
        nodes_file: dir.path().join("nodes"),
    };
    let config = FleetConfig {
        open_timeout: Duration::from_millis(300),
        ..at_server(&nowhere, 0, 2, dir.path())
    };
    for _ in 0..2 {
        let Err(error) = FleetStore::open(config.clone()).await else {
            panic!("it opens");
        };
        assert_eq!(error.code(), Code::HomeUnreachable, "{error}");
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_slow_to_say_whether_it_syncs_is_asked_again() {
    let cluster = Cluster::start().await;
    let account = cluster.account();
    let dir = TempDir::new().expect("a folder");
    // The streams are there; the third server stalls, and says nothing.
    let made = TempDir::new().expect("a folder");
    open(at_server(&account, 0, 1, made.path()))
        .await
        .close()
        .await
        .expect("closed");
    cluster.signal(2, "STOP");
    let opening = tokio::spawn(FleetStore::open(FleetConfig {
        open_timeout: HANGING,
        ..at_server(&account, 0, 1, dir.path())
    }));
    tokio::time::sleep(Duration::from_secs(4)).await;
    cluster.signal(2, "CONT");
    let store = opening.await.expect("it ends").expect("it opens");
    assert_eq!(store.durability(), skytale_proto::session::Durability::QuorumSynced);
    store.close().await.expect("closed");
}
