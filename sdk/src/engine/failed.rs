//! What was sent and will not be delivered: kept until the application dismisses it, or sends it again.

use super::channel::one;
use super::outbox::{Intent, Place};
use super::properties::Properties;
use super::{ChannelId, Code, Engine, EngineError, FrameId, QueuedKind};
use crate::vault::{Durability, VaultError, id, unsigned};
use bytes::Bytes;
use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

/// Something that was sent and will not be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FailedSend {
    /// The channel.
    pub channel: ChannelId,
    /// As [`Channel::send`](crate::Channel::send) and the others gave it.
    pub frame_id: FrameId,
    /// What it was.
    pub kind: QueuedKind,
    /// Why.
    pub code: Code,
    /// When it failed, unix milliseconds by this machine's clock; `None` where an older version did not keep it.
    pub failed_ms: Option<u64>,
    /// The message; `None` where it was a change to the group.
    #[serde(with = "crate::share::octets::option")]
    pub payload: Option<Bytes>,
    /// What the message says besides.
    pub properties: Properties,
}

const COLUMNS: &str = "frame_id, code, kind, intent, failed_ms, properties";

impl Engine {
    /// What was sent on a channel and will not be delivered, in the order in which it was sent.
    pub fn failed(&self, channel: ChannelId) -> Result<Vec<FailedSend>, EngineError> {
        let (_, no) = one(self.vault.sql(), channel)?;
        self.vault
            .sql()
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM failed WHERE channel = ?1 ORDER BY frame_id"
            ))?
            .query_map([no], |row| Ok(read(row, channel)))?
            .collect::<Result<Result<_, _>, _>>()?
    }

    /// Forgets something that failed. Whether there was such a thing.
    pub fn dismiss(&mut self, channel: ChannelId, frame_id: FrameId) -> Result<bool, EngineError> {
        let (_, no) = one(self.vault.sql(), channel)?;
        let (dismissed, _) = self.transact(Durability::Now, |tx| {
            let dismissed = tx
                .sql
                .prepare_cached("DELETE FROM failed WHERE channel = ?1 AND frame_id = ?2")?
                .execute(params![no, frame_id.as_bytes()])?;
            if dismissed > 0 {
                tx.sent_again(no, frame_id, None)?;
            }
            Ok(dismissed)
        })?;
        Ok(dismissed > 0)
    }

    /// Queues a message again that failed, behind what waits, and forgets the failure. It goes out under an id of its own:
    /// the log may know the one before. `None` where no such thing failed. A change to the group is not made again by this,
    /// since it was about members as they were then.
    pub fn retry(&mut self, channel: ChannelId, frame_id: FrameId) -> Result<Option<FrameId>, EngineError> {
        let (_, no) = one(self.vault.sql(), channel)?;
        let failed = self
            .vault
            .sql()
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM failed WHERE channel = ?1 AND frame_id = ?2"
            ))?
            .query_row(params![no, frame_id.as_bytes()], |row| Ok(read(row, channel)))
            .optional()?
            .transpose()?;
        let Some(failed) = failed else { return Ok(None) };
        let payload = failed.payload.ok_or(EngineError::Change {
            problem: "only a message can be sent again; make the change again where it is still wanted",
        })?;
        self.check_room(channel, 1, payload.len() as u64)?;
        let (again, _) = self.transact_on(channel, Durability::Now, |tx, channel| {
            let again = FrameId::generate();
            tx.queue_message(channel, again, (&payload, &failed.properties), Place::Back)?;
            tx.sent_again(no, frame_id, Some(again))?;
            tx.sql
                .prepare_cached("DELETE FROM failed WHERE channel = ?1 AND frame_id = ?2")?
                .execute(params![no, frame_id.as_bytes()])?;
            Ok(again)
        })?;
        Ok(Some(again))
    }
}

fn read(row: &Row<'_>, channel: ChannelId) -> Result<FailedSend, EngineError> {
    let (frame_id, code): (Vec<u8>, u32) = (row.get(0)?, row.get(1)?);
    let intent = Intent::from_number(row.get(2)?)?;
    let content: Vec<u8> = row.get(3)?;
    Ok(FailedSend {
        channel,
        frame_id: id(&frame_id)?,
        kind: intent.into(),
        code: Code::from_number(code).ok_or_else(|| VaultError::damaged("code of a failed send"))?,
        failed_ms: row.get::<_, Option<i64>>(4)?.map(unsigned).transpose()?,
        payload: (intent == Intent::Message).then(|| content.into()),
        properties: Properties::from_column(row.get(5)?),
    })
}
