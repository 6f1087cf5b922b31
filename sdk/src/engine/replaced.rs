//! Messages whose entries were lost in a rollback of the log, until they appear again.

use super::channel::{Channel, one};
use super::outbox::{Intent, OutboxRow, Place};
use super::properties::Properties;
use super::standing::Standing;
use super::transact::Tx;
use super::{Engine, EngineError, Event, Message};
use crate::vault::{id, integer, message_id, message_offset, unsigned};
use rusqlite::{Connection, OptionalExtension, params};
use skytale_proto::{ChannelId, FrameId, Header, Offset, Record};

const REPLACED: &str = "frame_id, at, author, own, sent_ms, time_ms, payload, properties";

impl Engine {
    pub(super) fn count_replaced(&self, channel: ChannelId) -> Result<u64, EngineError> {
        let (_, no) = one(self.vault.sql(), channel)?;
        let count: i64 = self
            .vault
            .sql()
            .prepare_cached("SELECT count(*) FROM replaced WHERE channel = ?1 AND own = 0 AND payload != x''")?
            .query_row([no], |row| row.get(0))?;
        Ok(unsigned(count)?)
    }

    /// Returns messages that this agent had received and that the log no longer has, with their former offsets; oldest
    /// first.
    pub fn replaced(&self, channel: ChannelId, limit: u32) -> Result<Vec<Message>, EngineError> {
        let (_, no) = one(self.vault.sql(), channel)?;
        self.vault
            .sql()
            .prepare_cached(&format!(
                "SELECT {REPLACED} FROM replaced WHERE channel = ?1 AND payload != x'' ORDER BY at LIMIT ?2"
            ))?
            .query_map(params![no, limit], |row| Ok(read_replaced(row)))?
            .collect::<Result<Result<_, _>, _>>()?
    }
}

fn read_replaced(row: &rusqlite::Row<'_>) -> Result<Message, EngineError> {
    let (frame_id, author): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(2)?);
    Ok(Message {
        frame_id: id(&frame_id)?,
        offset: Offset::new(unsigned(row.get(1)?)?),
        author: id(&author)?,
        own: row.get(3)?,
        sent_ms: unsigned(row.get(4)?)?,
        time_ms: unsigned(row.get(5)?)?,
        payload: row.get::<_, Vec<u8>>(6)?.into(),
        properties: Properties::from_column(row.get(7)?),
    })
}

pub(super) fn has_replaced(sql: &Connection, channel_no: i64) -> Result<bool, EngineError> {
    Ok(sql
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM replaced WHERE channel = ?1)")?
        .query_row([channel_no], |row| row.get(0))?)
}

impl Tx<'_> {
    /// Sets aside messages whose entries no longer exist.
    pub(super) fn set_aside(&mut self, channel: &mut Channel, kept: Offset) -> Result<(), EngineError> {
        let (first, last) = (message_id(channel.no, kept)?, message_id(channel.no + 1, Offset::ZERO)?);
        let messages: Vec<(i64, Vec<u8>)> = self
            .sql
            .prepare_cached("SELECT id, frame_id FROM message WHERE id > ?1 AND id < ?2")?
            .query_map([first, last], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (message, frame_id) in &messages {
            self.sql
                .prepare_cached(
                    "INSERT OR REPLACE INTO replaced
                         (channel, frame_id, at, author, own, acked, sent_ms, time_ms, payload, properties)
                     SELECT ?1, ?2, ?3, author, received_no IS NULL, ?5, sent_ms, time_ms, payload, properties
                     FROM message WHERE id = ?4",
                )?
                .execute(params![
                    channel.no,
                    frame_id,
                    integer(message_offset(*message).get())?,
                    message,
                    message_offset(*message) <= channel.position.acked
                ])?;
        }
        self.sql
            .prepare_cached("DELETE FROM message WHERE id > ?1 AND id < ?2")?
            .execute([first, last])?;
        let left: Option<i64> = self
            .sql
            .prepare_cached(
                "SELECT received_no FROM message WHERE id > ?1 AND id <= ?2 AND received_no > 0
                 ORDER BY id DESC LIMIT 1",
            )?
            .query_row([message_id(channel.no, Offset::ZERO)?, first], |row| row.get(0))
            .optional()?;
        let position = &mut channel.position;
        position.kept = position.kept.saturating_sub(messages.len() as u64);
        position.received = position.received_acked.max(unsigned(left.unwrap_or(0))?);
        channel.has_replaced = has_replaced(self.sql, channel.no)?;
        Ok(())
    }

    /// Puts back a message whose entry was replaced, at its new offset. An acknowledged one is not shown again.
    /// `payload` is its present content, if it is known: different content means a different message.
    pub(super) fn put_back(
        &mut self,
        channel: &mut Channel,
        record: &Record,
        header: &Header,
        payload: Option<&[u8]>,
    ) -> Result<bool, EngineError> {
        if channel.settled.is_none() {
            return Ok(false);
        }
        let found: Option<(bool, bool)> = self
            .sql
            .prepare_cached(
                "SELECT own, acked FROM replaced
                 WHERE channel = ?1 AND frame_id = ?2 AND author = ?3 AND (?4 IS NULL OR payload = ?4 OR payload = x'')",
            )?
            .query_row(
                params![channel.no, header.id.as_bytes(), header.author.as_bytes(), payload],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        let Some((own, acked)) = found else {
            // It was purged from the history.
            return Ok(self
                .sql
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM purged WHERE channel = ?1 AND frame_id = ?2)")?
                .query_row(params![channel.no, header.id.as_bytes()], |row| row.get(0))?);
        };
        let received_no = match (own, acked) {
            (true, _) => None,
            (false, true) => Some(0),
            (false, false) => {
                channel.position.received += 1;
                self.events.push(Event::Message {
                    channel: channel.id,
                    offset: record.offset,
                    author: header.author,
                });
                Some(integer(channel.position.received)?)
            }
        };
        self.sql
            .prepare_cached(
                "INSERT INTO message (id, frame_id, author, received_no, sent_ms, time_ms, payload, properties)
                 SELECT ?3, frame_id, author, ?4, sent_ms, ?5, payload, properties FROM replaced
                 WHERE channel = ?1 AND frame_id = ?2",
            )?
            .execute(params![
                channel.no,
                header.id.as_bytes(),
                message_id(channel.no, record.offset)?,
                received_no,
                integer(record.time_ms).unwrap_or(i64::MAX)
            ])?;
        channel.position.kept += 1;
        self.forget_replaced(channel, header.id)?;
        Ok(true)
    }

    /// Resends, as a new message, an own message in the log that was encrypted for an epoch that the log does not have:
    /// nobody can read it.
    pub(super) fn send_as_another(&mut self, channel: &mut Channel, header: &Header) -> Result<bool, EngineError> {
        let undone = channel.settled.is_some_and(|settled| header.parent > settled.kept);
        if !undone || !channel.has_replaced {
            return Ok(false);
        }
        let message: Option<(Vec<u8>, Option<Vec<u8>>)> = self
            .sql
            .prepare_cached(
                "SELECT payload, properties FROM replaced WHERE channel = ?1 AND frame_id = ?2 AND own = 1",
            )?
            .query_row(params![channel.no, header.id.as_bytes()], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        let Some((payload, properties)) = message else {
            return Ok(false);
        };
        self.forget_replaced(channel, header.id)?;
        let properties = Properties::from_column(properties);
        self.queue_message(channel, FrameId::generate(), (&payload, &properties), Place::Back)?;
        Ok(true)
    }

    fn forget_replaced(&self, channel: &mut Channel, frame_id: FrameId) -> Result<(), EngineError> {
        self.sql
            .prepare_cached("DELETE FROM replaced WHERE channel = ?1 AND frame_id = ?2")?
            .execute(params![channel.no, frame_id.as_bytes()])?;
        channel.has_replaced = has_replaced(self.sql, channel.no)?;
        Ok(())
    }

    /// Queues own messages that the log no longer has, once it has been read to its head, before later messages.
    pub(super) fn send_again(&mut self, channel: &mut Channel) -> Result<(), EngineError> {
        if !channel.has_replaced || channel.position.recovery.standing == Standing::Superseded {
            return Ok(());
        }
        let own: Vec<Message> = self
            .sql
            .prepare_cached(&format!(
                "SELECT {REPLACED} FROM replaced WHERE channel = ?1 AND own = 1 ORDER BY at DESC"
            ))?
            .query_map([channel.no], |row| Ok(read_replaced(row)))?
            .collect::<Result<Result<_, _>, _>>()??;
        // Frames of a recovery stay before them.
        let mut ways_back: Vec<OutboxRow> = Vec::new();
        for intent in [Intent::Create, Intent::Rejoin, Intent::Renew, Intent::Reboot] {
            ways_back.extend(self.rows_of(channel, intent)?);
        }
        ways_back.sort_by_key(|row| row.seq);
        for message in &own {
            if self.row_of(channel, message.frame_id)?.is_none() {
                let content = (message.payload.as_ref(), &message.properties);
                let row = self.queue_message(channel, message.frame_id, content, Place::Front)?;
                self.sql
                    .prepare_cached("UPDATE outbox SET sent_ms = ?3 WHERE channel = ?1 AND seq = ?2")?
                    .execute(params![channel.no, row.seq, integer(message.sent_ms)?])?;
            }
            self.forget_replaced(channel, message.frame_id)?;
        }
        if !own.is_empty() {
            for row in ways_back.into_iter().rev() {
                self.move_to_front(channel, &row)?;
            }
            channel.offered.again();
        }
        Ok(())
    }

    fn move_to_front(&self, channel: &Channel, row: &OutboxRow) -> Result<(), EngineError> {
        self.sql
            .prepare_cached(
                "UPDATE outbox SET seq = (SELECT min(seq) FROM outbox WHERE channel = ?1) - 1
                 WHERE channel = ?1 AND seq = ?2",
            )?
            .execute([channel.no, row.seq])?;
        Ok(())
    }
}
