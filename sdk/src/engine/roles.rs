//! A channel's policy: its rights and its admins.

use super::channel::Channel;
use super::drift::may;
use super::outbox::{Intent, OutboxRow};
use super::transact::Tx;
use super::{ChannelId, Engine, EngineError};
use crate::mls;
use openmls::group::MlsGroup;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use skytale_proto::{AgentId, Code, FrameId, Holders, Policy, Right, limits};
use std::collections::BTreeSet;

/// A change of a channel's policy. Parts that change nothing, or are no longer possible, are skipped when the commit is
/// built.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PolicyChange {
    /// Rights, with their new holders.
    pub set: Vec<(Right, Holders)>,
    /// Members that become admins.
    pub promote: Vec<AgentId>,
    /// Admins that become ordinary members.
    pub demote: Vec<AgentId>,
}

impl PolicyChange {
    /// Creates a change of the holders of rights.
    pub fn set(rights: &[(Right, Holders)]) -> Self {
        Self {
            set: rights.to_vec(),
            ..Self::default()
        }
    }

    /// Creates a change that makes members admins.
    pub fn promote(agents: &[AgentId]) -> Self {
        Self {
            promote: agents.to_vec(),
            ..Self::default()
        }
    }

    /// Creates a change that makes admins ordinary members.
    pub fn demote(agents: &[AgentId]) -> Self {
        Self {
            demote: agents.to_vec(),
            ..Self::default()
        }
    }
}

/// Stored form in the outbox. Persisted: keep stable.
#[derive(Clone, PartialEq, prost::Message)]
struct Kept {
    /// Bits of the rights that are set; `admins` has those among them that only admins have.
    #[prost(uint32, tag = "1")]
    set: u32,
    #[prost(uint32, tag = "2")]
    admins: u32,
    #[prost(bytes = "vec", tag = "3")]
    promote: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    demote: Vec<u8>,
}

impl PolicyChange {
    fn encode(&self) -> Vec<u8> {
        let mut kept = Kept::default();
        for (right, holders) in &self.set {
            let bit = bit(*right);
            kept.set |= bit;
            kept.admins &= !bit;
            if *holders == Holders::Admins {
                kept.admins |= bit;
            }
        }
        kept.promote = self.promote.iter().flat_map(|agent| *agent.as_bytes()).collect();
        kept.demote = self.demote.iter().flat_map(|agent| *agent.as_bytes()).collect();
        kept.encode_to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        let kept = Kept::decode(bytes)?;
        let agents = |bytes: &[u8]| {
            let (ids, _) = bytes.as_chunks::<{ AgentId::LENGTH }>();
            ids.iter().copied().map(AgentId::from_bytes).collect()
        };
        let set = Right::ALL.into_iter().filter(|right| kept.set & bit(*right) != 0);
        let holders = |right: Right| match kept.admins & bit(right) {
            0 => Holders::Members,
            _ => Holders::Admins,
        };
        Ok(Self {
            set: set.map(|right| (right, holders(right))).collect(),
            promote: agents(&kept.promote),
            demote: agents(&kept.demote),
        })
    }

    /// Returns a policy with this change applied. Only members become admins.
    fn applied(&self, policy: &Policy, members: &BTreeSet<AgentId>) -> Policy {
        let mut policy = policy.clone();
        for (right, holders) in &self.set {
            policy.set(*right, *holders);
        }
        for agent in self.promote.iter().filter(|agent| members.contains(agent)) {
            policy.promote(*agent);
        }
        for agent in &self.demote {
            policy.demote(agent);
        }
        policy
    }
}

/// Returns the bit of a right. Persisted: keep stable.
const fn bit(right: Right) -> u32 {
    match right {
        Right::Add => 1,
        Right::Invite => 2,
        Right::Remove => 4,
        Right::Trim => 8,
        Right::Policy => 16,
    }
}

/// Result of building the commit of a policy change.
pub(super) enum Wanted {
    /// The change is not needed.
    Unneeded,
    /// The change is impossible.
    Refused(Code),
    Policy(Policy),
}

impl Engine {
    /// Returns a channel's policy; `None` if all members may do everything, and for a channel that was left.
    pub fn policy(&mut self, channel: ChannelId) -> Result<Option<Policy>, EngineError> {
        Ok(self.loaded(channel)?.group.as_ref().and_then(mls::policy))
    }

    /// Lists the admins in a channel's group, by id. If it has a policy and none of its admins is a member, all members
    /// are admins.
    pub fn admins(&mut self, channel: ChannelId) -> Result<Vec<AgentId>, EngineError> {
        let group = self.loaded(channel)?.group.as_ref();
        let Some((group, policy)) = group.and_then(|group| Some((group, mls::policy(group)?))) else {
            return Ok(Vec::new());
        };
        let members = mls::members(group);
        let admins = members
            .iter()
            .filter(|agent| policy.is_admin(agent, |agent| members.contains(agent)));
        Ok(admins.copied().collect())
    }

    /// Queues a change of a channel's policy.
    pub fn change_policy(&mut self, channel: ChannelId, change: &PolicyChange) -> Result<FrameId, EngineError> {
        let own = self.agent_id();
        let known = self.sendable(channel)?;
        if let Some(group) = known.group.as_ref() {
            if !may(group, Right::Policy, &own) {
                return Err(EngineError::NotAllowed {
                    channel,
                    right: Right::Policy,
                });
            }
            let members = mls::members(group);
            if let Some(stranger) = change.promote.iter().find(|agent| !members.contains(agent)) {
                return Err(EngineError::NoMember { agent: *stranger });
            }
            if let Some(Wanted::Refused(Code::LastAdmin)) = wanted(group, change, &own) {
                return Err(EngineError::LastAdmin { channel });
            }
        }
        self.queue_change(channel, Intent::Policy, &change.encode())
    }

    /// Refuses a removal that the policy reserves for admins. Every member may remove agents that asked to leave, that
    /// lied, or that are only on the roster.
    pub(super) fn check_removal(&mut self, channel: ChannelId, agents: &[AgentId]) -> Result<(), EngineError> {
        let own = self.agent_id();
        let known = self.loaded(channel)?;
        let Some(group) = known.group.as_ref() else {
            return Ok(());
        };
        let (members, mut free) = (mls::members(group), mls::leavers(group));
        free.extend(known.liars_to_remove(&own));
        let needs_right = agents
            .iter()
            .any(|agent| members.contains(agent) && !free.contains(agent));
        match needs_right && !may(group, Right::Remove, &own) {
            true => Err(EngineError::NotAllowed {
                channel,
                right: Right::Remove,
            }),
            false => Ok(()),
        }
    }

    /// Refuses an operation that the policy reserves for admins if this agent is not one.
    pub(super) fn check_right(&mut self, channel: ChannelId, right: Right) -> Result<(), EngineError> {
        let own = self.agent_id();
        match self.loaded(channel)?.group.as_ref() {
            Some(group) if !may(group, right, &own) => Err(EngineError::NotAllowed { channel, right }),
            _ => Ok(()),
        }
    }
}

/// Whether an agent is the only admin of a group that has other members, and rules that need one.
pub(super) fn is_last_admin(group: &MlsGroup, agent: &AgentId) -> bool {
    let members = mls::members(group);
    mls::policy(group).is_some_and(|policy| {
        let mut present = policy.admins().intersection(&members);
        policy.is_restricted() && members.len() > 1 && present.next() == Some(agent) && present.next().is_none()
    })
}

fn wanted(group: &MlsGroup, change: &PolicyChange, own: &AgentId) -> Option<Wanted> {
    let members = mls::members(group);
    let before = mls::policy(group);
    // The first policy of a channel that had none: its author becomes the admin.
    let base = before.clone().unwrap_or_else(|| Policy::open(*own));
    let after = change.applied(&base, &members);
    let after = after.with_admins(|agent| members.contains(agent));
    if Some(&after) == before.as_ref() {
        return Some(Wanted::Unneeded);
    }
    if after.admins().is_empty() {
        return Some(Wanted::Refused(Code::LastAdmin));
    }
    if after.admins().len() > limits::ADMINS_MAX {
        return Some(Wanted::Refused(Code::PolicyForbids));
    }
    Some(Wanted::Policy(after))
}

impl Tx<'_> {
    /// Returns the part of a policy change that is still to be done.
    pub(super) fn wanted_policy(&self, channel: &Channel, row: &OutboxRow) -> Result<Wanted, EngineError> {
        let change = PolicyChange::decode(&row.content).map_err(|error| EngineError::mls("reading a policy", error))?;
        let group = channel.group.as_ref();
        Ok(group
            .and_then(|group| wanted(group, &change, &self.identity.agent_id()))
            .unwrap_or(Wanted::Unneeded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_a_policy_is_kept_as_it_is() {
        let change = PolicyChange {
            set: vec![(Right::Add, Holders::Admins), (Right::Remove, Holders::Members)],
            promote: vec![AgentId::from_bytes([1; 32])],
            demote: vec![AgentId::from_bytes([2; 32]), AgentId::from_bytes([3; 32])],
        };
        assert_eq!(PolicyChange::decode(&change.encode()), Ok(change));
    }
}
