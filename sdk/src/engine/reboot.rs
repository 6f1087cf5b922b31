//! Reboots: recreating a group if no member can continue it.
//!
//! A member creates a new group of the same channel, and adds all others whose KeyPackages it has. The bundle is in the
//! log as a commit on the handshake head, so that the first of several wins. Its header removes all others that its
//! author knows, and adds the members of the new group, so that the roster matches the group. The same member later
//! adds agents that were left out for lack of a KeyPackage.

use super::channel::Channel;
use super::drift::takes_off;
use super::outbox::{Intent, OutboxRow, Packages, Place};
use super::replay::{Halt, rejected};
use super::standing::{Recovery, Standing};
use super::transact::Tx;
use super::{ChannelState, ClaimedPackage, Engine, EngineError, Event};
use crate::mls;
use crate::vault::Durability;
use openmls::group::MlsGroup;
use openmls_traits::OpenMlsProvider as _;
use prost::Message as _;
use skytale_proto::wire::Bundle;
use skytale_proto::{AgentId, ChannelId, Detail, Frame, FrameId, Header, Offset, Right};
use std::collections::BTreeSet;

impl Engine {
    /// Returns the members whose KeyPackages [`Engine::reboot`] needs, besides those that have sent one with a request
    /// to rejoin: claim one of each, if available.
    pub fn reboot_wants(&mut self, channel: ChannelId) -> Result<Vec<AgentId>, EngineError> {
        let own = self.agent_id();
        let channel = self.loaded(channel)?;
        Ok(channel
            .known_members()
            .into_iter()
            .filter(|agent| *agent != own && !channel.rejoins.contains(agent))
            .collect())
    }

    /// Whether nobody can answer this agent's request: every other known member has asked to rejoin, too.
    pub fn is_reboot_due(&mut self, channel: ChannelId) -> Result<bool, EngineError> {
        let own = self.agent_id();
        // Most channels need no group for this.
        if self.row(channel)?.0.recovery.standing != Standing::OutOfSync {
            return Ok(false);
        }
        let channel = self.loaded(channel)?;
        let recovery = &channel.position.recovery;
        if recovery.standing != Standing::OutOfSync || recovery.asked == Offset::ZERO {
            return Ok(false);
        }
        if channel.group.is_none() {
            return Ok(false);
        }
        let mut others = channel.known_members().into_iter().filter(|agent| *agent != own);
        Ok(others.all(|agent| channel.rejoins.contains(&agent)))
    }

    /// Returns the number of members before this one in the turn to reboot, by their ids, if a reboot is due.
    pub fn reboot_turn(&mut self, channel: ChannelId) -> Result<Option<u32>, EngineError> {
        if !self.is_reboot_due(channel)? {
            return Ok(None);
        }
        let own = self.agent_id();
        let before = self
            .loaded(channel)?
            .rejoins
            .iter()
            .filter(|agent| **agent < own)
            .count();
        Ok(Some(u32::try_from(before).unwrap_or(u32::MAX)))
    }

    /// Queues a reboot of the group with all members whose KeyPackage is available. Those members move over without a
    /// request. Members without a KeyPackage are removed, and added when they have one. Earlier messages stay readable
    /// for agents that had read them.
    pub fn reboot(&mut self, channel: ChannelId, packages: Vec<ClaimedPackage>) -> Result<FrameId, EngineError> {
        let state = self.loaded(channel)?.position.state;
        if !matches!(state, ChannelState::Active | ChannelState::Leaving) {
            return Err(EngineError::ChannelLeft { channel });
        }
        if self.loaded(channel)?.group.is_none() {
            return Err(EngineError::Change {
                problem: "this agent has never been in the group, and does not know its members",
            });
        }
        let mut intent = Packages::default();
        for package in packages {
            intent.packages.push(self.check_claimed(&package)?);
        }
        let (frame_id, _) = self.transact_on(channel, Durability::Now, |tx, channel| {
            let frame_id = FrameId::generate();
            for intent in [Intent::Reboot, Intent::Rejoin, Intent::Renew] {
                tx.unqueue_all(channel, intent)?;
            }
            tx.unbuild(channel)?;
            let row = tx.queue(channel, Intent::Reboot, frame_id, &intent.encode_to_vec(), Place::Front)?;
            channel.offered.next_seq = Some(row.seq);
            Ok(frame_id)
        })?;
        Ok(frame_id)
    }
}

impl Tx<'_> {
    pub(super) fn build_reboot(&mut self, channel: &mut Channel, row: &mut OutboxRow) -> Result<Frame, EngineError> {
        let parent = channel.position.head;
        let own = self.identity.agent_id();
        let failed = |error: &dyn ToString| EngineError::mls("beginning a group again", error.to_string());
        let content = Packages::decode(row.content.clone()).map_err(|error| failed(&error))?;
        let mut packages = content.packages;
        for agent in channel.rejoins.clone() {
            packages.extend(self.requested_with(channel, &agent)?.map(Into::into));
        }
        // Only agents that this one knows: a request alone makes no member.
        let known = channel.known_members();
        let (mut others, mut added) = (BTreeSet::new(), Vec::new());
        for bytes in packages {
            if let Ok((agent, package)) = mls::added_package(self.provider, &bytes)
                && agent != own
                && known.contains(&agent)
                && others.insert(agent)
            {
                added.push(package);
            }
        }
        let before = channel.group.as_ref().and_then(mls::policy);
        let policy =
            (before.as_ref()).map(|policy| policy.with_admins(|agent| *agent == own || others.contains(agent)));
        let config = mls::create_config(self.config.padding_bytes, policy.as_ref()).map_err(|error| failed(&error))?;
        let id = mls::group_id(channel.id, parent.get());
        let scratch = self.provider.scratch(None);
        // A group built earlier for the same head.
        if let Some(mut before) = MlsGroup::load(scratch.storage(), &id).map_err(EngineError::from)? {
            before.delete(scratch.storage())?;
        }
        let mut group = MlsGroup::new_with_group_id(&scratch, self.identity, &config, id, self.identity.credential())
            .map_err(|error| failed(&error))?;
        let mut welcome = Vec::new();
        if !added.is_empty() {
            let committed = mls::build_commit(&mut group, &scratch, self.identity, added, &BTreeSet::new(), None, None)
                .map_err(|error| failed(&error))?;
            group.merge_pending_commit(&scratch).map_err(|error| failed(&error))?;
            welcome = committed.welcome;
        }
        self.provider.absorb(&scratch);
        let mut removes: BTreeSet<AgentId> = known.iter().filter(|agent| **agent != own).copied().collect();
        let left_out = &channel.offered.left_out;
        removes.extend((channel.returned.difference(&others)).filter(|agent| !left_out.contains(*agent)));
        let removes = removes.into_iter().collect();
        let roster = (channel.position.drift.is_known()).then(|| {
            let mut roster = others.clone();
            roster.insert(own);
            roster.into_iter().collect()
        });
        let others: Vec<AgentId> = others.into_iter().collect();
        let header = Header {
            log: channel.log(),
            id: row.frame_id,
            author: own,
            parent,
            detail: Detail::Commit {
                adds: others.clone(),
                removes,
                recipients: others,
                roster,
                policy: policy.filter(|policy| before.as_ref() != Some(policy)),
            },
        };
        let bundle = Bundle {
            welcome: welcome.into(),
            reboot: true,
            ..Bundle::default()
        };
        let frame = Frame::new(header, bundle.encode_to_vec())?;
        self.built(channel, row, &frame)?;
        Ok(frame)
    }

    /// Handles that this agent's own bundle is in the log.
    pub(super) fn own_reboot(
        &mut self,
        channel: &mut Channel,
        offset: Offset,
        header: &Header,
    ) -> Result<(), EngineError> {
        let members = channel.rejoins.clone();
        self.forget_requests(channel, &members)?;
        if let Detail::Commit { adds, removes, .. } = &header.detail {
            for agent in removes.iter().filter(|agent| !adds.contains(agent)) {
                self.add_when_it_can(channel, agent)?;
            }
        }
        if let Some(mut before) = channel.group.take() {
            before.delete(self.provider.storage())?;
        }
        channel.position.reboot = header.parent.get();
        self.note_missed(channel, offset)?;
        channel.position.recovery = Recovery::default();
        channel.position.applied = offset;
        channel.position.drift = super::drift::Drift::default();
        channel.position.removed.clear();
        channel.group = super::channel::take_group(self.provider, channel.id, &channel.position)?;
        channel.position.epoch = channel.group.as_ref().map_or(0, |group| group.epoch().as_u64());
        self.unbuild(channel)?;
        self.events.push(Event::Rebooted {
            channel: channel.id,
            offset,
            by: header.author,
        });
        self.redo(channel)?;
        // Members that moved over learn the digest with the first message.
        self.queue(channel, Intent::Announce, FrameId::generate(), &[], Place::Back)?;
        Ok(())
    }

    /// Handles another member's bundle in a group that this agent follows: the agent moves over.
    pub(super) fn reboot(
        &mut self,
        channel: &mut Channel,
        offset: Offset,
        frame: &Frame,
        bundle: &Bundle,
    ) -> Result<(), Halt> {
        let header = frame.header();
        let group = channel.group.as_ref().ok_or_else(|| rejected("there is no group"))?;
        if !mls::members(group).contains(&header.author) {
            return Err(rejected("its author is not in the group"));
        }
        let by = header.author;
        let own = self.identity.agent_id();
        if let Detail::Commit { adds, .. } = &header.detail {
            // A reboot without some of the members removes them.
            let mut gone = mls::members(group);
            gone.retain(|agent| *agent != by && !adds.contains(agent));
            if !gone.is_subset(&mls::leavers(group)) && !super::drift::may(group, Right::Remove, &by) {
                return Err(rejected(
                    "it begins the group again without members that its author may not remove",
                ));
            }
        }
        if let Detail::Commit {
            adds, removes, roster, ..
        } = &header.detail
            && takes_off(&own, adds, removes, roster.as_deref())
        {
            return Ok(self.left(channel, offset, by)?);
        }
        let reason = match self.try_rejoin(channel, offset, frame, bundle)? {
            Ok(()) => {
                self.events.push(Event::Rebooted {
                    channel: channel.id,
                    offset,
                    by,
                });
                return Ok(());
            }
            // It is no valid reboot for any member: the group goes on.
            Err(not_back) if not_back.for_all => return Err(rejected(not_back.reason)),
            Err(not_back) => format!("the group began again without this agent: {}", not_back.reason),
        };
        Ok(self.out_of_sync(channel, offset, reason)?)
    }
}
