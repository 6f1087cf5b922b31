//! Appends: offsets, order, duplicates.

use super::Store;
use super::script::*;
use skytale_proto::{ChannelId, Detail, Frame, Offset, limits};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// The first entry of a log is at 1, each later one at the next offset.
pub async fn offsets_are_dense_from_one(store: Store) {
    let channel = new_channel(&store).await;
    for expected in 2..=50 {
        assert_eq!(accept(&store, &message(channel, ALICE, 1)).await.offset, at(expected));
    }
    assert_eq!(read_all(&store, channel.log(), 0).await.len(), 50);
}

/// Frames of many logs in one stream of appends, each log with offsets of its own.
pub async fn many_logs_interleaved_keep_their_own_offsets(store: Store) {
    let channels: Vec<ChannelId> = (0..40).map(|_| ChannelId::generate()).collect();
    let mut pending = Vec::new();
    for channel in &channels {
        pending.push((1, queue(&store, &create(*channel, ALICE)).await));
    }
    for offset in 2..=20 {
        for channel in &channels {
            pending.push((offset, queue(&store, &message(*channel, ALICE, 1)).await));
        }
    }
    for (offset, append) in pending {
        assert_eq!(append.verdict().await.expect("accepted").offset, at(offset));
    }
    for channel in channels {
        let frames = frames(&store, channel.log()).await;
        assert_eq!(frames.len(), 20);
        assert!(frames.iter().all(|frame| frame.header().log == channel.log()));
    }
}

/// Many appends in flight are folded in the order in which they were queued.
pub async fn pipelined_frames_keep_their_order(store: Store) {
    let channel = new_channel(&store).await;
    let sent: Vec<Frame> = (0..500).map(|_| message(channel, ALICE, 1)).collect();
    let mut pending = Vec::new();
    for frame in &sent {
        pending.push(queue(&store, frame).await);
    }
    for (append, expected) in pending.into_iter().zip(2..) {
        assert_eq!(append.verdict().await.expect("accepted").offset, at(expected));
    }
    assert_eq!(frames(&store, channel.log()).await[1..], sent);
}

/// Lent values are dropped when their appends are answered, accepted or refused; the answers wait unread.
pub async fn what_an_append_was_lent_is_given_back_though_nobody_looks_at_the_answer(store: Store) {
    let channel = new_channel(&store).await;
    let lent = Arc::new(());
    let mut unread = Vec::new();
    for parent in [1, 1, 7, 1, 7] {
        let frame = message(channel, ALICE, parent);
        unread.push(store.append_lent(frame, Box::new(lent.clone())).await.expect("queued"));
    }
    while Arc::strong_count(&lent) > 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut accepted = 0;
    for append in unread {
        accepted += u32::from(append.verdict().await.is_ok());
    }
    assert_eq!(accepted, 3);
    // Nor is it kept by one that never gets into the queue.
    drop(store.append_lent(message(channel, ALICE, 1), Box::new(lent.clone())));
    assert_eq!(Arc::strong_count(&lent), 1);
}

/// Several authors at once: every entry has one offset, and each author's frames keep their order.
pub async fn concurrent_authors_each_keep_their_order(store: Store) {
    let channel = new_channel(&store).await;
    accept(&store, &commit(channel, ALICE, 1, &[BOB, CAROL, DAVE], &[])).await;
    let authors = [ALICE, BOB, CAROL, DAVE].map(|author| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut offsets = Vec::new();
            for _ in 0..10 {
                let mut pending = Vec::new();
                for _ in 0..10 {
                    pending.push(queue(&store, &message(channel, author, 2)).await);
                }
                for append in pending {
                    offsets.push(append.verdict().await.expect("accepted").offset);
                }
            }
            offsets
        })
    });
    let mut all = BTreeSet::new();
    for author in authors {
        let offsets = author.await.expect("an author");
        assert!(offsets.is_sorted());
        all.extend(offsets);
    }
    assert!(all.into_iter().eq((3..=402).map(Offset::new)));
}

/// A duplicate is answered with the first one's offset and time, and is no second entry.
pub async fn a_frame_sent_again_gets_the_offset_it_has(store: Store) {
    let channel = new_channel(&store).await;
    let frame = message(channel, ALICE, 1);
    let first = accept(&store, &frame).await;
    accept(&store, &commit(channel, ALICE, 1, &[], &[])).await;
    for _ in 0..3 {
        // Its parent is stale by now: a duplicate is seen before that.
        let duplicate = again(&store, &frame).await;
        assert_eq!((duplicate.offset, duplicate.time_ms), (first.offset, first.time_ms));
    }
    assert_eq!(head(&store, channel.log()).await, at(3));
}

/// The same frame several times in flight: one entry, and the same offset for each.
pub async fn a_frame_pipelined_twice_is_one_entry(store: Store) {
    let channel = new_channel(&store).await;
    for round in 0..20 {
        let frame = message(channel, ALICE, 1);
        let mut pending = Vec::new();
        for _ in 0..4 {
            pending.push(queue(&store, &frame).await);
        }
        for (turn, append) in pending.into_iter().enumerate() {
            let accepted = append.verdict().await.expect("accepted");
            assert_eq!(accepted.offset, at(2 + round));
            assert!(duplicate_fits(&store, &accepted, turn > 0), "{accepted:?}");
        }
    }
    assert_eq!(head(&store, channel.log()).await, at(21));
}

/// A refused frame may be sent again under its id, and is judged once more.
pub async fn a_refused_frame_is_not_remembered(store: Store) {
    let claim = claim(BOB, ALICE);
    refuse(&store, &claim).await;
    accept(&store, &key_package(BOB, false)).await;
    assert_eq!(accept(&store, &claim).await.offset, at(2));
}

/// Dropping the future that waits for the verdict does not take the append back.
pub async fn an_append_that_nobody_waits_for_is_kept(store: Store) {
    let channel = new_channel(&store).await;
    let sent = [message(channel, ALICE, 1), message(channel, ALICE, 1)];
    drop(queue(&store, &sent[0]).await);
    assert_eq!(accept(&store, &sent[1]).await.offset, at(3));
    assert_eq!(frames(&store, channel.log()).await[1..], sent);
}

/// The time stored with an entry is not before that of the entry before it, and is the one that was answered.
pub async fn times_never_go_back(store: Store) {
    let channel = new_channel(&store).await;
    let mut answered = Vec::new();
    for _ in 0..30 {
        answered.push(accept(&store, &message(channel, ALICE, 1)).await.time_ms);
    }
    let stored: Vec<u64> = read_all(&store, channel.log(), 1)
        .await
        .iter()
        .map(|record| record.time_ms)
        .collect();
    assert_eq!(stored, answered);
    assert!(stored.is_sorted());
    // Milliseconds since 1970, not seconds: past 2020 and before the year 5000.
    assert!(
        stored
            .iter()
            .all(|time| (1_577_836_800_000..95_617_584_000_000).contains(time))
    );
}

/// A frame of exactly the limit goes through whole.
pub async fn the_largest_frame_is_kept(store: Store) {
    let channel = new_channel(&store).await;
    let overhead = {
        let body = vec![0; limits::FRAME_BYTES_MAX / 2];
        let frame = frame(channel.log(), ALICE, 1, Detail::Message, body);
        frame.encoded().len() - limits::FRAME_BYTES_MAX / 2
    };
    let body = vec![0x5a; limits::FRAME_BYTES_MAX - overhead];
    let largest = frame(channel.log(), ALICE, 1, Detail::Message, body);
    assert_eq!(largest.encoded().len(), limits::FRAME_BYTES_MAX);
    accept(&store, &largest).await;
    accept(&store, &message(channel, ALICE, 1)).await;
    assert_eq!(frames(&store, channel.log()).await[1], largest);
}
