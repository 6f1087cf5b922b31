//! Recent entries, in memory: readers near the head are served from here.
//!
//! A batch stays until the index has it and newer ones need the room. So what the index does not have yet is here.

use super::batch::{Batch, BatchLog};
use bytes::{Bytes, BytesMut};
use skytale_proto::{LogId, Offset};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Recent entries of all logs.
#[derive(Default)]
pub(crate) struct Tail {
    /// The place of each log in `logs`.
    places: HashMap<LogId, usize>,
    logs: Vec<TailLog>,
    /// Places that are free.
    free: Vec<usize>,
    /// Consecutive batches.
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    bytes_max: usize,
    /// The last batch that the index has.
    indexed: u64,
}

/// Recent entries of one log; at least one.
struct TailLog {
    head: Offset,
    first_available: Offset,
    /// The offset of the first of `entries`.
    first: Offset,
    entries: VecDeque<TailEntry>,
}

struct TailEntry {
    batch: u64,
    at: u32,
    length: u32,
}

/// Answer of the tail to a read.
pub(crate) enum TailRead {
    /// Entries: the records, the last one's offset, the head.
    Entries {
        records: Vec<Bytes>,
        last: Offset,
        head: Offset,
    },
    /// The entry after the cursor was given up; this is the first there is.
    Trimmed { first: Offset },
    /// The cursor is past the head.
    BeyondHead { head: Offset },
    /// Older than the entries here. The head, if the log has recent entries at all.
    Older { head: Option<Offset> },
}

impl Tail {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            ..Self::default()
        }
    }

    /// Takes a durable batch in.
    pub(crate) fn publish(&mut self, batch: &Arc<Batch>) {
        // A log is looked for once, not with each entry.
        let mut places = self.places_of(batch);
        for (log, place) in batch.logs.iter().zip(&places) {
            if let Some(place) = *place {
                let known = &mut self.logs[place];
                known.head = log.head;
                known.first_available = log.first_available;
            }
        }
        for entry in &batch.entries {
            let place = match places[entry.log as usize] {
                Some(place) => place,
                None => self.begin(&batch.logs[entry.log as usize], entry.offset),
            };
            places[entry.log as usize] = Some(place);
            self.logs[place].entries.push_back(TailEntry {
                batch: batch.number,
                at: entry.at,
                length: entry.length,
            });
        }
        self.bytes += batch.weight_bytes();
        self.batches.push_back(batch.clone());
        self.evict();
    }

    /// The index has all batches up to and with this one.
    pub(crate) fn indexed(&mut self, batch: u64) {
        self.indexed = self.indexed.max(batch);
        self.evict();
    }

    fn evict(&mut self) {
        while self.bytes > self.bytes_max
            && let Some(batch) = self.batches.pop_front_if(|batch| batch.number <= self.indexed)
        {
            self.bytes -= batch.weight_bytes();
            let places = self.places_of(&batch);
            for entry in &batch.entries {
                let Some(place) = places[entry.log as usize] else {
                    continue;
                };
                let known = &mut self.logs[place];
                known.entries.pop_front();
                known.first = known.first.next();
                if known.entries.is_empty() {
                    known.entries = VecDeque::new();
                    self.places.remove(&batch.log_of(entry));
                    self.free.push(place);
                }
            }
        }
    }

    /// The places of a batch's logs, of those that are here.
    fn places_of(&self, batch: &Batch) -> Vec<Option<usize>> {
        let places = batch.logs.iter().map(|log| self.places.get(&log.log).copied());
        places.collect()
    }

    /// Begins with a log whose first entry here has this offset.
    fn begin(&mut self, log: &BatchLog, first: Offset) -> usize {
        let known = TailLog {
            head: log.head,
            first_available: log.first_available,
            first,
            entries: VecDeque::new(),
        };
        let place = match self.free.pop() {
            Some(place) => {
                self.logs[place] = known;
                place
            }
            None => {
                self.logs.push(known);
                self.logs.len() - 1
            }
        };
        self.places.insert(log.log, place);
        place
    }

    fn log(&self, log: &LogId) -> Option<&TailLog> {
        self.places.get(log).map(|place| &self.logs[*place])
    }

    /// The last batch that was published; 0 for none.
    pub(crate) fn last(&self) -> u64 {
        self.batches.back().map_or(0, |batch| batch.number)
    }

    /// The head of a log with recent entries.
    pub(crate) fn head(&self, log: &LogId) -> Option<Offset> {
        self.log(log).map(|known| known.head)
    }

    /// Entries after a cursor, copied into one chunk, so that a slow reader does not keep a batch in memory.
    pub(crate) fn read(
        &self,
        log: &LogId,
        after: Offset,
        bytes_max: usize,
        entries_max: u64,
        even_trimmed: bool,
    ) -> TailRead {
        let Some(known) = self.log(log) else {
            return TailRead::Older { head: None };
        };
        let head = known.head;
        if after > head {
            return TailRead::BeyondHead { head };
        }
        if !even_trimmed && after.next() < known.first_available {
            return TailRead::Trimmed {
                first: known.first_available,
            };
        }
        if after.next() < known.first {
            return TailRead::Older { head: Some(head) };
        }
        let skipped = usize::try_from(after.next().get() - known.first.get()).unwrap_or(usize::MAX);
        let entries = usize::try_from(entries_max).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let chosen: Vec<&TailEntry> = known
            .entries
            .iter()
            .skip(skipped)
            .take(entries)
            .take_while(|entry| {
                let before = bytes;
                bytes += entry.length as usize;
                before == 0 || bytes <= bytes_max
            })
            .collect();
        let total = chosen.iter().map(|entry| entry.length as usize).sum();
        let mut out = BytesMut::with_capacity(total);
        for entry in &chosen {
            out.extend_from_slice(self.record(entry));
        }
        let last = Offset::new(after.get() + chosen.len() as u64);
        let records = if chosen.is_empty() {
            Vec::new()
        } else {
            vec![out.freeze()]
        };
        TailRead::Entries { records, last, head }
    }

    fn record(&self, entry: &TailEntry) -> &[u8] {
        let oldest = self.batches.front().map_or(entry.batch, |batch| batch.number);
        let index = usize::try_from(entry.batch - oldest).unwrap_or(usize::MAX);
        let at = entry.at as usize;
        // An entry is here exactly as long as its batch.
        self.batches
            .get(index)
            .and_then(|batch| batch.records.get(at..at + entry.length as usize))
            .unwrap_or_default()
    }
}
