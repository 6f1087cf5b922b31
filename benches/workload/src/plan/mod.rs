//! Conversion of a workload to a schedule: what happens when, made as a whole before anything happens.
//!
//! Knobs are applied in this order: gaps are shortened; the workload is cut into parts, which are laid over each other; readers are
//! added; some readers stay away until the end; whole copies are made; one part of several is taken; the speed and the length are set.

mod away;
mod footprint;
mod knobs;
mod readers;
#[cfg(test)]
mod tests;

pub use knobs::{Fraction, KnobError, Knobs};

use crate::complete::Completer;
use crate::event::{Agent, Channel, Event, Frame, Log, What};
use crate::synth::Chance;
use footprint::Footprint;
use skytale_proto::{ChannelMode, limits};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

/// The most events that a plan is made of: it is held in memory as a whole, in about 100 bytes an event. 32 agents that commits name
/// count as an event.
pub const EVENTS_MAX: usize = 50_000_000;

/// Bytes that a frame needs besides its body: at least, and for each agent that a commit names.
const HEADER_BYTES: usize = 1024;
const HEADER_BYTES_PER_NAME: usize = 40;
/// Minimum bytes that a commit needs besides its body.
const COMMIT_HEADER_BYTES: usize = 64 * 1024;

/// Events to replay.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In the order of time, from 0. Agents and channels are numbered from 0.
    pub events: Vec<Event>,
    /// Agents: their numbers are below this.
    pub agents: u32,
    /// Channels: their numbers are below this.
    pub channels: u32,
    /// Refusals that the workload holds, by code. They are not done again: they come about or not.
    pub refusals: BTreeMap<u32, u64>,
    /// Events that represent a state before the workload, or outside of it.
    pub made_up: u64,
    /// Appends whose body was too large for a frame. They are planned with the largest body that fits.
    pub clamped: u64,
    /// Length of the schedule.
    pub duration: Duration,
}

/// Reason why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nothing is left to do.
    #[error("nothing is left of the workload: {0}")]
    Empty(&'static str),
    /// Too much for one process.
    #[error(
        "the plan is as large as {events} events, but at most {EVENTS_MAX} fit in memory; use fewer copies, parts or added readers, or a shorter workload"
    )]
    TooMany {
        /// Minimum number of its events.
        events: u64,
    },
    /// Nobody only reads.
    #[error(
        "an offline share needs agents that read and write nothing, and there are none; add readers with a fan-out"
    )]
    NoReaders,
}

/// One copy of the workload, or one part of it.
#[derive(Debug, Default)]
struct Layer {
    events: Vec<Event>,
    agents: u32,
    channels: u32,
}

impl Layer {
    /// Numbers for agents and channels in the order of their first appearance.
    fn numbered(events: Vec<Event>) -> Self {
        let (mut agents, mut channels) = (HashMap::new(), HashMap::new());
        let events = events
            .into_iter()
            .map(|event| Event {
                at: event.at,
                what: event.what.map(
                    |agent| {
                        let next = Agent(agents.len() as u32);
                        *agents.entry(agent).or_insert(next)
                    },
                    |channel| {
                        let next = Channel(channels.len() as u32);
                        *channels.entry(channel).or_insert(next)
                    },
                ),
            })
            .collect();
        Self {
            events,
            agents: agents.len() as u32,
            channels: channels.len() as u32,
        }
    }

    /// Lays another one over it, with agents and channels of its own.
    fn add(&mut self, other: &Self, shift: Duration) -> Result<(), PlanError> {
        let (agents, channels) = (self.agents, self.channels);
        let sums = agents
            .checked_add(other.agents)
            .zip(channels.checked_add(other.channels));
        let Some((agents_sum, channels_sum)) = sums else {
            let events = (self.events.len() + other.events.len()) as u64;
            return Err(PlanError::TooMany { events });
        };
        self.events.extend(other.events.iter().map(|event| {
            Event {
                at: event.at.saturating_add(shift),
                what: event
                    .what
                    .clone()
                    .map(|agent| Agent(agent.0 + agents), |channel| Channel(channel.0 + channels)),
            }
        }));
        (self.agents, self.channels) = (agents_sum, channels_sum);
        Ok(())
    }
}

impl Plan {
    /// Makes a plan of a workload's events, which are in the order of time.
    pub fn new(events: Vec<Event>, knobs: &Knobs) -> Result<Self, PlanError> {
        Self::within(EVENTS_MAX as u64, events, knobs)
    }

    /// Makes a plan of so many events at most.
    fn within(events_max: u64, mut events: Vec<Event>, knobs: &Knobs) -> Result<Self, PlanError> {
        if knobs.duration == Some(Duration::ZERO) {
            return Err(PlanError::Empty("the duration is zero"));
        }
        if events.is_empty() {
            return Err(PlanError::Empty("it has no events"));
        }
        shorten(&mut events, knobs.max_gap);
        let mut made_up = 0;
        let mut refusals = BTreeMap::new();
        for event in &events {
            if let What::Refused { code, .. } = &event.what {
                *refusals.entry(code.number()).or_default() += u64::from(knobs.clones);
            }
        }
        events.retain(|event| {
            !matches!(
                event.what,
                What::Refused { .. }
                    | What::Append {
                        frame: Frame::Trim { .. },
                        ..
                    }
            )
        });
        Footprint::of(&events).must_fit(knobs.clones, events_max)?;
        let mut layer = Layer::default();
        for (number, part) in fold(events, knobs, &mut made_up, events_max)?.into_iter().enumerate() {
            layer.add(&Layer::numbered(part), shifted(knobs.shift, number as u32))?;
        }
        layer.events.sort_by_key(|event| event.at);
        let mut chance = Chance::new(knobs.seed);
        if knobs.fan_out > 0 {
            readers::add(&mut layer, knobs.fan_out, knobs.clones, events_max)?;
        }
        if let Some(share) = knobs.offline_share {
            away::stay(&mut layer, share.get(), &mut chance)?;
        }
        Footprint::of(&layer.events).must_fit(knobs.clones, events_max)?;
        let one = layer;
        let mut layer = Layer::default();
        for number in 0..knobs.clones {
            layer.add(&one, shifted(knobs.shift, number))?;
        }
        layer.events.sort_by_key(|event| event.at);
        if knobs.part != (1, 1) {
            layer = part(layer, knobs.part);
        }
        if let Some(speed) = knobs.speed {
            for event in &mut layer.events {
                event.at = Duration::try_from_secs_f64(event.at.as_secs_f64() / speed).unwrap_or(Duration::MAX);
            }
        }
        if let Some(duration) = knobs.duration {
            layer.events.retain(|event| event.at <= duration);
        }
        let clamped = clamp(&mut layer.events);
        let Some(last) = layer.events.last() else {
            return Err(PlanError::Empty("take a greater part, or a longer duration"));
        };
        if !layer
            .events
            .iter()
            .any(|event| matches!(event.what, What::Append { .. }))
        {
            return Err(PlanError::Empty(
                "it has no appends; take a greater part, a longer duration, or another workload",
            ));
        }
        Ok(Self {
            duration: last.at,
            events: layer.events,
            agents: layer.agents,
            channels: layer.channels,
            refusals,
            made_up: made_up.saturating_mul(knobs.clones.into()),
            clamped,
        })
    }

    /// The same for agents of the SDK, which do the rest by themselves: sessions, channels, commits and messages. Raw channels, which
    /// have no encryption, are left out.
    #[must_use]
    pub fn for_agents(mut self) -> Self {
        let mut raw = HashSet::new();
        self.events.retain(|event| match &event.what {
            What::Connect(_) | What::Disconnect(_) => true,
            What::Append { frame, .. } => match frame {
                Frame::Create {
                    channel,
                    mode: ChannelMode::Raw,
                } => {
                    raw.insert(*channel);
                    false
                }
                Frame::Create { .. } => true,
                Frame::Commit { channel, .. } | Frame::Message(channel) => !raw.contains(channel),
                _ => false,
            },
            _ => false,
        });
        self
    }

    /// Bytes of all bodies.
    pub fn body_bytes(&self) -> u64 {
        let bytes = self.events.iter().map(|event| match &event.what {
            What::Append { body_bytes, .. } => u64::from(*body_bytes),
            _ => 0,
        });
        bytes.sum()
    }

    /// Appends, claims of KeyPackages included.
    pub fn appends(&self) -> u64 {
        let is_append = |event: &&Event| matches!(event.what, What::Append { .. });
        self.events.iter().filter(is_append).count() as u64
    }

    /// Returns the number of reads of channel entries by members other than their authors, if everybody reads to the
    /// end.
    pub fn deliveries(&self) -> u64 {
        let mut rosters: HashMap<Channel, HashSet<Agent>> = HashMap::new();
        let mut raw: HashMap<Channel, HashSet<Agent>> = HashMap::new();
        let mut deliveries = 0;
        for event in &self.events {
            match &event.what {
                What::Append { author, frame, .. } => {
                    let Some(channel) = frame.channel() else { continue };
                    if matches!(
                        frame,
                        Frame::Create {
                            mode: ChannelMode::Raw,
                            ..
                        }
                    ) {
                        raw.insert(channel, HashSet::new());
                    }
                    let roster = match raw.get_mut(&channel) {
                        Some(readers) => readers,
                        None => rosters.entry(channel).or_default(),
                    };
                    if let Frame::Commit { adds, removes, .. } = frame {
                        roster.extend(adds);
                        roster.retain(|agent| !removes.contains(agent));
                    }
                    if !raw.contains_key(&channel) {
                        rosters.entry(channel).or_default().insert(*author);
                    }
                    let readers = raw.get(&channel).or(rosters.get(&channel));
                    deliveries += readers.map_or(0, |readers| {
                        (readers.len() - usize::from(readers.contains(author))) as u64
                    });
                }
                What::Subscribe {
                    agent,
                    log: Log::Channel(channel),
                    ..
                } => {
                    if let Some(readers) = raw.get_mut(channel) {
                        readers.insert(*agent);
                    }
                }
                _ => {}
            }
        }
        deliveries
    }
}

/// Times without events become this long at most.
fn shorten(events: &mut [Event], max_gap: Option<Duration>) {
    let Some(max_gap) = max_gap else { return };
    let (mut before, mut cut) = (Duration::ZERO, Duration::ZERO);
    for event in events {
        let gap = event.at.saturating_sub(before);
        before = event.at;
        cut = cut.saturating_add(gap.saturating_sub(max_gap));
        event.at = event.at.saturating_sub(cut);
    }
}

/// Returns the start of a copy or part.
fn shifted(shift: Duration, number: u32) -> Duration {
    shift.checked_mul(number).unwrap_or(Duration::MAX)
}

/// Cuts a workload into parts of equal length, each of which begins at 0 and is possible by itself.
fn fold(events: Vec<Event>, knobs: &Knobs, made_up: &mut u64, events_max: u64) -> Result<Vec<Vec<Event>>, PlanError> {
    let parts = knobs.folds;
    let explicit = events
        .iter()
        .filter_map(|event| match event.what {
            What::Connect(agent) => Some(agent),
            _ => None,
        })
        .collect();
    let mut completer = Completer::with_sessions(explicit);
    let length =
        (events.last().map_or(Duration::ZERO, |event| event.at) / parts).saturating_add(Duration::from_micros(1));
    let mut part = Vec::new();
    let mut all = Vec::new();
    let mut begin = Duration::ZERO;
    let mut size = Footprint::default();
    for mut event in events {
        while event.at >= begin.saturating_add(length) && all.len() + 1 < parts as usize {
            begin = begin.saturating_add(length);
            completer.restart();
            all.push(std::mem::take(&mut part));
        }
        event.at = event.at.saturating_sub(begin);
        let known = part.len();
        completer.event(event, &mut part);
        // Each part makes up the channels that it needs: that adds up, and cannot be known before.
        size = size.and(Footprint::of(&part[known..]));
        size.must_fit(knobs.clones, events_max)?;
    }
    all.push(part);
    *made_up = completer.made_up();
    Ok(all)
}

/// Shortens bodies that fit no frame, and counts them.
fn clamp(events: &mut [Event]) -> u64 {
    let mut clamped = 0;
    for event in events {
        let What::Append { body_bytes, frame, .. } = &mut event.what else {
            continue;
        };
        let header = match frame {
            Frame::Commit {
                adds,
                removes,
                recipients,
                ..
            } => {
                let names = adds.len() + removes.len() + recipients.len();
                (HEADER_BYTES + HEADER_BYTES_PER_NAME * names).max(COMMIT_HEADER_BYTES)
            }
            _ => HEADER_BYTES,
        };
        let most = limits::FRAME_BYTES_MAX.saturating_sub(header) as u32;
        if *body_bytes > most {
            *body_bytes = most;
            clamped += 1;
        }
    }
    clamped
}

/// One part of several: some of the channels, and the agents that have to do with them. An agent that has to do with
/// channels of several parts is an agent of its own in each; one that has to do with none is in one of them.
fn part(layer: Layer, (number, parts): (u32, u32)) -> Layer {
    let is_ours = |index: u32| index % parts == number - 1;
    let mut places: HashMap<Agent, bool> = HashMap::new();
    let mut visit = |agent: Agent, channel: Channel| {
        *places.entry(agent).or_default() |= is_ours(channel.0);
    };
    for event in &layer.events {
        match &event.what {
            What::Append { author, frame, .. } => {
                let Some(channel) = frame.channel() else { continue };
                visit(*author, channel);
                if let Frame::Commit { adds, .. } = frame {
                    adds.iter().for_each(|agent| visit(*agent, channel));
                }
            }
            What::Subscribe {
                agent,
                log: Log::Channel(channel),
                ..
            } => visit(*agent, *channel),
            _ => {}
        }
    }
    let has = |agent: &Agent| places.get(agent).copied().unwrap_or_else(|| is_ours(agent.0));
    let events = layer
        .events
        .into_iter()
        .filter(|event| match &event.what {
            What::Append { author, frame, .. } => match frame {
                Frame::Claim(of) => has(author) && has(of),
                frame => frame
                    .channel()
                    .map_or_else(|| has(author), |channel| is_ours(channel.0)),
            },
            What::Subscribe { agent, log, .. } => match log {
                Log::Channel(channel) => is_ours(channel.0),
                Log::Agent(_) => has(agent),
            },
            What::Connect(agent) | What::Disconnect(agent) | What::Token(agent) => has(agent),
            What::Refused { .. } => false,
        })
        .collect();
    Layer::numbered(events)
}
