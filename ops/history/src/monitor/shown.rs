//! Entries that one agent was shown, without their contents.

use super::Delivered;
use super::spans::Spans;
use skytale_proto::{AgentId, Offset};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Most stretches with a hole that are kept of one agent.
const HOLED_MAX: usize = 64;

/// A reading agent's account of one channel.
pub(super) struct Shown {
    pub(super) agent: AgentId,
    /// The offsets where it was shown the canonical frame.
    pub(super) spans: Spans,
    /// The next offset due.
    pub(super) expected: Offset,
    /// Whether it reads no further.
    pub(super) is_finished: bool,
    /// The first offset of the present stretch.
    pub(super) from: Offset,
    /// The digest chain of the present stretch.
    pub(super) chain: u64,
    /// Stretches that ended, first and last offset, of which it was not shown all.
    holed: Vec<(Offset, Offset)>,
}

impl Shown {
    pub(super) fn new(agent: AgentId) -> Self {
        Self {
            agent,
            spans: Spans::default(),
            expected: Offset::FIRST,
            is_finished: true,
            from: Offset::FIRST,
            chain: 0,
            holed: Vec::new(),
        }
    }

    /// Begins a stretch. One that was not finished ends with the last entry shown.
    pub(super) fn begin(&mut self, from: Offset) {
        if !self.is_finished {
            self.end(self.expected.previous());
        }
        self.expected = from;
        self.from = from;
        self.chain = 0;
        self.is_finished = false;
    }

    /// Goes on to the offset after an entry.
    pub(super) fn advance(&mut self, entry: &Delivered) {
        let mut hasher = DefaultHasher::new();
        (self.chain, entry.offset, entry.frame, entry.hash).hash(&mut hasher);
        self.chain = hasher.finish();
        self.expected = entry.offset.next();
    }

    /// Finishes the stretch at a cursor.
    pub(super) fn finish(&mut self, at: Offset) {
        self.is_finished = true;
        self.end(at);
    }

    fn end(&mut self, at: Offset) {
        if self.holed.len() < HOLED_MAX && !self.spans.holes(self.from, at).is_empty() {
            self.holed.push((self.from, at));
        }
    }

    /// The ranges of all stretches where it was not shown the canonical frame, both ends included.
    pub(super) fn holes(&self) -> impl Iterator<Item = (Offset, Offset)> {
        let current = (!self.is_finished).then(|| (self.from, self.expected.previous()));
        let stretches = self.holed.iter().copied().chain(current);
        stretches.flat_map(|(from, at)| self.spans.holes(from, at))
    }
}
