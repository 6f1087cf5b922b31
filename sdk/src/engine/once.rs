//! Messages with an id of the application (an idempotency key): sending the same id again refers to the same message.

use super::channel::one;
use super::outbox::Intent;
use super::transact::{Tx, now_ms};
use super::{Engine, EngineError, Outgoing};
use crate::vault::{id, message_id};
use bytes::Bytes;
use rusqlite::{OptionalExtension, params};
use skytale_proto::{ChannelId, FrameId, Offset};
use std::time::Duration;

/// The longest id that an application may give to a message, in bytes.
pub const SEND_ID_BYTES_MAX: usize = 256;
/// Time for which an id is remembered.
const REMEMBERED: Duration = Duration::from_secs(90 * 86_400);

impl Engine {
    /// Like [`Engine::send`], under an id of the application. If this agent has sent a message under that id in the
    /// channel within 90 days, nothing is sent, and that message's frame id is returned. Fails if that message, as far
    /// as the vault still has it, had a different payload.
    pub fn send_once(&mut self, channel: ChannelId, send_id: &str, payload: &[u8]) -> Result<FrameId, EngineError> {
        self.send_message(channel, &Outgoing::new(Bytes::copy_from_slice(payload)).once(send_id))
    }

    /// Returns the frame id of a message that was already sent under an id.
    pub(super) fn sent_before(
        &self,
        channel: ChannelId,
        send_id: Option<&str>,
        payload: &[u8],
    ) -> Result<Option<FrameId>, EngineError> {
        let Some(send_id) = send_id else {
            return Ok(None);
        };
        if send_id.is_empty() || send_id.len() > SEND_ID_BYTES_MAX {
            return Err(EngineError::Change {
                problem: "a message's id has between 1 and 256 bytes",
            });
        }
        let Some(frame_id) = self.sent_once(channel, send_id)? else {
            return Ok(None);
        };
        let before = self.payload_of(channel, frame_id)?;
        match before.is_some_and(|before| before != payload) {
            true => Err(EngineError::SendIdReused { channel }),
            false => Ok(Some(frame_id)),
        }
    }

    fn sent_once(&self, channel: ChannelId, send_id: &str) -> Result<Option<FrameId>, EngineError> {
        let (_, no) = one(self.vault.sql(), channel)?;
        let found: Option<Vec<u8>> = self
            .vault
            .sql()
            .prepare_cached("SELECT frame_id FROM once WHERE channel = ?1 AND id = ?2")?
            .query_row(params![no, send_id], |row| row.get(0))
            .optional()?;
        Ok(found.map(|bytes| id(&bytes)).transpose()?)
    }

    /// Returns the payload of one of this agent's messages, if the vault has it.
    fn payload_of(&self, channel: ChannelId, frame_id: FrameId) -> Result<Option<Bytes>, EngineError> {
        let sql = self.vault.sql();
        let (_, no) = one(sql, channel)?;
        for table in ["outbox", "failed"] {
            let found: Option<Vec<u8>> = sql
                .prepare_cached(&format!(
                    "SELECT intent FROM {table} WHERE channel = ?1 AND frame_id = ?2 AND kind = ?3"
                ))?
                .query_row(params![no, frame_id.as_bytes(), Intent::Message as i64], |row| {
                    row.get(0)
                })
                .optional()?;
            if let Some(found) = found {
                return Ok(Some(found.into()));
            }
        }
        let (first, end) = (message_id(no, Offset::ZERO)?, message_id(no + 1, Offset::ZERO)?);
        let found: Option<Vec<u8>> = sql
            .prepare_cached(
                "SELECT payload FROM message WHERE received_no IS NULL AND frame_id = ?1 AND +id > ?2 AND +id < ?3",
            )?
            .query_row(params![frame_id.as_bytes(), first, end], |row| row.get(0))
            .optional()?;
        Ok(found.map(Bytes::from))
    }
}

impl Tx<'_> {
    /// Remembers the id under which a message was sent, and forgets old ids: frame ids begin with the time.
    pub(super) fn remember(&self, channel_no: i64, send_id: &str, frame_id: FrameId) -> Result<(), EngineError> {
        let since_ms = now_ms().saturating_sub(u64::try_from(REMEMBERED.as_millis()).unwrap_or(u64::MAX));
        let oldest = &(since_ms << 16).to_be_bytes()[..6];
        self.sql
            .prepare_cached("DELETE FROM once WHERE channel = ?1 AND frame_id < ?2")?
            .execute(params![channel_no, oldest])?;
        self.sql
            .prepare_cached("INSERT INTO once (channel, id, frame_id) VALUES (?1, ?2, ?3)")?
            .execute(params![channel_no, send_id, frame_id.as_bytes()])?;
        Ok(())
    }

    /// Handles that a failed message is dismissed (`None`), or sent again under another frame id.
    pub(super) fn sent_again(
        &self,
        channel_no: i64,
        before: FrameId,
        again: Option<FrameId>,
    ) -> Result<(), EngineError> {
        match again {
            Some(again) => self
                .sql
                .prepare_cached("UPDATE once SET frame_id = ?3 WHERE channel = ?1 AND frame_id = ?2")?
                .execute(params![channel_no, before.as_bytes(), again.as_bytes()])?,
            None => self
                .sql
                .prepare_cached("DELETE FROM once WHERE channel = ?1 AND frame_id = ?2")?
                .execute(params![channel_no, before.as_bytes()])?,
        };
        Ok(())
    }
}
