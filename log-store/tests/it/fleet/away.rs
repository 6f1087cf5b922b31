//! Servers that are away, or cut off from each other: a node says so, serves what it has, and goes on by itself.

use super::cluster::{Account, Cluster};
use super::nodes::{reaches, records};
use super::script::*;
use skytale_log_store::fleet::{FleetConfig, Phase, RegionConfig};
use skytale_log_store::{Access, FleetStore, LogStore as _, StoreError};
use skytale_proto::{ChannelId, Code, Region};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Waiting for longer is hanging.
const HANGING: Duration = Duration::from_secs(120);

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
    let context = account.context().await.expect("JetStream");
    let mut stream = context.get_stream(stream).await.expect("the stream");
    let cluster = stream
        .info()
        .await
        .expect("its state")
        .cluster
        .clone()
        .expect("a cluster");
    let leader = cluster.leader.expect("a leader");
    leader
        .strip_prefix('n')
        .and_then(|number| number.parse().ok())
        .expect("a server")
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
    let beyond = || store.read(channel.log(), at(2), 1_000, 10);
    assert!(
        matches!(beyond().await, Err(StoreError::BeyondHead { .. })),
        "nobody gave it out"
    );
    for server in (0..3).filter(|server| *server != leader) {
        cluster.kill(server);
    }
    // The others may have acknowledged the next entry to somebody: the leader would not know.
    let cut_off = Instant::now();
    while cut_off.elapsed() < Duration::from_secs(8) {
        let code = beyond().await.expect_err("no such entry is here").code();
        assert!(matches!(code, Code::CatchingUp | Code::HomeUnreachable), "{code}");
        let stranger = someone();
        let access = store.access(channel.log(), stranger, ACCOUNT, at(0)).await;
        if cut_off.elapsed() > Duration::from_secs(5) {
            let code = access.expect_err("nobody can say").code();
            assert!(matches!(code, Code::CatchingUp | Code::HomeUnreachable), "{code}");
        }
    }
    for server in (0..3).filter(|server| *server != leader) {
        cluster.run(server);
    }
    cluster.settled().await;
    let begun = Instant::now();
    loop {
        match beyond().await {
            Err(StoreError::BeyondHead { .. }) => break,
            Err(error) => assert!(error.code().is_retryable() && begun.elapsed() < HANGING, "{error}"),
            Ok(batch) => panic!("{batch:?}"),
        }
    }
    assert_eq!(
        store.access(channel.log(), someone(), ACCOUNT, at(0)).await,
        Ok(Access::NotMember { next: None })
    );
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_that_nobody_gave_out_cost_the_stream_next_to_nothing() {
    let (account, _streams) = shared_account().await;
    let dir = TempDir::new().expect("a folder");
    let config = FleetConfig {
        append_timeout: Duration::from_secs(1),
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
                    matches!(error, StoreError::BeyondHead { .. } | StoreError::CatchingUp { .. }),
                    "{error}"
                );
            }
        }));
    }
    for reader in readers {
        reader.await.expect("it ends");
    }
    let context = account.context().await.expect("JetStream");
    let mut stream = context.get_stream("SKYTALE_LOG_0_0").await.expect("the stream");
    let last = stream.info().await.expect("its state").state.last_sequence;
    assert!(last < 20, "{last} messages for 512 reads");
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
