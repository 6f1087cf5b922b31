//! A group that begins again: the way back where no member can go on.
//!
//! A member makes a new group of the same channel, and adds all others whose KeyPackages it has. The bundle stands in the
//! log as a commit on the handshake head, so that of several the first wins; its header removes and adds each of the others,
//! so that the roster stays as it is. Whoever is on the roster and is not added asks to rejoin.

use super::channel::Channel;
use super::outbox::{Intent, OutboxRow, Packages, Place};
use super::rejoin::read_bundle;
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
use skytale_proto::{AgentId, ChannelId, Detail, Frame, FrameId, Header, Offset};
use std::collections::BTreeSet;

impl Engine {
    /// Members whose KeyPackages [`Engine::reboot`] needs, beside those that have sent one with a request to rejoin: claim
    /// one of each, where it can be had.
    pub fn reboot_wants(&mut self, channel: ChannelId) -> Result<Vec<AgentId>, EngineError> {
        let own = self.agent_id();
        let channel = self.loaded(channel)?;
        let members = channel.group.as_ref().map(mls::members).unwrap_or_default();
        Ok(members
            .into_iter()
            .filter(|agent| *agent != own && !channel.rejoins.contains(agent))
            .collect())
    }

    /// Whether nobody is left who could answer this agent's request: every other member that it knows of has asked, too.
    pub fn is_reboot_due(&mut self, channel: ChannelId) -> Result<bool, EngineError> {
        let own = self.agent_id();
        let channel = self.loaded(channel)?;
        let recovery = &channel.position.recovery;
        if recovery.standing != Standing::OutOfSync || recovery.asked == Offset::ZERO {
            return Ok(false);
        }
        let Some(group) = channel.group.as_ref() else {
            return Ok(false);
        };
        let others = mls::members(group).into_iter().filter(|agent| *agent != own);
        Ok(others.into_iter().all(|agent| channel.rejoins.contains(&agent)))
    }

    /// Where a new beginning is due: how many members are before this one in making it, by their ids.
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

    /// Queues a new beginning of the group with all members whose KeyPackage is at hand. Members come over without being
    /// asked; those without a KeyPackage here ask to rejoin. What was said before stays readable to those who had read it.
    pub fn reboot(&mut self, channel: ChannelId, packages: Vec<ClaimedPackage>) -> Result<FrameId, EngineError> {
        let state = self.loaded(channel)?.position.state;
        if !matches!(state, ChannelState::Active | ChannelState::Leaving) {
            return Err(EngineError::ChannelLeft { channel });
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
        let (mut others, mut added) = (BTreeSet::new(), Vec::new());
        for bytes in packages {
            if let Ok((agent, package)) = mls::added_package(self.provider, &bytes)
                && agent != own
                && others.insert(agent)
            {
                added.push(package);
            }
        }
        let config = mls::create_config(self.config.padding_bytes);
        let id = mls::group_id(channel.id, parent.get());
        let scratch = self.provider.scratch(None);
        // One that was built before for the same head.
        if let Some(mut before) = MlsGroup::load(scratch.storage(), &id).map_err(EngineError::from)? {
            before.delete(scratch.storage())?;
        }
        let mut group = MlsGroup::new_with_group_id(&scratch, self.identity, &config, id, self.identity.credential())
            .map_err(|error| failed(&error))?;
        let mut welcome = Vec::new();
        if !added.is_empty() {
            let committed = mls::build_commit(&mut group, &scratch, self.identity, added, &BTreeSet::new())
                .map_err(|error| failed(&error))?;
            group.merge_pending_commit(&scratch).map_err(|error| failed(&error))?;
            welcome = committed.welcome;
        }
        self.provider.absorb(&scratch);
        let others: Vec<AgentId> = others.into_iter().collect();
        let header = Header {
            log: channel.log(),
            id: row.frame_id,
            author: own,
            parent,
            detail: Detail::Commit {
                adds: others.clone(),
                removes: others.clone(),
                recipients: others,
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

    /// This agent's own bundle is in the log.
    pub(super) fn own_reboot(
        &mut self,
        channel: &mut Channel,
        offset: Offset,
        header: &Header,
    ) -> Result<(), EngineError> {
        let members = channel.rejoins.clone();
        self.forget_requests(channel, &members)?;
        if let Some(mut before) = channel.group.take() {
            before.delete(self.provider.storage())?;
        }
        channel.position.reboot = header.parent.get();
        self.note_missed(channel, offset)?;
        channel.position.recovery = Recovery::default();
        channel.group = super::channel::take_group(self.provider, channel.id, &channel.position)?;
        channel.position.epoch = channel.group.as_ref().map_or(0, |group| group.epoch().as_u64());
        self.unbuild(channel)?;
        self.events.push(Event::Rebooted {
            channel: channel.id,
            offset,
            by: header.author,
        });
        // Those who came over learn the digest with the first message.
        self.queue(channel, Intent::Announce, FrameId::generate(), &[], Place::Back)?;
        Ok(())
    }

    /// Another member's, in a group that this agent follows: it comes over.
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
        let reason = match self.try_rejoin(channel, offset, frame, bundle)? {
            Ok(()) => {
                self.events.push(Event::Rebooted {
                    channel: channel.id,
                    offset,
                    by,
                });
                return Ok(());
            }
            // It is no new beginning for anybody: the group goes on.
            Err(not_back) if not_back.for_all => return Err(rejected(not_back.reason)),
            Err(not_back) => format!("the group began again without this agent: {}", not_back.reason),
        };
        debug_assert!(read_bundle(frame).is_ok());
        Ok(self.out_of_sync(channel, offset, reason)?)
    }
}
