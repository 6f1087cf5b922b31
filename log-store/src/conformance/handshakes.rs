//! Commits, proposals and bundles: the handshake rule, and the Welcomes it causes.

use super::Store;
use super::script::*;
use crate::{AppendError, Refused};
use skytale_proto::{AgentId, ChannelId, Code, Detail, Frame, FrameId, Header, Offset, limits};
use std::sync::Arc;

/// Two tasks commit on one head at once, a hundred times: one is accepted, the other gets the head it lost to.
pub async fn of_two_commits_on_one_head_the_first_wins(store: Store) {
    let channel = new_channel(&store).await;
    accept(&store, &commit(channel, ALICE, 1, &[BOB], &[])).await;
    for parent in 2..102 {
        let race = [ALICE, BOB].map(|author| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { append(&store, &commit(channel, author, parent, &[], &[])).await })
        });
        let (mut won, mut lost) = (0, 0);
        for task in race {
            match task.await.expect("a racer") {
                Ok(accepted) => {
                    assert_eq!(accepted.offset, at(parent + 1));
                    won += 1;
                }
                Err(AppendError::Refused(Refused::StaleHandshake { head })) => {
                    assert_eq!(head, at(parent + 1));
                    lost += 1;
                }
                Err(other) => panic!("neither won nor lost: {other}"),
            }
        }
        assert_eq!((won, lost), (1, 1));
    }
}

/// Messages pipelined behind a commit that loses are refused one and all: none slips into a later epoch.
pub async fn messages_behind_a_lost_race_are_all_stale(store: Store) {
    let channel = new_channel(&store).await;
    accept(&store, &commit(channel, ALICE, 1, &[BOB], &[])).await;
    let mut pending = Vec::new();
    for _ in 0..20 {
        pending.push(queue(&store, &message(channel, BOB, 2)).await);
    }
    let winner = queue(&store, &commit(channel, ALICE, 2, &[], &[])).await;
    let mut stale = Vec::new();
    for _ in 0..20 {
        stale.push(queue(&store, &message(channel, BOB, 2)).await);
    }
    for (append, offset) in pending.into_iter().zip(3..) {
        assert_eq!(append.verdict().await.expect("accepted").offset, at(offset));
    }
    assert_eq!(winner.verdict().await.expect("accepted").offset, at(23));
    for append in stale {
        let refused = append.verdict().await.expect_err("stale");
        assert_eq!(refused, Refused::StaleEpoch { head: at(23) }.into());
    }
}

/// A proposal belongs to the epoch it was made in, and begins none.
pub async fn a_proposal_does_not_move_the_handshake_head(store: Store) {
    let channel = new_channel(&store).await;
    assert_eq!(accept(&store, &proposal(channel, ALICE, 1)).await.offset, at(2));
    assert_eq!(accept(&store, &message(channel, ALICE, 1)).await.offset, at(3));
    assert_eq!(accept(&store, &commit(channel, ALICE, 1, &[], &[])).await.offset, at(4));
    assert_eq!(accept(&store, &message(channel, ALICE, 4)).await.offset, at(5));
}

/// Recipients get a Welcome each, and nobody else does.
pub async fn a_bundle_puts_one_welcome_on_each_recipients_log(store: Store) {
    let channel = new_channel(&store).await;
    for recipient in [BOB, DAVE] {
        claimed(&store, recipient, ALICE).await;
    }
    let bundle = bundle_for(channel, &[BOB, CAROL, DAVE], &[BOB, DAVE]);
    let offset = accept(&store, &bundle).await.offset;
    for recipient in [BOB, DAVE] {
        assert_eq!(
            frames(&store, recipient.log()).await[2..],
            [welcome(channel, offset, recipient)]
        );
    }
    for other in [ALICE, CAROL] {
        assert_eq!(frames(&store, other.log()).await, []);
    }
}

/// A bundle is an entry whoever its recipients are; those of whom its author has claimed nothing, and those who do not exist,
/// hear nothing of it.
pub async fn a_bundle_leaves_nothing_with_recipients_that_do_not_know_its_author(store: Store) {
    let nobodies: Vec<AgentId> = (0..limits::ROSTER_CHANGE_MAX as u32 - 2).map(agent).collect();
    let recipients: Vec<AgentId> = nobodies.iter().copied().chain([BOB, CAROL]).collect();
    let channel = new_channel(&store).await;
    claimed(&store, BOB, ALICE).await;
    accept(&store, &key_package(CAROL, true)).await;
    accept(&store, &claim(CAROL, DAVE)).await;
    let offset = accept(&store, &bundle_for(channel, &recipients, &recipients))
        .await
        .offset;
    assert_eq!(frames(&store, BOB.log()).await[2..], [welcome(channel, offset, BOB)]);
    assert_eq!(frames(&store, CAROL.log()).await.len(), 2);
    for nobody in &nobodies {
        assert_eq!(head(&store, nobody.log()).await, Offset::ZERO);
    }
    // Once more, for those who return: a lie about who was there helps nobody.
    let again = commit(channel, ALICE, offset.get(), &recipients, &recipients);
    let offset = accept(&store, &again).await.offset;
    assert_eq!(head(&store, nobodies[0].log()).await, Offset::ZERO);
    assert_eq!(frames(&store, CAROL.log()).await.len(), 2);
    let back = Header::welcome(ALICE, channel, offset, BOB, true);
    assert_eq!(
        frames(&store, BOB.log()).await[3..],
        [Frame::new(back, "").expect("a frame")]
    );
}

/// A duplicate bundle, pipelined or later, leaves the recipients' logs as they are.
pub async fn a_bundle_sent_again_emits_nothing(store: Store) {
    let channel = new_channel(&store).await;
    claimed(&store, BOB, ALICE).await;
    let bundle = bundle_for(channel, &[BOB], &[BOB]);
    let pending = [
        queue(&store, &bundle).await,
        queue(&store, &bundle).await,
        queue(&store, &bundle).await,
    ];
    for append in pending {
        assert_eq!(append.verdict().await.expect("accepted").offset, at(2));
    }
    again(&store, &bundle).await;
    assert_eq!(frames(&store, BOB.log()).await[2..], [welcome(channel, at(2), BOB)]);
}

/// The id of a Welcome to come is known to all; a frame that takes it is refused, and the Welcome arrives.
pub async fn nobody_can_take_a_welcomes_id_beforehand(store: Store) {
    let channel = new_channel(&store).await;
    accept(&store, &key_package(BOB, false)).await;
    let claim = Header {
        id: FrameId::of_welcome(&channel, at(2), &BOB),
        ..claim(BOB, CAROL).header().clone()
    };
    let claim = Frame::new(claim, "").expect("a frame");
    assert_eq!(refuse(&store, &claim).await.code(), Code::KindRefused);
    claimed(&store, BOB, ALICE).await;
    let offset = accept(&store, &bundle_for(channel, &[BOB], &[BOB])).await.offset;
    assert_eq!(frames(&store, BOB.log()).await[3..], [welcome(channel, offset, BOB)]);
}

/// The author who loses the race welcomes nobody.
pub async fn a_refused_bundle_emits_nothing(store: Store) {
    let channel = new_channel(&store).await;
    for recipient in [BOB, CAROL] {
        claimed(&store, recipient, ALICE).await;
    }
    let won = queue(&store, &bundle_for(channel, &[BOB], &[BOB])).await;
    let lost = queue(&store, &bundle_for(channel, &[CAROL], &[CAROL])).await;
    won.verdict().await.expect("accepted");
    lost.verdict().await.expect_err("refused");
    assert_eq!(frames(&store, BOB.log()).await.len(), 3);
    assert_eq!(frames(&store, CAROL.log()).await.len(), 2);
}

/// The Welcome is as durable as its bundle: it is there when the bundle is acknowledged, and watchers hear of it.
pub async fn welcomes_can_be_read_when_the_bundle_is_acknowledged(store: Store) {
    let mut watch = store.watch_head(BOB.log()).await.expect("a watch");
    watch.mark_unchanged();
    claimed(&store, BOB, ALICE).await;
    let channel = new_channel(&store).await;
    let mut parent = 1;
    for round in 0..20 {
        let add = commit(channel, ALICE, parent, &[BOB], &[]);
        let added = accept(&store, &add).await.offset;
        assert_eq!(
            frames(&store, BOB.log()).await.last(),
            Some(&welcome(channel, added, BOB))
        );
        assert_eq!(head(&store, BOB.log()).await, at(3 + round));
        parent = accept(&store, &commit(channel, ALICE, added.get(), &[], &[BOB]))
            .await
            .offset
            .get();
    }
    watch.wait_for(|head| *head == at(22)).await.expect("the store runs");
}

fn bundle_for(channel: ChannelId, adds: &[AgentId], recipients: &[AgentId]) -> Frame {
    let detail = Detail::Commit {
        adds: adds.to_vec(),
        removes: Vec::new(),
        recipients: recipients.to_vec(),
        roster: None,
        policy: None,
    };
    frame(channel.log(), ALICE, 1, detail, "bundle")
}

/// The Welcome that Alice's bundle causes.
fn welcome(channel: ChannelId, offset: Offset, recipient: AgentId) -> Frame {
    let header = Header {
        log: recipient.log(),
        id: FrameId::of_welcome(&channel, offset, &recipient),
        author: ALICE,
        parent: Offset::ZERO,
        detail: Detail::Welcome {
            channel,
            offset,
            returns: false,
        },
    };
    Frame::new(header, "").expect("a frame")
}
