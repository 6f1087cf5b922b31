//! A channel in memory: its row, its group, its digests, and its frames in flight.

use super::drift::Drift;
use super::standing::{Recovery, Standing};
use super::window::Window;
use super::{ChannelState, EngineError, Rollback, Settled};
use crate::mls::{self, Seen};
use crate::vault::{VaultError, id, integer, unsigned};
use openmls::group::MlsGroup;
use rusqlite::{Connection, OptionalExtension, Row};
use skytale_proto::{AgentId, ChannelId, Digest, FrameId, LogId, Offset};
use std::collections::{BTreeMap, BTreeSet};

/// A channel's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) label: String,
    pub(super) state: ChannelState,
    pub(super) cursor: Offset,
    pub(super) head: Offset,
    pub(super) epoch: u64,
    /// The digest at the cursor.
    pub(super) digest: Option<Digest>,
    /// Counts encryptions, so that frames of one epoch can be put in the order of their ratchet.
    pub(super) encrypted_no: i64,
    /// The latest encryption that the log has accepted.
    pub(super) accepted_no: i64,
    pub(super) acked: Offset,
    /// Number of messages of others so far.
    pub(super) received: u64,
    /// Number of the last acknowledged one.
    pub(super) received_acked: u64,
    /// Number of messages in the history.
    pub(super) kept: u64,
    /// Number of the group in the channel: see [`mls::group_id`].
    pub(super) reboot: u64,
    pub(super) recovery: Recovery,
    /// Offset at which this agent joined the channel: members that were out of sync before do not know it.
    pub(super) joined: Offset,
    /// The last handshake head whose epoch this agent was in.
    pub(super) applied: Offset,
    /// The hash of that commit's frame, if this agent has processed it as an entry.
    pub(super) applied_hash: Option<[u8; 32]>,
    /// Members of the group that later commits' headers have removed: this agent could not apply those.
    pub(super) removed: BTreeSet<AgentId>,
    /// Differences between the log's roster and the group's membership.
    pub(super) drift: Drift,
}

impl Position {
    /// Encodes the state that must be of the same moment as the group. Persisted as a hash: keep stable.
    fn sealed(&self) -> Vec<u8> {
        let numbers = [self.cursor.get(), self.head.get(), self.epoch];
        let counts = [self.encrypted_no, self.accepted_no];
        let numbers = numbers.iter().flat_map(|number| number.to_be_bytes());
        numbers
            .chain(counts.iter().flat_map(|count| count.to_be_bytes()))
            .collect()
    }
}

/// Counts of a channel's outbox.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Waiting {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// Items not encrypted for the current head.
    pub(super) unbuilt: u64,
    /// Items other than messages.
    pub(super) changes: u64,
}

/// The part of the outbox that is in flight. Only in memory: forgotten frames are offered again, under the same frame
/// ids.
#[derive(Debug, Default)]
pub(super) struct Offered {
    /// Rows before this one have been offered.
    pub(super) next_seq: Option<i64>,
    /// Whether a change has been offered: later rows must wait.
    pub(super) barrier: bool,
    /// Number of messages offered and not yet seen in the log.
    pub(super) in_flight: u32,
    /// Frames acknowledged by the relay, and not yet seen in the log.
    pub(super) accepted: BTreeMap<FrameId, Offset>,
    /// The latest encryption that the relay has acknowledged.
    pub(super) accepted_no: i64,
    /// The latest encryption that was offered since everything was offered again.
    pub(super) encrypted_no: i64,
    /// A head that the relay knows; until it is reached nothing is offered.
    pub(super) wait_for: Offset,
    /// The latest encryption that may have been offered to a relay, in this session or an earlier one. Not stored in
    /// the vault, so that offering writes nothing: anything encrypted before the channel was loaded may have been
    /// offered.
    pub(super) doubtful_no: i64,
    /// Agents that a reboot does not name, since the relay says that they are not on the roster.
    pub(super) left_out: BTreeSet<AgentId>,
    /// The head at which the removal of returned agents was refused.
    pub(super) redo_refused: Option<Offset>,
    /// Agents whose answers to a request were rejected, since this agent does not know them.
    pub(super) strangers: BTreeSet<AgentId>,
    /// Whether an entry of this epoch could not be decrypted: the log may differ from the one that this agent was
    /// shown.
    pub(super) suspect: bool,
    /// The head at which a commit for leaving members was refused.
    pub(super) housekeeping_refused: Option<Offset>,
    /// The head at which a correction of the policy was refused.
    pub(super) policy_refused: Option<Offset>,
    /// Whether each commit encrypts to this member's first leaf alone (see [`mls::is_single`]), at a head.
    pub(super) single: Option<(Offset, bool)>,
    /// The cursor at which the relay said that this agent is not on the roster: the entry that removed it is still to
    /// arrive.
    pub(super) denied: Option<Offset>,
}

impl Offered {
    /// Makes everything without an acknowledgement be offered again.
    pub(super) fn again(&mut self) {
        self.next_seq = None;
        self.barrier = false;
        self.in_flight = 0;
        self.encrypted_no = 0;
    }
}

/// A loaded channel.
pub(super) struct Channel {
    pub(super) no: i64,
    pub(super) id: ChannelId,
    pub(super) position: Position,
    saved: Option<Position>,
    /// `None` for a channel that was left.
    pub(super) group: Option<MlsGroup>,
    pub(super) window: Window,
    pub(super) waiting: Waiting,
    /// Number of failed sends that were not dismissed.
    pub(super) failed: u64,
    pub(super) offered: Offered,
    /// Members that have asked to be removed and added again.
    pub(super) rejoins: BTreeSet<AgentId>,
    /// Evidence that the log went back.
    pub(super) rollback: Option<Rollback>,
    /// The last settled rollback.
    pub(super) settled: Option<Settled>,
    /// Whether there are messages whose entries were replaced.
    pub(super) has_replaced: bool,
    /// Agents whose removal was undone, and must be repeated.
    pub(super) returned: BTreeSet<AgentId>,
    /// Whether it was declined: the agent is leaving it, and its messages are not stored.
    pub(super) is_declined: bool,
}

const COLUMNS: &str = "label, state, cursor, head, epoch, digest, encrypted_no, accepted_no, acked, received, \
                       received_acked, no, id, reboot, standing, since, reason, missed, asked, unsure,
                       doubted, joined, applied, removed, applied_hash, drift, kept";

impl Channel {
    /// Returns the state of the log as shown to this agent, for others to compare; `None` if it does not know the
    /// digest.
    pub(super) fn seen(&self) -> Option<Seen> {
        self.window.digest().map(|digest| Seen {
            offset: self.position.cursor,
            digest,
        })
    }

    /// Creates a channel that is not in the vault yet.
    pub(super) fn new(sql: &Connection, id: ChannelId, label: &str) -> Result<Self, EngineError> {
        let no = sql.query_row("SELECT coalesce(max(no), 0) + 1 FROM channel", [], |row| row.get(0))?;
        let window = Window::genesis(&id.log());
        Ok(Self {
            no,
            id,
            position: Position {
                label: label.to_owned(),
                state: ChannelState::Creating,
                cursor: Offset::ZERO,
                head: Offset::ZERO,
                epoch: 0,
                digest: window.digest(),
                encrypted_no: 0,
                accepted_no: 0,
                acked: Offset::ZERO,
                received: 0,
                received_acked: 0,
                kept: 0,
                reboot: 0,
                recovery: Recovery::default(),
                joined: Offset::ZERO,
                applied: Offset::ZERO,
                applied_hash: None,
                removed: BTreeSet::new(),
                drift: Drift::default(),
            },
            saved: None,
            group: None,
            window,
            waiting: Waiting::default(),
            failed: 0,
            offered: Offered::default(),
            rejoins: BTreeSet::new(),
            rollback: None,
            settled: None,
            has_replaced: false,
            returned: BTreeSet::new(),
            is_declined: false,
        })
    }

    /// Whether agents whose removal was undone are in the group: then nothing is sent.
    pub(super) fn has_returned(&self) -> bool {
        let members = |group: &MlsGroup| mls::members(group);
        !self.returned.is_empty()
            && (self.group.as_ref()).is_some_and(|group| !members(group).is_disjoint(&self.returned))
    }

    /// Returns the group's members, without those that headers have removed.
    pub(super) fn known_members(&self) -> BTreeSet<AgentId> {
        let members = self.group.as_ref().map(mls::members).unwrap_or_default();
        members.difference(&self.position.removed).copied().collect()
    }

    /// Records a commit's header, whether or not the group has applied the commit: headers determine the log's roster.
    pub(super) fn note_removed(&mut self, adds: &[AgentId], removes: &[AgentId], roster: Option<&[AgentId]>) {
        let removed = &mut self.position.removed;
        if removes.is_empty() && removed.is_empty() && roster.is_none() {
            return;
        }
        let members = self.group.as_ref().map(mls::members).unwrap_or_default();
        if let Some(roster) = roster {
            let is_gone = |agent: &&AgentId| roster.binary_search(agent).is_err();
            *removed = members.iter().filter(is_gone).copied().collect();
            return;
        }
        removed.extend(removes);
        removed.retain(|agent| members.contains(agent) && !adds.contains(agent));
    }

    pub(super) fn log(&self) -> LogId {
        self.id.log()
    }

    pub(super) fn load(
        sql: &Connection,
        provider: &mls::Provider<'_>,
        id: ChannelId,
    ) -> Result<Option<Self>, EngineError> {
        let Some((position, no, _)) = sql
            .prepare_cached(&format!("SELECT {COLUMNS} FROM channel WHERE id = ?1"))?
            .query_row([id.as_bytes()], |row| Ok(read(row)))
            .optional()?
            .transpose()?
        else {
            return Ok(None);
        };
        let group = match position.state {
            ChannelState::Left => None,
            _ => load_group(provider, id, &position)?,
        };
        let encrypted_no = position.encrypted_no;
        let window = Window::load(sql, no, position.cursor, position.digest)?;
        let waiting = sql
            .prepare_cached(
                "SELECT count(*), coalesce(sum(length(intent)), 0), coalesce(sum(frame IS NULL), 0),
                        coalesce(sum(kind NOT IN (2, 8)), 0)
                 FROM outbox WHERE channel = ?1",
            )?
            .query_row([no], |row| {
                Ok([row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
            })?;
        let failed = sql
            .prepare_cached("SELECT count(*) FROM failed WHERE channel = ?1")?
            .query_row([no], |row| row.get(0))?;
        Ok(Some(Self {
            no,
            id,
            saved: Some(position.clone()),
            position,
            group,
            window,
            waiting: Waiting {
                rows: unsigned(waiting[0])?,
                bytes: unsigned(waiting[1])?,
                unbuilt: unsigned(waiting[2])?,
                changes: unsigned(waiting[3])?,
            },
            failed: unsigned(failed)?,
            offered: Offered {
                doubtful_no: encrypted_no,
                ..Offered::default()
            },
            rejoins: super::rejoin::requests(sql, no)?,
            rollback: super::rollback::read(sql, no)?,
            settled: super::settle::last(sql, no)?,
            has_replaced: super::replaced::has_replaced(sql, no)?,
            returned: super::undone::returned(sql, no)?,
            is_declined: super::requests::is_declined(sql, no)?,
        }))
    }

    /// Handles that messages were purged from the history, which the vault has stored.
    pub(super) fn purged(&mut self, messages: u64) {
        for position in [Some(&mut self.position), self.saved.as_mut()].into_iter().flatten() {
            position.kept = position.kept.saturating_sub(messages);
        }
    }

    /// Writes changes in the current transaction.
    pub(super) fn save(&mut self, sql: &Connection, provider: &mls::Provider<'_>) -> Result<(), EngineError> {
        self.position.digest = self.window.digest();
        self.window.save(sql, self.no)?;
        if self.saved.as_ref() == Some(&self.position) {
            return Ok(());
        }
        let position = &self.position;
        if self.group.is_some() {
            let storage = openmls_traits::OpenMlsProvider::storage(provider);
            storage.seal_position(&mls::group_id(self.id, position.reboot), position.sealed())?;
        }
        sql.prepare_cached(
            "INSERT INTO channel (label, state, cursor, head, epoch, digest, encrypted_no, accepted_no, acked, received,
                                  received_acked, no, id, reboot, standing, since, reason, missed, asked, unsure, doubted,
                                  joined, applied, removed, applied_hash, drift, kept)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21,
                     ?22, ?23, ?24, ?25, ?26, ?27)
             ON CONFLICT (no) DO UPDATE SET label = ?1, state = ?2, cursor = ?3, head = ?4, epoch = ?5, digest = ?6,
                 encrypted_no = ?7, accepted_no = ?8, acked = ?9, received = ?10, received_acked = ?11,
                 reboot = ?14, standing = ?15, since = ?16, reason = ?17, missed = ?18, asked = ?19, unsure = ?20,
                 doubted = ?21, joined = ?22, applied = ?23, removed = ?24, applied_hash = ?25,
                 drift = ?26, kept = ?27",
        )?
        .execute(rusqlite::params![
            position.label,
            state_number(position.state),
            integer(position.cursor.get())?,
            integer(position.head.get())?,
            integer(position.epoch)?,
            position.digest.as_ref().map(|digest| digest.as_bytes().as_slice()),
            position.encrypted_no,
            position.accepted_no,
            integer(position.acked.get())?,
            integer(position.received)?,
            integer(position.received_acked)?,
            self.no,
            self.id.as_bytes(),
            integer(position.reboot)?,
            position.recovery.standing as i64,
            integer(position.recovery.since.get())?,
            position.recovery.reason,
            integer(position.recovery.missed)?,
            integer(position.recovery.asked.get())?,
            position.recovery.unsure,
            position.recovery.doubted,
            integer(position.joined.get())?,
            integer(position.applied.get())?,
            position.removed.iter().flat_map(AgentId::as_bytes).copied().collect::<Vec<u8>>(),
            position.applied_hash,
            position.drift.to_bytes(),
            integer(position.kept)?,
        ])?;
        self.saved = Some(self.position.clone());
        Ok(())
    }
}

/// Loads a channel's group, of the same moment as its row. A member that cannot follow its group may have none.
fn load_group(
    provider: &mls::Provider<'_>,
    id: ChannelId,
    position: &Position,
) -> Result<Option<MlsGroup>, EngineError> {
    use openmls_traits::OpenMlsProvider as _;
    let checked = provider
        .storage()
        .check_position(&mls::group_id(id, position.reboot), &position.sealed());
    checked.map_err(|error| explained(id, error))?;
    let group = take_group(provider, id, position)?;
    let damaged = |problem: &str| VaultError::damaged(format!("group of channel {id}: {problem}"));
    match &group {
        None if !position.recovery.standing.is_apart() => Err(damaged("it is missing").into()),
        Some(group) if group.epoch().as_u64() != position.epoch => {
            Err(damaged("it is in another epoch than the channel").into())
        }
        _ => Ok(group),
    }
}

/// Returns a channel's group as the current transaction has it.
pub(super) fn take_group(
    provider: &mls::Provider<'_>,
    id: ChannelId,
    position: &Position,
) -> Result<Option<MlsGroup>, EngineError> {
    use openmls_traits::OpenMlsProvider as _;
    MlsGroup::load(provider.storage(), &mls::group_id(id, position.reboot)).map_err(|error| explained(id, error))
}

fn explained(id: ChannelId, error: mls::StorageError) -> EngineError {
    match error.is_damage() {
        true => VaultError::damaged(format!("group of channel {id}: {error}")).into(),
        false => error.into(),
    }
}

/// Reads all channels' rows, in the order in which they were added.
pub(super) fn all(sql: &Connection) -> Result<Vec<(Position, i64, ChannelId)>, EngineError> {
    sql.prepare_cached(&format!("SELECT {COLUMNS} FROM channel ORDER BY no"))?
        .query_map([], |row| Ok(read(row)))?
        .collect::<Result<Result<_, _>, _>>()?
}

/// Reads one channel's row.
pub(super) fn one(sql: &Connection, id: ChannelId) -> Result<(Position, i64), EngineError> {
    sql.prepare_cached(&format!("SELECT {COLUMNS} FROM channel WHERE id = ?1"))?
        .query_row([id.as_bytes()], |row| Ok(read(row)))
        .optional()?
        .ok_or(EngineError::ChannelUnknown { channel: id })?
        .map(|(position, no, _)| (position, no))
}

/// Reads the row of the channel with a number.
pub(super) fn numbered(sql: &Connection, no: i64) -> Result<Option<(Position, ChannelId)>, EngineError> {
    let found = sql
        .prepare_cached(&format!("SELECT {COLUMNS} FROM channel WHERE no = ?1"))?
        .query_row([no], |row| Ok(read(row)))
        .optional()?
        .transpose()?;
    Ok(found.map(|(position, _, id)| (position, id)))
}

fn agents(bytes: &[u8]) -> Result<BTreeSet<AgentId>, VaultError> {
    let (ids, rest) = bytes.as_chunks::<{ AgentId::LENGTH }>();
    match rest.is_empty() {
        true => Ok(ids.iter().copied().map(AgentId::from_bytes).collect()),
        false => Err(VaultError::damaged("list of removed agents")),
    }
}

fn read(row: &Row<'_>) -> Result<(Position, i64, ChannelId), EngineError> {
    let digest = row.get::<_, Option<Vec<u8>>>(5)?;
    let digest = digest
        .map(|bytes| <[u8; 32]>::try_from(bytes).map(Digest::from_bytes))
        .transpose()
        .map_err(|_| VaultError::damaged("digest of a wrong length"))?;
    let position = Position {
        label: row.get(0)?,
        state: state(row.get(1)?)?,
        cursor: Offset::new(unsigned(row.get(2)?)?),
        head: Offset::new(unsigned(row.get(3)?)?),
        epoch: unsigned(row.get(4)?)?,
        digest,
        encrypted_no: row.get(6)?,
        accepted_no: row.get(7)?,
        acked: Offset::new(unsigned(row.get(8)?)?),
        received: unsigned(row.get(9)?)?,
        received_acked: unsigned(row.get(10)?)?,
        reboot: unsigned(row.get(13)?)?,
        recovery: Recovery {
            standing: Standing::from_number(row.get(14)?)?,
            since: Offset::new(unsigned(row.get(15)?)?),
            reason: row.get(16)?,
            missed: unsigned(row.get(17)?)?,
            asked: Offset::new(unsigned(row.get(18)?)?),
            unsure: row.get(19)?,
            doubted: row.get(20)?,
        },
        joined: Offset::new(unsigned(row.get(21)?)?),
        applied: Offset::new(unsigned(row.get(22)?)?),
        removed: agents(&row.get::<_, Vec<u8>>(23)?)?,
        applied_hash: (row.get::<_, Option<Vec<u8>>>(24)?)
            .map(|bytes| <[u8; 32]>::try_from(bytes).map_err(|_| VaultError::damaged("hash of a wrong length")))
            .transpose()?,
        drift: Drift::from_bytes(&row.get::<_, Vec<u8>>(25)?)?,
        kept: unsigned(row.get(26)?)?,
    };
    let channel: Vec<u8> = row.get(12)?;
    Ok((position, row.get(11)?, id(&channel)?))
}

/// Returns the stored number of a state. Persisted: keep stable.
pub(super) const fn state_number(state: ChannelState) -> i64 {
    match state {
        ChannelState::Creating => 1,
        ChannelState::Active => 2,
        ChannelState::Leaving => 3,
        ChannelState::Left => 4,
    }
}

fn state(number: i64) -> Result<ChannelState, VaultError> {
    match number {
        1 => Ok(ChannelState::Creating),
        2 => Ok(ChannelState::Active),
        3 => Ok(ChannelState::Leaving),
        4 => Ok(ChannelState::Left),
        _ => Err(VaultError::damaged("state of a channel")),
    }
}
