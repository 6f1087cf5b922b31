//! Deferred additions: they wait until the agent to be added has a usable KeyPackage.
//!
//! ```text
//!   add_later --> deferred --claimed--> add_deferred --> the outbox, as any addition
//!                    |  ^
//!                    |  └── deferred_refused: tried, not yet
//!                    └── cancel_add, the agent is a member, or this one has left: forgotten
//! ```
//!
//! [`Engine::ensure_members`] also keeps a place for each addition in the outbox ([`Intent::Await`]). Items behind that
//! place are not encrypted and not offered before the addition is in the log:
//!
//! ```text
//!   outbox:  m1   Await(bob)   m2   Await(carol)   m3        m1 goes out at once
//!                    |                  |
//!                 claimed            deferred_failed, for longer than the driver waits
//!                    v                  v
//!            m1   Add(bob)     m2       (gone)     m3        carol is still wanted, and nothing waits for her
//! ```

use super::channel::{Channel, Position, numbered, one};
use super::outbox::{INDEXED, Intent, Packages, Place};
use super::transact::{Tx, now_ms};
use super::{AgentId, ChannelId, ChannelState, ClaimedPackage, Code, Engine, EngineError, Event, FrameId, Refusal};
use crate::mls;
use crate::vault::{Durability, VaultError, id, integer, unsigned};
use bytes::Bytes;
use prost::Message as _;
use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use skytale_proto::Right;
use skytale_proto::limits::ROSTER_CHANGE_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// An addition that waits for a KeyPackage of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeferredAdd {
    /// The channel.
    pub channel: ChannelId,
    /// The agent to add.
    pub agent: AgentId,
    /// Time of the request, unix milliseconds by this machine's clock.
    pub since_ms: u64,
    /// The reason why the last attempt failed.
    pub last_refusal: Option<Refusal>,
    /// Whether later messages wait for it: see [`Engine::ensure_members`].
    #[serde(default)]
    pub holds: bool,
}

impl Engine {
    /// Records additions to be made later. Durable when this returns. Members are skipped.
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

    /// Ensures that agents are members before any item queued later is sent. Agents that are not members once the
    /// present outbox is done are added when they have KeyPackages on offer. Until then, later items wait, and are
    /// encrypted only when the log has the addition. Earlier items are not held up.
    ///
    /// An addition stops holding later items when it is cancelled, when another member makes it, or when this agent
    /// leaves. It also stops when [`Engine::deferred_failed`] finds that it has waited long enough.
    pub fn ensure_members(&mut self, channel: ChannelId, agents: &[AgentId]) -> Result<(), EngineError> {
        self.sendable(channel)?;
        let mut there = self.members_at(channel, i64::MAX)?;
        let missing: Vec<_> = agents.iter().filter(|agent| there.insert(**agent)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.check_right(channel, Right::Add)?;
        if self.deferred_adds(channel)?.len() + missing.len() > ROSTER_CHANGE_MAX {
            return Err(EngineError::OutboxFull { channel });
        }
        let count = missing.len() as u64;
        self.check_room(channel, count, count * AgentId::LENGTH as u64)?;
        self.transact_on(channel, Durability::Now, |tx, channel| {
            for agent in missing {
                tx.sql
                    .prepare_cached(
                        "INSERT INTO deferred (channel, agent, since_ms) VALUES (?1, ?2, ?3)
                         ON CONFLICT (channel, agent) DO UPDATE SET held_ms = NULL",
                    )?
                    .execute(params![channel.no, agent.as_bytes(), integer(now_ms())?])?;
                tx.queue(
                    channel,
                    Intent::Await,
                    FrameId::generate(),
                    agent.as_bytes(),
                    Place::Back,
                )?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Returns the members at the time when everything in the outbox before a place is done.
    fn members_at(&mut self, channel: ChannelId, place: i64) -> Result<BTreeSet<AgentId>, EngineError> {
        let loaded = self.loaded(channel)?;
        let no = loaded.no;
        let mut members = loaded.group.as_ref().map(mls::members).unwrap_or_default();
        let sql = self.vault.sql();
        let provider = mls::Provider::new(&self.crypto, sql);
        let mut statement = sql.prepare_cached(&format!(
            "SELECT kind, intent FROM outbox
             WHERE channel = ?1 AND seq < ?2 AND kind IN (?3, ?4, ?5) AND {INDEXED} ORDER BY seq"
        ))?;
        let kinds = [Intent::Add as i64, Intent::Remove as i64, Intent::Await as i64];
        let mut rows = statement.query(params![no, place, kinds[0], kinds[1], kinds[2]])?;
        while let Some(row) = rows.next()? {
            let (intent, content) = (Intent::from_number(row.get(0)?)?, row.get::<_, Vec<u8>>(1)?);
            let listed = || {
                content
                    .chunks_exact(AgentId::LENGTH)
                    .filter_map(|bytes| AgentId::try_from(bytes).ok())
            };
            match intent {
                Intent::Remove => members.retain(|member| !listed().any(|agent| agent == *member)),
                Intent::Await => members.extend(listed()),
                _ => {
                    let intent = Packages::decode(content.as_slice())
                        .map_err(|error| EngineError::mls("reading key packages", error))?;
                    let added = intent
                        .packages
                        .iter()
                        .map(|package| mls::added_package(&provider, package));
                    members.extend(added.filter_map(|added| added.ok().map(|(agent, _)| agent)));
                }
            }
        }
        Ok(members)
    }

    /// Returns the places of additions in a channel's outbox.
    fn held(&self, channel_no: i64) -> Result<BTreeMap<AgentId, i64>, EngineError> {
        held(self.vault.sql(), channel_no)
    }

    /// Lists the deferred additions to a channel.
    pub fn deferred_adds(&self, channel: ChannelId) -> Result<Vec<DeferredAdd>, EngineError> {
        let (_, no) = one(self.vault.sql(), channel)?;
        self.vault
            .sql()
            .prepare_cached(&format!(
                "SELECT agent, since_ms, refused_code, refused_ms,
                        EXISTS (SELECT 1 FROM outbox WHERE channel = d.channel AND kind = ?2 AND {INDEXED}
                                AND intent = d.agent)
                 FROM deferred d WHERE channel = ?1 ORDER BY since_ms, agent"
            ))?
            .query_map([no, Intent::Await as i64], |row| Ok(read(row, channel)))?
            .collect::<Result<Result<_, _>, _>>()?
    }

    /// Lists the additions of all channels that are to be tried now: first those that hold back messages, and among
    /// them those with the oldest attempt. Removes additions whose agent is already a member, and those of channels
    /// that this agent has left.
    pub fn deferred_to_try(&mut self) -> Result<Vec<DeferredAdd>, EngineError> {
        let mut wanted = Vec::new();
        let mut channels = Vec::new();
        let mut statement = self
            .vault
            .sql()
            .prepare_cached("SELECT DISTINCT channel FROM deferred ORDER BY channel")?;
        for no in statement.query_map([], |row| row.get::<_, i64>(0))? {
            channels.extend(numbered(self.vault.sql(), no?)?);
        }
        drop(statement);
        for (Position { state, .. }, id) in channels {
            let deferred = self.deferred_adds(id)?;
            let members = match state {
                ChannelState::Creating | ChannelState::Active => self.members(id)?,
                ChannelState::Leaving | ChannelState::Left => Vec::new(),
            };
            let (_, no) = one(self.vault.sql(), id)?;
            let places = self.held(no)?;
            let (mut waiting, mut gone) = (Vec::new(), Vec::new());
            for add in deferred {
                let is_member = members.contains(&add.agent)
                    && match places.get(&add.agent) {
                        // The agent may be removed before its turn comes.
                        Some(place) => self.members_at(id, *place)?.contains(&add.agent),
                        None => true,
                    };
                // This agent itself is a member of every channel in which it may add others.
                match members.is_empty() || is_member {
                    true => gone.push(add.agent),
                    false => waiting.push(add),
                }
            }
            self.cancel_add(id, &gone)?;
            wanted.extend(waiting);
        }
        wanted.sort_by_key(|add| (!add.holds, add.last_refusal.map(|refusal| refusal.at_ms)));
        Ok(wanted)
    }

    /// Records that an addition was tried and cannot be made yet.
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

    /// Like [`Engine::deferred_refused`], for a reason that lies with the agent to be added. If this has lasted for
    /// `hold`, the addition no longer holds back messages, which [`Event::MemberNotAdded`] reports. It is still
    /// retried.
    pub fn deferred_failed(
        &mut self,
        channel: ChannelId,
        agent: AgentId,
        code: Code,
        hold: Duration,
    ) -> Result<Vec<Event>, EngineError> {
        self.deferred_refused(channel, agent, code)?;
        let (_, no) = one(self.vault.sql(), channel)?;
        if !self.held(no)?.contains_key(&agent) {
            return Ok(Vec::new());
        }
        let now_ms = now_ms();
        let ((), events) = self.transact_on(channel, Durability::Now, |tx, channel| {
            let since_ms: Option<i64> = tx
                .sql
                .prepare_cached(
                    "UPDATE deferred SET held_ms = min(coalesce(held_ms, ?3), ?3) WHERE channel = ?1 AND agent = ?2
                     RETURNING held_ms",
                )?
                .query_row(params![channel.no, agent.as_bytes(), integer(now_ms)?], |row| {
                    row.get(0)
                })
                .optional()?;
            let held_ms = match since_ms {
                Some(since_ms) => now_ms.saturating_sub(unsigned(since_ms)?),
                None => u64::MAX,
            };
            if u128::from(held_ms) < hold.as_millis() {
                return Ok(());
            }
            tx.unhold(channel, &[agent])?;
            let channel = channel.id;
            tx.events.push(Event::MemberNotAdded { channel, agent, code });
            Ok(())
        })?;
        Ok(events)
    }

    /// Queues a deferred addition with its KeyPackage. Returns `None` if it was cancelled meanwhile. It takes the place
    /// kept for it, or else goes to the end of the outbox.
    pub fn add_deferred(
        &mut self,
        channel: ChannelId,
        package: ClaimedPackage,
    ) -> Result<Option<FrameId>, EngineError> {
        let agent = package.agent;
        if !self.deferred_adds(channel)?.iter().any(|add| add.agent == agent) {
            return Ok(None);
        }
        let (_, no) = one(self.vault.sql(), channel)?;
        if let Some(place) = self.held(no)?.get(&agent).copied() {
            self.sendable(channel)?;
            self.check_right(channel, Right::Add)?;
            let package = self.check_claimed(&package)?;
            let (frame_id, _) = self.transact_on(channel, Durability::Now, |tx, channel| {
                tx.add_in_place(channel, place, agent, package)
            })?;
            return Ok(Some(frame_id));
        }
        // Adding twice is harmless, since members are skipped. Not adding would not be.
        let frame_id = self.add(channel, vec![package])?;
        self.cancel_add(channel, &[agent])?;
        Ok(Some(frame_id))
    }

    /// Cancels deferred additions of agents. Returns how many there were.
    pub fn cancel_add(&mut self, channel: ChannelId, agents: &[AgentId]) -> Result<usize, EngineError> {
        let (_, no) = one(self.vault.sql(), channel)?;
        if agents.is_empty() {
            return Ok(0);
        }
        let (cancelled, _) = match self.held(no)?.is_empty() {
            true => self.transact(Durability::Now, |tx| tx.forget_adds(no, agents))?,
            false => self.transact_on(channel, Durability::Now, |tx, channel| tx.cancel_add(channel, agents))?,
        };
        Ok(cancelled)
    }
}

impl Tx<'_> {
    /// Records that an agent is to be added once it has a KeyPackage on offer.
    pub(super) fn add_when_it_can(&self, channel: &Channel, agent: &AgentId) -> Result<(), EngineError> {
        self.sql
            .prepare_cached(
                "INSERT INTO deferred (channel, agent, since_ms) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            )?
            .execute(params![channel.no, agent.as_bytes(), integer(now_ms())?])?;
        Ok(())
    }

    fn forget_adds(&self, channel_no: i64, agents: &[AgentId]) -> Result<usize, EngineError> {
        let mut forgotten = 0;
        for agent in agents {
            forgotten += self
                .sql
                .prepare_cached("DELETE FROM deferred WHERE channel = ?1 AND agent = ?2")?
                .execute(params![channel_no, agent.as_bytes()])?;
        }
        Ok(forgotten)
    }

    /// Cancels deferred additions of agents, and removes their places in the outbox. Returns how many there were.
    pub(super) fn cancel_add(&self, channel: &mut Channel, agents: &[AgentId]) -> Result<usize, EngineError> {
        self.unhold(channel, agents)?;
        self.forget_adds(channel.no, agents)
    }

    /// Makes additions of these agents stop holding back messages.
    fn unhold(&self, channel: &mut Channel, agents: &[AgentId]) -> Result<(), EngineError> {
        for agent in agents {
            while let Some(row) = self.row_with(channel, Intent::Await, agent.as_bytes())? {
                self.unqueue(channel, &row)?;
            }
        }
        Ok(())
    }

    /// Makes all additions stop holding back messages.
    pub(super) fn unhold_all(&self, channel: &mut Channel) -> Result<(), EngineError> {
        while let Some(row) = self.first_of(channel, Intent::Await)? {
            self.unqueue(channel, &row)?;
        }
        Ok(())
    }

    /// Turns the place of an addition into the addition itself, under the same frame id.
    fn add_in_place(
        &self,
        channel: &mut Channel,
        place: i64,
        agent: AgentId,
        package: Bytes,
    ) -> Result<FrameId, EngineError> {
        let content = Packages {
            packages: vec![package],
        };
        let content = content.encode_to_vec();
        let frame_id: Vec<u8> = self
            .sql
            .prepare_cached(
                "UPDATE outbox SET kind = ?3, intent = ?4 WHERE channel = ?1 AND seq = ?2 RETURNING frame_id",
            )?
            .query_row(params![channel.no, place, Intent::Add as i64, content], |row| {
                row.get(0)
            })?;
        let waiting = &mut channel.waiting.bytes;
        *waiting = waiting.saturating_sub(AgentId::LENGTH as u64) + content.len() as u64;
        self.forget_adds(channel.no, &[agent])?;
        Ok(id(&frame_id)?)
    }
}

/// Returns the places of additions in a channel's outbox.
fn held(sql: &rusqlite::Connection, channel_no: i64) -> Result<BTreeMap<AgentId, i64>, EngineError> {
    sql.prepare_cached(&format!(
        "SELECT intent, seq FROM outbox WHERE channel = ?1 AND kind = ?2 AND {INDEXED}"
    ))?
    .query_map([channel_no, Intent::Await as i64], |row| {
        Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?))
    })?
    .map(|row| {
        let (agent, seq) = row?;
        Ok((id(&agent)?, seq))
    })
    .collect()
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
        holds: row.get(4)?,
    })
}
