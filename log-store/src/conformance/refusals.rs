//! Frames that are no entries, each with its reason.

use super::Store;
use super::script::*;
use crate::Refused;
use skytale_proto::{AgentId, ChannelId, Code, LogId, limits};

/// A channel begins with its Create.
pub async fn an_unknown_channel_takes_no_frame(store: Store) {
    let channel = ChannelId::generate();
    for frame in [
        message(channel, ALICE, 1),
        commit(channel, ALICE, 1, &[BOB], &[]),
        raw(channel, ALICE, ACCOUNT),
        trim(channel.log(), 1),
    ] {
        assert_eq!(refuse(&store, &frame).await, Refused::UnknownLog);
    }
    assert_eq!(head(&store, channel.log()).await, at(0));
    assert_eq!(frames(&store, BOB.log()).await, []);
}

/// A second Create is refused; the first one sent again is a duplicate.
pub async fn a_channel_is_created_once(store: Store) {
    let channel = ChannelId::generate();
    let first = create(channel, ALICE);
    accept(&store, &first).await;
    for other in [create(channel, ALICE), create(channel, BOB), create_raw(channel, ALICE)] {
        assert_eq!(refuse(&store, &other).await, Refused::LogExists);
    }
    assert_eq!(again(&store, &first).await.offset, at(1));
}

/// Members alone append.
pub async fn who_is_not_on_the_roster_appends_nothing(store: Store) {
    let channel = new_channel(&store).await;
    for frame in [
        message(channel, BOB, 1),
        proposal(channel, BOB, 1),
        commit(channel, BOB, 1, &[BOB], &[]),
    ] {
        assert_eq!(refuse(&store, &frame).await, Refused::NotMember);
    }
    accept(&store, &commit(channel, ALICE, 1, &[BOB], &[])).await;
    accept(&store, &message(channel, BOB, 2)).await;
}

/// Commits and proposals need the handshake head as parent, neither less nor more.
pub async fn a_stale_commit_or_proposal_is_told_the_head(store: Store) {
    let channel = new_channel(&store).await;
    accept(&store, &message(channel, ALICE, 1)).await;
    accept(&store, &commit(channel, ALICE, 1, &[], &[])).await;
    let stale = Refused::StaleHandshake { head: at(3) };
    assert_eq!((stale.code(), stale.offset()), (Code::StaleHandshake, Some(at(3))));
    for parent in [1, 2, 4, u64::MAX] {
        assert_eq!(refuse(&store, &commit(channel, ALICE, parent, &[], &[])).await, stale);
        assert_eq!(refuse(&store, &proposal(channel, ALICE, parent)).await, stale);
    }
}

/// Messages need the handshake head as parent, neither less nor more.
pub async fn a_stale_message_is_told_the_head(store: Store) {
    let channel = new_channel(&store).await;
    accept(&store, &commit(channel, ALICE, 1, &[], &[])).await;
    for parent in [1, 3, u64::MAX] {
        let refused = refuse(&store, &message(channel, ALICE, parent)).await;
        assert_eq!(refused, Refused::StaleEpoch { head: at(2) });
    }
}

/// An agent that may not append gets a refusal, and learns no head.
pub async fn membership_is_checked_before_the_parent(store: Store) {
    let channel = new_channel(&store).await;
    accept(&store, &commit(channel, ALICE, 1, &[], &[])).await;
    assert_eq!(refuse(&store, &message(channel, BOB, 1)).await, Refused::NotMember);
    assert_eq!(
        refuse(&store, &commit(channel, BOB, 1, &[], &[])).await,
        Refused::NotMember
    );
}

/// Adding a member, removing a stranger, removing oneself: none of it changes anything.
pub async fn a_commit_that_contradicts_the_roster_is_refused(store: Store) {
    let channel = new_channel(&store).await;
    accept(&store, &commit(channel, ALICE, 1, &[BOB], &[])).await;
    for (adds, removes) in [
        (vec![BOB], vec![]),
        (vec![CAROL, BOB], vec![]),
        (vec![], vec![CAROL]),
        (vec![], vec![BOB, CAROL]),
        (vec![CAROL], vec![CAROL]),
        (vec![], vec![ALICE]),
        (vec![ALICE], vec![ALICE]),
    ] {
        let refused = refuse(&store, &commit(channel, ALICE, 2, &adds, &removes)).await;
        assert_eq!(refused.code(), Code::RosterChange, "adds {adds:?}, removes {removes:?}");
    }
    assert_eq!(frames(&store, CAROL.log()).await, []);
    accept(&store, &message(channel, BOB, 2)).await;
    assert_eq!(refuse(&store, &message(channel, CAROL, 2)).await, Refused::NotMember);
}

/// The roster goes to its limit, and not past it.
pub async fn a_full_roster_takes_nobody(store: Store) {
    let channel = new_channel(&store).await;
    let everyone: Vec<AgentId> = (0..limits::ROSTER_MAX as u32).map(agent).collect();
    let (fill, over) = everyone.split_at(limits::ROSTER_MAX - 1);
    let mut parent = 1;
    for adds in fill.chunks(limits::ROSTER_CHANGE_MAX) {
        parent = accept(&store, &commit(channel, ALICE, parent, adds, &[]))
            .await
            .offset
            .get();
    }
    let refused = refuse(&store, &commit(channel, ALICE, parent, over, &[])).await;
    assert_eq!(refused, Refused::RosterFull);
    let swap = commit(channel, ALICE, parent, over, &fill[..1]);
    accept(&store, &swap).await;
}

/// An MLS channel takes no raw frame, and the reverse.
pub async fn a_channel_takes_the_kinds_of_its_mode_alone(store: Store) {
    let group = new_channel(&store).await;
    let refused = refuse(&store, &raw(group, ALICE, ACCOUNT)).await;
    assert_eq!(refused.code(), Code::KindRefused);
    let channel = ChannelId::generate();
    accept(&store, &create_raw(channel, ALICE)).await;
    for frame in [
        message(channel, ALICE, 1),
        proposal(channel, ALICE, 1),
        commit(channel, ALICE, 1, &[BOB], &[]),
    ] {
        assert_eq!(refuse(&store, &frame).await.code(), Code::KindRefused);
    }
}

/// Any agent of the account appends to its raw channel, and no other.
pub async fn a_raw_channel_takes_its_account_alone(store: Store) {
    let channel = ChannelId::generate();
    accept(&store, &create_raw(channel, ALICE)).await;
    accept(&store, &raw(channel, ALICE, ACCOUNT)).await;
    accept(&store, &raw(channel, BOB, ACCOUNT)).await;
    let refused = refuse(&store, &raw(channel, ALICE, OTHER_ACCOUNT)).await;
    assert_eq!(refused, Refused::NotMember);
    assert_eq!(head(&store, channel.log()).await, at(3));
}

/// Nobody offers KeyPackages in another's name.
pub async fn only_its_agent_offers_key_packages_on_a_log(store: Store) {
    for last_resort in [false, true] {
        let account = None;
        let detail = skytale_proto::Detail::KeyPackage { last_resort, account };
        let forged = frame(BOB.log(), ALICE, 0, detail, "forged");
        assert_eq!(refuse(&store, &forged).await, Refused::NotMember);
    }
    assert_eq!(head(&store, BOB.log()).await, at(0));
}

/// Neither past the head nor behind an earlier trim.
pub async fn a_trim_stays_within_the_log(store: Store) {
    let channel = new_channel(&store).await;
    let log = channel.log();
    for _ in 0..4 {
        accept(&store, &message(channel, ALICE, 1)).await;
    }
    let range = |first, head| Refused::TrimRange {
        first: at(first),
        head: at(head),
    };
    assert_eq!(refuse(&store, &trim(log, 6)).await, range(1, 5));
    accept(&store, &trim(log, 3)).await;
    assert_eq!(refuse(&store, &trim(log, 3)).await, range(4, 6));
    assert_eq!(refuse(&store, &trim(log, 1)).await, range(4, 6));
    assert_eq!(refuse(&store, &trim(log, 7)).await, range(4, 6));
    accept(&store, &trim(log, 6)).await;
    assert_eq!(refuse(&store, &trim(LogId::Agent(DAVE), 1)).await, range(1, 0));
}

/// A refusal leaves no hole: the next entry has the next offset.
pub async fn a_refused_frame_takes_no_offset(store: Store) {
    let channel = new_channel(&store).await;
    let mut pending = Vec::new();
    for _ in 0..50 {
        pending.push(queue(&store, &message(channel, BOB, 1)).await);
        pending.push(queue(&store, &message(channel, ALICE, 1)).await);
    }
    let mut offsets = Vec::new();
    for append in pending {
        offsets.extend(append.verdict().await.map(|accepted| accepted.offset));
    }
    assert!(offsets.into_iter().eq((2..=51).map(at)));
    let frames = frames(&store, channel.log()).await;
    assert!(frames.iter().all(|frame| frame.header().author == ALICE));
}
