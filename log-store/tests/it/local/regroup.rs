//! Sealed segments are rewritten with each log's entries together: nobody who reads sees a difference, whatever happens
//! meanwhile.

use super::script::*;
use futures_util::future::join_all;
use proptest::prelude::*;
use skytale_log_store::inspect::{self, DumpEntry, Report};
use skytale_log_store::local::replica::{Follow, Message, Replica};
use skytale_log_store::local::{DiskFaults, DiskStep, Retention, ShardPosition};
use skytale_log_store::{LocalConfig, LocalStore, LogStore as _, StoreError};
use skytale_proto::{ChannelId, Detail, Frame, LogId, Offset, Record};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const STORE: &str = "SKYTALE_TEST_REGROUP_STORE";
const CRASH: &str = "SKYTALE_TEST_REGROUP_CRASH";
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// The byte of a segment's header that says that it is regrouped.
const FLAGS_AT: usize = 20;
const STEPS: [DiskStep; 4] = [
    DiskStep::Regroup,
    DiskStep::RegroupSync,
    DiskStep::RegroupSwitch,
    DiskStep::RegroupSwitched,
];

/// A small store that leaves its segments alone until it is asked.
fn idle(dir: &Path) -> LocalConfig {
    LocalConfig {
        regroup_bytes_per_second: 0,
        ..small(dir)
    }
}

fn is_grouped(path: &Path) -> bool {
    // A file that is being written may have another name by now.
    fs::read(path).is_ok_and(|bytes| bytes.get(FLAGS_AT) == Some(&1))
}

fn grouped(dir: &Path) -> usize {
    segments(dir).iter().filter(|path| is_grouped(path)).count()
}

fn unfinished(dir: &Path) -> usize {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "seg");
    segments(dir).iter().filter(|path| !is_segment(path)).count()
}

/// Channels with entries in turn, of all lengths; and some agents' logs.
async fn mixed(store: &LocalStore, channels: usize, turns: usize) -> Vec<LogId> {
    let channels: Vec<ChannelId> = (0..channels).map(|_| ChannelId::generate()).collect();
    for channel in &channels {
        accept(store, &create(*channel)).await;
    }
    claimed(store, &[BOB]).await;
    let mut frames = Vec::new();
    for turn in 0..turns {
        for (index, channel) in channels.iter().enumerate() {
            let bytes = (turn * 97 + index * 389) % 1_500;
            frames.push(message(*channel, 1, &vec![turn as u8; bytes]));
        }
    }
    for some in frames.chunks(7) {
        let appended = join_all(some.iter().map(|frame| append(store, frame))).await;
        assert!(appended.iter().all(Result::is_ok));
    }
    let logs = channels.iter().map(|channel| channel.log());
    logs.chain([BOB.log()]).collect()
}

/// Everything that readers of a store see: the bytes of each log, from its first entry on.
async fn seen(store: &LocalStore, logs: &[LogId]) -> BTreeMap<LogId, Vec<u8>> {
    let mut seen = BTreeMap::new();
    for log in logs {
        let mut bytes = Vec::new();
        let first = match store.read(*log, Offset::ZERO, 1, 1).await {
            Err(StoreError::Trimmed { first }) => first.previous(),
            _ => Offset::ZERO,
        };
        for (bytes_max, entries_max) in [(1, 1), (3_000, 4), (64 * 1024, 100)] {
            let mut cursor = first;
            loop {
                let batch = store.read(*log, cursor, bytes_max, entries_max).await.expect("read");
                bytes.extend(batch.records.iter().flatten());
                cursor = batch.last;
                if cursor == batch.head {
                    break;
                }
            }
        }
        seen.insert(*log, bytes);
    }
    seen
}

/// Everything that `skytale log` says of a stopped store.
fn inspected(dir: &Path, logs: &[LogId]) -> (Report, Vec<DumpEntry>, Vec<Vec<u8>>) {
    let report = inspect::verify(dir).expect("checked");
    let entries = inspect::dump(dir, None).expect("opens");
    let exports = logs.iter().map(|log| {
        let mut out = Vec::new();
        inspect::export(dir, *log, &mut out).expect("copied");
        out
    });
    let exports = exports.collect();
    (report, entries.map(|entry| entry.expect("whole")).collect(), exports)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_regrouped_store_says_what_it_said_before() {
    let dir = TempDir::new().expect("a folder");
    let store = open(idle(dir.path())).await;
    let logs = mixed(&store, 9, 60).await;
    let before = seen(&store, &logs).await;
    close(store).await;
    let whole = inspected(dir.path(), &logs);
    assert!(whole.0.is_whole());

    let store = open(idle(dir.path())).await;
    let sealed = segments(dir.path()).len() - 1;
    let regrouped = store.regroup().await.expect("regrouped");
    assert!(
        sealed > 5 && regrouped.segments == sealed as u64,
        "{regrouped:?} of {sealed}"
    );
    assert_eq!((grouped(dir.path()), unfinished(dir.path())), (sealed, 0));
    assert_eq!(store.regroup().await.expect("nothing to do").segments, 0);
    assert!(seen(&store, &logs).await == before);
    close(store).await;
    assert!(inspected(dir.path(), &logs) == whole);

    for _ in 0..2 {
        // With its index, and without.
        let store = open(idle(dir.path())).await;
        assert!(seen(&store, &logs).await == before);
        close(store).await;
        fs::remove_dir_all(dir.path().join("index")).expect("removed");
    }
    let store = open(idle(dir.path())).await;
    let next = accept(&store, &message(logs[0].channel().expect("a channel"), 1, b"next")).await;
    assert_eq!(next.offset, at(62));
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_one_log_lie_together() {
    let dir = TempDir::new().expect("a folder");
    let store = open(idle(dir.path())).await;
    let logs = mixed(&store, 6, 60).await;
    store.regroup().await.expect("regrouped");
    close(store).await;
    for path in segments(dir.path()).iter().filter(|path| is_grouped(path)) {
        let bytes = fs::read(path).expect("read");
        let mut stretches = BTreeMap::new();
        let (mut place, mut last) = (48, None);
        while let Ok((record, length)) = Record::decode(&bytes[place..].to_vec().into(), 1 << 20)
            && record.kind == 1
        {
            let log = Frame::decode(record.payload).expect("a frame").header().log;
            *stretches.entry(log).or_insert(0) += u32::from(last.replace(log) != Some(log));
            place += length;
        }
        assert!(stretches.len() > 5 && logs.len() >= stretches.len());
        assert!(stretches.values().all(|count| *count == 1), "{stretches:?}");
    }
}

#[derive(Clone, Debug)]
struct Writes {
    /// Channel and length of each entry, in the order in which they are appended.
    entries: Vec<(usize, usize)>,
    /// Entries appended at once.
    at_once: usize,
    /// Entries after which the index is copied; it is put back after segments were regrouped.
    index_of: usize,
}

fn writes() -> impl Strategy<Value = Writes> {
    let entries = proptest::collection::vec((0..7usize, 0..3_000usize), 40..160);
    (entries, 1..20usize, 0..40usize).prop_map(|(entries, at_once, index_of)| Writes {
        entries,
        at_once,
        index_of,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn reads_are_the_same_to_the_byte_before_and_after(writes in writes()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let (dir, aside) = (TempDir::new()?, TempDir::new()?);
            let channels: Vec<ChannelId> = (0..7).map(|_| ChannelId::generate()).collect();
            let logs: Vec<LogId> = channels.iter().map(|channel| channel.log()).collect();
            let config = LocalConfig { segment_bytes: 8 * 1024, ..idle(dir.path()) };
            let mut store = open(config.clone()).await;
            for channel in &channels {
                accept(&store, &create(*channel)).await;
            }
            for (number, some) in writes.entries.chunks(writes.at_once).enumerate() {
                if number == writes.index_of / writes.at_once {
                    close(store).await;
                    copy_folder(&dir.path().join("index"), aside.path());
                    store = open(config.clone()).await;
                }
                let frames: Vec<Frame> = some
                    .iter()
                    .map(|(channel, bytes)| message(channels[*channel], 1, &vec![*bytes as u8; *bytes]))
                    .collect();
                let appended = join_all(frames.iter().map(|frame| append(&store, frame))).await;
                prop_assert!(appended.iter().all(Result::is_ok));
            }
            let before = seen(&store, &logs).await;
            close(store).await;
            let whole = inspected(dir.path(), &logs);
            let store = open(config.clone()).await;
            store.regroup().await.expect("regrouped");
            prop_assert!(seen(&store, &logs).await == before);
            close(store).await;
            prop_assert!(inspected(dir.path(), &logs) == whole);
            // An index from before: it is current with a batch in the middle of a regrouped segment.
            let index = dir.path().join("index");
            fs::remove_dir_all(&index)?;
            if fs::read_dir(aside.path())?.next().is_some() {
                copy_folder(aside.path(), &index);
            }
            let store = open(config).await;
            prop_assert!(seen(&store, &logs).await == before);
            close(store).await;
            Ok(())
        })?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_go_on_while_segments_are_regrouped_under_them() {
    let dir = TempDir::new().expect("a folder");
    let store = std::sync::Arc::new(open(idle(dir.path())).await);
    let mut logs = mixed(&store, 8, 40).await;
    // Bob's grows with each.
    logs.pop();
    let before = seen(&store, &logs).await;
    for _ in 0..5 {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (store, logs, before) = (store.clone(), logs.clone(), before.clone());
                tokio::spawn(async move { assert!(seen(&store, &logs).await == before) })
            })
            .collect();
        store.regroup().await.expect("regrouped");
        for reader in readers {
            reader.await.expect("reads what was there");
        }
        // More to regroup.
        mixed(&store, 5, 40).await;
    }
    let store = std::sync::Arc::into_inner(store).expect("nobody else has it");
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_regroups_what_it_seals_by_itself_and_leaves_one_logs_segments_alone() {
    let dir = TempDir::new().expect("a folder");
    let store = open(small(dir.path())).await;
    channel_with(&store, 100, &[1; 900]).await;
    let alone = segments(dir.path()).len() - 1;
    mixed(&store, 6, 60).await;
    let begun = std::time::Instant::now();
    while grouped(dir.path()) + alone + 1 < segments(dir.path()).len() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never does");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let first = segments(dir.path()).into_iter().take(alone);
    assert!(first.into_iter().all(|path| !is_grouped(&path)));
    close(store).await;
}

// ---- failures

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_at_any_step_leaves_the_segment_as_it_was_or_done() {
    for step in STEPS {
        for error in [EIO, ENOSPC] {
            let (dir, faults) = (TempDir::new().expect("a folder"), DiskFaults::on_demand());
            let config = LocalConfig {
                faults: faults.clone(),
                ..idle(dir.path())
            };
            let store = open(config.clone()).await;
            let logs = mixed(&store, 6, 40).await;
            let before = seen(&store, &logs).await;
            faults.fail(step, error, 1);
            let outcome = store.regroup().await;
            let is_done = step == DiskStep::RegroupSwitched;
            assert_eq!(outcome.is_ok(), is_done, "{step:?}: {outcome:?}");
            assert_eq!(unfinished(dir.path()), 0, "{step:?}");
            assert_eq!(grouped(dir.path()) > 0, is_done, "{step:?}");
            assert_eq!(*store.stopped().borrow(), None);
            assert!(seen(&store, &logs).await == before);
            // It works when it is tried again, and appends never noticed.
            accept(&store, &message(logs[0].channel().expect("a channel"), 1, b"more")).await;
            store.regroup().await.expect("regrouped");
            assert_eq!(grouped(dir.path()), segments(dir.path()).len() - 1);
            close(store).await;
            assert!(inspect::verify(dir.path()).expect("checked").is_whole());
        }
    }
}

/// The child: regroups a store, and crashes at a step of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let (Ok(dir), Ok(step)) = (std::env::var(STORE), std::env::var(CRASH)) else {
        return;
    };
    let faults = DiskFaults::on_demand();
    let step = STEPS[step.parse::<usize>().expect("a number")];
    faults.crash(step);
    let config = LocalConfig {
        faults,
        ..idle(Path::new(&dir))
    };
    let store = open(config).await;
    let outcome = store.regroup().await;
    println!("\nit did not crash: {outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_loses_nothing() {
    for (number, step) in STEPS.into_iter().enumerate() {
        let dir = TempDir::new().expect("a folder");
        let store = open(idle(dir.path())).await;
        let logs = mixed(&store, 6, 40).await;
        let before = seen(&store, &logs).await;
        close(store).await;
        let whole = inspected(dir.path(), &logs);
        let output = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "local::regroup::child", "--nocapture"])
            .env(STORE, dir.path())
            .env(CRASH, number.to_string())
            .output()
            .expect("the child runs");
        assert!(!output.status.success(), "{step:?}: {output:?}");
        let is_switched = step == DiskStep::RegroupSwitched;
        assert_eq!(grouped_segments(dir.path()), usize::from(is_switched), "{step:?}");
        assert_eq!(unfinished(dir.path()), usize::from(!is_switched), "{step:?}");
        // The folder of a node that crashed can be looked at, and a node starts over it.
        assert!(inspected(dir.path(), &logs) == whole, "{step:?}");
        let store = open(idle(dir.path())).await;
        assert_eq!(unfinished(dir.path()), 0, "{step:?}");
        assert!(seen(&store, &logs).await == before, "{step:?}");
        store.regroup().await.expect("regrouped");
        assert!(seen(&store, &logs).await == before, "{step:?}");
        close(store).await;
    }
}

fn grouped_segments(dir: &Path) -> usize {
    let paths = segments(dir).into_iter();
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "seg");
    paths.filter(is_segment).filter(|path| is_grouped(path)).count()
}

// ---- damage

/// A store with one regrouped segment and an open one.
async fn with_one_regrouped(dir: &Path) -> (Vec<LogId>, BTreeMap<LogId, Vec<u8>>, PathBuf) {
    let store = open(idle(dir)).await;
    let logs = mixed(&store, 5, 9).await;
    let before = seen(&store, &logs).await;
    store.regroup().await.expect("regrouped");
    close(store).await;
    let path = segments(dir)
        .into_iter()
        .find(|path| is_grouped(path))
        .expect("a regrouped segment");
    (logs, before, path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_anywhere_in_a_regrouped_segment_is_told_or_does_no_harm() {
    let dir = TempDir::new().expect("a folder");
    let (logs, before, path) = with_one_regrouped(dir.path()).await;
    let name = path.file_name().expect("a name").to_owned();
    let bytes = fs::read(&path).expect("read");
    let directory = directory_at(&bytes);
    let tables = tables_at(&bytes, directory);
    let places = (48..tables).step_by(1_499).chain((tables..bytes.len()).step_by(67));
    for (number, place) in places.enumerate() {
        let copy = TempDir::new().expect("a folder");
        copy_of_segments(dir.path(), copy.path());
        if number % 2 == 0 {
            copy_folder(&dir.path().join("index"), &copy.path().join("index"));
        }
        let flipped = copy.path().join("segments").join(&name);
        flip(&flipped, place);
        let store = open(idle(copy.path())).await;
        let mut damaged = 0;
        for log in &logs {
            let (mut cursor, mut read) = (Offset::ZERO, Vec::new());
            loop {
                match store.read(*log, cursor, 1, 1).await {
                    Ok(batch) => {
                        read.extend(batch.records.iter().flatten());
                        cursor = batch.last;
                        if cursor == batch.head {
                            break;
                        }
                    }
                    Err(StoreError::Corrupt { place }) => {
                        assert!(place.contains(".seg"), "{place}");
                        damaged += 1;
                        break;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(before[log].starts_with(&read), "byte {place}: wrong bytes of {log}");
        }
        if place >= tables {
            // Tables, directory, footer, trailer: the records tell the same.
            assert_eq!(damaged, 0, "byte {place} of the tables costs entries");
        } else {
            assert!(damaged <= 1, "byte {place} hits {damaged} logs");
        }
        close(store).await;
        // Whatever it costs, an operator hears of it.
        assert!(
            !inspect::verify(copy.path()).expect("checked").is_whole(),
            "byte {place}"
        );
    }
}

/// Where a regrouped segment's directory is: its trailer says.
fn directory_at(bytes: &[u8]) -> usize {
    let trailer = &bytes[bytes.len() - 64..];
    let at = trailer[20..24].try_into().expect("four bytes");
    u32::from_le_bytes(at) as usize
}

/// Where the tables are: the directory says where the spine ends.
fn tables_at(bytes: &[u8], directory: usize) -> usize {
    let at = bytes[directory + 32 + 8..directory + 32 + 12]
        .try_into()
        .expect("four bytes");
    u32::from_le_bytes(at) as usize
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_with_damage_is_left_as_it_is() {
    let dir = TempDir::new().expect("a folder");
    let store = open(idle(dir.path())).await;
    mixed(&store, 5, 30).await;
    close(store).await;
    let hit = segments(dir.path())[1].clone();
    let middle = fs::read(&hit).expect("read").len() / 2;
    flip(&hit, middle);
    let store = open(idle(dir.path())).await;
    let regrouped = store.regroup().await.expect("regrouped");
    assert_eq!(regrouped.segments as usize, segments(dir.path()).len() - 2);
    assert!(!is_grouped(&hit));
    assert_eq!(unfinished(dir.path()), 0);
    close(store).await;
    assert_eq!(inspect::verify(dir.path()).expect("checked").problems.len(), 1);
}

// ---- what goes

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_drops_regrouped_segments_and_forgets_their_frames() {
    let dir = TempDir::new().expect("a folder");
    let config = LocalConfig {
        retention: Retention {
            age: None,
            bytes: Some(100 * 1024),
            check_every: Duration::from_secs(3_600),
        },
        ..idle(dir.path())
    };
    let store = open(config.clone()).await;
    let channel = ChannelId::generate();
    let first = message(channel, 1, b"the first words");
    accept(&store, &create(channel)).await;
    accept(&store, &first).await;
    let logs = mixed(&store, 6, 80).await;
    let again = append(&store, &first).await.expect("known");
    assert!(again.duplicate);
    assert!(store.regroup().await.expect("regrouped").segments > 3);
    let before = segments(dir.path()).len();
    let dropped = store.enforce_retention().await.expect("enforced") as usize;
    assert!(dropped > 3 && segments(dir.path()).len() <= before + 1 - dropped);
    for log in logs.iter().chain([&channel.log()]) {
        assert!(matches!(
            store.read(*log, Offset::ZERO, 1, 1).await,
            Err(StoreError::Trimmed { .. })
        ));
    }
    // Its id was forgotten with its segment.
    assert!(!append(&store, &first).await.expect("a new entry").duplicate);
    let kept = seen(&store, &logs).await;
    store.regroup().await.expect("regrouped");
    assert!(seen(&store, &logs).await == kept);
    close(store).await;
    for _ in 0..2 {
        let store = open(config.clone()).await;
        assert!(seen(&store, &logs).await == kept);
        close(store).await;
        assert!(inspect::verify(dir.path()).expect("checked").is_whole());
        fs::remove_dir_all(dir.path().join("index")).expect("removed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_and_regrouping_at_once_bring_no_dropped_segment_back() {
    let dir = TempDir::new().expect("a folder");
    let config = LocalConfig {
        segment_bytes: 8 * 1024,
        retention: Retention {
            age: None,
            bytes: Some(32 * 1024),
            check_every: Duration::from_secs(3_600),
        },
        ..idle(dir.path())
    };
    let store = open(config.clone()).await;
    let mut logs = Vec::new();
    for _ in 0..8 {
        logs = mixed(&store, 5, 12).await;
        let (regrouped, dropped) = tokio::join!(store.regroup(), store.enforce_retention());
        regrouped.expect("regrouped");
        dropped.expect("enforced");
    }
    store.enforce_retention().await.expect("enforced");
    let sealed: u64 = segments(dir.path())
        .iter()
        .map(|path| fs::metadata(path).expect("there").len())
        .sum();
    assert!(sealed < 3 * 32 * 1024, "{sealed}");
    let kept = seen(&store, &logs).await;
    close(store).await;
    assert!(inspect::verify(dir.path()).expect("checked").is_whole());
    let store = open(config).await;
    assert!(seen(&store, &logs).await == kept);
    close(store).await;
}

// ---- replicas

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_regroups_its_mirror_and_knows_where_its_shards_are() {
    let dir = TempDir::new().expect("a folder");
    let (replica, _) = Replica::open(idle(dir.path())).await.expect("opens");
    let channels: Vec<ChannelId> = (0..5).map(|_| ChannelId::generate()).collect();
    let mut frames: Vec<Frame> = channels.iter().map(|channel| create(*channel)).collect();
    for turn in 0..60 {
        frames.extend(channels.iter().map(|channel| message(*channel, 1, &[turn; 700])));
    }
    let mut last = ShardPosition::default();
    for (sequence, frame) in (1..).zip(&frames) {
        last = ShardPosition {
            shard: 1,
            stream: 5,
            sequence,
            time_ms: sequence,
            owed_from: sequence + 1,
            ..ShardPosition::default()
        };
        let message = Message {
            sequence,
            time_ms: sequence,
            frame: Some(frame.clone()),
            repeated: false,
        };
        let follow = Follow {
            position: last.clone(),
            messages: vec![message],
        };
        replica.follow(follow).await.expect("followed");
    }
    let logs: Vec<LogId> = channels.iter().map(|channel| channel.log()).collect();
    let before = seen(replica.store(), &logs).await;
    assert!(replica.store().regroup().await.expect("regrouped").segments > 3);
    assert!(seen(replica.store(), &logs).await == before);
    replica.close().await.expect("closed");
    for _ in 0..2 {
        let (replica, positions) = Replica::open(idle(dir.path())).await.expect("opens");
        assert_eq!(positions, [last.clone()]);
        assert!(seen(replica.store(), &logs).await == before);
        replica.close().await.expect("closed");
        fs::remove_dir_all(dir.path().join("index")).expect("removed");
    }
    // Without the open segment, the last regrouped one says where it was then.
    let (replica, _) = Replica::open(idle(dir.path())).await.expect("opens");
    replica.store().regroup().await.expect("regrouped");
    replica.close().await.expect("closed");
    fs::remove_dir_all(dir.path().join("index")).expect("removed");
    fs::remove_file(segments(dir.path()).pop().expect("the open one")).expect("removed");
    assert!(is_grouped(&segments(dir.path()).pop().expect("a segment")));
    let (replica, positions) = Replica::open(idle(dir.path())).await.expect("opens");
    assert!(positions[0].sequence > 0 && positions[0].sequence <= last.sequence);
    let head = seen(replica.store(), &logs).await;
    assert!(logs.iter().all(|log| !head[log].is_empty()));
    replica.close().await.expect("closed");
}

/// A replica that has followed a stream of one shard, message by message.
struct Following {
    dir: TempDir,
    replica: Replica,
    position: ShardPosition,
}

impl Following {
    async fn new() -> Self {
        let dir = TempDir::new().expect("a folder");
        let (replica, _) = Replica::open(idle(dir.path())).await.expect("opens");
        Self {
            dir,
            replica,
            position: ShardPosition::default(),
        }
    }

    async fn follow(&mut self, frames: &[Frame]) {
        let first = self.position.sequence + 1;
        let messages: Vec<Message> = (first..)
            .zip(frames)
            .map(|(sequence, frame)| Message {
                sequence,
                time_ms: sequence,
                frame: Some(frame.clone()),
                repeated: false,
            })
            .collect();
        let last = messages.last().expect("a message").sequence;
        self.position = ShardPosition {
            shard: 1,
            stream: 5,
            sequence: last,
            time_ms: last,
            owed_from: last + 1,
            ..ShardPosition::default()
        };
        let position = self.position.clone();
        self.replica
            .follow(Follow { position, messages })
            .await
            .expect("followed");
    }

    async fn seen(&self, logs: &[LogId]) -> BTreeMap<LogId, Vec<u8>> {
        seen(self.replica.store(), logs).await
    }

    async fn reopen(self) -> Self {
        self.replica.close().await.expect("closed");
        fs::remove_dir_all(self.dir.path().join("index")).expect("removed");
        let (replica, positions) = Replica::open(idle(self.dir.path())).await.expect("opens");
        assert_eq!(positions, std::slice::from_ref(&self.position));
        Self { replica, ..self }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_regroups_is_trimmed_like_one_that_does_not() {
    let (mut regrouping, mut plain) = (Following::new().await, Following::new().await);
    let channels: Vec<ChannelId> = (0..6).map(|_| ChannelId::generate()).collect();
    let logs: Vec<LogId> = channels.iter().map(|channel| channel.log()).collect();
    let creates: Vec<Frame> = channels.iter().map(|channel| create(*channel)).collect();
    let (mut dropped, mut regrouped) = ([0, 0], 0);
    for round in 0..12_u64 {
        let mut frames = match round {
            0 => creates.clone(),
            _ => Vec::new(),
        };
        for turn in 0..20 {
            let bytes = (usize::from(turn) * 97) % 1_100;
            frames.extend(channels.iter().map(|channel| message(*channel, 1, &vec![turn; bytes])));
        }
        // Each is trimmed at another time, and so far as another one.
        let trimmed = &channels[(round % 6) as usize];
        let up_to = at(round * 20 + 1 - (round * 7) % 20);
        frames.push(frame(trimmed.log(), ALICE, 0, Detail::Trim { up_to }, b""));
        for replica in [&mut regrouping, &mut plain] {
            for some in frames.chunks(9) {
                replica.follow(some).await;
            }
        }
        regrouped += regrouping.replica.store().regroup().await.expect("regrouped").segments;
        for (replica, dropped) in [&regrouping, &plain].into_iter().zip(&mut dropped) {
            *dropped += replica.replica.drop_trimmed().await.expect("dropped");
        }
        assert!(regrouping.seen(&logs).await == plain.seen(&logs).await, "round {round}");
        if round % 5 == 4 {
            let before = plain.seen(&logs).await;
            (regrouping, plain) = (regrouping.reopen().await, plain.reopen().await);
            assert!(regrouping.seen(&logs).await == before, "round {round}");
        }
    }
    // All that is old goes, from regrouped segments, too.
    let ends: Vec<Frame> = channels
        .iter()
        .map(|channel| frame(channel.log(), ALICE, 0, Detail::Trim { up_to: at(200) }, b""))
        .collect();
    for replica in [&mut regrouping, &mut plain] {
        replica.follow(&ends).await;
    }
    for (replica, dropped) in [&regrouping, &plain].into_iter().zip(&mut dropped) {
        *dropped += replica.replica.drop_trimmed().await.expect("dropped");
    }
    assert!(
        regrouped > 5 && dropped[0] > 3,
        "{regrouped} regrouped, {dropped:?} dropped"
    );
    assert_eq!(
        dropped[0], dropped[1],
        "a regrouped segment goes when the one it replaced would"
    );
    let before = plain.seen(&logs).await;
    let regrouping = regrouping.reopen().await;
    assert!(regrouping.seen(&logs).await == before);
    regrouping.replica.close().await.expect("closed");
    plain.replica.close().await.expect("closed");
    assert!(inspect::verify(regrouping.dir.path()).expect("checked").is_whole());
}
