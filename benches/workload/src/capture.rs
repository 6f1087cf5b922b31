//! Conversion of a log's entries to events.

use crate::complete::Completer;
use crate::event::{Agent, Channel, Event, Frame, What};
use crate::ids::Pseudonyms;
use skytale_proto::{AgentId, Detail, Header, LogId, Offset};
use std::collections::HashMap;
use std::time::Duration;

/// Part of time that is captured, in unix milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Time from which on events are captured.
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

/// Makes events of entries, which must come in the order in which they were accepted.
///
/// A workload must be possible by itself. So if a channel was there before the first entry that is captured, its Create
/// and a commit that adds its members are made up, at the time of that entry; and an author of whose coming nothing is
/// known is added before its first entry. The contents of a whole log are captured as they are.
#[derive(Debug)]
pub struct LogCapture {
    ids: Pseudonyms,
    window: Window,
    completer: Completer,
    /// Numbers in the workload: those from before its first event have none.
    agents_told: HashMap<Agent, Agent>,
    channels_told: HashMap<Channel, Channel>,
    start_ms: Option<u64>,
    last_ms: u64,
}

impl LogCapture {
    /// A capture of a window of time.
    pub fn new(ids: Pseudonyms, window: Window) -> Self {
        Self {
            ids,
            window,
            completer: Completer::new(),
            agents_told: HashMap::new(),
            channels_told: HashMap::new(),
            start_ms: None,
            last_ms: 0,
        }
    }

    /// Returns the time of the first event, unix milliseconds.
    pub const fn start_ms(&self) -> Option<u64> {
        self.start_ms
    }

    /// Returns the number of events that represent a state before the capture, or an unknown one.
    pub const fn made_up(&self) -> u64 {
        self.completer.made_up()
    }

    /// Gives the events of an entry to `out`, in order.
    pub fn entry(&mut self, entry: &Entry<'_>, out: &mut Vec<Event>) {
        let header = entry.header;
        let frame = match header.log {
            LogId::Agent(of) => self.agent_frame(of, header),
            LogId::Channel(id) => self
                .ids
                .channel(&id)
                .and_then(|channel| self.channel_frame(entry, channel)),
        };
        let Some(frame) = frame else { return };
        let what = What::Append {
            author: self.ids.agent(&header.author),
            body_bytes: u32::try_from(entry.body_bytes).unwrap_or(u32::MAX),
            frame,
        };
        if !self.window.holds(entry.time_ms) {
            let at = Duration::ZERO;
            self.completer.observe(&Event { at, what });
            return;
        }
        let mut events = Vec::new();
        let at = self.time(entry.time_ms);
        self.completer.event(Event { at, what }, &mut events);
        if events.is_empty() && out.is_empty() && self.agents_told.is_empty() {
            // A workload begins with its first event.
            self.start_ms = None;
        }
        out.extend(events.into_iter().map(|event| self.numbered(event)));
    }

    fn numbered(&mut self, event: Event) -> Event {
        let (agents, channels) = (&mut self.agents_told, &mut self.channels_told);
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let what = event.what.map(
            |agent| {
                let next = Agent(number(agents.len()));
                *agents.entry(agent).or_insert(next)
            },
            |channel| {
                let next = Channel(number(channels.len()));
                *channels.entry(channel).or_insert(next)
            },
        );
        Event { at: event.at, what }
    }

    /// The entry's time, from the start; never before an earlier entry's: clocks of nodes differ.
    fn time(&mut self, time_ms: u64) -> Duration {
        let start = *self.start_ms.get_or_insert(time_ms);
        self.last_ms = self.last_ms.max(time_ms);
        Duration::from_millis(self.last_ms.saturating_sub(start))
    }

    fn agent_frame(&mut self, of: AgentId, header: &Header) -> Option<Frame> {
        match &header.detail {
            Detail::KeyPackage { last_resort, .. } if self.ids.samples_agent(&header.author) => {
                Some(Frame::KeyPackage {
                    last_resort: *last_resort,
                })
            }
            Detail::KeyPackageClaim { .. } if self.ids.samples_agent(&of) => Some(Frame::Claim(self.ids.agent(&of))),
            // Welcomes come of commits by themselves.
            _ => None,
        }
    }

    fn channel_frame(&mut self, entry: &Entry<'_>, channel: Channel) -> Option<Frame> {
        let mut agents = |list: &[AgentId]| list.iter().map(|agent| self.ids.agent(agent)).collect();
        Some(match &entry.header.detail {
            Detail::Create { mode, .. } => Frame::Create { channel, mode: *mode },
            Detail::Commit {
                adds,
                removes,
                recipients,
                ..
            } => Frame::Commit {
                channel,
                adds: agents(adds),
                removes: agents(removes),
                recipients: agents(recipients),
            },
            Detail::Proposal => Frame::Proposal(channel),
            Detail::Message => Frame::Message(channel),
            Detail::Raw { .. } => Frame::Raw(channel),
            Detail::Rejoin => Frame::Rejoin(channel),
            Detail::Trim { up_to } => Frame::Trim {
                channel,
                kept: entry.offset.get().saturating_sub(1).saturating_sub(up_to.get()),
            },
            Detail::KeyPackage { .. }
            | Detail::KeyPackageClaim { .. }
            | Detail::KeyPackagePolicy { .. }
            | Detail::Welcome { .. } => return None,
        })
    }
}

mod tap;
#[cfg(test)]
mod tests;

pub use tap::{NotOfATap, TapCapture};
