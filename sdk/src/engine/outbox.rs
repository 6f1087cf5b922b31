//! The outbox: intents, in the order of the calls, until the log has them.

use super::channel::Channel;
use super::clock::{CLOCKS_DIFFER_MAX, millis};
use super::inbox::Ack;
use super::properties::Properties;
use super::standing::Standing;
use super::transact::{Tx, now_ms};
use super::{ChannelState, ClaimedPackage, Engine, EngineError, Event, PAYLOAD_BYTES_MAX};
use crate::mls;
use crate::vault::{Durability, VaultError, id, integer, unsigned};
use bytes::Bytes;
use prost::Message as _;
use rusqlite::{OptionalExtension, Row, params};
use skytale_proto::limits::ROSTER_CHANGE_MAX;
use skytale_proto::{AgentId, ChannelId, Code, Detail, Digest, Frame, FrameId, Right};

/// Number of earlier frames of an intent that are still recognized. A relay can cause any number of re-encryptions.
const EARLIER_MAX: usize = 64;

/// Kind of an intent. Persisted: keep stable (`Channel::load` counts all but 2 and 8 as changes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i64)]
pub(super) enum Intent {
    Create = 1,
    Message = 2,
    Add = 3,
    Remove = 4,
    Update = 5,
    Leave = 6,
    /// Commits the removal of members that asked to leave. Made by the engine, not by the application.
    Housekeeping = 7,
    /// Sends the channel digest to agents that this one has added. Made by the engine, not by the application.
    Announce = 8,
    /// Asks to be removed and added again. Made by the engine, not by the application.
    Rejoin = 9,
    /// Takes a new leaf by an external commit. Made by the engine, not by the application.
    Renew = 10,
    /// Recreates the group.
    Reboot = 11,
    /// Changes the channel's policy.
    Policy = 12,
    /// The place of an addition that waits for a KeyPackage: later intents wait for it. Becomes an [`Intent::Add`].
    Await = 13,
    /// Replaces the leaf that this agent joined with, so that commits of others stay short. Made by the engine, not by
    /// the application.
    Refresh = 14,
}

impl Intent {
    pub(super) fn from_number(number: i64) -> Result<Self, VaultError> {
        [
            Self::Create,
            Self::Message,
            Self::Add,
            Self::Remove,
            Self::Update,
            Self::Leave,
            Self::Housekeeping,
            Self::Announce,
            Self::Rejoin,
            Self::Renew,
            Self::Reboot,
            Self::Policy,
            Self::Await,
            Self::Refresh,
        ]
        .into_iter()
        .find(|intent| *intent as i64 == number)
        .ok_or_else(|| VaultError::damaged("kind of an intent"))
    }

    pub(super) const fn is_commit(self) -> bool {
        matches!(
            self,
            Self::Add | Self::Remove | Self::Update | Self::Housekeeping | Self::Policy | Self::Refresh
        )
    }

    /// Whether it is encrypted, and changes nothing in the group.
    pub(super) const fn is_message(self) -> bool {
        matches!(self, Self::Message | Self::Announce)
    }

    /// Whether the application requested it, and gets its outcome.
    pub(super) const fn is_told(self) -> bool {
        !matches!(
            self,
            Self::Create
                | Self::Housekeeping
                | Self::Announce
                | Self::Rejoin
                | Self::Renew
                | Self::Await
                | Self::Refresh
        )
    }

    /// Whether the application may wait for it before it does anything else.
    pub(super) const fn is_awaited(self) -> bool {
        self.is_told() && !matches!(self, Self::Reboot)
    }

    /// Whether it is part of a recovery: it goes out before everything else.
    pub(super) const fn is_way_back(self) -> bool {
        matches!(self, Self::Rejoin | Self::Renew | Self::Reboot)
    }
}

/// An intent in the outbox.
#[derive(Debug, Clone)]
pub(super) struct OutboxRow {
    pub(super) seq: i64,
    pub(super) intent: Intent,
    pub(super) frame_id: FrameId,
    pub(super) sent_ms: u64,
    pub(super) attempts: u32,
    pub(super) encrypted_no: i64,
    /// The data to build it: the payload, the packages, the agents.
    pub(super) content: Bytes,
    /// The frame, built for the current head.
    pub(super) frame: Option<Bytes>,
    /// Hashes of frames built for it earlier, the last [`EARLIER_MAX`] of them: one may be in the log.
    pub(super) earlier: Vec<u8>,
    /// Properties of a message.
    pub(super) properties: Properties,
}

impl OutboxRow {
    /// Whether a frame was built for this intent.
    pub(super) fn has_built(&self, frame: &Bytes) -> bool {
        let (earlier, _) = self.earlier.as_chunks();
        self.frame.as_ref() == Some(frame) || earlier.contains(&Digest::hash_frame(frame))
    }

    /// Keeps the hash of a replaced frame, and drops the oldest one.
    pub(super) fn replaced(&mut self, frame: &Bytes) {
        let hash = Digest::hash_frame(frame);
        let over = (self.earlier.len() + hash.len()).saturating_sub(EARLIER_MAX * hash.len());
        self.earlier.drain(..over);
        self.earlier.extend(hash);
    }
}

/// Stored form of an addition's packages.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Packages {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(super) packages: Vec<Bytes>,
}

/// Place of a new intent in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Front,
    Back,
}

const COLUMNS: &str = "seq, kind, frame_id, sent_ms, attempts, encrypted_no, intent, frame, earlier, properties";

/// The rows that the index by kind has: all but messages, of which there may be very many. A query that repeats this
/// condition uses the index.
pub(super) const INDEXED: &str = "kind <> 2";

pub(super) fn read(row: &Row<'_>) -> Result<OutboxRow, EngineError> {
    let frame_id: Vec<u8> = row.get(2)?;
    Ok(OutboxRow {
        seq: row.get(0)?,
        intent: Intent::from_number(row.get(1)?)?,
        frame_id: id(&frame_id)?,
        sent_ms: unsigned(row.get(3)?)?,
        attempts: row.get(4)?,
        encrypted_no: row.get(5)?,
        content: row.get::<_, Vec<u8>>(6)?.into(),
        frame: row.get::<_, Option<Vec<u8>>>(7)?.map(Bytes::from),
        earlier: row.get::<_, Option<Vec<u8>>>(8)?.unwrap_or_default(),
        properties: Properties::from_column(row.get(9)?),
    })
}

impl Tx<'_> {
    /// Queues an intent.
    pub(super) fn queue(
        &self,
        channel: &mut Channel,
        intent: Intent,
        frame_id: FrameId,
        content: &[u8],
        place: Place,
    ) -> Result<OutboxRow, EngineError> {
        let end = |query| {
            self.sql
                .prepare_cached(query)?
                .query_row([channel.no], |row| row.get::<_, i64>(0))
        };
        let seq = match place {
            // Not before rows that were offered and are gone: the queue is resumed from there.
            Place::Back => {
                let last = end("SELECT coalesce(max(seq), 0) FROM outbox WHERE channel = ?1")?;
                channel.offered.next_seq.unwrap_or_default().max(last + 1)
            }
            Place::Front => end("SELECT coalesce(min(seq), 0) FROM outbox WHERE channel = ?1")? - 1,
        };
        let row = OutboxRow {
            seq,
            intent,
            frame_id,
            sent_ms: now_ms(),
            attempts: 0,
            encrypted_no: 0,
            content: Bytes::copy_from_slice(content),
            frame: None,
            earlier: Vec::new(),
            properties: Properties::default(),
        };
        self.sql
            .prepare_cached(
                "INSERT INTO outbox (channel, seq, kind, frame_id, sent_ms, attempts, encrypted_no, intent)
                 VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, ?6)",
            )?
            .execute(params![
                channel.no,
                row.seq,
                intent as i64,
                frame_id.as_bytes(),
                integer(row.sent_ms)?,
                content
            ])?;
        channel.waiting.rows += 1;
        channel.waiting.bytes += content.len() as u64;
        channel.waiting.unbuilt += 1;
        channel.waiting.changes += u64::from(!intent.is_message());
        Ok(row)
    }

    /// Queues a message: a payload with its properties.
    pub(super) fn queue_message(
        &self,
        channel: &mut Channel,
        frame_id: FrameId,
        (payload, properties): (&[u8], &Properties),
        place: Place,
    ) -> Result<OutboxRow, EngineError> {
        let mut row = self.queue(channel, Intent::Message, frame_id, payload, place)?;
        if let Some(column) = properties.to_column() {
            self.sql
                .prepare_cached("UPDATE outbox SET properties = ?3 WHERE channel = ?1 AND seq = ?2")?
                .execute(params![channel.no, row.seq, column])?;
            row.properties = properties.clone();
        }
        Ok(row)
    }

    /// Stores a frame built for an intent.
    pub(super) fn built(&self, channel: &mut Channel, row: &mut OutboxRow, frame: &Frame) -> Result<(), EngineError> {
        channel.position.encrypted_no += 1;
        row.encrypted_no = channel.position.encrypted_no;
        match row.frame.take() {
            Some(before) => row.replaced(&before),
            None => channel.waiting.unbuilt = channel.waiting.unbuilt.saturating_sub(1),
        }
        let earlier = (!row.earlier.is_empty()).then_some(&row.earlier);
        self.sql
            .prepare_cached(
                "UPDATE outbox SET frame = ?3, encrypted_no = ?4, earlier = ?5 WHERE channel = ?1 AND seq = ?2",
            )?
            .execute(params![
                channel.no,
                row.seq,
                frame.encoded().as_ref(),
                row.encrypted_no,
                earlier
            ])?;
        row.frame = Some(frame.encoded().clone());
        Ok(())
    }

    /// Removes an intent from the outbox.
    pub(super) fn unqueue(&self, channel: &mut Channel, row: &OutboxRow) -> Result<(), EngineError> {
        self.sql
            .prepare_cached("DELETE FROM outbox WHERE channel = ?1 AND seq = ?2")?
            .execute([channel.no, row.seq])?;
        let waiting = &mut channel.waiting;
        waiting.rows = waiting.rows.saturating_sub(1);
        waiting.bytes = waiting.bytes.saturating_sub(row.content.len() as u64);
        waiting.unbuilt = waiting.unbuilt.saturating_sub(u64::from(row.frame.is_none()));
        waiting.changes = waiting.changes.saturating_sub(u64::from(!row.intent.is_message()));
        channel.offered.accepted.remove(&row.frame_id);
        Ok(())
    }

    /// Fails an intent. It is kept in the list of failed sends.
    pub(super) fn fail(&mut self, channel: &mut Channel, row: &OutboxRow, code: Code) -> Result<(), EngineError> {
        self.unqueue(channel, row)?;
        // A channel that will never exist is reported, too.
        if !row.intent.is_told() && row.intent != Intent::Create {
            return Ok(());
        }
        let is_listed: bool = self
            .sql
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM failed WHERE channel = ?1 AND frame_id = ?2)")?
            .query_row(params![channel.no, row.frame_id.as_bytes()], |row| row.get(0))?;
        channel.failed += u64::from(!is_listed);
        self.sql
            .prepare_cached(
                "INSERT OR REPLACE INTO failed (channel, frame_id, code, kind, intent, failed_ms, properties)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                channel.no,
                row.frame_id.as_bytes(),
                code.number(),
                row.intent as i64,
                row.content.as_ref(),
                integer(now_ms())?,
                row.properties.to_column()
            ])?;
        self.events.push(Event::SendFailed {
            channel: channel.id,
            frame_id: row.frame_id,
            code,
        });
        Ok(())
    }

    /// Fails everything in the outbox.
    pub(super) fn fail_all(&mut self, channel: &mut Channel, code: Code) -> Result<(), EngineError> {
        while let Some(row) = self.rows_from(channel, None, 1)?.pop() {
            match row.intent {
                // It has what it asked for.
                Intent::Leave if code == Code::ChannelLeft => self.unneeded(channel, &row)?,
                _ => self.fail(channel, &row, code)?,
            }
        }
        Ok(())
    }

    /// Returns a place in the queue behind which no intent is built. Built ones are at the front: the rest of the queue
    /// is not read.
    pub(super) fn last_built(&self, channel: &Channel) -> Result<i64, EngineError> {
        let built = channel.waiting.rows.saturating_sub(channel.waiting.unbuilt);
        let last = self
            .sql
            .prepare_cached(
                "SELECT seq FROM outbox WHERE channel = ?1 AND frame IS NOT NULL ORDER BY seq LIMIT 1 OFFSET ?2",
            )?
            .query_row([channel.no, integer(built.saturating_sub(1))?], |row| row.get(0))
            .optional()?;
        Ok(last.unwrap_or(i64::MAX))
    }

    /// Returns the intent with a frame id.
    pub(super) fn row_of(&self, channel: &Channel, frame_id: FrameId) -> Result<Option<OutboxRow>, EngineError> {
        self.sql
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM outbox WHERE channel = ?1 AND frame_id = ?2"
            ))?
            .query_row(params![channel.no, frame_id.as_bytes()], |row| Ok(read(row)))
            .optional()?
            .transpose()
    }

    /// Returns the intents from a place in the queue on, at most `bytes_max` bytes in total (but at least one intent).
    pub(super) fn rows_from(
        &self,
        channel: &Channel,
        seq: Option<i64>,
        bytes_max: usize,
    ) -> Result<Vec<OutboxRow>, EngineError> {
        self.page_from(channel, seq, usize::MAX, bytes_max)
    }

    /// Like [`Tx::rows_from`], and at most `rows_max` intents. No other row is read.
    pub(super) fn page_from(
        &self,
        channel: &Channel,
        seq: Option<i64>,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<OutboxRow>, EngineError> {
        let mut statement = self.sql.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM outbox WHERE channel = ?1 AND seq >= ?2 ORDER BY seq"
        ))?;
        let mut rows = statement.query(params![channel.no, seq.unwrap_or(i64::MIN)])?;
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < rows_max
            && bytes < bytes_max
            && let Some(row) = rows.next()?
        {
            let row = read(row)?;
            bytes += row.frame.as_ref().map_or(row.content.len(), Bytes::len).max(1);
            taken.push(row);
        }
        Ok(taken)
    }

    /// Returns the intents of a kind, in the order of the queue. Not for messages: no index finds them by their kind.
    pub(super) fn rows_of(&self, channel: &Channel, intent: Intent) -> Result<Vec<OutboxRow>, EngineError> {
        self.sql
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM outbox WHERE channel = ?1 AND kind = ?2 AND {INDEXED} ORDER BY seq"
            ))?
            .query_map(params![channel.no, intent as i64], |row| Ok(read(row)))?
            .collect::<Result<Result<_, _>, _>>()?
    }

    /// Returns the first intent of a kind. Like [`Tx::rows_of`], not for messages.
    pub(super) fn first_of(&self, channel: &Channel, intent: Intent) -> Result<Option<OutboxRow>, EngineError> {
        self.sql
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM outbox WHERE channel = ?1 AND kind = ?2 AND {INDEXED} ORDER BY seq LIMIT 1"
            ))?
            .query_row(params![channel.no, intent as i64], |row| Ok(read(row)))
            .optional()?
            .transpose()
    }

    /// Returns the first intent of a kind with this content. Like [`Tx::rows_of`], not for messages.
    pub(super) fn row_with(
        &self,
        channel: &Channel,
        intent: Intent,
        content: &[u8],
    ) -> Result<Option<OutboxRow>, EngineError> {
        self.sql
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM outbox WHERE channel = ?1 AND kind = ?2 AND {INDEXED} AND intent = ?3
                 ORDER BY seq LIMIT 1"
            ))?
            .query_row(params![channel.no, intent as i64, content], |row| Ok(read(row)))
            .optional()?
            .transpose()
    }

    /// Whether an intent of a kind is queued. Like [`Tx::rows_of`], not for messages.
    pub(super) fn waits(&self, channel: &Channel, intent: Intent) -> Result<bool, EngineError> {
        Ok(self
            .sql
            .prepare_cached(&format!(
                "SELECT EXISTS (SELECT 1 FROM outbox WHERE channel = ?1 AND kind = ?2 AND {INDEXED})"
            ))?
            .query_row(params![channel.no, intent as i64], |row| row.get(0))?)
    }
}

/// Converts payloads to messages without properties.
fn plain<'a>(
    payloads: impl Iterator<Item = &'a [u8]> + Clone,
) -> impl Iterator<Item = (&'a [u8], &'a Properties)> + Clone {
    const NOTHING: &Properties = &Properties {
        reply_to: None,
        content_type: None,
    };
    payloads.map(|payload| (payload, NOTHING))
}

impl Engine {
    /// Queues a message. It is durable when this returns. Messages go out in the order of the calls.
    pub fn send(&mut self, channel: ChannelId, payload: &[u8]) -> Result<FrameId, EngineError> {
        let ids = self.queue_messages(channel, plain(std::iter::once(payload)), None, None)?;
        ids.first().copied().ok_or(EngineError::Change {
            problem: "nothing to send",
        })
    }

    /// Queues several messages in one transaction: all of them, or none.
    pub fn send_many(&mut self, channel: ChannelId, payloads: &[Bytes]) -> Result<Vec<FrameId>, EngineError> {
        self.queue_messages(channel, plain(payloads.iter().map(Bytes::as_ref)), None, None)
    }

    /// Queues messages. `send_id` is the application's id of a single message, and `ack` the message to acknowledge
    /// with it.
    pub(super) fn queue_messages<'a>(
        &mut self,
        id: ChannelId,
        messages: impl Iterator<Item = (&'a [u8], &'a Properties)> + Clone,
        send_id: Option<&str>,
        ack: Option<Ack>,
    ) -> Result<Vec<FrameId>, EngineError> {
        let (mut count, mut bytes) = (0, 0);
        for (payload, _) in messages.clone() {
            if payload.len() > PAYLOAD_BYTES_MAX {
                return Err(EngineError::PayloadTooLarge {
                    bytes: payload.len(),
                    limit: PAYLOAD_BYTES_MAX,
                });
            }
            count += 1;
            bytes += payload.len() as u64;
        }
        self.check_room(id, count, bytes)?;
        let (ids, _) = self.transact_on(id, Durability::Now, |tx, channel| {
            tx.provider.defer_secrets();
            if let Some(ack) = ack {
                tx.ack(channel, ack)?;
            }
            messages
                .map(|message| {
                    let frame_id = FrameId::generate();
                    let at_once = channel.waiting.unbuilt == 0
                        && channel.waiting.changes == 0
                        && channel.waiting.rows < u64::from(tx.config.encrypted_ahead_max);
                    let mut row = tx.queue_message(channel, frame_id, message, Place::Back)?;
                    if let Some(send_id) = send_id {
                        tx.remember(channel.no, send_id, frame_id)?;
                    }
                    if at_once && channel.can_encrypt() {
                        tx.encrypt(channel, &mut row)?;
                    }
                    Ok(frame_id)
                })
                .collect::<Result<Vec<_>, EngineError>>()
        })?;
        Ok(ids)
    }

    /// Fails if a channel accepts no messages, or not this many more.
    pub(super) fn check_room(&mut self, id: ChannelId, count: u64, bytes: u64) -> Result<(), EngineError> {
        let (rows_max, bytes_max) = (self.config.outbox_messages_max, self.config.outbox_bytes_max);
        let waiting = self.sendable(id)?.waiting;
        if waiting.rows + count > rows_max || waiting.bytes + bytes > bytes_max {
            return Err(EngineError::OutboxFull { channel: id });
        }
        Ok(())
    }

    /// Queues the addition of agents, each with a KeyPackage claimed from it. Agents that are members when the commit
    /// is built are skipped; if none remain, [`Event::Unneeded`] reports it.
    pub fn add(&mut self, channel: ChannelId, packages: Vec<ClaimedPackage>) -> Result<FrameId, EngineError> {
        self.sendable(channel)?;
        if packages.is_empty() || packages.len() > ROSTER_CHANGE_MAX {
            return Err(EngineError::Change {
                problem: "one commit adds between 1 and 4,096 agents",
            });
        }
        self.check_right(channel, Right::Add)?;
        let mut agents: Vec<AgentId> = Vec::with_capacity(packages.len());
        let mut intent = Packages::default();
        for package in packages {
            if package.agent == self.agent_id() || agents.contains(&package.agent) {
                return Err(EngineError::Change {
                    problem: "an agent is added twice, or is this one",
                });
            }
            intent.packages.push(self.check_claimed(&package)?);
            agents.push(package.agent);
        }
        self.queue_change(channel, Intent::Add, &intent.encode_to_vec())
    }

    /// Returns the KeyPackage of a claimed frame if it is usable: it is its owner's, and valid by its signed lifetime
    /// and by this agent's own limit.
    pub(crate) fn check_claimed(&self, package: &ClaimedPackage) -> Result<Bytes, EngineError> {
        let agent = package.agent;
        let foreign = |problem: String| EngineError::KeyPackageForeign { agent, problem };
        let frame = Frame::decode(package.frame.clone()).map_err(|error| foreign(error.to_string()))?;
        let header = frame.header();
        if !matches!(header.detail, Detail::KeyPackage { .. }) || header.log != agent.log() || header.author != agent {
            return Err(foreign("the frame is not one of its key packages".into()));
        }
        let provider = mls::Provider::new(&self.crypto, self.vault.sql());
        let (owner, key_package) = mls::added_package(&provider, frame.body()).map_err(foreign)?;
        if owner != agent {
            return Err(foreign(format!("it is {owner}'s")));
        }
        let life = mls::Life::of(&key_package).map_err(foreign)?;
        let (now_ms, limit_ms) = (self.clocks.now_ms(), millis(self.config.key_package_lifetime));
        // A package of an older version has no time: the time in its frame id is used.
        let made_ms = life.map_or_else(|| made_ms(header.id), |life| life.made_s.saturating_mul(1_000));
        let signed_ms = life.map_or(u64::MAX, |life| life.expires_s.saturating_mul(1_000));
        let expires_ms = signed_ms.min(made_ms.saturating_add(limit_ms));
        if now_ms >= expires_ms {
            return Err(EngineError::KeyPackageExpired {
                agent,
                age_s: now_ms.saturating_sub(made_ms) / 1_000,
                limit_s: expires_ms.saturating_sub(made_ms) / 1_000,
            });
        }
        // A clock that is ahead gives packages a time that never ends.
        if life.is_some() && made_ms > now_ms.saturating_add(millis(CLOCKS_DIFFER_MAX)) {
            return Err(EngineError::KeyPackageEarly {
                agent,
                ahead_s: (made_ms - now_ms) / 1_000,
            });
        }
        Ok(frame.body().clone())
    }

    /// Queues the removal of agents. Agents that are not members when the commit is built are skipped, except that an
    /// agent only on the log's roster is removed from it. Deferred additions of these agents are cancelled.
    pub fn remove(&mut self, channel: ChannelId, agents: &[AgentId]) -> Result<FrameId, EngineError> {
        self.sendable(channel)?;
        if agents.is_empty() || agents.len() > ROSTER_CHANGE_MAX {
            return Err(EngineError::Change {
                problem: "one commit removes between 1 and 4,096 agents",
            });
        }
        if agents.contains(&self.agent_id()) {
            return Err(EngineError::Change {
                problem: "an agent does not remove itself: it leaves",
            });
        }
        self.check_removal(channel, agents)?;
        let intent: Vec<u8> = agents.iter().flat_map(|agent| *agent.as_bytes()).collect();
        let (frame_id, _) = self.transact_on(channel, Durability::Now, |tx, channel| {
            // Nobody waits for the addition of an agent that is to be removed.
            tx.cancel_add(channel, agents)?;
            let frame_id = FrameId::generate();
            tx.queue(channel, Intent::Remove, frame_id, &intent, Place::Back)?;
            Ok(frame_id)
        })?;
        Ok(frame_id)
    }

    /// Queues an update of this agent's own keys in the group (post-compromise security, RFC 9420 section 16.6).
    pub fn update_keys(&mut self, channel: ChannelId) -> Result<FrameId, EngineError> {
        self.sendable(channel)?;
        self.queue_change(channel, Intent::Update, &[])
    }

    /// Queues leaving: a proposal that another member commits. Items queued earlier go out first. If the agent is the
    /// only member, the next call of [`Engine::leave_alone`] or [`Engine::next_frames`] ends its membership at once,
    /// and its queued items with it.
    ///
    /// The last admin of a channel with other members must name another one first ([`Code::LastAdmin`]).
    pub fn leave(&mut self, channel: ChannelId) -> Result<FrameId, EngineError> {
        let own = self.agent_id();
        let group = self.sendable(channel)?.group.as_ref();
        if group.is_some_and(|group| super::roles::is_last_admin(group, &own)) {
            return Err(EngineError::LastAdmin { channel });
        }
        let (frame_id, _) = self.transact_on(channel, Durability::Now, |tx, channel| {
            // A leaving agent adds nobody.
            tx.unhold_all(channel)?;
            let frame_id = FrameId::generate();
            tx.queue(channel, Intent::Leave, frame_id, &[], Place::Back)?;
            if channel.position.state == ChannelState::Active {
                channel.position.state = ChannelState::Leaving;
            }
            Ok(frame_id)
        })?;
        Ok(frame_id)
    }

    pub(super) fn queue_change(
        &mut self,
        channel: ChannelId,
        intent: Intent,
        content: &[u8],
    ) -> Result<FrameId, EngineError> {
        let (frame_id, _) = self.transact_on(channel, Durability::Now, |tx, channel| {
            let frame_id = FrameId::generate();
            tx.queue(channel, intent, frame_id, content, Place::Back)?;
            Ok(frame_id)
        })?;
        Ok(frame_id)
    }

    /// Returns a channel that accepts messages; fails otherwise.
    pub(super) fn sendable(&mut self, id: ChannelId) -> Result<&mut Channel, EngineError> {
        let channel = self.loaded(id)?;
        match channel.position.state {
            _ if channel.position.recovery.standing == Standing::Superseded => {
                Err(EngineError::Superseded { channel: id })
            }
            ChannelState::Creating | ChannelState::Active => Ok(channel),
            ChannelState::Leaving | ChannelState::Left => Err(EngineError::ChannelLeft { channel: id }),
        }
    }
}

/// Returns a frame's creation time, unix milliseconds: the first 48 bits of its id (RFC 9562 section 5.7).
fn made_ms(frame_id: FrameId) -> u64 {
    frame_id
        .as_bytes()
        .iter()
        .take(6)
        .fold(0, |ms, byte| (ms << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_an_intents_frames_are_known_and_no_more_are_kept() {
        let frame = |number: usize| Bytes::from(number.to_string());
        let newest = 2 * EARLIER_MAX;
        let mut row = OutboxRow {
            seq: 1,
            intent: Intent::Message,
            frame_id: FrameId::generate(),
            sent_ms: 0,
            attempts: 0,
            encrypted_no: 0,
            content: Bytes::new(),
            frame: Some(frame(newest)),
            earlier: Vec::new(),
            properties: Properties::default(),
        };
        for number in 0..newest {
            row.replaced(&frame(number));
        }
        let known: Vec<usize> = (0..=newest + 1)
            .filter(|number| row.has_built(&frame(*number)))
            .collect();
        assert_eq!(known, (newest - EARLIER_MAX..=newest).collect::<Vec<_>>());
    }
}
