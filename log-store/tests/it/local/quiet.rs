//! A node to which nobody appends: what is too old is gone from the disk all the same, within a tenth of the retention; and
//! nothing younger is lost, whatever happens meanwhile.

use super::script::*;
use proptest::prelude::*;
use skytale_log_store::local::replica::{Follow, Message, Replica};
use skytale_log_store::local::{Clocks, DiskFaults, DiskStep, Retention, ShardPosition};
use skytale_log_store::{LocalConfig, LocalStore, LogStore as _, StoreError};
use skytale_proto::{ChannelId, Detail, Frame, LogId, Offset};
use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Retention of entries here. Each call of [`look`] runs the store's checks.
const AGE: Duration = Duration::from_secs(30 * 24 * 3_600);
/// From one look to the next, where time passes.
const LOOK_EVERY: Duration = Duration::from_secs(6 * 3_600);
/// Error of the system if there is no room.
const ENOSPC: i32 = 28;
/// An entry is gone when it is as old as the retention and a twentieth, within the next two looks.
const GONE_AFTER: Duration = Duration::from_secs(30 * 24 * 3_600 / 20 * 21);

/// A store with segments of the usual size, on a machine whose clocks are moved by hand.
fn config(dir: &Path, clocks: &Clocks) -> LocalConfig {
    LocalConfig {
        retention: Retention {
            age: Some(AGE),
            bytes: None,
            // The tests look.
            check_every: DAY,
        },
        clocks: clocks.clone(),
        index_cache_bytes: 4 * 1024 * 1024,
        ..LocalConfig::new(dir)
    }
}

async fn look(store: &LocalStore) -> u64 {
    store.enforce_retention().await.expect("enforced")
}

/// Whether a text is in any segment's file.
fn is_on_disk(dir: &Path, text: &[u8]) -> bool {
    // A file that is being regrouped takes another one's name meanwhile, with the same entries.
    let holds = |path: &std::path::PathBuf| match fs::read(path) {
        Ok(bytes) => bytes.windows(text.len()).any(|window| window == text),
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => panic!("read: {error}"),
    };
    segments(dir).iter().any(holds)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_old_is_gone_from_a_node_to_which_nobody_appends() {
    let (dir, clocks) = (TempDir::new().expect("a folder"), Clocks::by_hand());
    let store = open(config(dir.path(), &clocks)).await;
    let (channel, frames) = channel_with(&store, 3, b"the last words for long").await;
    // A day at a time: the store looks each minute.
    for _ in 0..30 {
        clocks.pass(DAY - MINUTE);
        assert_eq!(look(&store).await, 0);
        holds(&store, channel.log(), &frames).await;
        clocks.pass(MINUTE);
    }
    clocks.pass(GONE_AFTER - AGE + MINUTE);
    assert_eq!(look(&store).await, 1);
    assert!(!is_on_disk(dir.path(), b"the last words for long"));
    let head = at(frames.len() as u64);
    match store.read(channel.log(), Offset::ZERO, usize::MAX, u64::MAX).await {
        Err(StoreError::Trimmed { first }) => assert!(first > head),
        other => panic!("{other:?}"),
    }
    // The log goes on, and is the same after a restart without the index.
    accept(&store, &message(channel, 1, b"again")).await;
    close(store).await;
    fs::remove_dir_all(dir.path().join("index")).expect("removed");
    let store = open(config(dir.path(), &clocks)).await;
    let next = accept(&store, &message(channel, 1, b"and again")).await.offset;
    assert_eq!(
        entries(&store, channel.log(), next.previous())
            .await
            .map(|left| left.len()),
        Ok(1)
    );
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_node_does_not_write_for_ever() {
    let (dir, clocks) = (TempDir::new().expect("a folder"), Clocks::by_hand());
    let store = open(config(dir.path(), &clocks)).await;
    channel_with(&store, 3, b"once").await;
    let mut dropped = 0;
    for _ in 0..400 {
        clocks.pass(DAY);
        dropped += look(&store).await;
        assert!(segments(dir.path()).len() <= 2, "{:?}", segments(dir.path()));
    }
    // One Trim and one state of the log in each retention, and not one a day.
    assert!((11..=13).contains(&dropped), "{dropped}");
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_leaps_seals_once_and_gives_nothing_up() {
    let (dir, clocks) = (TempDir::new().expect("a folder"), Clocks::by_hand());
    let store = open(config(dir.path(), &clocks)).await;
    let (channel, frames) = channel_with(&store, 3, b"kept").await;
    clocks.leap(DAY * 40);
    for _ in 0..3 {
        accept(&store, &message(channel, 1, b"kept, too")).await;
        assert_eq!(look(&store).await, 0);
    }
    assert_eq!(segments(dir.path()).len(), 2);
    clocks.leap_back(DAY * 40);
    assert_eq!(look(&store).await, 0);
    let there = entries(&store, channel.log(), Offset::ZERO).await.expect("all of it");
    assert_eq!(there.len(), frames.len() + 3);
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_finds_no_room_for_its_footer_takes_batches_and_is_sealed_later() {
    let (dir, clocks) = (TempDir::new().expect("a folder"), Clocks::by_hand());
    let faults = DiskFaults::on_demand();
    let config = LocalConfig {
        faults: faults.clone(),
        ..config(dir.path(), &clocks)
    };
    let store = open(config).await;
    let (channel, mut frames) = channel_with(&store, 3, b"kept").await;
    clocks.pass(DAY * 2);
    faults.fail(DiskStep::Seal, ENOSPC, 1);
    assert_eq!(look(&store).await, 0);
    frames.push(message(channel, 1, b"in the same segment"));
    accept(&store, frames.last().expect("a frame")).await;
    assert_eq!(segments(dir.path()).len(), 1);
    assert_eq!(look(&store).await, 0);
    frames.push(message(channel, 1, b"in the next one"));
    accept(&store, frames.last().expect("a frame")).await;
    assert_eq!(segments(dir.path()).len(), 2);
    holds(&store, channel.log(), &frames).await;
    close(store).await;
}

/// A step of a store's life.
#[derive(Clone, Debug)]
enum Life {
    Append(u8),
    /// Factor on the time from one look to the next.
    Pass(u32),
    Look,
    Reopen {
        without_index: bool,
        away: Duration,
    },
}

fn life() -> impl Strategy<Value = Vec<Life>> {
    let step = prop_oneof![
        4 => (0..3u8).prop_map(Life::Append),
        4 => (1..40u32).prop_map(Life::Pass),
        4 => Just(Life::Look),
        1 => (any::<bool>(), 0..40u32)
            .prop_map(|(without_index, days)| Life::Reopen { without_index, away: DAY * days }),
    ];
    prop::collection::vec(step, 1..60)
}

/// An entry of the model: where it is, when it was written, and what it says.
struct Written {
    log: LogId,
    offset: Offset,
    at: Duration,
    frame: Frame,
}

async fn live(steps: Vec<Life>) {
    let (dir, clocks) = (TempDir::new().expect("a folder"), Clocks::by_hand());
    let config = LocalConfig {
        segment_bytes: 16 * 1024,
        ..config(dir.path(), &clocks)
    };
    let mut store = open(config.clone()).await;
    let channels: Vec<ChannelId> = (0..3).map(|_| ChannelId::generate()).collect();
    let (mut written, mut now) = (Vec::<Written>::new(), Duration::ZERO);
    for channel in &channels {
        let frame = create(*channel);
        let offset = accept(&store, &frame).await.offset;
        let log = channel.log();
        written.push(Written {
            log,
            offset,
            at: now,
            frame,
        });
    }
    for step in steps {
        match step {
            Life::Append(which) => {
                let channel = channels[usize::from(which)];
                // Messages of an age that can be found again on the disk.
                let body = format!("<entry {:08}>", written.len()).repeat(40);
                let frame = message(channel, 1, body.as_bytes());
                let offset = accept(&store, &frame).await.offset;
                let log = channel.log();
                written.push(Written {
                    log,
                    offset,
                    at: now,
                    frame,
                });
            }
            Life::Pass(times) => {
                for _ in 0..times {
                    clocks.pass(LOOK_EVERY);
                    now += LOOK_EVERY;
                    look(&store).await;
                }
            }
            Life::Look => {
                // After a stop a clock that went on meanwhile is believed an hour later.
                for _ in 0..61 {
                    clocks.pass(MINUTE);
                    now += MINUTE;
                    look(&store).await;
                }
                check(&store, dir.path(), &written, now).await;
            }
            Life::Reopen { without_index, away } => {
                close(store).await;
                clocks.pass(away);
                now += away;
                if without_index {
                    fs::remove_dir_all(dir.path().join("index")).expect("removed");
                }
                store = open(config.clone()).await;
            }
        }
    }
    close(store).await;
}

/// Entries younger than the retention are there; entries older than that and its slack are neither read nor on the
/// disk.
async fn check(store: &LocalStore, dir: &Path, written: &[Written], now: Duration) {
    for entry in written {
        let age = now - entry.at;
        let read = entries(store, entry.log, entry.offset.previous()).await;
        if age <= AGE {
            let read = read.unwrap_or_else(|error| panic!("lost after {age:?}: {error}"));
            assert_eq!(read[0].payload, *entry.frame.encoded());
        } else if age > GONE_AFTER + 2 * LOOK_EVERY {
            assert!(
                matches!(read, Err(StoreError::Trimmed { first }) if first > entry.offset),
                "kept for {age:?}"
            );
            let body = entry.frame.encoded();
            if matches!(entry.frame.header().detail, Detail::Message) {
                let end = &body[body.len() - 64..];
                assert!(!is_on_disk(dir, end), "on the disk after {age:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn nothing_younger_than_the_retention_is_lost_and_nothing_older_is_kept(steps in life()) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(live(steps));
    }
}

const STORE: &str = "SKYTALE_TEST_QUIET_STORE";
const KILLS: u32 = 10;

/// The child of the test below: it appends, lets time pass and looks, without end. Without the environment, nothing.
#[test]
fn child() {
    let Ok(dir) = std::env::var(STORE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let clocks = Clocks::by_hand();
        let store = open(config(Path::new(&dir), &clocks)).await;
        let channel = ChannelId::generate();
        let mut frame = create(channel);
        let mut hours = 0u64;
        loop {
            let accepted = accept(&store, &frame).await;
            let line = format!("\nacked {} {} {hours} .\n", channel.log(), accepted.offset);
            let mut out = std::io::stdout().lock();
            out.write_all(line.as_bytes())
                .and_then(|()| out.flush())
                .expect("printed");
            drop(out);
            frame = message(channel, 1, &[7; 300]);
            // A look at every step: segments are sealed every second day, and dropped after thirty.
            clocks.pass(HOUR * 6);
            hours += 6;
            look(&store).await;
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_while_it_seals_and_drops_loses_nothing_young() {
    let (mut sealed, mut trimmed) = (0, 0);
    for _ in 0..KILLS {
        let dir = TempDir::new().expect("a folder");
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "local::quiet::child", "--nocapture"])
            .env(STORE, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the writer starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        // Past the first segment that is dropped, and then at any time.
        let enough = 150 + usize::from(ChannelId::generate().as_bytes()[15]);
        let mut acked = Vec::new();
        while acked.len() < enough {
            let line = lines.next().expect("the writer ended").expect("read");
            acked.extend(parse(&line));
        }
        child.kill().expect("SIGKILL");
        child.wait().expect("gone");
        acked.extend(lines.filter_map(|line| parse(&line.expect("read"))));

        sealed += segments(dir.path()).len();
        // The machine's clock is behind all that the child wrote: nothing is given up here.
        let store = open(config(dir.path(), &Clocks::by_hand())).await;
        let (log, _, last) = *acked.last().expect("acknowledged");
        let first = match store.read(log, Offset::ZERO, 1, 1).await {
            Err(StoreError::Trimmed { first }) => first,
            Ok(_) => Offset::FIRST,
            Err(error) => panic!("{error}"),
        };
        let there = entries(&store, log, first.previous()).await.expect("read");
        trimmed += usize::from(first > Offset::FIRST);
        for (_, offset, hours) in &acked {
            // The last look came six hours after an acknowledgement whose line may be cut off.
            let young = last + 12 - hours <= 30 * 24;
            assert!(!young || (*offset >= first && *offset <= there.last().expect("entries").offset));
        }
        close(store).await;
    }
    assert!(sealed > KILLS as usize * 10, "{sealed}");
    assert_eq!(trimmed, KILLS as usize);
}

/// A line that the kill cut off has no dot at its end, and promises nothing.
fn parse(line: &str) -> Option<(LogId, Offset, u64)> {
    let words: Vec<&str> = line.split(' ').collect();
    let ["acked", log, offset, hours, "."] = words[..] else {
        return None;
    };
    let offset = Offset::new(offset.parse().expect("an offset"));
    Some((log.parse().expect("a log"), offset, hours.parse().expect("hours")))
}

/// Follows messages of one shard, each with the clock's time.
struct Stream<'a> {
    replica: &'a Replica,
    sequence: u64,
    time_ms: u64,
}

impl Stream<'_> {
    async fn follow(&mut self, frames: Vec<Frame>) {
        let messages = frames.into_iter().map(|frame| {
            self.sequence += 1;
            Message {
                sequence: self.sequence,
                time_ms: self.time_ms,
                frame: Some(frame),
                repeated: false,
            }
        });
        let messages: Vec<_> = messages.collect();
        let position = ShardPosition {
            shard: 0,
            stream: 77,
            sequence: self.sequence,
            time_ms: self.time_ms,
            owed_from: self.sequence + 1,
            ..ShardPosition::default()
        };
        self.replica
            .follow(Follow { position, messages })
            .await
            .expect("followed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_drops_what_its_stream_gave_up_though_nothing_more_comes() {
    let (dir, clocks) = (TempDir::new().expect("a folder"), Clocks::by_hand());
    let (replica, _) = Replica::open(config(dir.path(), &clocks)).await.expect("it opens");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a time");
    let mut stream = Stream {
        replica: &replica,
        sequence: 0,
        time_ms: u64::try_from(now.as_millis()).expect("milliseconds"),
    };
    let channel = ChannelId::generate();
    stream
        .follow(vec![create(channel), message(channel, 1, b"the last words for long")])
        .await;
    assert_eq!(replica.drop_trimmed().await, Ok(0));
    clocks.pass(DAY * 40);
    // However old it is, the stream alone says what is given up.
    assert_eq!(replica.drop_trimmed().await, Ok(0));
    assert_eq!(
        entries(replica.store(), channel.log(), Offset::ZERO)
            .await
            .map(|read| read.len()),
        Ok(2)
    );
    stream.time_ms += u64::try_from((DAY * 40).as_millis()).expect("milliseconds");
    let store = skytale_proto::AgentId::from_bytes([0; 32]);
    stream
        .follow(vec![frame(channel.log(), store, 0, Detail::Trim { up_to: at(2) }, b"")])
        .await;
    assert_eq!(replica.drop_trimmed().await, Ok(1));
    assert!(!is_on_disk(dir.path(), b"the last words for long"));
    replica.close().await.expect("closed");
    let (replica, positions) = Replica::open(config(dir.path(), &clocks)).await.expect("it opens");
    assert_eq!(positions.first().map(|position| position.sequence), Some(3));
    let state = replica.state(channel.log()).await.expect("a state");
    assert_eq!((state.first_available(), state.head()), (at(3), at(3)));
    replica.close().await.expect("closed");
}
