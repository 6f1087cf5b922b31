//! Items in the outbox, and the outcome of sends.

use super::channel::one;
use super::outbox::Intent;
use super::properties::Properties;
use super::transact::{Tx, now_ms};
use super::{Engine, EngineError};
use crate::vault::{VaultError, id, integer, message_id, message_offset, unsigned};
use bytes::Bytes;
use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use skytale_proto::{ChannelId, Code, FrameId, Offset};

/// Size of an outbox item in a page, besides its payload.
const ROW_BYTES: u64 = 256;

/// An item in a channel's outbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Queued {
    /// The channel.
    pub channel: ChannelId,
    /// Its frame id, as returned by [`Channel::send`](crate::Channel::send) and the other sending calls.
    pub frame_id: FrameId,
    /// Its kind.
    pub kind: QueuedKind,
    /// Time at which it was queued, unix milliseconds by this machine's clock.
    pub since_ms: u64,
    /// Its size in the outbox, in bytes: for a message, the payload's.
    pub bytes: u64,
    /// Number of refusals by relay nodes, including those because another commit came first.
    pub attempts: u32,
    /// The last refusal.
    pub last_refusal: Option<Refusal>,
    /// The message's payload; `None` for a change to the group.
    #[serde(with = "crate::share::octets::option")]
    pub payload: Option<Bytes>,
    /// The message's properties: the message that it answers, its content type.
    pub properties: Properties,
}

/// Kind of an item in an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum QueuedKind {
    /// The channel's first entry. The engine's own.
    Create,
    /// A message.
    Message,
    /// An addition of agents.
    Add,
    /// A removal of agents.
    Remove,
    /// A replacement of this agent's keys: requested, or the engine's own, soon after this agent has joined.
    UpdateKeys,
    /// This agent's request to leave.
    Leave,
    /// A commit that removes members that asked to leave. The engine's own.
    LetGo,
    /// The channel digest, sent to new members. The engine's own.
    Digest,
    /// A request to be added again. The engine's own.
    Rejoin,
    /// New keys, since this vault is an older copy. The engine's own.
    Renew,
    /// A recreation of the group.
    Reboot,
    /// A change of the channel's policy.
    Policy,
    /// An addition that waits until its agent has KeyPackages on offer; items behind it wait, too. See
    /// [`Engine::ensure_members`].
    AddWaiting,
}

/// A refusal by a relay node after which the send is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Refusal {
    /// The reason.
    pub code: Code,
    /// Time of the refusal, unix milliseconds by this machine's clock.
    pub at_ms: u64,
}

/// State or outcome of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It waits in the outbox.
    Waiting,
    /// A message in the log, and in the history.
    Delivered(Offset),
    /// It will not be delivered. See [`Engine::failed`].
    Failed(Code),
}

impl From<Intent> for QueuedKind {
    fn from(intent: Intent) -> Self {
        match intent {
            Intent::Create => Self::Create,
            Intent::Message => Self::Message,
            Intent::Add => Self::Add,
            Intent::Remove => Self::Remove,
            Intent::Update | Intent::Refresh => Self::UpdateKeys,
            Intent::Leave => Self::Leave,
            Intent::Housekeeping => Self::LetGo,
            Intent::Announce => Self::Digest,
            Intent::Rejoin => Self::Rejoin,
            Intent::Renew => Self::Renew,
            Intent::Reboot => Self::Reboot,
            Intent::Policy => Self::Policy,
            Intent::Await => Self::AddWaiting,
        }
    }
}

impl Engine {
    /// Lists a channel's outbox, in sending order. The list is bounded by
    /// [`EngineConfig::outbox_messages_max`](super::EngineConfig::outbox_messages_max) messages and
    /// [`EngineConfig::outbox_bytes_max`](super::EngineConfig::outbox_bytes_max) bytes of payload.
    pub fn outbox(&self, channel: ChannelId) -> Result<Vec<Queued>, EngineError> {
        Ok(self.outbox_page(channel, i64::MIN, u64::MAX)?.0)
    }

    /// Returns a page of [`Engine::outbox`] from a place on: about `bytes_max` bytes, and at least one item. Also
    /// returns the place of the next page.
    pub(crate) fn outbox_page(
        &self,
        channel: ChannelId,
        from: i64,
        bytes_max: u64,
    ) -> Result<(Vec<Queued>, Option<i64>), EngineError> {
        let (_, no) = one(self.vault.sql(), channel)?;
        let mut statement = self.vault.sql().prepare_cached(
            "SELECT frame_id, kind, sent_ms, length(intent), refusals, refused_code, refused_ms,
                    CASE kind WHEN ?3 THEN intent END, properties, seq
             FROM outbox WHERE channel = ?1 AND seq >= ?2 ORDER BY seq",
        )?;
        let mut rows = statement.query(params![no, from, Intent::Message as i64])?;
        let (mut page, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            if bytes >= bytes_max {
                return Ok((page, Some(row.get(9)?)));
            }
            let queued = read(row, channel)?;
            // Besides the payload, which a change to the group does not show.
            bytes += ROW_BYTES + queued.payload.as_ref().map_or(0, |payload| payload.len() as u64);
            page.push(queued);
        }
        Ok((page, None))
    }

    /// Returns the state or outcome of a send on a channel. Returns `None` if the vault does not know the id: a change
    /// to the group that was made or not needed, a purged message, another channel's id, or an id that was never sent.
    pub fn fate(&self, channel: ChannelId, frame_id: FrameId) -> Result<Option<Fate>, EngineError> {
        let sql = self.vault.sql();
        let (_, no) = one(sql, channel)?;
        let kind: Option<i64> = sql
            .prepare_cached("SELECT kind FROM outbox WHERE channel = ?1 AND frame_id = ?2")?
            .query_row(params![no, frame_id.as_bytes()], |row| row.get(0))
            .optional()?;
        if let Some(kind) = kind {
            return Ok(Intent::from_number(kind)?.is_told().then_some(Fate::Waiting));
        }
        let code: Option<u32> = sql
            .prepare_cached("SELECT code FROM failed WHERE channel = ?1 AND frame_id = ?2")?
            .query_row(params![no, frame_id.as_bytes()], |row| row.get(0))
            .optional()?;
        if let Some(code) = code {
            return Ok(Some(Fate::Failed(known(code)?)));
        }
        let (first, end) = (message_id(no, Offset::ZERO)?, message_id(no + 1, Offset::ZERO)?);
        let message: Option<i64> = sql
            .prepare_cached(
                "SELECT id FROM message WHERE received_no IS NULL AND frame_id = ?1 AND +id > ?2 AND +id < ?3",
            )?
            .query_row(params![frame_id.as_bytes(), first, end], |row| row.get(0))
            .optional()?;
        Ok(message.map(|id| Fate::Delivered(message_offset(id))))
    }
}

impl Tx<'_> {
    /// Records a relay node's refusal of an intent that may be offered again.
    pub(super) fn refused_for_now(&self, channel_no: i64, seq: i64, code: Code) -> Result<(), EngineError> {
        self.sql
            .prepare_cached(
                "UPDATE outbox SET refusals = refusals + 1, refused_code = ?3, refused_ms = ?4
                 WHERE channel = ?1 AND seq = ?2",
            )?
            .execute(params![channel_no, seq, code.number(), integer(now_ms())?])?;
        Ok(())
    }
}

fn read(row: &Row<'_>, channel: ChannelId) -> Result<Queued, EngineError> {
    let frame_id: Vec<u8> = row.get(0)?;
    let refused: Option<(u32, i64)> = row.get::<_, Option<u32>>(5)?.zip(row.get(6)?);
    let refusal = |(code, at_ms)| {
        Ok::<_, EngineError>(Refusal {
            code: known(code)?,
            at_ms: unsigned(at_ms)?,
        })
    };
    Ok(Queued {
        channel,
        frame_id: id(&frame_id)?,
        kind: Intent::from_number(row.get(1)?)?.into(),
        since_ms: unsigned(row.get(2)?)?,
        bytes: unsigned(row.get(3)?)?,
        attempts: row.get(4)?,
        last_refusal: refused.map(refusal).transpose()?,
        payload: row.get::<_, Option<Vec<u8>>>(7)?.map(Bytes::from),
        properties: Properties::from_column(row.get(8)?),
    })
}

fn known(code: u32) -> Result<Code, VaultError> {
    Code::from_number(code).ok_or_else(|| VaultError::damaged("code of a refusal"))
}
