//! Rights of members in a channel that is an MLS group.

use crate::{AgentId, limits};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Something that a channel's policy allows to its admins alone, or to all members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Add agents.
    Add,
    /// Invite agents that come in later by themselves.
    Invite,
    /// Remove agents that did not ask to leave.
    Remove,
    /// Give up history for all members.
    Trim,
    /// Change the policy, and who is an admin.
    Policy,
}

impl Right {
    /// All rights.
    pub const ALL: [Self; 5] = [Self::Add, Self::Invite, Self::Remove, Self::Trim, Self::Policy];

    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Invite => "invite",
            Self::Remove => "remove",
            Self::Trim => "trim",
            Self::Policy => "policy",
        }
    }

    /// Its bit in [`Policy::bits`]. Persisted, and on the wire: keep stable.
    const fn bit(self) -> u8 {
        match self {
            Self::Add => 1 << 0,
            Self::Invite => 1 << 1,
            Self::Remove => 1 << 2,
            Self::Trim => 1 << 3,
            Self::Policy => 1 << 4,
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no right, or nobody who could have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{expected}")]
pub struct PolicyWordError {
    expected: &'static str,
}

impl FromStr for Right {
    type Err = PolicyWordError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = |right: &Self| right.name() == text;
        Self::ALL.into_iter().find(named).ok_or(PolicyWordError {
            expected: "expected one of add, invite, remove, trim, policy",
        })
    }
}

/// Members that have a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Holders {
    /// The channel's admins.
    Admins,
    /// All members.
    Members,
}

impl Holders {
    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admins => "admins",
            Self::Members => "members",
        }
    }
}

impl FromStr for Holders {
    type Err = PolicyWordError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "admins" => Ok(Self::Admins),
            "members" => Ok(Self::Members),
            _ => Err(PolicyWordError {
                expected: "expected admins or members",
            }),
        }
    }
}

/// A channel's policy: which rights only its admins have, and who they are.
///
/// An admin is an agent that is listed and in the channel. Where no listed agent is in the channel, every member counts as
/// an admin: a channel never becomes one that nobody can govern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    restricted: u8,
    admins: BTreeSet<AgentId>,
}

/// Bytes that are no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a policy: {problem}")]
pub struct PolicyError {
    problem: &'static str,
}

impl Policy {
    /// All bits that mean something.
    const BITS: u8 = 0b1_1111;
    /// A policy without admins, encoded.
    pub const LENGTH_MIN: usize = 3;

    /// The policy of a new channel: its creator is the admin; admins remove, trim and change the policy, members add and
    /// invite.
    pub fn new(creator: AgentId) -> Self {
        let mut policy = Self::open(creator);
        for right in [Right::Remove, Right::Trim, Right::Policy] {
            policy.set(right, Holders::Admins);
        }
        policy
    }

    /// A policy by which members may do everything.
    pub fn open(creator: AgentId) -> Self {
        Self {
            restricted: 0,
            admins: BTreeSet::from([creator]),
        }
    }

    /// The policy with these bits and admins.
    pub fn from_parts(bits: u8, admins: BTreeSet<AgentId>) -> Result<Self, PolicyError> {
        if bits & !Self::BITS != 0 {
            return Err(PolicyError {
                problem: "it has rights that are not known",
            });
        }
        if admins.len() > limits::ADMINS_MAX {
            return Err(PolicyError {
                problem: "it lists more admins than there may be",
            });
        }
        Ok(Self {
            restricted: bits,
            admins,
        })
    }

    /// A bit for each right that only admins have.
    pub const fn bits(&self) -> u8 {
        self.restricted
    }

    /// Returns the members that have a right.
    pub const fn holders(&self, right: Right) -> Holders {
        match self.restricted & right.bit() {
            0 => Holders::Members,
            _ => Holders::Admins,
        }
    }

    /// Gives a right to others.
    pub const fn set(&mut self, right: Right, holders: Holders) {
        match holders {
            Holders::Admins => self.restricted |= right.bit(),
            Holders::Members => self.restricted &= !right.bit(),
        }
    }

    /// Whether admins have a right that other members have not.
    pub const fn is_restricted(&self) -> bool {
        self.restricted != 0
    }

    /// Agents that are listed as admins, whether they are in the channel or not.
    pub const fn admins(&self) -> &BTreeSet<AgentId> {
        &self.admins
    }

    /// Lists an agent as an admin. Whether it was not listed before.
    pub fn promote(&mut self, agent: AgentId) -> bool {
        self.admins.insert(agent)
    }

    /// Takes an agent off the list of admins. Whether it was listed before.
    pub fn demote(&mut self, agent: &AgentId) -> bool {
        self.admins.remove(agent)
    }

    /// The same rights, with those admins alone that a condition holds for.
    #[must_use]
    pub fn with_admins(&self, keep: impl Fn(&AgentId) -> bool) -> Self {
        Self {
            restricted: self.restricted,
            admins: self.admins.iter().filter(|agent| keep(agent)).copied().collect(),
        }
    }

    /// Whether a member is an admin, among agents that are in the channel.
    pub fn is_admin(&self, agent: &AgentId, is_member: impl Fn(&AgentId) -> bool) -> bool {
        self.admins.contains(agent) || !self.admins.iter().any(is_member)
    }

    /// Whether a member has a right, among agents that are in the channel.
    pub fn allows(&self, right: Right, agent: &AgentId, is_member: impl Fn(&AgentId) -> bool) -> bool {
        self.holders(right) == Holders::Members || self.is_admin(agent, is_member)
    }

    /// Returns the bytes: the bits, the number of admins (`u16`, little-endian), the admins in ascending order.
    /// Persisted: keep stable.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.restricted];
        // At most `ADMINS_MAX`.
        bytes.extend((self.admins.len() as u16).to_le_bytes());
        bytes.extend(self.admins.iter().flat_map(|agent| *agent.as_bytes()));
        bytes
    }

    /// A policy at the beginning of bytes, and the bytes behind it.
    pub fn take(bytes: &[u8]) -> Result<(Self, &[u8]), PolicyError> {
        let short = PolicyError { problem: "cut short" };
        let ([bits, low, high], rest) = bytes.split_first_chunk().ok_or(short)?;
        let count = usize::from(u16::from_le_bytes([*low, *high]));
        let (listed, rest) = rest.split_at_checked(count * AgentId::LENGTH).ok_or(short)?;
        let (ids, _) = listed.as_chunks::<{ AgentId::LENGTH }>();
        if ids.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(PolicyError {
                problem: "its admins are not in ascending order",
            });
        }
        let admins = ids.iter().copied().map(AgentId::from_bytes).collect();
        Ok((Self::from_parts(*bits, admins)?, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: AgentId = AgentId::from_bytes([1; 32]);
    const BOB: AgentId = AgentId::from_bytes([2; 32]);

    #[test]
    fn a_new_channel_is_governed_by_its_creator() {
        let policy = Policy::new(ALICE);
        let present = |_: &AgentId| true;
        for right in Right::ALL {
            assert!(policy.allows(right, &ALICE, present));
            let open = matches!(right, Right::Add | Right::Invite);
            assert_eq!(policy.allows(right, &BOB, present), open, "{right}");
            assert_eq!(right.name().parse(), Ok(right));
        }
        assert!("everything".parse::<Right>().is_err());
    }

    #[test]
    fn where_no_admin_is_left_every_member_is_one() {
        let policy = Policy::new(ALICE);
        assert!(policy.is_admin(&BOB, |agent| *agent == BOB));
        assert!(!policy.is_admin(&BOB, |_| true));
    }

    #[test]
    fn a_policy_has_one_encoding() {
        let mut policy = Policy::new(BOB);
        policy.promote(ALICE);
        let bytes = [policy.to_bytes().as_slice(), &[7]].concat();
        assert_eq!(Policy::take(&bytes), Ok((policy.clone(), &[7][..])));
        for cut in 0..bytes.len() - 1 {
            assert!(Policy::take(&bytes[..cut]).is_err(), "{cut}");
        }
        let mut unknown = bytes.clone();
        unknown[0] |= 1 << 5;
        assert!(Policy::take(&unknown).is_err());
        let mut unordered = bytes;
        unordered[3..67].rotate_left(32);
        assert!(Policy::take(&unordered).is_err());
    }
}
