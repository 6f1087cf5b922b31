//! A start reads the ends of sealed segments and the open one: never what sealed segments hold.
//!
//! The bytes between a sealed segment's header and its footer are overwritten before the start, so that nothing in
//! there can be used; and a child counts the bytes that its whole process reads.

use super::script::*;
use skytale_log_store::local::replica::{Follow, Message, Replica};
use skytale_log_store::local::{DiskFaults, DiskStep, ShardPosition};
use skytale_log_store::{LocalConfig, LocalStore};
use skytale_proto::{ChannelId, Frame};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const STORE: &str = "SKYTALE_TEST_START_STORE";
const ROLE: &str = "SKYTALE_TEST_START_ROLE";
const SEGMENT_BYTES: u32 = 2 * 1024 * 1024;
const BODY_BYTES: usize = 60 * 1024;
/// Entries: some 15 segments.
const ENTRIES: u64 = 500;
/// Bytes of a trailer, and where in it the place of the footer is.
const TRAILER_BYTES: usize = 64;
const FOOTER_AT: usize = 16;
const HEADER_BYTES: usize = 48;
/// Waiting for longer is hanging.
const HANGING: Duration = Duration::from_secs(120);

fn config(dir: &Path) -> LocalConfig {
    LocalConfig {
        segment_bytes: SEGMENT_BYTES,
        cache_bytes: 64 * 1024,
        index_cache_bytes: 4 * 1024 * 1024,
        ..LocalConfig::new(dir)
    }
}

/// Bytes that this process has read, from whatever file.
fn read_bytes() -> u64 {
    let io = fs::read_to_string("/proc/self/io").expect("Linux");
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.expect("a figure").parse().expect("a number")
}

/// The child: opens a store, and says how many bytes that read and what it found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let (Ok(dir), Ok(role)) = (std::env::var(STORE), std::env::var(ROLE)) else {
        return;
    };
    let before = read_bytes();
    let config = config(Path::new(&dir));
    let (read, sequences) = if role == "alone" {
        let store = open(config).await;
        let read = read_bytes() - before;
        close(store).await;
        (read, Vec::new())
    } else {
        let (replica, positions) = Replica::open(config).await.expect("the replica opens");
        let read = read_bytes() - before;
        replica.close().await.expect("closed");
        (read, positions.iter().map(|position| position.sequence).collect())
    };
    println!("\nstarted {read} {sequences:?} .");
}

/// Opens a store in a process of its own. Gives the bytes that the start read, and the shards' sequences.
fn started(dir: &Path, role: &str) -> (u64, String) {
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "local::start::child", "--nocapture"])
        .env(STORE, dir)
        .env(ROLE, role)
        .output()
        .expect("the child runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().find_map(|line| line.strip_prefix("started "));
    let line = line.unwrap_or_else(|| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    let (read, sequences) = line.split_once(' ').expect("two figures");
    (read.parse().expect("a number"), sequences.to_owned())
}

/// Sealed segments, and where each one's footer begins.
fn sealed(dir: &Path) -> Vec<(PathBuf, usize)> {
    let paths = segments(dir).into_iter();
    let ends = paths.filter_map(|path| {
        // One that could not be begun is gone at once.
        let bytes = fs::read(&path).ok()?;
        let trailer = bytes.get(bytes.len().checked_sub(TRAILER_BYTES)?..)?;
        let at = trailer.get(FOOTER_AT..FOOTER_AT + 4)?;
        let at = u32::from_le_bytes(at.try_into().expect("four bytes"));
        trailer.starts_with(b"skytaleE").then_some((path, at as usize))
    });
    ends.collect()
}

/// Overwrites the records of all sealed segments but the very last, and gives how many bytes those were. In the last
/// segment, sealed or not, the last batch tells that the index is current.
fn without_bodies(dir: &Path) -> u64 {
    let mut lost = 0;
    let last = segments(dir).pop();
    for (path, footer_at) in sealed(dir) {
        if Some(&path) == last.as_ref() {
            continue;
        }
        let mut bytes = fs::read(&path).expect("read");
        bytes[HEADER_BYTES..footer_at].fill(0);
        fs::write(&path, bytes).expect("written");
        lost += (footer_at - HEADER_BYTES) as u64;
    }
    lost
}

/// Bytes that a start may read: the open segment, its end once more, and as much for footers and the index.
const READ_BYTES_MAX: u64 = 3 * SEGMENT_BYTES as u64;

async fn fill(store: &LocalStore, entries: u64) -> ChannelId {
    let channel = ChannelId::generate();
    accept(store, &create(channel)).await;
    for _ in 0..entries / 20 {
        let frames: Vec<Frame> = (0..20).map(|_| message(channel, 1, &[3; BODY_BYTES])).collect();
        let appended = futures_util::future::join_all(frames.iter().map(|frame| append(store, frame))).await;
        assert!(appended.iter().all(Result::is_ok));
    }
    channel
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_reads_no_sealed_segments_records() {
    let dir = TempDir::new().expect("a folder");
    let store = open(config(dir.path())).await;
    let channel = fill(&store, ENTRIES).await;
    close(store).await;
    let bodies = without_bodies(dir.path());
    assert!(bodies > 4 * READ_BYTES_MAX, "{bodies}");
    let (read, _) = started(dir.path(), "alone");
    assert!(
        read < READ_BYTES_MAX,
        "{read} bytes read, of {bodies} in sealed segments"
    );
    // The log goes on where it was.
    let store = open(config(dir.path())).await;
    let next = accept(&store, &message(channel, 1, b"next")).await;
    assert_eq!(next.offset, at(ENTRIES + 2));
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_reads_no_regrouped_segments_records_either() {
    let dir = TempDir::new().expect("a folder");
    let store = open(config(dir.path())).await;
    let channels: Vec<ChannelId> = (0..4).map(|_| ChannelId::generate()).collect();
    for channel in &channels {
        accept(&store, &create(*channel)).await;
    }
    for _ in 0..ENTRIES / 20 {
        let channels = channels.iter().cycle().take(20);
        let frames: Vec<Frame> = channels.map(|channel| message(*channel, 1, &[3; BODY_BYTES])).collect();
        let appended = futures_util::future::join_all(frames.iter().map(|frame| append(&store, frame))).await;
        assert!(appended.iter().all(Result::is_ok));
    }
    store.regroup().await.expect("regrouped");
    close(store).await;
    let paths = segments(dir.path());
    let bytes = paths
        .iter()
        .map(|path| fs::metadata(path).expect("there").len())
        .sum::<u64>();
    assert!(bytes > 4 * READ_BYTES_MAX, "{bytes}");
    let (read, _) = started(dir.path(), "alone");
    assert!(read < READ_BYTES_MAX, "{read} bytes read, of {bytes}");
}

/// Fills a replica with one shard's messages.
async fn fill_replica(replica: &Replica, frames: &[Frame], first: u64) {
    for (sequence, frame) in (first..).zip(frames) {
        let follow = Follow {
            position: position(0, sequence),
            messages: vec![Message {
                sequence,
                time_ms: sequence,
                frame: Some(frame.clone()),
                repeated: false,
            }],
        };
        replica.follow(follow).await.expect("followed");
    }
}

fn position(shard: u32, sequence: u64) -> ShardPosition {
    ShardPosition {
        shard,
        stream: 7,
        sequence,
        time_ms: sequence,
        owed_from: sequence + 1,
        ..ShardPosition::default()
    }
}

/// A replica of two shards, of which one has ended long ago.
async fn replica_with(config: LocalConfig) -> u64 {
    let (replica, _) = Replica::open(config).await.expect("opens");
    let quiet = Follow {
        position: position(9, 40),
        messages: Vec::new(),
    };
    replica.follow(quiet).await.expect("followed");
    let channel = ChannelId::generate();
    let mut frames = vec![create(channel)];
    frames.extend((0..ENTRIES).map(|_| message(channel, 1, &[3; BODY_BYTES])));
    fill_replica(&replica, &frames, 1).await;
    replica.close().await.expect("closed");
    frames.len() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replicas_start_reads_no_sealed_segments_records_either() {
    let dir = TempDir::new().expect("a folder");
    let last = replica_with(config(dir.path())).await;
    let bodies = without_bodies(dir.path());
    assert!(bodies > 4 * READ_BYTES_MAX, "{bodies}");
    let (read, sequences) = started(dir.path(), "replica");
    assert_eq!(sequences, format!("[{last}, 40] ."));
    assert!(
        read < READ_BYTES_MAX,
        "{read} bytes read, of {bodies} in sealed segments"
    );
}

/// Waits until every segment is sealed.
async fn all_are_sealed(dir: &Path) {
    let begun = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if sealed(dir).len() == segments(dir).len() {
            return;
        }
        assert!(begun.elapsed() < HANGING, "a segment stays open");
    }
}

/// A replica that stopped when its last segment was sealed and no next one begun: no open segment says where its shards
/// are.
async fn replica_without_an_open_segment(dir: &Path) -> u64 {
    const ENOSPC: i32 = 28;
    let faults = DiskFaults::on_demand();
    let last = replica_with(LocalConfig {
        faults: faults.clone(),
        ..config(dir)
    })
    .await;
    let (replica, _) = Replica::open(LocalConfig {
        faults: faults.clone(),
        ..config(dir)
    })
    .await
    .expect("opens");
    faults.fail(DiskStep::Begin, ENOSPC, u32::MAX);
    // One that does not fit waits for room in a next segment, when the last one is sealed.
    let channel = ChannelId::generate();
    let mut sequence = last + 1;
    let mut frame = create(channel);
    while sealed(dir).len() < segments(dir).len() {
        let follow = Follow {
            position: position(0, sequence),
            messages: vec![Message {
                sequence,
                time_ms: sequence,
                frame: Some(frame),
                repeated: false,
            }],
        };
        let mut following = replica.submit(follow).await.expect("taken");
        let written = tokio::select! {
            written = following.outcome() => Some(written.expect("written")),
            () = all_are_sealed(dir) => None,
        };
        if written.is_none() {
            break;
        }
        sequence += 1;
        frame = message(channel, 1, &[4; BODY_BYTES]);
    }
    replica.close().await.expect("closed");
    assert_eq!(sealed(dir).len(), segments(dir).len());
    sequence - 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_segment_is_open_a_footer_tells_a_replicas_positions() {
    let dir = TempDir::new().expect("a folder");
    let last = replica_without_an_open_segment(dir.path()).await;
    without_bodies(dir.path());
    let (read, sequences) = started(dir.path(), "replica");
    assert_eq!(sequences, format!("[{last}, 40] ."));
    assert!(read < READ_BYTES_MAX, "{read}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_footer_is_damaged_the_segment_tells_the_positions() {
    let dir = TempDir::new().expect("a folder");
    let last = replica_without_an_open_segment(dir.path()).await;
    let (path, footer_at) = sealed(dir.path()).pop().expect("a segment");
    let mut bytes = fs::read(&path).expect("read");
    bytes[footer_at + 40] ^= 1;
    fs::write(&path, bytes).expect("written");
    let (read, sequences) = started(dir.path(), "replica");
    assert_eq!(sequences, format!("[{last}, 40] ."));
    // That one segment is read, and no other.
    assert!(read < READ_BYTES_MAX + u64::from(SEGMENT_BYTES), "{read}");
}
