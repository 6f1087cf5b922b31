//! Channels that this agent was added to, until the application accepts them.
//!
//! ```text
//!   Joined --> invitation --accept_invitation, or a label--> the application's
//!                  └── this agent has left, or the channel is forgotten: gone
//! ```

use super::channel::{Channel, one};
use super::transact::{Tx, now_ms};
use super::{Engine, EngineError};
use crate::vault::{Durability, id, integer, unsigned};
use rusqlite::params;
use serde::{Deserialize, Serialize};
use skytale_proto::{AgentId, ChannelId, Offset};

/// A channel that this agent was added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invited {
    /// The channel. This agent is a member of it.
    pub channel: ChannelId,
    /// The offset of the bundle that added it.
    pub offset: Offset,
    /// The agent that made the addition; `None` if an older version did not store it.
    pub by: Option<AgentId>,
    /// Time at which this agent joined, unix milliseconds by this machine's clock.
    pub since_ms: u64,
}

impl Engine {
    /// Lists the channels that this agent was added to and that the application has not accepted, oldest first.
    pub fn invitations(&self) -> Result<Vec<Invited>, EngineError> {
        self.vault
            .sql()
            .prepare_cached(
                "SELECT c.id, i.at, i.adder, i.since_ms FROM invitation i JOIN channel c ON c.no = i.channel
                 ORDER BY i.since_ms, i.channel",
            )?
            .query_map([], |row| {
                Ok((
                    row.get::<_, Vec<u8>>(0)?,
                    row.get::<_, i64>(1)?,
                    row.get::<_, Option<Vec<u8>>>(2)?,
                    row.get::<_, i64>(3)?,
                ))
            })?
            .map(|row| {
                let (channel, at, by, since_ms) = row?;
                Ok(Invited {
                    channel: id(&channel)?,
                    offset: Offset::new(unsigned(at)?),
                    by: by.map(|by| id(&by)).transpose()?,
                    since_ms: unsigned(since_ms)?,
                })
            })
            .collect()
    }

    /// Accepts an invitation. Returns whether it was pending. Giving the channel a label ([`Engine::relabel`]) has the
    /// same effect.
    pub fn accept_invitation(&mut self, channel: ChannelId) -> Result<bool, EngineError> {
        let (_, no) = one(self.vault.sql(), channel)?;
        let (accepted, _) = self.transact(Durability::Now, |tx| tx.end_invitation(no))?;
        Ok(accepted)
    }
}

impl Tx<'_> {
    /// Records that this agent was added to a channel.
    pub(super) fn invite(&self, channel: &Channel, at: Offset, by: &AgentId) -> Result<(), EngineError> {
        if channel.is_declined {
            return Ok(());
        }
        self.sql
            .prepare_cached("INSERT OR REPLACE INTO invitation (channel, at, adder, since_ms) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![
                channel.no,
                integer(at.get())?,
                by.as_bytes(),
                integer(now_ms())?
            ])?;
        Ok(())
    }

    /// Ends an invitation. Returns whether it was pending.
    pub(super) fn end_invitation(&self, channel_no: i64) -> Result<bool, EngineError> {
        let ended = self
            .sql
            .prepare_cached("DELETE FROM invitation WHERE channel = ?1")?
            .execute([channel_no])?;
        Ok(ended > 0)
    }
}
