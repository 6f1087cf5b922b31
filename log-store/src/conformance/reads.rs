//! Reads: all appended entries, bounded, without a gap.

use super::Store;
use super::script::*;
use crate::{ReadBatch, StoreError};
use skytale_proto::{ChannelId, Detail, Frame, LogId, record};
use std::sync::Arc;

async fn read(store: &Store, log: LogId, after: u64, bytes_max: usize, entries_max: u64) -> ReadBatch {
    store
        .read(log, at(after), bytes_max, entries_max)
        .await
        .expect("a read")
}

/// A channel with a Create and messages whose bodies are as long as told.
async fn channel_with(store: &Store, bodies: impl IntoIterator<Item = usize>) -> (ChannelId, Vec<Frame>) {
    let channel = ChannelId::generate();
    let mut sent = vec![create(channel, ALICE)];
    for (length, fill) in bodies.into_iter().zip(0u8..) {
        sent.push(frame(channel.log(), ALICE, 1, Detail::Message, vec![fill; length]));
    }
    let mut pending = Vec::new();
    for frame in &sent {
        pending.push(queue(store, frame).await);
    }
    for append in pending {
        append.verdict().await.expect("accepted");
    }
    (channel, sent)
}

fn record_bytes(frame: &Frame) -> usize {
    record::HEADER_BYTES + frame.encoded().len()
}

/// Entries hold the author's bytes exactly, from any cursor on.
pub async fn a_read_gives_the_authors_bytes(store: Store) {
    let (channel, sent) = channel_with(&store, (0..60).map(|n| n * 97)).await;
    for after in [0, 1, 30, 60, 61] {
        let payloads: Vec<_> = read_all(&store, channel.log(), after)
            .await
            .into_iter()
            .map(|record| record.payload)
            .collect();
        let expected: Vec<_> = sent[after as usize..]
            .iter()
            .map(|frame| frame.encoded().clone())
            .collect();
        assert_eq!(payloads, expected);
    }
}

/// A read returns as many whole records as fit, and not one more.
pub async fn a_read_is_bounded_in_bytes(store: Store) {
    let (channel, sent) = channel_with(&store, [100, 2000, 50, 50, 3000, 10, 10, 10]).await;
    for after in 0..sent.len() {
        for bytes_max in (0..8000).step_by(37) {
            let batch = read(&store, channel.log(), after as u64, bytes_max, ALL_ENTRIES).await;
            let entries = records(&batch, after as u64);
            let bytes: usize = batch.records.iter().map(|chunk| chunk.len()).sum();
            assert!(
                bytes <= bytes_max || entries.len() == 1,
                "{bytes} bytes for {bytes_max}"
            );
        }
    }
    let fits = record_bytes(&sent[0]) + record_bytes(&sent[1]);
    assert_eq!(read(&store, channel.log(), 0, fits, ALL_ENTRIES).await.last, at(2));
    assert_eq!(read(&store, channel.log(), 0, fits - 1, ALL_ENTRIES).await.last, at(1));
}

/// No more entries than asked for.
pub async fn a_read_is_bounded_in_entries(store: Store) {
    let (channel, _) = channel_with(&store, [10; 30]).await;
    for entries_max in 1..40 {
        let batch = read(&store, channel.log(), 5, ALL_BYTES, entries_max).await;
        assert_eq!(records(&batch, 5).len() as u64, entries_max.min(26));
        assert_eq!(batch.head, at(31));
    }
}

/// A record larger than the bound comes alone, so that a reader always gets on.
pub async fn a_read_gives_at_least_one_record(store: Store) {
    let (channel, sent) = channel_with(&store, [50_000, 10, 50_000]).await;
    let mut after = 0;
    while after < sent.len() as u64 {
        let batch = read(&store, channel.log(), after, 1, ALL_ENTRIES).await;
        assert_eq!(records(&batch, after).len(), 1);
        after = batch.last.get();
    }
}

/// A read at the head is no error.
pub async fn a_read_at_the_head_is_empty(store: Store) {
    let (channel, _) = channel_with(&store, [10; 4]).await;
    let batch = read(&store, channel.log(), 5, ALL_BYTES, ALL_ENTRIES).await;
    assert_eq!(records(&batch, 5), []);
    assert_eq!((batch.last, batch.head), (at(5), at(5)));
}

/// A reader that has seen more than the log has gets an error.
pub async fn a_cursor_past_the_head_is_an_error(store: Store) {
    let (channel, _) = channel_with(&store, [10; 4]).await;
    for after in [6, 1000, u64::MAX] {
        let error = store.read(channel.log(), at(after), ALL_BYTES, ALL_ENTRIES).await;
        let beyond = StoreError::BeyondHead {
            after: at(after),
            head: at(5),
        };
        assert_eq!(error, Err(beyond));
    }
}

/// A log that nobody has appended to has nothing to read, and its head is 0.
pub async fn a_log_without_entries_reads_as_empty(store: Store) {
    for log in [ChannelId::generate().log(), DAVE.log()] {
        let batch = read(&store, log, 0, ALL_BYTES, ALL_ENTRIES).await;
        assert_eq!(records(&batch, 0), []);
        assert_eq!((batch.last, batch.head), (at(0), at(0)));
        let error = store.read(log, at(1), ALL_BYTES, ALL_ENTRIES).await;
        let beyond = StoreError::BeyondHead {
            after: at(1),
            head: at(0),
        };
        assert_eq!(error, Err(beyond));
    }
}

/// A reader whose cursor is below the kept entries learns where to begin; from there the log reads on, and takes
/// appends.
pub async fn trimmed_entries_are_said_to_be_gone(store: Store) {
    let (channel, sent) = channel_with(&store, [10; 9]).await;
    let log = channel.log();
    let trimmed = accept(&store, &trim(log, 6)).await;
    assert_eq!(trimmed.offset, at(11));
    for after in [0, 3, 5] {
        let error = store.read(log, at(after), ALL_BYTES, ALL_ENTRIES).await;
        assert_eq!(error, Err(StoreError::Trimmed { first: at(7) }));
    }
    let kept = read_all(&store, log, 6).await;
    assert_eq!(kept.len(), 5);
    assert_eq!(kept[0].payload, sent[6].encoded());
    assert_eq!(accept(&store, &message(channel, ALICE, 1)).await.offset, at(12));

    // All that there was: only the Trim itself is left.
    accept(&store, &trim(log, 12)).await;
    let error = store.read(log, at(11), ALL_BYTES, ALL_ENTRIES).await;
    assert_eq!(error, Err(StoreError::Trimmed { first: at(13) }));
    assert_eq!(read_all(&store, log, 12).await.len(), 1);
    assert_eq!(head(&store, log).await, at(13));
}

/// The id of an entry that is gone may be reused; that of one that is kept is a duplicate.
pub async fn a_trim_forgets_frame_ids(store: Store) {
    let (channel, sent) = channel_with(&store, [10; 4]).await;
    accept(&store, &trim(channel.log(), 3)).await;
    assert_eq!(again(&store, &sent[3]).await.offset, at(4));
    assert_eq!(accept(&store, &sent[2]).await.offset, at(7));
    assert_eq!(again(&store, &sent[2]).await.offset, at(7));
    accept(&store, &trim(channel.log(), 6)).await;
    assert_eq!(again(&store, &sent[2]).await.offset, at(7));
}

/// Readers that follow the log while it grows see every entry once, in order, with its own bytes.
pub async fn readers_during_writes_see_no_gap(store: Store) {
    const MESSAGES: u64 = 2_000;
    let channel = new_channel(&store).await;
    let log = channel.log();
    let readers: Vec<_> = [(300, 1), (5_000, ALL_ENTRIES), (ALL_BYTES, 7), (ALL_BYTES, ALL_ENTRIES)]
        .into_iter()
        .map(|(bytes_max, entries_max)| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut watch = store.watch_head(log).await.expect("a watch");
                let mut cursor = 0;
                while cursor <= MESSAGES {
                    let batch = read(&store, log, cursor, bytes_max, entries_max).await;
                    for record in records(&batch, cursor)
                        .into_iter()
                        .filter(|record| record.offset > at(1))
                    {
                        let frame = Frame::decode(record.payload).expect("a frame");
                        assert_eq!(frame.body().as_ref(), record.offset.get().to_le_bytes());
                    }
                    cursor = batch.last.get();
                    watch
                        .wait_for(|head| *head > at(cursor) || cursor > MESSAGES)
                        .await
                        .expect("the store runs");
                }
            })
        })
        .collect();
    let mut pending = std::collections::VecDeque::new();
    for offset in 2..=MESSAGES + 1 {
        let frame = frame(log, ALICE, 1, Detail::Message, offset.to_le_bytes().to_vec());
        pending.push_back(queue(&store, &frame).await);
        if pending.len() > 16 {
            let append = pending.pop_front().expect("not empty");
            append.verdict().await.expect("accepted");
        }
    }
    for reader in readers {
        reader.await.expect("a reader");
    }
}
