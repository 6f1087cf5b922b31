//! Entries older than the retention go, on all nodes alike; and a node without a replica begins with a checkpoint.

use super::cluster::Account;
use super::nodes::reaches;
use super::script::*;
use skytale_log_store::fleet::{FleetConfig, OpenError, RegionConfig};
use skytale_log_store::{FleetStore, LogStore as _, StoreError};
use skytale_proto::{AgentId, ChannelId, LogId, Offset, Record, Region};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(super) const EVERY: u64 = 20;

/// One shard, with a checkpoint every few messages.
pub(super) fn one_shard(account: &Account, dir: &TempDir, retention: Option<Duration>) -> FleetConfig {
    FleetConfig {
        regions: vec![RegionConfig {
            region: Region(0),
            shards: 1,
            cluster: None,
            tags: Vec::new(),
        }],
        checkpoint_every: EVERY,
        retention,
        retention_every: Duration::from_millis(200),
        ..settings(account, dir.path())
    }
}

/// The first and the last message of the one stream.
pub(super) async fn extent(account: &Account) -> (u64, u64) {
    let stream = account.stream("SKYTALE_LOG_0_0").await;
    let state = &stream.cached_info().state;
    (state.first_sequence, state.last_sequence)
}

/// The entries of a log that were not given up.
async fn kept(store: &FleetStore, log: LogId) -> (Offset, Vec<Record>) {
    let mut after = Offset::ZERO;
    let batch = loop {
        match store.read(log, after, usize::MAX, u64::MAX).await {
            Ok(batch) => break batch,
            // A Trim may come at any time.
            Err(StoreError::Trimmed { first }) => after = first.previous(),
            Err(error) => panic!("{error}"),
        }
    };
    let records = batch.records.into_iter().flat_map(Record::decode_batch);
    (after.next(), records.map(|record| record.expect("whole")).collect())
}

pub(super) async fn the_same(one: &FleetStore, two: &FleetStore, logs: &[LogId]) {
    for log in logs {
        let head = *one.watch_head(*log).await.expect("a watch").borrow();
        reaches(two, *log, head).await;
        assert_eq!(kept(one, *log).await, kept(two, *log).await, "{log}");
    }
}

/// A history whose beginning is purged up to its first checkpoint; and what is in it.
pub(super) struct Purged {
    pub(super) account: Account,
    _streams: Streams,
    pub(super) dir: TempDir,
    logs: Vec<LogId>,
    pub(super) channel: ChannelId,
    /// The handshake head: what a message is built on.
    pub(super) parent: u64,
    agent: AgentId,
    /// A copy of the replica as it was at the very beginning.
    old: TempDir,
}

pub(super) async fn purged() -> Purged {
    purged_with(1).await
}

/// The same, where so many nodes vouch for each checkpoint.
pub(super) async fn purged_with(witnesses: usize) -> Purged {
    let one_shard = |account: &Account, dir: &TempDir, retention| FleetConfig {
        witnesses,
        ..one_shard(account, dir, retention)
    };
    let (account, streams) = shared_account().await;
    let (dir, old) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let retention = Duration::from_secs(3);
    let store = open(one_shard(&account, &dir, None)).await;
    let (other_dirs, mut others) = ([(); 4].map(|()| TempDir::new().expect("a folder")), Vec::new());
    for dir in other_dirs.iter().take(witnesses - 1) {
        others.push(open(one_shard(&account, dir, None)).await);
    }
    let (channel, idle) = (ChannelId::generate(), ChannelId::generate());
    let agent = someone();
    let early = message(channel, 1, b"early");
    let packages = [key_package(agent, false), key_package(agent, false)];
    let first_claim = claim(agent);
    accept(&store, &create(channel)).await;
    accept(&store, &create(idle)).await;
    accept(&store, &early).await;
    for package in &packages {
        accept(&store, package).await;
    }
    accept(&store, &first_claim).await;
    store.close().await.expect("closed");
    crate::local::script::copy_folder(dir.path(), old.path());

    let store = open(one_shard(&account, &dir, None)).await;
    while extent(&account).await.1 < EVERY + 1 {
        accept(&store, &message(channel, 1, b"before the checkpoint")).await;
    }
    tokio::time::sleep(retention).await;
    // After the first checkpoint, before anything of it is trimmed: frames from before it, again.
    for frame in [&early, &first_claim, &packages[0]] {
        assert!(accept(&store, frame).await.duplicate);
    }
    let unclaimed = accept(&store, &claim(agent)).await.claimed.expect("a package");
    assert_eq!(
        unclaimed.offset,
        at(2),
        "the second package: the first was claimed before"
    );
    claimed(&store, &[BOB]).await;
    let parent = accept(&store, &bundle(channel, 1, &[BOB])).await.offset.get();
    store.close().await.expect("closed");

    // Now the retention is enforced, until the stream's beginning is gone.
    let _keeper = Keeping::start(one_shard(&account, &dir, Some(retention)));
    let store = open(one_shard(&account, &dir, Some(retention))).await;
    let begun = Instant::now();
    while extent(&account).await.0 <= 1 {
        assert!(begun.elapsed() < HANGING, "nothing is purged");
        accept(&store, &message(channel, parent, b"later")).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store.close().await.expect("closed");
    for other in others {
        other.close().await.expect("closed");
    }
    Purged {
        account,
        _streams: streams,
        dir,
        logs: vec![channel.log(), idle.log(), agent.log(), BOB.log()],
        channel,
        parent,
        agent,
        old,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_node_begins_with_a_checkpoint_and_gives_what_the_others_give() {
    let purged = purged().await;
    let (first, _) = extent(&purged.account).await;
    assert_eq!((first - 1) % EVERY, 0, "purged up to a checkpoint");
    let whole = open(one_shard(&purged.account, &purged.dir, None)).await;
    let (available, _) = kept(&whole, purged.channel.log()).await;
    assert!(available > at(1), "the beginning was given up");

    let empty = TempDir::new().expect("a folder");
    let fresh = open(one_shard(&purged.account, &empty, None)).await;
    the_same(&whole, &fresh, &purged.logs).await;
    // Both go on alike: verdicts, stock, dedup.
    let stock = whole.key_packages(purged.agent).await.expect("an answer");
    assert_eq!(fresh.key_packages(purged.agent).await, Ok(stock));
    let next = message(purged.channel, purged.parent, b"at the fresh node");
    let accepted = accept(&fresh, &next).await;
    reaches(&whole, purged.channel.log(), accepted.offset).await;
    let again = accept(&whole, &next).await;
    assert_eq!((again.offset, again.duplicate), (accepted.offset, true));
    accept(&fresh, &create(ChannelId::generate())).await;
    the_same(&whole, &fresh, &purged.logs).await;

    // It is there after a restart, too.
    fresh.close().await.expect("closed");
    let fresh = open(one_shard(&purged.account, &empty, None)).await;
    the_same(&whole, &fresh, &purged.logs).await;
    for store in [whole, fresh] {
        store.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_too_old_is_made_anew() {
    let purged = purged().await;
    let whole = open(one_shard(&purged.account, &purged.dir, None)).await;
    let late = open(one_shard(&purged.account, &purged.old, None)).await;
    the_same(&whole, &late, &purged.logs).await;
    for store in [whole, late] {
        store.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_node_without_a_checkpoint_does_not_start() {
    let purged = purged().await;
    let context = purged.account.context().await.expect("JetStream");
    context.delete_stream("SKYTALE_CHECKPOINTS_0").await.expect("deleted");
    let empty = TempDir::new().expect("a folder");
    let Err(error) = FleetStore::open(one_shard(&purged.account, &empty, None)).await else {
        panic!("it opens");
    };
    assert!(matches!(&error, OpenError::Unattested { .. }), "{error}");
    assert_eq!(error.code(), skytale_proto::Code::CheckpointUnattested);
    assert!(error.to_string().contains("no checkpoint"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_vouch_for_the_same_bytes_wherever_they_began() {
    let (account, _streams) = shared_account().await;
    let dirs = [(); 3].map(|()| TempDir::new().expect("a folder"));
    let two_of = |dir: &TempDir| FleetConfig {
        witnesses: 2,
        ..one_shard(&account, dir, None)
    };
    let one = open(two_of(&dirs[0])).await;
    let two = open(two_of(&dirs[1])).await;
    let channel = ChannelId::generate();
    accept(&one, &create(channel)).await;
    reaches(&two, channel.log(), at(1)).await;
    let again = message(channel, 1, b"sent again");
    accept(&one, &again).await;
    for _ in 0..3 * EVERY {
        accept(&two, &message(channel, 1, b"counted")).await;
        assert!(accept(&one, &again).await.duplicate);
    }
    // Of three nodes, the third begins late, and ends at places of its own: it vouches like the others.
    let mut three = open(two_of(&dirs[2])).await;
    for round in 0..4 * EVERY {
        accept(&two, &message(channel, 1, b"and more")).await;
        if round % 7 == 0 {
            three.close().await.expect("closed");
            three = open(two_of(&dirs[2])).await;
        }
    }
    let boundaries = extent(&account).await.1 / EVERY;
    let begun = Instant::now();
    loop {
        let (words, parts) = (
            checkpoints(&account, 0, "word").await,
            checkpoints(&account, 0, "part").await,
        );
        let enough = words.iter().filter(|(_, count)| *count >= 2).count() as u64;
        if enough == boundaries && parts.len() as u64 == boundaries {
            // Any number of nodes may vouch: the bytes are there once, or were written by two at the same moment.
            assert!(parts.iter().all(|(_, count)| *count <= 3), "{parts:?}");
            break;
        }
        assert!(
            begun.elapsed() < HANGING,
            "{boundaries} boundaries: {words:?} {parts:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for store in [&one, &two, &three] {
        let health = store.health();
        assert_eq!((health.stopped, health.doubtful), (None, Vec::new()));
    }
    for store in [one, two, three] {
        store.close().await.expect("closed");
    }
}
