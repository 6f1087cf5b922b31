//! Workloads for those who have no traffic yet: profiles, made from a seed.
//!
//! The same profile, seed and size give the same events with the same build. Between platforms, logarithms and cosines may differ
//! in their last digit.

mod chance;
pub(crate) use chance::Chance;
mod profiles;
mod scene;

use crate::event::Event;
use std::time::Duration;

/// Profile of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Two agents that take turns.
    ChattyPair,
    /// One author and many readers.
    FanOut,
    /// Teams that are offline at night, while a scheduled agent goes on writing.
    NightlyTeam,
    /// Short channels: a coordinator asks tools, and they answer with larger results.
    ToolSwarm,
    /// All readers go offline, miss a backlog, and come back at once.
    ReconnectStorm,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::ChattyPair,
        Self::FanOut,
        Self::NightlyTeam,
        Self::ToolSwarm,
        Self::ReconnectStorm,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChattyPair => "chatty-pair",
            Self::FanOut => "fan-out",
            Self::NightlyTeam => "nightly-team",
            Self::ToolSwarm => "tool-swarm",
            Self::ReconnectStorm => "reconnect-storm",
        }
    }

    /// The profile with a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name() == name)
    }
}

/// Size of a synthetic workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Length of the workload.
    pub duration: Duration,
    /// Agents, about: pairs and teams are kept whole.
    pub agents: u32,
    /// Messages a second, over all channels, while everyone is awake.
    pub messages_per_second: u32,
}

/// Reason why a size cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SizeError(&'static str);

/// Agents of a synthetic workload.
pub const AGENTS_MAX: u32 = 100_000;
/// Messages of a synthetic workload: they are all in memory until they are written.
pub const MESSAGES_MAX: u64 = 20_000_000;

/// The events of a profile, in the order of their times.
pub fn synthesize(profile: Profile, size: Size, seed: u64) -> Result<Vec<Event>, SizeError> {
    if size.agents < 2 || size.agents > AGENTS_MAX {
        return Err(SizeError("agents must be 2 to 100000"));
    }
    if size.duration < Duration::from_secs(1) {
        return Err(SizeError("the duration must be 1 s at least"));
    }
    if size.messages_per_second == 0 {
        return Err(SizeError("there must be 1 message a second at least"));
    }
    if size.duration.as_secs().saturating_mul(size.messages_per_second.into()) > MESSAGES_MAX {
        return Err(SizeError("that is more than 20 million messages"));
    }
    let mut scene = scene::Scene::new(seed);
    match profile {
        Profile::ChattyPair => profiles::chatty_pair(&mut scene, size),
        Profile::FanOut => profiles::fan_out(&mut scene, size),
        Profile::NightlyTeam => profiles::nightly_team(&mut scene, size),
        Profile::ToolSwarm => profiles::tool_swarm(&mut scene, size),
        Profile::ReconnectStorm => profiles::reconnect_storm(&mut scene, size),
    }
    Ok(scene.into_events())
}

#[cfg(test)]
mod tests;
