//! Rollbacks: a log that no longer has entries that this agent was shown.

use super::channel::{Channel, one};
use super::evidence::AGENT_LOG_NO;
use super::outbox::OutboxRow;
use super::transact::Tx;
use super::{Code, Engine, EngineError, Event};
use crate::vault::{Durability, integer, unsigned};
use rusqlite::{Connection, OptionalExtension, params};
use skytale_proto::{ChannelId, Digest, Offset};

/// Evidence that a log went back: the relay node's copy was replaced by an older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Rollback {
    /// The last entry that the log is known to have kept. Later entries were replaced, or are missing.
    pub kept: Offset,
    /// The last entry that this agent had seen.
    pub cursor: Offset,
}

impl Engine {
    /// Returns the evidence that a channel's log (`None`: the agent's own log) went back. It is cleared once another
    /// member's digest confirms the channel's log that this agent knows, or the agent's own log has grown past its
    /// cursor.
    pub fn rollback(&self, channel: Option<ChannelId>) -> Result<Option<Rollback>, EngineError> {
        let no = match channel {
            Some(channel) => one(self.vault.sql(), channel)?.1,
            None => AGENT_LOG_NO,
        };
        read(self.vault.sql(), no)
    }

    /// Records that the relay repeatedly reports the head of the agent's own log, `head`, to be before its cursor.
    pub fn agent_log_is_short(&mut self, head: Offset) -> Result<Vec<Event>, EngineError> {
        let cursor = self.agent_cursor;
        let known = self.rollback(None)?.is_some_and(|rollback| rollback.kept <= head);
        if head >= cursor || known {
            return Ok(Vec::new());
        }
        let ((), events) = self.transact(Durability::Now, |tx| {
            tx.keep_rollback(AGENT_LOG_NO, Rollback { kept: head, cursor })?;
            tx.events.push(Event::RolledBack {
                channel: None,
                kept: head,
                cursor,
            });
            Ok(())
        })?;
        Ok(events)
    }

    /// Records that the agent's own log was read to its head: judging by its length, it has everything that this agent
    /// has seen.
    pub fn agent_log_reached(&mut self) -> Result<(), EngineError> {
        if self.rollback(None)?.is_some() {
            self.transact(Durability::Later, |tx| tx.forget_rollback(AGENT_LOG_NO))?;
        }
        Ok(())
    }

    /// Records that the relay repeatedly reports the head of a channel's log, `head`, to be before this agent's cursor.
    pub fn log_is_short(&mut self, channel: ChannelId, head: Offset) -> Result<Vec<Event>, EngineError> {
        let ((), events) = self.transact_on(channel, Durability::Now, |tx, channel| {
            match head < channel.position.cursor {
                true => tx.rolled_back(channel, head),
                false => Ok(()),
            }
        })?;
        Ok(events)
    }
}

impl Tx<'_> {
    pub(super) fn rolled_back(&mut self, channel: &mut Channel, kept: Offset) -> Result<(), EngineError> {
        let cursor = channel.position.cursor;
        let now = match channel.rollback {
            Some(before) => Rollback {
                kept: before.kept.min(kept),
                cursor: before.cursor.max(cursor),
            },
            None => Rollback { kept, cursor },
        };
        if channel.rollback == Some(now) {
            return Ok(());
        }
        self.keep_rollback(channel.no, now)?;
        channel.rollback = Some(now);
        self.events.push(Event::RolledBack {
            channel: Some(channel.id),
            kept: now.kept,
            cursor: now.cursor,
        });
        Ok(())
    }

    /// Whether the log accepted a frame whose parent is not the head that this agent was shown: it has another entry at
    /// that head, or at the parent's offset.
    pub(super) fn is_other_head(&mut self, channel: &mut Channel, parent: Offset) -> Result<bool, EngineError> {
        let position = &channel.position;
        if position.recovery.unsure || parent > position.cursor {
            return Ok(false);
        }
        let differs_at = parent.max(position.head);
        self.rolled_back(channel, differs_at.previous())?;
        Ok(true)
    }

    /// Handles a member's digest that equals this agent's: up to there both were shown the same log.
    pub(super) fn agreed(&mut self, channel: &mut Channel, offset: Offset, theirs: &Digest) -> Result<(), EngineError> {
        let Some(rollback) = channel.rollback else {
            return Ok(());
        };
        if offset < rollback.cursor || !channel.window.has(offset, theirs) {
            return Ok(());
        }
        self.forget_rollback(channel.no)?;
        channel.rollback = None;
        channel.offered.again();
        Ok(())
    }

    fn keep_rollback(&self, no: i64, rollback: Rollback) -> Result<(), EngineError> {
        self.sql
            .prepare_cached("INSERT OR REPLACE INTO rollback (channel, kept, cursor) VALUES (?1, ?2, ?3)")?
            .execute(params![
                no,
                integer(rollback.kept.get())?,
                integer(rollback.cursor.get())?
            ])?;
        Ok(())
    }

    pub(super) fn forget_rollback(&self, no: i64) -> Result<(), EngineError> {
        self.sql
            .prepare_cached("DELETE FROM rollback WHERE channel = ?1")?
            .execute([no])?;
        Ok(())
    }

    /// Handles an answer that a frame is an entry at an offset where this agent has processed another entry.
    pub(super) fn appended_behind(
        &mut self,
        channel: &mut Channel,
        row: &OutboxRow,
        offset: Offset,
        is_new: bool,
    ) -> Result<(), EngineError> {
        if self.is_lost(channel, offset)? {
            return self.refused(channel, row, Code::DeliveryUnknown);
        }
        let known = channel.rollback.is_some_and(|rollback| offset > rollback.kept);
        let follows = row.intent.is_message() && channel.can_encrypt();
        let is_proof = is_new && follows && !self.is_unreadable(channel, offset)?;
        if !known && !is_proof {
            // The entry was not this frame as this agent made it.
            return self.refused(channel, row, Code::EntryUnreadable);
        }
        self.rolled_back(channel, offset.previous())?;
        // It is in the relay's log; it waits until it is known which log is valid.
        channel.offered.accepted.insert(row.frame_id, offset);
        Ok(())
    }

    fn is_lost(&self, channel: &Channel, offset: Offset) -> Result<bool, EngineError> {
        Ok(self
            .sql
            .prepare_cached("SELECT 1 FROM lost WHERE channel = ?1 AND first <= ?2 AND last >= ?2")?
            .exists(params![channel.no, integer(offset.get())?])?)
    }

    fn is_unreadable(&self, channel: &Channel, offset: Offset) -> Result<bool, EngineError> {
        Ok(self
            .sql
            .prepare_cached("SELECT 1 FROM unreadable WHERE channel = ?1 AND at = ?2")?
            .exists(params![channel.no, integer(offset.get())?])?)
    }
}

pub(super) fn read(sql: &Connection, channel_no: i64) -> Result<Option<Rollback>, EngineError> {
    let row: Option<(i64, i64)> = sql
        .prepare_cached("SELECT kept, cursor FROM rollback WHERE channel = ?1")?
        .query_row([channel_no], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    row.map(|(kept, cursor)| {
        Ok(Rollback {
            kept: Offset::new(unsigned(kept)?),
            cursor: Offset::new(unsigned(cursor)?),
        })
    })
    .transpose()
}
