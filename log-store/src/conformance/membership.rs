//! Stretches of a log that agents may read.

use super::Store;
use super::script::*;
use crate::{Access, Refused};
use skytale_proto::ChannelId;

const ON: Access = Access::Readable { until: None };
const NEVER: Access = Access::NotMember { next: None };

fn until(offset: u64) -> Access {
    Access::Readable {
        until: Some(at(offset)),
    }
}

fn from(offset: u64) -> Access {
    Access::NotMember { next: Some(at(offset)) }
}

/// The creator reads from 1, a member from the bundle that added it, and until the commit that removed it.
pub async fn members_read_from_their_adding_to_their_removal(store: Store) {
    let channel = new_channel(&store).await;
    let log = channel.log();
    accept(&store, &message(channel, ALICE, 1)).await;
    assert_eq!(access(&store, log, BOB, 0).await, NEVER);
    accept(&store, &commit(channel, ALICE, 1, &[BOB], &[])).await;
    accept(&store, &message(channel, BOB, 3)).await;
    for after in [0, 1] {
        assert_eq!(access(&store, log, BOB, after).await, from(3));
    }
    for after in [2, 3, 4, 1000] {
        assert_eq!(access(&store, log, BOB, after).await, ON);
    }
    accept(&store, &commit(channel, ALICE, 3, &[], &[BOB])).await;
    accept(&store, &message(channel, ALICE, 5)).await;
    assert_eq!(access(&store, log, BOB, 1).await, from(3));
    for after in [2, 3, 4] {
        assert_eq!(access(&store, log, BOB, after).await, until(5));
    }
    for after in [5, 6, 1000] {
        assert_eq!(access(&store, log, BOB, after).await, NEVER);
    }
    for after in [0, 5, 6] {
        assert_eq!(access(&store, log, ALICE, after).await, ON);
    }
}

/// Entries between a removal and the next adding stay unread.
pub async fn an_agent_added_again_reads_both_stretches(store: Store) {
    let channel = new_channel(&store).await;
    let log = channel.log();
    accept(&store, &commit(channel, ALICE, 1, &[BOB], &[])).await;
    accept(&store, &commit(channel, ALICE, 2, &[], &[BOB])).await;
    accept(&store, &message(channel, ALICE, 3)).await;
    accept(&store, &commit(channel, ALICE, 3, &[BOB], &[])).await;
    assert_eq!(access(&store, log, BOB, 0).await, from(2));
    assert_eq!(access(&store, log, BOB, 1).await, until(3));
    assert_eq!(access(&store, log, BOB, 2).await, until(3));
    assert_eq!(access(&store, log, BOB, 3).await, from(5));
    assert_eq!(access(&store, log, BOB, 4).await, ON);
}

/// A commit that removes and adds one agent keeps the stretches that it may read, and welcomes it.
pub async fn an_agent_removed_and_added_at_once_reads_on(store: Store) {
    let channel = new_channel(&store).await;
    let log = channel.log();
    claimed(&store, BOB, ALICE).await;
    accept(&store, &commit(channel, ALICE, 1, &[BOB], &[])).await;
    accept(&store, &commit(channel, ALICE, 2, &[BOB], &[BOB])).await;
    assert_eq!(access(&store, log, BOB, 1).await, ON);
    assert_eq!(access(&store, log, BOB, 2).await, ON);
    assert_eq!(frames(&store, BOB.log()).await.len(), 4);
    accept(&store, &message(channel, BOB, 3)).await;
}

/// Every agent of the account reads all of it.
pub async fn a_raw_channel_is_read_by_its_account(store: Store) {
    let channel = ChannelId::generate();
    accept(&store, &create_raw(channel, ALICE)).await;
    for agent in [ALICE, BOB] {
        assert_eq!(access(&store, channel.log(), agent, 0).await, ON);
        let other = store.access(channel.log(), agent, OTHER_ACCOUNT, at(0)).await;
        assert_eq!(other, Ok(NEVER));
    }
}

/// Nobody reads another agent's log; its own it reads before there is anything in it.
pub async fn an_agents_log_is_its_own(store: Store) {
    for _ in 0..2 {
        assert_eq!(access(&store, BOB.log(), BOB, 0).await, ON);
        assert_eq!(access(&store, BOB.log(), ALICE, 0).await, NEVER);
        accept(&store, &key_package(BOB, false)).await;
    }
}

/// A missing channel is not reported as one whose roster lacks the agent.
pub async fn a_channel_that_does_not_exist_is_unknown(store: Store) {
    let channel = ChannelId::generate();
    assert_eq!(access(&store, channel.log(), ALICE, 0).await, Access::UnknownLog);
}

/// Removal takes effect with the commit: frames in flight behind it are refused.
pub async fn a_removed_agent_appends_nothing_more(store: Store) {
    let channel = new_channel(&store).await;
    accept(&store, &commit(channel, ALICE, 1, &[BOB], &[])).await;
    let removal = queue(&store, &commit(channel, ALICE, 2, &[], &[BOB])).await;
    let late = queue(&store, &message(channel, BOB, 2)).await;
    removal.verdict().await.expect("accepted");
    assert_eq!(late.verdict().await, Err(Refused::NotMember.into()));
    let forward = message(channel, BOB, 3);
    assert_eq!(refuse(&store, &forward).await, Refused::NotMember);
}

/// A member that left before the first kept entry has nothing to read; members are still members.
pub async fn a_trim_forgets_stretches_that_have_ended(store: Store) {
    let channel = new_channel(&store).await;
    let log = channel.log();
    accept(&store, &commit(channel, ALICE, 1, &[BOB, CAROL, DAVE], &[])).await;
    accept(&store, &commit(channel, ALICE, 2, &[], &[BOB])).await;
    accept(&store, &commit(channel, ALICE, 3, &[], &[CAROL])).await;
    accept(&store, &trim(log, 3)).await;
    assert_eq!(access(&store, log, BOB, 1).await, NEVER);
    assert_eq!(access(&store, log, CAROL, 3).await, until(4));
    assert_eq!(access(&store, log, DAVE, 3).await, ON);
    assert_eq!(access(&store, log, ALICE, 3).await, ON);
    accept(&store, &message(channel, DAVE, 4)).await;
    assert_eq!(refuse(&store, &message(channel, BOB, 4)).await, Refused::NotMember);
}
