//! Drift: a log's roster that differs from the group's membership, and its correction.
//!
//! A relay node folds its roster from headers, which members write; it cannot detect a lying one. Members can, and none
//! of them applies such a commit: the group stays in its epoch, and the log's handshake head moves. The header's effect
//! on the roster stays until a member corrects it:
//!
//! ```text
//!  offset  entry                          roster            group
//!  7       Commit  mallory, adds ghost    a b m ghost       a b m    void: its content adds nobody
//!  8       Commit  ghost, junk            a b m ghost       a b m    void: its author is no member
//!  9       Commit  bob, roster {a, b}     a b               a b      a correction, which removes the liar
//! ```
//!
//! - Members in an epoch have seen all of its entries, so all know the same liars ([`Drift::liars`]) and the same need
//!   for a correction. A commit after a lie that does not correct it is void, too, and its author is a liar.
//! - A correction's header lists the roster: the group's members after the commit. Each member compares.
//! - Any member that follows the group may make one, in turn (see [`Engine::take_turn`](super::Engine::take_turn)). A
//!   member that a lie has taken off the roster waits: it is put back, and reads on from there.

use super::channel::Channel;
use super::outbox::{Intent, Place};
use super::rejoin::read_bundle;
use super::replay::Halt;
use super::transact::Tx;
use super::{EngineError, Event};
use crate::mls::{self, Rejected};
use crate::vault::VaultError;
use skytale_proto::{AgentId, Detail, Frame, FrameId, Header, Offset, Policy, Right};
use std::collections::{BTreeMap, BTreeSet};

/// Evidence in a channel's entries about its roster, since it last matched the group. Offsets are [`Offset::ZERO`] if
/// there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Drift {
    /// The first commit of this epoch that the group did not apply and whose header changes the roster.
    pub(super) roster: Offset,
    /// The first entry by an agent that is on the roster but not in the group.
    pub(super) ghost: Offset,
    /// The first commit that the group did not apply and whose header changes the policy.
    pub(super) policy: Offset,
    /// The lying entry that took this agent off the roster.
    pub(super) locked: Offset,
    /// Members whose headers lied in this epoch, with the first lie of each.
    pub(super) liars: BTreeMap<AgentId, Offset>,
}

const LIAR_BYTES: usize = AgentId::LENGTH + 8;

impl Drift {
    /// Whether the roster is known to differ from the group.
    pub(super) const fn is_known(&self) -> bool {
        self.roster.get() > 0 || self.ghost.get() > 0
    }

    pub(super) fn known_liars(&self) -> BTreeSet<AgentId> {
        self.liars.keys().copied().collect()
    }

    /// Forgets evidence after an entry: the entries will be read again.
    pub(super) fn forget_behind(&mut self, kept: Offset) {
        for at in [&mut self.roster, &mut self.ghost, &mut self.policy, &mut self.locked] {
            if *at > kept {
                *at = Offset::ZERO;
            }
        }
        self.liars.retain(|_, at| *at <= kept);
    }

    /// Encodes it; empty if there is no evidence. Persisted: keep stable.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        if *self == Self::default() {
            return Vec::new();
        }
        let offsets = [self.roster, self.ghost, self.policy, self.locked];
        let mut bytes: Vec<u8> = offsets.iter().flat_map(|at| at.get().to_be_bytes()).collect();
        for (agent, at) in &self.liars {
            bytes.extend(agent.as_bytes());
            bytes.extend(at.get().to_be_bytes());
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, VaultError> {
        let damaged = || VaultError::damaged("what is known of a channel's roster");
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let (offsets, liars) = bytes.split_first_chunk::<32>().ok_or_else(damaged)?;
        let (offsets, _) = offsets.as_chunks::<8>();
        let mut offsets = offsets.iter().map(|at| Offset::new(u64::from_be_bytes(*at)));
        let mut next = || offsets.next().unwrap_or(Offset::ZERO);
        let mut drift = Self {
            roster: next(),
            ghost: next(),
            policy: next(),
            locked: next(),
            liars: BTreeMap::new(),
        };
        let (liars, rest) = liars.as_chunks::<LIAR_BYTES>();
        if !rest.is_empty() {
            return Err(damaged());
        }
        for liar in liars {
            let (agent, at) = liar.split_at(AgentId::LENGTH);
            let agent = AgentId::try_from(agent).map_err(|_| damaged())?;
            let at = <[u8; 8]>::try_from(at).map_err(|_| damaged())?;
            drift.liars.insert(agent, Offset::new(u64::from_be_bytes(at)));
        }
        Ok(drift)
    }
}

fn first(at: &mut Offset, offset: Offset) {
    if *at == Offset::ZERO {
        *at = offset;
    }
}

/// Whether an agent may use a right by its group's policy.
pub(super) fn may(group: &openmls::group::MlsGroup, right: Right, agent: &AgentId) -> bool {
    let members = mls::members(group);
    mls::policy(group).is_none_or(|policy| policy.allows(right, agent, |agent| members.contains(agent)))
}

impl Channel {
    /// Returns the correction that this agent must make at the log; `None` if there is none that it may make.
    pub(super) fn correction(&self, own: &AgentId) -> Option<Correction> {
        let drift = &self.position.drift;
        if *drift == Drift::default() || self.group.is_none() {
            return None;
        }
        let policy = self.puts_policy_back(own);
        let is_due = drift.is_known() || policy || !self.liars_to_remove(own).is_empty();
        is_due.then_some(Correction { policy })
    }

    /// Whether this agent must restore the policy at the log.
    pub(super) fn puts_policy_back(&self, own: &AgentId) -> bool {
        self.position.drift.policy > Offset::ZERO
            && self.offered.policy_refused != Some(self.position.head)
            && self.group.as_ref().is_some_and(|group| may(group, Right::Policy, own))
    }

    /// Returns the liars that this agent's next commit removes. If it restores the policy, the relay node may not know
    /// yet that this agent is an admin: then lying admins are removed with the following commit.
    pub(super) fn liars_to_remove(&self, own: &AgentId) -> BTreeSet<AgentId> {
        let Some(group) = self.group.as_ref() else {
            return BTreeSet::new();
        };
        let (members, policy) = (mls::members(group), mls::policy(group));
        let is_member = |agent: &AgentId| members.contains(agent);
        let puts_back = self.puts_policy_back(own);
        let may_remove = |agent: &AgentId| {
            policy.as_ref().is_none_or(|policy| {
                !policy.admins().contains(agent) || (policy.is_admin(own, is_member) && !puts_back)
            })
        };
        let liars = self.position.drift.liars.keys();
        let liars = liars.filter(|agent| *agent != own && is_member(agent) && may_remove(agent));
        liars.copied().collect()
    }
}

/// Content of a correction besides the roster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Correction {
    /// Whether to repeat the policy, too.
    pub(super) policy: bool,
}

impl Tx<'_> {
    /// Judges an entry, processed or not: if it was not, its header's effect on the roster is examined. Nothing is
    /// concluded from entries by agents outside the group.
    pub(super) fn judged(
        &mut self,
        channel: &mut Channel,
        offset: Offset,
        frame: &Frame,
        done: Result<(), Halt>,
    ) -> Result<(), Halt> {
        let header = frame.header();
        let Err(Halt::Rejected(rejected)) = &done else {
            return done;
        };
        let has_lied = match rejected {
            Rejected::OutOfSync(_) | Rejected::Storage(_) => return done,
            Rejected::KeyUsed(_) if self.is_read_again(channel, offset) => return done,
            Rejected::Lied(_) => true,
            Rejected::LaterEpoch | Rejected::KeyUsed(_) | Rejected::Unreadable(_) => false,
        };
        // If entries are lost, a commit that added its author may be among them.
        if channel.position.recovery.standing.is_apart()
            || channel.position.recovery.unsure
            || !header.kind().is_under_handshake_rule()
        {
            return done;
        }
        let Some(group) = channel.group.as_ref() else {
            return done;
        };
        let is_member = mls::members(group).contains(&header.author);
        self.note_void(channel, offset, frame, is_member, has_lied);
        match is_member {
            true => done,
            false => Err(Halt::Void(
                "its author is on the log's roster, and not in the group".into(),
            )),
        }
    }

    /// Records the effect on the roster of a header whose content was not applied.
    fn note_void(&mut self, channel: &mut Channel, offset: Offset, frame: &Frame, is_member: bool, has_lied: bool) {
        let header = frame.header();
        let own = self.identity.agent_id();
        let drift = &mut channel.position.drift;
        if !is_member {
            first(&mut drift.ghost, offset);
        }
        let Detail::Commit {
            adds,
            removes,
            roster,
            policy,
            ..
        } = &header.detail
        else {
            return;
        };
        // An agent that is removed and added stays.
        let set = |agents: &[AgentId]| agents.iter().copied().collect::<BTreeSet<_>>();
        let (added, removed) = (set(adds), set(removes));
        let moves_roster = roster.is_some() || added != removed;
        if moves_roster {
            first(&mut drift.roster, offset);
        }
        if policy.is_some() {
            first(&mut drift.policy, offset);
        }
        let is_off = takes_off(&own, adds, removes, roster.as_deref());
        let is_on = adds.contains(&own) || roster.as_ref().is_some_and(|roster| roster.contains(&own));
        if is_off && drift.locked == Offset::ZERO {
            drift.locked = offset;
            self.events.push(Event::LockedOut {
                channel: channel.id,
                offset,
                by: header.author,
            });
        } else if is_on {
            drift.locked = Offset::ZERO;
        }
        // A member that is out of sync may recreate the group without agents that it does not know: that is no lie.
        let is_late =
            added.is_subset(&removed) && policy.is_none() && read_bundle(frame).is_ok_and(|bundle| bundle.reboot);
        if is_member && header.author != own && !is_late && (has_lied || moves_roster || policy.is_some()) {
            drift.liars.entry(header.author).or_insert(offset);
        }
    }

    /// Handles an applied commit: its header's statement about the roster was verified.
    pub(super) fn settled_by(
        &mut self,
        channel: &mut Channel,
        offset: Offset,
        header: &Header,
        is_renewal: bool,
    ) -> Result<(), EngineError> {
        let Detail::Commit { roster, policy, .. } = &header.detail else {
            return Ok(());
        };
        let drift = &mut channel.position.drift;
        if roster.is_some() {
            let was_known = drift.is_known();
            drift.roster = Offset::ZERO;
            drift.ghost = Offset::ZERO;
            drift.locked = Offset::ZERO;
            if was_known {
                self.events.push(Event::RosterCorrected {
                    channel: channel.id,
                    offset,
                    by: header.author,
                });
            }
        }
        if policy.is_some() {
            drift.policy = Offset::ZERO;
        }
        if is_renewal {
            return Ok(());
        }
        // An agent that joined with this commit has seen nothing earlier.
        let liars = std::mem::take(&mut drift.liars);
        let own = self.identity.agent_id();
        let Some(group) = channel.group.as_ref() else {
            return Ok(());
        };
        if header.author != own || !self.config.remove_liars || !may(group, Right::Remove, &own) {
            return Ok(());
        }
        let members = mls::members(group);
        let left_over = liars.into_keys().filter(|agent| members.contains(agent));
        let left_over: Vec<u8> = left_over.flat_map(|agent| *agent.as_bytes()).collect();
        if !left_over.is_empty() {
            self.queue(channel, Intent::Remove, FrameId::generate(), &left_over, Place::Front)?;
        }
        Ok(())
    }

    /// Reports new admins, former admins, and a changed policy.
    pub(super) fn tell_policy(
        &mut self,
        channel: &Channel,
        offset: Offset,
        by: AgentId,
        change: Option<&(Option<Policy>, Policy)>,
    ) {
        let Some((before, after)) = change else { return };
        let listed = before
            .as_ref()
            .map(|policy| policy.admins().clone())
            .unwrap_or_default();
        for agent in listed.symmetric_difference(after.admins()) {
            self.events.push(Event::RoleChanged {
                channel: channel.id,
                offset,
                agent: *agent,
                by,
                is_admin: after.admins().contains(agent),
            });
        }
        if before.as_ref().map(Policy::bits) != Some(after.bits()) {
            self.events.push(Event::PolicyChanged {
                channel: channel.id,
                offset,
                by,
                policy: after.clone(),
            });
        }
    }
}

/// Whether a commit's header takes an agent off the roster.
pub(super) fn takes_off(agent: &AgentId, adds: &[AgentId], removes: &[AgentId], roster: Option<&[AgentId]>) -> bool {
    match roster {
        Some(roster) => !roster.contains(agent),
        None => removes.contains(agent) && !adds.contains(agent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_roster_is_kept_as_it_is() {
        let mut drift = Drift::default();
        assert!(drift.to_bytes().is_empty());
        drift.roster = Offset::new(7);
        drift.liars.insert(AgentId::from_bytes([3; 32]), Offset::new(7));
        drift.liars.insert(AgentId::from_bytes([4; 32]), Offset::new(9));
        let bytes = drift.to_bytes();
        assert_eq!(Drift::from_bytes(&bytes).expect("read"), drift);
        for cut in 1..bytes.len() {
            let is_whole = cut >= 32 && (cut - 32) % LIAR_BYTES == 0;
            assert_eq!(Drift::from_bytes(&bytes[..cut]).is_ok(), is_whole, "{cut}");
        }
        drift.forget_behind(Offset::new(8));
        assert_eq!((drift.roster, drift.liars.len()), (Offset::new(7), 1));
        drift.forget_behind(Offset::new(6));
        assert_eq!(drift, Drift::default());
    }
}
