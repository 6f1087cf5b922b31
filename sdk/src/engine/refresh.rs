//! Replacing the leaf that this agent joined with, so that commits stay short.
//!
//! ```text
//!   joined ── is it single, in a group of 32 or more? ──> wait: a random part of a second for each member
//!      ^                                                    │
//!      └── another commit came first: wait again <── commit ┘
//! ```
//!
//! In a group whose members joined and never committed, each commit encrypts to each of them (see
//! [`mls::is_single`]). One commit of two neighbours in the tree is enough for both, so a group of 1,000 needs 500. They
//! are spread over time: about one a second, whatever the size. A refresh never contends: if another commit comes first,
//! it waits again, and the application's own commits replace the leaf just as well.

use super::channel::Channel;
use super::outbox::{Intent, OutboxRow, Place};
use super::standing::Standing;
use super::transact::Tx;
use super::{ChannelState, Engine, EngineError};
use crate::mls;
use crate::vault::Durability;
use skytale_proto::{ChannelId, FrameId};

/// Groups with fewer members are left alone: their commits are short anyway.
const MEMBERS_MIN: usize = 32;

impl Channel {
    /// Returns the group's number of members if this member's leaf should be replaced.
    fn refresh_due(&mut self) -> Option<u32> {
        let group = self.group.as_ref().filter(|group| group.is_active())?;
        if self.position.state != ChannelState::Active
            || self.position.recovery.standing != Standing::Current
            || !mls::has_first_leaf(group)
        {
            return None;
        }
        let members = group.members().count();
        if members < MEMBERS_MIN {
            return None;
        }
        let head = self.position.head;
        let single = match self.offered.single {
            Some((at, single)) if at == head => single,
            _ => mls::is_single(group),
        };
        self.offered.single = Some((head, single));
        single.then(|| u32::try_from(members).unwrap_or(u32::MAX))
    }
}

impl Engine {
    /// Returns the group's number of members if this agent should replace the leaf that it joined with: the larger it
    /// is, the longer the agent should wait before [`Engine::refresh`], for a random time. Known for a channel in use
    /// only: the group is not loaded for this.
    pub fn refresh_due(&mut self, channel: ChannelId) -> Option<u32> {
        self.loaded.get_mut(&channel)?.refresh_due()
    }

    /// Queues the replacement of the leaf that this agent joined with, if it is still due.
    pub fn refresh(&mut self, channel: ChannelId) -> Result<(), EngineError> {
        self.transact_on(channel, Durability::Later, |tx, channel| {
            if channel.refresh_due().is_some() && channel.waiting.changes == 0 {
                tx.queue(channel, Intent::Refresh, FrameId::generate(), &[], Place::Back)?;
            }
            Ok(())
        })?;
        Ok(())
    }
}

impl Tx<'_> {
    /// Whether a queued refresh is no longer worth a commit: another commit came first, or has done its work.
    pub(super) fn is_refresh_moot(&self, channel: &mut Channel, row: &OutboxRow) -> Result<bool, EngineError> {
        Ok(row.attempts > 0 || channel.refresh_due().is_none())
    }
}
