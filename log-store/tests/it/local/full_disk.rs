//! The same on file systems that really are full: tmpfs, which only root may mount.

use super::full::{append_at_last, fill, is_full};
use super::script::*;
use crate::disk::Disk;
use skytale_log_store::{LocalConfig, LocalStore, LogStore as _};
use skytale_proto::{ChannelId, Code, Frame};
use std::fs;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_disk_fills_with_large_messages_and_all_goes_on_when_it_grows() {
    let Some(disk) = Disk::mounted(40) else { return };
    // Its segments are larger than the disk.
    let config = LocalConfig::new(disk.path().join("log"));
    let store = open(config.clone()).await;
    let (channel, mut frames) = channel_with(&store, 2, b"small").await;
    let (taken, refused) = fill(&store, channel, &[9; 1_000_000]).await;
    assert!(taken.len() > 15, "{} MB of 40", taken.len());
    frames.extend(taken);
    is_full(&store);
    holds(&store, channel.log(), &frames).await;
    close(store).await;
    for _ in 0..2 {
        close(store_again(&config, &frames, channel).await).await;
    }
    let store = open(config.clone()).await;
    disk.grow(80);
    append_at_last(&store, &refused).await;
    frames.push(refused);
    holds(&store, channel.log(), &frames).await;
    close(store).await;
    close(store_again(&config, &frames, channel).await).await;
}

async fn store_again(config: &LocalConfig, frames: &[Frame], channel: ChannelId) -> LocalStore {
    let store = open(config.clone()).await;
    holds(&store, channel.log(), frames).await;
    store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_others_fill_to_the_last_byte_stops_appends_alone() {
    let Some(disk) = Disk::mounted(48) else { return };
    let config = LocalConfig {
        cache_bytes: 64 * 1024,
        ..LocalConfig::new(disk.path().join("log"))
    };
    let store = open(config.clone()).await;
    let (channel, mut frames) = channel_with(&store, 300, &[3; 20_000]).await;
    let others = disk.take_all();
    // Some of these may still find room that was there.
    let (taken, refused) = fill(&store, channel, &[4; 20_000]).await;
    frames.extend(taken);
    is_full(&store);
    holds(&store, channel.log(), &frames).await;
    close(store).await;

    // It starts without a byte, serves, and goes on where it stood.
    let store = open(config.clone()).await;
    is_full(&store);
    holds(&store, channel.log(), &frames).await;
    let again = append(&store, &refused).await.expect_err("full");
    assert_eq!(again.code(), Code::StoreFull);
    fs::remove_file(&others).expect("removed");
    append_at_last(&store, &refused).await;
    frames.push(refused);
    for _ in 0..100 {
        let frame = message(channel, 1, &[5; 2_000]);
        append_at_last(&store, &frame).await;
        frames.push(frame);
    }
    holds(&store, channel.log(), &frames).await;
    close(store).await;
    let store = open(config).await;
    holds(&store, channel.log(), &frames).await;
    assert!(append(&store, &frames[9]).await.expect("a duplicate").duplicate);
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_while_appends_run_loses_none_that_was_acknowledged() {
    let Some(disk) = Disk::mounted(64) else { return };
    let config = LocalConfig {
        segment_bytes: 4 * 1024 * 1024,
        cache_bytes: 64 * 1024,
        // Nothing ends appends before the last byte: every write finds out by itself.
        free_bytes_min: 0,
        ..LocalConfig::new(disk.path().join("log"))
    };
    let store = open(config.clone()).await;
    let (channel, mut frames) = channel_with(&store, 100, &[3; 10_000]).await;
    for _ in 0..3 {
        let others = disk.take_all();
        let (taken, refused) = fill(&store, channel, &[4; 10_000]).await;
        frames.extend(taken);
        assert_eq!(*store.stopped().borrow(), None);
        holds(&store, channel.log(), &frames).await;
        fs::remove_file(&others).expect("removed");
        append_at_last(&store, &refused).await;
        frames.push(refused);
    }
    holds(&store, channel.log(), &frames).await;
    close(store).await;
    fs::remove_dir_all(disk.path().join("log/index")).expect("removed");
    let store = open(config).await;
    holds(&store, channel.log(), &frames).await;
    close(store).await;
}
