//! An author's order survives that nobody knows what became of a batch: what the author sends again in its order is in the
//! log in that order, and no frame passes one whose author learned that it failed.

use super::cluster::{Account, Cluster};
use super::script::*;
use async_nats::jetstream::stream::Config;
use futures_util::FutureExt as _;
use skytale_log_store::fleet::FleetConfig;
use skytale_log_store::{Accepted, AppendError, FleetStore, LogStore as _, StoreError};
use skytale_proto::{ChannelId, Code, Frame, FrameId, Offset, Record};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Time for which a batch is tried here.
const APPEND_TIMEOUT: Duration = Duration::from_secs(2);
/// Frames in a batch here, at most.
const BATCH: usize = 4;

/// A node whose batches are small and soon given up.
fn hasty(account: &Account, dir: &Path) -> FleetConfig {
    FleetConfig {
        batch_frames_max: BATCH,
        append_timeout: APPEND_TIMEOUT,
        request_timeout: Duration::from_millis(500),
        alarm_after: Duration::from_secs(60),
        ..settings(account, dir)
    }
}

/// Lets a stream hold so many messages more; `None` any number.
async fn set_room(account: &Account, stream: &str, room: Option<i64>) {
    let stream = account.stream(stream).await;
    let info = stream.cached_info();
    let config = Config {
        max_messages: room.map_or(-1, |room| info.state.messages as i64 + room),
        ..info.config.clone()
    };
    update_stream(account, &config).await;
}

/// Those told of are accepted up to some frame, and none from there on. Gives how many are accepted.
fn accepted_then_none(told: &[Result<Accepted, AppendError>]) -> usize {
    let accepted = told.iter().take_while(|outcome| outcome.is_ok()).count();
    for outcome in &told[accepted..] {
        let error = outcome.as_ref().expect_err("a frame passed one that had failed");
        assert_eq!(error.code(), Code::HomeUnreachable, "{error}");
    }
    accepted
}

/// Sends again what has failed, in its order, until all of it is accepted.
async fn send_again(store: &FleetStore, frames: &[Frame]) -> Vec<Accepted> {
    let mut accepted = Vec::new();
    let all = async {
        while accepted.len() < frames.len() {
            let rest = &frames[accepted.len()..];
            let outcomes = told(queue(store, rest).await).await;
            let held = accepted_then_none(&outcomes);
            accepted.extend(
                outcomes
                    .into_iter()
                    .take(held)
                    .map(|outcome| outcome.expect("accepted")),
            );
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(120), all).await;
    assert!(done.is_ok(), "they are accepted at last");
    accepted
}

/// The frames of a log behind its first entry, in the log's order.
async fn logged(store: &FleetStore, channel: ChannelId) -> Vec<FrameId> {
    let mut ids = Vec::new();
    let mut after = at(1);
    loop {
        let batch = store
            .read(channel.log(), after, 1 << 20, u64::MAX)
            .await
            .expect("a read");
        for records in batch.records {
            for record in Record::decode_batch(records) {
                let frame = Frame::decode(record.expect("a record").payload).expect("a frame");
                ids.push(frame.header().id);
            }
        }
        after = batch.last;
        if batch.last == batch.head {
            return ids;
        }
    }
}

fn ids(frames: &[Frame]) -> Vec<FrameId> {
    frames.iter().map(|frame| frame.header().id).collect()
}

fn messages(channel: ChannelId, count: usize) -> Vec<Frame> {
    (0..count)
        .map(|number| message(channel, 1, &[number as u8; 100]))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_queued_behind_a_batch_that_is_given_up_fails_with_it_however_late_it_came() {
    let (account, _streams) = shared_account().await;
    let dir = TempDir::new().expect("a folder");
    let store = open(hasty(&account, dir.path())).await;
    let channel = ChannelId::generate();
    accept(&store, &create(channel)).await;
    let stream = store.shard_of(&channel.log()).expect("a shard").stream();

    let begun = Instant::now();
    let mut round = 0;
    while round < 3 {
        assert!(begun.elapsed() < HANGING, "nothing is queued in time");
        let before = logged(&store, channel).await.len();
        // The servers refuse what comes, until there is room again: at once, and for certain.
        set_room(&account, &stream, Some(0)).await;
        let mut frames = messages(channel, 4 * BATCH);
        let (early, late) = frames.split_at(2 * BATCH);
        let mut early = queue(&store, early).await;
        let mut first = Box::pin(early.remove(0).verdict());
        // Those who came later could be tried for longer.
        tokio::time::sleep(APPEND_TIMEOUT * 3 / 4).await;
        let late = queue(&store, late).await;
        // One asked for now, and queued when its author has learned: it waits for nothing but to be polled.
        let last = message(channel, 1, b"asked for before, queued after");
        let asked = store.append(last.clone());
        // If the author knew by then that the first batch was given up, nothing came late: this round proves nothing.
        let known = (&mut first).now_or_never();
        let in_time = known.is_none();

        let mut told_early = vec![match known {
            Some(outcome) => outcome,
            None => first.await,
        }];
        told_early.extend(told(early).await);
        set_room(&account, &stream, None).await;
        let asked = asked.await.expect("queued").verdict().await;
        told_early.extend(told(late).await);
        told_early.push(asked);
        frames.push(last);
        if !in_time {
            send_again(&store, &frames).await;
            continue;
        }
        assert_eq!(accepted_then_none(&told_early), 0, "round {round}");
        send_again(&store, &frames).await;
        assert_eq!(
            logged(&store, channel).await[before..],
            ids(&frames),
            "round {round}: the author's order"
        );
        round += 1;
    }
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_for_while_others_are_told_passes_nothing_that_waits_to_be_told() {
    let (account, _streams) = shared_account().await;
    let dir = TempDir::new().expect("a folder");
    let store = open(hasty(&account, dir.path())).await;
    // Two channels of one shard.
    let first = ChannelId::generate();
    let shard = store.shard_of(&first.log());
    let second = std::iter::repeat_with(ChannelId::generate)
        .find(|channel| store.shard_of(&channel.log()) == shard)
        .expect("one of them");
    for channel in [first, second] {
        accept(&store, &create(channel)).await;
    }
    let stream = shard.expect("a shard").stream();
    let begun = Instant::now();
    let mut rounds = 0;
    while rounds < 3 {
        assert!(begun.elapsed() < HANGING, "all are told too soon");
        let before = logged(&store, second).await.len();
        set_room(&account, &stream, Some(0)).await;
        let given_up = queue(&store, &messages(first, 1)).await;
        // Many that are queued behind it, so that it takes a while until the last of their authors learns.
        let mut frames = messages(second, 2_000);
        let mut behind = queue(&store, &frames).await;
        let mut last = Box::pin(behind.pop().expect("the last").verdict());
        assert_eq!(accepted_then_none(&told(given_up).await), 0);
        // One author has learned. The other one asks for more.
        let more = messages(second, 4);
        let mut more_told = queue(&store, &more).await;
        let last_told = (&mut last).now_or_never();
        set_room(&account, &stream, None).await;
        let mut outcomes = told(behind).await;
        match last_told {
            // Before it had learned, too.
            None => {
                rounds += 1;
                outcomes.push(last.await);
                outcomes.extend(told(std::mem::take(&mut more_told)).await);
                assert_eq!(accepted_then_none(&outcomes), 0);
            }
            Some(last) => {
                outcomes.push(last);
                assert_eq!(accepted_then_none(&outcomes), 0);
                // What became of these tells nothing.
                told(more_told).await;
                send_again(&store, &frames).await;
                continue;
            }
        }
        frames.extend(more);
        send_again(&store, &frames).await;
        assert_eq!(
            logged(&store, second).await[before..],
            ids(&frames),
            "the author's order"
        );
    }
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_author_that_sends_again_in_order_has_its_order_whatever_comes_late() {
    let cluster = Cluster::start().await;
    let account = cluster.account();
    let dirs = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
    let store = open(hasty(&account, dirs[0].path())).await;
    let channel = ChannelId::generate();
    accept(&store, &create(channel)).await;

    let mut expected = Vec::new();
    let mut given_up = 0;
    for round in 0..4 {
        // A majority stalls, with what it was sent in its sockets: that arrives when it goes on.
        let still: [usize; 2] = [[0, 1], [1, 2], [2, 0], [0, 1]][round];
        for server in still {
            cluster.signal(server, "STOP");
        }
        let frames = messages(channel, 5 * BATCH);
        let pending = queue(&store, &frames).await;
        let thaw = || {
            for server in still {
                cluster.signal(server, "CONT");
            }
        };
        let outcomes = if round == 0 {
            // Once all is given up: without a majority nothing else can become of it.
            let outcomes = told(pending).await;
            thaw();
            outcomes
        } else {
            // A random time around the end of the author's patience.
            let random = u64::from(channel.as_bytes()[8 + round]) * 4;
            let after = APPEND_TIMEOUT - Duration::from_millis(500) + Duration::from_millis(random);
            let (outcomes, ()) = tokio::join!(told(pending), async {
                tokio::time::sleep(after).await;
                thaw();
            });
            outcomes
        };
        let accepted = accepted_then_none(&outcomes);
        given_up += frames.len() - accepted;
        send_again(&store, &frames[accepted..]).await;
        expected.extend(ids(&frames));
        assert_eq!(logged(&store, channel).await, expected, "round {round}");
        cluster.settled().await;
    }
    assert!(given_up >= 5 * BATCH, "nothing was given up: nothing was tested");
    store.close().await.expect("closed");
    // And so says a node that folds all of it afterwards, with whatever came late.
    let other = open(hasty(&account, dirs[1].path())).await;
    assert_eq!(logged(&other, channel).await, expected);
    other.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_was_given_up_and_comes_late_is_an_entry_once() {
    let (account, _streams) = shared_account().await;
    let dir = TempDir::new().expect("a folder");
    let store = open(hasty(&account, dir.path())).await;
    let channel = ChannelId::generate();
    accept(&store, &create(channel)).await;
    let shard = store.shard_of(&channel.log()).expect("a shard");
    let (given_up, later) = (message(channel, 1, b"given up"), message(channel, 1, b"later"));
    set_room(&account, &shard.stream(), Some(0)).await;
    let refused = append(&store, &given_up).await;
    assert!(
        matches!(refused, Err(AppendError::Store(StoreError::HomeUnreachable { .. }))),
        "{refused:?}"
    );
    set_room(&account, &shard.stream(), None).await;
    // Its author does not send it again, but another; then a server lets go what it held.
    accept(&store, &later).await;
    let context = account.context().await.expect("JetStream");
    for _ in 0..2 {
        let late = context
            .publish(shard.subject(&channel.log()), given_up.encoded().clone())
            .await;
        late.expect("sent").await.expect("stored");
    }
    accept(&store, &message(channel, 1, b"the last")).await;
    let logged = logged(&store, channel).await;
    // Behind what was sent later, and not twice.
    assert_eq!(logged[..2], ids(&[later, given_up.clone()]));
    assert_eq!(logged.len(), 3);
    // Sent again it is where it came to be.
    let again = accept(&store, &given_up).await;
    assert_eq!((again.offset, again.duplicate), (Offset::new(3), true));
    store.close().await.expect("closed");
}
