//! Owner and format of a folder.

use super::script::*;
use skytale_log_store::LocalStore;
use skytale_log_store::local::OpenError;
use skytale_proto::Code;
use std::fs;
use tempfile::TempDir;

async fn refused(config: skytale_log_store::LocalConfig) -> OpenError {
    match LocalStore::open(config).await {
        Ok(_) => panic!("must not open"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_in_use_is_refused_and_stays_in_use() {
    let dir = TempDir::new().expect("a folder");
    let store = open(small(dir.path())).await;
    let error = refused(small(dir.path())).await;
    assert_eq!(error.code(), Code::StoreLocked);
    assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
    channel_with(&store, 2, b"goes on").await;
    close(store).await;
    close(open(small(dir.path())).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_format_is_refused_by_file_and_version() {
    let dir = TempDir::new().expect("a folder");
    close(open(small(dir.path())).await).await;
    let path = dir.path().join("FORMAT");
    let text = fs::read_to_string(&path).expect("read");
    fs::write(&path, text.replace("version 1", "version 7")).expect("written");
    let error = refused(small(dir.path())).await;
    assert_eq!(error.code(), Code::StoreVersion);
    let said = error.to_string();
    assert!(said.contains("FORMAT") && said.contains("version 7"), "{said}");
    fs::write(&path, "something else").expect("written");
    assert!(matches!(refused(small(dir.path())).await, OpenError::Foreign { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_segment_version_is_refused_by_file_and_version() {
    let dir = TempDir::new().expect("a folder");
    close(open(small(dir.path())).await).await;
    let segment = segments(dir.path()).remove(0);
    let mut bytes = fs::read(&segment).expect("read");
    bytes[8] = 9;
    fs::write(&segment, bytes).expect("written");
    let error = refused(small(dir.path())).await;
    assert_eq!(error.code(), Code::StoreVersion);
    let said = error.to_string();
    assert!(said.contains("0000000001.seg") && said.contains("version 9"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_or_foreign_segment_is_refused_by_file() {
    let (dir, other) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    for dir in [&dir, &other] {
        let store = open(small(dir.path())).await;
        channel_with(&store, 150, &[1; 900]).await;
        close(store).await;
    }
    let (ours, theirs) = (segments(dir.path()), segments(other.path()));
    assert!(ours.len() > 3);
    let kept = fs::read(&ours[1]).expect("read");
    fs::remove_file(&ours[1]).expect("removed");
    let error = refused(small(dir.path())).await;
    assert!(
        matches!(&error, OpenError::MissingSegment { path } if *path == ours[1]),
        "{error}"
    );
    fs::copy(&theirs[1], &ours[1]).expect("copied");
    let error = refused(small(dir.path())).await;
    assert!(error.to_string().contains("another store"), "{error}");
    fs::write(&ours[1], kept).expect("written");
    close(open(small(dir.path())).await).await;
    fs::remove_file(dir.path().join("FORMAT")).expect("removed");
    assert!(matches!(refused(small(dir.path())).await, OpenError::Foreign { .. }));
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused() {
    let dir = TempDir::new().expect("a folder");
    for config in [
        skytale_log_store::LocalConfig {
            segment_bytes: 100,
            ..small(dir.path())
        },
        skytale_log_store::LocalConfig {
            queue_bytes_max: 100,
            ..small(dir.path())
        },
        skytale_log_store::LocalConfig {
            batch_frames_max: 0,
            ..small(dir.path())
        },
    ] {
        assert_eq!(refused(config).await.code(), Code::Config);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_a_segment_is_made_leaves_a_store_that_opens() {
    let dir = TempDir::new().expect("a folder");
    let store = open(small(dir.path())).await;
    let (channel, frames) = channel_with(&store, 10, &[1; 900]).await;
    close(store).await;
    for length in [0, 4_096] {
        // The last segment is sealed, and of the next one nothing is there; or nothing but zeroes.
        roll(dir.path()).await;
        let next = segments(dir.path()).pop().expect("a segment");
        fs::File::create(&next)
            .and_then(|file| file.set_len(length))
            .expect("emptied");
        fs::remove_dir_all(dir.path().join("index")).expect("removed");
        let store = open(small(dir.path())).await;
        holds(&store, channel.log(), &frames).await;
        close(store).await;
    }
}

/// Appends to other logs until a new segment has begun; what is in that is forgotten by the caller.
async fn roll(dir: &std::path::Path) {
    let before = segments(dir).len();
    let store = open(small(dir)).await;
    while segments(dir).len() == before {
        channel_with(&store, 1, &[8; 2_000]).await;
    }
    close(store).await;
}
