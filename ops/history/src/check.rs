//! Puts the accounts together.

use crate::{Entry, EntryKind, Event, Fault};
use skytale_proto::{AgentId, ChannelId, FrameId, Offset};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Every contradiction in a history, channel by channel. None is what a run should have.
///
/// Checked is that
/// - an acknowledged frame was shown, at the offset acknowledged, to each agent that read there: from the first entry
///   of one of its stretches to the offset where it finished, or to the last entry that it was shown. An entry that
///   nobody read cannot be judged, and is no fault;
/// - no frame is at two offsets, and none was shown twice to one agent;
/// - all agents were shown the same entry with the same bytes at each offset, without gaps, as far as they say they read;
/// - each author's frames are in the order in which it sent them, and the messages of an author who wrote down its
///   sends are among those;
/// - each entry names the last commit before it;
/// - a frame that was refused for good is not there.
pub fn check(history: &[Event]) -> Vec<Fault> {
    let mut channels: BTreeMap<ChannelId, Account> = BTreeMap::new();
    for event in history {
        channels.entry(channel_of(event)).or_default().take(event);
    }
    channels
        .into_iter()
        .flat_map(|(channel, account)| account.faults(channel))
        .collect()
}

const fn channel_of(event: &Event) -> ChannelId {
    match event {
        Event::Sent { channel, .. }
        | Event::Acknowledged { channel, .. }
        | Event::Refused { channel, .. }
        | Event::Reads { channel, .. }
        | Event::Delivered { channel, .. }
        | Event::Finished { channel, .. } => *channel,
    }
}

/// All that was written down of one channel.
#[derive(Default)]
struct Account {
    sent: BTreeMap<AgentId, Vec<FrameId>>,
    acknowledged: Vec<(FrameId, Offset)>,
    refused: Vec<FrameId>,
    readers: BTreeMap<AgentId, Vec<Stretch>>,
}

/// Stretch of a log that an agent was shown without a break.
struct Stretch {
    from: Offset,
    entries: Vec<Entry>,
    finished: Option<Offset>,
}

impl Stretch {
    fn new(from: Offset) -> Self {
        Self {
            from,
            entries: Vec::new(),
            finished: None,
        }
    }

    /// Returns the end of the agent's reading: its cursor when it finished, or the last entry that it was shown.
    fn end(&self) -> Option<Offset> {
        self.finished.or_else(|| self.entries.last().map(|entry| entry.offset))
    }

    /// Whether the agent must have been shown the entry at an offset.
    fn covers(&self, offset: Offset) -> bool {
        self.from <= offset && self.end().is_some_and(|at| offset <= at)
    }
}

impl Account {
    fn take(&mut self, event: &Event) {
        match event {
            Event::Sent { agent, frame, .. } => self.sent.entry(*agent).or_default().push(*frame),
            Event::Acknowledged { frame, offset, .. } => self.acknowledged.push((*frame, *offset)),
            Event::Refused { frame, .. } => self.refused.push(*frame),
            Event::Reads { agent, from, .. } => self.readers.entry(*agent).or_default().push(Stretch::new(*from)),
            Event::Delivered { agent, entry, .. } => {
                let stretches = self.readers.entry(*agent).or_default();
                if stretches.last().is_none_or(|stretch| stretch.finished.is_some()) {
                    stretches.push(Stretch::new(entry.offset));
                }
                if let Some(stretch) = stretches.last_mut() {
                    stretch.entries.push(entry.clone());
                }
            }
            Event::Finished { agent, at, .. } => {
                if let Some(stretch) = self.readers.entry(*agent).or_default().last_mut() {
                    stretch.finished = Some(*at);
                }
            }
        }
    }

    fn faults(&self, channel: ChannelId) -> Vec<Fault> {
        let mut faults = self.gaps(channel);
        let log = self.merged(channel, &mut faults);
        let places = places(&log, channel, &mut faults);
        self.missing(channel, &mut faults);
        self.order(channel, &places, &mut faults);
        self.invented(channel, &log, &mut faults);
        epochs(&log, channel, &mut faults);
        for frame in &self.refused {
            if let Some(offset) = places.get(frame) {
                faults.push(Fault::RefusedButThere {
                    channel,
                    frame: *frame,
                    offset: *offset,
                });
            }
        }
        faults
    }

    /// Each agent was shown one offset after the other, up to where it says, and no frame twice.
    fn gaps(&self, channel: ChannelId) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (agent, stretches) in &self.readers {
            let mut seen = HashMap::new();
            for stretch in stretches {
                let mut expected = stretch.from;
                for entry in &stretch.entries {
                    let (frame, second) = (entry.frame, entry.offset);
                    if let Some(first) = seen.insert(frame, second) {
                        faults.push(Fault::Twice {
                            channel,
                            frame,
                            first,
                            second,
                        });
                    } else if second != expected {
                        faults.push(Fault::Gap {
                            channel,
                            agent: *agent,
                            expected,
                            found: second,
                        });
                    }
                    expected = second.next();
                }
                if let Some(at) = stretch.finished.filter(|at| *at >= expected) {
                    faults.push(Fault::ShortRead {
                        channel,
                        agent: *agent,
                        at,
                        last: expected.previous(),
                    });
                }
            }
        }
        faults
    }

    /// The log, from what all agents were shown.
    fn merged<'a>(&'a self, channel: ChannelId, faults: &mut Vec<Fault>) -> BTreeMap<Offset, &'a Entry> {
        let mut log: BTreeMap<Offset, &Entry> = BTreeMap::new();
        let mut forked = BTreeSet::new();
        let shown = self.readers.values().flatten().flat_map(|stretch| &stretch.entries);
        for entry in shown {
            let known = *log.entry(entry.offset).or_insert(entry);
            if known != entry && forked.insert(entry.offset) {
                faults.push(Fault::Fork {
                    channel,
                    offset: entry.offset,
                    first: known.frame,
                    second: entry.frame,
                });
            }
        }
        log
    }

    /// Finds acknowledged frames that were not shown to an agent that read at their offsets.
    fn missing(&self, channel: ChannelId, faults: &mut Vec<Fault>) {
        for (&agent, stretches) in &self.readers {
            let entries = stretches.iter().flat_map(|stretch| &stretch.entries);
            let shown: HashSet<_> = entries.clone().map(|entry| (entry.frame, entry.offset)).collect();
            let offsets: HashSet<_> = entries.map(|entry| entry.offset).collect();
            let read = |offset| offsets.contains(&offset) || stretches.iter().any(|stretch| stretch.covers(offset));
            for &(frame, offset) in &self.acknowledged {
                if !shown.contains(&(frame, offset)) && read(offset) {
                    faults.push(Fault::Missing {
                        channel,
                        agent,
                        frame,
                        offset,
                    });
                }
            }
        }
    }

    /// Each author's frames are in its order.
    fn order(&self, channel: ChannelId, places: &HashMap<FrameId, Offset>, faults: &mut Vec<Fault>) {
        for (agent, sent) in &self.sent {
            let mut last: Option<(FrameId, Offset)> = None;
            for frame in sent {
                let Some(&offset) = places.get(frame) else { continue };
                if let Some((earlier, before)) = last.filter(|(earlier, before)| *before > offset && earlier != frame) {
                    faults.push(Fault::Order {
                        channel,
                        agent: *agent,
                        earlier,
                        later: *frame,
                    });
                    last = Some((earlier, before));
                } else {
                    last = Some((*frame, offset));
                }
            }
        }
    }

    /// A message under the name of an author that wrote down its sends is one of those.
    fn invented(&self, channel: ChannelId, log: &BTreeMap<Offset, &Entry>, faults: &mut Vec<Fault>) {
        let sent: HashMap<AgentId, HashSet<FrameId>> = self
            .sent
            .iter()
            .map(|(agent, frames)| (*agent, frames.iter().copied().collect()))
            .collect();
        for entry in log.values() {
            let unknown = |frames: &HashSet<FrameId>| !frames.contains(&entry.frame);
            if entry.kind == EntryKind::Message && sent.get(&entry.author).is_some_and(unknown) {
                faults.push(Fault::Invented {
                    channel,
                    agent: entry.author,
                    frame: entry.frame,
                    offset: entry.offset,
                });
            }
        }
    }
}

/// Returns the place of each frame; none is there twice.
fn places(log: &BTreeMap<Offset, &Entry>, channel: ChannelId, faults: &mut Vec<Fault>) -> HashMap<FrameId, Offset> {
    let mut places = HashMap::new();
    for (offset, entry) in log {
        if let Some(first) = places.insert(entry.frame, *offset) {
            let twice = Fault::Twice {
                channel,
                frame: entry.frame,
                first,
                second: *offset,
            };
            if !faults.contains(&twice) {
                faults.push(twice);
            }
        }
    }
    places
}

/// Each entry names the last commit before it, as far as the log is known without a gap from there.
fn epochs(log: &BTreeMap<Offset, &Entry>, channel: ChannelId, faults: &mut Vec<Fault>) {
    let (mut head, mut last) = (None, None);
    for (offset, entry) in log {
        if last.is_some_and(|last: Offset| last.next() != *offset) {
            head = None;
        }
        if let Some(head) = head.filter(|head| entry.kind.names_head() && *head != entry.parent) {
            faults.push(Fault::Epoch {
                channel,
                frame: entry.frame,
                offset: *offset,
                named: entry.parent,
                head,
            });
        }
        if entry.kind.is_head() {
            head = Some(*offset);
        }
        last = Some(*offset);
    }
}
