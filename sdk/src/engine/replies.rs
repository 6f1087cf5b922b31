//! Finding the answers to requests of this agent.

use super::channel::one;
use super::properties::Properties;
use super::{Engine, EngineError, Fate, Message};
use crate::vault::{message_id, message_offset};
use rusqlite::params;
use serde::{Deserialize, Serialize};
use skytale_proto::{ChannelId, FrameId, Offset};

/// Maximum number of messages searched per call, so that other calls get their turn.
const LOOKED_AT_MAX: usize = 4_096;

/// Start of the search for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    /// Answers come after this offset.
    pub after: Offset,
    /// Whether the request is in the log.
    pub delivered: bool,
}

/// Result of searching a part of the history for an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Searched {
    /// The first answer, if there is one.
    pub reply: Option<Message>,
    /// The offset up to which there is none.
    pub until: Offset,
    /// Whether the history continues after it.
    pub more: bool,
}

impl Engine {
    /// Returns where the answer to a message of this agent can be.
    pub fn requested(&self, channel: ChannelId, request: FrameId) -> Result<Requested, EngineError> {
        Ok(match self.fate(channel, request)? {
            Some(Fate::Delivered(offset)) => Requested {
                after: offset,
                delivered: true,
            },
            // Nobody can have seen it before the next entries.
            Some(Fate::Waiting | Fate::Failed(_)) => Requested {
                after: self.cursor(channel)?,
                delivered: false,
            },
            // It was delivered, and is no longer in the history.
            None => Requested {
                after: Offset::ZERO,
                delivered: true,
            },
        })
    }

    /// Searches a part of the history for the first message of another agent, after an offset, that answers a request.
    /// Acknowledged messages are included.
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
