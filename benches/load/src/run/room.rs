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

/// What is known of a channel.
#[derive(Clone, Default)]
pub(super) struct State {
    pub(super) made: Option<Made>,
    /// It will never exist.
    is_broken: bool,
    /// The handshake head.
    pub(super) head: Offset,
    /// The last entry that was acknowledged.
    pub(super) last: Offset,
    /// Members, and where each came.
    roster: HashMap<u32, Offset>,
}

/// A channel that exists.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) id: ChannelId,
    pub(super) mode: ChannelMode,
    pub(super) watched: Arc<ChannelMonitor>,
}

/// What a frame did to its channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) adds: Vec<u32>,
    pub(super) removes: Vec<u32>,
}

/// What is waited for will never be.
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
    /// Waits until something is known of the channel.
    pub(super) async fn until<R>(&self, mut known: impl FnMut(&State) -> Option<R>) -> Result<R, Never> {
        let mut changed = self.changed.subscribe();
        loop {
            {
                let state = self.state.lock();
                if let Some(result) = known(&state) {
                    return Ok(result);
                }
                if state.is_broken {
                    return Err(Never);
                }
            }
            // The sender lives as long as the room.
            let _ = changed.changed().await;
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
            state.roster.insert(owner, offset);
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
                state.roster.remove(agent);
            }
            state.roster.extend(change.adds.iter().map(|agent| (*agent, offset)));
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
    /// The channel, if `agent` may append to it.
    pub(super) fn for_author(&self, agent: u32) -> Option<Made> {
        let made = self.made.as_ref()?;
        (made.mode == ChannelMode::Raw || self.roster.contains_key(&agent)).then(|| made.clone())
    }

    /// The channel, and the first entry that `agent` may read.
    pub(super) fn for_reader(&self, agent: u32) -> Option<(Made, Offset)> {
        let made = self.made.as_ref()?;
        match made.mode {
            ChannelMode::Raw => Some((made.clone(), Offset::FIRST)),
            ChannelMode::Mls => Some((made.clone(), *self.roster.get(&agent)?)),
        }
    }

    /// Whether all of these are members.
    pub(super) fn has_all(&self, agents: &[u32]) -> bool {
        agents.iter().all(|agent| self.roster.contains_key(agent))
    }
}
