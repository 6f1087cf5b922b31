//! Makes a part of the traffic possible by itself.

use crate::event::{Agent, Channel, Event, Frame, Log, What};
use skytale_proto::{ChannelMode, limits};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

/// Bodies of frames that are made up, in bytes: about what the SDK's are.
const CREATE_BYTES: u32 = 180;
const COMMIT_BYTES: u32 = 600;
const COMMIT_BYTES_PER_ADD: u32 = 700;
const KEY_PACKAGE_BYTES: u32 = 330;
/// Agents that one commit adds, so that its body fits a frame.
const ADDS_MAX: usize = 512;

const _: () = assert!(COMMIT_BYTES as usize + COMMIT_BYTES_PER_ADD as usize * ADDS_MAX < limits::FRAME_BYTES_MAX);

/// Knowledge of a channel.
#[derive(Debug)]
struct Known {
    mode: ChannelMode,
    /// Author of its frames that are made up.
    owner: Agent,
    roster: BTreeSet<Agent>,
    /// The channel and its roster are in the output.
    is_told: bool,
}

/// Knowledge of an agent.
#[derive(Debug, Default)]
struct Presence {
    /// Sessions that run. Those of a merged file may overlap: it is offline when all of them have ended.
    sessions: u32,
    /// Logs that it follows.
    follows: BTreeSet<Log>,
    /// The same in the output.
    told_online: bool,
    told_follows: BTreeSet<Log>,
    told_key_package: bool,
}

impl Presence {
    /// Another session of the input.
    const fn begin(&mut self) {
        self.sessions = self.sessions.saturating_add(1);
    }

    /// A session of the input has ended. Whether it was the last one, with which its subscriptions end, too.
    fn end(&mut self) -> bool {
        self.sessions = self.sessions.saturating_sub(1);
        if self.sessions == 0 {
            self.follows.clear();
        }
        self.sessions == 0
    }
}

/// Agents whose sessions are in the input.
#[derive(Debug)]
enum Explicit {
    All,
    These(HashSet<Agent>),
}

/// Takes events in order, and gives them with whatever else must be there before them.
///
/// If a channel was there before, its Create and commits that add its members are made up; an author of whose coming
/// nothing is known is added before its first frame. With [`Completer::with_sessions`] that goes for sessions,
/// subscriptions and KeyPackages too: an agent without a session of its own in the input comes online before it does
/// anything, and follows its channels.
#[derive(Debug, Default)]
pub struct Completer {
    channels: HashMap<Channel, Known>,
    agents: HashMap<Agent, Presence>,
    /// Agents whose sessions are in the input; `None` where sessions are not completed.
    explicit: Option<Explicit>,
    made_up: u64,
}

impl Completer {
    /// Completes channels and rosters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Completes sessions, subscriptions and KeyPackages too. `explicit` are the agents whose sessions are in the input.
    pub fn with_sessions(explicit: HashSet<Agent>) -> Self {
        Self {
            explicit: Some(Explicit::These(explicit)),
            ..Self::default()
        }
    }

    /// The same, where the sessions of all agents are in the input. Those that began before the output, and that somebody needs, begin
    /// where they are needed.
    pub fn with_all_sessions() -> Self {
        Self {
            explicit: Some(Explicit::All),
            ..Self::default()
        }
    }

    /// Everybody goes offline, where that is not in the input: the node was restarted.
    pub fn restarted(&mut self, at: Duration, out: &mut Vec<Event>) {
        let mut online: Vec<Agent> = Vec::new();
        for (agent, presence) in &mut self.agents {
            presence.sessions = 0;
            presence.follows.clear();
            presence.told_follows.clear();
            if std::mem::take(&mut presence.told_online) {
                online.push(*agent);
            }
        }
        online.sort_unstable();
        for agent in online {
            self.say(at, What::Disconnect(agent), out);
        }
    }

    /// Returns the number of events that were made up.
    pub const fn made_up(&self) -> u64 {
        self.made_up
    }

    /// Takes an event of before the output.
    pub fn observe(&mut self, event: &Event) {
        match &event.what {
            What::Append { author, frame, .. } => {
                if let Some(channel) = frame.channel()
                    && !matches!(frame, Frame::Trim { .. })
                {
                    self.known(channel, *author, mode_of(frame));
                    self.change(channel, *author, frame);
                }
            }
            What::Connect(agent) => self.presence(*agent).begin(),
            What::Disconnect(agent) => {
                self.presence(*agent).end();
            }
            What::Subscribe { agent, log, follow, .. } => {
                if *follow {
                    self.presence(*agent).follows.insert(*log);
                }
            }
            What::Token(_) | What::Refused { .. } => {}
        }
    }

    /// Begins another output, in which nothing has happened yet.
    pub fn restart(&mut self) {
        self.channels.values_mut().for_each(|known| known.is_told = false);
        for presence in self.agents.values_mut() {
            presence.told_online = false;
            presence.told_follows.clear();
            presence.told_key_package = false;
        }
    }

    /// Gives an event to `out`, after what must be there before it.
    pub fn event(&mut self, event: Event, out: &mut Vec<Event>) {
        let at = event.at;
        match &event.what {
            What::Append { author, frame, .. } => {
                let author = *author;
                if frame.channel().is_some() {
                    if let What::Append { body_bytes, frame, .. } = event.what {
                        self.channel_frame(at, author, body_bytes, frame, out);
                    }
                    return;
                }
                self.come_online(at, author, out);
                match frame {
                    Frame::Claim(of) => self.offer(at, *of, out),
                    _ => self.presence(author).told_key_package = true,
                }
                out.push(event);
            }
            What::Connect(agent) => {
                let completes = self.explicit.is_some();
                let presence = self.presence(*agent);
                presence.begin();
                if !std::mem::replace(&mut presence.told_online, true) || !completes {
                    out.push(event);
                }
            }
            What::Disconnect(agent) => {
                let completes = self.explicit.is_some();
                let presence = self.presence(*agent);
                let is_offline = presence.end();
                if is_offline {
                    presence.told_follows.clear();
                }
                if is_offline && std::mem::take(&mut presence.told_online) || !completes {
                    out.push(event);
                }
            }
            What::Subscribe { agent, log, follow, .. } => {
                self.subscribe(at, *agent, *log, *follow, event.what.clone(), out)
            }
            What::Token(_) | What::Refused { .. } => out.push(event),
        }
    }

    fn presence(&mut self, agent: Agent) -> &mut Presence {
        self.agents.entry(agent).or_default()
    }

    fn known(&mut self, channel: Channel, owner: Agent, mode: ChannelMode) -> &mut Known {
        self.channels.entry(channel).or_insert_with(|| Known {
            mode,
            owner,
            roster: BTreeSet::from([owner]),
            is_told: false,
        })
    }

    /// Applies a frame to its channel.
    fn change(&mut self, channel: Channel, author: Agent, frame: &Frame) {
        let Some(known) = self.channels.get_mut(&channel) else {
            return;
        };
        known.roster.insert(author);
        if let Frame::Commit { adds, removes, .. } = frame {
            known.roster.extend(adds);
            known.roster.retain(|agent| !removes.contains(agent));
            for agent in removes {
                if let Some(presence) = self.agents.get_mut(agent) {
                    presence.follows.remove(&Log::Channel(channel));
                    presence.told_follows.remove(&Log::Channel(channel));
                }
            }
            if !known.roster.contains(&known.owner)
                && let Some(other) = known.roster.first()
            {
                known.owner = *other;
            }
        }
    }

    fn channel_frame(&mut self, at: Duration, author: Agent, body_bytes: u32, mut frame: Frame, out: &mut Vec<Event>) {
        let Some(channel) = frame.channel() else { return };
        if matches!(frame, Frame::Trim { .. }) {
            // A relay makes it, and a channel that is not in the output has nothing to trim.
            if self.channels.get(&channel).is_some_and(|known| known.is_told) {
                let what = What::Append {
                    author,
                    body_bytes,
                    frame,
                };
                out.push(Event { at, what });
            }
            return;
        }
        if matches!(frame, Frame::Create { .. }) {
            self.come_online(at, author, out);
            self.known(channel, author, mode_of(&frame)).is_told = true;
        } else {
            // A removed agent was a member.
            let removes: &[Agent] = match &frame {
                Frame::Commit { removes, .. } => removes,
                _ => &[],
            };
            self.tell(at, channel, author, removes, mode_of(&frame), out);
        }
        let newcomers = match &mut frame {
            Frame::Create { .. } => vec![author],
            Frame::Commit {
                adds,
                removes,
                recipients,
                ..
            } => {
                // An agent whose coming was made up is there.
                if let Some(known) = self.channels.get(&channel) {
                    adds.retain(|agent| removes.contains(agent) || !known.roster.contains(agent));
                    recipients.retain(|agent| adds.contains(agent));
                }
                adds.clone()
            }
            _ => Vec::new(),
        };
        self.change(channel, author, &frame);
        let what = What::Append {
            author,
            body_bytes,
            frame,
        };
        out.push(Event { at, what });
        for agent in newcomers {
            self.follow(at, agent, channel, out);
        }
    }

    fn subscribe(&mut self, at: Duration, agent: Agent, log: Log, follow: bool, what: What, out: &mut Vec<Event>) {
        match log {
            Log::Channel(channel) => self.tell(at, channel, agent, &[], ChannelMode::Mls, out),
            // Nobody reads another agent's log.
            Log::Agent(of) if of != agent => return,
            Log::Agent(_) => {}
        }
        if self.explicit.is_none() {
            out.push(Event { at, what });
            return;
        }
        self.come_online(at, agent, out);
        let presence = self.presence(agent);
        if follow {
            presence.follows.insert(log);
            if !presence.told_follows.insert(log) {
                return;
            }
        }
        out.push(Event { at, what });
    }

    /// Makes up what must be there before `author` does something in a channel that has these `members` too.
    fn tell(
        &mut self,
        at: Duration,
        channel: Channel,
        author: Agent,
        members: &[Agent],
        mode: ChannelMode,
        out: &mut Vec<Event>,
    ) {
        let known = self.known(channel, author, mode);
        let (owner, mode) = (known.owner, known.mode);
        let mut adds: Vec<Agent> = Vec::new();
        let is_new = !known.is_told;
        if is_new {
            adds.extend(known.roster.iter().filter(|agent| **agent != owner));
        }
        for member in [&author].into_iter().chain(members) {
            if known.roster.insert(*member) {
                adds.push(*member);
            }
        }
        if is_new {
            self.come_online(at, owner, out);
            self.make_up(at, owner, CREATE_BYTES, Frame::Create { channel, mode }, out);
        }
        if mode == ChannelMode::Mls && !adds.is_empty() {
            self.come_online(at, owner, out);
        }
        if mode == ChannelMode::Mls {
            for adds in adds.chunks(ADDS_MAX) {
                let bytes = COMMIT_BYTES + COMMIT_BYTES_PER_ADD * adds.len() as u32;
                let frame = Frame::Commit {
                    channel,
                    adds: adds.to_vec(),
                    removes: Vec::new(),
                    recipients: adds.to_vec(),
                };
                self.make_up(at, owner, bytes, frame, out);
            }
        }
        if let Some(known) = self.channels.get_mut(&channel) {
            known.is_told = true;
        }
        if is_new {
            self.follow(at, owner, channel, out);
        }
        for agent in adds {
            self.follow(at, agent, channel, out);
        }
        self.come_online(at, author, out);
    }

    fn make_up(&mut self, at: Duration, author: Agent, body_bytes: u32, frame: Frame, out: &mut Vec<Event>) {
        let what = What::Append {
            author,
            body_bytes,
            frame,
        };
        self.say(at, what, out);
    }

    fn say(&mut self, at: Duration, what: What, out: &mut Vec<Event>) {
        self.made_up += 1;
        out.push(Event { at, what });
    }

    fn is_implied(&self, agent: Agent) -> bool {
        match &self.explicit {
            Some(Explicit::These(explicit)) => !explicit.contains(&agent),
            Some(Explicit::All) | None => false,
        }
    }

    /// A member's subscription, if its own are not in the input, or if it was there before the output began.
    fn follow(&mut self, at: Duration, agent: Agent, channel: Channel, out: &mut Vec<Event>) {
        let log = Log::Channel(channel);
        let implied = self.is_implied(agent);
        let completes = self.explicit.is_some();
        let presence = self.presence(agent);
        if implied {
            presence.follows.insert(log);
        }
        if !completes || !(implied || presence.sessions > 0 && presence.follows.contains(&log)) {
            return;
        }
        self.come_online(at, agent, out);
        self.follow_now(at, agent, log, out);
    }

    fn follow_now(&mut self, at: Duration, agent: Agent, log: Log, out: &mut Vec<Event>) {
        if self.presence(agent).told_follows.insert(log) {
            let subscribe = What::Subscribe {
                agent,
                log,
                behind: 0,
                follow: true,
            };
            self.say(at, subscribe, out);
        }
    }

    fn come_online(&mut self, at: Duration, agent: Agent, out: &mut Vec<Event>) {
        if self.explicit.is_none() {
            return;
        }
        let presence = self.presence(agent);
        if std::mem::replace(&mut presence.told_online, true) {
            return;
        }
        let follows: Vec<Log> = presence.follows.iter().copied().collect();
        self.say(at, What::Token(agent), out);
        self.say(at, What::Connect(agent), out);
        self.follow_now(at, agent, Log::Agent(agent), out);
        for log in follows {
            if let Log::Channel(channel) = log
                && self.channels.get(&channel).is_some_and(|known| known.is_told)
            {
                self.follow_now(at, agent, log, out);
            }
        }
    }

    /// Somebody claims a KeyPackage: there must be one.
    fn offer(&mut self, at: Duration, agent: Agent, out: &mut Vec<Event>) {
        if self.explicit.is_none() || self.presence(agent).told_key_package {
            return;
        }
        let was_online = self.presence(agent).told_online;
        self.come_online(at, agent, out);
        self.presence(agent).told_key_package = true;
        self.make_up(
            at,
            agent,
            KEY_PACKAGE_BYTES,
            Frame::KeyPackage { last_resort: true },
            out,
        );
        if !was_online && !self.is_implied(agent) {
            let presence = self.presence(agent);
            presence.told_online = false;
            presence.told_follows.clear();
            self.say(at, What::Disconnect(agent), out);
        }
    }
}

const fn mode_of(frame: &Frame) -> ChannelMode {
    match frame {
        Frame::Create { mode, .. } => *mode,
        Frame::Raw(_) => ChannelMode::Raw,
        _ => ChannelMode::Mls,
    }
}

#[cfg(test)]
mod tests;
