//! Failed sends: kept until the application dismisses them or sends them again.

use super::channel::one;
use super::outbox::{Intent, Place};
use super::properties::Properties;
use super::{ChannelId, Code, Engine, EngineError, FrameId, QueuedKind};
use crate::vault::{Durability, VaultError, id, unsigned};
use bytes::Bytes;
use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

/// A message or change that will not be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FailedSend {
    /// The channel.
    pub channel: ChannelId,
    /// Its frame id, as returned by [`Channel::send`](crate::Channel::send) and the other sending calls.
    pub frame_id: FrameId,
    /// Its kind.
    pub kind: QueuedKind,
    /// The reason.
    pub code: Code,
    /// Time of the failure, unix milliseconds by this machine's clock; `None` if an older version did not store it.
    pub failed_ms: Option<u64>,
    /// The message's payload; `None` for a change to the group.
    #[serde(with = "crate::share::octets::option")]
    pub payload: Option<Bytes>,
    /// The message's properties.
    pub properties: Properties,
}

const COLUMNS: &str = "frame_id, code, kind, intent, failed_ms, properties";

impl Engine {
    /// Lists the failed sends of a channel, in sending order.
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

    /// Removes a failed send from the list. Returns whether it was there.
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
        if let Some(loaded) = self.loaded.get_mut(&channel) {
            loaded.failed = loaded.failed.saturating_sub(dismissed as u64);
        }
        Ok(dismissed > 0)
    }

    /// Queues a failed message again, behind the queued ones, and removes the failure. It gets a new frame id, since
    /// the log may know the old one. Returns `None` if there is no such failure. Changes to the group cannot be
    /// retried, since they referred to the members at that time.
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
            let gone = tx
                .sql
                .prepare_cached("DELETE FROM failed WHERE channel = ?1 AND frame_id = ?2")?
                .execute(params![no, frame_id.as_bytes()])?;
            channel.failed = channel.failed.saturating_sub(gone as u64);
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
