//! A store whose disk is full takes no appends, says so, serves reads, keeps what it acknowledged, and goes on by itself
//! when there is room. Here the disk's part is played by planned faults, so that this is shown everywhere.

use super::script::*;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use proptest::prelude::*;
use skytale_log_store::local::{DiskFaults, DiskStep, Retention};
use skytale_log_store::{Accepted, AppendError, LocalConfig, LocalStore, LogStore as _, StoreError};
use skytale_proto::{ChannelId, Code, Frame, Offset};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Time after which a call counts as hanging.
const HANGING: Duration = Duration::from_secs(120);
const NO_SPACE: i32 = 28;
const QUOTA: i32 = 122;
const MIB: u64 = 1024 * 1024;

fn faulty(dir: &Path) -> (LocalConfig, DiskFaults) {
    let faults = DiskFaults::on_demand();
    let config = LocalConfig {
        faults: faults.clone(),
        ..small(dir)
    };
    (config, faults)
}

/// Appends a frame again and again, as an agent does, until it is an entry; everything else is a refusal for lack of room.
pub(crate) async fn append_at_last(store: &LocalStore, frame: &Frame) -> u64 {
    let begun = Instant::now();
    loop {
        match append(store, frame).await {
            Ok(accepted) => return accepted.offset.get(),
            Err(error) => assert_eq!(error.code(), Code::StoreFull, "{error}"),
        }
        assert!(begun.elapsed() < HANGING, "no room again: {:?}", store.readiness());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Appends new messages until one is refused for lack of room. Gives those that became entries, and the refused one.
pub(crate) async fn fill(store: &LocalStore, channel: ChannelId, body: &[u8]) -> (Vec<Frame>, Frame) {
    let mut taken = Vec::new();
    loop {
        let frame = message(channel, 1, body);
        match append(store, &frame).await {
            Ok(_) => taken.push(frame),
            Err(error) => {
                assert_eq!(error.code(), Code::StoreFull, "{error}");
                return (taken, frame);
            }
        }
        assert!(taken.len() < 100_000, "the disk is never full");
    }
}

/// It takes no appends for lack of room, and has not stopped.
pub(crate) fn is_full(store: &LocalStore) {
    assert_eq!(*store.stopped().borrow(), None);
    let problems = store.readiness().problems;
    assert!(
        problems.iter().any(|problem| problem.contains("until there is room")),
        "{problems:?}"
    );
}

async fn reopened(store: LocalStore, config: &LocalConfig) -> LocalStore {
    close(store).await;
    open(config.clone()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_end_before_the_disk_is_full_and_go_on_by_themselves() {
    let dir = TempDir::new().expect("a folder");
    let (config, faults) = faulty(dir.path());
    faults.set_free_bytes(Some(100 * MIB));
    let store = open(config.clone()).await;
    let (channel, mut frames) = channel_with(&store, 40, &[1; 900]).await;
    faults.set_free_bytes(Some(60 * MIB));
    let (taken, refused) = fill(&store, channel, b"small").await;
    frames.extend(taken);
    is_full(&store);
    holds(&store, channel.log(), &frames).await;

    // It starts so, too.
    let store = reopened(store, &config).await;
    is_full(&store);
    holds(&store, channel.log(), &frames).await;
    let again = append(&store, &refused).await.expect_err("full");
    assert_eq!((again.code(), again.code().is_retryable()), (Code::StoreFull, true));

    // A little more than the least is not enough: appends would end with the next batch.
    faults.set_free_bytes(Some(65 * MIB));
    store.enforce_retention().await.expect("enforced");
    faults.set_free_bytes(Some(100 * MIB));
    append_at_last(&store, &refused).await;
    frames.push(refused);
    assert!(store.readiness().problems.is_empty());
    holds(&store, channel.log(), &frames).await;
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_finds_no_room_is_cut_off_and_comes_once_in_its_order_later() {
    for error in [NO_SPACE, QUOTA] {
        let dir = TempDir::new().expect("a folder");
        let (config, faults) = faulty(dir.path());
        let store = open(config.clone()).await;
        let (channel, mut frames) = channel_with(&store, 20, &[1; 900]).await;
        faults.fail(DiskStep::Batch, error, 1);
        let tries: Vec<Frame> = (0..200).map(|_| message(channel, 1, &[2; 500])).collect();
        let mut pending = Vec::new();
        for frame in &tries {
            pending.push(store.append(frame.clone()).await);
        }
        let mut refused = 0;
        for (frame, append) in tries.iter().zip(pending) {
            let verdict = match append {
                Ok(append) => append.verdict().await,
                Err(error) => Err(error.into()),
            };
            match verdict {
                // An author's frames keep their order: after one that was refused none is taken.
                Ok(_) => assert_eq!(refused, 0),
                Err(AppendError::Store(StoreError::Full { .. })) => refused += 1,
                Err(error) => panic!("{error}"),
            }
            if refused == 0 {
                frames.push(frame.clone());
            }
        }
        assert!(refused > 0);
        assert_eq!(*store.stopped().borrow(), None);
        holds(&store, channel.log(), &frames).await;
        for frame in tries.iter().skip(tries.len() - refused) {
            append_at_last(&store, frame).await;
            frames.push(frame.clone());
        }
        holds(&store, channel.log(), &frames).await;
        // As a crash leaves it, and as closing does.
        let copy = TempDir::new().expect("a folder");
        copy_of_segments(dir.path(), copy.path());
        let crashed = open(small(copy.path())).await;
        holds(&crashed, channel.log(), &frames).await;
        close(crashed).await;
        let store = reopened(store, &config).await;
        holds(&store, channel.log(), &frames).await;
        let again = append(&store, &frames[30]).await.expect("a duplicate");
        assert_eq!((again.offset, again.duplicate), (at(31), true));
        close(store).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_that_finds_no_room_leaves_no_welcome_and_later_all_of_them() {
    let dir = TempDir::new().expect("a folder");
    let (config, faults) = faulty(dir.path());
    let store = open(config.clone()).await;
    let (channel, _) = channel_with(&store, 1, b"before").await;
    claimed(&store, &[BOB]).await;
    faults.fail(DiskStep::Batch, NO_SPACE, 1);
    let commit = bundle(channel, 1, &[BOB]);
    let refused = append(&store, &commit).await.expect_err("no room");
    assert_eq!(refused.code(), Code::StoreFull);
    let head = *store.watch_head(BOB.log()).await.expect("a watch").borrow();
    assert_eq!(head, at(2));
    assert_eq!(append_at_last(&store, &commit).await, 3);
    assert_eq!(entries(&store, BOB.log(), Offset::ZERO).await.expect("read").len(), 3);
    let store = reopened(store, &config).await;
    assert_eq!(entries(&store, BOB.log(), Offset::ZERO).await.expect("read").len(), 3);
    assert!(append(&store, &commit).await.expect("a duplicate").duplicate);
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_cannot_be_sealed_or_begun_for_lack_of_room_is_later() {
    for step in [DiskStep::Seal, DiskStep::Begin, DiskStep::Reserve] {
        let dir = TempDir::new().expect("a folder");
        let (config, faults) = faulty(dir.path());
        let store = open(config.clone()).await;
        let (channel, mut frames) = channel_with(&store, 2, &[4; 900]).await;
        faults.fail(step, NO_SPACE, 1);
        while segments(dir.path()).len() < 4 {
            let frame = message(channel, 1, &[4; 900]);
            append_at_last(&store, &frame).await;
            frames.push(frame);
        }
        holds(&store, channel.log(), &frames).await;
        let store = reopened(store, &config).await;
        holds(&store, channel.log(), &frames).await;
        close(store).await;
        let index = dir.path().join("index");
        std::fs::remove_dir_all(index).expect("removed");
        let store = open(config).await;
        holds(&store, channel.log(), &frames).await;
        close(store).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_finds_no_room_poisons_as_every_failed_sync_does() {
    let dir = TempDir::new().expect("a folder");
    let (config, faults) = faulty(dir.path());
    let store = open(config.clone()).await;
    let (channel, frames) = channel_with(&store, 3, b"before").await;
    faults.fail(DiskStep::Sync, NO_SPACE, 1);
    let error = append(&store, &message(channel, 1, b"unknown"))
        .await
        .expect_err("poisoned");
    assert_eq!(error.code(), Code::StoreStopped);
    assert!(store.stopped().borrow().is_some());
    holds(&store, channel.log(), &frames).await;
    let again = append(&store, &message(channel, 1, b"never"))
        .await
        .expect_err("stopped");
    assert_eq!(again.code(), Code::StoreStopped);
    close(store).await;
    let store = open(config).await;
    let kept = entries(&store, channel.log(), Offset::ZERO).await.expect("read");
    assert!(kept.len() >= frames.len());
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_without_room_is_in_memory_for_readers_and_on_the_disk_again_later() {
    let dir = TempDir::new().expect("a folder");
    let (config, faults) = faulty(dir.path());
    let store = open(config.clone()).await;
    let (channel, mut frames) = channel_with(&store, 100, &[1; 900]).await;
    faults.fail(DiskStep::Index, NO_SPACE, 3);
    let (taken, refused) = fill(&store, channel, &[2; 900]).await;
    frames.extend(taken);
    assert_eq!(*store.stopped().borrow(), None);
    // Most of it is not in the cache.
    holds(&store, channel.log(), &frames).await;
    append_at_last(&store, &refused).await;
    frames.push(refused);
    let (other, more) = channel_with(&store, 50, &[3; 900]).await;
    for (log, frames) in [(channel.log(), &frames), (other.log(), &more)] {
        holds(&store, log, frames).await;
        for frame in frames.iter().step_by(7) {
            assert!(append(&store, frame).await.expect("a duplicate").duplicate);
        }
    }
    let store = reopened(store, &config).await;
    holds(&store, channel.log(), &frames).await;
    assert!(append(&store, &frames[3]).await.expect("a duplicate").duplicate);
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_starts_without_room_for_its_index_and_serves_readers() {
    let dir = TempDir::new().expect("a folder");
    let (config, faults) = faulty(dir.path());
    let store = open(config.clone()).await;
    let (channel, mut frames) = channel_with(&store, 100, &[1; 900]).await;
    claimed(&store, &[BOB]).await;
    accept(&store, &bundle(channel, 1, &[BOB])).await;
    close(store).await;
    faults.set_free_bytes(Some(0));
    let store = open(config.clone()).await;
    is_full(&store);
    let last = entries(&store, channel.log(), Offset::ZERO).await.expect("read");
    frames.push(Frame::decode(last[101].payload.clone()).expect("a frame"));
    holds(&store, channel.log(), &frames).await;
    assert_eq!(entries(&store, BOB.log(), Offset::ZERO).await.expect("read").len(), 3);
    let refused = message(channel, 102, b"later");
    assert_eq!(
        append(&store, &refused).await.expect_err("full").code(),
        Code::StoreFull
    );
    faults.set_free_bytes(None);
    append_at_last(&store, &refused).await;
    frames.push(refused);
    holds(&store, channel.log(), &frames).await;
    assert!(append(&store, &frames[50]).await.expect("a duplicate").duplicate);
    close(store).await;

    // Memory has a bound.
    faults.set_free_bytes(Some(0));
    let tight = LocalConfig {
        index_memory_bytes_max: 100,
        ..config.clone()
    };
    let Err(error) = LocalStore::open(tight).await else {
        panic!("the index is larger")
    };
    assert!(error.to_string().contains("more than 100 bytes"), "{error}");
    faults.set_free_bytes(None);
    let store = open(config).await;
    holds(&store, channel.log(), &frames).await;
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_makes_room_while_the_disk_is_full() {
    let dir = TempDir::new().expect("a folder");
    let (mut config, faults) = faulty(dir.path());
    config.retention = Retention {
        age: None,
        bytes: Some(100 * 1024),
        check_every: Duration::from_secs(3_600),
    };
    let store = open(config.clone()).await;
    let (silent, quiet) = channel_with(&store, 3, b"silent").await;
    let (busy, _) = channel_with(&store, 300, &[5; 900]).await;
    // First with the index in memory, then with the one on the disk.
    for free in [0, 32 * MIB] {
        let store = {
            close_quietly(&store).await;
            faults.set_free_bytes(Some(free));
            open(config.clone()).await
        };
        is_full(&store);
        // A Trim that finds no room costs nothing but another try.
        faults.fail(DiskStep::Batch, NO_SPACE, 1);
        let failed = store.enforce_retention().await;
        assert!(free != 0 || failed.is_err());
        faults.fail(DiskStep::Batch, NO_SPACE, 0);
        if free == 0 {
            assert!(store.enforce_retention().await.expect("enforced") > 3);
        }
        let trimmed = store.read(busy.log(), Offset::ZERO, 1, 1).await;
        let Err(StoreError::Trimmed { first }) = trimmed else {
            panic!("{trimmed:?}")
        };
        let kept = entries(&store, busy.log(), first.previous()).await.expect("read");
        assert!(kept.len() > 50);
        let silent_first = store.read(silent.log(), Offset::ZERO, 1, 1).await;
        assert!(matches!(silent_first, Err(StoreError::Trimmed { .. })), "{quiet:?}");
        close(store).await;
    }
    faults.set_free_bytes(None);
    let store = open(config).await;
    append_at_last(&store, &message(busy, 1, b"goes on")).await;
    close(store).await;
}

async fn close_quietly(store: &LocalStore) {
    store.close().await.expect("closed");
}

/// An author that keeps frames on their way, and goes on from the first that is refused. Gives how often that was.
async fn author(store: &LocalStore, frames: &[Frame]) -> usize {
    let (mut next, mut refusals) = (0, 0);
    let begun = Instant::now();
    while next < frames.len() {
        let mut on_their_way = VecDeque::new();
        let mut refused = false;
        for frame in &frames[next..] {
            let append = store.append(frame.clone());
            // Reports from before the call, and before the future is polled.
            while let Some(verdict) = on_their_way
                .front_mut()
                .and_then(|pending: &mut BoxFuture<'_, _>| pending.now_or_never())
            {
                on_their_way.pop_front();
                refused |= settled(verdict, &mut next, refused);
            }
            if refused {
                break;
            }
            match append.await {
                Ok(pending) => on_their_way.push_back(pending.verdict().boxed()),
                Err(error) => {
                    assert_eq!(error.code(), Code::StoreFull, "{error}");
                    refused = true;
                    break;
                }
            }
            if on_their_way.len() == 64
                && let Some(pending) = on_their_way.pop_front()
            {
                refused |= settled(pending.await, &mut next, false);
            }
        }
        let mut passed = false;
        for pending in on_their_way {
            // Those that were on their way before an append that was refused at once may still be taken.
            passed |= settled(pending.await, &mut next, passed);
        }
        refusals += usize::from(refused || passed);
        assert!(begun.elapsed() < HANGING, "{:?}", store.readiness());
        if refused || passed {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    refusals
}

/// Counts a verdict; whether it is a refusal for lack of room. After one, `refused`, none may be accepted.
fn settled(verdict: Result<Accepted, AppendError>, next: &mut usize, refused: bool) -> bool {
    match verdict {
        Ok(_) => {
            assert!(!refused, "a frame passed one that was refused");
            *next += 1;
            false
        }
        Err(error) => {
            assert_eq!(error.code(), Code::StoreFull, "{error}");
            true
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn authors_that_do_not_wait_keep_their_order_while_the_disk_fills_and_empties() {
    let dir = TempDir::new().expect("a folder");
    let (config, faults) = faulty(dir.path());
    let store = Arc::new(open(config).await);
    let mut authors = Vec::new();
    for _ in 0..3 {
        let (channel, mut frames) = channel_with(&store, 1, b"first").await;
        let sent: Vec<Frame> = (0..4_000).map(|_| message(channel, 1, &[3; 200])).collect();
        frames.extend(sent.iter().cloned());
        let store = store.clone();
        let refusals = tokio::spawn(async move { author(&store, &sent).await });
        authors.push((channel, frames, refusals));
    }
    let faulting = tokio::spawn(async move {
        for round in 0.. {
            faults.fail(DiskStep::Batch, NO_SPACE, 1);
            tokio::time::sleep(Duration::from_millis(17)).await;
            // Low for a moment, in which appends are refused at once.
            faults.set_free_bytes((round % 3 == 0).then_some(1));
            tokio::time::sleep(Duration::from_millis(5)).await;
            faults.set_free_bytes(None);
            if round == 200 {
                return;
            }
        }
    });
    let mut refusals = 0;
    for (channel, frames, author) in authors {
        refusals += author.await.expect("an author");
        holds(&store, channel.log(), &frames).await;
    }
    assert!(refusals > 0, "the disk was never full");
    faulting.abort();
    store.close().await.expect("closed");
}

#[derive(Clone, Debug)]
enum Move {
    Append(usize, usize),
    Fault(DiskStep, i32),
    Free(Option<u64>),
    Retention,
    Reopen,
    ForgetIndex,
}

fn any_move() -> impl Strategy<Value = Move> {
    let step = prop_oneof![
        4 => Just(DiskStep::Batch),
        1 => Just(DiskStep::Seal),
        1 => Just(DiskStep::Begin),
        1 => Just(DiskStep::Reserve),
        1 => Just(DiskStep::Index),
    ];
    prop_oneof![
        12 => (0..3usize, 1..6_000usize).prop_map(|(log, bytes)| Move::Append(log, bytes)),
        3 => (step, prop_oneof![Just(NO_SPACE), Just(QUOTA)]).prop_map(|(step, error)| Move::Fault(step, error)),
        1 => prop_oneof![Just(None), Just(Some(0)), Just(Some(30 * MIB))].prop_map(Move::Free),
        1 => Just(Move::Retention),
        1 => Just(Move::Reopen),
        1 => Just(Move::ForgetIndex),
    ]
}

/// Does what is to be done, in order. An author's refused frames wait in order, as in an outbox.
async fn play(moves: Vec<Move>) {
    let dir = TempDir::new().expect("a folder");
    let (config, faults) = faulty(dir.path());
    let mut store = open(config.clone()).await;
    let mut logs = Vec::new();
    for _ in 0..3 {
        let (channel, frames) = channel_with(&store, 1, b"first").await;
        logs.push((channel, frames, VecDeque::new()));
    }
    for next in moves {
        match next {
            Move::Append(log, bytes) => {
                let (channel, taken, waiting) = &mut logs[log];
                waiting.push_back(message(*channel, 1, &vec![log as u8; bytes]));
                let mut pending = Vec::new();
                for frame in waiting.iter() {
                    pending.push(store.append(frame.clone()).await);
                }
                let mut refused = false;
                for append in pending {
                    let verdict = match append {
                        Ok(append) => append.verdict().await,
                        Err(error) => Err(error.into()),
                    };
                    match verdict {
                        Ok(accepted) => {
                            assert!(!refused, "a frame passed one that was refused");
                            let frame = waiting.pop_front().expect("it waits");
                            taken.push(frame);
                            assert_eq!(accepted.offset.get(), taken.len() as u64);
                        }
                        Err(error) => {
                            assert_eq!(error.code(), Code::StoreFull, "{error}");
                            refused = true;
                        }
                    }
                }
            }
            Move::Fault(step, error) => faults.fail(step, error, 1),
            Move::Free(bytes) => faults.set_free_bytes(bytes),
            // Nothing is old enough to go; that it may find no room must not matter.
            Move::Retention => drop(store.enforce_retention().await),
            Move::Reopen => store = reopened(store, &config).await,
            Move::ForgetIndex => {
                close(store).await;
                std::fs::remove_dir_all(dir.path().join("index")).expect("removed");
                store = open(config.clone()).await;
            }
        }
        assert_eq!(*store.stopped().borrow(), None);
    }
    faults.set_free_bytes(None);
    for (channel, taken, waiting) in &mut logs {
        holds(&store, channel.log(), taken).await;
        for frame in waiting.drain(..) {
            append_at_last(&store, &frame).await;
            taken.push(frame);
        }
    }
    let store = reopened(store, &config).await;
    for (channel, taken, _) in &logs {
        holds(&store, channel.log(), taken).await;
        let again = append(&store, &taken[0]).await.expect("a duplicate");
        assert_eq!((again.offset, again.duplicate), (at(1), true));
    }
    close(store).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 30, ..ProptestConfig::default() })]
    #[test]
    fn whatever_there_is_no_room_for_each_frame_is_an_entry_once_and_in_order(
        moves in proptest::collection::vec(any_move(), 1..60)
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(play(moves));
    }
}
