//! A replay needs no more memory for a long log than for a short one.

use super::script::*;
use skytale_log_store::{LocalConfig, LogStore as _};
use skytale_proto::{ChannelId, Offset};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const STORE: &str = "SKYTALE_TEST_REPLAY_STORE";
const LOG: &str = "SKYTALE_TEST_REPLAY_LOG";
const BODY_BYTES: usize = 60 * 1024;
/// Memory that a replay may take beyond the opened store's, in KiB: some batches, and the allocator's slack.
const GROWTH_KIB_MAX: u64 = 16 * 1024;

/// The most memory that this process has had, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let figure = line.and_then(|line| line.split_whitespace().next());
    figure.expect("a figure").parse().expect("a number")
}

/// The child: replays a log, and says how much memory that took.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let (Ok(dir), Ok(log)) = (std::env::var(STORE), std::env::var(LOG)) else {
        return;
    };
    let log = log.parse::<ChannelId>().expect("a channel").log();
    let store = open(LocalConfig::new(Path::new(&dir))).await;
    let before = peak_kib();
    let (mut cursor, mut bytes) = (Offset::ZERO, 0);
    loop {
        let batch = store.read(log, cursor, 256 * 1024, u64::MAX).await.expect("read");
        bytes += batch.records.iter().map(|chunk| chunk.len()).sum::<usize>();
        cursor = batch.last;
        if cursor == batch.head {
            break;
        }
    }
    println!("\nreplayed {bytes} {} .", peak_kib() - before);
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_log_is_replayed_in_as_little_memory_as_a_short_one() {
    for entries in [160, 2_400] {
        let dir = TempDir::new().expect("a folder");
        let store = open(LocalConfig::new(dir.path())).await;
        let channel = ChannelId::generate();
        accept(&store, &create(channel)).await;
        for _ in 0..entries / 16 {
            let frames = (0..16)
                .map(|_| message(channel, 1, &[1; BODY_BYTES]))
                .collect::<Vec<_>>();
            let appended = futures_util::future::join_all(frames.iter().map(|frame| append(&store, frame))).await;
            assert!(appended.iter().all(Result::is_ok));
        }
        close(store).await;
        let output = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "local::replay::child", "--nocapture"])
            .env(STORE, dir.path())
            .env(LOG, channel.to_string())
            .output()
            .expect("the child runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = said
            .lines()
            .find_map(|line| line.strip_prefix("replayed "))
            .expect("a figure");
        let words: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        assert!(words[0] > (entries * BODY_BYTES) as u64);
        assert!(words[1] < GROWTH_KIB_MAX, "{entries} entries took {} KiB", words[1]);
    }
}
