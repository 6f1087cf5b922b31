//! Messages: the inbox of unacknowledged ones, and the history of all.

use super::channel::{Channel, one};
use super::properties::Properties;
use super::transact::Tx;
use super::{Engine, EngineError, Message};
use crate::vault::{Durability, id, integer, message_id, message_offset, unsigned};
use rusqlite::{OptionalExtension, Row, params};
use skytale_proto::{AgentId, ChannelId, FrameId, Offset, Record};

const COLUMNS: &str = "id, frame_id, author, received_no, sent_ms, time_ms, payload, properties";

/// An acknowledgement: all messages up to an offset. If it names the message there, and that message has moved, only
/// that one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ack {
    pub(super) offset: Offset,
    pub(super) frame_id: Option<FrameId>,
}

impl Engine {
    /// Returns messages of others after `after` (or after the acknowledged offset, whichever is later), oldest first.
    pub fn inbox(&self, channel: ChannelId, after: Offset, limit: u32) -> Result<Vec<Message>, EngineError> {
        let (position, no) = one(self.vault.sql(), channel)?;
        self.messages(no, after.max(position.acked), limit, "received_no > 0 AND")
    }

    /// Returns messages of others after `after`, acknowledged or not, oldest first.
    pub fn received(&self, channel: ChannelId, after: Offset, limit: u32) -> Result<Vec<Message>, EngineError> {
        let (_, no) = one(self.vault.sql(), channel)?;
        self.messages(no, after, limit, "received_no IS NOT NULL AND")
    }

    /// Returns messages of the channel, including this agent's own, after `after`, oldest first.
    pub fn history(&self, channel: ChannelId, after: Offset, limit: u32) -> Result<Vec<Message>, EngineError> {
        let (_, no) = one(self.vault.sql(), channel)?;
        self.messages(no, after, limit, "")
    }

    fn messages(&self, no: i64, after: Offset, limit: u32, only: &str) -> Result<Vec<Message>, EngineError> {
        let (first, last) = (message_id(no, after)?, message_id(no + 1, Offset::ZERO)?);
        self.vault
            .sql()
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM message WHERE {only} id > ?1 AND id < ?2 ORDER BY id LIMIT ?3"
            ))?
            .query_map(params![first, last, limit], |row| Ok(read(row)))?
            .collect::<Result<Result<_, _>, _>>()?
    }

    /// Acknowledges all messages up to and including `offset`. The position never moves back, nor past the cursor.
    pub fn ack(&mut self, channel: ChannelId, offset: Offset) -> Result<(), EngineError> {
        let position = &self.loaded(channel)?.position;
        if offset.min(position.cursor) <= position.acked {
            return Ok(());
        }
        self.acknowledge(channel, Ack { offset, frame_id: None })
    }

    /// Acknowledges a message and all earlier ones, like [`Engine::ack`]. If the log went back since the message was
    /// received, only that one.
    pub fn ack_message(&mut self, channel: ChannelId, offset: Offset, frame_id: FrameId) -> Result<(), EngineError> {
        self.acknowledge(
            channel,
            Ack {
                offset,
                frame_id: Some(frame_id),
            },
        )
    }

    fn acknowledge(&mut self, channel: ChannelId, ack: Ack) -> Result<(), EngineError> {
        match self.ack_once(channel, ack) {
            // Only acknowledged messages can be purged.
            Err(EngineError::Vault(error)) if error.is_full() => {
                self.vault.make_room();
                self.ack_once(channel, ack)
            }
            acked => acked,
        }
    }

    fn ack_once(&mut self, channel: ChannelId, ack: Ack) -> Result<(), EngineError> {
        self.transact_on(channel, Durability::Now, |tx, channel| tx.ack(channel, ack))?;
        Ok(())
    }

    /// Returns the last acknowledged offset.
    pub fn acked(&self, channel: ChannelId) -> Result<Offset, EngineError> {
        Ok(one(self.vault.sql(), channel)?.0.acked)
    }

    /// Returns the number of unacknowledged messages of others.
    pub fn unacked(&self, channel: ChannelId) -> Result<u64, EngineError> {
        let (position, _) = one(self.vault.sql(), channel)?;
        Ok(position.received.saturating_sub(position.received_acked))
    }
}

impl Tx<'_> {
    /// Stores a message of the log, at its place in the history.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn keep_message(
        &self,
        channel: &mut Channel,
        record: &Record,
        frame_id: FrameId,
        author: AgentId,
        sent_ms: u64,
        (payload, properties): (&[u8], &Properties),
        own: bool,
    ) -> Result<(), EngineError> {
        if channel.is_declined {
            return Ok(());
        }
        let received_no = if own {
            None
        } else {
            channel.position.received += 1;
            Some(integer(channel.position.received)?)
        };
        channel.position.kept += 1;
        // The author's clock is not trusted, but is no reason to refuse a message.
        let sent_ms = integer(sent_ms).unwrap_or(i64::MAX);
        self.sql
            .prepare_cached(
                "INSERT INTO message (id, frame_id, author, received_no, sent_ms, time_ms, payload, properties)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                message_id(channel.no, record.offset)?,
                frame_id.as_bytes(),
                author.as_bytes(),
                received_no,
                sent_ms,
                integer(record.time_ms).unwrap_or(i64::MAX),
                payload,
                properties.to_column()
            ])?;
        Ok(())
    }

    /// Acknowledges a message and all earlier ones; if the log went back since it was received, only that one.
    pub(super) fn ack(&self, channel: &mut Channel, ack: Ack) -> Result<(), EngineError> {
        if let Some(frame_id) = ack.frame_id
            && !self.is_at(channel.no, ack.offset, frame_id)?
        {
            self.sql
                .prepare_cached("UPDATE replaced SET acked = 1 WHERE channel = ?1 AND frame_id = ?2")?
                .execute(params![channel.no, frame_id.as_bytes()])?;
            return Ok(());
        }
        let offset = ack.offset.min(channel.position.cursor);
        if offset <= channel.position.acked {
            return Ok(());
        }
        let (first, last) = (
            message_id(channel.no, channel.position.acked)?,
            message_id(channel.no, offset)?,
        );
        let received_no: Option<i64> = self
            .sql
            .prepare_cached(
                "SELECT received_no FROM message WHERE received_no > 0 AND id > ?1 AND id <= ?2
                 ORDER BY id DESC LIMIT 1",
            )?
            .query_row([first, last], |row| row.get(0))
            .optional()?;
        channel.position.acked = offset;
        if let Some(received_no) = received_no {
            channel.position.received_acked = unsigned(received_no)?;
        }
        Ok(())
    }

    fn is_at(&self, channel_no: i64, offset: Offset, frame_id: FrameId) -> Result<bool, EngineError> {
        Ok(self
            .sql
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM message WHERE id = ?1 AND frame_id = ?2)")?
            .query_row(params![message_id(channel_no, offset)?, frame_id.as_bytes()], |row| {
                row.get(0)
            })?)
    }
}

fn read(row: &Row<'_>) -> Result<Message, EngineError> {
    let (frame_id, author): (Vec<u8>, Vec<u8>) = (row.get(1)?, row.get(2)?);
    Ok(Message {
        offset: message_offset(row.get(0)?),
        frame_id: id(&frame_id)?,
        author: id(&author)?,
        own: row.get::<_, Option<i64>>(3)?.is_none(),
        sent_ms: unsigned(row.get(4)?)?,
        time_ms: unsigned(row.get(5)?)?,
        payload: row.get::<_, Vec<u8>>(6)?.into(),
        properties: Properties::from_column(row.get(7)?),
    })
}
