//! Frame ids that logs have accepted: blocks of neighbours, not a row each.
//!
//! ```text
//!  log | lower bound  ->  (id 16 | offset u64 | time_ms u64) x 1..=128, ascending by id
//! ```
//!
//! The ids of a block are not below its bound, and below the next block's; so one row holds an id or none does. Frame
//! ids sort by the time they were made, so a round's ids of a log nearly always follow all those before: they become one
//! new row, and no row is read or written twice. One that comes late goes into the block that it belongs to, which is
//! split when it grows too long: what any order of ids costs is bounded.

use lru::LruCache;
use parking_lot::Mutex;
use skytale_proto::{FrameId, LogId, Offset};
use std::num::NonZeroUsize;

/// Ids in a block, at most.
const BLOCK_IDS_MAX: usize = 128;
/// Logs of which the greatest id is remembered.
const NEWEST_LOGS: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();
const ID_BYTES: usize = 16;
const SEEN_BYTES: usize = ID_BYTES + 16;

/// An accepted frame id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) id: FrameId,
    pub(crate) offset: Offset,
    pub(crate) time_ms: u64,
}

/// The accepted frame ids of all logs.
pub(super) struct FrameIds {
    blocks: sled::Tree,
    /// No id of the log is greater. Of logs that changed lately; the lock is for changes of blocks. Readers need not wait: at
    /// every step of a change each id is where they look for it.
    change: Mutex<LruCache<LogId, FrameId>>,
}

/// A block, as it is in its row.
struct Block {
    key: sled::IVec,
    value: sled::IVec,
}

impl FrameIds {
    pub(super) fn new(blocks: sled::Tree) -> Self {
        Self {
            blocks,
            change: Mutex::new(LruCache::new(NEWEST_LOGS)),
        }
    }

    /// Returns the place at which a log accepted a frame id.
    pub(super) fn get(&self, log: &LogId, id: &FrameId) -> Result<Option<Seen>, sled::Error> {
        let block = self.covering(log, id)?;
        Ok(block.and_then(|block| block.find(id)))
    }

    /// Adds ids of a log, in any order. Of an id that is there already, or twice among them, the last offset is kept.
    pub(super) fn insert(&self, log: &LogId, ids: &mut Vec<Seen>) -> Result<(), sled::Error> {
        ids.sort_unstable();
        keep_last(ids);
        let (Some(least), Some(greatest)) = (ids.first().map(|seen| seen.id), ids.last().map(|seen| seen.id)) else {
            return Ok(());
        };
        let mut change = self.change.lock();
        if let Some(newest) = change.get_mut(log).filter(|newest| least > **newest) {
            // After all that is there: nothing needs to be read. If the write fails half way, too great an id is safe.
            *newest = greatest;
            return self.write(log, None, ids);
        }
        let mut rest = ids.as_slice();
        while let Some(first) = rest.first() {
            let next = self.next_bound(log, &first.id)?;
            let below = |seen: &Seen| next.as_ref().is_none_or(|next| seen.id < *next);
            let (here, later) = rest.split_at(rest.partition_point(below));
            let covering = self.covering(log, &first.id)?;
            if next.is_none() {
                // The log's last block.
                let last = covering.as_ref().and_then(Block::last);
                change.put(*log, last.map_or(greatest, |last| last.max(greatest)));
            }
            match covering {
                Some(block) if block.last().is_some_and(|last| first.id <= last) => {
                    let mut merged: Vec<Seen> = block.seen().filter(below).chain(here.iter().copied()).collect();
                    merged.sort_unstable();
                    keep_last(&mut merged);
                    self.write(log, Some(block.key), &merged)?;
                }
                _ => self.write(log, None, here)?,
            }
            rest = later;
        }
        Ok(())
    }

    /// Forgets ids of a log, in any order, except where the log has accepted one again at another offset.
    pub(super) fn remove(&self, log: &LogId, ids: &mut [Seen]) -> Result<(), sled::Error> {
        ids.sort_unstable();
        let _change = self.change.lock();
        let mut rest = &*ids;
        while let Some(first) = rest.first() {
            let next = self.next_bound(log, &first.id)?;
            let below = |seen: &Seen| next.as_ref().is_none_or(|next| seen.id < *next);
            let (here, later) = rest.split_at(rest.partition_point(below));
            if let Some(block) = self.covering(log, &first.id)? {
                let kept = block.seen().filter(|seen| here.binary_search(seen).is_err());
                let kept = encode(kept.collect::<Vec<_>>().iter());
                if kept.is_empty() {
                    self.blocks.remove(&block.key)?;
                } else if kept.len() < block.value.len() {
                    self.blocks.insert(&block.key, kept)?;
                }
            }
            rest = later;
        }
        Ok(())
    }

    /// Writes ids as blocks; the first under `key`, where there is one. The later blocks go first, so that no reader
    /// misses what moves from one to the other.
    fn write(&self, log: &LogId, key: Option<sled::IVec>, ids: &[Seen]) -> Result<(), sled::Error> {
        // Halves, where a full block is split: both have room again.
        let length = match (&key, ids.len()) {
            (Some(_), length) if length > BLOCK_IDS_MAX => length.div_ceil(length / BLOCK_IDS_MAX + 1),
            _ => BLOCK_IDS_MAX,
        };
        for (number, block) in ids.chunks(length).enumerate().rev() {
            match (&key, block.first()) {
                (Some(key), _) if number == 0 => self.blocks.insert(key, encode(block.iter()))?,
                (_, Some(first)) => self.blocks.insert(block_key(log, &first.id), encode(block.iter()))?,
                (_, None) => None,
            };
        }
        Ok(())
    }

    /// The block of a log that an id belongs to.
    fn covering(&self, log: &LogId, id: &FrameId) -> Result<Option<Block>, sled::Error> {
        let row = self.blocks.range(..=block_key(log, id)).next_back().transpose()?;
        // A log's id says by its first byte how long it is: no id begins with another.
        let of_log = row.filter(|(key, _)| key.starts_with(&log.to_bytes()));
        Ok(of_log.map(|(key, value)| Block { key, value }))
    }

    /// The lower bound of a log's next block after an id.
    fn next_bound(&self, log: &LogId, id: &FrameId) -> Result<Option<FrameId>, sled::Error> {
        let row = self.blocks.get_gt(block_key(log, id))?;
        Ok(row.and_then(|(key, _)| FrameId::try_from(key.strip_prefix(log.to_bytes().as_slice())?).ok()))
    }
}

impl Block {
    fn seen(&self) -> impl Iterator<Item = Seen> + '_ {
        self.value.as_chunks::<SEEN_BYTES>().0.iter().map(decode)
    }

    fn last(&self) -> Option<FrameId> {
        self.value
            .as_chunks::<SEEN_BYTES>()
            .0
            .last()
            .map(|seen| decode(seen).id)
    }

    fn find(&self, id: &FrameId) -> Option<Seen> {
        let (rows, _) = self.value.as_chunks::<SEEN_BYTES>();
        let at = rows.binary_search_by(|row| row[..ID_BYTES].cmp(id.as_bytes())).ok()?;
        rows.get(at).map(decode)
    }
}

/// Keeps of equal ids, which are neighbours, the one with the last offset.
fn keep_last(ids: &mut Vec<Seen>) {
    ids.dedup_by(|later, earlier| {
        let same = later.id == earlier.id;
        if same {
            *earlier = *later;
        }
        same
    });
}

fn block_key(log: &LogId, id: &FrameId) -> Vec<u8> {
    let mut key = log.to_bytes();
    key.extend_from_slice(id.as_bytes());
    key
}

fn encode<'a>(ids: impl ExactSizeIterator<Item = &'a Seen>) -> Vec<u8> {
    let mut out = Vec::with_capacity(ids.len() * SEEN_BYTES);
    for seen in ids {
        out.extend_from_slice(seen.id.as_bytes());
        out.extend_from_slice(&seen.offset.get().to_le_bytes());
        out.extend_from_slice(&seen.time_ms.to_le_bytes());
    }
    out
}

fn decode(row: &[u8; SEEN_BYTES]) -> Seen {
    let part = |from: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&row[from..from + 8]);
        u64::from_le_bytes(bytes)
    };
    let mut id = [0; ID_BYTES];
    id.copy_from_slice(&row[..ID_BYTES]);
    Seen {
        id: FrameId::from_bytes(id),
        offset: Offset::new(part(ID_BYTES)),
        time_ms: part(ID_BYTES + 8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use skytale_proto::{AgentId, ChannelId};
    use std::collections::BTreeMap;

    fn ids() -> FrameIds {
        let db = sled::Config::new().temporary(true).open().expect("a temporary tree");
        FrameIds::new(db.open_tree("frames").expect("a tree"))
    }

    fn seen(id: u16, offset: u64) -> Seen {
        let mut bytes = [0; ID_BYTES];
        bytes[..2].copy_from_slice(&id.to_be_bytes());
        Seen {
            id: FrameId::from_bytes(bytes),
            offset: Offset::new(offset),
            time_ms: offset * 10,
        }
    }

    /// A channel's log, and an agent's whose id begins with the channel's key and more.
    fn logs() -> [LogId; 3] {
        [
            ChannelId::from_bytes([0; 16]).log(),
            ChannelId::from_bytes([1; 16]).log(),
            AgentId::from_bytes([0; 32]).log(),
        ]
    }

    #[derive(Clone, Debug)]
    enum Change {
        Insert(usize, Vec<u16>),
        Remove(usize, Vec<u16>),
    }

    fn change() -> impl Strategy<Value = Change> {
        let some = || {
            prop_oneof![
                proptest::collection::vec(any::<u16>(), 1..300),
                proptest::collection::vec(0..400u16, 1..300),
                (any::<u16>(), 1..400u16).prop_map(|(from, many)| (from..from.saturating_add(many)).collect()),
            ]
        };
        prop_oneof![
            3 => (0..3usize, some()).prop_map(|(log, ids)| Change::Insert(log, ids)),
            1 => (0..3usize, some()).prop_map(|(log, ids)| Change::Remove(log, ids)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn whatever_the_order_an_id_is_found_where_it_was_put_last(changes in proptest::collection::vec(change(), 1..12)) {
            let (ids, logs) = (ids(), logs());
            let mut model = [BTreeMap::new(), BTreeMap::new(), BTreeMap::new()];
            let mut offset = 0;
            for change in changes {
                match change {
                    Change::Insert(log, new) => {
                        let mut new: Vec<Seen> = new.into_iter().map(|id| { offset += 1; seen(id, offset) }).collect();
                        for seen in &new {
                            model[log].insert(seen.id, *seen);
                        }
                        ids.insert(&logs[log], &mut new)?;
                    }
                    Change::Remove(log, old) => {
                        let known = |id: &u16| model[log].get(&seen(*id, 0).id).copied();
                        let mut old: Vec<Seen> = old.iter().map(|id| known(id).unwrap_or(seen(*id, 1))).collect();
                        // Every third has been accepted again since, at another offset.
                        old.iter_mut().step_by(3).for_each(|seen| seen.offset = seen.offset.next());
                        for seen in &old {
                            if model[log].get(&seen.id) == Some(seen) {
                                model[log].remove(&seen.id);
                            }
                        }
                        ids.remove(&logs[log], &mut old)?;
                    }
                }
            }
            for (log, model) in logs.iter().zip(&model) {
                for id in (0..=u16::MAX).step_by(7).chain(0..400).map(|id| seen(id, 0).id).chain(model.keys().copied()) {
                    prop_assert_eq!(ids.get(log, &id)?, model.get(&id).copied());
                }
            }
            for row in ids.blocks.iter() {
                let length = row?.1.len();
                prop_assert!(length % SEEN_BYTES == 0 && (1..=BLOCK_IDS_MAX).contains(&(length / SEEN_BYTES)));
            }
        }
    }

    #[test]
    fn ids_in_their_order_are_one_row_a_round_and_none_is_written_twice() -> Result<(), sled::Error> {
        let (ids, [log, ..]) = (ids(), logs());
        for round in 0..10 {
            let mut new: Vec<Seen> = (0..40)
                .map(|id| seen(round * 100 + id, u64::from(round * 40 + id)))
                .collect();
            ids.insert(&log, &mut new)?;
        }
        assert_eq!(ids.blocks.len(), 10);
        Ok(())
    }
}
