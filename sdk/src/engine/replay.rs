//! Replay of a channel's entries: their effects on the group, the inbox, the outbox and the cursor.
//!
//! Every rule here depends only on the log and the group's state, so that all members judge an entry alike. All members
//! record and skip an entry that breaks a rule. The log's handshake head moves with each commit that the log accepted,
//! whether or not the group applied it.

use super::channel::Channel;
use super::lost::LostReason;
use super::outbox::{Intent, OutboxRow, Place};
use super::properties::Properties;
use super::standing::Standing;
use super::transact::Tx;
use super::{ChannelState, Engine, EngineError, Event, Gap, Processed, UnreadableCause};
use crate::mls::{self, Change, Ground, Rejected, Seen, unreadable};
use crate::vault::Durability;
use bytes::Bytes;
use openmls::group::MlsGroup;
use openmls::prelude::ProcessedMessageContent;
use openmls_traits::OpenMlsProvider as _;
use prost::Message as _;
use skytale_proto::wire::{Bundle, Envelope};
use skytale_proto::{AgentId, ChannelId, Code, Detail, Digest, Frame, FrameId, Header, Offset, Record};
use std::collections::{BTreeMap, BTreeSet};

/// Reason why an entry's transaction cannot continue.
pub(super) enum Halt {
    Rejected(Rejected),
    /// An entry of an agent outside the group: it has no meaning.
    Void(String),
    Failed(EngineError),
}

impl<E: Into<EngineError>> From<E> for Halt {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Rejected> for Halt {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

pub(super) fn rejected(reason: impl Into<String>) -> Halt {
    unreadable(reason).into()
}

pub(super) fn lied(problem: impl Into<String>) -> Halt {
    Rejected::Lied(problem.into()).into()
}

impl Engine {
    /// Processes entries of a channel, in one transaction. Entries up to the cursor are skipped. An unreadable entry is
    /// recorded and reported; it blocks nothing. Entries after this agent's own removal are not processed.
    pub fn process_entries(&mut self, channel: ChannelId, records: &[Record]) -> Result<Processed, EngineError> {
        let position = &self.loaded(channel)?.position;
        if position.state == ChannelState::Left {
            return Err(EngineError::ChannelLeft { channel });
        }
        let (fresh, gap) = contiguous(position.cursor, records);
        if fresh.is_empty() {
            return Ok(Processed {
                events: Vec::new(),
                cursor: position.cursor,
                gap,
            });
        }
        // An entry that MLS accepted and then could not apply leaves the group in an unusable state. Then everything is
        // undone, and repeated without it. Each round settles one entry.
        let mut broken = BTreeMap::new();
        // A batch of signatures does not say which of them is bad. Then everything is undone, too, and repeated with
        // each signature verified alone.
        let mut in_batches = true;
        loop {
            let mut culprit = None;
            let replayed = self.transact_on(channel, Durability::Later, |tx, channel| {
                tx.provider.defer_secrets();
                if in_batches {
                    tx.provider.allow_batches();
                }
                tx.replay(channel, fresh, &broken, &mut culprit)
            });
            if self.crypto.signatures().take_batch_failed() {
                in_batches = false;
                continue;
            }
            match (replayed, culprit) {
                (Ok(((cursor, left), events)), _) => {
                    return Ok(Processed {
                        events,
                        cursor,
                        gap: gap.filter(|_| !left),
                    });
                }
                (Err(_), Some((offset, reason))) if !broken.contains_key(&offset) => {
                    broken.insert(offset, reason);
                }
                (Err(error), _) => return Err(error),
            }
        }
    }
}

/// Returns the entries after a cursor, without a gap, and the gap after them, if there is one.
pub(super) fn contiguous(cursor: Offset, records: &[Record]) -> (&[Record], Option<Gap>) {
    let seen = records.iter().take_while(|record| record.offset <= cursor).count();
    let fresh = records.get(seen..).unwrap_or_default();
    let mut expected = cursor.next();
    for (index, record) in fresh.iter().enumerate() {
        if record.offset != expected {
            let gap = Gap {
                expected,
                found: record.offset,
            };
            return (fresh.get(..index).unwrap_or_default(), Some(gap));
        }
        expected = expected.next();
    }
    (fresh, None)
}

impl Tx<'_> {
    fn replay(
        &mut self,
        channel: &mut Channel,
        records: &[Record],
        broken: &BTreeMap<Offset, String>,
        culprit: &mut Option<(Offset, String)>,
    ) -> Result<(Offset, bool), EngineError> {
        for record in records {
            let frame = Frame::decode(record.payload.clone());
            let done = match (&frame, broken.get(&record.offset)) {
                // MLS accepted it and could not apply it here: others may have.
                (_, Some(reason)) => Err(Rejected::OutOfSync(reason.clone()).into()),
                (Err(error), None) => Err(rejected(error.to_string())),
                (Ok(frame), None) if frame.header().log != channel.log() => Err(rejected("a frame of another log")),
                (Ok(frame), None) => self.entry(channel, record, frame, culprit),
            };
            if channel.position.applied == record.offset {
                channel.position.applied_hash = Some(Digest::hash_frame(&record.payload));
            }
            let header = frame.as_ref().ok().map(Frame::header);
            if let Err(error) = self.storage_is_sound() {
                // The entry is not the cause, whatever was reported.
                *culprit = None;
                return Err(error);
            }
            let cause = match &done {
                Err(Halt::Void(_)) => UnreadableCause::NotMember,
                // Only the frame was read.
                Err(Halt::Rejected(Rejected::Unreadable(_)))
                    if header.is_none_or(|header| header.log != channel.log()) =>
                {
                    UnreadableCause::Malformed
                }
                Err(Halt::Rejected(rejected)) => UnreadableCause::of(rejected),
                Ok(()) | Err(Halt::Failed(_)) => UnreadableCause::Unknown,
            };
            match done {
                Ok(()) => {}
                Err(Halt::Failed(error)) => return Err(error),
                Err(Halt::Void(reason)) => self.record_unreadable(channel, record.offset, header, cause, reason)?,
                Err(Halt::Rejected(Rejected::Storage(error))) => return Err(error.into()),
                Err(Halt::Rejected(Rejected::OutOfSync(reason))) => {
                    self.record_unreadable(channel, record.offset, header, cause, reason.clone())?;
                    self.out_of_sync(channel, record.offset, reason)?;
                }
                Err(Halt::Rejected(Rejected::LaterEpoch)) => {
                    channel.offered.suspect = true;
                    let reason = "it is of a later epoch than this agent is in".to_owned();
                    let recovery = &channel.position.recovery;
                    if recovery.standing == Standing::Renewing || recovery.unsure || recovery.doubted {
                        // Others have applied a commit that this agent could not.
                        self.lose(channel, record.offset, record.offset, LostReason::OutOfSync)?;
                        self.out_of_sync(channel, record.offset.next(), reason)?;
                    } else {
                        self.record_unreadable(channel, record.offset, header, cause, reason)?;
                    }
                }
                Err(Halt::Rejected(Rejected::KeyUsed(reason))) if self.is_read_again(channel, record.offset) => {
                    if header.is_some_and(|header| header.detail == Detail::Proposal) {
                        // It was decrypted, and its key is used: the group may continue with it.
                        self.out_of_sync(channel, record.offset, reason)?;
                    }
                }
                Err(Halt::Rejected(Rejected::Unreadable(reason) | Rejected::KeyUsed(reason))) => {
                    channel.offered.suspect = true;
                    let is_change =
                        header.is_some_and(|header| matches!(header.detail, Detail::Commit { .. } | Detail::Proposal));
                    self.record_unreadable(channel, record.offset, header, cause, reason.clone())?;
                    channel.position.recovery.doubted |= is_change;
                    if is_change && channel.position.recovery.unsure {
                        // It may build on lost entries.
                        self.out_of_sync(channel, record.offset, reason)?;
                    }
                }
                Err(Halt::Rejected(Rejected::Lied(problem))) => {
                    if let Some(header) = header {
                        self.events.push(Event::HeaderLied {
                            channel: channel.id,
                            offset: record.offset,
                            author: header.author,
                            problem: problem.clone(),
                        });
                    }
                    self.record_unreadable(channel, record.offset, header, cause, problem)?;
                }
            }
            if let Some(Detail::Commit {
                adds, removes, roster, ..
            }) = header.map(|header| &header.detail)
            {
                channel.note_removed(adds, removes, roster.as_deref());
                if channel.position.applied == record.offset {
                    self.heed_change(channel, adds, removes)?;
                }
            }
            match header.map(|header| &header.detail) {
                Some(Detail::Trim { .. }) => channel.window.pass(record.offset),
                _ => channel.window.push(record.offset, &record.payload),
            }
            channel.position.cursor = record.offset;
            if header.is_some_and(|header| matches!(header.detail, Detail::Create { .. } | Detail::Commit { .. })) {
                self.head_moved(channel, record.offset)?;
            }
            if channel.position.state == ChannelState::Left {
                return Ok((record.offset, true));
            }
        }
        let cursor = channel.position.cursor;
        // Frames that the relay acknowledged but did not show at the stated offset are offered again, to learn more.
        let accepted = channel.offered.accepted.len();
        channel.offered.accepted.retain(|_, offset| *offset > cursor);
        if channel.offered.accepted.len() < accepted {
            channel.offered.again();
        }
        Ok((cursor, false))
    }

    fn entry(
        &mut self,
        channel: &mut Channel,
        record: &Record,
        frame: &Frame,
        culprit: &mut Option<(Offset, String)>,
    ) -> Result<(), Halt> {
        let header = frame.header();
        if header.kind().is_under_handshake_rule()
            && header.parent != channel.position.head
            && !self.head_was_lost(channel, header.parent)?
        {
            if self.is_other_head(channel, header.parent)? {
                // The log is in another epoch than this agent: nobody could read its messages.
                let reason = "the log took a change to the group where this agent was shown another entry";
                return Err(Rejected::OutOfSync(reason.to_owned()).into());
            }
            // The log's rules accept no such frame, so the relay node lies, whoever the author is.
            if header.parent > channel.position.cursor {
                self.diverged(channel, header.author, header.parent, None, None)?;
            }
            return Err(rejected(format!(
                "its parent is {}, but the handshake head is {}: a relay node that keeps the rule takes no such frame",
                header.parent, channel.position.head
            )));
        }
        if channel.position.recovery.standing.is_apart() {
            return self.pass_over(channel, record, frame, culprit);
        }
        let done = match header.detail {
            // A message from before a rollback that appears again.
            Detail::Message if channel.has_replaced => self.message_again(channel, record, frame, culprit),
            _ => self.applied_entry(channel, record, frame, culprit),
        };
        self.judged(channel, record.offset, frame, done)
    }

    fn applied_entry(
        &mut self,
        channel: &mut Channel,
        record: &Record,
        frame: &Frame,
        culprit: &mut Option<(Offset, String)>,
    ) -> Result<(), Halt> {
        let header = frame.header();
        let own = header.author == self.identity.agent_id();
        match &header.detail {
            Detail::Trim { .. } => Ok(()),
            Detail::Rejoin if own => self.own_request(channel, record, frame),
            Detail::Rejoin => self.request(channel, record.offset, frame),
            Detail::Create { .. } | Detail::Message | Detail::Proposal | Detail::Commit { .. } if own => {
                self.own_entry(channel, record, frame, culprit)
            }
            Detail::Message => self.message(channel, record, frame),
            Detail::Proposal => self.proposal(channel, record, frame),
            Detail::Commit { .. } => self.commit(channel, record, frame, culprit),
            Detail::Create { .. } => Err(rejected("the channel was created by another agent")),
            Detail::Raw { .. }
            | Detail::KeyPackage { .. }
            | Detail::KeyPackageClaim { .. }
            | Detail::KeyPackagePolicy { .. }
            | Detail::Welcome { .. } => Err(rejected("not a kind of this channel's entries")),
        }
    }

    /// Handles a message while there are messages whose entries were replaced. It is decrypted first, which uses up its
    /// key; if that fails, this agent has read it before.
    fn message_again(
        &mut self,
        channel: &mut Channel,
        record: &Record,
        frame: &Frame,
        culprit: &mut Option<(Offset, String)>,
    ) -> Result<(), Halt> {
        let header = frame.header();
        let own = header.author == self.identity.agent_id();
        if own && self.row_of(channel, header.id)?.is_none() {
            // The relay could show anything under this agent's name.
            return match self.is_own(channel, frame.body())? && self.put_back(channel, record, header, None)? {
                true => Ok(()),
                false => self.applied_entry(channel, record, frame, culprit),
            };
        }
        match self.applied_entry(channel, record, frame, culprit) {
            Err(Halt::Rejected(Rejected::KeyUsed(_))) if !own && self.put_back(channel, record, header, None)? => {
                Ok(())
            }
            done => done,
        }
    }

    // ---- what this agent appended itself

    fn own_entry(
        &mut self,
        channel: &mut Channel,
        record: &Record,
        frame: &Frame,
        culprit: &mut Option<(Offset, String)>,
    ) -> Result<(), Halt> {
        let header = frame.header();
        let Some(row) = self.row_of(channel, header.id)? else {
            return self.by_other_copy(channel, record, frame, None);
        };
        if !row.has_built(frame.encoded()) {
            match self.by_other_copy(channel, record, frame, Some(&row)) {
                Err(Halt::Rejected(Rejected::Unreadable(_) | Rejected::KeyUsed(_))) => {}
                done => return done,
            }
            self.fail(channel, &row, Code::EntryUnreadable)?;
            channel.offered.again();
            return Err(lied(
                "it has this agent's name and frame id, but this agent sent something else",
            ));
        }
        if row.intent.is_message() {
            let accepted = &mut channel.position.accepted_no;
            *accepted = row.encrypted_no.max(*accepted);
        }
        match row.intent {
            Intent::Announce | Intent::Await => {}
            Intent::Message => {
                let (sent_ms, content) = (row.sent_ms, (row.content.as_ref(), &row.properties));
                self.keep_message(channel, record, header.id, header.author, sent_ms, content, true)?;
            }
            Intent::Create => {
                channel.position.joined = record.offset;
                channel.position.applied = record.offset;
                if channel.position.state == ChannelState::Creating {
                    channel.position.state = match self.waits(channel, Intent::Leave)? {
                        true => ChannelState::Leaving,
                        false => ChannelState::Active,
                    };
                }
            }
            Intent::Leave => self.note_leaving(channel, record.offset, &header.author)?,
            Intent::Rejoin => {}
            Intent::Renew => {
                let change = Change::default();
                self.renewed(channel, record.offset)?;
                self.epoch_changed(channel, record.offset, header.author, &change)?;
                self.settled_by(channel, record.offset, header, true)?;
            }
            Intent::Reboot => self.own_reboot(channel, record.offset, header)?,
            Intent::Add | Intent::Remove | Intent::Update | Intent::Housekeeping | Intent::Policy | Intent::Refresh => {
                self.own_commit(channel, record, header, culprit)?;
            }
        }
        self.delivered(channel, &row, record.offset)?;
        if row.intent == Intent::Leave {
            self.end_if_all_leave(channel, record.offset)?;
        }
        Ok(())
    }

    pub(super) fn delivered(
        &mut self,
        channel: &mut Channel,
        row: &OutboxRow,
        offset: Offset,
    ) -> Result<(), EngineError> {
        self.unqueue(channel, row)?;
        channel.offered.in_flight = channel.offered.in_flight.saturating_sub(1);
        if !row.intent.is_message() {
            channel.offered.barrier = false;
        }
        if row.intent.is_told() {
            self.events.push(Event::Delivered {
                channel: channel.id,
                frame_id: row.frame_id,
                offset,
            });
        }
        Ok(())
    }

    fn own_commit(
        &mut self,
        channel: &mut Channel,
        record: &Record,
        header: &Header,
        culprit: &mut Option<(Offset, String)>,
    ) -> Result<(), Halt> {
        let group = channel.group.as_mut().ok_or_else(|| rejected("there is no group"))?;
        let staged = group
            .pending_commit()
            .ok_or_else(|| Rejected::OutOfSync("this agent's commit is not pending".into()))?;
        let liars = channel.position.drift.known_liars();
        let ground = Ground { liars: &liars };
        let change = mls::check_commit(group, staged, header.author, ground).map_err(rejected)?;
        if let Err(error) = group.merge_pending_commit(self.provider) {
            *culprit = Some((record.offset, error.to_string()));
            return Err(EngineError::mls("merging a commit", error).into());
        }
        self.epoch_changed(channel, record.offset, header.author, &change)?;
        self.settled_by(channel, record.offset, header, false)?;
        // New members learn the digest with the first message; without messages they never would.
        if !change.adds.is_empty() && channel.window.digest().is_some() {
            self.queue(channel, Intent::Announce, FrameId::generate(), &[], Place::Back)?;
        }
        Ok(())
    }

    // ---- what others appended

    pub(super) fn message(&mut self, channel: &mut Channel, record: &Record, frame: &Frame) -> Result<(), Halt> {
        let header = frame.header();
        let group = channel.group.as_mut().ok_or_else(|| rejected("there is no group"))?;
        let message = mls::read_message(frame.body())?;
        let provider = self.provider;
        // Nothing here is final before the transaction commits, and so before the signature has been verified.
        let (author, content) = provider.deferring_signatures(|| mls::process(group, provider, message))?;
        let ProcessedMessageContent::ApplicationMessage(message) = content else {
            return Err(lied("it says that it is a message, and is a change to the group"));
        };
        check_author(header, author)?;
        // The author of a message in this epoch is in it.
        if channel.rejoins.contains(&author) {
            self.forget_requests(channel, &BTreeSet::from([author]))?;
        }
        let envelope =
            Envelope::decode(Bytes::from(message.into_bytes())).map_err(|error| rejected(error.to_string()))?;
        if envelope.frame_id.as_ref() != header.id.as_bytes() {
            return Err(lied("its frame id is not the one that its author gave it"));
        }
        if envelope.offset > 0 {
            let theirs = <[u8; 32]>::try_from(envelope.digest.as_ref())
                .map_err(|_| rejected("its author's digest is not 32 bytes long"))?;
            self.compare(
                channel,
                (author, record.offset),
                Offset::new(envelope.offset),
                &Digest::from_bytes(theirs),
            )?;
        }
        if envelope.announcement || self.put_back(channel, record, header, Some(&envelope.payload))? {
            return Ok(());
        }
        self.keep_message(
            channel,
            record,
            header.id,
            author,
            envelope.sent_ms,
            (&envelope.payload, &Properties::of(&envelope)),
            false,
        )?;
        if !channel.is_declined {
            self.events.push(Event::Message {
                channel: channel.id,
                offset: record.offset,
                author,
            });
        }
        Ok(())
    }

    fn proposal(&mut self, channel: &mut Channel, record: &Record, frame: &Frame) -> Result<(), Halt> {
        let header = frame.header();
        let group = channel.group.as_mut().ok_or_else(|| rejected("there is no group"))?;
        let (author, content) = mls::process(group, self.provider, mls::read_message(frame.body())?)?;
        let ProcessedMessageContent::ProposalMessage(proposal) = content else {
            return Err(lied("it says that it is a proposal, and is something else"));
        };
        check_author(header, author)?;
        if mls::leaver(&proposal).is_none() {
            return Err(rejected("a proposal of a kind that channels do not use"));
        }
        if mls::leavers(group).contains(&author) {
            return Err(rejected("its author has asked to leave already"));
        }
        group
            .store_pending_proposal(self.provider.storage(), *proposal)
            .map_err(EngineError::from)?;
        self.note_leaving(channel, record.offset, &author)?;
        self.end_if_all_leave(channel, record.offset)?;
        Ok(())
    }

    fn commit(
        &mut self,
        channel: &mut Channel,
        record: &Record,
        frame: &Frame,
        culprit: &mut Option<(Offset, String)>,
    ) -> Result<(), Halt> {
        let header = frame.header();
        let bundle = Bundle::decode(frame.body().clone()).map_err(|error| rejected(error.to_string()))?;
        if bundle.reboot {
            return self.reboot(channel, record.offset, frame, &bundle);
        }
        let group = channel.group.as_mut().ok_or_else(|| rejected("there is no group"))?;
        let message = if bundle.external.is_empty() {
            mls::read_message(&bundle.commit)?
        } else {
            mls::open_external(group, self.provider, header.id, &bundle.external)?
        };
        let seen = Seen::of(&message);
        let (author, content) = match mls::process(group, self.provider, message) {
            Ok(processed) => processed,
            Err(reason) => {
                // A different commit at an offset where this agent was shown one makes all later entries unreadable,
                // except for this. Who is no member of the group is no witness.
                let group = channel.group.as_ref();
                let is_member = group.is_some_and(|group| mls::members(group).contains(&header.author));
                if let Some(seen) = seen.filter(|_| is_member) {
                    self.compare_unproven(channel, (header.author, record.offset), seen)?;
                }
                return Err(reason.into());
            }
        };
        let ProcessedMessageContent::StagedCommitMessage(staged) = content else {
            return Err(lied("it says that it is a commit, and is something else"));
        };
        check_author(header, author)?;
        if let Some(seen) = seen {
            self.compare(channel, (author, record.offset), seen.offset, &seen.digest)?;
        }
        let group = channel.group.as_mut().ok_or_else(|| rejected("there is no group"))?;
        let is_renewal = !bundle.external.is_empty();
        let drift = &channel.position.drift;
        let liars = drift.known_liars();
        let change = match is_renewal {
            false => mls::check_commit(group, &staged, author, Ground { liars: &liars }).map_err(rejected)?,
            true => Change::renewal(author),
        };
        check_header(header, &bundle, &change, &mls::members(group))?;
        check_correction(header, &change, group, drift.roster > Offset::ZERO && !is_renewal)?;
        if staged.self_removed() {
            let offset = record.offset;
            if !change.adds.contains(&self.identity.agent_id()) {
                self.epoch_changed(channel, offset, author, &change)?;
                self.left(channel, offset, author)?;
                return Ok(());
            }
            return match self.try_rejoin(channel, offset, frame, &bundle)? {
                Ok(()) => Ok(()),
                Err(_) if self.other_copy_asked(channel) => Ok(self.superseded(channel, offset)?),
                Err(not_back) => Ok(self.out_of_sync(channel, offset, not_back.reason)?),
            };
        }
        if let Err(error) = group.merge_staged_commit(self.provider, *staged) {
            *culprit = Some((record.offset, error.to_string()));
            return Err(EngineError::mls("merging a commit", error).into());
        }
        self.epoch_changed(channel, record.offset, author, &change)?;
        self.settled_by(channel, record.offset, header, is_renewal)?;
        Ok(())
    }

    pub(super) fn epoch_changed(
        &mut self,
        channel: &mut Channel,
        offset: Offset,
        by: AgentId,
        change: &Change,
    ) -> Result<(), EngineError> {
        let id = channel.id;
        for agents in [&change.adds, &change.removes, &BTreeSet::from([by])] {
            self.forget_requests(channel, agents)?;
        }
        channel.position.applied = offset;
        self.note_change(channel, offset, change)?;
        self.tell_policy(channel, offset, by, change.policy.as_ref());
        channel.position.recovery.unsure = false;
        channel.position.recovery.doubted = false;
        let back = change.adds.intersection(&change.removes).chain(&change.renewed);
        for agent in back {
            self.events.push(Event::MemberRejoined {
                channel: id,
                offset,
                agent: *agent,
                by,
            });
        }
        for agent in change.removes.difference(&change.adds) {
            self.events.push(Event::MemberRemoved {
                channel: id,
                offset,
                agent: *agent,
                by,
                left: change.left.contains(agent),
            });
        }
        for agent in change.adds.difference(&change.removes) {
            self.events.push(Event::MemberAdded {
                channel: id,
                offset,
                agent: *agent,
                by,
            });
        }
        channel.position.epoch += 1;
        self.events.push(Event::EpochChanged {
            channel: id,
            offset,
            epoch: channel.position.epoch,
        });
        Ok(())
    }

    /// Ends this agent's membership: the group's secrets are deleted, the history stays.
    pub(super) fn left(&mut self, channel: &mut Channel, offset: Offset, by: AgentId) -> Result<(), EngineError> {
        if let Some(mut group) = channel.group.take() {
            group.delete(self.provider.storage())?;
        }
        channel.position.state = ChannelState::Left;
        channel.position.drift = super::drift::Drift::default();
        channel.position.recovery = super::standing::Recovery::default();
        self.provider.end_set_aside(channel.id.as_bytes(), false)?;
        channel.offered = super::channel::Offered::default();
        self.forget_undone(channel)?;
        self.end_invitation(channel.no)?;
        self.events.push(Event::Left {
            channel: channel.id,
            offset,
            by,
        });
        self.fail_all(channel, Code::ChannelLeft)
    }

    /// Handles a commit (or the Create) in the log: frames built on the previous head are rebuilt.
    pub(super) fn head_moved(&mut self, channel: &mut Channel, head: Offset) -> Result<(), EngineError> {
        channel.position.head = head;
        channel.offered.again();
        // A group was set aside for this place, and lost it.
        self.provider.end_set_aside(channel.id.as_bytes(), false)?;
        if channel.waiting.rows > channel.waiting.unbuilt {
            self.sql
                .prepare_cached(
                    "UPDATE outbox SET frame = NULL, earlier = NULL, attempts = attempts + 1
                     WHERE channel = ?1 AND frame IS NOT NULL AND seq <= ?2",
                )?
                .execute([channel.no, self.last_built(channel)?])?;
            channel.waiting.unbuilt = channel.waiting.rows;
        }
        let anyone_waits = super::rejoin::anyone_waits(channel, self.identity.agent_id());
        let Some(group) = channel.group.as_mut() else {
            return Ok(());
        };
        group.clear_pending_commit(self.provider.storage())?;
        if channel.position.recovery.standing.is_apart() {
            return Ok(());
        }
        let nobody_leaves = mls::leavers(group).is_empty() && !anyone_waits;
        let own = group.own_leaf_index();
        let asked = group
            .pending_proposals()
            .any(|proposal| mls::leaver(proposal) == Some(own));
        let is_in_order = channel.correction(&self.identity.agent_id()).is_none();
        if channel.waiting.changes > 0 && nobody_leaves && is_in_order {
            let first = self.rows_from(channel, None, 1)?.pop();
            if let Some(row) = first.filter(|row| row.intent == Intent::Housekeeping) {
                self.unqueue(channel, &row)?;
            }
        }
        // A commit that ignored this agent's request to leave dropped the proposal: it is repeated.
        if channel.position.state == ChannelState::Leaving && !asked && !self.waits(channel, Intent::Leave)? {
            self.queue(channel, Intent::Leave, FrameId::generate(), &[], Place::Back)?;
        }
        Ok(())
    }
}

/// Checks that the header names the author whose signature the content has.
fn check_author(header: &Header, author: AgentId) -> Result<(), Halt> {
    if author == header.author {
        return Ok(());
    }
    Err(lied(format!(
        "it says that it is from {}, and is from {author}",
        header.author
    )))
}

/// Checks a commit's header: it names the added and removed agents, and has a Welcome for each added one. It may also
/// take agents off the roster that are not in the group before it (`members`), since the roster must match the group.
fn check_header(header: &Header, bundle: &Bundle, change: &Change, members: &BTreeSet<AgentId>) -> Result<(), Halt> {
    let Detail::Commit {
        adds,
        removes,
        recipients,
        ..
    } = &header.detail
    else {
        return Err(rejected("not a commit"));
    };
    let set = |agents: &[AgentId]| agents.iter().copied().collect::<BTreeSet<_>>();
    if set(adds) != change.adds {
        return Err(lied("it names other agents as added than it adds"));
    }
    // Agents that are only on the roster may be among them.
    let in_group: BTreeSet<_> = set(removes).intersection(members).copied().collect();
    if in_group != change.removes {
        return Err(lied("it names other agents as removed than it removes"));
    }
    if set(recipients) != change.adds || bundle.welcome.is_empty() != change.adds.is_empty() {
        return Err(lied("it does not bring a Welcome to each agent that it adds"));
    }
    Ok(())
}

/// Checks that the roster and the policy in a commit's header match the group after it. If an earlier entry made the
/// roster differ (`must_correct`), the header must have them.
fn check_correction(header: &Header, change: &Change, before: &MlsGroup, must_correct: bool) -> Result<(), Halt> {
    let Detail::Commit { roster, policy, .. } = &header.detail else {
        return Ok(());
    };
    match roster {
        Some(roster) => {
            let mut after: BTreeSet<_> = mls::members(before).difference(&change.removes).copied().collect();
            after.extend(&change.adds);
            if !roster.iter().eq(&after) {
                return Err(lied(
                    "it says that the roster is another one than the group is after it",
                ));
            }
        }
        None if must_correct => {
            return Err(lied("it leaves the roster as a header made it that lied"));
        }
        None => {}
    }
    let is_so = match (policy, &change.policy) {
        (None, changed) => changed.is_none(),
        (Some(said), Some((_, after))) => said == after,
        (Some(said), None) => mls::policy(before).as_ref() == Some(said),
    };
    match is_so {
        true => Ok(()),
        false => Err(lied("it tells of another policy than the group has after it")),
    }
}
