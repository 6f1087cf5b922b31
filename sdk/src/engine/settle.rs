//! Settling on the relay node's present log, after the log went back and the operator confirmed it.
//!
//! ```text
//!            kept      cursor
//!   m1  m2 │ m3  m4          what this agent was shown
//!          │ d1  d2  d3      what the log has now
//! ```
//!
//! The agent finds `kept` itself, by comparing ([`Fork`]): the operator's word only permits it to go on from there. The
//! cursor goes back to `kept`, and the agent reads the present log from there. The entries it knew after `kept` are
//! handled so:
//!
//! - Messages are set aside ([`Engine::replaced`]). A message that appears again, since its author resends it or the
//!   log had it in both places, is put back at its new offset and is not shown twice.
//! - Own messages that have not appeared again by the head are sent again, under their frame ids.
//! - A group that has applied a commit after `kept` is out of sync with the log, unless the log has that commit, too.
//!   If the removal of an agent was undone, it is removed again; if an addition was undone, the agent is added again.
//!   The first returning member that knew of it does so.

use super::channel::{Channel, one};
use super::evidence::AGENT_LOG_NO;
use super::outbox::{Intent, OutboxRow, Place};
use super::standing::{Recovery, Standing};
use super::transact::{Tx, now_ms};
use super::window::Fork;
use super::{ChannelState, Engine, EngineError, Event, LogStatus};
use crate::mls;
use crate::vault::{Durability, id, integer, unsigned};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use skytale_proto::{AgentId, ChannelId, FrameId, Offset, Record};

/// The word of a relay node's operator that a log may have gone back, at or before an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackWord {
    /// Time of the word, unix milliseconds by the relay node's clock.
    pub at_ms: u64,
    /// The log's last entry at that time: the loss begins after some entry up to this one.
    pub head: Offset,
}

impl RollbackWord {
    /// Whether it is dated in the future, which would make every later word old.
    fn is_of_the_future(&self) -> bool {
        self.at_ms > now_ms().saturating_add(WORD_AHEAD_MAX_MS)
    }
}

/// A rollback that this agent has settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Settled {
    /// The last entry that the log had kept. Later offsets name other entries than before.
    pub kept: Offset,
    /// The last entry that this agent had seen before.
    pub cursor: Offset,
    /// Time at which the operator accepted it, unix milliseconds by the relay node's clock.
    pub word_ms: u64,
    /// The log's last entry at that time.
    pub word_head: Offset,
    /// Time at which this agent settled, unix milliseconds by its own clock.
    pub settled_ms: u64,
}

/// Answer of [`Engine::accept_rollback`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Acceptance {
    /// This agent continues with the present log.
    Settled(Vec<Event>),
    /// The operator has said nothing, or spoke of other entries.
    Unconfirmed,
    /// The application is reading and has unacknowledged messages: it would acknowledge other entries than it means, and
    /// be given some messages twice. Until then the log must not be read, since its next entries may come after those
    /// that this agent has yet to be shown.
    Unacked,
}

impl Engine {
    /// Whether there is evidence that a channel's log went back or differs from the one of others.
    pub fn is_diverged(&mut self, channel: ChannelId) -> Result<bool, EngineError> {
        // The group is not needed: an agent may be in very many channels, and asks for each of them in each session.
        let (position, no) = self.row(channel)?;
        if position.state == ChannelState::Left {
            return Ok(false);
        }
        let rollback = match self.loaded.get(&channel) {
            Some(known) => known.rollback.is_some(),
            None => super::rollback::read(self.vault.sql(), no)?.is_some(),
        };
        if rollback {
            return Ok(true);
        }
        Ok(self
            .vault
            .sql()
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM divergence WHERE channel = ?1)")?
            .query_row([no], |row| row.get(0))?)
    }

    /// Whether the operator's word of `word_ms`, that its logs may have gone back, is newer than the last comparison of
    /// this channel with its log. See [`Engine::fork`].
    pub fn is_word_news(&mut self, channel: ChannelId, word_ms: u64) -> Result<bool, EngineError> {
        if word_ms == 0 {
            return Ok(false);
        }
        let (position, no) = self.row(channel)?;
        let heeded = last(self.vault.sql(), no)?.map_or(0, |settled| settled.word_ms);
        Ok(word_ms > heeded && position.cursor > Offset::ZERO && position.state != ChannelState::Left)
    }

    /// Whether a channel's log is to be compared with the entries that this agent was shown, because an entry could not
    /// be decrypted. Reading it resets it.
    pub fn is_suspect(&mut self, channel: ChannelId) -> Result<bool, EngineError> {
        // Known only in memory.
        let known = self.loaded.get_mut(&channel);
        Ok(known.is_some_and(|known| std::mem::take(&mut known.offered.suspect)))
    }

    /// Handles the result of a comparison: records if the log has other entries than this agent was shown.
    pub fn compared(&mut self, channel: ChannelId, fork: &Fork) -> Result<Vec<Event>, EngineError> {
        if !fork.differs() {
            return Ok(Vec::new());
        }
        let ((), events) = self.transact_on(channel, Durability::Now, |tx, channel| {
            match fork.after() < channel.position.cursor {
                true => tx.rolled_back(channel, fork.after()),
                false => Ok(()),
            }
        })?;
        Ok(events)
    }

    /// Returns the entries of a channel that this agent was shown, to be compared with the present log.
    pub fn fork(&mut self, channel: ChannelId) -> Result<Fork, EngineError> {
        let known = self.loaded(channel)?;
        Ok(known.window.fork(&channel.log()))
    }

    /// Continues with the relay node's present log, if its operator has accepted the rollback. `fork` says where it
    /// parts from the log that this agent was shown, and `is_read` whether to wait for a reading application. One that
    /// has requested something to be sent is not waited for: that is possible only at the head, and it may acknowledge
    /// only what it has answered.
    pub fn accept_rollback(
        &mut self,
        channel: ChannelId,
        fork: &Fork,
        status: &LogStatus,
        is_read: bool,
    ) -> Result<Acceptance, EngineError> {
        let Some(word) = status.rollback else {
            return Ok(Acceptance::Unconfirmed);
        };
        let unacked = self.unacked(channel)?;
        let known = self.loaded(channel)?;
        let kept = match fork.is_denied() {
            true => fork.kept(status.head, &word).min(known.position.joined.previous()),
            false => fork.kept(status.head, &word),
        };
        let is_heeded = known.settled.is_some_and(|settled| settled.word_ms >= word.at_ms);
        if known.position.state == ChannelState::Left || is_heeded || word.is_of_the_future() {
            return Ok(Acceptance::Unconfirmed);
        }
        let word = RollbackWord {
            head: word.head.min(status.head),
            ..word
        };
        // If nothing is to be undone here, another member must settle; if it does not, it reports again.
        let goes_back = kept < known.position.cursor;
        if goes_back && is_read && unacked > 0 && !self.is_anything_awaited(channel)? {
            return Ok(Acceptance::Unacked);
        }
        let ((), events) = self.transact_on(channel, Durability::Now, |tx, channel| {
            tx.settle(channel, word, kept, status.handshake_head)
        })?;
        if goes_back {
            self.reached.remove(&channel);
        }
        Ok(Acceptance::Settled(events))
    }

    /// Whether the outbox holds something that the application may wait for.
    fn is_anything_awaited(&self, channel: ChannelId) -> Result<bool, EngineError> {
        let (_, no) = one(self.vault.sql(), channel)?;
        let kinds: Vec<i64> = self
            .vault
            .sql()
            .prepare_cached("SELECT DISTINCT kind FROM outbox WHERE channel = ?1")?
            .query_map([no], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for kind in kinds {
            if Intent::from_number(kind)?.is_awaited() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Like [`Engine::is_word_news`], for the agent's own log.
    pub fn is_word_news_of_agent_log(&self, word_ms: u64) -> Result<bool, EngineError> {
        let heeded = last(self.vault.sql(), AGENT_LOG_NO)?.map_or(0, |settled| settled.word_ms);
        Ok(word_ms > heeded)
    }

    /// Like [`Engine::accept_rollback`], for the agent's own log: it is read again after the entry that the operator's
    /// word names.
    pub fn accept_agent_log_rollback(&mut self, word: RollbackWord) -> Result<Vec<Event>, EngineError> {
        if !self.is_word_news_of_agent_log(word.at_ms)? || word.is_of_the_future() {
            return Ok(Vec::new());
        }
        let cursor = self.agent_cursor;
        let kept = match self.rollback(None)? {
            Some(rollback) => word.head.min(rollback.kept).min(cursor),
            None => word.head.min(cursor),
        };
        let ((), events) = self.transact(Durability::Now, |tx| {
            tx.forget_rollback(AGENT_LOG_NO)?;
            tx.keep_settled(
                AGENT_LOG_NO,
                &Settled {
                    kept,
                    cursor,
                    word_ms: word.at_ms,
                    word_head: word.head,
                    settled_ms: now_ms(),
                },
            )?;
            super::agent_log::set_agent_cursor(tx, kept)
        })?;
        self.agent_cursor = kept;
        Ok(events)
    }

    /// Returns the number of settled rollbacks of a channel.
    pub(crate) fn settlements(&self, channel: ChannelId) -> Result<u64, EngineError> {
        let count =
            "SELECT count(*) FROM settled WHERE channel = (SELECT no FROM channel WHERE id = ?1) AND kept < cursor";
        let count: i64 = self
            .vault
            .sql()
            .prepare_cached(count)?
            .query_row([channel.as_bytes()], |row| row.get(0))?;
        Ok(unsigned(count)?)
    }

    /// Lists the settled rollbacks of a channel, oldest first.
    pub fn settled(&self, channel: ChannelId) -> Result<Vec<Settled>, EngineError> {
        let (_, no) = one(self.vault.sql(), channel)?;
        self.vault
            .sql()
            .prepare_cached(&format!(
                "SELECT {SETTLED} FROM settled WHERE channel = ?1 ORDER BY word_ms"
            ))?
            .query_map([no], |row| Ok(read_settled(row)))?
            .collect::<Result<Result<_, _>, _>>()?
    }
}

/// Largest time by which an operator's word may be ahead of this agent's clock.
const WORD_AHEAD_MAX_MS: u64 = 24 * 3_600 * 1_000;

const SETTLED: &str = "kept, cursor, word_ms, word_head, settled_ms";

fn read_settled(row: &rusqlite::Row<'_>) -> Result<Settled, EngineError> {
    Ok(Settled {
        kept: Offset::new(unsigned(row.get(0)?)?),
        cursor: Offset::new(unsigned(row.get(1)?)?),
        word_ms: unsigned(row.get(2)?)?,
        word_head: Offset::new(unsigned(row.get(3)?)?),
        settled_ms: unsigned(row.get(4)?)?,
    })
}

/// Returns the last settled rollback of a channel.
pub(super) fn last(sql: &Connection, channel_no: i64) -> Result<Option<Settled>, EngineError> {
    sql.prepare_cached(&format!(
        "SELECT {SETTLED} FROM settled WHERE channel = ?1 ORDER BY word_ms DESC LIMIT 1"
    ))?
    .query_row([channel_no], |row| Ok(read_settled(row)))
    .optional()?
    .transpose()
}

impl Tx<'_> {
    fn settle(
        &mut self,
        channel: &mut Channel,
        word: RollbackWord,
        kept: Offset,
        handshake_head: Offset,
    ) -> Result<(), EngineError> {
        let cursor = channel.position.cursor;
        let settled = Settled {
            kept,
            cursor,
            word_ms: word.at_ms,
            word_head: word.head,
            settled_ms: now_ms(),
        };
        self.forget_rollback(channel.no)?;
        channel.rollback = None;
        self.forget_divergences(channel, &word, kept < cursor)?;
        self.keep_settled(channel.no, &settled)?;
        channel.settled = Some(settled);
        // Frames refused meanwhile are offered again, as are acknowledged ones that may be gone.
        channel.offered.accepted.clear();
        channel.offered.again();
        if kept < cursor {
            self.go_back(channel, kept, handshake_head)?;
            self.events.push(Event::Settled {
                channel: channel.id,
                kept,
                cursor,
            });
        }
        Ok(())
    }

    /// Removes the evidence that the word explains. Digests of others for later offsets stay, until they agree.
    fn forget_divergences(&self, channel: &Channel, word: &RollbackWord, all: bool) -> Result<(), EngineError> {
        let members = channel.group.as_ref().map(mls::members).unwrap_or_default();
        let told: Vec<(Vec<u8>, i64)> = self
            .sql
            .prepare_cached("SELECT author, at FROM divergence WHERE channel = ?1")?
            .query_map([channel.no], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (author, at) in told {
            let is_gone = !members.contains(&id::<AgentId>(&author)?);
            if all || is_gone || unsigned(at)? <= word.head.get() {
                self.sql
                    .prepare_cached("DELETE FROM divergence WHERE channel = ?1 AND author = ?2")?
                    .execute(params![channel.no, author])?;
            }
        }
        Ok(())
    }

    /// Records how far the log has been read since the word: later entries come from agents that know it.
    pub(super) fn bound_word(&self, channel: &mut Channel) -> Result<(), EngineError> {
        if let Some(settled) = channel
            .settled
            .as_mut()
            .filter(|settled| settled.word_head > channel.position.cursor)
        {
            settled.word_head = channel.position.cursor;
            let settled = *settled;
            self.keep_settled(channel.no, &settled)?;
        }
        Ok(())
    }

    fn go_back(&mut self, channel: &mut Channel, kept: Offset, handshake_head: Offset) -> Result<(), EngineError> {
        let cursor = channel.position.cursor;
        self.set_aside(channel, kept)?;
        for query in [
            "DELETE FROM unreadable WHERE channel = ?1 AND at > ?2",
            "DELETE FROM rejoin WHERE channel = ?1 AND at > ?2",
            "DELETE FROM lost WHERE channel = ?1 AND first > ?2",
            "UPDATE lost SET last = ?2 WHERE channel = ?1 AND last > ?2",
        ] {
            self.sql
                .prepare_cached(query)?
                .execute(params![channel.no, integer(kept.get())?])?;
        }
        channel.rejoins = super::rejoin::requests(self.sql, channel.no)?;
        let undone = self.undo(channel, kept)?;
        self.forget_proposals(channel, kept)?;
        channel.window.cut(&channel.log(), kept);
        let position = &mut channel.position;
        position.cursor = kept;
        position.drift.forget_behind(kept);
        position.acked = position.acked.min(kept);
        channel.offered.wait_for = Offset::ZERO;
        if kept == Offset::ZERO && handshake_head == Offset::ZERO && position.joined == Offset::FIRST {
            return self.create_again(channel);
        }
        let since = position.recovery.since;
        let is_doubtful = position.recovery.unsure;
        if position.applied <= kept && position.recovery.standing == Standing::OutOfSync && since > kept && !is_doubtful
        {
            // The commits that it could not follow are among the entries read again.
            position.head = position.applied;
            position.recovery = Recovery::default();
            self.unqueue_all(channel, Intent::Rejoin)?;
            self.unqueue_all(channel, Intent::Reboot)?;
            return self.encrypt_again(channel);
        }
        let recovery = &mut position.recovery;
        if recovery.standing != Standing::Current {
            recovery.since = recovery.since.min(kept.next());
            recovery.missed = 0;
            if recovery.asked > kept {
                recovery.asked = Offset::ZERO;
            }
        }
        if position.head <= kept && position.applied <= kept {
            return self.encrypt_again(channel);
        }
        position.recovery.unsure = true;
        if handshake_head <= kept {
            position.head = handshake_head;
        } else if position.head > kept {
            // Each frame names it as its parent.
            position.head = Offset::FIRST;
        }
        if position.applied <= kept {
            return self.encrypt_again(channel);
        }
        let members = channel.group.as_ref().map(mls::members).unwrap_or_default();
        let came = undone
            .into_iter()
            .filter(|(agent, added)| *added && members.contains(agent));
        channel.position.removed.extend(came.map(|(agent, _)| agent));
        if channel.position.recovery.standing.is_apart() {
            // Its request names a place in the log that has another entry now.
            self.unbuild(channel)?;
        }
        let reason = format!(
            "a change to the group among the entries {} to {cursor} is undone",
            kept.next()
        );
        self.out_of_sync(channel, kept.next(), reason)
    }

    /// Recreates a log that is gone and that this agent had created, and adds its members again.
    fn create_again(&mut self, channel: &mut Channel) -> Result<(), EngineError> {
        let own = self.identity.agent_id();
        let others = channel.group.as_ref().map(mls::members).unwrap_or_default();
        for agent in others.iter().filter(|agent| **agent != own) {
            self.sql
                .prepare_cached("INSERT OR REPLACE INTO undone (channel, agent, added) VALUES (?1, ?2, 1)")?
                .execute(params![channel.no, agent.as_bytes()])?;
        }
        let own = [
            Intent::Reboot,
            Intent::Rejoin,
            Intent::Renew,
            Intent::Housekeeping,
            Intent::Refresh,
        ];
        for intent in own {
            self.unqueue_all(channel, intent)?;
        }
        self.unbuild(channel)?;
        if let Some(group) = channel.group.as_mut() {
            use openmls_traits::OpenMlsProvider as _;
            group.clear_pending_commit(self.provider.storage())?;
        }
        channel.position.removed = others;
        channel.position.state = ChannelState::Creating;
        channel.position.head = Offset::ZERO;
        channel.position.recovery = Recovery::default();
        let content = super::outbox::Packages::default();
        let content = prost::Message::encode_to_vec(&content);
        self.queue(channel, Intent::Reboot, FrameId::generate(), &content, Place::Front)?;
        self.queue(channel, Intent::Create, FrameId::generate(), &[], Place::Front)?;
        channel.offered.again();
        Ok(())
    }

    /// Rebuilds queued messages, since they carry a digest that is no longer the log's. Frames built earlier are
    /// recognized if the log has them.
    fn encrypt_again(&self, channel: &mut Channel) -> Result<(), EngineError> {
        let built = |row: &OutboxRow| row.intent.is_message() && row.frame.is_some();
        for mut row in self.rows_from(channel, None, usize::MAX)?.into_iter().filter(built) {
            if let Some(frame) = row.frame.take() {
                row.replaced(&frame);
            }
            self.sql
                .prepare_cached("UPDATE outbox SET frame = NULL, earlier = ?3 WHERE channel = ?1 AND seq = ?2")?
                .execute(params![channel.no, row.seq, row.earlier])?;
            channel.waiting.unbuilt += 1;
        }
        Ok(())
    }

    /// Whether an entry is read a second time: entries up to this agent's cursor when it settled, as far as the log had
    /// them then.
    pub(super) fn is_read_again(&self, channel: &Channel, offset: Offset) -> bool {
        channel
            .settled
            .is_some_and(|settled| offset > settled.kept && offset <= settled.cursor)
    }

    /// Whether the log has the last commit of this agent's group, although it went back before it: the group resumes
    /// there.
    pub(super) fn is_resumed_by(&self, channel: &Channel, record: &Record) -> bool {
        let position = &channel.position;
        position.recovery.standing == Standing::OutOfSync
            && channel.settled.is_some()
            && position.applied_hash == Some(skytale_proto::Digest::hash_frame(&record.payload))
    }

    pub(super) fn resume(&mut self, channel: &mut Channel, offset: Offset, by: AgentId) -> Result<(), EngineError> {
        self.note_missed(channel, offset)?;
        let recovery = std::mem::take(&mut channel.position.recovery);
        channel.position.applied = offset;
        channel.position.removed.clear();
        self.unqueue_all(channel, Intent::Rejoin)?;
        self.forget_undone(channel)?;
        self.events.push(Event::Rejoined {
            channel: channel.id,
            offset,
            by,
            missed: recovery.missed,
        });
        Ok(())
    }

    fn keep_settled(&self, no: i64, settled: &Settled) -> Result<(), EngineError> {
        self.sql
            .prepare_cached(
                "INSERT OR REPLACE INTO settled (channel, word_ms, settled_ms, kept, cursor, word_head)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                no,
                integer(settled.word_ms)?,
                integer(settled.settled_ms)?,
                integer(settled.kept.get())?,
                integer(settled.cursor.get())?,
                integer(settled.word_head.get())?
            ])?;
        Ok(())
    }
}
