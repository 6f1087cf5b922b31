//! After a failed write the store takes nothing more, says why, and has lost nothing that it acknowledged.

use super::full::{append_at_last, fill};
use super::script::*;
use skytale_log_store::{LocalConfig, LogStore as _};
use skytale_proto::{ChannelId, Code, Offset};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const STORE: &str = "SKYTALE_TEST_POISON_STORE";
/// The largest file that the child may write, in the 512-byte blocks of `ulimit -f`.
const LIMIT_BLOCKS: u32 = 8 * 1024 * 1024 / 512;

fn config(dir: &Path) -> LocalConfig {
    LocalConfig {
        segment_bytes: 16 * 1024 * 1024,
        ..LocalConfig::new(dir)
    }
}

/// The child: appends until the system refuses a write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(dir) = std::env::var(STORE) else { return };
    let store = open(config(Path::new(&dir))).await;
    let channel = ChannelId::generate();
    accept(&store, &create(channel)).await;
    let mut head = 1;
    let error = loop {
        match append(&store, &message(channel, 1, &[4; 60 * 1024])).await {
            Ok(accepted) => {
                head += 1;
                assert_eq!(accepted.offset, at(head));
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Code::StoreStopped);
    let reason = store.stopped().borrow().clone().expect("a reason");
    assert!(reason.contains("writing to") && reason.contains(".seg"), "{reason}");
    // It stays so, and nothing of the failed batch is seen.
    let again = append(&store, &message(channel, 1, b"small"))
        .await
        .expect_err("stopped");
    assert_eq!(again.code(), Code::StoreStopped);
    assert_eq!(
        *store.watch_head(channel.log()).await.expect("a watch").borrow(),
        at(head)
    );
    let seen = entries(&store, channel.log(), Offset::ZERO).await.expect("reads go on");
    assert_eq!(seen.len() as u64, head);
    close(store).await;
    println!("\npoisoned {channel} {head} .");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_write_poisons_the_store_and_loses_nothing() {
    let dir = TempDir::new().expect("a folder");
    // The segment's space is reserved before the limit is there, so that the write fails and not the reservation.
    close(open(config(dir.path())).await).await;
    let output = Command::new("sh")
        .args([
            "-c",
            &format!("trap '' XFSZ; ulimit -f {LIMIT_BLOCKS}; exec \"$0\" \"$@\""),
        ])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", "local::poison::child", "--nocapture"])
        .env(STORE, dir.path())
        .output()
        .expect("the child runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("poisoned "))
        .expect("the child's result");
    let words: Vec<&str> = line.split(' ').collect();
    let channel: ChannelId = words[0].parse().expect("a channel");
    let head: u64 = words[1].parse().expect("an offset");
    assert!(head > 50);
    let store = open(config(dir.path())).await;
    let kept = entries(&store, channel.log(), Offset::ZERO).await.expect("read");
    assert!(kept.len() as u64 >= head, "{} of {head}", kept.len());
    assert_eq!(
        accept(&store, &message(channel, 1, b"goes on")).await.offset.get(),
        kept.len() as u64 + 1
    );
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_at_a_new_segment_is_waited_for_and_loses_nothing() {
    let dir = TempDir::new().expect("a folder");
    let store = open(small(dir.path())).await;
    let (channel, mut frames) = channel_with(&store, 2, &[4; 900]).await;
    // The next segment's file is one that every write to fails, for lack of space.
    let next = dir.path().join("segments/0000000002.seg");
    std::os::unix::fs::symlink("/dev/full", &next).expect("linked");
    let (taken, refused) = fill(&store, channel, &[4; 900]).await;
    frames.extend(taken);
    let problems = store.readiness().problems;
    assert!(problems[0].contains("0000000002.seg"), "{problems:?}");
    holds(&store, channel.log(), &frames).await;
    // The rest of the file is gone, and the next one is a file of its own.
    append_at_last(&store, &refused).await;
    frames.push(refused);
    holds(&store, channel.log(), &frames).await;
    close(store).await;
    let store = open(small(dir.path())).await;
    holds(&store, channel.log(), &frames).await;
    accept(&store, &message(channel, 1, b"goes on")).await;
    close(store).await;
}
