//! Rights of members in a group, as headers say: a frame that the policy forbids is refused before it is an entry.
//!
//! Headers can lie, and members judge them by the group's own policy (RFC 9420 section 12.1.7). So nothing here decides who
//! is a member; it keeps most of what members would not take out of the log.

use super::Refused;
use super::roster::Roster;
use skytale_proto::{AgentId, Policy, Right};
use std::collections::BTreeSet;

/// The policy, and the facts needed to apply it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Roles {
    /// `None`: every member may do everything.
    pub(super) policy: Option<Policy>,
    /// Changes of the policy by one agent, until another who was an admin before has committed: they may put it back.
    pub(super) contested: Option<Contested>,
    /// Agents on the roster that have proposed to leave: every member may let them go.
    pub(super) leaving: BTreeSet<AgentId>,
}

/// Changes of the policy that no other admin has confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contested {
    /// Author of the changes.
    pub(super) by: AgentId,
    /// The policies before each of them, oldest first: the first, which no change of this author's made, and the newest others;
    /// [`BEFORE_MAX`] in all, each once.
    pub(super) before: Vec<Policy>,
}

/// Maximum number of earlier policies that are remembered with unconfirmed changes.
pub(super) const BEFORE_MAX: usize = 8;

impl Contested {
    /// Changes as many as one likes do not take away the policy that was there before the first.
    fn keep(&mut self, before: Policy) {
        if self.before.first() == Some(&before) {
            return;
        }
        self.before.retain(|kept| *kept != before);
        self.before.push(before);
        if self.before.len() > BEFORE_MAX {
            self.before.remove(1);
        }
    }
}

/// Changes that a commit's header asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) author: &'a AgentId,
    pub(super) adds: &'a [AgentId],
    pub(super) removes: &'a [AgentId],
    /// The whole roster, where it is a correction.
    pub(super) roster: Option<&'a [AgentId]>,
    pub(super) policy: Option<&'a Policy>,
}

impl<'a> Asked<'a> {
    /// The lists as sets: a commit may name thousands of agents, and each is looked for in the other lists.
    fn sets(&self) -> Sets<'a> {
        Sets {
            adds: self.adds.iter().collect(),
            removes: self.removes.iter().collect(),
            roster: self.roster,
        }
    }
}

struct Sets<'a> {
    adds: BTreeSet<&'a AgentId>,
    removes: BTreeSet<&'a AgentId>,
    roster: Option<&'a [AgentId]>,
}

impl Sets<'_> {
    /// Whether an agent that is on the roster is no longer on it after this.
    fn takes_off(&self, agent: &AgentId) -> bool {
        match self.roster {
            Some(roster) => roster.binary_search(agent).is_err(),
            None => self.removes.contains(agent) && !self.adds.contains(agent),
        }
    }
}

impl Roles {
    pub(super) fn of(policy: Option<Policy>) -> Self {
        Self {
            policy,
            ..Self::default()
        }
    }

    /// Whether a member may do something.
    pub(super) fn allows(&self, right: Right, author: &AgentId, roster: &Roster) -> bool {
        let policy = self.policy.as_ref();
        policy.is_none_or(|policy| policy.allows(right, author, |agent| roster.contains(agent)))
    }

    /// Refuses what the policy forbids.
    pub(super) fn permit(&self, asked: Asked<'_>, roster: &Roster) -> Result<(), Refused> {
        let Some(policy) = &self.policy else { return Ok(()) };
        let forbidden = |right, agent| Err(Refused::Forbidden { right, agent });
        let may = |right| policy.allows(right, asked.author, |agent| roster.contains(agent));
        let sets = asked.sets();
        if let Some(agent) = asked.adds.iter().find(|agent| !sets.removes.contains(agent))
            && !may(Right::Add)
        {
            return forbidden(Right::Add, Some(*agent));
        }
        if !may(Right::Remove) {
            // A correction repairs the roster after a lie, no matter who makes it. It takes no admin off.
            let kept = |agent: &AgentId| !self.leaving.contains(agent) && sets.takes_off(agent);
            let gone = match asked.roster {
                Some(_) => policy
                    .admins()
                    .iter()
                    .find(|agent| roster.contains(agent) && kept(agent)),
                None => asked.removes.iter().find(|agent| kept(agent)),
            };
            if let Some(agent) = gone {
                return forbidden(Right::Remove, Some(*agent));
            }
        }
        match asked.policy {
            Some(new) if new != policy && !may(Right::Policy) => {
                let stays = |agent: &AgentId| !self.leaving.contains(agent) || !sets.takes_off(agent);
                match *new == policy.with_admins(stays) || self.puts_back(asked, new, &sets) {
                    true => Ok(()),
                    false => forbidden(Right::Policy, None),
                }
            }
            _ => Ok(()),
        }
    }

    /// Whether a correction puts the policy back as it was, by one who was an admin then. Admins that were leaving and are let
    /// go by it are admins no more.
    fn puts_back(&self, asked: Asked<'_>, new: &Policy, sets: &Sets<'_>) -> bool {
        let stays = |agent: &AgentId| !self.leaving.contains(agent) || !sets.takes_off(agent);
        let was_in_force = |before: &Policy| before == new || before.with_admins(stays) == *new;
        let contested = self.contested.as_ref();
        asked.roster.is_some()
            && new.admins().contains(asked.author)
            && contested
                .is_some_and(|contested| contested.by != *asked.author && contested.before.iter().any(was_in_force))
    }

    /// The commit is an entry, and the roster is as after it.
    pub(super) fn committed(&mut self, asked: Asked<'_>, roster: &Roster) {
        let puts_back = match asked.policy {
            Some(new) if self.contested.is_some() => self.puts_back(asked, new, &asked.sets()),
            _ => false,
        };
        let added: BTreeSet<&AgentId> = asked.adds.iter().collect();
        self.leaving
            .retain(|agent| roster.contains(agent) && !added.contains(agent));
        let changed = asked.policy.filter(|new| self.policy.as_ref() != Some(new));
        match changed {
            Some(new) => {
                let before = self.policy.replace(new.clone());
                self.contested = match (self.contested.take(), before) {
                    (Some(mut contested), Some(before)) if contested.by == *asked.author => {
                        contested.keep(before);
                        Some(contested)
                    }
                    (Some(contested), _) if puts_back || contested.before.contains(new) => None,
                    (_, before) => before.map(|before| Contested {
                        by: *asked.author,
                        before: vec![before],
                    }),
                };
            }
            None => {
                let confirms = |contested: &Contested| {
                    let mut before = contested.before.iter();
                    contested.by != *asked.author && before.any(|policy| policy.admins().contains(asked.author))
                };
                if self.contested.as_ref().is_some_and(confirms) {
                    self.contested = None;
                }
            }
        }
    }

    pub(super) fn weight_bytes(&self) -> usize {
        let policies = self
            .policy
            .iter()
            .chain(self.contested.iter().flat_map(|contested| &contested.before));
        let admins: usize = policies.map(|policy| policy.admins().len()).sum();
        (admins + self.leaving.len()) * size_of::<AgentId>() * 3 / 2
    }
}
