//! A node that finds its streams to be other than promised, or than what it folded, does not go on; and says why.

use super::cluster::{Account, Cluster, Sync};
use super::nodes::records;
use super::script::*;
use async_nats::jetstream::stream::Config;
use skytale_log_store::fleet::{self, FleetConfig, NatsAuth, OpenError, Phase, Secret, SyncProof};
use skytale_log_store::{AppendError, FleetStore, LogStore as _, StoreError};
use skytale_proto::session::Durability;
use skytale_proto::{ChannelId, Code};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

async fn refused(config: FleetConfig) -> OpenError {
    match FleetStore::open(config).await {
        Ok(_) => panic!("it opens"),
        Err(error) => error,
    }
}

/// A node that has followed a channel of three entries, closed; and the account.
async fn followed() -> (Account, Streams, TempDir, ChannelId) {
    let (account, streams) = shared_account().await;
    let dir = TempDir::new().expect("a folder");
    let store = open(settings(&account, dir.path())).await;
    let channel = ChannelId::generate();
    accept(&store, &create(channel)).await;
    for _ in 0..2 {
        accept(&store, &message(channel, 1, b"kept")).await;
    }
    store.close().await.expect("closed");
    (account, streams, dir, channel)
}

/// The stream of a channel with two shards, and its configuration.
async fn stream_of(account: &Account, channel: ChannelId) -> (String, Config) {
    let shards = fleet::Shards::new([(skytale_proto::Region(0), 2)]).expect("shards");
    let name = shards.of(&channel.log()).expect("a shard").stream();
    let config = account.stream(&name).await.cached_info().config.clone();
    (name, config)
}

/// Reads go on; appends to this shard are refused with the reason, and may be tried again, since the stream may be put right.
async fn is_read_only(store: &FleetStore, channel: ChannelId, expected: &str) {
    let begun = Instant::now();
    let reason = loop {
        let halted = store.health().halted;
        if let [halted] = &halted[..] {
            break halted.reason.clone();
        }
        assert!(begun.elapsed() < HANGING, "{:?}", store.health());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(reason.contains(expected), "{reason}");
    assert_eq!(records(store, channel.log()).await.len(), 3);
    let append = append(store, &message(channel, 1, b"more")).await;
    let Err(AppendError::Store(StoreError::HomeUnreachable { reason, .. })) = append else {
        panic!("{append:?}");
    };
    assert!(reason.contains(expected), "{reason}");
    assert_eq!(store.health().stopped, None);
    store.close().await.expect("closed");
}

/// Reads go on, appends are refused with the reason.
async fn serves_reads_alone(store: &FleetStore, channel: ChannelId, expected: &str) {
    let reason = why_stopped(store).await;
    assert!(reason.contains(expected), "{reason}");
    assert_eq!(records(store, channel.log()).await.len(), 3);
    let append = append(store, &message(channel, 1, b"more")).await;
    let Err(AppendError::Store(StoreError::Stopped { reason })) = append else {
        panic!("{append:?}");
    };
    assert!(reason.contains(expected), "{reason}");
    let health = store.health();
    assert!(!health.ready);
    assert_eq!(health.stopped.as_deref(), Some(reason.as_str()));
    assert!(health.shards.iter().any(|shard| shard.phase == Phase::Stopped));
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_stream_is_not_made_again() {
    let (account, _streams, dir, channel) = followed().await;
    let (name, _) = stream_of(&account, channel).await;
    let context = account.context().await.expect("JetStream");
    context.delete_stream(&name).await.expect("deleted");
    let store = FleetStore::open(settings(&account, dir.path()))
        .await
        .expect("it opens, to be read");
    is_read_only(&store, channel, "is missing").await;
    assert!(context.get_stream(&name).await.is_err(), "nobody made it again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_made_anew_is_noticed() {
    let (account, _streams, dir, channel) = followed().await;
    let (name, config) = stream_of(&account, channel).await;
    let context = account.context().await.expect("JetStream");
    context.delete_stream(&name).await.expect("deleted");
    context.create_stream(config).await.expect("made anew");
    let store = FleetStore::open(settings(&account, dir.path()))
        .await
        .expect("it opens, to be read");
    is_read_only(&store, channel, "was recreated").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_deleted_under_a_running_node_stops_it() {
    let (account, _streams) = shared_account().await;
    let dir = TempDir::new().expect("a folder");
    let store = open(settings(&account, dir.path())).await;
    let channel = ChannelId::generate();
    accept(&store, &create(channel)).await;
    for _ in 0..2 {
        accept(&store, &message(channel, 1, b"kept")).await;
    }
    let (name, _) = stream_of(&account, channel).await;
    let context = account.context().await.expect("JetStream");
    context.delete_stream(&name).await.expect("deleted");
    is_read_only(&store, channel, "is missing").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_past_what_was_followed_without_a_checkpoint_is_noticed() {
    let (account, _streams, dir, channel) = followed().await;
    let (name, _) = stream_of(&account, channel).await;
    let context = account.context().await.expect("JetStream");
    let other = open(settings(&account, TempDir::new().expect("a folder").path())).await;
    for _ in 0..5 {
        accept(&other, &message(channel, 1, b"more")).await;
    }
    other.close().await.expect("closed");
    let stream = context.get_stream(&name).await.expect("the stream");
    stream.purge().sequence(7).await.expect("purged");
    let store = FleetStore::open(settings(&account, dir.path()))
        .await
        .expect("it opens, to be read");
    serves_reads_alone(&store, channel, "no checkpoint").await;
}

/// One server, whose data a test may put back.
async fn one_server(sync: Sync) -> (Cluster, Account) {
    let cluster = Cluster::start_with(1, sync).await;
    let account = cluster.account();
    (cluster, account)
}

fn weaker(account: &Account, dir: &std::path::Path) -> FleetConfig {
    FleetConfig {
        replicas: 1,
        allow_weaker: true,
        ..settings(account, dir)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_went_back_or_holds_other_bytes_is_noticed() {
    let (cluster, account) = one_server(Sync::Always).await;
    let dir = TempDir::new().expect("a folder");
    let older = TempDir::new().expect("a folder");
    let store = open(weaker(&account, dir.path())).await;
    let channel = ChannelId::generate();
    accept(&store, &create(channel)).await;
    cluster.kill(0);
    crate::local::script::copy_folder(&cluster.data(0), older.path());
    cluster.run(0);
    cluster.settled().await;
    for _ in 0..2 {
        accept(
            &store,
            &message(channel, 1, b"acknowledged, and then lost by the server"),
        )
        .await;
    }
    store.close().await.expect("closed");
    let copies = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
    for copy in &copies {
        crate::local::script::copy_folder(dir.path(), copy.path());
    }

    // A backup of the server's data is put back.
    cluster.kill(0);
    std::fs::remove_dir_all(cluster.data(0)).expect("removed");
    crate::local::script::copy_folder(older.path(), &cluster.data(0));
    cluster.run(0);
    cluster.settled().await;
    let store = FleetStore::open(weaker(&account, copies[0].path()))
        .await
        .expect("it opens, to be read");
    is_read_only(&store, channel, "went back").await;

    // Another node goes on from there: now other bytes are where these were.
    let fresh = TempDir::new().expect("a folder");
    let other = open(weaker(&account, fresh.path())).await;
    for _ in 0..4 {
        accept(&other, &message(channel, 1, b"another history")).await;
    }
    other.close().await.expect("closed");
    let store = FleetStore::open(weaker(&account, copies[1].path()))
        .await
        .expect("it opens, to be read");
    is_read_only(&store, channel, "other bytes").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_settings_than_the_streams_were_made_with_are_refused() {
    let (account, _streams, dir, _) = followed().await;
    let mut config = settings(&account, TempDir::new().expect("a folder").path());
    config.regions[0].shards = 3;
    let error = refused(config).await;
    assert_eq!(error.code(), Code::Config);
    assert!(error.to_string().contains("skytale-shards is `0:2`"), "{error}");

    let fewer = FleetConfig {
        replicas: 5,
        ..settings(&account, TempDir::new().expect("a folder").path())
    };
    let error = refused(fewer).await;
    assert!(error.to_string().contains("fewer replicas"), "{error}");

    let mut config = settings(&account, dir.path());
    config.regions[0].shards = 1;
    let error = refused(config).await;
    assert_eq!(error.code(), Code::Config, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_do_not_sync_are_refused_or_said_in_every_acknowledgement() {
    let (_cluster, account) = one_server(Sync::Sometimes).await;
    let dir = TempDir::new().expect("a folder");
    let strict = FleetConfig {
        allow_weaker: false,
        ..weaker(&account, dir.path())
    };
    let error = refused(strict).await;
    assert_eq!(error.code(), Code::Config);
    assert!(error.to_string().contains("sync_interval"), "{error}");
    let store = open(weaker(&account, dir.path())).await;
    assert_eq!(store.durability(), Durability::Unsynced);
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_says_how_many_copies_there_are() {
    let (_cluster, account) = one_server(Sync::Always).await;
    let dir = TempDir::new().expect("a folder");
    let strict = FleetConfig {
        allow_weaker: false,
        ..weaker(&account, dir.path())
    };
    let error = refused(strict).await;
    assert!(error.to_string().contains("one copy"), "{error}");
    let store = open(weaker(&account, dir.path())).await;
    assert_eq!(store.durability(), Durability::NodeSynced);
    store.close().await.expect("closed");

    let (account, _streams) = shared_account().await;
    let dir = TempDir::new().expect("a folder");
    let store = open(settings(&account, dir.path())).await;
    assert_eq!(store.durability(), Durability::QuorumSynced);
    store.close().await.expect("closed");
    let stated = FleetConfig {
        sync: SyncProof::Stated { always: false },
        allow_weaker: true,
        ..settings(&account, dir.path())
    };
    let store = open(stated).await;
    assert_eq!(store.durability(), Durability::Unsynced);
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_do_not_answer_are_named() {
    let dir = TempDir::new().expect("a folder");
    let nowhere = Account {
        user: "relay0".into(),
        servers: vec!["nats://127.0.0.1:1".into()],
        nodes_file: dir.path().join("nodes"),
    };
    let config = FleetConfig {
        open_timeout: Duration::from_millis(300),
        ..settings(&nowhere, dir.path())
    };
    let error = refused(config).await;
    assert_eq!(error.code(), Code::HomeUnreachable);
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

/// A way to a server that ends its first connections once the client has said who it is, as a busy server does before its
/// word is out. Gives its port.
async fn way_that_ends_the_first(connections: usize, server: &str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let server = server.trim_start_matches("nats://").to_owned();
    tokio::spawn(async move {
        for connection in 0.. {
            let (mut client, _) = listener.accept().await.expect("a client");
            let mut behind = TcpStream::connect(&server).await.expect("the server answers");
            if connection < connections {
                let mut said = [0; 4096];
                let length = behind.read(&mut said).await.expect("its greeting");
                client.write_all(&said[..length]).await.expect("passed on");
                let length = client.read(&mut said).await.expect("the client's name");
                assert!(length > 0, "the client has said something");
            } else {
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut behind).await });
            }
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_user_is_called_so_where_the_server_ends_the_connection_before_its_word_is_out() {
    let (account, _streams) = shared_account().await;
    let mut nats = settings(&account, TempDir::new().expect("a folder").path()).nats;
    let port = way_that_ends_the_first(2, &account.servers[0]).await;
    nats.servers = vec![format!("nats://127.0.0.1:{port}")];
    nats.auth = NatsAuth::Password {
        user: "nobody".into(),
        password: Secret::new("of this name"),
    };
    let found = fleet::reach(&nats, HANGING).await;
    assert!(matches!(&found[..], [OpenError::Denied { .. }]), "{found:?}");
    // One that always ends it fails, and nobody waits for it for ever.
    let port = way_that_ends_the_first(usize::MAX, &account.servers[0]).await;
    nats.servers = vec![format!("nats://127.0.0.1:{port}")];
    let found = fleet::reach(&nats, HANGING).await;
    assert!(matches!(&found[..], [OpenError::Unreachable { .. }]), "{found:?}");
}
