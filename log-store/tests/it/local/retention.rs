//! Old entries go by whole segments, after a Trim, and take nothing else with them.

use super::script::*;
use skytale_log_store::local::Retention;
use skytale_log_store::{Access, KeyPackageStock, LocalConfig, LogStore as _, StoreError};
use skytale_proto::{Detail, Frame, Offset, Record};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

fn keeping(dir: &Path, age: Option<Duration>, bytes: Option<u64>) -> LocalConfig {
    LocalConfig {
        retention: Retention {
            age,
            bytes,
            check_every: Duration::from_secs(3_600),
        },
        ..small(dir)
    }
}

/// The first offset that a log still has.
async fn first_of(store: &skytale_log_store::LocalStore, log: skytale_proto::LogId) -> Offset {
    match store.read(log, Offset::ZERO, usize::MAX, u64::MAX).await {
        Err(StoreError::Trimmed { first }) => first,
        other => panic!("expected Trimmed, got {other:?}"),
    }
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("this age")
}

fn is_trim(record: &Record) -> bool {
    let frame = Frame::decode(record.payload.clone()).expect("a frame");
    matches!(frame.header().detail, Detail::Trim { .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_entries_leave_a_trim_and_a_state_that_outlives_them() {
    let dir = TempDir::new().expect("a folder");
    let config = keeping(dir.path(), None, Some(100 * 1024));
    let store = open(config.clone()).await;
    // One log that falls silent, one agent's log, one log that goes on.
    let (silent, _) = channel_with(&store, 3, b"silent").await;
    claimed(&store, &[BOB]).await;
    let added = accept(&store, &bundle(silent, 1, &[BOB])).await.offset;
    accept(&store, &key_package(BOB, false)).await;
    accept(&store, &key_package(BOB, true)).await;
    let (busy, frames) = channel_with(&store, 400, &[5; 900]).await;
    let before = segments(dir.path()).len();
    assert_eq!(store.given_up_ms(), 0, "nothing yet");
    let begun_ms = unix_ms();
    let dropped = store.enforce_retention().await.expect("enforced");
    assert!(dropped > 3);
    let given_up_ms = store.given_up_ms();
    assert!(
        given_up_ms > 0 && given_up_ms <= begun_ms,
        "{given_up_ms} after {begun_ms}"
    );
    assert!(segments(dir.path()).len() < before);
    let first = first_of(&store, busy.log()).await;
    let kept = entries(&store, busy.log(), first.previous())
        .await
        .expect("what is kept");
    assert_eq!(kept.last().map(is_trim), Some(true));
    check_kept(&store, silent, busy, added, first, &frames).await;
    close(store).await;
    for round in 1..4 {
        let store = store_reopened(&config, dir.path(), round).await;
        check_kept(&store, silent, busy, added, first, &frames).await;
        close(store).await;
    }
}

/// Opens the store again, every other time without its index.
async fn store_reopened(config: &LocalConfig, dir: &Path, round: u32) -> skytale_log_store::LocalStore {
    if round % 2 == 1 {
        fs::remove_dir_all(dir.join("index")).expect("removed");
    }
    open(config.clone()).await
}

async fn check_kept(
    store: &skytale_log_store::LocalStore,
    silent: skytale_proto::ChannelId,
    busy: skytale_proto::ChannelId,
    added: Offset,
    first: Offset,
    frames: &[Frame],
) {
    assert_eq!(first_of(store, busy.log()).await, first);
    let head = *store.watch_head(busy.log()).await.expect("a watch").borrow();
    let kept = entries(store, busy.log(), first.previous())
        .await
        .expect("what is kept");
    assert_eq!(kept.last().map(|record| record.offset), Some(head));
    for record in kept.iter().filter(|record| !is_trim(record)) {
        let frame = &frames[record.offset.get() as usize - 1];
        assert_eq!(record.payload, frame.encoded());
        let again = append(store, frame).await.expect("a duplicate");
        assert_eq!((again.offset, again.duplicate), (record.offset, true));
    }
    // The silent log has nothing but its Trim, and is what it was.
    let silent_first = first_of(store, silent.log()).await;
    let left = entries(store, silent.log(), silent_first.previous())
        .await
        .expect("what is kept");
    assert!(!left.is_empty() && left.iter().all(is_trim));
    let access = store.access(silent.log(), BOB, ACCOUNT, silent_first.previous()).await;
    assert_eq!(access, Ok(Access::Readable { until: None }));
    let stale = append(store, &message(silent, 1, b"stale")).await.expect_err("stale");
    assert_eq!(stale, skytale_log_store::Refused::StaleEpoch { head: added }.into());
    let _ = store.key_packages(BOB).await.expect("the stock");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_older_than_the_age_go_and_the_log_goes_on() {
    let dir = TempDir::new().expect("a folder");
    let config = keeping(dir.path(), Some(Duration::ZERO), None);
    let store = open(config.clone()).await;
    let (channel, frames) = channel_with(&store, 100, &[5; 900]).await;
    // The clock of an entry is in milliseconds: let one pass.
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(store.enforce_retention().await.expect("enforced") > 0);
    let first = first_of(&store, channel.log()).await;
    // A dropped frame's id is forgotten with it: it is taken as new.
    let again = append(&store, &frames[1]).await.expect("accepted");
    assert!(!again.duplicate && again.offset > at(101));
    assert_eq!(
        append(&store, &frames[1]).await.expect("a duplicate").offset,
        again.offset
    );
    close(store).await;
    let store = open(config).await;
    assert_eq!(first_of(&store, channel.log()).await, first);
    assert_eq!(
        append(&store, &frames[1]).await.expect("a duplicate").offset,
        again.offset
    );
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_survives_many_rounds_in_segments_that_hold_nothing_else_of_it() {
    let dir = TempDir::new().expect("a folder");
    let config = keeping(dir.path(), None, Some(64 * 1024));
    let store = open(config.clone()).await;
    let (quiet, _) = channel_with(&store, 3, b"quiet").await;
    accept(&store, &key_package(BOB, false)).await;
    for _ in 0..6 {
        channel_with(&store, 150, &[5; 900]).await;
        assert!(store.enforce_retention().await.expect("enforced") > 0);
    }
    close(store).await;
    for _ in 0..2 {
        fs::remove_dir_all(dir.path().join("index")).expect("removed");
        let store = open(config.clone()).await;
        let head = *store.watch_head(quiet.log()).await.expect("a watch").borrow();
        assert_eq!(
            accept(&store, &message(quiet, 1, b"still here")).await.offset,
            head.next()
        );
        let stock = store.key_packages(BOB).await.expect("the stock");
        // Its KeyPackage was trimmed away; the log is there.
        assert_eq!(
            stock,
            KeyPackageStock {
                live: 0,
                last_resort: false
            }
        );
        assert!(*store.watch_head(BOB.log()).await.expect("a watch").borrow() > Offset::FIRST);
        close(store).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_enforces_retention_by_itself() {
    let dir = TempDir::new().expect("a folder");
    let mut config = keeping(dir.path(), None, Some(64 * 1024));
    config.retention.check_every = Duration::from_millis(10);
    let store = open(config).await;
    let (channel, _) = channel_with(&store, 200, &[5; 900]).await;
    let trimmed = async {
        while !matches!(
            store.read(channel.log(), Offset::ZERO, 1, 1).await,
            Err(StoreError::Trimmed { .. })
        ) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), trimmed)
        .await
        .expect("trimmed");
    close(store).await;
}
