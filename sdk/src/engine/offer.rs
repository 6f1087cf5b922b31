//! Offering frames to append: intents become frames, in order, for the head that this agent has reached.

use super::channel::Channel;
use super::outbox::{Intent, OutboxRow, Packages, Place};
use super::rejoin::anyone_waits;
use super::roles::Wanted;
use super::standing::Standing;
use super::transact::Tx;
use super::{ChannelState, Engine, EngineError, Event, NextFrames, OutboxFrame, Outcome};
use crate::mls;
use crate::vault::Durability;
use bytes::Bytes;
use openmls::group::{MlsGroup, QueuedProposal};
use openmls::key_packages::KeyPackage;
use openmls_traits::OpenMlsProvider as _;
use prost::Message as _;
use skytale_proto::wire::{Bundle, Envelope};
use skytale_proto::{
    AgentId, ChannelId, ChannelMode, Code, Detail, Frame, FrameError, FrameId, Header, Offset, Policy, Right,
};
use std::collections::BTreeSet;

/// Result of building an intent.
enum Built {
    Frame(Box<Frame>),
    /// It was removed from the outbox.
    Gone,
    /// It must wait for an earlier item.
    NotYet,
}

impl Channel {
    /// Whether a message can be encrypted now. Pending proposals hold back messages: OpenMLS refuses to encrypt with a
    /// key that a leaving member would share.
    pub(super) fn can_encrypt(&self) -> bool {
        self.position.head > Offset::ZERO
            && self.position.recovery.standing == Standing::Current
            && !self.has_returned()
            && self
                .group
                .as_ref()
                .is_some_and(|group| group.is_active() && !group.has_pending_proposals())
    }
}

impl Engine {
    /// Returns the frames that may be appended now and were not returned since [`Engine::connection_lost`], in order,
    /// at most `max_bytes` (but at least one). Append them in this order. A change to the group holds back later frames
    /// until it has been processed.
    pub fn next_frames(&mut self, channel: ChannelId, max_bytes: usize) -> Result<NextFrames, EngineError> {
        let known = self.loaded(channel)?;
        let has_log = known.position.state != ChannelState::Creating;
        if known.offered.barrier || (has_log && !self.reached.contains(&channel)) {
            return Ok(NextFrames::default());
        }
        let ((frames, turn), events) = self.transact_on(channel, Durability::Now, |tx, channel| {
            tx.provider.defer_secrets();
            tx.offer(channel, max_bytes)
        })?;
        Ok(NextFrames { frames, events, turn })
    }

    /// Queues the commit for members that asked to leave, in place of another member, if it is still needed.
    pub fn take_turn(&mut self, channel: ChannelId) -> Result<(), EngineError> {
        self.transact_on(channel, Durability::Now, |tx, channel| match tx.turn(channel)? {
            Some(_) => tx.let_go(channel),
            None => Ok(()),
        })?;
        Ok(())
    }

    /// Handles the relay's answer to a frame of [`Engine::next_frames`].
    pub fn outcome(
        &mut self,
        channel: ChannelId,
        frame_id: FrameId,
        outcome: Outcome,
    ) -> Result<Vec<Event>, EngineError> {
        // An outcome that only means another offer can be fetched again, too.
        let durability = match outcome {
            Outcome::StaleEpoch { .. } | Outcome::StaleHandshake { .. } | Outcome::Refused { retryable: true, .. } => {
                Durability::Later
            }
            Outcome::Appended { .. }
            | Outcome::Duplicate { .. }
            | Outcome::RosterChange { .. }
            | Outcome::Refused { .. } => Durability::Now,
        };
        let ((), events) = self.transact_on(channel, durability, |tx, channel| {
            tx.outcome(channel, frame_id, outcome)
        })?;
        Ok(events)
    }

    /// Makes all channels offer frames without an outcome again. A Create with an outcome is offered again, too, until
    /// it is seen in the log: its outcome in the next session shows that the log exists there.
    ///
    /// Nothing is offered in the next session before [`Engine::reached_head`].
    pub fn connection_lost(&mut self) {
        self.reached.clear();
        for channel in self.loaded.values_mut() {
            channel.offered.again();
            channel.offered.redo_refused = None;
            channel.offered.denied = None;
            if channel.position.state == ChannelState::Creating {
                channel.offered.accepted.clear();
            }
        }
    }
}

impl Tx<'_> {
    /// Returns the frames to append, and the number of members before this agent in the turn to commit for leaving
    /// members, if there are any.
    fn offer(
        &mut self,
        channel: &mut Channel,
        max_bytes: usize,
    ) -> Result<(Vec<OutboxFrame>, Option<u32>), EngineError> {
        if channel.position.state == ChannelState::Left || channel.offered.wait_for > channel.position.head {
            return Ok((Vec::new(), None));
        }
        // Off the roster: queued frames go out when this agent is on it again.
        if channel.position.drift.locked > Offset::ZERO || channel.offered.denied == Some(channel.position.cursor) {
            return Ok((Vec::new(), None));
        }
        if self.leave_alone(channel)? {
            return Ok((Vec::new(), None));
        }
        let apart = match channel.position.recovery.standing {
            Standing::Superseded => return Ok((Vec::new(), None)),
            standing => standing.is_apart(),
        };
        self.remove_returned(channel)?;
        let mut turn = self.turn(channel)?;
        if turn == Some(0) {
            self.let_go(channel)?;
            turn = None;
        }
        let (mut frames, mut bytes, mut from) = (Vec::new(), 0, channel.offered.next_seq);
        'offer: while bytes < max_bytes {
            // No more rows than can be offered now: the queue may be very long.
            let free = (self.config.encrypted_ahead_max).saturating_sub(channel.offered.in_flight);
            let rows = self.page_from(channel, from, free as usize, max_bytes - bytes)?;
            if rows.is_empty() {
                break;
            }
            for mut row in rows {
                from = Some(row.seq + 1);
                let is_message = row.intent.is_message();
                // An agent that cannot follow the group sends only frames of its recovery.
                if apart && !row.intent.is_way_back() {
                    break 'offer;
                }
                let acknowledged = channel.offered.accepted.contains_key(&row.frame_id);
                if !acknowledged {
                    let frame = match self.build(channel, &mut row)? {
                        Built::Frame(frame) => *frame,
                        Built::Gone => continue,
                        Built::NotYet => break 'offer,
                    };
                    if bytes > 0 && bytes + frame.encoded().len() > max_bytes {
                        break 'offer;
                    }
                    bytes += frame.encoded().len();
                    frames.push(OutboxFrame { frame });
                }
                channel.offered.next_seq = Some(row.seq + 1);
                channel.offered.in_flight += 1;
                channel.offered.encrypted_no = row.encrypted_no.max(channel.offered.encrypted_no);
                channel.offered.doubtful_no = row.encrypted_no.max(channel.offered.doubtful_no);
                if !is_message {
                    channel.offered.barrier = true;
                    break 'offer;
                }
            }
        }
        Ok((frames, turn))
    }

    /// Returns the number of members before this one in the turn to commit, if members have asked to leave or the
    /// roster needs a correction. That commit comes before anything else, since nothing can be encrypted until then.
    /// Every member may make it, and the first one wins. To avoid that all try, each waits for the members before it.
    /// `None` if no such commit is needed, or this agent's next one includes it.
    fn turn(&self, channel: &Channel) -> Result<Option<u32>, EngineError> {
        let Some(group) = channel.group.as_ref() else {
            return Ok(None);
        };
        // A staged commit may already be in the log: it must be seen there, or be overtaken, before another one.
        if channel.position.recovery.standing != Standing::Current
            || group.pending_commit().is_some()
            || channel.offered.housekeeping_refused == Some(channel.position.head)
            || !self.is_anyone_waited_for(channel, group)?
        {
            return Ok(None);
        }
        // Any commit of this agent includes it.
        let first = self.rows_from(channel, None, 1)?.pop();
        // Nobody waits for members that cannot or will not do it.
        let mut behind = channel.rejoins.clone();
        behind.extend(channel.position.drift.liars.keys());
        let is_next = first.is_some_and(|row| row.intent.is_commit() && !self.waits_for_policy(channel, &row));
        Ok((!is_next).then(|| mls::turn(group, &behind)))
    }

    /// Whether a change must wait until the policy is restored, which is a separate commit: the relay node accepts only
    /// the previous policy.
    fn waits_for_policy(&self, channel: &Channel, row: &OutboxRow) -> bool {
        row.intent != Intent::Housekeeping
            && self.config.correct_rosters
            && channel.offered.housekeeping_refused != Some(channel.position.head)
            && channel.puts_policy_back(&self.identity.agent_id())
    }

    /// Whether others wait for a commit that removes or re-adds them, or that corrects the roster.
    fn is_anyone_waited_for(&self, channel: &Channel, group: &MlsGroup) -> Result<bool, EngineError> {
        if group.has_pending_proposals() && !mls::leavers(group).is_empty() {
            return Ok(true);
        }
        if self.config.correct_rosters && channel.correction(&self.identity.agent_id()).is_some() {
            return Ok(true);
        }
        Ok(anyone_waits(channel, self.identity.agent_id()) && !self.rejoining(channel, group)?.is_empty())
    }

    fn let_go(&mut self, channel: &mut Channel) -> Result<(), EngineError> {
        let row = self.queue(channel, Intent::Housekeeping, FrameId::generate(), &[], Place::Front)?;
        channel.offered.next_seq = Some(row.seq);
        Ok(())
    }

    fn build(&mut self, channel: &mut Channel, row: &mut OutboxRow) -> Result<Built, EngineError> {
        // A frame whose ratchet key is older than an accepted or earlier one is encrypted again if possible: readers
        // keep only a few skipped keys.
        let offered = &channel.offered;
        let before = channel
            .position
            .accepted_no
            .max(offered.accepted_no)
            .max(offered.encrypted_no);
        let overtaken = row.intent.is_message() && row.encrypted_no < before && channel.can_encrypt();
        if let Some(frame) = row.frame.clone().filter(|_| !overtaken) {
            return Ok(Built::Frame(Box::new(Frame::decode(frame)?)));
        }
        match row.intent {
            Intent::Message | Intent::Announce if channel.can_encrypt() => {
                let frame = self.encrypt(channel, row)?;
                Ok(Built::Frame(Box::new(frame)))
            }
            Intent::Message | Intent::Announce | Intent::Await => Ok(Built::NotYet),
            Intent::Create => self.build_create(channel, row),
            Intent::Rejoin => Ok(Built::Frame(Box::new(self.build_rejoin(channel, row)?))),
            Intent::Reboot => Ok(Built::Frame(Box::new(self.build_reboot(channel, row)?))),
            Intent::Renew => self.build_renewal(channel, row),
            _ if channel.position.recovery.standing != Standing::Current => Ok(Built::NotYet),
            _ if channel.position.head == Offset::ZERO => Ok(Built::NotYet),
            Intent::Leave => self.build_leave(channel, row),
            Intent::Refresh if self.is_refresh_moot(channel, row)? => {
                self.unneeded(channel, row)?;
                Ok(Built::Gone)
            }
            Intent::Add | Intent::Remove | Intent::Update | Intent::Housekeeping | Intent::Policy | Intent::Refresh => {
                self.build_commit(channel, row)
            }
        }
    }

    fn header(&self, channel: &Channel, row: &OutboxRow, parent: Offset, detail: Detail) -> Header {
        Header {
            log: channel.log(),
            id: row.frame_id,
            author: self.identity.agent_id(),
            parent,
            detail,
        }
    }

    fn build_create(&mut self, channel: &mut Channel, row: &mut OutboxRow) -> Result<Built, EngineError> {
        let detail = Detail::Create {
            mode: ChannelMode::Mls,
            account: None,
            policy: channel.group.as_ref().and_then(mls::policy),
        };
        let frame = Frame::new(self.header(channel, row, Offset::ZERO, detail), Bytes::new())?;
        self.built(channel, row, &frame)?;
        Ok(Built::Frame(Box::new(frame)))
    }

    /// Encrypts a message for the current epoch. The caller has checked [`Channel::can_encrypt`].
    pub(super) fn encrypt(&mut self, channel: &mut Channel, row: &mut OutboxRow) -> Result<Frame, EngineError> {
        let seen = channel.seen();
        let mut envelope = Envelope {
            frame_id: Bytes::copy_from_slice(row.frame_id.as_bytes()),
            offset: seen.map_or(0, |seen| seen.offset.get()),
            digest: seen.map_or_else(Bytes::new, |seen| Bytes::copy_from_slice(seen.digest.as_bytes())),
            sent_ms: row.sent_ms,
            payload: row.content.clone(),
            announcement: row.intent == Intent::Announce,
            ..Envelope::default()
        };
        row.properties.write(&mut envelope);
        let group = channel
            .group
            .as_mut()
            .ok_or(EngineError::ChannelLeft { channel: channel.id })?;
        let body = group
            .create_message(self.provider, self.identity, &envelope.encode_to_vec())
            .map_err(|error| EngineError::mls("encrypting a message", error))?
            .to_bytes()
            .map_err(|error| EngineError::mls("encoding a message", error))?;
        let frame = Frame::new(self.header(channel, row, channel.position.head, Detail::Message), body)?;
        self.built(channel, row, &frame)?;
        Ok(frame)
    }

    fn build_leave(&mut self, channel: &mut Channel, row: &mut OutboxRow) -> Result<Built, EngineError> {
        let first = self.rows_from(channel, None, 1)?.pop();
        if first.is_some_and(|first| first.seq != row.seq) {
            return Ok(Built::NotYet);
        }
        let Some(group) = channel.group.as_mut() else {
            return Ok(Built::NotYet);
        };
        if super::roles::is_last_admin(group, &self.identity.agent_id()) {
            // The other members are gone meanwhile.
            channel.position.state = ChannelState::Active;
            self.fail(channel, row, Code::LastAdmin)?;
            return Ok(Built::Gone);
        }
        if group.members().count() == 1 {
            self.left(channel, channel.position.cursor, self.identity.agent_id())?;
            return Ok(Built::Gone);
        }
        withdraw_own_proposals(group, self)?;
        let body = group
            .leave_group(self.provider, self.identity)
            .map_err(|error| EngineError::mls("asking to leave", error))?
            .to_bytes()
            .map_err(|error| EngineError::mls("encoding a proposal", error))?;
        let frame = Frame::new(self.header(channel, row, channel.position.head, Detail::Proposal), body)?;
        self.built(channel, row, &frame)?;
        Ok(Built::Frame(Box::new(frame)))
    }

    /// Builds an external commit of this member, sealed for the others: see [`mls::build_external`].
    fn build_renewal(&mut self, channel: &mut Channel, row: &mut OutboxRow) -> Result<Built, EngineError> {
        let Some(group) = channel.group.as_mut() else {
            return Ok(Built::NotYet);
        };
        let failed = |error: String| EngineError::mls("taking new keys", error);
        group.clear_pending_commit(self.provider.storage())?;
        self.provider.end_set_aside(channel.id.as_bytes(), false)?;
        let aside = self.provider.scratch(Some(channel.id.as_bytes()));
        let commit = mls::build_external(group, self.provider, &aside, self.identity, self.config.padding_bytes)
            .map_err(failed)?;
        let sealed = mls::seal_external(group, self.provider, row.frame_id, &commit).map_err(failed)?;
        self.provider.absorb(&aside);
        let detail = Detail::Commit {
            adds: Vec::new(),
            removes: Vec::new(),
            recipients: Vec::new(),
            roster: None,
            policy: None,
        };
        let bundle = Bundle {
            external: sealed.into(),
            ..Bundle::default()
        };
        let header = self.header(channel, row, channel.position.head, detail);
        let frame = Frame::new(header, bundle.encode_to_vec())?;
        self.built(channel, row, &frame)?;
        Ok(Built::Frame(Box::new(frame)))
    }

    fn build_commit(&mut self, channel: &mut Channel, row: &mut OutboxRow) -> Result<Built, EngineError> {
        if row.attempts > self.config.commit_attempts_max {
            self.fail(channel, row, Code::Contended)?;
            return Ok(Built::Gone);
        }
        let Some(group) = channel.group.as_ref() else {
            return Ok(Built::NotYet);
        };
        if group.pending_commit().is_some() || self.waits_for_policy(channel, row) {
            return Ok(Built::NotYet);
        }
        let (mut packages, mut removed) = self.wanted(group, row)?;
        let rejoining = self.rejoining(channel, group)?;
        let own = self.identity.agent_id();
        let correction = channel.correction(&own);
        let mut policy = None;
        let policy_unneeded = match row.intent {
            Intent::Policy => match self.wanted_policy(channel, row)? {
                Wanted::Unneeded => true,
                Wanted::Refused(code) => {
                    self.fail_commit(channel, row, code)?;
                    return Ok(Built::Gone);
                }
                Wanted::Policy(wanted) => {
                    policy = Some(wanted);
                    false
                }
            },
            _ => false,
        };
        let unneeded = match row.intent {
            Intent::Add => packages.is_empty(),
            // Agents that are only on the roster are removed from it.
            Intent::Remove => removed.is_empty() && correction.is_none(),
            Intent::Housekeeping => mls::leavers(group).is_empty() && rejoining.is_empty() && correction.is_none(),
            Intent::Policy => policy_unneeded,
            _ => false,
        };
        if unneeded {
            self.unneeded(channel, row)?;
            return Ok(Built::Gone);
        }
        if let Some(right) = self.missing_right(channel, row, &packages, &removed) {
            tracing::info!(channel = %channel.id, frame_id = %row.frame_id, %right, "a change that only admins may make");
            self.fail_commit(channel, row, Code::PolicyForbids)?;
            return Ok(Built::Gone);
        }
        if self.config.remove_liars {
            removed.extend(channel.liars_to_remove(&own));
        }
        for package in rejoining {
            if let Ok(agent) = mls::agent_of_leaf(package.leaf_node())
                && removed.insert(agent)
            {
                packages.push(package);
            }
        }
        let seen = channel.seen();
        let Some(group) = channel.group.as_mut() else {
            return Ok(Built::NotYet);
        };
        // A removed admin is no longer an admin.
        let before = mls::policy(group);
        let mut gone = mls::leavers(group);
        gone.extend(&removed);
        for package in &packages {
            if let Ok(agent) = mls::agent_of_leaf(package.leaf_node()) {
                gone.remove(&agent);
            }
        }
        let after = policy.or_else(|| before.clone());
        let after = after.map(|policy| policy.with_admins(|agent| !gone.contains(agent)));
        let changed = after.as_ref().filter(|after| before.as_ref() != Some(after));
        let committed = match mls::build_commit(group, self.provider, self.identity, packages, &removed, changed, seen)
        {
            Ok(committed) => committed,
            Err(reason) => {
                tracing::warn!(channel = %channel.id, frame_id = %row.frame_id, reason, "a commit cannot be built");
                self.fail_commit(channel, row, Code::Mls)?;
                return Ok(Built::Gone);
            }
        };
        let says_policy = changed.is_some() || correction.is_some_and(|correction| correction.policy);
        let policy: Option<Policy> = after.filter(|_| says_policy);
        let roster = correction.map(|_| {
            let mut roster: BTreeSet<AgentId> = mls::members(group);
            roster.retain(|agent| !committed.removes.contains(agent));
            roster.extend(&committed.adds);
            roster.into_iter().collect()
        });
        let detail = Detail::Commit {
            recipients: committed.adds.clone(),
            adds: committed.adds,
            removes: committed.removes,
            roster,
            policy,
        };
        let body = Bundle {
            commit: committed.commit.into(),
            welcome: committed.welcome.into(),
            ..Bundle::default()
        };
        let header = self.header(channel, row, channel.position.head, detail);
        match Frame::new(header, body.encode_to_vec()) {
            Ok(frame) => {
                self.built(channel, row, &frame)?;
                Ok(Built::Frame(Box::new(frame)))
            }
            Err(error @ (FrameError::TooLarge { .. } | FrameError::Field { .. })) => {
                self.fail_commit(channel, row, error.code())?;
                Ok(Built::Gone)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the right that this agent, which may have been an admin, lacks for a queued commit.
    fn missing_right(
        &self,
        channel: &Channel,
        row: &OutboxRow,
        packages: &[KeyPackage],
        removed: &BTreeSet<AgentId>,
    ) -> Option<Right> {
        let group = channel.group.as_ref()?;
        let own = self.identity.agent_id();
        let mut free = mls::leavers(group);
        free.extend(channel.liars_to_remove(&own));
        let asked = [
            (Right::Add, !packages.is_empty()),
            (Right::Remove, !removed.is_subset(&free)),
            (Right::Policy, row.intent == Intent::Policy),
        ];
        let missing = asked
            .into_iter()
            .find(|(right, asked)| *asked && !super::drift::may(group, *right, &own));
        missing.map(|(right, _)| right)
    }

    /// Returns the part of an intent that is still to be done: agents to add and to remove.
    fn wanted(&self, group: &MlsGroup, row: &OutboxRow) -> Result<(Vec<KeyPackage>, BTreeSet<AgentId>), EngineError> {
        let members = mls::members(group);
        let (mut packages, mut removed) = (Vec::new(), BTreeSet::new());
        match row.intent {
            Intent::Add => {
                let intent = Packages::decode(row.content.clone())
                    .map_err(|error| EngineError::mls("reading key packages", error))?;
                for bytes in intent.packages {
                    // It was checked when it was queued; if it does not pass now, it never will.
                    match mls::added_package(self.provider, &bytes) {
                        Ok((agent, package)) if !members.contains(&agent) => packages.push(package),
                        Ok(_) | Err(_) => {}
                    }
                }
            }
            Intent::Remove => {
                let agents = row.content.chunks_exact(AgentId::LENGTH);
                removed.extend(agents.filter_map(|bytes| AgentId::try_from(bytes).ok()));
                removed.retain(|agent| members.contains(agent));
            }
            _ => {}
        }
        Ok((packages, removed))
    }

    pub(super) fn unneeded(&mut self, channel: &mut Channel, row: &OutboxRow) -> Result<(), EngineError> {
        self.unqueue(channel, row)?;
        if row.intent.is_told() {
            self.events.push(Event::Unneeded {
                channel: channel.id,
                frame_id: row.frame_id,
            });
        }
        Ok(())
    }

    fn fail_commit(&mut self, channel: &mut Channel, row: &OutboxRow, code: Code) -> Result<(), EngineError> {
        if let Some(group) = channel.group.as_mut() {
            group.clear_pending_commit(self.provider.storage())?;
        }
        if row.intent == Intent::Housekeeping {
            channel.offered.housekeeping_refused = Some(channel.position.head);
        }
        self.fail(channel, row, code)
    }

    fn outcome(&mut self, channel: &mut Channel, frame_id: FrameId, outcome: Outcome) -> Result<(), EngineError> {
        let Some(row) = self.row_of(channel, frame_id)? else {
            // Seen in the log already, or given up.
            return Ok(());
        };
        match outcome {
            Outcome::Appended { offset } | Outcome::Duplicate { offset } if offset > channel.position.cursor => {
                channel.offered.accepted.insert(frame_id, offset);
                let accepted = &mut channel.offered.accepted_no;
                *accepted = row.encrypted_no.max(*accepted);
                Ok(())
            }
            // The log's entry there was not this frame, or the agent was not shown it, or the log went back.
            Outcome::Appended { offset } => self.appended_behind(channel, &row, offset, true),
            Outcome::Duplicate { offset } => self.appended_behind(channel, &row, offset, false),
            Outcome::StaleEpoch { head } | Outcome::StaleHandshake { head } => {
                let code = match outcome {
                    Outcome::StaleEpoch { .. } => Code::StaleEpoch,
                    _ => Code::StaleHandshake,
                };
                self.refused_for_now(channel.no, row.seq, code)?;
                if head < channel.position.head && !channel.position.recovery.unsure {
                    // The log has no commit at the offset where this agent was shown one.
                    let kept = channel.position.head.previous();
                    return self.rolled_back(channel, kept);
                }
                if head > channel.position.head {
                    channel.offered.wait_for = head.max(channel.offered.wait_for);
                    channel.offered.again();
                }
                Ok(())
            }
            Outcome::Refused { retryable: true, code } => {
                self.refused_for_now(channel.no, row.seq, code)?;
                channel.offered.again();
                Ok(())
            }
            Outcome::RosterChange { agent } => self.contradicted(channel, &row, agent),
            Outcome::Refused {
                code: code @ Code::NotMember,
                ..
            } if row.intent != Intent::Create && !row.intent.is_way_back() => {
                // Removed, or taken off the roster by a lying header: the log shows which.
                self.refused_for_now(channel.no, row.seq, code)?;
                channel.offered.denied = Some(channel.position.cursor);
                channel.offered.again();
                Ok(())
            }
            Outcome::Refused {
                code: code @ Code::PolicyForbids,
                ..
            } if channel
                .correction(&self.identity.agent_id())
                .is_some_and(|correction| correction.policy) =>
            {
                // The roster can still be corrected.
                self.refused_for_now(channel.no, row.seq, code)?;
                channel.offered.policy_refused = Some(channel.position.head);
                if let Some(group) = channel.group.as_mut() {
                    group.clear_pending_commit(self.provider.storage())?;
                }
                self.unbuild(channel)
            }
            Outcome::Refused { code, .. } => self.refused(channel, &row, code),
        }
    }

    /// Handles a roster that differs from the one this agent assumed: a lost commit or a lying header has changed it.
    /// Each agent is considered once.
    fn contradicted(&mut self, channel: &mut Channel, row: &OutboxRow, agent: AgentId) -> Result<(), EngineError> {
        let own = self.identity.agent_id();
        let known = channel.known_members();
        let is_news = match row.intent {
            // It is not on the roster: it was removed.
            Intent::Reboot if known.contains(&agent) => agent != own && channel.position.removed.insert(agent),
            Intent::Reboot => channel.returned.contains(&agent) && channel.offered.left_out.insert(agent),
            // It is on the roster and not in the group, or vice versa.
            _ if row.intent.is_commit() && !channel.position.drift.is_known() => {
                channel.position.drift.ghost = channel.position.cursor;
                true
            }
            _ => false,
        };
        if !is_news {
            return self.refused(channel, row, Code::RosterChange);
        }
        self.refused_for_now(channel.no, row.seq, Code::RosterChange)?;
        if row.intent != Intent::Reboot
            && let Some(group) = channel.group.as_mut()
        {
            group.clear_pending_commit(self.provider.storage())?;
        }
        self.unbuild(channel)
    }

    /// Fails an intent that the relay refused permanently.
    pub(super) fn refused(&mut self, channel: &mut Channel, row: &OutboxRow, code: Code) -> Result<(), EngineError> {
        if row.intent == Intent::Rejoin || row.intent == Intent::Renew {
            return self.way_back_refused(channel, row, code);
        }
        if row.intent == Intent::Remove && channel.has_returned() {
            channel.offered.redo_refused = Some(channel.position.head);
        }
        if row.intent.is_commit() {
            self.fail_commit(channel, row, code)?;
        } else {
            self.fail(channel, row, code)?;
        }
        if row.intent == Intent::Create {
            // The channel will never exist: everything queued for it fails, too.
            if let Some(mut group) = channel.group.take() {
                group.delete(self.provider.storage())?;
            }
            channel.position.state = ChannelState::Left;
            self.fail_all(channel, code)?;
        }
        if row.intent == Intent::Leave {
            if let Some(group) = channel.group.as_mut() {
                withdraw_own_proposals(group, self)?;
            }
            if channel.position.state == ChannelState::Leaving {
                channel.position.state = ChannelState::Active;
            }
        }
        channel.offered.again();
        Ok(())
    }
}

fn withdraw_own_proposals(group: &mut MlsGroup, tx: &Tx<'_>) -> Result<(), EngineError> {
    let own = group.own_leaf_index();
    let withdrawn: Vec<_> = group
        .pending_proposals()
        .filter(|proposal| mls::leaver(proposal) == Some(own))
        .map(QueuedProposal::proposal_reference_ref)
        .cloned()
        .collect();
    for reference in withdrawn {
        group
            .remove_pending_proposal(tx.provider.storage(), &reference)
            .map_err(|error| EngineError::mls("withdrawing a proposal", error))?;
    }
    Ok(())
}
