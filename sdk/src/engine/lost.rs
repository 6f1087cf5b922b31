//! Entries that this agent will never read, as ranges of offsets; and the handling of trimmed logs.

use super::agent_log::set_agent_cursor;
use super::channel::{Channel, one};
use super::evidence::AGENT_LOG_NO;
use super::outbox::{Intent, OutboxRow};
use super::standing::Standing;
use super::transact::Tx;
use super::{ChannelState, Engine, EngineError, Event, RollbackWord};
use crate::vault::{Durability, VaultError, integer, unsigned};
use rusqlite::params;
use serde::{Deserialize, Serialize};
use skytale_proto::{ChannelId, Code, Offset};

/// Reason why entries were not read. Persisted as a number: keep stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(i64)]
#[non_exhaustive]
pub enum LostReason {
    /// The log had trimmed them before this agent read them.
    Trimmed = 1,
    /// This agent was out of sync with the group.
    OutOfSync = 2,
    /// Another copy of this vault sent them: no agent can decrypt its own messages.
    OtherCopy = 3,
}

impl LostReason {
    fn from_number(number: i64) -> Result<Self, VaultError> {
        [Self::Trimmed, Self::OutOfSync, Self::OtherCopy]
            .into_iter()
            .find(|reason| *reason as i64 == number)
            .ok_or_else(|| VaultError::damaged("reason of a loss"))
    }

    /// Returns a short description for people.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Trimmed => "the log no longer kept them",
            Self::OutOfSync => "this agent was out of sync with the group",
            Self::OtherCopy => "another copy of this vault sent them",
        }
    }
}

/// Entries that this agent will never read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lost {
    /// The first one.
    pub first: Offset,
    /// The last one.
    pub last: Offset,
    /// The reason.
    pub reason: LostReason,
}

impl Lost {
    /// Creates a range of lost entries, both ends included.
    pub const fn new(first: Offset, last: Offset, reason: LostReason) -> Self {
        Self { first, last, reason }
    }
}

/// A relay node's status of a log that it has trimmed beyond a cursor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogStatus {
    /// The last entry.
    pub head: Offset,
    /// The first available offset.
    pub first: Offset,
    /// The last entry given up that was not itself a Trim.
    pub given_up: Offset,
    /// For a channel: its handshake head.
    pub handshake_head: Offset,
    /// For the agent's own log: Welcomes among the entries given up, with the offsets of their bundles.
    pub welcomes: Vec<(ChannelId, Offset)>,
    /// Statement of the relay node's operator about the log, if it may have gone back.
    pub rollback: Option<RollbackWord>,
}

impl Engine {
    /// Lists the lost entries of a channel (`None`: of the agent's own log), by offset.
    pub fn lost(&self, channel: Option<ChannelId>) -> Result<Vec<Lost>, EngineError> {
        let no = match channel {
            Some(channel) => one(self.vault.sql(), channel)?.1,
            None => AGENT_LOG_NO,
        };
        self.vault
            .sql()
            .prepare_cached("SELECT first, last, reason FROM lost WHERE channel = ?1 ORDER BY first")?
            .query_map([no], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .map(|row| {
                let (first, last, reason) = row?;
                Ok(Lost {
                    first: Offset::new(unsigned(first)?),
                    last: Offset::new(unsigned(last)?),
                    reason: LostReason::from_number(reason)?,
                })
            })
            .collect()
    }

    /// Moves a channel past entries after its cursor that the relay no longer has. A loss of more than Trims is
    /// recorded and reported; if a commit is lost, the agent asks to rejoin.
    pub fn trimmed(&mut self, channel: ChannelId, status: &LogStatus) -> Result<Vec<Event>, EngineError> {
        let ((), events) = self.transact_on(channel, Durability::Now, |tx, channel| tx.trimmed(channel, status))?;
        Ok(events)
    }

    /// Moves a channel to `next`: the relay shows this agent nothing before it, since, as far as the roster is still
    /// known, the agent was not on it there.
    pub fn absent_until(&mut self, channel: ChannelId, next: Offset) -> Result<Vec<Event>, EngineError> {
        let ((), events) = self.transact_on(channel, Durability::Now, |tx, channel| {
            let cursor = channel.position.cursor;
            if next <= cursor.next() {
                return Ok(());
            }
            tx.lose(channel, cursor.next(), next.previous(), LostReason::Trimmed)?;
            tx.go_on_behind(channel, next.previous(), false)?;
            let reason = "this agent was removed, and added again, while it was away".to_owned();
            tx.out_of_sync(channel, next, reason)
        })?;
        Ok(events)
    }

    /// Moves the agent's own log past entries after its cursor that the relay no longer has. Welcomes among them are
    /// taken from the status; KeyPackages among them are counted and replaced as usual.
    pub fn agent_log_trimmed(&mut self, status: &LogStatus) -> Result<Vec<Event>, EngineError> {
        let cursor = self.agent_cursor;
        let behind = status.first.previous();
        if behind <= cursor {
            return Ok(Vec::new());
        }
        let ((), events) = self.transact(Durability::Now, |tx| {
            for (channel, bundle) in &status.welcomes {
                // They have no entry any more: numbers below zero keep them apart, oldest first.
                let last = "SELECT coalesce(max(no), ?1) FROM pending_join WHERE no < 0";
                let base = -i64::from(u32::MAX);
                let last: i64 = tx.sql.prepare_cached(last)?.query_row([base], |row| row.get(0))?;
                tx.note_welcome(last + 1, *channel, *bundle)?;
            }
            if status.given_up > cursor {
                let (first, last) = (cursor.next(), status.given_up.min(behind));
                tx.keep_lost(AGENT_LOG_NO, first, last, LostReason::Trimmed)?;
                tx.events.push(Event::EntriesLost {
                    channel: None,
                    first,
                    last,
                    reason: LostReason::Trimmed,
                });
            }
            set_agent_cursor(tx, behind)
        })?;
        self.agent_cursor = behind;
        Ok(events)
    }
}

impl Tx<'_> {
    fn trimmed(&mut self, channel: &mut Channel, status: &LogStatus) -> Result<(), EngineError> {
        let cursor = channel.position.cursor;
        let behind = status.first.previous();
        if channel.position.state == ChannelState::Left || behind <= cursor {
            return Ok(());
        }
        let nothing_lost = status.given_up <= cursor;
        if !nothing_lost {
            self.lose(channel, cursor.next(), status.given_up.min(behind), LostReason::Trimmed)?;
            self.doubt(channel)?;
        }
        self.go_on_behind(channel, behind, nothing_lost)?;
        if channel.position.state == ChannelState::Creating {
            // Its Create is among them: it was accepted.
            channel.position.state = match self.waits(channel, Intent::Leave)? {
                true => ChannelState::Leaving,
                false => ChannelState::Active,
            };
            self.unqueue_all(channel, Intent::Create)?;
            self.head_moved(channel, Offset::FIRST)?;
        }
        let head = channel.position.head;
        if status.handshake_head > head && status.handshake_head <= behind {
            self.head_moved(channel, status.handshake_head)?;
            if channel.position.recovery.standing == Standing::OutOfSync {
                // The answer to its request may be gone with the rest.
                channel.position.recovery.asked = Offset::ZERO;
                self.ask_to_rejoin(channel)?;
            }
            self.out_of_sync(
                channel,
                behind.next(),
                "a change to the group is among the entries that are gone".into(),
            )?;
        } else if !nothing_lost {
            // Entries of another copy of this vault may be among them, with the ratchet keys that it used.
            self.renew(
                channel,
                behind.next(),
                "entries that are gone may be of another copy of this vault",
            )?;
        }
        Ok(())
    }

    fn go_on_behind(&mut self, channel: &mut Channel, cursor: Offset, trims_alone: bool) -> Result<(), EngineError> {
        channel.window.skip(cursor, trims_alone);
        channel.position.cursor = cursor;
        channel.position.recovery.unsure |= !trims_alone;
        channel.offered.accepted.clear();
        channel.offered.again();
        Ok(())
    }

    /// Stops offering frames that were offered and have no outcome: they may be among the lost entries, and members may
    /// have read them.
    fn doubt(&mut self, channel: &mut Channel) -> Result<(), EngineError> {
        let offered = channel.offered.doubtful_no;
        let doubtful = |row: &OutboxRow| row.encrypted_no > 0 && row.encrypted_no <= offered && row.intent.is_told();
        let rows = self.rows_from(channel, None, usize::MAX)?;
        for row in rows.into_iter().filter(doubtful) {
            if row.intent.is_message() {
                self.fail(channel, &row, Code::DeliveryUnknown)?;
            }
        }
        Ok(())
    }

    /// Records and reports entries that this agent will never read. Adjacent entries with the same reason form one
    /// range.
    pub(super) fn lose(
        &mut self,
        channel: &Channel,
        first: Offset,
        last: Offset,
        reason: LostReason,
    ) -> Result<(), EngineError> {
        if first > last {
            return Ok(());
        }
        self.keep_lost(channel.no, first, last, reason)?;
        self.events.push(Event::EntriesLost {
            channel: Some(channel.id),
            first,
            last,
            reason,
        });
        Ok(())
    }

    fn keep_lost(&self, no: i64, first: Offset, last: Offset, reason: LostReason) -> Result<(), EngineError> {
        let joined = self
            .sql
            .prepare_cached("UPDATE lost SET last = ?3 WHERE channel = ?1 AND last = ?2 AND reason = ?4")?
            .execute(params![
                no,
                integer(first.previous().get())?,
                integer(last.get())?,
                reason as i64
            ])?;
        if joined == 0 {
            self.sql
                .prepare_cached("INSERT OR REPLACE INTO lost (channel, first, last, reason) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![no, integer(first.get())?, integer(last.get())?, reason as i64])?;
        }
        Ok(())
    }

    /// Handles a parent that is not the head. Returns whether a commit is among lost entries: then the head moves to
    /// it.
    pub(super) fn head_was_lost(&mut self, channel: &mut Channel, parent: Offset) -> Result<bool, EngineError> {
        let position = &channel.position;
        if !position.recovery.unsure || parent <= position.head || parent > position.cursor {
            return Ok(false);
        }
        let since = position.cursor.next();
        self.head_moved(channel, parent)?;
        if channel.position.recovery.standing != Standing::OutOfSync {
            self.out_of_sync(
                channel,
                since,
                "a change to the group is among the entries that are gone".into(),
            )?;
        }
        Ok(true)
    }
}
