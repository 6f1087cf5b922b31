//! From a workload to a schedule: what happens when, made as a whole before anything happens.
//!
//! Knobs are applied in this order: gaps are shortened; the workload is cut into parts, which are laid over each other; readers are
//! added; some readers stay away until the end; whole copies are made; one part of several is taken; the speed and the length are set.

mod knobs;
#[cfg(test)]
mod tests;

pub use knobs::{Fraction, KnobError, Knobs};

use crate::complete::Completer;
use crate::event::{Agent, Channel, Event, Frame, Log, What};
use crate::synth::Chance;
use skytale_proto::ChannelMode;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

/// The most events that a plan is made of: it is held in memory as a whole, in about 100 bytes an event.
pub const EVENTS_MAX: usize = 50_000_000;

/// Bodies of commits that add readers, in bytes.
const COMMIT_BYTES: u32 = 600;
const COMMIT_BYTES_PER_ADD: u32 = 700;
/// Readers that one commit adds.
const ADDS_MAX: u32 = 512;

/// What is to happen.
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
    /// Events that stand for what was before the workload, or is not in it.
    pub made_up: u64,
    /// How long the schedule is.
    pub duration: Duration,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nothing is left to do.
    #[error("nothing is left of the workload: {0}")]
    Empty(&'static str),
    /// Too much for one process.
    #[error(
        "the plan has over {EVENTS_MAX} events, which are held in memory; take one of several parts, or a shorter workload"
    )]
    TooMany,
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
    fn add(&mut self, other: &Self, shift: Duration) {
        let (agents, channels) = (self.agents, self.channels);
        self.events.extend(other.events.iter().map(|event| {
            Event {
                at: event.at + shift,
                what: event
                    .what
                    .clone()
                    .map(|agent| Agent(agent.0 + agents), |channel| Channel(channel.0 + channels)),
            }
        }));
        self.agents += other.agents;
        self.channels += other.channels;
    }
}

impl Plan {
    /// Makes a plan of a workload's events, which are in the order of time.
    pub fn new(mut events: Vec<Event>, knobs: &Knobs) -> Result<Self, PlanError> {
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
        let mut layer = Layer::default();
        for (number, part) in fold(events, knobs.folds, &mut made_up).into_iter().enumerate() {
            layer.add(&Layer::numbered(part), knobs.shift * number as u32);
        }
        layer.events.sort_by_key(|event| event.at);
        let mut chance = Chance::new(knobs.seed);
        if knobs.fan_out > 0 {
            add_readers(&mut layer, knobs.fan_out);
        }
        if let Some(share) = knobs.offline_share {
            stay_away(&mut layer, share.get(), &mut chance)?;
        }
        if layer.events.len().saturating_mul(knobs.clones as usize) > EVENTS_MAX {
            return Err(PlanError::TooMany);
        }
        let one = layer;
        let mut layer = Layer::default();
        for number in 0..knobs.clones {
            layer.add(&one, knobs.shift * number);
        }
        layer.events.sort_by_key(|event| event.at);
        if knobs.part != (1, 1) {
            layer = part(layer, knobs.part);
        }
        if let Some(speed) = knobs.speed {
            for event in &mut layer.events {
                event.at = event.at.div_f64(speed);
            }
        }
        if let Some(duration) = knobs.duration {
            layer.events.retain(|event| event.at <= duration);
        }
        let Some(last) = layer.events.last() else {
            return Err(PlanError::Empty("take a greater part, or a longer duration"));
        };
        Ok(Self {
            duration: last.at,
            events: layer.events,
            agents: layer.agents,
            channels: layer.channels,
            refusals,
            made_up: made_up * u64::from(knobs.clones),
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

    /// How often channel entries are read by members other than their authors, if everybody reads to the end.
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
        cut += gap.saturating_sub(max_gap);
        event.at = event.at.saturating_sub(cut);
    }
}

/// Cuts a workload into parts of equal length, each of which begins at 0 and is possible by itself.
fn fold(events: Vec<Event>, parts: u32, made_up: &mut u64) -> Vec<Vec<Event>> {
    let explicit = events
        .iter()
        .filter_map(|event| match event.what {
            What::Connect(agent) => Some(agent),
            _ => None,
        })
        .collect();
    let mut completer = Completer::with_sessions(explicit);
    let length = events.last().map_or(Duration::ZERO, |event| event.at) / parts + Duration::from_micros(1);
    let mut all: Vec<Vec<Event>> = vec![Vec::new()];
    let mut begin = Duration::ZERO;
    for mut event in events {
        while event.at >= begin + length && all.len() < parts as usize {
            begin += length;
            completer.restart();
            all.push(Vec::new());
        }
        event.at -= begin;
        if let Some(out) = all.last_mut() {
            completer.event(event, out);
        }
    }
    *made_up = completer.made_up();
    all
}

/// Adds readers to each channel, who follow it from the beginning.
fn add_readers(layer: &mut Layer, count: u32) {
    let mut events = Vec::with_capacity(layer.events.len());
    for event in std::mem::take(&mut layer.events) {
        let at = event.at;
        let created = match &event.what {
            What::Append {
                author,
                frame: Frame::Create { channel, mode },
                ..
            } => Some((*author, *channel, *mode)),
            _ => None,
        };
        events.push(event);
        let Some((owner, channel, mode)) = created else {
            continue;
        };
        let readers: Vec<Agent> = (layer.agents..layer.agents + count).map(Agent).collect();
        layer.agents += count;
        for agent in &readers {
            events.extend([What::Token(*agent), What::Connect(*agent)].map(|what| Event { at, what }));
        }
        if mode == ChannelMode::Mls {
            for adds in readers.chunks(ADDS_MAX as usize) {
                let frame = Frame::Commit {
                    channel,
                    adds: adds.to_vec(),
                    removes: Vec::new(),
                    recipients: adds.to_vec(),
                };
                let what = What::Append {
                    author: owner,
                    body_bytes: COMMIT_BYTES + COMMIT_BYTES_PER_ADD * adds.len() as u32,
                    frame,
                };
                events.push(Event { at, what });
            }
        }
        for agent in readers {
            let what = What::Subscribe {
                agent,
                log: Log::Channel(channel),
                behind: 0,
                follow: true,
            };
            events.push(Event { at, what });
        }
    }
    layer.events = events;
}

/// A share of those who only read goes offline after a fifth of the time, and comes back at its end, all at once.
fn stay_away(layer: &mut Layer, share: f64, chance: &mut Chance) -> Result<(), PlanError> {
    let mut readers = BTreeSet::new();
    let mut writers = HashSet::new();
    for event in &layer.events {
        match &event.what {
            What::Append { author, frame, .. } if frame.channel().is_some() => {
                writers.insert(*author);
            }
            What::Subscribe {
                agent,
                log: Log::Channel(_),
                ..
            } => {
                readers.insert(*agent);
            }
            _ => {}
        }
    }
    let mut readers: Vec<Agent> = readers.into_iter().filter(|agent| !writers.contains(agent)).collect();
    if readers.is_empty() {
        return Err(PlanError::NoReaders);
    }
    let count = ((readers.len() as f64 * share).round() as usize).clamp(1, readers.len());
    // The first so many of a shuffle (Fisher and Yates).
    for index in 0..count {
        let other = index + chance.below((readers.len() - index) as u32) as usize;
        readers.swap(index, other);
    }
    let away: HashSet<Agent> = readers.into_iter().take(count).collect();
    let end = layer.events.last().map_or(Duration::ZERO, |event| event.at);
    let leaves = end / 5;
    let mut logs: BTreeMap<Agent, BTreeSet<Log>> = BTreeMap::new();
    let mut left = false;
    let mut events = Vec::with_capacity(layer.events.len());
    let leave = |events: &mut Vec<Event>| {
        let mut away: Vec<Agent> = away.iter().copied().collect();
        away.sort_unstable();
        events.extend(away.into_iter().map(|agent| Event {
            at: leaves,
            what: What::Disconnect(agent),
        }));
    };
    for event in std::mem::take(&mut layer.events) {
        if event.at >= leaves && !std::mem::replace(&mut left, true) {
            leave(&mut events);
        }
        match &event.what {
            What::Subscribe { agent, log, .. } if away.contains(agent) => {
                logs.entry(*agent).or_default().insert(*log);
                if !left {
                    events.push(event);
                }
            }
            What::Connect(agent) | What::Disconnect(agent) | What::Token(agent) if left && away.contains(agent) => {}
            _ => events.push(event),
        }
    }
    if !left {
        leave(&mut events);
    }
    for (agent, logs) in logs {
        let back = [What::Token(agent), What::Connect(agent)].into_iter();
        let reads = logs.into_iter().map(|log| What::Subscribe {
            agent,
            log,
            behind: 0,
            follow: true,
        });
        events.extend(back.chain(reads).map(|what| Event { at: end, what }));
    }
    layer.events = events;
    Ok(())
}

/// One part of several: some of the channels, and whoever has to do with them. An agent that has to do with channels of several parts is
/// an agent of its own in each; one that has to do with none is in one of them.
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
