//! This version reads the data of earlier ones.
//!
//! `tests/fixtures/local-v1` is a store as version 1 of the segments' format has it: sealed segments and an open one, a
//! state record, a Trim. `local-v2` has regrouped segments, too. `expected.txt` beside each says what is in it. They were
//! written by the test `write`, with `SKYTALE_TEST_WRITE_FIXTURE` set to an empty folder; a new version of the format gets
//! a fixture of its own.

use super::script::*;
use skytale_log_store::inspect;
use skytale_log_store::local::Retention;
use skytale_log_store::{LocalConfig, LocalStore, LogStore as _, StoreError};
use skytale_proto::{Frame, FrameId, LogId, Offset};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

fn config(dir: &Path) -> LocalConfig {
    LocalConfig {
        segment_bytes: 4_096,
        retention: Retention {
            age: None,
            bytes: Some(24 * 1024),
            check_every: Duration::from_secs(3_600),
        },
        regroup_bytes_per_second: 0,
        ..small(dir)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write() {
    let Ok(dir) = std::env::var("SKYTALE_TEST_WRITE_FIXTURE") else {
        return;
    };
    let dir = PathBuf::from(dir);
    let store = open(config(&dir)).await;
    let (quiet, _) = channel_with(&store, 2, b"quiet").await;
    accept(&store, &bundle(quiet, 1, &[BOB])).await;
    accept(&store, &key_package(BOB, false)).await;
    accept(&store, &claim(BOB)).await;
    let (busy, _) = channel_with(&store, 40, &[6; 700]).await;
    store.enforce_retention().await.expect("enforced");
    for turn in 0..12 {
        accept(&store, &message(busy, 1, &[turn; 300])).await;
        accept(&store, &key_package(BOB, false)).await;
    }
    assert!(store.regroup().await.expect("regrouped").segments > 0);
    accept(&store, &message(busy, 1, b"last")).await;
    let mut expected = String::new();
    for log in [quiet.log(), busy.log(), BOB.log()] {
        let after = match store.read(log, Offset::ZERO, 1, 1).await {
            Err(StoreError::Trimmed { first }) => first.previous(),
            _ => Offset::ZERO,
        };
        for record in entries(&store, log, after).await.expect("read") {
            let frame = Frame::decode(record.payload).expect("a frame");
            writeln!(
                expected,
                "{log} {} {} {}",
                record.offset,
                record.time_ms,
                frame.header().id
            )
            .expect("text");
        }
    }
    close(store).await;
    fs::remove_dir_all(dir.join("index")).expect("removed");
    fs::remove_file(dir.join("LOCK")).expect("removed");
    fs::write(dir.join("expected.txt"), expected).expect("written");
}

async fn has_what_is_expected(store: &LocalStore, expected: &str) {
    let mut logs: Vec<LogId> = Vec::new();
    for line in expected.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let log: LogId = words[0].parse().expect("a log id");
        let offset = Offset::new(words[1].parse().expect("an offset"));
        if !logs.contains(&log) {
            logs.push(log);
            if offset > Offset::FIRST {
                let trimmed = store.read(log, Offset::ZERO, 1, 1).await;
                assert_eq!(trimmed, Err(StoreError::Trimmed { first: offset }));
            }
        }
        let batch = store.read(log, offset.previous(), 1, 1).await.expect("read");
        let record = skytale_proto::Record::decode_batch(batch.records[0].clone())
            .next()
            .expect("one");
        let record = record.expect("a record");
        assert_eq!((record.offset, record.time_ms.to_string().as_str()), (offset, words[2]));
        let frame = Frame::decode(record.payload).expect("a frame");
        assert_eq!(frame.header().id, words[3].parse::<FrameId>().expect("a frame id"));
        let again = append(store, &frame).await.expect("a duplicate");
        assert_eq!((again.offset, again.duplicate), (offset, true));
    }
    assert_eq!(logs.len(), 3);
}

async fn is_read(fixture: &str) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(fixture);
    let expected = fs::read_to_string(fixture.join("expected.txt")).expect("the fixture");
    let dir = TempDir::new().expect("a folder");
    copy_of_segments(&fixture, dir.path());
    fs::write(dir.path().join("LOCK"), b"").expect("a lock");
    let before = inspect::verify(dir.path()).expect("checked");
    assert!(before.is_whole(), "{before:?}");
    for _ in 0..2 {
        let store = open(config(dir.path())).await;
        has_what_is_expected(&store, &expected).await;
        store.regroup().await.expect("regrouped");
        has_what_is_expected(&store, &expected).await;
        close(store).await;
    }
    let after = inspect::verify(dir.path()).expect("checked");
    assert_eq!((after.entries, after.is_whole()), (before.entries, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_version_1_is_read() {
    is_read("local-v1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_version_2_is_read() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/local-v2");
    let is_regrouped = |path: &PathBuf| fs::read(path).expect("read")[20] == 1;
    assert!(segments(&fixture).iter().any(is_regrouped));
    is_read("local-v2").await;
}
