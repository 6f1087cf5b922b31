//! A channel's standing with its group, and the ways back.
//!
//! ```text
//!               own entries that this vault does not know
//!   Current ------------------------------------------------> Renewing
//!    |  ^  ^                                                      |
//!    |  |  +---- its own external commit is in the log -----------+
//!    |  |
//!    |  +------- a member removed and added it in one commit ---- OutOfSync <---- joined by no Welcome that works
//!    |                                                               ^
//!    +-- a commit that this member alone cannot apply, entries gone--+
//!    |
//!    +-- another live copy of the vault took its place ---------> Superseded
//! ```
//!
//! - **Renewing**: another copy of this vault has encrypted in this epoch (or may have: the vault was restored), so this one
//!   must not: its ratchet keys may have been used. It reads on, and takes a new leaf before it sends.
//! - **OutOfSync**: it has no keys of the group's epoch. It follows the log by the frames' headers, holds its messages,
//!   and asks to be removed and added again. It will never read the messages it receives meanwhile.
//! - **Superseded**: another copy took new keys while this one was current: two copies are live. This one stops.

use super::channel::Channel;
use super::lost::LostReason;
use super::outbox::{Intent, Place};
use super::transact::Tx;
use super::{ChannelState, Engine, EngineError, Event};
use crate::mls;
use crate::vault::{Durability, VaultError};
use openmls_traits::OpenMlsProvider as _;
use rusqlite::params;
use serde::{Deserialize, Serialize};
use skytale_proto::{AgentId, ChannelId, Code, FrameId, Offset};

/// A channel's standing with its group. Persisted as a number: keep stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[repr(i64)]
#[non_exhaustive]
pub enum Standing {
    /// This agent follows the group.
    #[default]
    Current = 0,
    /// This vault is an older copy. It reads, and takes new keys before it sends.
    Renewing = 1,
    /// This agent cannot read messages, and has asked to be added again.
    OutOfSync = 2,
    /// Another copy of this vault has superseded this one, which sends and reads nothing.
    Superseded = 3,
}

impl Standing {
    /// Returns a short, stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Renewing => "renewing",
            Self::OutOfSync => "out-of-sync",
            Self::Superseded => "superseded",
        }
    }

    pub(super) fn from_number(number: i64) -> Result<Self, VaultError> {
        [Self::Current, Self::Renewing, Self::OutOfSync, Self::Superseded]
            .into_iter()
            .find(|standing| *standing as i64 == number)
            .ok_or_else(|| VaultError::damaged("standing of a channel"))
    }

    /// Whether this agent has no keys of the group's epoch.
    pub(super) const fn is_apart(self) -> bool {
        matches!(self, Self::OutOfSync | Self::Superseded)
    }
}

/// Progress of a channel's recovery.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Recovery {
    pub(super) standing: Standing,
    /// The first entry that it concerns.
    pub(super) since: Offset,
    /// The reason, in words.
    pub(super) reason: String,
    /// Number of messages skipped since.
    pub(super) missed: u64,
    /// Offset of this agent's last request to rejoin; [`Offset::ZERO`] if none is pending.
    pub(super) asked: Offset,
    /// Whether entries of this epoch were lost: others may have applied commits that this group cannot apply now.
    pub(super) unsure: bool,
    /// Whether a commit of this epoch was not applied. All members judge alike, so none has applied it, unless one
    /// sends in a later epoch.
    pub(super) doubted: bool,
}

impl Engine {
    /// Marks a channel as replayed to its head in this session: queued frames may be offered. Nothing is offered
    /// earlier, so that this agent sees entries of another copy of its vault before it encrypts anything.
    ///
    /// Starts any recovery that is known to be needed by then. Returns the events.
    pub fn reached_head(&mut self, channel: ChannelId) -> Result<Vec<Event>, EngineError> {
        let mut told = self.renew_restored()?;
        self.reached.insert(channel);
        // The group is loaded only where that is needed: an agent may be in very many channels.
        let (position, no) = self.row(channel)?;
        let sql = self.vault.sql();
        let needs = position.recovery.standing != Standing::Current
            || super::settle::last(sql, no)?.is_some_and(|settled| settled.word_head > position.cursor)
            || super::replaced::has_replaced(sql, no)?;
        if !needs {
            return Ok(told);
        }
        let ((), events) = self.transact_on(channel, Durability::Now, |tx, channel| {
            tx.bound_word(channel)?;
            tx.send_again(channel)?;
            tx.set_in_motion(channel)
        })?;
        told.extend(events);
        Ok(told)
    }

    /// Renews the keys of a restored vault in every channel before it sends: another copy may have used the present
    /// ones.
    pub(super) fn renew_restored(&mut self) -> Result<Vec<Event>, EngineError> {
        let Some(restored) = self.restored else {
            return Ok(Vec::new());
        };
        let mut events = Vec::new();
        for info in self.channels()? {
            if info.state == ChannelState::Left {
                continue;
            }
            let renewed = self.transact_on(info.id, Durability::Now, |tx, channel| {
                if channel.position.recovery.standing == Standing::Superseded {
                    return tx.take_over(channel);
                }
                let cursor = channel.position.cursor;
                tx.renew(channel, cursor, "this vault was restored from a copy")
            });
            match renewed {
                Ok(((), told)) => events.extend(told),
                // Channels are independent: this one sends nothing.
                Err(error) if error.code() == Code::VaultDamaged => {
                    tracing::warn!(channel = %info.id, %error, "a channel of a restored vault cannot be used");
                }
                Err(error) => return Err(error),
            }
        }
        self.transact(Durability::Now, |tx| Ok(restored.clear(tx.sql)?))?;
        self.restored = None;
        Ok(events)
    }

    /// Takes over from the copy that has superseded this vault: this one asks to rejoin each of its channels.
    pub fn take_over(&mut self) -> Result<Vec<Event>, EngineError> {
        let mut events = Vec::new();
        for info in self.channels()? {
            if info.standing != Standing::Superseded {
                continue;
            }
            let ((), told) = self.transact_on(info.id, Durability::Now, |tx, channel| tx.take_over(channel))?;
            events.extend(told);
        }
        Ok(events)
    }
}

impl Tx<'_> {
    fn take_over(&mut self, channel: &mut Channel) -> Result<(), EngineError> {
        let Recovery { since, missed, .. } = channel.position.recovery;
        channel.position.recovery.standing = Standing::Renewing;
        self.out_of_sync(channel, since, "another copy of this vault was in use".to_owned())?;
        // Messages skipped while this copy was stopped are reported with the rest.
        channel.position.recovery.missed = missed;
        Ok(())
    }

    /// Queues the frames that a recovery needs and that are not queued yet.
    fn set_in_motion(&mut self, channel: &mut Channel) -> Result<(), EngineError> {
        if channel.position.state == ChannelState::Left {
            return Ok(());
        }
        match channel.position.recovery.standing {
            Standing::Renewing if !self.waits(channel, Intent::Renew)? => self.queue_first(channel, Intent::Renew),
            Standing::OutOfSync if channel.position.recovery.asked == Offset::ZERO => self.ask_to_rejoin(channel),
            _ => Ok(()),
        }
    }

    pub(super) fn queue_first(&mut self, channel: &mut Channel, intent: Intent) -> Result<(), EngineError> {
        let row = self.queue(channel, intent, FrameId::generate(), &[], Place::Front)?;
        channel.offered.again();
        channel.offered.next_seq = Some(row.seq);
        Ok(())
    }

    /// Handles that another copy of this vault has, or may have, encrypted in this epoch. Queued messages are encrypted
    /// again, under new keys.
    pub(super) fn renew(&mut self, channel: &mut Channel, offset: Offset, reason: &str) -> Result<(), EngineError> {
        // If another copy may have used the group's ratchet keys, the group is not continued, wherever its last commit
        // is in the log.
        channel.position.applied_hash = None;
        if channel.position.recovery.standing != Standing::Current {
            return Ok(());
        }
        channel.position.recovery = Recovery {
            standing: Standing::Renewing,
            since: offset,
            reason: reason.to_owned(),
            unsure: channel.position.recovery.unsure,
            ..Recovery::default()
        };
        self.unbuild(channel)?;
        if let Some(group) = channel.group.as_mut() {
            group.clear_pending_commit(self.provider.storage())?;
        }
        self.events.push(Event::Renewing {
            channel: channel.id,
            offset,
            reason: reason.to_owned(),
        });
        // A channel that is not in the log yet has nothing to renew before its Create.
        match channel.position.state {
            ChannelState::Creating => Ok(()),
            _ => self.set_in_motion(channel),
        }
    }

    /// Discards all frames encrypted so far: none is offered again.
    pub(super) fn unbuild(&self, channel: &mut Channel) -> Result<(), EngineError> {
        self.sql
            .prepare_cached("UPDATE outbox SET frame = NULL WHERE channel = ?1 AND kind != ?2 AND frame IS NOT NULL")?
            .execute(params![channel.no, Intent::Create as i64])?;
        channel.waiting.unbuilt = channel.waiting.rows;
        channel.offered.again();
        Ok(())
    }

    /// Handles that the agent's own external commit is in the log.
    pub(super) fn renewed(&mut self, channel: &mut Channel, offset: Offset) -> Result<(), EngineError> {
        self.take_set_aside(channel)?;
        channel.position.recovery = Recovery::default();
        self.events.push(Event::Renewed {
            channel: channel.id,
            offset,
        });
        Ok(())
    }

    /// Replaces the channel's group by the one that was set aside.
    fn take_set_aside(&mut self, channel: &mut Channel) -> Result<(), EngineError> {
        if let Some(mut before) = channel.group.take() {
            before.delete(self.provider.storage())?;
        }
        self.provider.end_set_aside(channel.id.as_bytes(), true)?;
        channel.group = super::channel::take_group(self.provider, channel.id, &channel.position)?;
        Ok(())
    }

    /// Marks this member as having no keys of the epoch that starts (or started) at `offset`. It follows by headers
    /// from there on.
    pub(super) fn out_of_sync(
        &mut self,
        channel: &mut Channel,
        offset: Offset,
        reason: String,
    ) -> Result<(), EngineError> {
        if channel.position.recovery.standing.is_apart() {
            return Ok(());
        }
        let before = &channel.position.recovery;
        if before.standing == Standing::Renewing {
            channel.position.applied_hash = None;
        }
        channel.position.recovery = Recovery {
            standing: Standing::OutOfSync,
            since: offset,
            reason: reason.clone(),
            // If another copy may have used the member's ratchet keys, it does not continue with them, whatever it can
            // read.
            unsure: before.unsure || before.standing == Standing::Renewing,
            ..Recovery::default()
        };
        // It judges nothing from here on; others correct what they find.
        channel.position.drift = super::drift::Drift::default();
        self.hold(channel)?;
        self.events.push(Event::OutOfSync {
            channel: channel.id,
            since: offset,
            reason,
        });
        match channel.position.state {
            ChannelState::Creating | ChannelState::Left => Ok(()),
            ChannelState::Active | ChannelState::Leaving => self.ask_to_rejoin(channel),
        }
    }

    /// Handles that another live copy of this vault took new keys.
    pub(super) fn superseded(&mut self, channel: &mut Channel, offset: Offset) -> Result<(), EngineError> {
        channel.position.recovery = Recovery {
            standing: Standing::Superseded,
            since: offset,
            reason: "another copy of this vault has taken its place".into(),
            ..Recovery::default()
        };
        self.hold(channel)?;
        // Queued messages are listed as failed: the application may send them again, from the copy that is kept.
        self.fail_all(channel, Code::Superseded)?;
        self.events.push(Event::Superseded {
            channel: channel.id,
            offset,
        });
        Ok(())
    }

    /// Keeps the queued frames without offering them.
    fn hold(&mut self, channel: &mut Channel) -> Result<(), EngineError> {
        self.unbuild(channel)?;
        self.unqueue_all(channel, Intent::Renew)?;
        self.unqueue_all(channel, Intent::Housekeeping)?;
        self.unqueue_all(channel, Intent::Refresh)?;
        self.provider.end_set_aside(channel.id.as_bytes(), false)?;
        if let Some(group) = channel.group.as_mut() {
            group.clear_pending_commit(self.provider.storage())?;
        }
        Ok(())
    }

    /// Handles a member's Welcome that brings this one back into the group.
    pub(super) fn rejoined(
        &mut self,
        channel: &mut Channel,
        welcomed: mls::Welcomed,
        scratch: &mls::Provider<'_>,
        offset: Offset,
        by: AgentId,
    ) -> Result<(), EngineError> {
        if let Some(mut before) = channel.group.take() {
            before.delete(self.provider.storage())?;
        }
        self.provider.absorb(scratch);
        let recovery = std::mem::take(&mut channel.position.recovery);
        channel.position.epoch = welcomed.group.epoch().as_u64();
        channel.position.reboot = welcomed.reboot;
        channel.group = Some(welcomed.group);
        channel.position.applied = offset;
        channel.position.drift = super::drift::Drift::default();
        self.unqueue_all(channel, Intent::Rejoin)?;
        // Another member's reboot came first.
        self.go_without_reboot(channel)?;
        self.unbuild(channel)?;
        self.forget_requests(channel, &welcomed.members)?;
        if recovery.missed > 0 {
            self.lose(channel, recovery.since, offset.previous(), LostReason::OutOfSync)?;
        }
        self.events.push(Event::Rejoined {
            channel: channel.id,
            offset,
            by,
            missed: recovery.missed,
        });
        self.redo(channel)
    }

    /// Takes all intents of a kind out of the outbox.
    pub(super) fn unqueue_all(&mut self, channel: &mut Channel, intent: Intent) -> Result<(), EngineError> {
        while let Some(row) = self.first_of(channel, intent)? {
            self.unqueue(channel, &row)?;
        }
        Ok(())
    }

    /// Handles a permanent refusal of a frame that a recovery needs: it is retried in the next session.
    pub(super) fn way_back_refused(
        &mut self,
        channel: &mut Channel,
        row: &super::outbox::OutboxRow,
        code: Code,
    ) -> Result<(), EngineError> {
        tracing::warn!(channel = %channel.id, %code, kind = ?row.intent, "a way back was refused");
        self.unqueue(channel, row)?;
        channel.offered.again();
        if code != Code::NotMember {
            return Ok(());
        }
        let cursor = channel.position.cursor;
        // It was removed by a commit that it could not read or that is gone. Its keys are useless now.
        if channel.position.recovery.standing == Standing::OutOfSync {
            self.note_missed(channel, cursor.next())?;
            return self.left(channel, cursor, self.identity.agent_id());
        }
        if channel.position.recovery.unsure {
            let reason = "the relay says that this agent is not in the channel: its removal may be among the entries \
                          that are gone";
            return self.out_of_sync(channel, cursor.next(), reason.to_owned());
        }
        Ok(())
    }
}
