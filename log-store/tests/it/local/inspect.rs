//! A stopped node's data can be checked, listed and copied out.

use super::script::*;
use skytale_log_store::LocalConfig;
use skytale_log_store::inspect::{InspectError, dump, dump_running, export, verify};
use skytale_log_store::local::Retention;
use skytale_proto::{Code, Kind, Offset, Record};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// Every file with what is in it.
fn everything(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(everything(&path));
        } else {
            files.push((path.clone(), fs::read(&path).expect("read")));
        }
    }
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_store_is_whole_and_nothing_is_written() {
    let dir = TempDir::new().expect("a folder");
    let store = open(small(dir.path())).await;
    let (channel, frames) = channel_with(&store, 100, &[2; 900]).await;
    claimed(&store, &[BOB]).await;
    accept(&store, &bundle(channel, 1, &[BOB])).await;
    close(store).await;
    let before = everything(dir.path());
    let report = verify(dir.path()).expect("checked");
    assert!(report.is_whole(), "{report:?}");
    assert_eq!((report.entries, report.logs.len(), report.torn), (105, 2, None));
    assert_eq!(report.segments, segments(dir.path()).len() as u64);
    let log = report.logs[&channel.log()];
    assert_eq!((log.first, log.head, log.entries), (Offset::FIRST, at(102), 102));

    let listed: Vec<_> = dump(dir.path(), None)
        .expect("opens")
        .map(|entry| entry.expect("whole"))
        .collect();
    assert_eq!(listed.len(), 105);
    assert_eq!(listed.last().map(|entry| entry.header.kind()), Some(Kind::Welcome));
    assert_eq!((listed[5].offset, listed[5].body_bytes), (at(6), 900));
    let one = dump(dir.path(), Some(BOB.log())).expect("opens").count();
    assert_eq!(one, 3);

    let mut out = Vec::new();
    let exported = export(dir.path(), channel.log(), &mut out).expect("copied");
    assert_eq!(
        (exported.entries, exported.first, exported.last),
        (102, Offset::FIRST, at(102))
    );
    assert_eq!(exported.bytes, out.len() as u64);
    let records: Vec<Record> = Record::decode_batch(out.into())
        .map(|record| record.expect("whole"))
        .collect();
    assert!(
        records
            .iter()
            .zip(&frames)
            .all(|(record, frame)| record.payload == frame.encoded())
    );
    assert_eq!(everything(dir.path()), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_node_can_be_listed_while_it_writes() {
    let dir = TempDir::new().expect("a folder");
    let store = open(small(dir.path())).await;
    let (channel, _) = channel_with(&store, 50, &[2; 900]).await;
    let listed = |log| {
        let entries = dump_running(dir.path(), log).expect("opens");
        entries
            .map(|entry| entry.expect("whole").offset)
            .collect::<Vec<Offset>>()
    };
    // Everything acknowledged is listed.
    assert_eq!(listed(None), (1..=51).map(at).collect::<Vec<_>>());
    let listing = dump_running(dir.path(), Some(channel.log())).expect("opens");
    for _ in 0..40 {
        accept(&store, &message(channel, 1, &[3; 900])).await;
    }
    // A listing that began before ends where the store was then, or later, and nothing is missing in between.
    let offsets: Vec<Offset> = listing.map(|entry| entry.expect("whole").offset).collect();
    assert!(offsets.len() >= 51, "{}", offsets.len());
    assert_eq!(offsets, (1..=offsets.len() as u64).map(at).collect::<Vec<_>>());
    assert_eq!(listed(Some(channel.log())).len(), 91);
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_node_is_refused() {
    let dir = TempDir::new().expect("a folder");
    let store = open(small(dir.path())).await;
    let error = verify(dir.path()).expect_err("in use");
    assert_eq!(error.code(), Code::StoreLocked);
    assert!(matches!(dump(dir.path(), None), Err(InspectError::Open(_))));
    close(store).await;
    let listing = dump(dir.path(), None).expect("opens");
    assert!(verify(dir.path()).is_ok(), "two may look at once");
    assert!(skytale_log_store::LocalStore::open(small(dir.path())).await.is_err());
    drop(listing);
    assert!(verify(&dir.path().join("nothing")).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_told_by_file_place_log_and_offset() {
    let dir = TempDir::new().expect("a folder");
    let store = open(small(dir.path())).await;
    let (hit, _) = channel_with(&store, 5, b"this will be damaged").await;
    let (other, _) = channel_with(&store, 100, &[2; 900]).await;
    close(store).await;
    let segment = segments(dir.path()).remove(0);
    flip(
        &segment,
        find(&fs::read(&segment).expect("read"), b"this will be damaged"),
    );
    let report = verify(dir.path()).expect("checked");
    assert!(!report.is_whole());
    let problem = &report.problems[0];
    assert_eq!(
        (&problem.path, problem.log, problem.offset),
        (&segment, Some(hit.log()), Some(at(2)))
    );
    assert!(problem.problem.contains("checksum"), "{}", problem.problem);
    assert_eq!(report.problems.len(), 1);
    assert_eq!(report.logs[&other.log()].entries, 101);
    let errors = dump(dir.path(), None).expect("opens").filter(Result::is_err).count();
    assert_eq!(errors, 1);
    let mut out = Vec::new();
    let error = export(dir.path(), hit.log(), &mut out).expect_err("damaged");
    assert_eq!(error.code(), Code::StoreCorrupt);
    assert_eq!(Record::decode_batch(out.into()).count(), 1);
    assert_eq!(
        export(dir.path(), other.log(), &mut Vec::new()).expect("whole").entries,
        101
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_end_is_told_and_is_no_problem() {
    let (source, dir) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let store = open(small(source.path())).await;
    channel_with(&store, 5, b"whole").await;
    copy_of_segments(source.path(), dir.path());
    close(store).await;
    fs::write(dir.path().join("LOCK"), "").expect("written");
    let segment = segments(dir.path()).remove(0);
    let bytes = fs::read(&segment).expect("read");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("records");
    fs::write(&segment, &bytes[..end]).expect("written");
    let report = verify(dir.path()).expect("checked");
    assert!(report.is_whole(), "{report:?}");
    assert_eq!(report.torn.as_ref().map(|(path, _)| path), Some(&segment));
    assert_eq!(report.entries, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_dropped_segments_is_whole() {
    let dir = TempDir::new().expect("a folder");
    let config = LocalConfig {
        retention: Retention {
            age: None,
            bytes: Some(64 * 1024),
            check_every: Duration::from_secs(3_600),
        },
        ..small(dir.path())
    };
    let store = open(config).await;
    let (quiet, _) = channel_with(&store, 3, b"quiet").await;
    channel_with(&store, 300, &[2; 900]).await;
    assert!(store.enforce_retention().await.expect("enforced") > 0);
    accept(&store, &message(quiet, 1, b"later")).await;
    close(store).await;
    let report = verify(dir.path()).expect("checked");
    assert!(report.is_whole(), "{:?}", report.problems);
    assert!(report.logs[&quiet.log()].first > Offset::FIRST);
}
