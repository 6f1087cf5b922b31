//! Which message answers a request of this agent's.

use super::channel::one;
use super::properties::Properties;
use super::{Engine, EngineError, Fate, Message};
use crate::vault::{message_id, message_offset};
use rusqlite::params;
use serde::{Deserialize, Serialize};
use skytale_proto::{ChannelId, FrameId, Offset};

/// Messages looked at in one call: others come in between.
const LOOKED_AT_MAX: usize = 4_096;

/// Where an answer is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    /// Answers are behind it.
    pub after: Offset,
    /// The request is in the log.
    pub delivered: bool,
}

/// How far an answer was looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Searched {
    /// The first answer, where there is one.
    pub reply: Option<Message>,
    /// There is none up to here.
    pub until: Offset,
    /// The history goes on behind it.
    pub more: bool,
}

impl Engine {
    /// Where the answer to a message that this agent sent can be.
    pub fn requested(&self, channel: ChannelId, request: FrameId) -> Result<Requested, EngineError> {
        Ok(match self.fate(channel, request)? {
            Some(Fate::Delivered(offset)) => Requested {
                after: offset,
                delivered: true,
            },
            // Nobody has seen it before the entries that come next.
            Some(Fate::Waiting | Fate::Failed(_)) => Requested {
                after: self.cursor(channel)?,
                delivered: false,
            },
            // It was delivered, and is not in the history any more.
            None => Requested {
                after: Offset::ZERO,
                delivered: true,
            },
        })
    }

    /// Looks for the first message of another agent after an offset that says it answers a request, acknowledged or not; in a
    /// piece of the history.
    pub fn reply_to(&self, channel: ChannelId, request: FrameId, after: Offset) -> Result<Searched, EngineError> {
        let (position, no) = one(self.vault.sql(), channel)?;
        let (first, end) = (message_id(no, after)?, message_id(no + 1, Offset::ZERO)?);
        let begins = Properties::answering(request);
        let mut statement = self.vault.sql().prepare_cached(
            "SELECT id, received_no IS NOT NULL AND properties IS NOT NULL AND substr(properties, 1, ?3) = ?4
             FROM message WHERE id > ?1 AND id < ?2 ORDER BY id",
        )?;
        let length = i64::try_from(begins.len()).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![first, end, length, begins])?;
        let (mut until, mut seen) = (after, 0);
        while let Some(row) = rows.next()? {
            let offset = message_offset(row.get(0)?);
            if row.get(1)? {
                let reply = self.history(channel, offset.previous(), 1)?.pop();
                return Ok(Searched {
                    reply,
                    until: offset,
                    more: false,
                });
            }
            until = offset;
            seen += 1;
            if seen == LOOKED_AT_MAX {
                return Ok(Searched {
                    reply: None,
                    until,
                    more: true,
                });
            }
        }
        Ok(Searched {
            reply: None,
            until: until.max(position.cursor),
            more: false,
        })
    }
}
