//! Faults of a channel that are known only when all is over.

use super::ChannelReport;
use super::account::Account;
use super::faults::Faults;
use super::log::Mark;
use crate::Fault;
use skytale_proto::{FrameId, Offset};
use std::collections::{HashMap, HashSet};

impl Account {
    /// Adds the faults that were not named before. The account stays as it is.
    pub(super) fn verdict(&self, faults: &Faults) -> ChannelReport {
        self.walk(faults);
        let unread = self.missing(faults);
        ChannelReport {
            channel: self.channel,
            entries: self.log.entries(),
            in_flight: self.in_flight(),
            unread,
            readers: self.readers.len(),
            finished: self.readers.iter().filter(|shown| shown.is_finished).count(),
            agree: self.agreements.values().all(|agreement| agreement.is_same),
        }
    }

    /// Goes over the log in order: entries that were shown after others that follow them were not compared with these.
    fn walk(&self, faults: &Faults) {
        let channel = self.channel;
        let mut latest: HashMap<u32, (u32, FrameId)> = HashMap::new();
        let (mut head, mut last) = (None, None);
        for (offset, slot) in self.log.range(Offset::ZERO, Offset::MAX) {
            let author = &self.authors[slot.author as usize];
            if self.is_unsent(slot) && !slot.has(Mark::Invented) {
                faults.push(Fault::Invented {
                    channel,
                    agent: author.id,
                    frame: slot.frame,
                    offset,
                });
            }
            if slot.sequence > 0 {
                let latest = latest.entry(slot.author).or_insert((slot.sequence, slot.frame));
                if slot.sequence >= latest.0 {
                    *latest = (slot.sequence, slot.frame);
                } else if !slot.has(Mark::Misplaced) {
                    faults.push(Fault::Order {
                        channel,
                        agent: author.id,
                        earlier: slot.frame,
                        later: latest.1,
                    });
                }
            }
            if last.is_some_and(|last: Offset| last.next() != offset) {
                head = None;
            }
            let is_stale = |head: &Offset| slot.kind.names_head() && *head != slot.parent && !slot.has(Mark::Stale);
            if let Some(head) = head.filter(is_stale) {
                faults.push(Fault::Epoch {
                    channel,
                    frame: slot.frame,
                    offset,
                    named: slot.parent,
                    head,
                });
            }
            if slot.kind.is_head() {
                head = Some(offset);
            }
            last = Some(offset);
        }
    }

    /// Finds acknowledged frames that were not shown to an agent that read at their offsets. Returns the number of
    /// acknowledged frames that nobody read.
    fn missing(&self, faults: &Faults) -> u64 {
        let channel = self.channel;
        let missing = |agent, frame, offset| {
            faults.push(Fault::Missing {
                channel,
                agent,
                frame,
                offset,
            });
        };
        let mut read = HashSet::new();
        for shown in &self.readers {
            for (start, end) in shown.holes() {
                for (offset, slot) in self.log.range(start, end) {
                    if slot.has(Mark::Acknowledged) {
                        missing(shown.agent, slot.frame, offset);
                    }
                }
                for (offset, awaited) in self.awaited.range(start..=end) {
                    read.insert(*offset);
                    for frame in awaited {
                        missing(shown.agent, *frame, *offset);
                    }
                }
            }
        }
        let unread = self.awaited.iter().filter(|(offset, _)| !read.contains(*offset));
        unread.map(|(_, awaited)| awaited.len() as u64).sum()
    }
}
