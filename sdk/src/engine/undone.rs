//! Changes of the group that a rollback of the log has undone: removals, additions, and requests to leave.
//!
//! An agent whose removal is gone is on the roster again: members that knew of the removal repeat it, and send nothing
//! before that. An agent whose addition is gone is added again.

use super::channel::Channel;
use super::outbox::{Intent, Place};
use super::standing::Standing;
use super::transact::Tx;
use super::{ChannelState, EngineError};
use crate::mls;
use crate::vault::{id, integer};
use rusqlite::{Connection, params};
use skytale_proto::{AgentId, FrameId, Offset};
use std::collections::{BTreeMap, BTreeSet};

/// Returns agents that are on the log's roster again, since the commit that removed them is gone.
pub(super) fn returned(sql: &Connection, channel_no: i64) -> Result<BTreeSet<AgentId>, EngineError> {
    sql.prepare_cached("SELECT agent FROM undone WHERE channel = ?1 AND added = 0")?
        .query_map([channel_no], |row| row.get::<_, Vec<u8>>(0))?
        .map(|agent| Ok(id(&agent?)?))
        .collect()
}

impl Tx<'_> {
    /// Removes the changes of the group after `kept`: in the log, each agent has its earlier state again. Returns the
    /// agents whose change was undone, and whether it was an addition.
    pub(super) fn undo(&mut self, channel: &mut Channel, kept: Offset) -> Result<BTreeMap<AgentId, bool>, EngineError> {
        let changes: Vec<(Vec<u8>, bool)> = self
            .sql
            .prepare_cached("SELECT agent, added FROM change WHERE channel = ?1 AND at > ?2 ORDER BY at")?
            .query_map(params![channel.no, integer(kept.get())?], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect::<Result<_, _>>()?;
        self.sql
            .prepare_cached("DELETE FROM change WHERE channel = ?1 AND at > ?2")?
            .execute(params![channel.no, integer(kept.get())?])?;
        let mut net: BTreeMap<AgentId, (bool, bool)> = BTreeMap::new();
        for (agent, added) in changes {
            net.entry(id(&agent)?).or_insert((added, added)).1 = added;
        }
        let mut undone = BTreeMap::new();
        for (agent, (first, now)) in net {
            // Added and removed again, or vice versa: nothing has changed.
            if first == now && agent != self.identity.agent_id() {
                self.sql
                    .prepare_cached("INSERT OR REPLACE INTO undone (channel, agent, added) VALUES (?1, ?2, ?3)")?
                    .execute(params![channel.no, agent.as_bytes(), now])?;
                undone.insert(agent, now);
            }
        }
        channel.returned = returned(self.sql, channel.no)?;
        Ok(undone)
    }

    /// Removes requests to leave after `kept` from the group; this agent's own is repeated.
    pub(super) fn forget_proposals(&mut self, channel: &mut Channel, kept: Offset) -> Result<(), EngineError> {
        let agents: Vec<Vec<u8>> = self
            .sql
            .prepare_cached("SELECT agent FROM leaving WHERE channel = ?1 AND at > ?2")?
            .query_map(params![channel.no, integer(kept.get())?], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        self.sql
            .prepare_cached("DELETE FROM leaving WHERE channel = ?1 AND at > ?2")?
            .execute(params![channel.no, integer(kept.get())?])?;
        let own = self.identity.agent_id();
        let asked: BTreeSet<AgentId> = agents
            .iter()
            .map(|agent| Ok(id(agent)?))
            .collect::<Result<_, EngineError>>()?;
        if let Some(group) = channel.group.as_mut() {
            mls::take_back_leaves(group, self.provider, &asked)
                .map_err(|error| EngineError::mls("taking back a proposal", error))?;
        }
        let leaves = channel.position.state == ChannelState::Leaving && asked.contains(&own);
        if leaves && !self.waits(channel, Intent::Leave)? {
            self.queue(channel, Intent::Leave, FrameId::generate(), &[], Place::Back)?;
        }
        Ok(())
    }

    /// Records a request to leave in the log.
    pub(super) fn note_leaving(&self, channel: &Channel, offset: Offset, agent: &AgentId) -> Result<(), EngineError> {
        self.sql
            .prepare_cached("INSERT OR REPLACE INTO leaving (channel, agent, at) VALUES (?1, ?2, ?3)")?
            .execute(params![channel.no, agent.as_bytes(), integer(offset.get())?])?;
        Ok(())
    }

    /// Records a change of the group, for as long as the digest of its entry is kept.
    pub(super) fn note_change(
        &self,
        channel: &Channel,
        offset: Offset,
        change: &mls::Change,
    ) -> Result<(), EngineError> {
        let changed = change.adds.symmetric_difference(&change.removes);
        for agent in changed {
            self.sql
                .prepare_cached("INSERT OR REPLACE INTO change (channel, at, agent, added) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![
                    channel.no,
                    integer(offset.get())?,
                    agent.as_bytes(),
                    change.adds.contains(agent)
                ])?;
        }
        if !change.adds.is_empty() || !change.removes.is_empty() {
            self.sql
                .prepare_cached("DELETE FROM change WHERE channel = ?1 AND at < ?2")?
                .execute(params![channel.no, integer(channel.window.first().get())?])?;
        }
        Ok(())
    }

    /// Repeats undone additions when this agent is back in the group. See [`Tx::remove_returned`] for undone removals.
    pub(super) fn redo(&mut self, channel: &mut Channel) -> Result<(), EngineError> {
        let added: Vec<Vec<u8>> = self
            .sql
            .prepare_cached("DELETE FROM undone WHERE channel = ?1 AND added = 1 RETURNING agent")?
            .query_map([channel.no], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let members = channel.group.as_ref().map(mls::members).unwrap_or_default();
        for agent in added {
            let agent = id(&agent)?;
            if !members.contains(&agent) {
                self.add_when_it_can(channel, &agent)?;
            }
        }
        Ok(())
    }

    /// Queues the removal of agents that the log has brought back, before everything else. Until it is done nothing is
    /// sent in the group. If it was refused, it is retried at another head or in the next session.
    pub(super) fn remove_returned(&mut self, channel: &mut Channel) -> Result<(), EngineError> {
        if channel.position.recovery.standing != Standing::Current
            || !channel.has_returned()
            || channel.offered.redo_refused == Some(channel.position.head)
        {
            return Ok(());
        }
        // Behind a message it would wait for an item that waits for it.
        let first = self.rows_from(channel, None, 1)?.pop();
        if first.is_some_and(|row| row.intent.is_commit()) {
            return Ok(());
        }
        let members = channel.group.as_ref().map(mls::members).unwrap_or_default();
        let returned: Vec<u8> = (channel.returned.intersection(&members))
            .flat_map(|agent| *agent.as_bytes())
            .collect();
        let row = self.queue(channel, Intent::Remove, FrameId::generate(), &returned, Place::Front)?;
        channel.offered.next_seq = Some(row.seq);
        Ok(())
    }

    /// Handles an applied commit that concerns agents whose change was undone: a removed agent is removed again, and an
    /// added one was meant to be added. A rejoining member is neither. A header alone is not believed: it could lie.
    pub(super) fn heed_change(
        &self,
        channel: &mut Channel,
        adds: &[AgentId],
        removes: &[AgentId],
    ) -> Result<(), EngineError> {
        if channel.settled.is_none() {
            return Ok(());
        }
        for agent in adds.iter().filter(|agent| !removes.contains(agent)) {
            self.forget_undone_of(channel, agent)?;
        }
        let members = channel.group.as_ref().map(mls::members).unwrap_or_default();
        for agent in removes.iter().filter(|agent| !members.contains(agent)) {
            if channel.returned.contains(agent) {
                self.forget_undone_of(channel, agent)?;
            }
        }
        Ok(())
    }

    fn forget_undone_of(&self, channel: &mut Channel, agent: &AgentId) -> Result<(), EngineError> {
        self.sql
            .prepare_cached("DELETE FROM undone WHERE channel = ?1 AND agent = ?2")?
            .execute(params![channel.no, agent.as_bytes()])?;
        channel.returned.remove(agent);
        Ok(())
    }

    pub(super) fn forget_undone(&self, channel: &mut Channel) -> Result<(), EngineError> {
        self.sql
            .prepare_cached("DELETE FROM undone WHERE channel = ?1")?
            .execute([channel.no])?;
        channel.returned.clear();
        Ok(())
    }
}
