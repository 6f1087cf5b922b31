//! A frame that takes longer to write than a sync takes holds up only those that come behind it.

use super::script::*;
use bytes::Bytes;
use futures_util::future::join_all;
use skytale_log_store::LocalConfig;
use skytale_proto::record::{KIND_ENTRY, PAYLOAD_BYTES_MAX};
use skytale_proto::{ChannelId, Frame, Record};
use tempfile::TempDir;

static SMALL: [u8; 600] = [3; 600];
static LARGE: [u8; 300 * 1024] = [4; 300 * 1024];
const LARGE_BYTES: usize = 256 * 1024;

/// Lengths of the entries of each batch: a batch is a mark and the entries behind it.
fn batches(segment: Vec<u8>) -> Vec<Vec<usize>> {
    let segment = Bytes::from(segment);
    let record_at = |at: usize| Record::decode(&segment.slice(at..), PAYLOAD_BYTES_MAX);
    // The segment's header and a mark come before the first entry, which creates a channel.
    let first = find(&segment, b"create");
    let mut at = (0..first)
        .rev()
        .find(|at| record_at(*at).is_ok())
        .expect("the record of a channel's creation");
    let mut found = vec![Vec::new()];
    while let Ok((record, length)) = record_at(at) {
        at += length;
        match record.kind {
            KIND_ENTRY => found.last_mut().expect("a batch").push(record.payload.len()),
            _ => found.push(Vec::new()),
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_frame_begins_a_batch_and_is_its_only_large_one() {
    let dir = TempDir::new().expect("a folder");
    let store = open(LocalConfig::new(dir.path())).await;
    let channels: Vec<ChannelId> = (0..24).map(|_| ChannelId::generate()).collect();
    for channel in &channels {
        accept(&store, &create(*channel)).await;
    }
    // All at once, each in a log of its own: small ones and large ones by turns.
    let frames: Vec<Frame> = channels
        .iter()
        .enumerate()
        .map(|(place, channel)| message(*channel, 1, if place % 2 == 0 { &SMALL } else { &LARGE }))
        .collect();
    for accepted in join_all(frames.iter().map(|frame| accept(&store, frame))).await {
        assert_eq!(accepted.offset, at(2));
    }
    close(store).await;
    let [segment] = &segments(dir.path())[..] else {
        panic!("one segment")
    };
    let batches = batches(std::fs::read(segment).expect("the segment"));
    let lengths = || batches.iter().flatten();
    assert_eq!(lengths().count(), channels.len() * 2, "{batches:?}");
    assert_eq!(lengths().filter(|length| **length >= LARGE_BYTES).count(), 12);
    for batch in &batches {
        let behind = batch.iter().skip(1);
        assert!(
            behind.max() < Some(&LARGE_BYTES),
            "a large frame behind another: {batch:?}"
        );
    }
}
