//! Frame ids: one that was accepted is known for good, in whatever order ids come, and whether or not the index has it yet.

use super::script::{ALICE, at, close, create, open, small};
use skytale_log_store::{LocalStore, LogStore as _};
use skytale_proto::{ChannelId, Detail, Frame, FrameId, Header, LogId, Offset};
use std::time::Duration;
use tempfile::tempdir;

/// A frame with an id of this number.
fn numbered(log: LogId, number: u64, parent: u64, detail: Detail) -> Frame {
    let mut id = [0xff; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let header = Header {
        log,
        id: FrameId::from_bytes(id),
        author: ALICE,
        parent: at(parent),
        detail,
    };
    Frame::new(header, &b"body"[..]).expect("a frame")
}

/// Appends frames without waiting for one before the next is queued, and gives each one's offset and whether it is a duplicate.
async fn all(store: &LocalStore, frames: &[Frame]) -> Vec<(Offset, bool)> {
    let mut pending = Vec::new();
    for frame in frames {
        pending.push(store.append(frame.clone()).await.expect("queued"));
    }
    let mut accepted = Vec::new();
    for pending in pending {
        let one = pending.verdict().await.expect("accepted");
        accepted.push((one.offset, one.duplicate));
    }
    accepted
}

/// Of 12 logs the states of 4 are kept in memory, so ids of logs whose state has gone must be known as well.
#[tokio::test]
async fn an_id_is_known_in_whatever_order_ids_came() {
    let dir = tempdir().expect("a folder");
    let store = open(small(dir.path())).await;
    let channels: Vec<ChannelId> = (0..12).map(|_| ChannelId::generate()).collect();
    let creates: Vec<Frame> = channels.iter().map(|channel| create(*channel)).collect();
    all(&store, &creates).await;
    // Ascending, and each followed by one that is late: 10, 1, 20, 11, 30, 21, ...
    let numbers = (1..24_u64).flat_map(|number| [number * 10, number * 10 - 9]);
    let frames: Vec<Frame> = numbers
        .flat_map(|number| {
            channels
                .iter()
                .map(move |channel| numbered(channel.log(), number, 1, Detail::Message))
        })
        .collect();
    let first = all(&store, &frames).await;
    assert!(first.iter().all(|(_, duplicate)| !duplicate));
    let again: Vec<(Offset, bool)> = first.iter().map(|(offset, _)| (*offset, true)).collect();
    assert!(
        all(&store, &frames).await == again,
        "while the index lacks some of them"
    );
    close(store).await;
    let store = open(small(dir.path())).await;
    assert!(all(&store, &frames).await == again, "from the index");
    close(store).await;
}

fn package(number: u64) -> Frame {
    let detail = Detail::KeyPackage {
        last_resort: false,
        account: None,
    };
    numbered(ALICE.log(), number, 0, detail)
}

fn trim(number: u64, up_to: u64) -> Frame {
    numbered(ALICE.log(), number, 0, Detail::Trim { up_to: at(up_to) })
}

#[tokio::test]
async fn an_id_that_a_trim_lets_in_again_is_at_its_last_place() {
    let dir = tempdir().expect("a folder");
    let store = open(small(dir.path())).await;
    let frames = [package(10), package(20), trim(30, 1), package(10), package(10)];
    let accepted = all(&store, &frames).await;
    let offsets = [(1, false), (2, false), (3, false), (4, false), (4, true)];
    assert_eq!(accepted, offsets.map(|(offset, duplicate)| (at(offset), duplicate)));
    close(store).await;
    let store = open(small(dir.path())).await;
    assert_eq!(all(&store, &frames[3..4]).await, [(at(4), true)]);
    close(store).await;
}

/// The index takes the first id in; the late one is still to come into it when the Trim, with a lesser id, lets it in again.
#[tokio::test]
async fn a_late_id_that_a_trim_lets_in_again_is_at_its_last_place() {
    let dir = tempdir().expect("a folder");
    let store = open(small(dir.path())).await;
    assert_eq!(all(&store, &[package(20)]).await, [(at(1), false)]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(all(&store, &[package(10)]).await, [(at(2), false)]);
    let frames = [trim(5, 2), package(10), package(10)];
    let expected = [(at(3), false), (at(4), false), (at(4), true)];
    assert_eq!(all(&store, &frames).await, expected);
    close(store).await;
}
