//! A store that follows streams: batches are there whole or not at all, and say where each shard is.

use super::script::{
    ACCOUNT, ALICE, BOB, at, bundle, channel_with, claim, close, copy_of_segments, create, entries, frame, holds,
    key_package, message, open, segments, small,
};
use skytale_log_store::local::replica::{Follow, Followed, Message, Replica};
use skytale_log_store::local::{DiskFaults, DiskStep, ShardPosition};
use skytale_log_store::{Access, LocalConfig, LocalStore, LogStore as _, Refused};
use skytale_proto::{AgentId, ChannelId, Code, Detail, Frame, LogId, Offset};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A stream as a test has it: its messages, from sequence 1.
#[derive(Clone, Default)]
struct Stream(Vec<Frame>);

impl Stream {
    fn position(&self, shard: u32, sequence: u64) -> ShardPosition {
        ShardPosition {
            shard,
            stream: 77,
            sequence,
            time_ms: 1_000 + sequence,
            chain: [sequence as u8; 32],
            message: [shard as u8; 32],
            owed_from: sequence + 1,
            repeated_after: 0,
            repeated: Vec::new(),
        }
    }

    /// Messages after a sequence, up to and with another.
    fn follow(&self, shard: u32, after: u64, to: u64) -> Follow {
        Follow {
            position: self.position(shard, to),
            messages: (after + 1..=to)
                .map(|sequence| Message {
                    sequence,
                    time_ms: 1_000 + sequence,
                    frame: Some(self.0[sequence as usize - 1].clone()),
                    repeated: false,
                })
                .collect(),
        }
    }
}

async fn replica(config: LocalConfig) -> (Replica, BTreeMap<u32, ShardPosition>) {
    let (replica, positions) = Replica::open(config).await.expect("the replica opens");
    (
        replica,
        positions
            .into_iter()
            .map(|position| (position.shard, position))
            .collect(),
    )
}

async fn follow(replica: &Replica, follow: Follow) -> Vec<Followed> {
    replica.follow(follow).await.expect("followed")
}

/// A claim of nothing, a package, a claim of it, a claim of nothing again, and the claim that was an entry: what must
/// not be folded twice.
fn touchy(agent: AgentId) -> Stream {
    let (package, first, second) = (key_package(agent, false), claim(agent), claim(agent));
    Stream(vec![first.clone(), package, first.clone(), second, first])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_gives_the_verdicts_and_times_of_the_stream() {
    let dir = TempDir::new().expect("a folder");
    let (replica, positions) = replica(LocalConfig::new(dir.path())).await;
    assert!(positions.is_empty());
    let channel = ChannelId::generate();
    let (first, second) = (create(channel), message(channel, 1, b"one"));
    let stream = Stream(vec![
        first.clone(),
        second.clone(),
        second.clone(),
        message(channel, 7, b"stale"),
    ]);
    let followed = follow(&replica, stream.follow(3, 0, 4)).await;
    let verdicts: Vec<_> = followed.into_iter().map(|followed| followed.verdict).collect();
    let [Some(Ok(create)), Some(Ok(one)), Some(Ok(again)), Some(Err(refused))] = &verdicts[..] else {
        panic!("{verdicts:?}");
    };
    assert_eq!((create.offset, create.time_ms), (at(1), 1_001));
    assert_eq!((one.offset, one.time_ms, one.duplicate), (at(2), 1_002, false));
    assert_eq!((again.offset, again.time_ms, again.duplicate), (at(2), 1_002, true));
    assert_eq!(*refused, Refused::StaleEpoch { head: at(1) });
    holds(replica.store(), channel.log(), &[first, second]).await;
    let records = entries(replica.store(), channel.log(), Offset::ZERO)
        .await
        .expect("read");
    assert_eq!(
        records.iter().map(|record| record.time_ms).collect::<Vec<_>>(),
        [1_001, 1_002]
    );
    replica.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundles_welcomes_are_given_to_who_follows() {
    let dir = TempDir::new().expect("a folder");
    let (replica, _) = replica(LocalConfig::new(dir.path())).await;
    let channel = ChannelId::generate();
    let stream = Stream(vec![create(channel), bundle(channel, 1, &[BOB])]);
    let followed = follow(&replica, stream.follow(0, 0, 2)).await;
    let welcomes = &followed[1].welcomes;
    assert_eq!(welcomes.len(), 1);
    assert_eq!(welcomes[0].log, BOB.log());
    assert!(
        entries(replica.store(), BOB.log(), Offset::ZERO)
            .await
            .expect("read")
            .is_empty()
    );
    assert_eq!(replica.seen(BOB.log(), welcomes[0].id).await, Ok(None));

    // If the Welcome was there first, nothing is owed.
    let welcome = Frame::new(welcomes[0].clone(), b"".as_slice()).expect("a frame");
    let other = TempDir::new().expect("a folder");
    let (second, _) = self::replica(LocalConfig::new(other.path())).await;
    let stream_of_bob = Stream(vec![key_package(BOB, false), claim(BOB), welcome.clone()]);
    follow(&second, stream_of_bob.follow(1, 0, 3)).await;
    assert_eq!(second.seen(BOB.log(), welcome.header().id).await, Ok(Some(at(3))));
    let followed = follow(&second, stream.follow(0, 0, 2)).await;
    assert!(followed[1].welcomes.is_empty());
    replica.close().await.expect("closed");
    second.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reopened_replica_stands_where_it_stood_in_every_shard() {
    let dir = TempDir::new().expect("a folder");
    let mut expected = BTreeMap::new();
    for round in 0..3u64 {
        let (replica, positions) = replica(small(dir.path())).await;
        assert_eq!(positions, expected, "round {round}");
        for shard in 0..4u32 {
            let stream = touchy(AgentId::from_bytes([shard as u8 + 10 * round as u8 + 1; 32]));
            let mut follow = stream.follow(shard, 0, 5);
            follow.position.sequence = 5 * (round + 1);
            for message in &mut follow.messages {
                message.sequence += 5 * round;
            }
            let mut expect: ShardPosition = follow.position.clone();
            let before = expected.get(&shard).map(|known: &ShardPosition| known.repeated.clone());
            self::follow(&replica, follow).await;
            // Each claim counts as repeated where it was an entry before.
            expect.repeated = before.unwrap_or_default();
            expect.repeated.push(5 * round + 5);
            expected.insert(shard, expect);
        }
        replica.close().await.expect("closed");
        if round == 1 {
            fs::remove_dir_all(dir.path().join("index")).expect("removed");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_alone_move_the_position_across_a_close() {
    let dir = TempDir::new().expect("a folder");
    let channel = ChannelId::generate();
    let stream = Stream(vec![message(channel, 1, b"nowhere"); 3]);
    let (first, _) = replica(LocalConfig::new(dir.path())).await;
    follow(&first, stream.follow(9, 0, 3)).await;
    first.close().await.expect("closed");
    let (second, positions) = replica(LocalConfig::new(dir.path())).await;
    assert_eq!(positions.get(&9), Some(&stream.position(9, 3)));
    second.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_cut_at_any_byte_is_not_there_at_all() {
    let dir = TempDir::new().expect("a folder");
    let agent = AgentId::from_bytes([9; 32]);
    let stream = touchy(agent);
    let (whole, _) = replica(LocalConfig::new(dir.path())).await;
    let first = follow(&whole, stream.follow(0, 0, 2)).await;
    let path = segments(dir.path()).pop().expect("a segment");
    let used = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).expect("bytes") + 1;
    let before = used(&fs::read(&path).expect("read"));
    let second = follow(&whole, stream.follow(0, 2, 5)).await;
    let bytes = fs::read(&path).expect("read");
    let end = used(&bytes);
    assert_eq!(first[0].verdict, Some(Err(Refused::KeyPackagesExhausted)));
    for cut in (before..end).step_by(7) {
        let copy = TempDir::new().expect("a folder");
        copy_of_segments(dir.path(), copy.path());
        let torn = segments(copy.path()).pop().expect("a segment");
        fs::write(&torn, &bytes[..cut]).expect("written");
        let (replica, positions) = replica(LocalConfig::new(copy.path())).await;
        assert_eq!(positions.get(&0), Some(&stream.position(0, 2)), "cut at {cut}");
        let again = follow(&replica, stream.follow(0, 2, 5)).await;
        assert_eq!(again, second, "cut at {cut}");
        replica.close().await.expect("closed");
    }
    whole.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_of_the_machine_took_is_followed_again() {
    let dir = TempDir::new().expect("a folder");
    let channel = ChannelId::generate();
    let mut stream = Stream(vec![create(channel)]);
    stream
        .0
        .extend((0..9).map(|number| message(channel, 1, format!("body {number}, to be lost").as_bytes())));
    let (whole, _) = replica(LocalConfig::new(dir.path())).await;
    let mut followed = Vec::new();
    for from in 0..10 {
        followed.extend(follow(&whole, stream.follow(0, from, from + 1)).await);
    }
    whole.close().await.expect("closed");
    // Pages are written back in any order: one in the middle is missing, with the index or without it.
    for (lost, with_index) in [(0, true), (4, true), (4, false), (8, true)] {
        let copy = TempDir::new().expect("a folder");
        super::script::copy_folder(dir.path(), copy.path());
        let path = segments(copy.path()).pop().expect("a segment");
        let mut bytes = fs::read(&path).expect("read");
        let place = super::script::find(&bytes, format!("body {lost}, to be lost").as_bytes());
        bytes[place..place + 10].fill(0);
        fs::write(&path, bytes).expect("written");
        if !with_index {
            fs::remove_dir_all(copy.path().join("index")).expect("removed");
        }
        let (replica, positions) = replica(LocalConfig::new(copy.path())).await;
        assert_eq!(positions.get(&0), Some(&stream.position(0, lost + 1)), "lost {lost}");
        holds(replica.store(), channel.log(), &stream.0[..=lost as usize]).await;
        let again = follow(&replica, stream.follow(0, lost + 1, 10)).await;
        assert_eq!(again, followed[lost as usize + 1..]);
        holds(replica.store(), channel.log(), &stream.0).await;
        replica.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_a_sealed_segment_is_said_and_how_to_mend_it() {
    let dir = TempDir::new().expect("a folder");
    let channel = ChannelId::generate();
    let (whole, _) = replica(small(dir.path())).await;
    let mut stream = Stream(vec![create(channel), message(channel, 1, b"a body to be damaged")]);
    stream.0.extend((0..100).map(|_| message(channel, 1, &[7; 1_000])));
    for from in (0..100).step_by(10) {
        follow(&whole, stream.follow(0, from, from + 10)).await;
    }
    whole.close().await.expect("closed");
    fs::remove_dir_all(dir.path().join("index")).expect("removed");
    let path = segments(dir.path()).remove(0);
    let place = super::script::find(&fs::read(&path).expect("read"), b"a body to be damaged");
    super::script::flip(&path, place);
    let Err(error) = Replica::open(small(dir.path())).await else {
        panic!("opens");
    };
    assert_eq!(error.code(), Code::StoreCorrupt);
    assert!(error.to_string().contains("delete the folder"), "{error}");
    Replica::erase(dir.path()).expect("erased");
    let (made_again, positions) = replica(small(dir.path())).await;
    assert!(positions.is_empty());
    made_again.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_replica_that_was_being_erased_is_an_older_one() {
    let dir = TempDir::new().expect("a folder");
    let channel = ChannelId::generate();
    let mut stream = Stream(vec![create(channel)]);
    stream.0.extend((0..100).map(|_| message(channel, 1, &[7; 1_000])));
    let (whole, _) = replica(small(dir.path())).await;
    for from in (0..100).step_by(10) {
        follow(&whole, stream.follow(0, from, from + 10)).await;
    }
    whole.close().await.expect("closed");
    fs::remove_dir_all(dir.path().join("index")).expect("removed");
    let mut before = 101;
    // The newest segments go first.
    while let Some(newest) = segments(dir.path()).pop() {
        fs::remove_file(newest).expect("removed");
        let copy = TempDir::new().expect("a folder");
        copy_of_segments(dir.path(), copy.path());
        let (older, positions) = replica(small(copy.path())).await;
        let stands = positions.get(&0).map_or(0, |position| position.sequence);
        assert!(stands < before, "{stands} after {before}");
        let expected = stream.position(0, stands);
        assert_eq!(positions.get(&0), (stands > 0).then_some(&expected));
        follow(&older, stream.follow(0, stands, 100)).await;
        holds(older.store(), channel.log(), &stream.0[..100]).await;
        older.close().await.expect("closed");
        before = stands;
    }
    assert_eq!(before, 0);
    // Last of all its format goes.
    fs::remove_dir_all(dir.path().join("segments")).expect("removed");
    fs::remove_file(dir.path().join("FORMAT")).expect("removed");
    let (empty, positions) = replica(small(dir.path())).await;
    assert!(positions.is_empty());
    empty.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_and_a_single_nodes_store_do_not_open_each_other() {
    let (alone, copy) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let store = open(LocalConfig::new(alone.path())).await;
    channel_with(&store, 1, b"kept").await;
    close(store).await;
    let (replica, _) = replica(LocalConfig::new(copy.path())).await;
    replica.close().await.expect("closed");
    let Err(error) = Replica::open(LocalConfig::new(alone.path())).await else {
        panic!("a single node's store opens as a replica");
    };
    assert!(error.to_string().contains("single node"), "{error}");
    assert!(Replica::erase(alone.path()).is_err(), "and is not erased as one");
    let Err(error) = LocalStore::open(LocalConfig::new(copy.path())).await else {
        panic!("a replica opens as a single node's store");
    };
    assert!(error.to_string().contains("replica"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn installed_states_are_there_after_a_restart_and_half_of_them_is_noticed() {
    let (from, to) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let agent = AgentId::from_bytes([9; 32]);
    let channel = ChannelId::generate();
    let mut stream = touchy(agent);
    stream
        .0
        .extend([create(channel), bundle(channel, 1, &[BOB]), message(channel, 2, b"one")]);
    let (source, _) = replica(small(from.path())).await;
    follow(&source, stream.follow(0, 0, 8)).await;
    let snapshots = source.snapshots(|_| true).await.expect("snapshots");
    assert_eq!(snapshots.len(), 2);
    let (target, _) = replica(small(to.path())).await;
    target
        .install(snapshots.clone(), stream.position(0, 8))
        .await
        .expect("installed");
    let twice = target.install(snapshots, stream.position(0, 8)).await;
    assert!(twice.is_err(), "the logs have states already");
    target.close().await.expect("closed");
    fs::remove_dir_all(to.path().join("index")).expect("removed");

    let (target, positions) = replica(small(to.path())).await;
    assert!(
        Replica::is_half_installed(&positions[&0]),
        "the second attempt was cut off"
    );
    let read = target.store().access(channel.log(), BOB, ACCOUNT, Offset::ZERO).await;
    assert_eq!(read, Ok(Access::NotMember { next: Some(at(2)) }));
    let next = Stream(vec![message(channel, 2, b"two")]);
    let followed = follow(&target, next.follow(0, 0, 1)).await;
    assert!(
        matches!(&followed[0].verdict, Some(Ok(accepted)) if accepted.offset == at(4)),
        "{followed:?}"
    );
    target.close().await.expect("closed");
    source.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trimmed_segments_go_and_positions_stay() {
    let dir = TempDir::new().expect("a folder");
    let (idle, busy) = (ChannelId::generate(), ChannelId::generate());
    let (replica, _) = replica(small(dir.path())).await;
    follow(&replica, Stream(vec![create(idle)]).follow(1, 0, 1)).await;
    let mut stream = Stream(vec![create(busy)]);
    stream.0.extend((0..200).map(|_| message(busy, 1, &[7; 1_000])));
    for from in (0..200).step_by(20) {
        follow(&replica, stream.follow(0, from, from + 20)).await;
    }
    assert!(segments(dir.path()).len() > 3, "segments roll");
    assert_eq!(replica.drop_trimmed().await, Ok(0), "nothing is trimmed");
    let trims = Stream(vec![
        frame(idle.log(), ALICE, 0, Detail::Trim { up_to: at(1) }, b""),
        frame(busy.log(), ALICE, 0, Detail::Trim { up_to: at(150) }, b""),
    ]);
    let mut positions = trims.follow(2, 0, 2);
    positions.position.sequence = 2;
    follow(&replica, positions).await;
    assert!(replica.drop_trimmed().await.expect("dropped") > 1);
    replica.close().await.expect("closed");
    fs::remove_dir_all(dir.path().join("index")).expect("removed");
    let (again, positions) = self::replica(small(dir.path())).await;
    let stands: Vec<u64> = positions.values().map(|position| position.sequence).collect();
    assert_eq!(stands, [200, 1, 2]);
    let first = again
        .store()
        .read(busy.log(), at(150), usize::MAX, 1)
        .await
        .expect("read");
    assert_eq!(first.last, at(151));
    again.close().await.expect("closed");
}

const STORE: &str = "SKYTALE_TEST_REPLICA";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_followed_on_a_full_disk_waits_and_is_folded_once() {
    let dir = TempDir::new().expect("a folder");
    let faults = DiskFaults::on_demand();
    let config = LocalConfig {
        faults: faults.clone(),
        ..small(dir.path())
    };
    let (replica, _) = replica(config.clone()).await;
    let channel = ChannelId::generate();
    let mut stream = Stream(vec![create(channel)]);
    stream.0.extend((0..40).map(|_| message(channel, 1, &[8; 900])));
    follow(&replica, stream.follow(1, 0, 5)).await;

    // A write that finds no room, then a disk with less than must be free.
    for (error, from) in [(Some(28), 5), (None, 20)] {
        match error {
            Some(error) => faults.fail(DiskStep::Batch, error, 1),
            None => {
                faults.set_free_bytes(Some(1));
                while replica.full().is_none() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        let mut parts = Vec::new();
        for after in from..from + 15 {
            parts.push(replica.submit(stream.follow(1, after, after + 1)).await.expect("taken"));
        }
        if error.is_none() {
            let waits = tokio::time::timeout(Duration::from_millis(200), parts[0].outcome()).await;
            assert!(waits.is_err(), "{waits:?}");
            holds(replica.store(), channel.log(), &stream.0[..from as usize]).await;
            assert!(replica.store().readiness().problems[0].contains("until there is room"));
            faults.set_free_bytes(None);
        }
        for mut part in parts {
            let folded = part.outcome().await.expect("folded");
            assert!(matches!(folded[0].verdict, Some(Ok(accepted)) if !accepted.duplicate));
        }
        assert_eq!(*replica.store().stopped().borrow(), None);
        holds(replica.store(), channel.log(), &stream.0[..from as usize + 15]).await;
    }
    replica.close().await.expect("closed");
    drop(replica);
    let (replica, positions) = Replica::open(config).await.expect("the replica opens");
    assert_eq!(positions[0].sequence, 35);
    follow(&replica, stream.follow(1, 35, 41)).await;
    holds(replica.store(), channel.log(), &stream.0).await;
    replica.close().await.expect("closed");
}

/// The stream that the killed child follows: any part of it can be made again.
fn endless(sequence: u64) -> Frame {
    let mut id = [0; 16];
    id[1] = (sequence / 64 % 200) as u8;
    let channel = ChannelId::from_bytes(id);
    let mut frame = match (sequence < 64 * 200, sequence % 64) {
        (true, 0) => create(channel),
        (_, step) => message(channel, 1, &vec![step as u8; step as usize * 20]),
    };
    // A frame's id decides what is a duplicate: it must be the same each time.
    let mut header = frame.header().clone();
    let mut made = [0; 16];
    made[..8].copy_from_slice(&(sequence / 3 * 3 + 1).to_be_bytes());
    made[6] = 0x70;
    header.id = skytale_proto::FrameId::from_bytes(made);
    frame = Frame::new(header, frame.body().clone()).expect("a frame");
    frame
}

fn endless_follow(after: u64, to: u64) -> Follow {
    Follow {
        position: Stream::default().position(0, to),
        messages: (after + 1..=to)
            .map(|sequence| Message {
                sequence,
                time_ms: 1_000 + sequence,
                frame: Some(endless(sequence)),
                repeated: false,
            })
            .collect(),
    }
}

/// The child: follows without end, and prints how far it is. Without the environment's word, nothing.
#[test]
fn child() {
    let Ok(dir) = std::env::var(STORE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (replica, positions) = replica(small(Path::new(&dir))).await;
        let mut at = positions.get(&0).map_or(0, |position| position.sequence);
        loop {
            let to = at + 1 + at % 37;
            let followed = follow(&replica, endless_follow(at, to)).await;
            at = to;
            // If nothing was written, the returned position is no promise that it stays.
            let is_entry = |followed: &Followed| matches!(&followed.verdict, Some(Ok(accepted)) if !accepted.duplicate);
            if !followed.iter().any(is_entry) {
                continue;
            }
            let mut out = std::io::stdout().lock();
            out.write_all(format!("\nat {at} .\n").as_bytes())
                .and_then(|()| out.flush())
                .expect("printed");
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_while_following_goes_on_where_it_stood() {
    let (dir, plain) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let (reference, _) = replica(LocalConfig::new(plain.path())).await;
    let mut reference_at = 0;
    for kill in 0..8 {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "local::replica::child", "--nocapture"])
            .env(STORE, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the follower starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let sequence = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
            ["at", at, "."] => Some(at.parse::<u64>().expect("a sequence")),
            _ => None,
        };
        // However long its start takes, it is killed while it follows.
        let first = lines.find_map(|line| sequence(&line.expect("read")));
        let mut told = first.expect("it follows until it is killed");
        let random = u64::from(ChannelId::generate().as_bytes()[15]);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200 + random));
            child.kill().expect("SIGKILL");
            child.wait().expect("gone");
        });
        for line in lines {
            told = sequence(&line.expect("read")).unwrap_or(told);
        }
        killer.join().expect("killed");
        if kill % 3 == 2 {
            fs::remove_dir_all(dir.path().join("index")).expect("removed");
        }
        let (again, positions) = replica(small(dir.path())).await;
        let position = positions.get(&0).map_or(0, |position| position.sequence);
        assert!(position >= told, "told {told}, stands at {position}");
        // Positions that only refusals moved may be folded again, with the same result.
        while reference_at < position {
            let to = (reference_at + 500).min(position);
            follow(&reference, endless_follow(reference_at, to)).await;
            reference_at = to;
        }
        let mine = again.snapshots(|_| true).await.expect("snapshots");
        let theirs = reference.snapshots(|_| true).await.expect("snapshots");
        assert_eq!(mine.len(), theirs.len());
        for (mine, theirs) in mine.iter().zip(&theirs) {
            assert_eq!(mine.encode(), theirs.encode(), "{}", mine.log());
        }
        compare(
            again.store(),
            reference.store(),
            mine.first().map(|snapshot| snapshot.log()),
        )
        .await;
        again.close().await.expect("closed");
    }
    assert!(reference_at > 0);
    reference.close().await.expect("closed");
}

async fn compare(mine: &LocalStore, theirs: &LocalStore, log: Option<LogId>) {
    let Some(log) = log else { return };
    let (mine, theirs) = (
        entries(mine, log, Offset::ZERO).await.expect("read"),
        entries(theirs, log, Offset::ZERO).await.expect("read"),
    );
    assert_eq!(mine, theirs);
}
