//! A channel of a run: what its authors and readers must know of each other.

use parking_lot::Mutex;
use skytale_history::ChannelMonitor;
use skytale_proto::{ChannelId, ChannelMode, Offset};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;

/// A channel.
pub(super) struct Room {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

/// State of a channel.
#[derive(Clone, Default)]
pub(super) struct State {
    pub(super) made: Option<Made>,
    /// It will never exist.
    is_broken: bool,
    /// The handshake head.
    pub(super) head: Offset,
    /// The last entry that was acknowledged.
    pub(super) last: Offset,
    agents: HashMap<u32, Membership>,
}

/// An agent's memberships.
#[derive(Clone, Default)]
struct Membership {
    /// Start of each; `None` if the commit that was to add it never became an entry.
    joins: Vec<Option<Offset>>,
    is_member: bool,
}

/// A channel that exists.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) id: ChannelId,
    pub(super) mode: ChannelMode,
    pub(super) watched: Arc<ChannelMonitor>,
}

/// Change that a frame made to its channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) adds: Vec<u32>,
    pub(super) removes: Vec<u32>,
}

/// The awaited event will never come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Never;

impl Default for Room {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl Room {
    /// Waits until something is known of the channel, or never will be.
    async fn until<R>(&self, mut known: impl FnMut(&State) -> Option<Result<R, Never>>) -> Result<R, Never> {
        let mut changed = self.changed.subscribe();
        loop {
            {
                let state = self.state.lock();
                if let Some(result) = known(&state) {
                    return result;
                }
                if state.is_broken {
                    return Err(Never);
                }
            }
            // The sender lives as long as the room.
            let _ = changed.changed().await;
        }
    }

    /// Waits until an agent may append: it has joined so often.
    pub(super) async fn for_author(&self, agent: u32, joins: u32) -> Result<Made, Never> {
        self.until(|state| state.membership(agent, joins).map(|known| known.map(|(made, _)| made)))
            .await
    }

    /// Waits until an agent may read, and says from which entry on.
    pub(super) async fn for_reader(&self, agent: u32, joins: u32) -> Result<(Made, Offset), Never> {
        self.until(|state| state.membership(agent, joins)).await
    }

    /// Waits until all of these have joined so often.
    pub(super) async fn have_joined(&self, agents: &[(u32, u32)]) -> Result<(), Never> {
        for (agent, joins) in agents {
            self.until(|state| state.membership(*agent, *joins)).await?;
        }
        Ok(())
    }

    /// Whether an agent is a member now.
    pub(super) fn has(&self, agent: u32) -> bool {
        let state = self.state.lock();
        match &state.made {
            Some(made) if made.mode == ChannelMode::Raw => true,
            _ => state.agents.get(&agent).is_some_and(|membership| membership.is_member),
        }
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.state.lock());
        self.changed.send_modify(|version| *version += 1);
        result
    }

    /// The Create was acknowledged.
    pub(super) fn created(&self, made: Made, owner: u32, offset: Offset) {
        self.change(|state| {
            state.made = Some(made);
            (state.head, state.last) = (offset, offset);
            state.joined(owner, Some(offset));
        });
    }

    /// The Create never became an entry.
    pub(super) fn broken(&self) {
        self.change(|state| state.is_broken = true);
    }

    /// A commit was acknowledged.
    pub(super) fn committed(&self, change: &Change, offset: Offset) {
        self.change(|state| {
            state.head = state.head.max(offset);
            state.last = state.last.max(offset);
            for agent in &change.removes {
                if let Some(membership) = state.agents.get_mut(agent) {
                    membership.is_member = false;
                }
            }
            for agent in &change.adds {
                state.joined(*agent, Some(offset));
            }
        });
    }

    /// A commit never became an entry: the agents that it was to add will not join by it.
    pub(super) fn not_committed(&self, change: &Change) {
        self.change(|state| {
            for agent in &change.adds {
                state.joined(*agent, None);
            }
        });
    }

    /// Another entry was acknowledged.
    pub(super) fn appended(&self, offset: Offset) {
        let mut state = self.state.lock();
        state.last = state.last.max(offset);
    }

    /// A handshake head that a refusal named.
    pub(super) fn moved(&self, head: Offset) {
        self.change(|state| state.head = state.head.max(head));
    }

    /// The handshake head.
    pub(super) fn head(&self) -> Offset {
        self.state.lock().head
    }

    /// The last entry that was acknowledged.
    pub(super) fn last(&self) -> Offset {
        self.state.lock().last
    }
}

impl State {
    fn joined(&mut self, agent: u32, at: Option<Offset>) {
        let membership = self.agents.entry(agent).or_default();
        membership.joins.push(at);
        membership.is_member |= at.is_some();
    }

    /// The channel, and the first entry of an agent's membership with this number, from 1; `None` where that is not known yet.
    fn membership(&self, agent: u32, joins: u32) -> Option<Result<(Made, Offset), Never>> {
        let made = self.made.clone()?;
        if made.mode == ChannelMode::Raw {
            return Some(Ok((made, Offset::FIRST)));
        }
        let number = (joins as usize).checked_sub(1)?;
        let join = *self.agents.get(&agent)?.joins.get(number)?;
        Some(join.map(|offset| (made, offset)).ok_or(Never))
    }
}
