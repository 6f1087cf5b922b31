//! A shard that nobody writes to any more: what is too old goes all the same, from the replicas and from the stream.

use super::cluster::Account;
use super::nodes::{agree, reaches, records};
use super::script::*;
use skytale_log_store::fleet::{FleetConfig, RegionConfig};
use skytale_log_store::{FleetStore, LogStore as _, StoreError};
use skytale_proto::{ChannelId, Offset, Region};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// One shard, whose checkpoints are farther apart than anything is ever written here.
fn settings_for(account: &Account, dir: &TempDir, retention: Option<Duration>) -> FleetConfig {
    let mut settings = settings(account, dir.path());
    settings.local.segment_bytes = 1 << 20;
    settings.local.retention.check_every = Duration::from_millis(100);
    FleetConfig {
        regions: vec![RegionConfig {
            region: Region(0),
            shards: 1,
            cluster: None,
            tags: Vec::new(),
        }],
        checkpoint_every: 100_000,
        retention,
        retention_every: Duration::from_millis(200),
        ..settings
    }
}

/// Whether a text is in any segment of a node's replica.
fn is_on_disk(dir: &Path, text: &[u8]) -> bool {
    let segments = std::fs::read_dir(dir.join("segments")).expect("a replica's folder");
    let holds = |segment: std::io::Result<std::fs::DirEntry>| {
        // One that is dropped meanwhile holds nothing.
        let bytes = std::fs::read(segment.expect("an entry").path()).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text)
    };
    segments.into_iter().any(holds)
}

/// The first and the last message of the stream.
async fn extent(account: &Account) -> (u64, u64) {
    let stream = account.stream("SKYTALE_LOG_0_0").await;
    let state = &stream.cached_info().state;
    (state.first_sequence, state.last_sequence)
}

async fn first_kept(store: &FleetStore, channel: ChannelId) -> Option<Offset> {
    match store.read(channel.log(), Offset::ZERO, usize::MAX, u64::MAX).await {
        Err(StoreError::Trimmed { first }) => Some(first),
        Ok(_) => None,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_without_traffic_is_trimmed_and_purged() {
    let (account, _streams) = shared_account().await;
    let dirs = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
    let retention = Some(Duration::from_secs(2));
    let one = open(settings_for(&account, &dirs[0], retention)).await;
    let two = open(settings_for(&account, &dirs[1], retention)).await;
    let keeper = Keeping::start(settings_for(&account, &dirs[0], retention));
    let channel = ChannelId::generate();
    accept(&one, &create(channel)).await;
    for _ in 0..9 {
        accept(&one, &message(channel, 1, b"to be given up")).await;
    }
    // Nobody writes any more.
    let begun = Instant::now();
    while extent(&account).await.0 <= 10 {
        assert!(
            begun.elapsed() < HANGING,
            "nothing is purged: {:?}",
            extent(&account).await
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(first_kept(&one, channel).await.is_some_and(|first| first > at(10)));
    // From the disks of the nodes, too, whose segments are nearly empty.
    for dir in &dirs {
        while is_on_disk(dir.path(), b"to be given up") {
            assert!(begun.elapsed() < HANGING, "a replica keeps what was given up");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    // It does not go on for ever by itself: a Trim for each log and a mark or two, once a retention.
    let (_, last) = extent(&account).await;
    let secs = begun.elapsed().as_secs();
    assert!(last < 30 + 8 * secs, "{last} messages for ten entries in {secs} s");
    drop(keeper);
    for store in [one, two] {
        assert_eq!(store.health().stopped, None);
        store.close().await.expect("closed");
    }

    // A node without a replica begins with such a checkpoint, and gives what the others give.
    let empty = TempDir::new().expect("a folder");
    let fresh = open(settings_for(&account, &empty, None)).await;
    let whole = open(settings_for(&account, &dirs[0], None)).await;
    assert_eq!(first_kept(&fresh, channel).await, first_kept(&whole, channel).await);
    let again = create(ChannelId::generate());
    accept(&fresh, &again).await;
    reaches(&whole, again.header().log, at(1)).await;
    agree(&fresh, &whole, again.header().log).await;
    assert_eq!(records(&whole, again.header().log).await.len(), 1);
    for store in [fresh, whole] {
        store.close().await.expect("closed");
    }
}
