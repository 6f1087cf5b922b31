//! Records of unreadable entries, and of differing digests.

use super::channel::{Channel, one};
use super::transact::Tx;
use super::window::Compared;
use super::{Divergence, Engine, EngineError, Event, UnreadableCause, UnreadableEntry};
use crate::mls::Seen;
use crate::vault::{VaultError, id, integer, unsigned};
use rusqlite::params;
use skytale_proto::{AgentId, ChannelId, Digest, FrameId, Header, Offset};

/// Number of the agent's own log in the table of unreadable entries.
pub(super) const AGENT_LOG_NO: i64 = 0;

/// Number of unreadable entries kept per log: the newest, and a few hundred more.
const UNREADABLE_KEPT: u32 = 10_000;
/// One addition in this many checks whether there are more.
const UNREADABLE_SLACK: u32 = 256;

impl Engine {
    /// Returns unreadable entries of a channel (`None`: of the agent's own log), by offset, after `after`.
    pub fn unreadable(
        &self,
        channel: Option<ChannelId>,
        after: Offset,
        limit: u32,
    ) -> Result<Vec<UnreadableEntry>, EngineError> {
        let no = match channel {
            Some(channel) => one(self.vault.sql(), channel)?.1,
            None => AGENT_LOG_NO,
        };
        self.vault
            .sql()
            .prepare_cached(
                // Those without a reason were purged.
                "SELECT at, frame_id, reason, cause FROM unreadable WHERE channel = ?1 AND at > ?2 AND reason <> ''
                 ORDER BY at LIMIT ?3",
            )?
            .query_map(params![no, integer(after.get())?, limit], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, Option<Vec<u8>>>(1)?,
                    row.get(2)?,
                    row.get(3)?,
                ))
            })?
            .map(|row| {
                let (offset, frame_id, reason, cause) = row?;
                Ok(UnreadableEntry {
                    offset: Offset::new(unsigned(offset)?),
                    frame_id: frame_id.as_deref().map(id).transpose()?,
                    cause: UnreadableCause::from_number(cause)?,
                    reason,
                })
            })
            .collect()
    }

    /// Returns the evidence that the relay gave this agent and others different logs of a channel: the first of each
    /// author.
    pub fn divergences(&self, channel: ChannelId) -> Result<Vec<Divergence>, EngineError> {
        let (_, no) = one(self.vault.sql(), channel)?;
        let digest = |bytes: Vec<u8>| {
            <[u8; 32]>::try_from(bytes)
                .map(Digest::from_bytes)
                .map_err(|_| VaultError::damaged("digest of a wrong length"))
        };
        self.vault
            .sql()
            .prepare_cached("SELECT at, author, ours, theirs FROM divergence WHERE channel = ?1 ORDER BY at, author")?
            .query_map([no], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, Vec<u8>>(1)?,
                    row.get::<_, Option<Vec<u8>>>(2)?,
                    row.get::<_, Vec<u8>>(3)?,
                ))
            })?
            .map(|row| {
                let (offset, author, ours, theirs) = row?;
                Ok(Divergence {
                    offset: Offset::new(unsigned(offset)?),
                    author: id(&author)?,
                    ours: ours.map(digest).transpose()?,
                    theirs: Some(theirs)
                        .filter(|theirs| !theirs.is_empty())
                        .map(digest)
                        .transpose()?,
                })
            })
            .collect()
    }
}

impl Tx<'_> {
    pub(super) fn compare(
        &mut self,
        channel: &mut Channel,
        (author, at): (AgentId, Offset),
        offset: Offset,
        theirs: &Digest,
    ) -> Result<(), EngineError> {
        let Compared::Differs { ours } = channel.window.compare(offset, theirs) else {
            if channel.settled.is_some() {
                // Its author has settled, too.
                self.sql
                    .prepare_cached("DELETE FROM divergence WHERE channel = ?1 AND author = ?2 AND at < ?3")?
                    .execute(params![
                        channel.no,
                        author.as_bytes(),
                        integer(offset.get()).unwrap_or(i64::MAX)
                    ])?;
            }
            return self.agreed(channel, offset, theirs);
        };
        if channel.settled.is_some_and(|settled| at <= settled.word_head) {
            // It was appended before the operator spoke, when its author had not settled.
            return Ok(());
        }
        self.diverged(channel, author, offset, ours, Some(*theirs))
    }

    /// Compares an author's digest whose signature could not be checked: a difference is reported, but the digest is
    /// not adopted.
    pub(super) fn compare_unproven(
        &mut self,
        channel: &mut Channel,
        author: (AgentId, Offset),
        seen: Seen,
    ) -> Result<(), EngineError> {
        if channel.window.digest().is_none() {
            return Ok(());
        }
        match channel.window.compare(seen.offset, &seen.digest) {
            Compared::Differs { .. } => self.compare(channel, author, seen.offset, &seen.digest),
            Compared::Agrees => Ok(()),
        }
    }

    /// Records that the relay showed this agent and another one different logs. The first evidence of each author is
    /// kept and reported: once the logs differ, they differ permanently.
    pub(super) fn diverged(
        &mut self,
        channel: &Channel,
        author: AgentId,
        offset: Offset,
        ours: Option<Digest>,
        theirs: Option<Digest>,
    ) -> Result<(), EngineError> {
        let new = self
            .sql
            .prepare_cached(
                "INSERT INTO divergence (channel, author, at, ours, theirs) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO NOTHING",
            )?
            .execute(params![
                channel.no,
                author.as_bytes(),
                integer(offset.get()).unwrap_or(i64::MAX),
                ours.as_ref().map(|digest| digest.as_bytes().as_slice()),
                theirs.as_ref().map_or(&[][..], |digest| digest.as_bytes())
            ])?;
        if new > 0 {
            self.events.push(Event::Divergence {
                channel: channel.id,
                offset,
                author,
                ours,
                theirs,
            });
        }
        Ok(())
    }

    pub(super) fn record_unreadable(
        &mut self,
        channel: &Channel,
        offset: Offset,
        header: Option<&Header>,
        cause: UnreadableCause,
        reason: String,
    ) -> Result<(), EngineError> {
        self.keep_unreadable(
            Some(channel.id),
            channel.no,
            offset,
            header.map(|header| header.id),
            (cause, reason),
        )
    }

    pub(super) fn keep_unreadable(
        &mut self,
        channel: Option<ChannelId>,
        no: i64,
        offset: Offset,
        frame_id: Option<FrameId>,
        (cause, reason): (UnreadableCause, String),
    ) -> Result<(), EngineError> {
        self.sql
            .prepare_cached(
                "INSERT OR REPLACE INTO unreadable (channel, at, frame_id, reason, cause) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                no,
                integer(offset.get())?,
                frame_id.as_ref().map(|id| id.as_bytes().as_slice()),
                reason,
                cause.number()
            ])?;
        if rand::random_range(0..UNREADABLE_SLACK) == 0 {
            // A member that sends junk must not fill the vaults of others.
            self.sql
                .prepare_cached(
                    "DELETE FROM unreadable WHERE channel = ?1 AND at <=
                     (SELECT at FROM unreadable WHERE channel = ?1 ORDER BY at DESC LIMIT 1 OFFSET ?2)",
                )?
                .execute(params![no, UNREADABLE_KEPT])?;
        }
        self.events.push(Event::EntryUnreadable {
            channel,
            offset,
            frame_id,
            cause,
            reason,
        });
        Ok(())
    }
}
