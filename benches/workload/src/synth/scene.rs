//! Agents and channels as a profile moves them, and the events that come of it.

use super::chance::Chance;
use crate::event::{Agent, Channel, Event, Frame, Log, What};
use skytale_proto::{ChannelMode, limits};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Bodies of handshake frames under MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519, in bytes, about.
const CREATE_BYTES: u32 = 180;
const KEY_PACKAGE_BYTES: u32 = 330;
const COMMIT_BYTES: u32 = 600;
const COMMIT_BYTES_PER_ADD: u32 = 700;
/// KeyPackages that an agent offers at its start.
const KEY_PACKAGES: u32 = 2;
/// Agents that one commit adds, so that its body fits a frame.
const ADDS_MAX: usize = 512;

const _: () = assert!(COMMIT_BYTES as usize + COMMIT_BYTES_PER_ADD as usize * ADDS_MAX < limits::FRAME_BYTES_MAX);

#[derive(Debug)]
struct Room {
    members: Vec<Agent>,
    head: u64,
}

/// Place of one agent.
#[derive(Debug, Default)]
struct Place {
    online: bool,
    /// Position of the agent in each of its channels.
    read: BTreeMap<Channel, u64>,
}

/// Everything must be called in the order of time: events depend on those before.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) chance: Chance,
    events: Vec<Event>,
    rooms: Vec<Room>,
    agents: Vec<Place>,
    now: Duration,
}

impl Scene {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            chance: Chance::new(seed),
            events: Vec::new(),
            rooms: Vec::new(),
            agents: Vec::new(),
            now: Duration::ZERO,
        }
    }

    pub(super) fn into_events(self) -> Vec<Event> {
        self.events
    }

    /// Goes on to a time; never back.
    pub(super) fn at(&mut self, time: Duration) {
        let whole_us = Duration::from_micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        self.now = self.now.max(whole_us);
    }

    fn event(&mut self, what: What) {
        self.events.push(Event { at: self.now, what });
    }

    fn append(&mut self, author: Agent, body_bytes: u32, frame: Frame) {
        self.event(What::Append {
            author,
            body_bytes,
            frame,
        });
    }

    /// A new agent, online, with KeyPackages.
    pub(super) fn agent(&mut self) -> Agent {
        let agent = Agent(self.agents.len() as u32);
        self.agents.push(Place::default());
        self.connect(agent);
        for number in 0..=KEY_PACKAGES {
            let last_resort = number == KEY_PACKAGES;
            self.append(agent, KEY_PACKAGE_BYTES, Frame::KeyPackage { last_resort });
        }
        self.event(What::Subscribe {
            agent,
            log: Log::Agent(agent),
            behind: 0,
            follow: true,
        });
        agent
    }

    /// A channel of an owner and members, all of whom follow it.
    pub(super) fn channel(&mut self, owner: Agent, members: &[Agent]) -> Channel {
        let channel = Channel(self.rooms.len() as u32);
        self.rooms.push(Room {
            members: vec![owner],
            head: 0,
        });
        let mode = ChannelMode::Mls;
        self.append(owner, CREATE_BYTES, Frame::Create { channel, mode });
        self.entry(channel);
        self.follow(owner, channel);
        for adds in members.chunks(ADDS_MAX) {
            for member in adds {
                self.append(owner, 0, Frame::Claim(*member));
            }
            let frame = Frame::Commit {
                channel,
                adds: adds.to_vec(),
                removes: Vec::new(),
                recipients: adds.to_vec(),
            };
            let bytes = COMMIT_BYTES + COMMIT_BYTES_PER_ADD * adds.len() as u32;
            self.append(owner, bytes, frame);
            self.rooms[channel.0 as usize].members.extend(adds);
            self.entry(channel);
            for member in adds {
                self.follow(*member, channel);
            }
        }
        channel
    }

    /// An entry has come to a channel: every agent that is online has read it.
    fn entry(&mut self, channel: Channel) {
        let room = &mut self.rooms[channel.0 as usize];
        room.head += 1;
        for member in &room.members {
            let place = &mut self.agents[member.0 as usize];
            if place.online
                && let Some(read) = place.read.get_mut(&channel)
            {
                *read = room.head;
            }
        }
    }

    fn follow(&mut self, agent: Agent, channel: Channel) {
        let head = self.rooms[channel.0 as usize].head;
        let read = &mut self.agents[agent.0 as usize].read;
        let behind = head - read.get(&channel).copied().unwrap_or(head.saturating_sub(1));
        read.insert(channel, head);
        self.event(What::Subscribe {
            agent,
            log: Log::Channel(channel),
            behind,
            follow: true,
        });
    }

    /// A message of a member that is online.
    pub(super) fn message(&mut self, author: Agent, channel: Channel, body_bytes: u32) {
        debug_assert!(self.is_online(author));
        self.append(author, body_bytes, Frame::Message(channel));
        self.entry(channel);
    }

    pub(super) fn is_online(&self, agent: Agent) -> bool {
        self.agents[agent.0 as usize].online
    }

    /// An agent goes offline.
    pub(super) fn disconnect(&mut self, agent: Agent) {
        if std::mem::take(&mut self.agents[agent.0 as usize].online) {
            self.event(What::Disconnect(agent));
        }
    }

    /// An agent comes online, and reads the entries that it missed.
    pub(super) fn connect(&mut self, agent: Agent) {
        if std::mem::replace(&mut self.agents[agent.0 as usize].online, true) {
            return;
        }
        self.event(What::Token(agent));
        self.event(What::Connect(agent));
        let channels: BTreeSet<Channel> = self.agents[agent.0 as usize].read.keys().copied().collect();
        for channel in channels {
            self.follow(agent, channel);
        }
    }
}
