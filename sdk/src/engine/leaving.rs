//! Leaving a group without remaining members.
//!
//! A member cannot remove itself: neither in MLS (RFC 9420 section 12.2) nor in a header. Others commit its request. If
//! nobody stays, nobody can commit it and there is nobody to keep secrets from, so each member leaves by itself:
//! - the only member, at once;
//! - all members, at the entry in which the last of them asked, if all have asked in one epoch. Each finds that entry in
//!   the log, however much later.
//!
//! The relay's roster keeps their names. They may read a log that gets no more entries, and have no keys to it.

use super::channel::Channel;
use super::outbox::Intent;
use super::transact::Tx;
use super::{ChannelId, ChannelState, Engine, EngineError, Event, Offset};
use crate::mls;
use crate::vault::Durability;

impl Engine {
    /// Ends this agent's membership if it has asked to leave, is the only member, and has nobody to add before. Its
    /// queued messages fail ([`Code::ChannelLeft`](super::Code::ChannelLeft)); other queued items are dropped.
    pub fn leave_alone(&mut self, channel: ChannelId) -> Result<Vec<Event>, EngineError> {
        let (_, events) = self.transact_on(channel, Durability::Now, |tx, channel| tx.leave_alone(channel))?;
        Ok(events)
    }
}

impl Tx<'_> {
    /// Ends this agent's membership if it was the only member and has asked to leave. Returns whether it did.
    pub(super) fn leave_alone(&mut self, channel: &mut Channel) -> Result<bool, EngineError> {
        let is_alone = |channel: &Channel| channel.group.as_ref().is_some_and(|group| group.members().count() == 1);
        if channel.waiting.changes == 0
            || channel.position.recovery.standing.is_apart()
            || !is_alone(channel)
            || !self.waits(channel, Intent::Leave)?
            || self.waits(channel, Intent::Add)?
        {
            return Ok(false);
        }
        self.leave_for_itself(channel)?;
        Ok(true)
    }

    /// Ends this agent's membership as far as this agent is concerned.
    pub(super) fn leave_for_itself(&mut self, channel: &mut Channel) -> Result<(), EngineError> {
        let rows = self.rows_from(channel, None, usize::MAX)?;
        for row in rows.iter().filter(|row| !row.intent.is_message()) {
            self.unneeded(channel, row)?;
        }
        self.left(channel, channel.position.cursor, self.identity.agent_id())
    }

    /// Handles a request to leave, at an offset. If all members have asked, the group has ended.
    pub(super) fn end_if_all_leave(&mut self, channel: &mut Channel, offset: Offset) -> Result<(), EngineError> {
        let Some(group) = channel.group.as_ref() else {
            return Ok(());
        };
        let own = group.own_leaf_index();
        let has_asked = channel.position.state == ChannelState::Leaving
            && group
                .pending_proposals()
                .any(|proposal| mls::leaver(proposal) == Some(own));
        let others = mls::members(group).len().saturating_sub(1);
        // A proposal of this agent that is still in the outbox is not in the log.
        if !has_asked || mls::leavers(group).len() < others || self.waits(channel, Intent::Leave)? {
            return Ok(());
        }
        self.left(channel, offset, self.identity.agent_id())
    }
}
