//! Joins that each event of a plan needs: the number of times that its agent must have joined its channel.

use skytale_workload::plan::Plan;
use skytale_workload::{Agent, Channel, Frame, Log, What};
use std::collections::HashMap;

/// Number of times that agents must have joined a channel before an event.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Joins of each event's own agent.
    joins: Vec<u32>,
    /// Joins of the members that each commit removes.
    removed: HashMap<usize, Vec<(u32, u32)>>,
}

impl Needs {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut joined: HashMap<(Agent, Channel), u32> = HashMap::new();
        let mut needs = Self {
            joins: vec![0; plan.events.len()],
            removed: HashMap::new(),
        };
        for (place, event) in plan.events.iter().enumerate() {
            let (agent, channel) = match &event.what {
                What::Append { author, frame, .. } => match frame.channel() {
                    Some(channel) => (*author, channel),
                    None => continue,
                },
                What::Subscribe {
                    agent,
                    log: Log::Channel(channel),
                    ..
                } => (*agent, *channel),
                _ => continue,
            };
            if let Some(joins) = needs.joins.get_mut(place) {
                *joins = joined.get(&(agent, channel)).copied().unwrap_or(0);
            }
            match &event.what {
                What::Append {
                    author,
                    frame: Frame::Create { .. },
                    ..
                } => *joined.entry((*author, channel)).or_default() += 1,
                What::Append {
                    frame: Frame::Commit { adds, removes, .. },
                    ..
                } => {
                    if !removes.is_empty() {
                        let of = |agent: &Agent| (agent.0, joined.get(&(*agent, channel)).copied().unwrap_or(0));
                        needs.removed.insert(place, removes.iter().map(of).collect());
                    }
                    for agent in adds {
                        *joined.entry((*agent, channel)).or_default() += 1;
                    }
                }
                _ => {}
            }
        }
        needs
    }

    /// Returns the number of times that the event's own agent must have joined.
    pub(super) fn joins(&self, place: usize) -> u32 {
        self.joins.get(place).copied().unwrap_or(0)
    }

    /// Returns the number of times that the agents must have joined whom the event removes.
    pub(super) fn removed(&self, place: usize) -> &[(u32, u32)] {
        self.removed.get(&place).map_or(&[], Vec::as_slice)
    }
}
