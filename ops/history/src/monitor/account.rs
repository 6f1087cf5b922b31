//! All that is known of one channel, as it becomes known.

use super::Delivered;
use super::faults::Faults;
use super::log::{Log, Mark, Slot};
use super::shown::Shown;
use crate::{EntryKind, Fault};
use skytale_proto::{AgentId, ChannelId, FrameId, Offset};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Most messages of one author that wait for it to record that it sent them. An author that keeps to the rule of
/// [`ChannelMonitor::sent`](super::ChannelMonitor::sent) has one at most.
const UNCLAIMED_MAX: usize = 16;

/// An account of one channel.
pub(super) struct Account {
    pub(super) channel: ChannelId,
    pub(super) log: Log,
    pub(super) authors: Vec<Author>,
    numbers: HashMap<AgentId, u32>,
    pub(super) readers: Vec<Shown>,
    reading: HashMap<AgentId, usize>,
    /// Frames that were sent and not shown to anybody yet, with their author and their place among its frames.
    flying: HashMap<(FrameId, u32), u32>,
    refused: HashSet<FrameId>,
    /// Acknowledged frames, by offset, where nobody was shown an entry yet.
    pub(super) awaited: BTreeMap<Offset, Vec<FrameId>>,
    tail: Option<Tail>,
    /// Readers that finished, by their first and last offset.
    pub(super) agreements: BTreeMap<(Offset, Offset), Agreement>,
}

/// An agent under whose name entries are or are sent.
pub(super) struct Author {
    pub(super) id: AgentId,
    /// Number of frames that it sent; above 0, it records them.
    pub(super) sent: u32,
    /// Its entry with the highest offset of those that it sent.
    last: Option<Offset>,
    /// Its entry that it sent last of those up to `last`.
    latest: Option<Offset>,
    /// Messages under its name that it did not record yet.
    unclaimed: Vec<Offset>,
}

/// The end of the log.
struct Tail {
    offset: Offset,
    /// The handshake head there, if it is known.
    head: Option<Offset>,
}

/// Entries that readers of the same stretch were shown.
pub(super) struct Agreement {
    chain: u64,
    pub(super) is_same: bool,
}

impl Account {
    pub(super) fn new(channel: ChannelId) -> Self {
        Self {
            channel,
            log: Log::default(),
            authors: Vec::new(),
            numbers: HashMap::new(),
            readers: Vec::new(),
            reading: HashMap::new(),
            flying: HashMap::new(),
            refused: HashSet::new(),
            awaited: BTreeMap::new(),
            tail: None,
            agreements: BTreeMap::new(),
        }
    }

    pub(super) fn in_flight(&self) -> u64 {
        let flying = self.flying.keys().filter(|(frame, _)| !self.refused.contains(frame));
        flying.count() as u64
    }

    fn number(&mut self, agent: AgentId) -> u32 {
        *self.numbers.entry(agent).or_insert_with(|| {
            self.authors.push(Author {
                id: agent,
                sent: 0,
                last: None,
                latest: None,
                unclaimed: Vec::new(),
            });
            u32::try_from(self.authors.len() - 1).unwrap_or(u32::MAX)
        })
    }

    pub(super) fn sent(&mut self, agent: AgentId, frame: FrameId, faults: &Faults) {
        let number = self.number(agent);
        if self.flying.contains_key(&(frame, number)) {
            return;
        }
        let author = &mut self.authors[number as usize];
        author.sent = author.sent.saturating_add(1);
        let sequence = author.sent;
        let unclaimed = std::mem::take(&mut author.unclaimed);
        match self.own_place(&frame, number) {
            Some((offset, _)) => self.claim(offset, number, sequence, faults),
            None => {
                self.flying.insert((frame, number), sequence);
            }
        }
        // It sends the next frame, so it has recorded all that it sent before.
        for offset in unclaimed {
            self.invented(offset, faults);
        }
    }

    pub(super) fn acknowledged(&mut self, author: AgentId, frame: FrameId, offset: Offset, faults: &Faults) {
        match self.log.get_mut(offset) {
            Some(slot) if slot.frame == frame => {
                slot.mark(Mark::Acknowledged);
            }
            Some(_) => faults.push(Fault::Missing {
                channel: self.channel,
                agent: author,
                frame,
                offset,
            }),
            None => {
                let awaited = self.awaited.entry(offset).or_default();
                if !awaited.contains(&frame) {
                    awaited.push(frame);
                }
            }
        }
    }

    pub(super) fn refused(&mut self, frame: FrameId, faults: &Faults) {
        match self.log.place(&frame) {
            Some(offset) => self.refused_but_there(frame, offset, faults),
            None => {
                self.refused.insert(frame);
            }
        }
    }

    /// Begins a stretch of a reader; its number.
    pub(super) fn reads(&mut self, agent: AgentId, from: Offset) -> usize {
        let number = *self.reading.entry(agent).or_insert_with(|| {
            self.readers.push(Shown::new(agent));
            self.readers.len() - 1
        });
        self.readers[number].begin(from);
        number
    }

    pub(super) fn delivered(&mut self, reader: usize, entry: &Delivered, faults: &Faults) {
        let (channel, offset, frame) = (self.channel, entry.offset, entry.frame);
        let slot = self.log.get(offset);
        let shown = &mut self.readers[reader];
        let is_canonical = slot.is_none_or(|slot| slot.frame == frame);
        let before = match slot {
            // Its only place: the frames need not be searched.
            Some(slot) if is_canonical && !slot.has(Mark::Repeated) => None,
            _ => self.log.place(&frame).filter(|first| shown.spans.contains(*first)),
        }
        .or_else(|| (is_canonical && shown.spans.contains(offset)).then_some(offset));
        if let Some(first) = before {
            faults.push(Fault::Twice {
                channel,
                frame,
                first,
                second: offset,
            });
        } else if offset != shown.expected {
            faults.push(Fault::Gap {
                channel,
                agent: shown.agent,
                expected: shown.expected,
                found: offset,
            });
        }
        shown.advance(entry);
        if is_canonical {
            shown.spans.insert(offset);
        }
        match slot {
            None => self.place(reader, entry, before.is_some(), faults),
            Some(slot) if slot.matches(entry) && self.authors[slot.author as usize].id == entry.author => {}
            Some(_) => self.fork(entry, faults),
        }
    }

    pub(super) fn finished(&mut self, reader: usize, at: Offset, faults: &Faults) {
        let shown = &mut self.readers[reader];
        if at >= shown.expected {
            faults.push(Fault::ShortRead {
                channel: self.channel,
                agent: shown.agent,
                at,
                last: shown.expected.previous(),
            });
        }
        shown.finish(at);
        let chain = shown.chain;
        let agreement = self
            .agreements
            .entry((shown.from, at))
            .or_insert(Agreement { chain, is_same: true });
        agreement.is_same &= agreement.chain == chain;
    }

    /// Takes the first account of an entry.
    fn place(&mut self, reader: usize, entry: &Delivered, is_named_twice: bool, faults: &Faults) {
        let (channel, offset, frame) = (self.channel, entry.offset, entry.frame);
        let author = self.number(entry.author);
        let mut slot = Slot::new(entry, author);
        let first = self.log.place(&frame);
        if let Some(first) = first {
            slot.mark(Mark::Repeated);
            if !is_named_twice {
                faults.push(Fault::Twice {
                    channel,
                    frame,
                    first: first.min(offset),
                    second: first.max(offset),
                });
            }
        }
        for acknowledged in self.awaited.remove(&offset).unwrap_or_default() {
            if acknowledged == frame {
                slot.mark(Mark::Acknowledged);
            } else {
                faults.push(Fault::Missing {
                    channel,
                    agent: self.readers[reader].agent,
                    frame: acknowledged,
                    offset,
                });
            }
        }
        self.log.insert(offset, slot);
        if let Some(sequence) = self.flying.remove(&(frame, author)) {
            self.claim(offset, author, sequence, faults);
        } else if self.is_unsent(&slot) {
            self.unclaimed(offset, author, faults);
        }
        self.epoch(offset, entry, faults);
        if self.refused.remove(&frame) {
            self.refused_but_there(frame, offset, faults);
        }
    }

    /// The author sent this entry: its frames are in its order.
    fn claim(&mut self, offset: Offset, number: u32, sequence: u32, faults: &Faults) {
        let author = &mut self.authors[number as usize];
        let latest = author.latest.and_then(|at| self.log.get(at).copied());
        let Some(slot) = self.log.get_mut(offset).filter(|slot| slot.sequence == 0) else {
            return;
        };
        slot.sequence = sequence;
        if author.last.is_some_and(|last| offset < last) {
            // Compared with its neighbours at the end.
            return;
        }
        author.last = Some(offset);
        match latest {
            Some(latest) if latest.sequence > sequence => {
                slot.mark(Mark::Misplaced);
                faults.push(Fault::Order {
                    channel: self.channel,
                    agent: author.id,
                    earlier: slot.frame,
                    later: latest.frame,
                });
            }
            _ => author.latest = Some(offset),
        }
    }

    /// A message that its author did not record: if it records its sends, it does so before the next.
    fn unclaimed(&mut self, offset: Offset, number: u32, faults: &Faults) {
        let author = &mut self.authors[number as usize];
        author.unclaimed.push(offset);
        if author.unclaimed.len() > UNCLAIMED_MAX {
            let oldest = author.unclaimed.remove(0);
            self.invented(oldest, faults);
        }
    }

    fn invented(&mut self, offset: Offset, faults: &Faults) {
        let is_unsent = self.log.get(offset).is_some_and(|slot| self.is_unsent(slot));
        let Some(slot) = self.log.get_mut(offset).filter(|_| is_unsent) else {
            return;
        };
        if slot.mark(Mark::Invented) {
            faults.push(Fault::Invented {
                channel: self.channel,
                agent: self.authors[slot.author as usize].id,
                frame: slot.frame,
                offset,
            });
        }
    }

    /// Whether this is a message of an author that records its sends, and did not record this one.
    pub(super) fn is_unsent(&self, slot: &Slot) -> bool {
        let is_recorded = || {
            slot.has(Mark::Repeated)
                && self
                    .own_place(&slot.frame, slot.author)
                    .is_some_and(|(_, first)| first.sequence > 0)
        };
        slot.kind == EntryKind::Message
            && slot.sequence == 0
            && self.authors[slot.author as usize].sent > 0
            && !is_recorded()
    }

    /// Returns the first place of a frame, if it is there under this author's name.
    fn own_place(&self, frame: &FrameId, author: u32) -> Option<(Offset, &Slot)> {
        let offset = self.log.place(frame)?;
        let slot = self.log.get(offset).filter(|slot| slot.author == author)?;
        Some((offset, slot))
    }

    /// An entry at the end of the log names the head there. Entries that are shown out of turn are checked at the end.
    fn epoch(&mut self, offset: Offset, entry: &Delivered, faults: &Faults) {
        if self.tail.as_ref().is_some_and(|tail| offset < tail.offset) {
            return;
        }
        let tail = self.tail.take().filter(|tail| tail.offset.next() == offset);
        let head = tail.and_then(|tail| tail.head);
        if let Some(head) = head.filter(|head| entry.kind.names_head() && *head != entry.parent) {
            if let Some(slot) = self.log.get_mut(offset) {
                slot.mark(Mark::Stale);
            }
            faults.push(Fault::Epoch {
                channel: self.channel,
                frame: entry.frame,
                offset,
                named: entry.parent,
                head,
            });
        }
        let head = if entry.kind.is_head() { Some(offset) } else { head };
        self.tail = Some(Tail { offset, head });
    }

    fn fork(&mut self, entry: &Delivered, faults: &Faults) {
        let Some(slot) = self.log.get_mut(entry.offset) else {
            return;
        };
        if slot.mark(Mark::Forked) {
            faults.push(Fault::Fork {
                channel: self.channel,
                offset: entry.offset,
                first: slot.frame,
                second: entry.frame,
            });
        }
    }

    fn refused_but_there(&self, frame: FrameId, offset: Offset, faults: &Faults) {
        faults.push(Fault::RefusedButThere {
            channel: self.channel,
            frame,
            offset,
        });
    }
}
