//! Retention and purging of a channel's history.
//!
//! A history is cut at one offset: messages before it are deleted, later ones stay. An unacknowledged message of
//! another agent is never deleted, and neither is anything after it. Cursor, digests, group and outbox are not
//! affected.
//!
//! Deleted data is overwritten in the database (`secure_delete`). [`Engine::compact`] then empties the write-ahead log,
//! which held the pages before, and returns free pages to the file system.

use super::channel::{self, Position, one};
use super::transact::now_ms;
use super::{Engine, EngineError};
use crate::vault::{Durability, integer, message_id, message_offset, unsigned};
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};
use skytale_proto::{ChannelId, Offset};
use std::collections::HashMap;
use std::time::Duration;

/// Messages of a history to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Keep {
    /// All of them.
    #[default]
    All,
    /// This many of the newest ones. As a setting ([`EngineConfig::history`](super::EngineConfig::history)) it is
    /// enforced from time to time: meanwhile there may be 64 more.
    Newest(u64),
    /// Messages that the log has accepted within this time, by the relay node's clock.
    Younger(Duration),
    /// Messages at this offset and after it.
    From(Offset),
}

/// Result of deleting messages from a history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
#[non_exhaustive]
pub struct Purged {
    /// Number of deleted messages.
    pub messages: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Number of messages that stay only because they are unacknowledged. Counted at the end, when `more` is false.
    pub unacked: u64,
    /// Whether there are more messages to delete: call again.
    pub more: bool,
}

/// Progress of enforcing the setting.
#[derive(Debug, Default)]
pub(super) struct Retained {
    /// For each channel: the sum of its cursor and its acknowledged offset at the last check.
    seen: HashMap<ChannelId, u64>,
    /// The channel being cut, and the offset of the cut.
    cutting: Option<(ChannelId, Offset)>,
    /// Whether messages were deleted since the vault was last compacted.
    freed: bool,
}

impl Retained {
    /// Whether enough has happened in a channel since the last check: messages are deleted many at a time.
    fn is_due(&self, channel: ChannelId, position: &Position, keep: Keep) -> bool {
        let slack = match keep {
            Keep::Newest(_) => 64,
            Keep::All | Keep::Younger(_) | Keep::From(_) => 0,
        };
        let seen = self.seen.get(&channel);
        seen.is_none_or(|seen| progress(position).saturating_sub(*seen) >= slack)
    }
}

impl Retained {
    /// Handles that a channel is no longer in the vault.
    pub(super) fn forgotten(&mut self, channel: ChannelId) {
        self.seen.remove(&channel);
        self.cutting = self.cutting.filter(|(cutting, _)| *cutting != channel);
        self.freed = true;
    }
}

fn progress(position: &Position) -> u64 {
    position.cursor.get().saturating_add(position.acked.get())
}

impl Engine {
    /// Returns the first offset of a channel's history to keep. Messages before it are to be deleted.
    pub fn first_kept(&self, channel: ChannelId, keep: Keep) -> Result<Offset, EngineError> {
        let (position, no) = one(self.vault.sql(), channel)?;
        let all = message_id(no + 1, Offset::ZERO)?;
        let found = self.cut(&position, no, keep, all)?;
        Ok(found.unwrap_or(position.cursor.next()))
    }

    /// Returns the first unacknowledged message, which no purge goes beyond. Reads own messages before it alone.
    fn first_unacked(&self, position: &Position, no: i64) -> Result<Option<i64>, EngineError> {
        if position.received <= position.received_acked {
            return Ok(None);
        }
        let ends = [message_id(no, position.acked)?, message_id(no + 1, Offset::ZERO)?];
        Ok(self
            .vault
            .sql()
            .prepare_cached("SELECT id FROM message WHERE id > ?1 AND id < ?2 AND received_no > 0 ORDER BY id LIMIT 1")?
            .query_row(ends, |row| row.get(0))
            .optional()?)
    }

    /// Returns the first offset to keep among the messages before `end`, if it is one of them.
    fn cut(&self, position: &Position, no: i64, keep: Keep, end: i64) -> Result<Option<Offset>, EngineError> {
        let sql = self.vault.sql();
        let first = message_id(no, Offset::ZERO)?;
        let found: Option<i64> = match keep {
            Keep::All => return Ok(Some(Offset::ZERO)),
            Keep::From(offset) => return Ok(Some(offset)),
            Keep::Newest(0) => None,
            Keep::Newest(count) if count >= position.kept => return Ok(Some(Offset::ZERO)),
            // From the oldest one on: what is read is what is to be deleted.
            Keep::Newest(count) => sql
                .prepare_cached("SELECT id FROM message WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT 1 OFFSET ?3")?
                .query_row([first, end, integer(position.kept - count)?], |row| row.get(0))
                .optional()?,
            Keep::Younger(age) => {
                let since = now_ms().saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
                sql.prepare_cached(
                    "SELECT id FROM message WHERE id > ?1 AND id < ?2 AND time_ms >= ?3 ORDER BY id LIMIT 1",
                )?
                .query_row(params![first, end, integer(since).unwrap_or(i64::MAX)], |row| {
                    row.get(0)
                })
                .optional()?
            }
        };
        Ok(found.map(message_offset))
    }

    /// Deletes messages before an offset from a channel's history, oldest first, at most `limit` of them.
    pub fn purge(&mut self, channel: ChannelId, before: Offset, limit: u32) -> Result<Purged, EngineError> {
        match self.purge_piece(channel, before, limit) {
            Err(EngineError::Vault(error)) if error.is_full() => {
                // A deletion needs its own length in the write-ahead log: one message is sure to fit.
                self.vault.make_room();
                let purged = self.purge_piece(channel, before, 1)?;
                self.vault.make_room();
                Ok(purged)
            }
            purged => purged,
        }
    }

    fn purge_piece(&mut self, channel: ChannelId, before: Offset, limit: u32) -> Result<Purged, EngineError> {
        let (position, no) = one(self.vault.sql(), channel)?;
        let until_offset = before;
        let before = message_id(no, before.min(position.cursor.next()))?;
        let (purged, _) = self.transact(Durability::Later, |tx| {
            let first = message_id(no, Offset::ZERO)?;
            // The end of this piece, before which alone an unacknowledged message is looked for.
            let end: i64 = tx
                .sql
                .prepare_cached("SELECT id FROM message WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT 1 OFFSET ?3")?
                .query_row(params![first, before, limit], |row| row.get(0))
                .optional()?
                .unwrap_or(before);
            let unacked: Option<i64> = match position.received > position.received_acked {
                true => tx
                    .sql
                    .prepare_cached(
                        "SELECT id FROM message WHERE id > ?1 AND id < ?2 AND received_no > 0 ORDER BY id LIMIT 1",
                    )?
                    .query_row([message_id(no, position.acked)?, end], |row| row.get(0))
                    .optional()?,
                false => None,
            };
            let until = unacked.unwrap_or(end);
            let (messages, bytes, last) = tx
                .sql
                .prepare_cached(
                    "SELECT count(*), coalesce(sum(length(payload)), 0), coalesce(max(id), 0)
                     FROM (SELECT id, payload FROM message WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT ?3)",
                )?
                .query_row(params![first, until, limit], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?))
                })?;
            // If the log goes back, they may appear again.
            let recent = position.cursor.get().saturating_sub(super::window::OFFSETS_MAX as u64);
            tx.sql
                .prepare_cached("DELETE FROM purged WHERE channel = ?1 AND at < ?2")?
                .execute(params![no, integer(recent)?])?;
            tx.sql
                .prepare_cached(
                    "INSERT OR REPLACE INTO purged (channel, at, frame_id)
                     SELECT ?1, id - ?2, frame_id FROM message WHERE id > ?3 AND id <= ?4",
                )?
                .execute(params![
                    no,
                    first,
                    first.max(message_id(no, Offset::new(recent))?),
                    last
                ])?;
            tx.sql
                .prepare_cached("DELETE FROM message WHERE id > ?1 AND id <= ?2")?
                .execute([first, last])?;
            if messages > 0 {
                tx.sql
                    .prepare_cached("UPDATE channel SET kept = max(kept - ?2, 0) WHERE no = ?1")?
                    .execute([no, messages])?;
            }
            // Unreadable entries are deleted, too. For recent ones, the fact that they were unreadable stays: an own
            // frame's place is judged by it.
            let gone = match messages >= i64::from(limit) {
                true => message_offset(last).next(),
                false => until_offset.min(position.cursor.next()),
            };
            tx.sql
                .prepare_cached("DELETE FROM unreadable WHERE channel = ?1 AND at < ?2")?
                .execute(params![no, integer(gone.get().min(recent))?])?;
            tx.sql
                .prepare_cached(
                    "UPDATE unreadable SET frame_id = NULL, reason = ''
                     WHERE channel = ?1 AND at < ?2 AND (frame_id IS NOT NULL OR reason <> '')",
                )?
                .execute(params![no, integer(gone.get())?])?;
            // For entries that the log no longer has: their content is deleted, but the fact that they were shown
            // stays.
            tx.sql
                .prepare_cached(
                    "UPDATE replaced SET payload = x''
                     WHERE channel = ?1 AND own = 0 AND acked = 1 AND at < ?2 AND payload <> x''",
                )?
                .execute(params![no, integer(until_offset.get()).unwrap_or(i64::MAX)])?;
            let purged = Purged {
                messages: unsigned(messages)?,
                bytes: unsigned(bytes)?,
                unacked: 0,
                more: messages > 0 && messages >= i64::from(limit),
            };
            let Some(unacked) = unacked.filter(|_| !purged.more) else {
                return Ok(purged);
            };
            let unacked = tx
                .sql
                .prepare_cached("SELECT count(*) FROM message WHERE id >= ?1 AND id < ?2 AND received_no > 0")?
                .query_row([unacked, before], |row| row.get(0))?;
            Ok(Purged {
                unacked: unsigned(unacked)?,
                ..purged
            })
        })?;
        if let Some(loaded) = self.loaded.get_mut(&channel) {
            loaded.purged(purged.messages);
        }
        Ok(purged)
    }

    /// Removes deleted data from the vault's files, and shrinks them, one step at a time. Returns whether there is more
    /// to do.
    pub fn compact(&mut self) -> Result<bool, EngineError> {
        Ok(self.vault.compact()?)
    }

    /// Enforces [`EngineConfig::history`](super::EngineConfig::history): deletes at most `limit` messages. Returns
    /// whether there is more to do.
    pub fn retain(&mut self, limit: u32) -> Result<bool, EngineError> {
        let keep = self.config.history;
        if keep == Keep::All {
            return Ok(false);
        }
        for (position, no, id) in channel::all(self.vault.sql())? {
            let before = match self.retained.cutting {
                Some((channel, before)) if channel == id => before,
                _ if self.retained.is_due(id, &position, keep) => {
                    // Messages that wait for their acknowledgement may be very many: they are not read.
                    let unacked = self.first_unacked(&position, no)?;
                    let end = unacked.map_or_else(|| message_id(no + 1, Offset::ZERO), Ok)?;
                    let cut = self.cut(&position, no, keep, end)?;
                    cut.unwrap_or(unacked.map_or(position.cursor.next(), message_offset))
                }
                _ => continue,
            };
            let purged = self.purge(id, before, limit)?;
            self.retained.freed |= purged.messages > 0;
            self.retained.cutting = purged.more.then_some((id, before));
            if purged.more {
                return Ok(true);
            }
            self.retained.seen.insert(id, progress(&position));
        }
        if self.retained.freed {
            let more = self.vault.settle_freed()?;
            self.retained.freed = more;
            return Ok(more);
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests;
