//! The agent's own log: KeyPackages it offers, Welcomes it receives.

use super::channel::Channel;
use super::clock::millis;
use super::evidence::AGENT_LOG_NO;
use super::lost::{LogStatus, LostReason};
use super::rejoin::read_bundle;
use super::replay::contiguous;
use super::requests::{Decision, JoinRequest};
use super::standing::{Recovery, Standing};
use super::stock::Shelf;
use super::transact::{Tx, now_ms, storage_failed};
use super::window::Window;
use super::{ChannelState, Engine, EngineError, Event, Outcome, PendingJoin, Processed, UnreadableCause};
use crate::mls::{self, unreadable};
use crate::vault::{Durability, VaultError, id, integer, unsigned};
use bytes::Bytes;
use openmls::group::MlsGroup;
use openmls_traits::OpenMlsProvider as _;
use openmls_traits::storage::StorageProvider as _;
use rusqlite::{OptionalExtension, params};
use skytale_proto::limits::{KEY_PACKAGES_MAX, RETENTION};
use skytale_proto::{AgentId, ChannelId, Detail, Frame, FrameId, Header, Offset, Policy, Record};
use zeroize::Zeroizing;

/// Number of out-of-sync channels up to which a broken Welcome may add another one, so that broken Welcomes cannot fill
/// a vault.
const APART_MAX: i64 = 256;

impl Engine {
    /// Processes entries of the agent's own log. Entries up to the cursor are skipped.
    pub fn process_agent_entries(&mut self, records: &[Record]) -> Result<Processed, EngineError> {
        let cursor = self.agent_cursor;
        let (fresh, gap) = contiguous(cursor, records);
        let Some(last) = fresh.last().map(|record| record.offset) else {
            return Ok(Processed {
                events: Vec::new(),
                cursor,
                gap,
            });
        };
        let shelf = self.shelf();
        let ((), events) = self.transact(Durability::Later, |tx| {
            for record in fresh {
                tx.agent_entry(record, shelf)?;
            }
            set_agent_cursor(tx, last)
        })?;
        self.agent_cursor = last;
        Ok(Processed {
            events,
            cursor: last,
            gap,
        })
    }

    /// Lists the bundles to fetch and pass to [`Engine::join`], oldest first. Durable until joined. A channel that this
    /// agent still considers itself a member of is listed only after the entry that removed it has been processed.
    /// Requests to be accepted are not listed: see [`Engine::requests`].
    pub fn pending_joins(&self) -> Result<Vec<PendingJoin>, EngineError> {
        let mut statement = self.vault.sql().prepare_cached(
            "SELECT j.channel, min(j.at) FROM pending_join j LEFT JOIN channel c ON c.id = j.channel
             WHERE j.decision <> ?1 AND (c.no IS NULL OR (c.state = 4 AND c.cursor < j.at))
             GROUP BY j.channel ORDER BY min(j.no)",
        )?;
        let rows = statement.query_map([Decision::Waits as i64], |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?))
        })?;
        rows.map(|row| {
            let (channel, offset) = row?;
            Ok(PendingJoin {
                channel: id(&channel)?,
                offset: Offset::new(unsigned(offset)?),
            })
        })
        .collect()
    }

    /// Joins a channel by the bundle at a pending join's offset. An unusable Welcome is recorded, reported as
    /// [`Event::EntryUnreadable`], and no longer pending. A Welcome by an untrusted agent waits to be accepted, and is
    /// reported as [`Event::Requested`]: see [`Engine::requests`].
    pub fn join(&mut self, channel: ChannelId, bundle: &Record) -> Result<Vec<Event>, EngineError> {
        let wrong = |problem: &str| EngineError::Entry {
            offset: bundle.offset,
            problem: problem.to_owned(),
        };
        let wanted = PendingJoin {
            channel,
            offset: bundle.offset,
        };
        if !self.pending_joins()?.contains(&wanted) {
            return Err(wrong("no join is pending at this offset"));
        }
        let frame = Frame::decode(bundle.payload.clone())?;
        let own = self.agent_id();
        let is_for_this_agent =
            matches!(&frame.header().detail, Detail::Commit { recipients, .. } if recipients.contains(&own));
        if frame.header().log != channel.log() || !is_for_this_agent {
            return Err(wrong("not a bundle with a Welcome to this agent"));
        }
        self.loaded.remove(&channel);
        let (joined, events) = self.transact(Durability::Now, |tx| tx.join(channel, bundle.offset, &frame))?;
        if let Some(joined) = joined {
            self.put_back(joined);
        }
        Ok(events)
    }

    /// Abandons a pending join whose bundle is unavailable. It is recorded like an unusable Welcome.
    pub fn abandon_join(&mut self, join: PendingJoin, reason: &str) -> Result<Vec<Event>, EngineError> {
        let ((), events) = self.transact(Durability::Now, |tx| {
            tx.give_up_join(join.channel, join.offset, None, reason.to_owned())
        })?;
        Ok(events)
    }

    /// Handles a pending join whose bundle was trimmed from the channel's log: the agent follows the rest of the log,
    /// and asks to be added again.
    pub fn join_trimmed(&mut self, join: PendingJoin, status: &LogStatus) -> Result<Vec<Event>, EngineError> {
        self.loaded.remove(&join.channel);
        let (joined, events) = self.transact(Durability::Now, |tx| {
            let reason = "the log no longer keeps it".to_owned();
            let behind = status.first.previous();
            let decision = tx.decision(join.channel, join.offset)?;
            if decision == Decision::None && !tx.trusts(None)?.0 {
                // The author is unknown.
                let request = JoinRequest::now(join.channel, join.offset, None, None, None);
                if tx.hold_request(request)? {
                    return Ok(None);
                }
            }
            tx.give_up_join(join.channel, join.offset, None, reason)?;
            let may_follow = decision == Decision::Accepted || tx.trusts(None)?.0;
            if behind < join.offset || !may_follow {
                return Ok(None);
            }
            let head = Some(status.handshake_head)
                .filter(|head| *head <= behind)
                .unwrap_or(Offset::ZERO);
            let reason = "the log no longer keeps the Welcome to this channel".to_owned();
            let Some(channel) = tx.join_apart(join.channel, join.offset, behind, head, reason)? else {
                return Ok(None);
            };
            tx.lose(
                &channel,
                join.offset,
                status.given_up.max(join.offset),
                LostReason::Trimmed,
            )?;
            tx.sql
                .prepare_cached("DELETE FROM pending_join WHERE channel = ?1 AND at <= ?2")?
                .execute(params![join.channel.as_bytes(), integer(behind.get())?])?;
            Ok(Some(channel))
        })?;
        if let Some(joined) = joined {
            self.put_back(joined);
        }
        Ok(events)
    }

    /// Returns the KeyPackage frames to append to the agent's own log, given the relay's count of its stock: none while
    /// the packages not due for replacement are above the low-water mark. Frames returned earlier without an outcome
    /// are returned again, unchanged.
    pub fn key_packages_wanted(&mut self, live: u32, last_resort: bool) -> Result<Vec<Frame>, EngineError> {
        let shelf = self.shelf();
        let (frames, _) = self.transact(Durability::Now, |tx| tx.key_packages_wanted(live, last_resort, shelf))?;
        Ok(frames)
    }

    /// Handles the relay's answer to a frame of [`Engine::key_packages_wanted`].
    pub fn key_package_outcome(&mut self, frame_id: FrameId, outcome: Outcome) -> Result<(), EngineError> {
        self.transact(Durability::Now, |tx| match outcome {
            Outcome::Appended { offset } | Outcome::Duplicate { offset } => {
                tx.key_package_offered(frame_id, offset).map(drop)
            }
            Outcome::Refused { retryable: true, .. } => Ok(()),
            Outcome::StaleEpoch { .. }
            | Outcome::StaleHandshake { .. }
            | Outcome::RosterChange { .. }
            | Outcome::Refused { .. } => tx.forget_key_package(frame_id),
        })?;
        Ok(())
    }

    /// Returns a frame that claims one KeyPackage of another agent. If the answer is lost, append the same frame again.
    pub fn claim_frame(&self, agent: AgentId) -> Result<Frame, EngineError> {
        let header = Header {
            log: agent.log(),
            id: FrameId::generate(),
            author: self.agent_id(),
            parent: Offset::ZERO,
            detail: Detail::KeyPackageClaim {
                account: self.account()?,
            },
        };
        Ok(Frame::new(header, Bytes::new())?)
    }
}

pub(super) fn agent_cursor(sql: &rusqlite::Connection) -> Result<Offset, VaultError> {
    let cursor = sql
        .query_row("SELECT value FROM meta WHERE key = 'agent_cursor'", [], |row| {
            row.get(0)
        })
        .optional()?
        .unwrap_or(0);
    Ok(Offset::new(unsigned(cursor)?))
}

pub(super) fn set_agent_cursor(tx: &Tx<'_>, cursor: Offset) -> Result<(), EngineError> {
    tx.sql
        .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES ('agent_cursor', ?1)")?
        .execute([integer(cursor.get())?])?;
    Ok(())
}

impl Tx<'_> {
    fn agent_entry(&mut self, record: &Record, shelf: Shelf) -> Result<(), EngineError> {
        let own = self.identity.agent_id();
        let frame = match Frame::decode(record.payload.clone()) {
            Ok(frame) if frame.header().log == own.log() => frame,
            Ok(frame) => {
                let why = (UnreadableCause::Malformed, "a frame of another log".to_owned());
                return self.keep_unreadable(None, AGENT_LOG_NO, record.offset, Some(frame.header().id), why);
            }
            Err(error) => {
                let why = (UnreadableCause::Malformed, error.to_string());
                return self.keep_unreadable(None, AGENT_LOG_NO, record.offset, None, why);
            }
        };
        let header = frame.header();
        match header.detail {
            Detail::Welcome { channel, offset, .. } => {
                self.note_welcome(integer(record.offset.get())?, channel, offset)
            }
            Detail::KeyPackage { last_resort, .. } => {
                self.key_package_in_log(header.id, last_resort, record.offset, shelf)
            }
            Detail::KeyPackageClaim { account: Some(account) } if header.author != own => {
                self.note_claimer(&header.author, &account, record.offset)
            }
            Detail::KeyPackagePolicy { .. } if header.author == own => self.policy_in_log(header.id, &header.detail),
            _ => Ok(()),
        }
    }

    /// Records a Welcome, from the agent's log or from a relay node after its entry was trimmed.
    pub(super) fn note_welcome(&self, no: i64, channel: ChannelId, bundle: Offset) -> Result<(), EngineError> {
        let known = self
            .sql
            // The log of a channel that this agent has left may have gone back since, and its cursor with it.
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM channel WHERE id = ?1 AND CASE state WHEN ?3 THEN joined ELSE cursor END >= ?2)",
            )?
            .query_row(
                params![
                    channel.as_bytes(),
                    integer(bundle.get())?,
                    super::channel::state_number(ChannelState::Left)
                ],
                |row| row.get::<_, bool>(0),
            )?;
        if !known {
            self.sql
                .prepare_cached(
                    "INSERT INTO pending_join (no, channel, at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                )?
                .execute(params![no, channel.as_bytes(), integer(bundle.get())?])?;
        }
        Ok(())
    }

    fn join(&mut self, id: ChannelId, offset: Offset, frame: &Frame) -> Result<Option<Channel>, EngineError> {
        let header = frame.header();
        let decision = self.decision(id, offset)?;
        let (is_trusted, account) = self.trusts(Some(&header.author))?;
        let scratch = self.provider.scratch(None);
        let welcomed = read_bundle(frame)
            .map_err(unreadable)
            .and_then(|bundle| mls::welcomed(&scratch, id, frame, &bundle.welcome, self.config.padding_bytes));
        if let Some(failure) = scratch.failure() {
            return Err(storage_failed(failure));
        }
        let welcomed = match welcomed {
            Ok(welcomed) => welcomed,
            Err(rejected) => {
                let reason = rejected.into_reason()?;
                // The KeyPackage stays: the Welcome that it was meant for may still arrive.
                self.give_up_join(id, offset, Some(header.id), reason.clone())?;
                if decision == Decision::Declined || !(is_trusted || decision == Decision::Accepted) {
                    // Its author is not known to be a member, so its claim that this agent is one is not believed.
                    return Ok(None);
                }
                return self.join_apart(
                    id,
                    offset,
                    offset,
                    offset,
                    format!("the Welcome cannot be used: {reason}"),
                );
            }
        };
        if decision == Decision::None && !is_trusted {
            let members = u32::try_from(welcomed.members.len()).ok();
            let request = JoinRequest::now(id, offset, Some(header.author), account, members);
            if !self.hold_request(request)? {
                let reason = "too many additions wait to be accepted".to_owned();
                self.give_up_join(id, offset, Some(header.id), reason)?;
            }
            return Ok(None);
        }
        self.provider.absorb(&scratch);
        let mut channel = match Channel::load(self.sql, self.provider, id)? {
            Some(channel) if channel.position.state == ChannelState::Left => channel,
            Some(_) => {
                return Err(EngineError::Entry {
                    offset,
                    problem: "this agent is in the channel".into(),
                });
            }
            None => Channel::new(self.sql, id, "")?,
        };
        if channel.position.cursor > offset {
            // The log went back while this agent was not in the channel.
            self.set_aside(&mut channel, offset)?;
            channel.position.acked = channel.position.acked.min(offset);
        }
        self.forget_undone(&mut channel)?;
        channel.position.state = ChannelState::Active;
        channel.position.cursor = offset;
        channel.position.head = offset;
        channel.position.epoch = welcomed.group.epoch().as_u64();
        channel.position.reboot = welcomed.reboot;
        channel.position.recovery = Recovery::default();
        channel.position.joined = offset;
        channel.position.applied = offset;
        channel.position.removed.clear();
        channel.position.drift = super::drift::Drift::default();
        channel.window = Window::joined(offset);
        channel.group = Some(welcomed.group);
        self.settle_decision(&mut channel, decision)?;
        channel.save(self.sql, self.provider)?;
        self.sql
            .prepare_cached("DELETE FROM pending_join WHERE channel = ?1 AND at <= ?2")?
            .execute(params![id.as_bytes(), integer(offset.get())?])?;
        self.invite(&channel, offset, &header.author)?;
        self.events.push(Event::Joined {
            channel: id,
            offset,
            by: header.author,
        });
        Ok(Some(channel))
    }

    /// Joins a channel out of sync: this agent is on the roster without a working Welcome, so it follows the log and
    /// asks to be added again. `None` if it already does so in too many channels.
    fn join_apart(
        &mut self,
        id: ChannelId,
        joined: Offset,
        cursor: Offset,
        head: Offset,
        reason: String,
    ) -> Result<Option<Channel>, EngineError> {
        let apart: i64 = self
            .sql
            .prepare_cached("SELECT count(*) FROM channel WHERE standing = ?1")?
            .query_row([Standing::OutOfSync as i64], |row| row.get(0))?;
        if apart >= APART_MAX {
            return Ok(None);
        }
        let mut channel = match Channel::load(self.sql, self.provider, id)? {
            Some(channel) if channel.position.state == ChannelState::Left => channel,
            Some(_) => return Ok(None),
            None => Channel::new(self.sql, id, "")?,
        };
        channel.position.state = ChannelState::Active;
        channel.position.cursor = cursor;
        channel.position.joined = joined;
        channel.position.head = head;
        channel.position.drift = super::drift::Drift::default();
        channel.window = Window::joined(cursor);
        self.out_of_sync(&mut channel, cursor.next(), reason)?;
        channel.position.recovery.unsure = head == Offset::ZERO;
        channel.save(self.sql, self.provider)?;
        Ok(Some(channel))
    }

    fn give_up_join(
        &mut self,
        channel: ChannelId,
        offset: Offset,
        frame_id: Option<FrameId>,
        reason: String,
    ) -> Result<(), EngineError> {
        let at = params![channel.as_bytes(), integer(offset.get())?];
        let no: Option<i64> = self
            .sql
            .prepare_cached("DELETE FROM pending_join WHERE channel = ?1 AND at = ?2 RETURNING no")?
            .query_row(at, |row| row.get(0))
            .optional()?;
        let Some(no) = no else { return Ok(()) };
        let reason = format!("the Welcome to channel {channel} at {offset} cannot be used: {reason}");
        // A Welcome whose own entry is gone has a negative number.
        let at = Offset::new(u64::try_from(no).unwrap_or_default());
        self.keep_unreadable(None, AGENT_LOG_NO, at, frame_id, (UnreadableCause::Welcome, reason))
    }

    // ---- KeyPackages

    fn key_packages_wanted(&mut self, live: u32, last_resort: bool, shelf: Shelf) -> Result<Vec<Frame>, EngineError> {
        self.forget_old_key_packages(shelf)?;
        let due = self.on_offer(shelf, live)?.due;
        let mut frames = self.unanswered_key_packages()?;
        let unanswered = |frames: &[Frame], kind: bool| {
            let is = |frame: &&Frame| matches!(frame.header().detail, Detail::KeyPackage { last_resort, .. } if last_resort == kind);
            u32::try_from(frames.iter().filter(is).count()).unwrap_or(u32::MAX)
        };
        let taken = live.saturating_add(unanswered(&frames, false));
        let stock = taken.saturating_sub(due);
        if stock < self.config.key_packages_low {
            // One place is for the last resort.
            let places = u32::try_from(KEY_PACKAGES_MAX).unwrap_or(u32::MAX).saturating_sub(1);
            let wanted = self.config.key_packages_target.min(places).saturating_sub(stock);
            for _ in 0..wanted.min(places.saturating_sub(taken)) {
                frames.push(self.make_key_package(shelf, false)?);
            }
        }
        if unanswered(&frames, true) == 0 && (!last_resort || self.last_resort_is_due(shelf)?) {
            frames.push(self.make_key_package(shelf, true)?);
        }
        Ok(frames)
    }

    fn unanswered_key_packages(&self) -> Result<Vec<Frame>, EngineError> {
        self.sql
            .prepare_cached("SELECT frame FROM key_package WHERE frame IS NOT NULL ORDER BY frame_id")?
            .query_map([], |row| row.get::<_, Vec<u8>>(0))?
            .map(|frame| Ok(Frame::decode(frame?.into())?))
            .collect()
    }

    /// Creates a KeyPackage for a request to rejoin. It is not on offer; its private keys are stored like those of
    /// others.
    pub(super) fn key_package_for_rejoin(&self) -> Result<Vec<u8>, EngineError> {
        let now_ms = now_ms();
        let shelf = Shelf {
            now_ms,
            own_ms: now_ms,
            lifetime_ms: millis(self.config.key_package_lifetime),
        };
        let frame = self.make_key_package(shelf, false)?;
        // It is nowhere in the agent's log.
        self.key_package_offered(frame.header().id, Offset::ZERO)?;
        Ok(frame.body().to_vec())
    }

    fn make_key_package(&self, shelf: Shelf, last_resort: bool) -> Result<Frame, EngineError> {
        let (own, life) = (self.identity.agent_id(), shelf.life());
        let (package, reference) = mls::key_package(self.provider, self.identity, life, last_resort)
            .map_err(|error| EngineError::mls("making a key package", error))?;
        let header = Header {
            log: own.log(),
            id: FrameId::generate(),
            author: own,
            parent: Offset::ZERO,
            detail: Detail::KeyPackage {
                last_resort,
                account: super::consent::account(self.sql)?,
            },
        };
        let frame = Frame::new(header, package)?;
        let mut encoded = Vec::new();
        ciborium::into_writer(&reference, &mut encoded)
            .map_err(|error| EngineError::mls("encoding a reference", error))?;
        self.sql
            .prepare_cached(
                "INSERT INTO key_package (frame_id, reference, made_ms, last_resort, frame, expires_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                frame.header().id.as_bytes(),
                encoded,
                integer(life.made_s.saturating_mul(1_000))?,
                last_resort,
                frame.encoded().as_ref(),
                integer(life.expires_s.saturating_mul(1_000)).unwrap_or(i64::MAX)
            ])?;
        Ok(frame)
    }

    /// Handles a frame in the agent's log. Returns whether it has a KeyPackage that this vault knows.
    pub(super) fn key_package_offered(&self, frame_id: FrameId, at: Offset) -> Result<bool, EngineError> {
        let known = self
            .sql
            .prepare_cached("UPDATE key_package SET frame = NULL, at = ?2 WHERE frame_id = ?1")?
            .execute(params![frame_id.as_bytes(), integer(at.get())?])?;
        Ok(known > 0)
    }

    pub(super) fn forget_key_package(&self, frame_id: FrameId) -> Result<(), EngineError> {
        let reference = self
            .sql
            .prepare_cached("DELETE FROM key_package WHERE frame_id = ?1 RETURNING reference")?
            .query_row([frame_id.as_bytes()], |row| {
                row.get::<_, Vec<u8>>(0).map(Zeroizing::new)
            })
            .optional()?;
        // A package made by another vault has none.
        let Some(reference) = reference.filter(|reference| !reference.is_empty()) else {
            return Ok(());
        };
        let reference: openmls::prelude::KeyPackageRef = ciborium::from_reader(reference.as_slice())
            .map_err(|error| VaultError::damaged(format!("reference of a key package: {error}")))?;
        self.provider.storage().delete_key_package(&reference)?;
        Ok(())
    }

    /// Deletes private keys that no Welcome can need any more: nobody may use the KeyPackage now, and no log keeps a
    /// Welcome that old.
    fn forget_old_key_packages(&self, shelf: Shelf) -> Result<(), EngineError> {
        let retention = u64::try_from(RETENTION.as_millis()).unwrap_or(u64::MAX);
        let before = shelf
            .own_ms
            .saturating_sub(shelf.lifetime_ms.saturating_add(retention.saturating_mul(2)));
        let old: Vec<Vec<u8>> = self
            .sql
            .prepare_cached("SELECT frame_id FROM key_package WHERE made_ms < ?1")?
            .query_map([integer(before)?], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for frame_id in old {
            self.forget_key_package(id(&frame_id)?)?;
        }
        Ok(())
    }
}

/// Creates a channel: its group, and its Create in the outbox.
pub(super) fn create(tx: &Tx<'_>, id: ChannelId, label: &str, policy: &Policy) -> Result<Channel, EngineError> {
    let config = mls::create_config(tx.config.padding_bytes, Some(policy))
        .map_err(|error| EngineError::mls("making a group", error))?;
    let group = MlsGroup::new_with_group_id(
        tx.provider,
        tx.identity,
        &config,
        mls::group_id(id, 0),
        tx.identity.credential(),
    )
    .map_err(|error| EngineError::mls("making a group", error))?;
    let mut channel = Channel::new(tx.sql, id, label)?;
    channel.group = Some(group);
    channel.save(tx.sql, tx.provider)?;
    tx.queue(
        &mut channel,
        super::outbox::Intent::Create,
        FrameId::generate(),
        &[],
        super::outbox::Place::Back,
    )?;
    Ok(channel)
}
