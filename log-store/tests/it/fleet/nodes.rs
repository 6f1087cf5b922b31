//! Several nodes over one set of streams: the same offsets, entries, times and verdicts from each.

use super::script::*;
use skytale_log_store::{Access, AppendError, FleetStore, LogStore, Refused, StoreError};
use skytale_proto::{AgentId, ChannelId, Code, Frame, FrameId, LogId, Offset, Record};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Frames that one writer knows to be in a channel, with offset and time.
type Written = (ChannelId, Vec<(FrameId, Offset, u64)>);

/// All entries of a log, as records.
pub(crate) async fn records(store: &FleetStore, log: LogId) -> Vec<Record> {
    let mut found: Vec<Record> = Vec::new();
    loop {
        let after = found.last().map_or(Offset::ZERO, |record| record.offset);
        let batch = store.read(log, after, 1 << 20, 1_000).await.expect("a read");
        for record in batch.records.into_iter().flat_map(Record::decode_batch) {
            found.push(record.expect("a whole record"));
        }
        if batch.last == batch.head {
            return found;
        }
    }
}

/// Waits until a node's head of a log is at an offset.
pub(crate) async fn reaches(store: &FleetStore, log: LogId, offset: Offset) {
    let mut head = store.watch_head(log).await.expect("a watch");
    let there = tokio::time::timeout(HANGING, head.wait_for(|head| *head >= offset)).await;
    assert!(there.is_ok(), "the node does not follow");
}

/// Two nodes have the same entries of a log, as soon as both have got there.
pub(crate) async fn agree(one: &FleetStore, two: &FleetStore, log: LogId) -> Vec<Record> {
    let heads = [one, two].map(|store| async { *store.watch_head(log).await.expect("a watch").borrow() });
    let [first, second] = heads;
    let head = first.await.max(second.await);
    reaches(one, log, head).await;
    reaches(two, log, head).await;
    let (mut mine, mut theirs) = (records(one, log).await, records(two, log).await);
    for records in [&mut mine, &mut theirs] {
        // Under load there may be more by now.
        records.truncate(usize::try_from(head.get()).expect("a test's length"));
    }
    assert_eq!(mine.len(), theirs.len(), "{log}");
    for (mine, theirs) in mine.iter().zip(&theirs) {
        assert_eq!(mine, theirs, "{log}");
    }
    for (record, expected) in mine.iter().zip(1..) {
        assert_eq!(record.offset, at(expected), "dense");
    }
    mine
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_give_the_same_entries_during_load() {
    let (account, _streams) = shared_account().await;
    let dirs = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
    let nodes = [
        Arc::new(open(settings(&account, dirs[0].path())).await),
        Arc::new(open(settings(&account, dirs[1].path())).await),
    ];
    let channels: Vec<ChannelId> = (0..6).map(|_| ChannelId::generate()).collect();
    for (index, channel) in channels.iter().enumerate() {
        accept(&nodes[index % 2], &create(*channel)).await;
    }
    // Each channel is written at both nodes at once, with frames that are refused and repeated among them.
    let mut writers = tokio::task::JoinSet::new();
    for node in &nodes {
        for &channel in &channels {
            let node = node.clone();
            writers.spawn(async move {
                let mut sent = Vec::new();
                reaches(&node, channel.log(), at(1)).await;
                for round in 0..60u8 {
                    let good = message(channel, 1, &[round; 200]);
                    let stale = message(channel, 9, b"stale");
                    let frames = [good.clone(), stale, good];
                    let mut pending = Vec::new();
                    for frame in &frames {
                        pending.push(node.append(frame.clone()).await.expect("queued"));
                    }
                    let mut verdicts = Vec::new();
                    for append in pending {
                        verdicts.push(append.verdict().await);
                    }
                    let [Ok(first), Err(AppendError::Refused(refused)), Ok(again)] = &verdicts[..] else {
                        panic!("{verdicts:?}");
                    };
                    assert_eq!(*refused, Refused::StaleEpoch { head: at(1) });
                    // The first may be a duplicate too: of an attempt that got no answer in time.
                    assert!(again.duplicate);
                    assert_eq!(first.offset, again.offset);
                    sent.push((frames[0].header().id, first.offset, first.time_ms));
                }
                (channel, sent)
            });
        }
    }
    // Meanwhile both are read, and compared.
    let mut compared = 0;
    let mut written: Vec<Written> = Vec::new();
    while !writers.is_empty() {
        tokio::select! {
            Some(done) = writers.join_next() => written.push(done.expect("the writer ends")),
            () = tokio::time::sleep(Duration::from_millis(50)) => {
                let channel = channels[compared % channels.len()];
                agree(&nodes[0], &nodes[1], channel.log()).await;
                compared += 1;
            }
        }
    }
    for (channel, sent) in written {
        let entries = agree(&nodes[0], &nodes[1], channel.log()).await;
        assert_eq!(entries.len(), 1 + 2 * 60);
        for (id, offset, time_ms) in sent {
            let record = &entries[offset.get() as usize - 1];
            let frame = Frame::decode(record.payload.clone()).expect("a frame");
            assert_eq!((frame.header().id, record.time_ms), (id, time_ms));
        }
        assert!(entries.is_sorted_by_key(|record| record.time_ms));
    }
    for node in nodes {
        node.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_commits_at_two_nodes_one_wins_a_hundred_times() {
    let (account, _streams) = shared_account().await;
    let dirs = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
    let one = open(settings(&account, dirs[0].path())).await;
    let two = open(settings(&account, dirs[1].path())).await;
    let channel = ChannelId::generate();
    accept(&one, &create(channel)).await;
    reaches(&two, channel.log(), at(1)).await;
    let mut head = 1;
    let mut wins = [0, 0];
    for _ in 0..100 {
        let commits = [bundle(channel, head, &[someone()]), bundle(channel, head, &[someone()])];
        let outcomes = tokio::join!(append(&one, &commits[0]), append(&two, &commits[1]));
        let (winner, won, lost) = match outcomes {
            (Ok(won), Err(lost)) => (0, won, lost),
            (Err(lost), Ok(won)) => (1, won, lost),
            both => panic!("one wins: {both:?}"),
        };
        wins[winner] += 1;
        let stale = AppendError::Refused(Refused::StaleHandshake { head: won.offset });
        assert_eq!(lost, stale, "and the other is told the head");
        head = won.offset.get();
        // The loser rebases on what its own node gives it.
        reaches([&two, &one][winner], channel.log(), won.offset).await;
    }
    let entries = agree(&one, &two, channel.log()).await;
    assert_eq!(entries.len(), 101);
    assert_eq!(wins.iter().sum::<i32>(), 100);
    for store in [one, two] {
        store.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_acknowledged_is_shown_at_another_that_has_settled() {
    let (account, _streams) = shared_account().await;
    let dirs = [(); 2].map(|()| TempDir::new().expect("a folder"));
    let (one, two) = (
        open(settings(&account, dirs[0].path())).await,
        open(settings(&account, dirs[1].path())).await,
    );
    let channel = ChannelId::generate();
    accept(&one, &create(channel)).await;
    let head = two.watch_head(channel.log()).await.expect("a watch");
    for _ in 0..300 {
        let offset = accept(&one, &message(channel, 1, b"acknowledged")).await.offset;
        two.settled(channel.log()).await.expect("its home answers");
        assert!(*head.borrow() >= offset, "{offset}");
    }
    for store in [one, two] {
        store.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_and_a_membership_of_one_node_hold_at_another() {
    let (account, _streams) = shared_account().await;
    let dirs = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
    let one = open(settings(&account, dirs[0].path())).await;
    let two = open(settings(&account, dirs[1].path())).await;
    for _ in 0..20 {
        let channel = ChannelId::generate();
        accept(&one, &create(channel)).await;
        let added = accept(&one, &bundle(channel, 1, &[BOB])).await.offset;
        // At once, wherever the second node is by now.
        let access = two
            .access(channel.log(), BOB, ACCOUNT, Offset::ZERO)
            .await
            .expect("an answer");
        assert_eq!(access, Access::NotMember { next: Some(added) });
        let last = accept(&one, &message(channel, 2, b"seen at the first")).await.offset;
        let batch = two
            .read(channel.log(), last, 1_000, 10)
            .await
            .expect("a cursor of the other node");
        assert_eq!(batch.head, last);
        let beyond = two.read(channel.log(), last.next(), 1_000, 10).await;
        assert_eq!(
            beyond.map_err(|error| error.code()).map(|batch| batch.head),
            Err(Code::CursorBeyondHead),
            "one that no node has given is still an error"
        );
    }
    let nowhere = two
        .access(ChannelId::generate().log(), BOB, ACCOUNT, Offset::ZERO)
        .await;
    assert_eq!(nowhere, Ok(Access::UnknownLog));
    for store in [one, two] {
        store.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_has_what_the_others_have() {
    let (account, _streams) = shared_account().await;
    let dirs = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
    let one = open(settings(&account, dirs[0].path())).await;
    let channel = ChannelId::generate();
    accept(&one, &create(channel)).await;
    for round in 0..3 {
        // Once with its replica, once with an older one, once with none.
        if round == 2 {
            std::fs::remove_dir_all(dirs[1].path()).expect("removed");
        }
        let two = open(settings(&account, dirs[1].path())).await;
        agree(&one, &two, channel.log()).await;
        let agent = someone();
        accept(&two, &key_package(agent, false)).await;
        let claimed = accept(&one, &claim(agent)).await.claimed.expect("a package");
        assert_eq!(claimed.offset, at(1));
        two.close().await.expect("closed");
        for _ in 0..50 {
            accept(&one, &message(channel, 1, b"meanwhile")).await;
        }
    }
    one.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_for_a_region_that_there_is_not_is_refused() {
    let (account, _streams) = shared_account().await;
    let dir = TempDir::new().expect("a folder");
    let store = open(settings(&account, dir.path())).await;
    let elsewhere = ChannelId::generate_in(skytale_proto::Region(9));
    let refused = append(&store, &create(elsewhere)).await;
    assert_eq!(refused, Err(AppendError::Refused(Refused::UnknownLog)));
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_frame_of_its_shard_is_skipped_by_all_alike() {
    let (account, _streams) = shared_account().await;
    let dirs = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
    let one = open(settings(&account, dirs[0].path())).await;
    let channel = ChannelId::generate();
    accept(&one, &create(channel)).await;
    let context = account.context().await.expect("JetStream");
    let shard = one.shard_of(&channel.log()).expect("a shard");
    let good = message(channel, 1, b"good, at a wrong place");
    let other = ChannelId::generate().log();
    let publish = async |subject: String, payload: bytes::Bytes| {
        let acked = context.publish(subject, payload).await.expect("sent");
        acked.await.expect("in the stream");
    };
    publish(shard.subject(&channel.log()), "not a frame".into()).await;
    publish(shard.subject(&other), good.encoded().clone()).await;
    publish(
        format!("skytale.log.{}.{}.nobody", shard.region.0, shard.index),
        "".into(),
    )
    .await;
    let kept = accept(&one, &message(channel, 1, b"kept")).await;
    assert_eq!(kept.offset, at(2));
    let two = open(settings(&account, dirs[1].path())).await;
    assert_eq!(agree(&one, &two, channel.log()).await.len(), 2);
    let mut ids = HashSet::new();
    for record in records(&two, channel.log()).await {
        ids.insert(Frame::decode(record.payload).expect("a frame").header().id);
    }
    assert!(!ids.contains(&good.header().id));
    for store in [one, two] {
        store.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_recipients_on_many_shards_have_their_welcomes_when_the_bundle_is_acknowledged() {
    let (account, _streams) = shared_account().await;
    let dirs = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
    let one = open(settings(&account, dirs[0].path())).await;
    let two = open(settings(&account, dirs[1].path())).await;
    let channel = ChannelId::generate();
    accept(&one, &create(channel)).await;
    let recipients: Vec<AgentId> = (0..40).map(|_| someone()).collect();
    claimed(&one, &recipients).await;
    let commit = bundle(channel, 1, &recipients);
    let offset = accept(&one, &commit).await.offset;
    for recipient in &recipients {
        let entries = records(&one, recipient.log()).await;
        assert_eq!(entries.len(), 3);
        let welcome = Frame::decode(entries[2].payload.clone()).expect("a frame");
        assert_eq!(welcome.header().id, FrameId::of_welcome(&channel, offset, recipient));
    }
    // Sent again at the other node, it owes nothing.
    let again = accept(&two, &commit).await;
    assert_eq!((again.offset, again.duplicate), (offset, true));
    for recipient in &recipients {
        assert_eq!(agree(&one, &two, recipient.log()).await.len(), 3);
    }
    assert_eq!(one.health().bundles_owing, 0);
    for store in [one, two] {
        store.close().await.expect("closed");
    }
}

/// Neither the logs of agents that do not know a bundle's author nor the streams get anything of it; an agent that does
/// know it is served although this node may not have followed the claim yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn welcomes_that_nobody_expects_are_in_no_stream() {
    let (account, _streams) = shared_account().await;
    let dirs = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
    let one = open(settings(&account, dirs[0].path())).await;
    let two = open(settings(&account, dirs[1].path())).await;
    let channel = ChannelId::generate();
    accept(&one, &create(channel)).await;
    let known = someone();
    claimed(&two, &[known]).await;
    let before = messages(&account).await;
    let recipients: Vec<AgentId> = (0..4_000).map(|_| someone()).chain([known]).collect();
    let offset = accept(&one, &bundle(channel, 1, &recipients)).await.offset;
    assert_eq!(records(&one, known.log()).await.len(), 3);
    for recipient in &recipients[..4_000] {
        assert_eq!(
            *one.watch_head(recipient.log()).await.expect("a watch").borrow(),
            Offset::ZERO
        );
    }
    // The bundle, its one Welcome, and what nodes write of their own.
    let added = messages(&account).await - before;
    assert!(added < 100, "{added} messages");
    // The other node owes nothing either, once it has looked.
    let settled = async {
        while two.health().bundles_owing > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(HANGING, settled).await.expect("settled");
    assert_eq!(messages(&account).await - before, added);
    assert_eq!(agree(&one, &two, channel.log()).await.len(), 2);
    assert_eq!(offset, at(2));
    for store in [one, two] {
        store.close().await.expect("closed");
    }
}

/// Messages of logs in all of an account's streams.
async fn messages(account: &super::cluster::Account) -> u64 {
    use futures_util::TryStreamExt as _;
    let context = account.context().await.expect("JetStream");
    let names: Vec<String> = context.stream_names().try_collect().await.expect("listed");
    let mut messages = 0;
    for name in names.iter().filter(|name| name.starts_with("SKYTALE_LOG_")) {
        messages += account.stream(name).await.cached_info().state.last_sequence;
    }
    messages
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn welcomes_that_a_dead_node_owed_are_published_by_another() {
    let (account, _streams) = shared_account().await;
    let dir = TempDir::new().expect("a folder");
    let store = open(settings(&account, dir.path())).await;
    let channel = ChannelId::generate();
    accept(&store, &create(channel)).await;
    // The bundle gets into the stream, and the node that put it there is gone before it could follow.
    let recipients = [someone(), someone(), someone()];
    claimed(&store, &recipients).await;
    let commit = bundle(channel, 1, &recipients);
    let context = account.context().await.expect("JetStream");
    let shard = store.shard_of(&channel.log()).expect("a shard");
    let publish = async |frame: &Frame| {
        let subject = shard.subject(&frame.header().log);
        let acked = context.publish(subject, frame.encoded().clone()).await.expect("sent");
        acked.await.expect("in the stream");
    };
    publish(&commit).await;
    for recipient in &recipients {
        reaches(&store, recipient.log(), at(3)).await;
    }
    assert!(accept(&store, &commit).await.duplicate);

    // And again, where every node is gone in between: what is owed is found when one comes back.
    let later = [someone(), someone()];
    claimed(&store, &later).await;
    let second = bundle(channel, 2, &later);
    publish(&second).await;
    reaches(&store, channel.log(), at(3)).await;
    // Readers see the bundle a moment before it counts as owing.
    while store.health().bundles_owing == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store.close().await.expect("closed");
    let store = open(settings(&account, dir.path())).await;
    for recipient in &later {
        reaches(&store, recipient.log(), at(3)).await;
        assert_eq!(records(&store, recipient.log()).await.len(), 3);
    }
    // An author that retries in between waits for the Welcomes too.
    let last = someone();
    claimed(&store, &[last]).await;
    let third = bundle(channel, 3, &[last]);
    publish(&third).await;
    reaches(&store, channel.log(), at(4)).await;
    assert!(accept(&store, &third).await.duplicate);
    assert_eq!(store.health().bundles_owing, 0);
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_after_close_says_that_the_store_is_closed() {
    let (account, _streams) = shared_account().await;
    let dir = TempDir::new().expect("a folder");
    let store = open(settings(&account, dir.path())).await;
    store.close().await.expect("closed");
    let refused = append(&store, &create(ChannelId::generate())).await;
    assert!(matches!(refused, Err(AppendError::Store(StoreError::Stopped { .. }))));
}
