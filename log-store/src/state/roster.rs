//! Members that may read and write a group's log, and their stretches of it.

use super::Refused;
use crate::store::Access;
use skytale_proto::{AgentId, Offset, limits};
use std::collections::{BTreeMap, BTreeSet};

/// The roster, with what those who left may still read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Roster {
    /// Agents on the roster, and those who left and have a stretch that is not trimmed.
    agents: BTreeMap<AgentId, Membership>,
    /// Number of agents on the roster.
    present: usize,
    /// Number of stretches, open ones included. Bounded by [`limits::ROSTER_HISTORY_MAX`].
    stretches: usize,
}

/// The stretches of the log that one agent may read: disjoint, not adjacent, ascending; the open one last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Membership {
    /// Those that a removal has ended.
    pub(super) past: Vec<Stretch>,
    /// Start of the open one, for an agent on the roster.
    pub(super) since: Option<Offset>,
}

/// Offsets `from` to `to`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) from: Offset,
    pub(super) to: Offset,
}

impl Roster {
    /// A roster of one.
    pub(super) fn of(agent: AgentId, since: Offset) -> Self {
        let mut roster = Self::default();
        roster.insert(
            agent,
            Membership {
                past: Vec::new(),
                since: Some(since),
            },
        );
        roster
    }

    /// Puts an agent in that is not there.
    pub(super) fn insert(&mut self, agent: AgentId, membership: Membership) {
        self.present += usize::from(membership.since.is_some());
        self.stretches += membership.stretches();
        let before = self.agents.insert(agent, membership);
        debug_assert!(before.is_none(), "the agent is not there");
    }

    pub(super) fn contains(&self, agent: &AgentId) -> bool {
        self.agents
            .get(agent)
            .is_some_and(|membership| membership.since.is_some())
    }

    /// The change of the commit by `author` at `offset`, whole or not at all. Removals come first, so an agent in both
    /// lists is added again.
    pub(super) fn change(
        &mut self,
        author: &AgentId,
        adds: &[AgentId],
        removes: &[AgentId],
        offset: Offset,
    ) -> Result<(), Refused> {
        let contradiction = |problem, agent| Err(Refused::RosterChange { problem, agent });
        let removed: BTreeSet<&AgentId> = removes.iter().collect();
        let added: BTreeSet<&AgentId> = adds.iter().collect();
        if removed.len() != removes.len() || added.len() != adds.len() {
            return contradiction("it names an agent twice", None);
        }
        if removed.contains(author) {
            return contradiction("its author removes itself", None);
        }
        if let Some(agent) = removes.iter().find(|agent| !self.contains(agent)) {
            return contradiction("it removes an agent that is not on the roster", Some(*agent));
        }
        if let Some(agent) = (adds.iter()).find(|agent| self.contains(agent) && !removed.contains(agent)) {
            return contradiction("it adds an agent that is on the roster", Some(*agent));
        }
        // Each who is removed is on the roster, so this does not go below zero.
        let present = self.present - removes.len() + adds.len();
        let begun = adds.iter().filter(|agent| self.begins_stretch(agent, offset)).count();
        if present > limits::ROSTER_MAX || (begun > 0 && self.stretches + begun > limits::ROSTER_HISTORY_MAX) {
            return Err(Refused::RosterFull);
        }

        for agent in removed.difference(&added) {
            if let Some(membership) = self.agents.get_mut(agent) {
                membership.close(offset);
            }
        }
        for agent in added.difference(&removed) {
            self.agents.entry(**agent).or_default().open(offset);
        }
        self.present = present;
        self.stretches += begun;
        Ok(())
    }

    /// The correction by `author` at `offset`: it sets the roster. Agents that come back without being among `adds` had
    /// been taken off by a lie: they may read the entries that they missed, as if they had never been off. So may those
    /// that it removes and that were off: up to here, to learn it.
    pub(super) fn correct(
        &mut self,
        author: &AgentId,
        roster: &[AgentId],
        adds: &[AgentId],
        removes: &[AgentId],
        offset: Offset,
    ) -> Result<(), Refused> {
        let contradiction = |problem| Err(Refused::RosterChange { problem, agent: None });
        let set = |agents: &[AgentId]| -> BTreeSet<AgentId> { agents.iter().copied().collect() };
        let (target, added, removed) = (set(roster), set(adds), set(removes));
        if target.len() != roster.len() || added.len() != adds.len() {
            return contradiction("it names an agent twice");
        }
        if !target.contains(author) || !added.is_subset(&target) {
            return contradiction("it leaves out its author, or an agent that it adds");
        }
        let come: Vec<&AgentId> = target.iter().filter(|agent| !self.contains(agent)).collect();
        let begun = come.iter().filter(|agent| {
            let continues = !added.contains(agent) && self.has_past(agent);
            !continues && self.begins_stretch(agent, offset)
        });
        let begun = begun.count();
        if roster.len() > limits::ROSTER_MAX || (begun > 0 && self.stretches + begun > limits::ROSTER_HISTORY_MAX) {
            return Err(Refused::RosterFull);
        }
        // Some of the many who were on the roster once are all that a list may name: each is looked up once.
        for agent in removed.difference(&target) {
            if let Some(membership) = self.agents.get_mut(agent)
                && membership.since.is_none()
            {
                membership.reopen(offset);
            }
        }
        for (agent, membership) in &mut self.agents {
            if membership.since.is_some() && !target.contains(agent) {
                membership.close(offset);
            }
        }
        for agent in come {
            let membership = self.agents.entry(*agent).or_default();
            match added.contains(agent) {
                true => membership.open(offset),
                false => membership.reopen(offset),
            }
        }
        self.present = roster.len();
        self.stretches += begun;
        Ok(())
    }

    fn has_past(&self, agent: &AgentId) -> bool {
        self.agents
            .get(agent)
            .is_some_and(|membership| !membership.past.is_empty())
    }

    /// Whether adding the agent at `offset` begins a stretch, rather than going on with its last one.
    fn begins_stretch(&self, agent: &AgentId, offset: Offset) -> bool {
        self.agents
            .get(agent)
            .is_none_or(|membership| membership.since.is_none() && !membership.ends_just_before(offset))
    }

    pub(super) fn access(&self, agent: &AgentId, after: Offset) -> Access {
        self.agents
            .get(agent)
            .map_or(Access::NotMember { next: None }, |membership| {
                membership.access(after.next())
            })
    }

    /// Forgets stretches that end at or below `up_to`.
    pub(super) fn trim(&mut self, up_to: Offset) {
        self.agents.retain(|_, membership| {
            membership.past.retain(|stretch| stretch.to > up_to);
            membership.past.shrink_to_fit();
            membership.stretches() > 0
        });
        self.stretches = self.agents.values().map(Membership::stretches).sum();
    }

    /// The agents on the roster.
    pub(super) fn agents(&self) -> impl Iterator<Item = AgentId> {
        self.memberships()
            .filter(|(_, membership)| membership.since.is_some())
            .map(|(agent, _)| *agent)
    }

    /// Returns the number of agents that have a stretch.
    pub(super) fn len(&self) -> usize {
        self.agents.len()
    }

    /// Returns the number of agents on the roster.
    pub(super) const fn present(&self) -> usize {
        self.present
    }

    /// Returns the number of stretches.
    pub(super) const fn stretches(&self) -> usize {
        self.stretches
    }

    /// All agents that have a stretch, in the order of their ids.
    pub(super) fn memberships(&self) -> impl Iterator<Item = (&AgentId, &Membership)> {
        self.agents.iter()
    }

    pub(super) fn weight_bytes(&self) -> usize {
        // A B-tree's nodes are two thirds full on average.
        self.agents.len() * size_of::<(AgentId, Membership)>() * 3 / 2 + self.stretches * size_of::<Stretch>()
    }
}

impl Membership {
    fn stretches(&self) -> usize {
        self.past.len() + usize::from(self.since.is_some())
    }

    fn ends_just_before(&self, offset: Offset) -> bool {
        self.past.last().is_some_and(|stretch| stretch.to.next() == offset)
    }

    /// The agent comes on the roster with the entry at `offset`.
    fn open(&mut self, offset: Offset) {
        self.since = if self.ends_just_before(offset) {
            self.past.pop().map(|stretch| stretch.from)
        } else {
            Some(offset)
        };
    }

    /// The agent is on the roster again with the entry at `offset`, and goes on with its last stretch, as far as that is
    /// still known.
    fn reopen(&mut self, offset: Offset) {
        self.since = Some(self.past.pop().map_or(offset, |stretch| stretch.from));
    }

    /// The agent leaves the roster with the entry at `offset`, which it may still read.
    fn close(&mut self, offset: Offset) {
        if let Some(from) = self.since.take() {
            self.past.push(Stretch { from, to: offset });
        }
    }

    fn access(&self, wanted: Offset) -> Access {
        let later = self.past.partition_point(|stretch| stretch.to < wanted);
        match (self.past.get(later), self.since) {
            (Some(stretch), _) if stretch.from <= wanted => Access::Readable {
                until: Some(stretch.to),
            },
            (Some(stretch), _) => Access::NotMember {
                next: Some(stretch.from),
            },
            (None, Some(since)) if since <= wanted => Access::Readable { until: None },
            (None, since) => Access::NotMember { next: since },
        }
    }
}
