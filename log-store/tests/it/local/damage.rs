//! Damage is reported with its place, and hits the log that it hits.

use super::script::*;
use skytale_log_store::{AppendError, LogStore as _, StoreError};
use skytale_proto::{Code, Offset};
use std::fs;
use tempfile::TempDir;

fn corrupt(error: &StoreError) -> &str {
    match error {
        StoreError::Corrupt { place } => place,
        other => panic!("expected Corrupt, got {other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_served_up_to_a_flipped_byte_and_others_go_on() {
    for without_index in [true, false] {
        let dir = TempDir::new().expect("a folder");
        let store = open(small(dir.path())).await;
        let (hit, mut frames) = channel_with(&store, 4, b"before").await;
        let damaged = message(hit, 1, b"this will be damaged");
        accept(&store, &damaged).await;
        frames.push(damaged);
        for _ in 0..3 {
            accept(&store, &message(hit, 1, b"after")).await;
        }
        let (other, other_frames) = channel_with(&store, 4, b"another").await;
        close(store).await;
        let segment = segments(dir.path()).remove(0);
        let place = find(&fs::read(&segment).expect("read"), b"this will be damaged");
        flip(&segment, place);
        if without_index {
            fs::remove_dir_all(dir.path().join("index")).expect("removed");
        }
        let store = open(small(dir.path())).await;
        assert_eq!(*store.stopped().borrow(), None);
        let batch = store
            .read(hit.log(), Offset::ZERO, usize::MAX, u64::MAX)
            .await
            .expect("up to the damage");
        assert_eq!(batch.last, at(5));
        for after in [5, 6] {
            let read = store.read(hit.log(), at(after), usize::MAX, u64::MAX).await;
            let error = read.expect_err("never past it");
            assert!(corrupt(&error).contains("0000000001.seg at "), "{error}");
            assert_eq!(error.code(), Code::StoreCorrupt);
        }
        match append(&store, &message(hit, 1, b"more")).await {
            Err(AppendError::Store(error)) => assert!(corrupt(&error).contains("0000000001.seg")),
            other => panic!("a damaged log takes nothing: {other:?}"),
        }
        holds(&store, other.log(), &other_frames).await;
        accept(&store, &message(other, 1, b"more")).await;
        close(store).await;
        // The other log's frames are as they were, except for the one just added.
        let store = open(small(dir.path())).await;
        assert!(entries(&store, other.log(), at(5)).await.is_ok());
        close(store).await;
        // Mended: the log is whole again.
        flip(&segment, place);
        let store = open(small(dir.path())).await;
        assert_eq!(entries(&store, hit.log(), Offset::ZERO).await.expect("whole").len(), 9);
        accept(&store, &message(hit, 1, b"more")).await;
        close(store).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_reads_no_body_of_a_sealed_segment() {
    let dir = TempDir::new().expect("a folder");
    let store = open(small(dir.path())).await;
    let (channel, frames) = channel_with(&store, 400, &[9; 900]).await;
    close(store).await;
    let sealed = segments(dir.path());
    assert!(sealed.len() > 10);
    for segment in &sealed[1..sealed.len() - 1] {
        let bytes = fs::read(segment).expect("read");
        flip(segment, find(&bytes, &[9; 900]) + 450);
    }
    let store = open(small(dir.path())).await;
    assert_eq!(*store.stopped().borrow(), None);
    // Nothing is known of the damage yet: it was not looked for.
    assert_eq!(accept(&store, &message(channel, 1, b"more")).await.offset, at(402));
    let whole = store
        .read(channel.log(), Offset::ZERO, usize::MAX, u64::MAX)
        .await
        .expect("up to the damage");
    assert!(whole.last < at(401) && whole.last > Offset::ZERO);
    let error = entries(&store, channel.log(), Offset::ZERO)
        .await
        .expect_err("never past it");
    assert!(corrupt(&error).contains("0000000002.seg at "), "{error}");
    assert_eq!(frames.len(), 401);
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_segments_footer_tells_what_a_damaged_mark_announced() {
    let dir = TempDir::new().expect("a folder");
    let store = open(small(dir.path())).await;
    let (channel, frames) = channel_with(&store, 100, &[9; 900]).await;
    close(store).await;
    // The first byte of a mark's payload is the store's id: take one in the middle of the first segment.
    let segment = segments(dir.path()).remove(0);
    let bytes = fs::read(&segment).expect("read");
    let id = &bytes[24..40];
    let marks: Vec<usize> = (48..bytes.len() - 16)
        .filter(|at| &bytes[*at..*at + 16] == id)
        .collect();
    flip(&segment, marks[marks.len() / 2] + 3);
    fs::remove_dir_all(dir.path().join("index")).expect("removed");
    let store = open(small(dir.path())).await;
    assert_eq!(*store.stopped().borrow(), None);
    holds(&store, channel.log(), &frames).await;
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_can_tell_what_is_lost_no_offset_is_given_out_again() {
    let dir = TempDir::new().expect("a folder");
    let store = open(small(dir.path())).await;
    let (channel, _) = channel_with(&store, 10, b"short").await;
    close(store).await;
    let segment = segments(dir.path()).remove(0);
    let bytes = fs::read(&segment).expect("read");
    let id = &bytes[24..40];
    let marks: Vec<usize> = (48..bytes.len() - 16)
        .filter(|at| &bytes[*at..*at + 16] == id)
        .collect();
    flip(&segment, marks[5] + 3);
    fs::remove_dir_all(dir.path().join("index")).expect("removed");
    let store = open(small(dir.path())).await;
    let reason = store.stopped().borrow().clone().expect("a reason");
    assert!(
        reason.contains("0000000001.seg") && reason.contains("log verify"),
        "{reason}"
    );
    let refused = append(&store, &message(channel, 1, b"more"))
        .await
        .expect_err("stopped");
    assert_eq!(refused.code(), Code::StoreStopped);
    let batch = store
        .read(channel.log(), Offset::ZERO, usize::MAX, u64::MAX)
        .await
        .expect("what is before it");
    assert_eq!(batch.last, at(5));
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_looks_like_records_forges_nothing() {
    let (dir, other) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let store = open(small(dir.path())).await;
    let (victim, victim_frames) = channel_with(&store, 2, b"true").await;
    // A whole segment of another store, as a body: marks and entries that are valid except for the store's id.
    let forger = open(small(other.path())).await;
    accept(&forger, &create(victim)).await;
    for _ in 0..20 {
        accept(&forger, &message(victim, 1, b"forged")).await;
    }
    let forged = fs::read(&segments(other.path())[0]).expect("read");
    close(forger).await;
    let (attacker, _) = channel_with(&store, 0, b"").await;
    let body = &forged[48..8_000];
    accept(&store, &message(attacker, 1, body)).await;
    accept(&store, &message(attacker, 1, b"later")).await;
    close(store).await;
    let segment = segments(dir.path()).remove(0);
    let bytes = fs::read(&segment).expect("read");
    // Damage the attacker's record before its body, so that a reader has to find its way.
    flip(&segment, find(&bytes, &body[..64]) - 20);
    fs::remove_dir_all(dir.path().join("index")).expect("removed");
    let store = open(small(dir.path())).await;
    assert_eq!(*store.stopped().borrow(), None);
    holds(&store, victim.log(), &victim_frames).await;
    close(store).await;
}
