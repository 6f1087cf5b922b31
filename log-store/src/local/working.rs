//! The writer's states of logs: with the entries that it has folded and not yet made durable. Nobody else sees them.

use super::config::LocalConfig;
use super::index::Seen;
use super::known::Known;
use super::shared::Shared;
use crate::StoreError;
use bytes::Bytes;
use lru::LruCache;
use skytale_proto::{FrameId, LogId, Offset};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::batch::Batch;

/// Entries after which a log's state is kept in the index again, at least. A state that is not in memory is the kept one
/// and the entries since, folded again: this bounds how many those are.
const SAVE_AFTER_ENTRIES: u32 = 256;
/// Bytes of state for which one more entry may pass before it is kept again: large states are kept less often.
const SAVE_BYTES_PER_ENTRY: usize = 1_024;

/// Recent frame ids for which a log keeps room while it has none.
const RECENT_KEPT: usize = 64;

/// A log's state, as the writer has it.
pub(crate) struct Working {
    pub(crate) known: Known,
    /// The batch that last touched it, and its place among that batch's logs.
    pub(crate) slot: (u64, u32),
    /// Entries since the state was last kept in the index.
    pub(crate) unsaved: u32,
    /// More than the head changed in the batch that last touched it.
    pub(crate) changed: bool,
    /// The state must be kept with the batch that last touched it.
    pub(crate) save: bool,
    weight_bytes: usize,
    recent: Recent,
}

impl Working {
    /// An entry was folded. False where its id came after a greater one, and is for [`WorkingSet::late`].
    pub(crate) fn took(&mut self, seen: Seen) -> bool {
        self.known.saw(seen.id);
        self.recent.take(seen)
    }
}

/// Frame ids of one log that the index does not have yet, as far as each is greater than the one before: nearly all are.
#[derive(Default)]
struct Recent(VecDeque<Seen>);

impl Recent {
    /// Takes in an id. False where it is not greater than the last one.
    fn take(&mut self, seen: Seen) -> bool {
        let follows = self.0.back().is_none_or(|last| last.id < seen.id);
        if follows {
            self.0.push_back(seen);
        }
        follows
    }

    fn find(&self, id: &FrameId) -> Option<&Seen> {
        let at = self.0.binary_search_by_key(id, |seen| seen.id).ok()?;
        self.0.get(at)
    }

    /// Forgets the ids of entries up to this one.
    fn forget(&mut self, up_to: Offset) {
        while self.0.pop_front_if(|seen| seen.offset <= up_to).is_some() {}
        if self.0.is_empty() && self.0.capacity() > RECENT_KEPT {
            self.0 = VecDeque::new();
        }
    }
}

/// The writer's states, and the frame ids that the index does not have yet.
pub(crate) struct WorkingSet {
    logs: LruCache<LogId, Working>,
    bytes: usize,
    /// Recent ids of logs whose state is not in memory.
    aside: HashMap<LogId, Recent>,
    /// Recent ids that came after a greater one of their log, with their offset and time.
    late: HashMap<(LogId, FrameId), (Offset, u64)>,
    unindexed: VecDeque<Arc<Batch>>,
}

impl WorkingSet {
    pub(crate) fn new() -> Self {
        Self {
            logs: LruCache::unbounded(),
            bytes: 0,
            aside: HashMap::new(),
            late: HashMap::new(),
            unindexed: VecDeque::new(),
        }
    }

    /// A log's state; read where it is not in memory.
    pub(crate) fn get(&mut self, shared: &Shared, log: LogId) -> Result<&mut Working, StoreError> {
        let (bytes, aside) = (&mut self.bytes, &mut self.aside);
        self.logs.try_get_or_insert_mut(log, || {
            let known = shared.load(log)?;
            let weight_bytes = known.state.weight_bytes();
            *bytes += weight_bytes;
            Ok(Working {
                known,
                slot: (0, 0),
                unsaved: 0,
                changed: false,
                save: false,
                weight_bytes,
                recent: aside.remove(&log).unwrap_or_default(),
            })
        })
    }

    /// A log's state, if it is in memory.
    pub(crate) fn peek_mut(&mut self, log: &LogId) -> Option<&mut Working> {
        self.logs.peek_mut(log)
    }

    /// Forgets a log that has no entry: a frame that was refused is no reason to remember one.
    pub(crate) fn forget_absent(&mut self, log: &LogId) {
        let is_absent = |working: &Working| working.known.state.head() == Offset::ZERO;
        if self.logs.peek(log).is_some_and(is_absent)
            && let Some(working) = self.logs.pop(log)
        {
            self.bytes = self.bytes.saturating_sub(working.weight_bytes);
        }
    }

    /// Returns the offset and the time at which a log accepted a frame id before; the writer's own entries included.
    pub(crate) fn seen(&self, shared: &Shared, log: &LogId, id: &FrameId) -> Result<Option<(Offset, u64)>, StoreError> {
        match self.seen_recently(log, id) {
            Some(seen) => Ok(Some(seen)),
            None => shared.index()?.seen(log, id),
        }
    }

    /// The same, as far as the index lacks it.
    fn seen_recently(&self, log: &LogId, id: &FrameId) -> Option<(Offset, u64)> {
        let in_memory = self.logs.peek(log).map(|working| &working.recent);
        let recent = in_memory
            .or_else(|| self.aside.get(log))
            .and_then(|recent| recent.find(id));
        // After a Trim an id may have been accepted again: it may be at two places, and the last one counts.
        let recent = recent.map(|seen| (seen.offset, seen.time_ms));
        recent.max(self.late.get(&(*log, *id)).copied())
    }

    /// An entry was folded whose id [`Working::took`] does not hold.
    pub(crate) fn late(&mut self, log: LogId, seen: Seen) {
        self.late.insert((log, seen.id), (seen.offset, seen.time_ms));
    }

    /// A batch is durable, and on its way to the index. Frame ids of what the index has by now are forgotten here.
    pub(crate) fn durable(&mut self, batch: &Arc<Batch>, indexed: u64) {
        self.unindexed.push_back(batch.clone());
        while let Some(batch) = self.unindexed.pop_front_if(|batch| batch.number <= indexed) {
            for log in &batch.logs {
                if let Some(working) = self.logs.peek_mut(&log.log) {
                    working.recent.forget(log.head);
                } else if let Entry::Occupied(mut recent) = self.aside.entry(log.log) {
                    recent.get_mut().forget(log.head);
                    if recent.get().0.is_empty() {
                        recent.remove();
                    }
                }
            }
            if self.late.is_empty() {
                continue;
            }
            for entry in &batch.entries {
                // After a Trim the log may have accepted the id again, in a later batch.
                let key = (batch.log_of(entry), entry.id);
                if self.late.get(&key).is_some_and(|(offset, _)| *offset == entry.offset) {
                    self.late.remove(&key);
                }
            }
        }
    }

    /// Forgets entries that were folded and will not be durable. States are read again when they are needed.
    pub(crate) fn roll_back(&mut self) {
        self.logs.clear();
        self.bytes = 0;
        self.aside.clear();
        self.late.clear();
        for batch in &self.unindexed {
            for entry in &batch.entries {
                let (log, seen) = (batch.log_of(entry), entry.seen());
                if !self.aside.entry(log).or_default().take(seen) {
                    self.late.insert((log, seen.id), (seen.offset, seen.time_ms));
                }
            }
        }
    }

    /// Gives the states that should be kept now: of the logs that a batch touched, where enough has happened.
    pub(crate) fn take_due(&mut self, touched: impl Iterator<Item = LogId>) -> Vec<(LogId, Bytes)> {
        let mut saved = Vec::new();
        for log in touched {
            let Some(working) = self.logs.peek_mut(&log) else {
                continue;
            };
            if working.changed {
                let weight = working.known.state.weight_bytes();
                self.bytes = self.bytes.saturating_sub(working.weight_bytes) + weight;
                working.weight_bytes = weight;
            }
            let often = (working.weight_bytes / SAVE_BYTES_PER_ENTRY) as u32;
            if working.save || working.unsaved >= SAVE_AFTER_ENTRIES.max(often) {
                saved.push((log, working.known.encode()));
                working.unsaved = 0;
            }
            (working.changed, working.save) = (false, false);
        }
        saved
    }

    /// Drops the states used longest ago, down to the limits, and gives those that must be kept. `durable` is the last
    /// batch that readers see: a state that is ahead of it stays, since it could not be read again.
    pub(crate) fn evict(&mut self, config: &LocalConfig, durable: u64) -> Vec<(LogId, Bytes)> {
        let mut saved = Vec::new();
        while self.logs.len() > config.states_max || (self.bytes > config.states_bytes_max && self.logs.len() > 1) {
            if self.logs.peek_lru().is_none_or(|(_, working)| working.slot.0 > durable) {
                break;
            }
            let Some((log, working)) = self.logs.pop_lru() else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(working.weight_bytes);
            if working.unsaved > 0 {
                saved.push((log, working.known.encode()));
            }
            self.set_aside(log, working.recent);
        }
        saved
    }

    fn set_aside(&mut self, log: LogId, recent: Recent) {
        if !recent.0.is_empty() {
            self.aside.insert(log, recent);
        }
    }

    /// All states that the index does not have as they are.
    pub(crate) fn unsaved(&self) -> Vec<(LogId, Bytes)> {
        let unsaved = self.logs.iter().filter(|(_, working)| working.unsaved > 0);
        unsaved.map(|(log, working)| (*log, working.known.encode())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::{BatchEntry, BatchLog};
    use super::*;
    use proptest::prelude::*;
    use skytale_proto::ChannelId;

    #[derive(Clone, Debug)]
    enum Step {
        /// An entry of a log with this id.
        Accept(usize, u8),
        /// The batch is durable, and the index has all but so many of them.
        Durable(u64),
        /// The state leaves memory.
        Evict(usize),
        RollBack,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            12 => (0..2usize, 0..12u8).prop_map(|(log, id)| Step::Accept(log, id)),
            4 => (0..4u64).prop_map(Step::Durable),
            2 => (0..2usize).prop_map(Step::Evict),
            1 => Just(Step::RollBack),
        ]
    }

    /// The writer's ids beside a plain table of them.
    struct Beside {
        set: WorkingSet,
        table: HashMap<(LogId, FrameId), (Offset, u64)>,
        heads: [u64; 2],
        batches: Vec<Arc<Batch>>,
        /// Entries that are not durable yet.
        open: Vec<(usize, Seen)>,
        indexed: u64,
    }

    fn log(index: usize) -> LogId {
        ChannelId::from_bytes([index as u8; 16]).log()
    }

    impl Beside {
        fn accept(&mut self, index: usize, id: u8) {
            self.heads[index] += 1;
            let seen = Seen {
                id: FrameId::from_bytes([id; 16]),
                offset: Offset::new(self.heads[index]),
                time_ms: self.heads[index] * 10,
            };
            let log = log(index);
            if self.set.logs.peek(&log).is_none() {
                let working = Working {
                    known: Known::new(log),
                    slot: (0, 0),
                    unsaved: 0,
                    changed: false,
                    save: false,
                    weight_bytes: 0,
                    recent: self.set.aside.remove(&log).unwrap_or_default(),
                };
                self.set.logs.put(log, working);
            }
            let is_late = !self.set.logs.get_mut(&log).expect("put in").took(seen);
            if is_late {
                self.set.late(log, seen);
            }
            self.table.insert((log, seen.id), (seen.offset, seen.time_ms));
            self.open.push((index, seen));
        }

        fn durable(&mut self, behind: u64) {
            let logs = (0..2).map(|index| BatchLog {
                log: log(index),
                first: Offset::FIRST,
                head: Offset::new(self.heads[index]),
                first_available: Offset::FIRST,
                changed: None,
            });
            let entries = self.open.drain(..).map(|(index, seen)| BatchEntry {
                log: index as u32,
                at: 0,
                length: 0,
                offset: seen.offset,
                id: seen.id,
                time_ms: seen.time_ms,
            });
            let batch = Arc::new(Batch {
                number: self.batches.len() as u64 + 1,
                time_ms: 0,
                segment: 0,
                mark_at: 0,
                start: 0,
                records: Bytes::new(),
                logs: logs.collect(),
                entries: entries.collect(),
                states: Vec::new(),
                saved: Vec::new(),
            });
            self.batches.push(batch.clone());
            let indexed = self.indexed.max(batch.number.saturating_sub(behind));
            self.set.durable(&batch, indexed);
            for batch in &self.batches[self.indexed as usize..indexed as usize] {
                for entry in &batch.entries {
                    let key = (batch.log_of(entry), entry.id);
                    if self.table.get(&key).is_some_and(|(offset, _)| *offset == entry.offset) {
                        self.table.remove(&key);
                    }
                }
            }
            self.indexed = indexed;
        }

        fn roll_back(&mut self) {
            self.set.roll_back();
            self.table.clear();
            for batch in &self.batches[self.indexed as usize..] {
                for entry in &batch.entries {
                    let seen = (entry.offset, entry.time_ms);
                    self.table.insert((batch.log_of(entry), entry.id), seen);
                }
            }
            for (index, _) in self.open.drain(..) {
                self.heads[index] -= 1;
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        /// An id may be accepted again at any time here, as after a Trim.
        #[test]
        fn what_the_index_lacks_is_where_it_was_accepted_last(steps in proptest::collection::vec(step(), 1..60)) {
            let mut beside = Beside {
                set: WorkingSet::new(),
                table: HashMap::new(),
                heads: [0; 2],
                batches: Vec::new(),
                open: Vec::new(),
                indexed: 0,
            };
            for step in steps {
                match step {
                    Step::Accept(index, id) => beside.accept(index, id),
                    Step::Durable(behind) => beside.durable(behind),
                    Step::Evict(index) => {
                        if let Some(working) = beside.set.logs.pop(&log(index)) {
                            beside.set.set_aside(log(index), working.recent);
                        }
                    }
                    Step::RollBack => beside.roll_back(),
                }
                for (index, id) in (0..2).flat_map(|index| (0..12).map(move |id| (log(index), FrameId::from_bytes([id; 16])))) {
                    let seen = beside.set.seen_recently(&index, &id);
                    prop_assert_eq!(seen, beside.table.get(&(index, id)).copied());
                }
            }
        }
    }
}
