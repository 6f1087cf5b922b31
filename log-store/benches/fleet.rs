//! Figures of the fleet store beside those of bare JetStream: `cargo bench -p skytale-log-store --features cluster --bench fleet`.
//!
//! Everything runs on this machine: three servers that sync before they acknowledge, three copies of each stream, and the
//! clients. `SKYTALE_NATS_SERVER` names the server's program. `SKYTALE_BENCH_SECONDS` is how long each figure is taken.

#![allow(clippy::print_stdout, reason = "figures are what it is for")]

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::stream::Config;
use async_nats::{Client, HeaderMap, Request, jetstream};
use bytes::Bytes;
use futures_util::StreamExt as _;
use skytale_log_store::cluster::{Account, Cluster};
use skytale_log_store::fleet::{NatsAuth, NatsConfig, NatsTls, RegionConfig, Secret, SyncProof};
use skytale_log_store::{FleetConfig, FleetStore, LocalConfig, LogStore as _};
use skytale_proto::{AgentId, ChannelId, ChannelMode, Detail, Frame, FrameId, Header, LogId, Offset, Region};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const BODY: usize = 1_024;
const CHANNELS: usize = 100;
const AUTHOR: AgentId = AgentId::from_bytes([1; 32]);

fn seconds() -> Duration {
    let named = std::env::var("SKYTALE_BENCH_SECONDS")
        .ok()
        .and_then(|named| named.parse().ok());
    Duration::from_secs_f64(named.unwrap_or(4.0))
}

fn frame(log: LogId, parent: u64, detail: Detail) -> Frame {
    let header = Header {
        log,
        id: FrameId::generate(),
        author: AUTHOR,
        parent: Offset::new(parent),
        detail,
    };
    Frame::new(header, vec![7; BODY]).expect("a frame")
}

fn password(user: &str) -> NatsAuth {
    NatsAuth::Password {
        user: user.to_owned(),
        password: Secret::new("secret"),
    }
}

fn settings(account: &Account, dir: &Path, shards: u16) -> FleetConfig {
    let nats = NatsConfig {
        servers: account.servers.clone(),
        auth: password(&account.user),
        tls: NatsTls::default(),
        name: "bench".into(),
        inbox_prefix: None,
    };
    FleetConfig {
        regions: vec![RegionConfig {
            region: Region(0),
            shards,
            cluster: None,
            tags: Vec::new(),
        }],
        ..FleetConfig::new(nats, SyncProof::System(password("sys")), LocalConfig::new(dir))
    }
}

/// One atomic batch; gives what the stream said.
async fn batch(client: &Client, frames: &[(String, Bytes)], ids: Option<u64>) -> serde_json::Value {
    let id = format!("{:x?}", ChannelId::generate());
    let headers = |index: usize| {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Batch-Id", id.as_str());
        headers.insert("Nats-Batch-Sequence", (index + 1).to_string());
        if let Some(first) = ids {
            headers.insert("Nats-Msg-Id", (first + index as u64).to_string());
        }
        headers
    };
    let (last, others) = frames.split_last().expect("frames");
    for (index, (subject, payload)) in others.iter().enumerate() {
        let sent = client.publish_with_headers(subject.clone(), headers(index), payload.clone());
        sent.await.expect("sent");
    }
    let mut commit = headers(others.len());
    commit.insert("Nats-Batch-Commit", "1");
    let request = Request::new().headers(commit).payload(last.1.clone());
    let answer = client.send_request(last.0.clone(), request).await.expect("an answer");
    serde_json::from_slice(&answer.payload).expect("JSON")
}

async fn raw_stream(account: &Account, window: Duration) -> jetstream::Context {
    let context = account.context().await.expect("JetStream");
    let config = Config {
        name: "RAW".into(),
        subjects: vec!["raw.*".into()],
        num_replicas: 3,
        allow_atomic_publish: true,
        duplicate_window: window,
        ..Config::default()
    };
    context.create_stream(config).await.expect("a stream");
    context
}

/// Batches of bare JetStream a second, as messages a second.
async fn raw(cluster: &Cluster, size: usize, in_flight: usize, ids: bool) -> f64 {
    let account = cluster.account();
    let context = raw_stream(
        &account,
        if ids {
            Duration::from_secs(120)
        } else {
            Duration::from_millis(100)
        },
    )
    .await;
    let client = context.client();
    let payload = frame(ChannelId::generate().log(), 1, Detail::Message).encoded().clone();
    let (begun, limit) = (Instant::now(), seconds());
    let next = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let lanes = (0..in_flight).map(|lane| {
        let (client, payload, next) = (client.clone(), payload.clone(), next.clone());
        tokio::spawn(async move {
            let mut sent = 0;
            while begun.elapsed() < limit {
                let frames: Vec<(String, Bytes)> = (0..size)
                    .map(|index| (format!("raw.{}", (lane * 7 + index) % CHANNELS), payload.clone()))
                    .collect();
                let first = ids.then(|| next.fetch_add(size as u64, std::sync::atomic::Ordering::Relaxed));
                let said = batch(&client, &frames, first).await;
                assert!(said.get("error").is_none(), "{said}");
                sent += size;
            }
            sent
        })
    });
    let lanes: Vec<_> = lanes.collect();
    let mut sent = 0;
    for lane in lanes {
        sent += lane.await.expect("a lane");
    }
    let rate = sent as f64 / begun.elapsed().as_secs_f64();
    context.delete_stream("RAW").await.expect("deleted");
    rate
}

/// What a batch says that holds an id seen before.
async fn repeated_id(cluster: &Cluster) -> String {
    let account = cluster.account();
    let context = raw_stream(&account, Duration::from_secs(120)).await;
    let frames = vec![("raw.1".to_owned(), Bytes::from_static(b"x")); 3];
    batch(&context.client(), &frames, Some(0)).await;
    let said = batch(&context.client(), &frames, Some(2)).await;
    context.delete_stream("RAW").await.expect("deleted");
    said.to_string()
}

struct Written {
    rate: f64,
    p50: Duration,
    p99: Duration,
}

async fn channels(store: &FleetStore) -> Vec<ChannelId> {
    let channels: Vec<ChannelId> = (0..CHANNELS).map(|_| ChannelId::generate()).collect();
    for channel in &channels {
        let create = Detail::Create {
            mode: ChannelMode::Mls,
            account: None,
        };
        let made = store.append(frame(channel.log(), 0, create)).await.expect("queued");
        made.verdict().await.expect("accepted");
    }
    channels
}

/// Appends acknowledged, with so many on their way.
async fn appends(store: &FleetStore, channels: &[ChannelId], window: usize, limit: impl Fn(usize) -> bool) -> Written {
    let begun = Instant::now();
    let (mut pending, mut times) = (VecDeque::new(), Vec::new());
    let mut sent = 0;
    while limit(sent) || !pending.is_empty() {
        while pending.len() < window && limit(sent) {
            let channel = channels[sent % channels.len()];
            let append = store
                .append(frame(channel.log(), 1, Detail::Message))
                .await
                .expect("queued");
            pending.push_back((Instant::now(), append));
            sent += 1;
        }
        if let Some((since, append)) = pending.pop_front() {
            append.verdict().await.expect("accepted");
            times.push(since.elapsed());
        }
    }
    let took = begun.elapsed();
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    Written {
        rate: sent as f64 / took.as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
    }
}

async fn fleet(cluster: &Cluster, shards: u16, window: usize) -> Written {
    let (account, dir) = (cluster.account(), TempDir::new().expect("a folder"));
    let store = FleetStore::open(settings(&account, dir.path(), shards))
        .await
        .expect("opens");
    store.ready().await.expect("ready");
    let channels = channels(&store).await;
    let (begun, limit) = (Instant::now(), seconds());
    let written = appends(&store, &channels, window, |_| begun.elapsed() < limit).await;
    store.close().await.expect("closed");
    written
}

/// Replay of one channel of a hundred, through a node and by JetStream's own consumer; and the time in which an empty node
/// joins.
async fn replay(cluster: &Cluster, megabytes: usize) {
    let (account, dir) = (cluster.account(), TempDir::new().expect("a folder"));
    let store = FleetStore::open(settings(&account, dir.path(), 1))
        .await
        .expect("opens");
    store.ready().await.expect("ready");
    let channels = channels(&store).await;
    let total = megabytes * 1_000_000 / BODY;
    appends(&store, &channels, 4_096, |sent| sent < total).await;
    let log = channels[3].log();
    let begun = Instant::now();
    let (mut bytes, mut rounds) = (0, 0);
    while begun.elapsed() < seconds() {
        let mut after = Offset::ZERO;
        loop {
            let batch = store.read(log, after, 256 * 1024, u64::MAX).await.expect("read");
            bytes += batch.records.iter().map(Bytes::len).sum::<usize>();
            after = batch.last;
            if batch.last == batch.head {
                break;
            }
        }
        rounds += 1;
    }
    let node = bytes as f64 / begun.elapsed().as_secs_f64() / (1 << 20) as f64;
    println!("replay of one channel of 100 through a node: {node:.0} MiB/s ({rounds} times)");

    let context = account.context().await.expect("JetStream");
    let stream = context.get_stream("SKYTALE_LOG_0_0").await.expect("the stream");
    let subject = store.shard_of(&log).expect("a shard").subject(&log);
    let expected = stream.info_with_subjects(subject.clone()).await.expect("how many");
    drop(expected);
    let ordered = pull::OrderedConfig {
        deliver_policy: DeliverPolicy::All,
        filter_subject: subject,
        ..pull::OrderedConfig::default()
    };
    let consumer = stream.create_consumer(ordered).await.expect("a consumer");
    let mut messages = consumer.messages().await.expect("messages");
    let begun = Instant::now();
    let mut bytes = 0;
    while let Some(message) = messages.next().await {
        let message = message.expect("a message");
        bytes += message.payload.len();
        if message.info().expect("its place").pending == 0 {
            break;
        }
    }
    let consumer = bytes as f64 / begun.elapsed().as_secs_f64() / (1 << 20) as f64;
    println!(
        "replay of the same by an ordered consumer: {consumer:.1} MiB/s; through a node {:.0} times that",
        node / consumer
    );

    let empty = TempDir::new().expect("a folder");
    let begun = Instant::now();
    let joined = FleetStore::open(settings(&account, empty.path(), 1))
        .await
        .expect("opens");
    joined.ready().await.expect("ready");
    let took = begun.elapsed().as_secs_f64();
    println!(
        "an empty node joins a shard of {megabytes} MB in {took:.1} s: {:.0} messages/s",
        total as f64 / took
    );
    joined.close().await.expect("closed");
    store.close().await.expect("closed");
}

fn main() {
    // `cargo test --benches` runs this too: it has nothing to test.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let cluster = Cluster::start().await;
        println!("a batch with an id seen before: {}", repeated_id(&cluster).await);
        for (size, in_flight, ids) in [
            (512, 1, false),
            (512, 8, false),
            (64, 1, false),
            (64, 8, false),
            (8, 1, false),
            (8, 8, false),
            (512, 1, true),
        ] {
            let rate = raw(&cluster, size, in_flight, ids).await;
            let ids = if ids { ", with ids" } else { "" };
            println!("bare batches of {size}, {in_flight} in flight{ids}: {rate:.0} messages/s");
        }
        for (shards, window) in [(1, 1), (1, 64), (1, 512), (1, 4_096), (4, 512), (4, 4_096)] {
            let Written { rate, p50, p99 } = fleet(&cluster, shards, window).await;
            println!(
                "fleet, {shards} shards, {window} on their way: {rate:.0} appends/s, p50 {p50:.1?}, p99 {p99:.1?}"
            );
        }
        let megabytes = std::env::var("SKYTALE_BENCH_MEGABYTES")
            .ok()
            .and_then(|named| named.parse().ok());
        replay(&cluster, megabytes.unwrap_or(200)).await;
    });
}
