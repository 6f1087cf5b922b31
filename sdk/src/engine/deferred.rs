//! Additions that wait for the agent to be added: it has no KeyPackage to be used yet.
//!
//! ```text
//!   add_later --> deferred --claimed--> add_deferred --> the outbox, as any addition
//!                    |  ^
//!                    |  └── deferred_refused: tried, not yet
//!                    └── cancel_add, the agent is a member, or this one has left: forgotten
//! ```

use super::channel::Channel;
use super::channel::one;
use super::transact::{Tx, now_ms};
use super::{AgentId, ChannelId, ChannelState, ClaimedPackage, Code, Engine, EngineError, FrameId, Refusal};
use crate::vault::{Durability, VaultError, id, integer, unsigned};
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};
use skytale_proto::limits::ROSTER_CHANGE_MAX;

/// An addition that waits for a KeyPackage of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeferredAdd {
    /// The channel.
    pub channel: ChannelId,
    /// Whom to add.
    pub agent: AgentId,
    /// Since when, unix milliseconds by this machine's clock.
    pub since_ms: u64,
    /// Why it could not be added the last time.
    pub last_refusal: Option<Refusal>,
}

impl Engine {
    /// Keeps the wish to add agents. It is durable when this returns. Members are left out.
    pub fn add_later(&mut self, channel: ChannelId, agents: &[AgentId]) -> Result<(), EngineError> {
        self.check_room(channel, 0, 0)?;
        let members = self.members(channel)?;
        let waiting = self.deferred_adds(channel)?.len();
        if waiting + agents.len() > ROSTER_CHANGE_MAX {
            return Err(EngineError::OutboxFull { channel });
        }
        let (_, no) = one(self.vault.sql(), channel)?;
        self.transact(Durability::Now, |tx| {
            for agent in agents.iter().filter(|agent| !members.contains(agent)) {
                tx.sql
                    .prepare_cached(
                        "INSERT INTO deferred (channel, agent, since_ms) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                    )?
                    .execute(params![no, agent.as_bytes(), integer(now_ms())?])?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Additions to a channel that wait for their agents.
    pub fn deferred_adds(&self, channel: ChannelId) -> Result<Vec<DeferredAdd>, EngineError> {
        let (_, no) = one(self.vault.sql(), channel)?;
        self.vault
            .sql()
            .prepare_cached(
                "SELECT agent, since_ms, refused_code, refused_ms FROM deferred WHERE channel = ?1
                 ORDER BY since_ms, agent",
            )?
            .query_map([no], |row| Ok(read(row, channel)))?
            .collect::<Result<Result<_, _>, _>>()?
    }

    /// Additions of all channels that are to be tried now, first those that were not tried for longest. Those whose agent is a member by now, and those of channels that
    /// this agent has left, are forgotten.
    pub fn deferred_to_try(&mut self) -> Result<Vec<DeferredAdd>, EngineError> {
        let mut wanted = Vec::new();
        for channel in self.channels()? {
            let deferred = self.deferred_adds(channel.id)?;
            if deferred.is_empty() {
                continue;
            }
            let members = match channel.state {
                ChannelState::Creating | ChannelState::Active => self.members(channel.id)?,
                ChannelState::Leaving | ChannelState::Left => Vec::new(),
            };
            // This agent itself is a member wherever it may add anyone.
            let waits = |add: &DeferredAdd| !members.is_empty() && !members.contains(&add.agent);
            let (waiting, gone): (Vec<_>, Vec<_>) = deferred.into_iter().partition(waits);
            let gone: Vec<_> = gone.iter().map(|add| add.agent).collect();
            self.cancel_add(channel.id, &gone)?;
            wanted.extend(waiting);
        }
        wanted.sort_by_key(|add| add.last_refusal.map(|refusal| refusal.at_ms));
        Ok(wanted)
    }

    /// An addition was tried, and cannot be made yet.
    pub fn deferred_refused(&mut self, channel: ChannelId, agent: AgentId, code: Code) -> Result<(), EngineError> {
        let (_, no) = one(self.vault.sql(), channel)?;
        self.transact(Durability::Later, |tx| {
            tx.sql
                .prepare_cached(
                    "UPDATE deferred SET refused_code = ?3, refused_ms = ?4 WHERE channel = ?1 AND agent = ?2",
                )?
                .execute(params![no, agent.as_bytes(), code.number(), integer(now_ms())?])?;
            Ok(())
        })?;
        Ok(())
    }

    /// Queues an addition that had to wait, with the KeyPackage that it waited for. `None` where it was cancelled meanwhile.
    pub fn add_deferred(
        &mut self,
        channel: ChannelId,
        package: ClaimedPackage,
    ) -> Result<Option<FrameId>, EngineError> {
        let agent = package.agent;
        if !self.deferred_adds(channel)?.iter().any(|add| add.agent == agent) {
            return Ok(None);
        }
        // Twice is harmless: who is a member is left out. Not at all would not be.
        let frame_id = self.add(channel, vec![package])?;
        self.cancel_add(channel, &[agent])?;
        Ok(Some(frame_id))
    }

    /// Forgets additions that wait for their agents. How many there were.
    pub fn cancel_add(&mut self, channel: ChannelId, agents: &[AgentId]) -> Result<usize, EngineError> {
        let (_, no) = one(self.vault.sql(), channel)?;
        if agents.is_empty() {
            return Ok(0);
        }
        let (cancelled, _) = self.transact(Durability::Now, |tx| {
            let mut cancelled = 0;
            for agent in agents {
                cancelled += tx
                    .sql
                    .prepare_cached("DELETE FROM deferred WHERE channel = ?1 AND agent = ?2")?
                    .execute(params![no, agent.as_bytes()])?;
            }
            Ok(cancelled)
        })?;
        Ok(cancelled)
    }
}

impl Tx<'_> {
    /// An agent is added when it has a KeyPackage on offer.
    pub(super) fn add_when_it_can(&self, channel: &Channel, agent: &AgentId) -> Result<(), EngineError> {
        self.sql
            .prepare_cached(
                "INSERT INTO deferred (channel, agent, since_ms) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            )?
            .execute(params![channel.no, agent.as_bytes(), integer(now_ms())?])?;
        Ok(())
    }
}

fn read(row: &Row<'_>, channel: ChannelId) -> Result<DeferredAdd, EngineError> {
    let agent: Vec<u8> = row.get(0)?;
    let refused: Option<(u32, i64)> = row.get::<_, Option<u32>>(2)?.zip(row.get(3)?);
    let refusal = |(code, at_ms)| {
        Ok::<_, EngineError>(Refusal {
            code: Code::from_number(code).ok_or_else(|| VaultError::damaged("code of a refusal"))?,
            at_ms: unsigned(at_ms)?,
        })
    };
    Ok(DeferredAdd {
        channel,
        agent: id(&agent)?,
        since_ms: unsigned(row.get(1)?)?,
        last_refusal: refused.map(refusal).transpose()?,
    })
}
