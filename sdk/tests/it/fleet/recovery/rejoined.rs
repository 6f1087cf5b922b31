//! Two members rejoin at one moment.

use super::room::{Room, adds};
use skytale_proto::Kind;
use skytale_sdk::{LostReason, Standing};
use std::collections::BTreeSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_that_rejoin_at_once_at_two_nodes_are_answered_once_each_and_told_what_they_missed() {
    let mut room = Room::of(4).await;
    let before = room.channels[2].cursor().await.expect("a cursor");
    let gone = room.lose_a_commit(&[2, 3]).await;
    room.hold(&[2, 3], Kind::Rejoin);
    room.hold(&[0, 1], Kind::Commit);
    room.connect(&[2, 3]).await;
    let asked = room.held(&[2, 3], "a request", |_| true).await;
    assert_eq!(asked[0].header().parent, asked[1].header().parent);
    let meanwhile = room.say(1, "said while two ask").await;
    room.all_reach(&[0, 1]).await;
    room.shows(&[0, 1], false);
    room.let_go(&[2, 3]);
    room.are_entries(&asked).await;
    room.shows(&[0, 1], true);
    // Each of those who can answer does, without knowledge of the other's answer.
    let asking: BTreeSet<_> = [2, 3].map(|member| room.agents[member].id()).into();
    let answers = room
        .held(&[0, 1], "an answer to both", |frame| adds(frame) == asking)
        .await;
    assert_eq!(answers[0].header().parent, answers[1].header().parent);
    room.race(&[0, 1]).await;
    for member in [2, 3] {
        room.stands(member, Standing::Current).await;
    }
    let (answered, answer) = room.commit_after(meanwhile).await;
    assert!(answers.contains(&answer));
    for member in [2, 3] {
        let lost = room.channels[member].lost().await.expect("listed");
        let ranges: Vec<_> = lost.iter().map(|lost| (lost.first, lost.last, lost.reason)).collect();
        let [trimmed, (first, last, LostReason::OutOfSync)] = ranges[..] else {
            panic!("{ranges:?}");
        };
        assert_eq!(trimmed, (before.next(), gone, LostReason::Trimmed));
        assert!(
            first > gone && first <= meanwhile && last == answered.previous(),
            "{ranges:?}"
        );
    }
    room.holds(&[0, 1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_the_answer_to_another_leaves_out_is_answered_in_the_end() {
    let mut room = Room::of(3).await;
    room.lose_a_commit(&[1, 2]).await;
    room.hold(&[1, 2], Kind::Rejoin);
    room.hold(&[0], Kind::Commit);
    room.connect(&[1, 2]).await;
    let asked = room.held(&[1, 2], "a request", |_| true).await;
    assert_eq!(asked[0].header().parent, asked[1].header().parent);
    room.let_go(&[1]);
    let first = [room.agents[1].id()].into();
    let answers = room
        .held(&[0], "an answer to the first", |frame| adds(frame) == first)
        .await;
    // The second one is in the log before the answer to the first, which knows nothing of it.
    room.let_go(&[2]);
    room.are_entries(&asked).await;
    room.let_go(&[0]);
    room.are_entries(&answers).await;
    for member in [1, 2] {
        room.stands(member, Standing::Current).await;
    }
    room.holds(&[0, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_the_answer_to_another_overtakes_is_made_again() {
    let mut room = Room::of(3).await;
    room.lose_a_commit(&[1, 2]).await;
    room.hold(&[1, 2], Kind::Rejoin);
    room.connect(&[1, 2]).await;
    let asked = room.held(&[1, 2], "a request", |_| true).await;
    assert_eq!(asked[0].header().parent, asked[1].header().parent);
    room.let_go(&[1]);
    room.stands(1, Standing::Current).await;
    room.learn(0).await;
    assert_eq!(room.standing(2).await, Standing::OutOfSync);
    room.let_go(&[2]);
    room.holds(&[0, 1, 2]).await;
}
