//! The index is derived: whatever happens to it, the segments tell everything.

use super::script::*;
use skytale_log_store::{LocalConfig, LocalStore, LogStore as _};
use skytale_proto::{ChannelId, Code, Frame};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// Waiting for longer is hanging.
const HANGING: Duration = Duration::from_secs(60);

async fn grow(store: &LocalStore, channel: ChannelId, frames: &mut Vec<Frame>, by: usize) {
    for _ in 0..by {
        let frame = message(channel, 1, &[3; 700]);
        accept(store, &frame).await;
        frames.push(frame);
    }
}

/// The store has exactly these frames, knows them again, and takes more.
async fn has(dir: &Path, channel: ChannelId, frames: &mut Vec<Frame>) {
    let store = open(small(dir)).await;
    holds(&store, channel.log(), frames).await;
    for (frame, offset) in frames.iter().zip(1..) {
        let again = append(&store, frame).await.expect("a duplicate");
        assert_eq!((again.offset, again.duplicate), (at(offset), true));
    }
    grow(&store, channel, frames, 1).await;
    close(store).await;
}

fn replace_index(dir: &Path, with: &Path) {
    fs::remove_dir_all(dir.join("index")).expect("removed");
    copy_folder(with, &dir.join("index"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_index_catches_up() {
    let (dir, kept) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let store = open(small(dir.path())).await;
    let (channel, mut frames) = channel_with(&store, 60, &[3; 700]).await;
    close(store).await;
    copy_folder(&dir.path().join("index"), &kept.path().join("index"));
    let store = open(small(dir.path())).await;
    grow(&store, channel, &mut frames, 90).await;
    close(store).await;
    replace_index(dir.path(), &kept.path().join("index"));
    has(dir.path(), channel, &mut frames).await;
    has(dir.path(), channel, &mut frames).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_is_ahead_of_the_segments_is_not_believed() {
    let (dir, older) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let store = open(small(dir.path())).await;
    let (channel, mut frames) = channel_with(&store, 20, &[3; 700]).await;
    close(store).await;
    copy_folder(dir.path(), older.path());
    let mut older_frames = frames.clone();
    let store = open(small(dir.path())).await;
    grow(&store, channel, &mut frames, 40).await;
    close(store).await;
    replace_index(older.path(), &dir.path().join("index"));
    has(older.path(), channel, &mut older_frames).await;
    has(older.path(), channel, &mut older_frames).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_of_a_history_that_did_not_happen_is_not_believed() {
    let (dir, other) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let store = open(small(dir.path())).await;
    let (channel, frames) = channel_with(&store, 5, &[3; 700]).await;
    close(store).await;
    copy_folder(dir.path(), other.path());
    // The same batches by number, of other frames.
    let (mut here, mut there) = (frames.clone(), frames);
    let store = open(small(dir.path())).await;
    grow(&store, channel, &mut here, 3).await;
    close(store).await;
    let store = open(small(other.path())).await;
    grow(&store, channel, &mut there, 3).await;
    close(store).await;
    replace_index(dir.path(), &other.path().join("index"));
    has(dir.path(), channel, &mut here).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_of_another_store_is_not_believed() {
    let (dir, other) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let store = open(small(dir.path())).await;
    let (channel, mut frames) = channel_with(&store, 5, b"ours").await;
    close(store).await;
    let store = open(small(other.path())).await;
    channel_with(&store, 5, b"theirs").await;
    close(store).await;
    replace_index(dir.path(), &other.path().join("index"));
    has(dir.path(), channel, &mut frames).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_index_is_built_again() {
    let dir = TempDir::new().expect("a folder");
    let store = open(small(dir.path())).await;
    let (channel, mut frames) = channel_with(&store, 50, &[3; 700]).await;
    close(store).await;
    let mut damaged = 0;
    for entry in fs::read_dir(dir.path().join("index")).expect("a folder") {
        let db = entry.expect("an entry").path().join("db");
        if let Ok(bytes) = fs::read(&db) {
            fs::write(&db, vec![0xa5; bytes.len()]).expect("written");
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);
    has(dir.path(), channel, &mut frames).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_left_open_elsewhere_is_not_believed() {
    let (dir, crashed) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let store = open(small(dir.path())).await;
    let (channel, mut frames) = channel_with(&store, 50, &[3; 700]).await;
    // Copied while it is written: nobody knows what of it is whole.
    copy_of_segments(dir.path(), crashed.path());
    copy_folder(&dir.path().join("index"), &crashed.path().join("index"));
    close(store).await;
    let before = fs::read_dir(crashed.path().join("index")).expect("a folder").count();
    has(crashed.path(), channel, &mut frames).await;
    assert_eq!(before, 2, "OWNER and sled");
    let names: Vec<_> = fs::read_dir(crashed.path().join("index"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    assert!(names.contains(&"sled.2".to_owned()), "{names:?}");
}

/// Files under a folder.
fn files_in(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| if path.is_dir() { files_in(&path) } else { vec![path] })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_cannot_be_read_any_more_stops_the_store_and_is_built_again() {
    let dir = TempDir::new().expect("a folder");
    // Far more states than fit into memory, so that they must be read from the index.
    let tight = LocalConfig {
        index_cache_bytes: 64 * 1024,
        states_bytes_max: 1_024,
        ..small(dir.path())
    };
    let store = open(tight.clone()).await;
    let creates: Vec<Frame> = (0..3_000).map(|_| create(ChannelId::generate())).collect();
    let mut pending = Vec::new();
    for frame in &creates {
        pending.push(store.append(frame.clone()).await.expect("queued"));
    }
    for append in pending {
        append.verdict().await.expect("accepted");
    }
    close(store).await;
    let store = open(tight.clone()).await;
    for file in files_in(&dir.path().join("index")) {
        fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&file)
            .expect("emptied");
    }
    let mut said = None;
    for frame in &creates {
        let channel = frame.header().log.channel().expect("a channel");
        if let Err(error) = append(&store, &message(channel, 1, b"after the damage")).await {
            said = Some(error.code());
            break;
        }
    }
    // The append that met the damage reports it, or that the store has stopped; whatever follows learns why.
    assert!(said.is_some(), "the index was not read");
    let mut stopped = store.stopped();
    let reason = tokio::time::timeout(HANGING, stopped.wait_for(Option::is_some))
        .await
        .expect("it stops")
        .expect("the store is there")
        .clone();
    let reason = reason.expect("a reason");
    assert!(reason.contains("could not be folded: read the index"), "{reason}");
    let channel = creates[0].header().log.channel().expect("a channel");
    let refused = append(&store, &message(channel, 1, b"none"))
        .await
        .expect_err("stopped");
    assert_eq!(refused.code(), Code::StoreStopped);
    // It closes, however it ended; the segments have all that was acknowledged.
    drop(store.close().await);
    drop(store);
    let store = open(tight).await;
    for frame in &creates {
        let again = append(&store, frame).await.expect("a duplicate");
        assert_eq!((again.offset, again.duplicate), (at(1), true));
    }
    close(store).await;
}
