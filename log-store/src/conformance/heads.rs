//! Heads: shown entries are durable and can be read.

use super::Store;
use super::script::*;
use skytale_proto::ChannelId;
use std::sync::Arc;

/// Nothing has happened there yet.
pub async fn a_log_that_does_not_exist_has_head_zero(store: Store) {
    assert_eq!(head(&store, ChannelId::generate().log()).await, at(0));
    assert_eq!(head(&store, DAVE.log()).await, at(0));
}

/// A watch wakes also if the log begins only after somebody watches it.
pub async fn a_watch_wakes_when_the_head_moves(store: Store) {
    let channel = ChannelId::generate();
    let mut watch = store.watch_head(channel.log()).await.expect("a watch");
    let mut other = store.watch_head(channel.log()).await.expect("a watch");
    accept(&store, &create(channel, ALICE)).await;
    watch.wait_for(|head| *head == at(1)).await.expect("the store runs");
    for expected in 2..50 {
        let append = queue(&store, &message(channel, ALICE, 1)).await;
        watch
            .wait_for(|head| *head == at(expected))
            .await
            .expect("the store runs");
        append.verdict().await.expect("accepted");
    }
    other.wait_for(|head| *head == at(49)).await.expect("the store runs");
}

/// A watch shows the head at once, without waiting for it to move.
pub async fn a_watch_made_later_begins_at_the_head(store: Store) {
    let channel = new_channel(&store).await;
    for expected in 2..10 {
        accept(&store, &message(channel, ALICE, 1)).await;
        assert_eq!(head(&store, channel.log()).await, at(expected));
    }
}

/// An author who has an acknowledgement reads the entry, and sees the head there.
pub async fn what_is_acknowledged_can_be_read_at_once(store: Store) {
    let channel = new_channel(&store).await;
    let watch = store.watch_head(channel.log()).await.expect("a watch");
    for _ in 0..200 {
        let frame = message(channel, ALICE, 1);
        let offset = accept(&store, &frame).await.offset;
        assert!(*watch.borrow() >= offset);
        let read = read_all(&store, channel.log(), offset.get() - 1).await;
        assert_eq!(read[0].payload, frame.encoded());
    }
}

/// While the log grows, entries up to any offset that a watch shows can be read.
pub async fn what_a_head_shows_can_be_read(store: Store) {
    const LAST: u64 = 1_000;
    let channel = new_channel(&store).await;
    let log = channel.log();
    let reader = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut watch = store.watch_head(log).await.expect("a watch");
            let mut shown = *watch.borrow_and_update();
            while shown < at(LAST) {
                watch.changed().await.expect("the store runs");
                let next = *watch.borrow_and_update();
                assert!(next > shown, "a head never goes back");
                let batch = store.read(log, next.previous(), ALL_BYTES, ALL_ENTRIES).await;
                let batch = batch.expect("what is shown can be read");
                assert!(batch.head >= next);
                assert!(!records(&batch, next.get() - 1).is_empty());
                shown = next;
            }
        })
    };
    let mut pending = Vec::new();
    for _ in 1..LAST {
        pending.push(queue(&store, &message(channel, ALICE, 1)).await);
    }
    for append in pending {
        append.verdict().await.expect("accepted");
    }
    reader.await.expect("a reader");
}

/// Only entries move a head.
pub async fn a_refusal_and_a_duplicate_do_not_move_the_head(store: Store) {
    let channel = ChannelId::generate();
    let created = create(channel, ALICE);
    accept(&store, &created).await;
    let mut watch = store.watch_head(channel.log()).await.expect("a watch");
    watch.mark_unchanged();
    again(&store, &created).await;
    refuse(&store, &message(channel, BOB, 1)).await;
    assert!(!watch.has_changed().expect("the store runs"));
    assert_eq!(*watch.borrow(), at(1));
}
