//! From a log's entries to events.

use crate::event::{Agent, Channel, Event, Frame, What};
use crate::ids::Pseudonyms;
use skytale_proto::{ChannelMode, Detail, Header, LogId, Offset};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// Bodies of frames that a capture makes up, in bytes: about what the SDK's are.
const MADE_CREATE_BYTES: u32 = 180;
const MADE_COMMIT_BYTES: u32 = 600;
const MADE_COMMIT_BYTES_PER_ADD: u32 = 700;

/// What part of time is captured, in unix milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// From this time on.
    pub from_ms: Option<u64>,
    /// Before this time.
    pub until_ms: Option<u64>,
}

impl Window {
    const fn holds(&self, time_ms: u64) -> bool {
        !self.is_before(time_ms)
            && match self.until_ms {
                Some(until) => time_ms < until,
                None => true,
            }
    }

    const fn is_before(&self, time_ms: u64) -> bool {
        match self.from_ms {
            Some(from) => time_ms < from,
            None => false,
        }
    }
}

/// An entry, without its body.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its offset.
    pub offset: Offset,
    /// The time stored with it, unix milliseconds.
    pub time_ms: u64,
    /// Its frame's header.
    pub header: &'a Header,
    /// Its body's length, in bytes.
    pub body_bytes: usize,
}

/// What is known of a channel.
#[derive(Debug)]
struct Known {
    mode: ChannelMode,
    /// Who speaks for it in frames that are made up.
    owner: Agent,
    roster: BTreeSet<Agent>,
    /// The channel and its roster are in the workload.
    is_told: bool,
}

/// Makes events of entries, which must come in the order in which they were accepted.
///
/// A workload must be possible by itself. So where a channel was there before the first entry that is captured, its Create and a commit
/// that adds its members are made up, at the time of that entry; and an author of whose coming nothing is known is added before its
/// first entry. What a whole log holds is captured as it is.
#[derive(Debug)]
pub struct LogCapture {
    ids: Pseudonyms,
    window: Window,
    channels: HashMap<Channel, Known>,
    /// Numbers in the workload: what was before its first event has none.
    agents_told: HashMap<Agent, Agent>,
    channels_told: HashMap<Channel, Channel>,
    start_ms: Option<u64>,
    last_ms: u64,
    made_up: u64,
}

impl LogCapture {
    /// A capture of a window of time.
    pub fn new(ids: Pseudonyms, window: Window) -> Self {
        Self {
            ids,
            window,
            channels: HashMap::new(),
            agents_told: HashMap::new(),
            channels_told: HashMap::new(),
            start_ms: None,
            last_ms: 0,
            made_up: 0,
        }
    }

    /// When the first event was, unix milliseconds.
    pub const fn start_ms(&self) -> Option<u64> {
        self.start_ms
    }

    /// How many events stand for what was before the capture, or is not known.
    pub const fn made_up(&self) -> u64 {
        self.made_up
    }

    /// Gives the events of an entry to `out`, in order.
    pub fn entry(&mut self, entry: &Entry<'_>, out: &mut Vec<Event>) {
        let (header, is_captured) = (entry.header, self.window.holds(entry.time_ms));
        let body_bytes = u32::try_from(entry.body_bytes).unwrap_or(u32::MAX);
        let frame = match header.log {
            LogId::Agent(_) => self.agent_frame(header),
            LogId::Channel(id) => match self.ids.channel(&id) {
                Some(channel) => self.channel_frame(entry, channel, is_captured, out),
                None => return,
            },
        };
        let Some(frame) = frame.filter(|_| is_captured) else {
            return;
        };
        let author = self.ids.agent(&header.author);
        self.push(entry.time_ms, author, body_bytes, frame, out);
    }

    fn push(&mut self, time_ms: u64, author: Agent, body_bytes: u32, frame: Frame, out: &mut Vec<Event>) {
        let what = What::Append {
            author,
            body_bytes,
            frame,
        };
        let (agents, channels) = (&mut self.agents_told, &mut self.channels_told);
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let what = what.map(
            |agent| {
                let next = Agent(number(agents.len()));
                *agents.entry(agent).or_insert(next)
            },
            |channel| {
                let next = Channel(number(channels.len()));
                *channels.entry(channel).or_insert(next)
            },
        );
        let at = self.time(time_ms);
        out.push(Event { at, what });
    }

    /// The entry's time, from the start; never before an earlier entry's: clocks of nodes differ.
    fn time(&mut self, time_ms: u64) -> Duration {
        let start = *self.start_ms.get_or_insert(time_ms);
        self.last_ms = self.last_ms.max(time_ms);
        Duration::from_millis(self.last_ms.saturating_sub(start))
    }

    fn agent_frame(&mut self, header: &Header) -> Option<Frame> {
        let LogId::Agent(of) = header.log else { return None };
        match &header.detail {
            Detail::KeyPackage { last_resort } if self.ids.samples_agent(&header.author) => Some(Frame::KeyPackage {
                last_resort: *last_resort,
            }),
            Detail::KeyPackageClaim if self.ids.samples_agent(&of) => Some(Frame::Claim(self.ids.agent(&of))),
            // Welcomes come of commits by themselves.
            _ => None,
        }
    }

    fn channel_frame(
        &mut self,
        entry: &Entry<'_>,
        channel: Channel,
        is_captured: bool,
        out: &mut Vec<Event>,
    ) -> Option<Frame> {
        let header = entry.header;
        if let Detail::Trim { up_to } = &header.detail {
            // A relay makes it, and a channel that is not in the workload has nothing to trim.
            let is_told = self.channels.get(&channel).is_some_and(|known| known.is_told);
            return is_told.then(|| Frame::Trim {
                channel,
                kept: entry.offset.get().saturating_sub(1).saturating_sub(up_to.get()),
            });
        }
        let author = self.ids.agent(&header.author);
        let (is_create, mode) = match &header.detail {
            Detail::Create { mode, .. } => (true, *mode),
            Detail::Raw { .. } => (false, ChannelMode::Raw),
            _ => (false, ChannelMode::Mls),
        };
        if is_captured && !is_create {
            self.tell(entry, channel, author, mode, out);
        }
        let known = self.channels.entry(channel).or_insert_with(|| Known {
            mode,
            owner: author,
            roster: BTreeSet::new(),
            is_told: false,
        });
        known.is_told |= is_captured && is_create;
        known.roster.insert(author);
        Some(match &header.detail {
            Detail::Create { mode, .. } => Frame::Create { channel, mode: *mode },
            Detail::Commit {
                adds,
                removes,
                recipients,
            } => {
                let mut agents = |list: &[skytale_proto::AgentId]| -> Vec<Agent> {
                    list.iter().map(|agent| self.ids.agent(agent)).collect()
                };
                let (adds, removes, recipients) = (agents(adds), agents(removes), agents(recipients));
                known.roster.extend(&adds);
                known.roster.retain(|agent| !removes.contains(agent));
                if !known.roster.contains(&known.owner)
                    && let Some(other) = known.roster.first()
                {
                    known.owner = *other;
                }
                Frame::Commit {
                    channel,
                    adds,
                    removes,
                    recipients,
                }
            }
            Detail::Proposal => Frame::Proposal(channel),
            Detail::Message => Frame::Message(channel),
            Detail::Raw { .. } => Frame::Raw(channel),
            Detail::Rejoin => Frame::Rejoin(channel),
            Detail::Trim { .. } | Detail::KeyPackage { .. } | Detail::KeyPackageClaim | Detail::Welcome { .. } => {
                return None;
            }
        })
    }

    /// Makes up what must be there before an entry of a channel.
    fn tell(&mut self, entry: &Entry<'_>, channel: Channel, author: Agent, mode: ChannelMode, out: &mut Vec<Event>) {
        let known = self.channels.entry(channel).or_insert_with(|| Known {
            mode,
            owner: author,
            roster: BTreeSet::from([author]),
            is_told: false,
        });
        let mut frames = Vec::new();
        let mut adds: Vec<Agent> = Vec::new();
        if !std::mem::replace(&mut known.is_told, true) {
            frames.push((
                MADE_CREATE_BYTES,
                Frame::Create {
                    channel,
                    mode: known.mode,
                },
            ));
            adds.extend(known.roster.iter().filter(|agent| **agent != known.owner));
        }
        if known.roster.insert(author) {
            adds.push(author);
        }
        if known.mode == ChannelMode::Mls && !adds.is_empty() {
            let bytes = MADE_COMMIT_BYTES
                .saturating_add(MADE_COMMIT_BYTES_PER_ADD.saturating_mul(u32::try_from(adds.len()).unwrap_or(u32::MAX)))
                .min(skytale_proto::limits::FRAME_BYTES_MAX as u32 / 2);
            frames.push((
                bytes,
                Frame::Commit {
                    channel,
                    recipients: adds.clone(),
                    adds,
                    removes: Vec::new(),
                },
            ));
        }
        let owner = known.owner;
        for (body_bytes, frame) in frames {
            self.made_up += 1;
            self.push(entry.time_ms, owner, body_bytes, frame, out);
        }
    }
}

#[cfg(test)]
mod tests;
