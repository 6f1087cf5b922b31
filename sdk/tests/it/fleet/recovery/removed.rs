//! A member asks to rejoin at one node, while another removes it at a second, and a third answers it at its own.

use super::room::{Room, adds};
use crate::agent::world::soon;
use skytale_proto::{Code, Kind, Offset};
use skytale_sdk::Standing;

/// Which comes first into the log.
#[derive(Clone, Copy, Debug)]
enum First {
    Removal,
    Answer,
    /// Both are appended at one moment.
    Either,
    /// The removal is there before the request is.
    RemovalBeforeRequest,
}

/// Member 0 removes member 2, which is out of sync; member 1 takes it in again.
async fn removed_while_it_rejoins(first: First) {
    let mut room = Room::of(3).await;
    room.lose_a_commit(&[2]).await;
    let id = room.agents[2].id();
    let head = room.channels[0].info().await.expect("known").handshake_head;
    let removal;
    if matches!(first, First::RemovalBeforeRequest) {
        room.hold(&[2], Kind::Rejoin);
        room.connect(&[2]).await;
        room.held(&[2], "a request", |_| true).await;
        removal = room.channels[0].remove(&[id]).await.expect("queued");
        room.commit_after(head).await;
        room.let_go(&[2]);
    } else {
        room.hold(&[0, 1], Kind::Commit);
        removal = room.channels[0].remove(&[id]).await.expect("queued");
        room.held(&[0], "a removal", |frame| adds(frame).is_empty()).await;
        room.connect(&[2]).await;
        room.held(&[1], "an answer", |frame| adds(frame).contains(&id)).await;
        let order: &[&[usize]] = match first {
            First::Removal => &[&[0], &[1]],
            First::Answer => &[&[1], &[0]],
            First::Either | First::RemovalBeforeRequest => &[&[0, 1]],
        };
        for nodes in order {
            room.race(nodes).await;
            room.commit_after(head).await;
        }
    }
    // What a member was asked to do is done: the one who asked is out, whichever came first.
    soon("removed", removal.delivered()).await.expect("delivered");
    room.has_left(2).await;
    room.all_reach(&[0, 1]).await;
    for member in [0, 1] {
        let members = room.channels[member].members().await.expect("known");
        assert!(!members.contains(&id), "{first:?}: member {member} has it still");
    }
    let refused = room.channels[2].send("is anybody there").await;
    let refused = refused.expect_err("it knows");
    assert_eq!(refused.code(), Code::ChannelLeft, "{refused}");

    // And nothing of all that is in the way of its coming back.
    let added = soon("claimed", room.channels[0].add(&[id])).await.expect("claimed");
    soon("added", added.delivered()).await.expect("delivered");
    room.stands(2, Standing::Current).await;
    assert!(room.channels[2].cursor().await.expect("a cursor") > Offset::ZERO);
    room.holds(&[0, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_removed_before_its_request_is_answered_is_out_everywhere() {
    removed_while_it_rejoins(First::Removal).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_removed_after_its_request_is_answered_is_out_everywhere() {
    removed_while_it_rejoins(First::Answer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_removed_and_answered_at_one_moment_is_out_everywhere() {
    removed_while_it_rejoins(First::Either).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_removed_before_it_could_ask_is_out_everywhere() {
    removed_while_it_rejoins(First::RemovalBeforeRequest).await;
}
