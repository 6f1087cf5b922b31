//! Encoding of the index's rows. Derived data: another version may encode them otherwise, and say so by
//! [`INDEX_VERSION`]; then the index is built again.
//!
//! ```text
//!  runs       log | first offset u64 BE   ->  segment u32 | entries x (at u32, length u32)
//!  frames     log | lower bound           ->  see `ids.rs`
//!  states     log                         ->  newest frame id | state
//!  snapshots  log                         ->  segment u32
//!  damage     log                         ->  offset u64 | segment u32 | at u32 | place
//!  orphans    log                         ->  segment u32 | at u32
//!  meta       "standing"                  ->  version u32 | store id | segment u32 | at u32 | batch u64 | mark at u32 | time_ms u64
//! ```

use super::super::batch::Batch;
use super::super::folder::StoreId;
use super::super::segment::Position;
use super::{Damage, Seen};
use bytes::Bytes;
use skytale_proto::{FrameId, LogId, Offset};
use std::collections::HashMap;

/// The version of the rows.
const INDEX_VERSION: u32 = 2;
/// Entries in one run, at most.
pub(crate) const RUN_ENTRIES_MAX: usize = 512;

/// Position up to which the index is current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The end of the last batch that the index has.
    pub(crate) position: Position,
    /// Number of that batch.
    pub(crate) batch: u64,
    /// Position of its mark, in the same segment.
    pub(crate) mark_at: u32,
    /// The time in its mark.
    pub(crate) time_ms: u64,
}

impl Standing {
    pub(super) fn encode(&self, store: &StoreId) -> Vec<u8> {
        let mut out = Vec::with_capacity(48);
        out.extend_from_slice(&INDEX_VERSION.to_le_bytes());
        out.extend_from_slice(&store.0);
        out.extend_from_slice(&encode_position(self.position));
        out.extend_from_slice(&self.batch.to_le_bytes());
        out.extend_from_slice(&self.mark_at.to_le_bytes());
        out.extend_from_slice(&self.time_ms.to_le_bytes());
        out
    }

    pub(super) fn decode(row: &[u8], store: &StoreId) -> Option<Self> {
        let (version, rest) = row.split_first_chunk()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (position, rest) = rest.split_first_chunk::<8>()?;
        let (batch, rest) = rest.split_first_chunk()?;
        let (mark_at, rest) = rest.split_first_chunk()?;
        let time_ms = rest.try_into().ok()?;
        (u32::from_le_bytes(*version) == INDEX_VERSION && *id == store.0).then_some(Self {
            position: decode_position(position)?,
            batch: u64::from_le_bytes(*batch),
            mark_at: u32::from_le_bytes(*mark_at),
            time_ms: u64::from_le_bytes(time_ms),
        })
    }
}

/// Position of an entry's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) offset: Offset,
    pub(crate) position: Position,
    /// The record's length, in bytes.
    pub(crate) length: u32,
}

/// Consecutive entries of one log in one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) log: LogId,
    pub(crate) first: Offset,
    pub(crate) segment: u32,
    /// Place and length of each.
    pub(crate) entries: Vec<(u32, u32)>,
}

impl Run {
    /// The last entry's offset; the one before `first` for an empty run, which is never kept.
    pub(crate) fn last(&self) -> Offset {
        Offset::new((self.first.get() + self.entries.len() as u64).saturating_sub(1))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.entries.len() * 8);
        out.extend_from_slice(&self.segment.to_le_bytes());
        for (at, length) in &self.entries {
            out.extend_from_slice(&at.to_le_bytes());
            out.extend_from_slice(&length.to_le_bytes());
        }
        out
    }

    pub(super) fn decode(log: &LogId, key: &[u8], row: &[u8]) -> Option<Self> {
        let first = key.strip_prefix(log.to_bytes().as_slice())?.try_into().ok()?;
        let (segment, rest) = row.split_first_chunk()?;
        let (pairs, _) = rest.as_chunks::<8>();
        Some(Self {
            log: *log,
            first: Offset::new(u64::from_be_bytes(first)),
            segment: u32::from_le_bytes(*segment),
            entries: pairs
                .iter()
                .map(|pair| {
                    let pair = u64::from_le_bytes(*pair);
                    (pair as u32, (pair >> 32) as u32)
                })
                .collect(),
        })
    }

    pub(super) fn entries_from(&self, next: Offset) -> impl Iterator<Item = Located> + '_ {
        let skipped = usize::try_from(next.get().saturating_sub(self.first.get())).unwrap_or(usize::MAX);
        let entries = self.entries.iter().enumerate().skip(skipped);
        entries.map(|(index, (at, length))| Located {
            offset: Offset::new(self.first.get() + index as u64),
            position: Position {
                segment: self.segment,
                at: *at,
            },
            length: *length,
        })
    }
}

/// Rows that are put into the index at once.
#[derive(Default)]
pub(crate) struct Round {
    pub(super) logs: Vec<RoundLog>,
    /// The place of each in `logs`.
    places: HashMap<LogId, usize>,
    pub(super) states: HashMap<LogId, Bytes>,
    pub(super) snapshots: HashMap<LogId, u32>,
    pub(super) standing: Option<Standing>,
    entries: usize,
    bytes: usize,
}

/// A log's entries in a round.
pub(super) struct RoundLog {
    pub(super) log: LogId,
    pub(super) runs: Vec<Run>,
    pub(super) ids: Vec<Seen>,
}

impl RoundLog {
    fn entry(&mut self, located: Located, id: FrameId, time_ms: u64) {
        let goes_on = self.runs.last().is_some_and(|run| {
            run.segment == located.position.segment
                && run.last().next() == located.offset
                && run.entries.len() < RUN_ENTRIES_MAX
        });
        if !goes_on {
            self.runs.push(Run {
                log: self.log,
                first: located.offset,
                segment: located.position.segment,
                entries: Vec::new(),
            });
        }
        if let Some(run) = self.runs.last_mut() {
            run.entries.push((located.position.at, located.length));
        }
        self.ids.push(Seen {
            id,
            offset: located.offset,
            time_ms,
        });
    }
}

impl Round {
    /// Adds an entry. The entries of one log come in their order.
    pub(crate) fn entry(&mut self, log: LogId, located: Located, id: FrameId, time_ms: u64) {
        let place = self.place(log);
        self.logs[place].entry(located, id, time_ms);
        self.entries += 1;
    }

    /// Adds all that a batch says.
    pub(crate) fn batch(&mut self, batch: &Batch) {
        let places: Vec<usize> = batch.logs.iter().map(|log| self.place(log.log)).collect();
        for entry in &batch.entries {
            let located = Located {
                offset: entry.offset,
                position: Position {
                    segment: batch.segment,
                    at: batch.start + entry.at,
                },
                length: entry.length,
            };
            self.logs[places[entry.log as usize]].entry(located, entry.id, entry.time_ms);
        }
        self.entries += batch.entries.len();
        for (log, state) in &batch.saved {
            self.state(*log, state.clone());
        }
        for (log, _) in &batch.states {
            self.snapshot(batch.logs[*log as usize].log, batch.segment);
        }
        self.bytes += batch.weight_bytes();
        self.stand(Standing {
            position: batch.end(),
            batch: batch.number,
            mark_at: batch.mark_at,
            time_ms: batch.time_ms,
        });
    }

    fn place(&mut self, log: LogId) -> usize {
        *self.places.entry(log).or_insert_with(|| {
            self.logs.push(RoundLog {
                log,
                runs: Vec::new(),
                ids: Vec::new(),
            });
            self.logs.len() - 1
        })
    }

    /// Adds the state of a log.
    pub(crate) fn state(&mut self, log: LogId, state: Bytes) {
        self.states.insert(log, state);
    }

    /// Adds where the last state record of a log is.
    pub(crate) fn snapshot(&mut self, log: LogId, segment: u32) {
        self.snapshots.insert(log, segment);
    }

    pub(crate) fn stand(&mut self, standing: Standing) {
        self.standing = Some(standing);
    }

    /// Entries in it.
    pub(crate) const fn len(&self) -> usize {
        self.entries
    }

    /// Memory of the batches in it, about.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Neighbours in the index are written one after another.
    pub(super) fn sort(&mut self) {
        self.logs.sort_unstable_by_key(|log| log.log);
        self.places.clear();
    }
}

pub(super) fn run_key(log: &LogId, first: Offset) -> Vec<u8> {
    let mut key = log.to_bytes();
    key.extend_from_slice(&first.get().to_be_bytes());
    key
}

/// A key past all runs of a log, and before those of the next.
pub(super) fn after_runs(log: &LogId) -> Vec<u8> {
    let mut key = log.to_bytes();
    key.extend_from_slice(&[0xff; 9]);
    key
}

pub(super) fn encode_position(position: Position) -> [u8; 8] {
    let mut out = [0; 8];
    out[..4].copy_from_slice(&position.segment.to_le_bytes());
    out[4..].copy_from_slice(&position.at.to_le_bytes());
    out
}

pub(super) fn decode_position(row: &[u8]) -> Option<Position> {
    let (segment, at) = row.split_first_chunk()?;
    Some(Position {
        segment: u32::from_le_bytes(*segment),
        at: u32::from_le_bytes(at.try_into().ok()?),
    })
}

pub(super) fn encode_damage(damage: &Damage) -> Vec<u8> {
    let mut out = damage.offset.get().to_le_bytes().to_vec();
    out.extend_from_slice(&encode_position(damage.position));
    out.extend_from_slice(damage.place.as_bytes());
    out
}

pub(super) fn decode_damage(row: &[u8]) -> Option<Damage> {
    let (offset, rest) = row.split_first_chunk()?;
    let (position, place) = rest.split_first_chunk::<8>()?;
    Some(Damage {
        offset: Offset::new(u64::from_le_bytes(*offset)),
        position: decode_position(position)?,
        place: String::from_utf8_lossy(place).into_owned(),
    })
}
