//! The canonical log of one channel: each entry once, as the first reader was shown it.

use super::Delivered;
use crate::EntryKind;
use skytale_proto::{FrameId, Offset};
use std::collections::{BTreeMap, HashMap};

/// Entries of one chunk. Chunks keep a log from being copied as it grows, and a far offset from filling memory.
const CHUNK: u64 = 256;

/// Bytes kept of an entry's hash. 112 bits: two entries that differ look alike once in 2^112 comparisons.
const DIGEST: usize = 14;

/// An entry in 48 bytes.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) frame: FrameId,
    pub(super) parent: Offset,
    /// The author's number in its channel.
    pub(super) author: u32,
    /// The place among the author's sent frames, from 1; 0 if the author did not record that it sent this.
    pub(super) sequence: u32,
    digest: [u8; DIGEST],
    pub(super) kind: EntryKind,
    marks: u8,
}

/// Facts about a slot's entry, as bits.
#[derive(Clone, Copy)]
pub(super) enum Mark {
    /// It was acknowledged here.
    Acknowledged = 1,
    /// Its frame is at another offset, too.
    Repeated = 2,
    /// A fork was named here.
    Forked = 4,
    /// `Invented` was named.
    Invented = 8,
    /// `Order` was named.
    Misplaced = 16,
    /// `Epoch` was named.
    Stale = 32,
}

impl Slot {
    pub(super) fn new(entry: &Delivered, author: u32) -> Self {
        Self {
            frame: entry.frame,
            parent: entry.parent,
            author,
            sequence: 0,
            digest: digest(entry),
            kind: entry.kind,
            marks: 0,
        }
    }

    /// Whether another reader was shown the same. Their authors are compared by the caller, who has the numbers.
    pub(super) fn matches(&self, entry: &Delivered) -> bool {
        self.frame == entry.frame
            && self.digest == digest(entry)
            && self.parent == entry.parent
            && self.kind == entry.kind
    }

    pub(super) const fn has(&self, mark: Mark) -> bool {
        self.marks & mark as u8 != 0
    }

    /// Sets a mark; whether it was not set before.
    pub(super) const fn mark(&mut self, mark: Mark) -> bool {
        let is_new = !self.has(mark);
        self.marks |= mark as u8;
        is_new
    }
}

fn digest(entry: &Delivered) -> [u8; DIGEST] {
    let mut digest = [0; DIGEST];
    digest.copy_from_slice(&entry.hash[..DIGEST]);
    digest
}

/// The entries, by offset and by frame.
#[derive(Default)]
pub(super) struct Log {
    chunks: BTreeMap<u64, Vec<Option<Slot>>>,
    /// First place of each frame.
    places: HashMap<FrameId, Offset>,
    entries: u64,
}

const fn split(offset: Offset) -> (u64, usize) {
    (offset.get() / CHUNK, (offset.get() % CHUNK) as usize)
}

impl Log {
    pub(super) const fn entries(&self) -> u64 {
        self.entries
    }

    pub(super) fn get(&self, offset: Offset) -> Option<&Slot> {
        let (chunk, index) = split(offset);
        self.chunks.get(&chunk)?.get(index)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, offset: Offset) -> Option<&mut Slot> {
        let (chunk, index) = split(offset);
        self.chunks.get_mut(&chunk)?.get_mut(index)?.as_mut()
    }

    /// Returns the place of a frame: the first of its offsets that was shown.
    pub(super) fn place(&self, frame: &FrameId) -> Option<Offset> {
        self.places.get(frame).copied()
    }

    /// Puts an entry at an offset that has none.
    pub(super) fn insert(&mut self, offset: Offset, slot: Slot) {
        let (chunk, index) = split(offset);
        let chunk = self.chunks.entry(chunk).or_default();
        if chunk.len() <= index {
            if chunk.capacity() <= index {
                let capacity = (index + 1).next_power_of_two().clamp(8, CHUNK as usize);
                chunk.reserve_exact(capacity - chunk.len());
            }
            chunk.resize(index + 1, None);
        }
        chunk[index] = Some(slot);
        self.places.entry(slot.frame).or_insert(offset);
        self.entries += 1;
    }

    /// The entries from `from` to `to`, both included, by offset.
    pub(super) fn range(&self, from: Offset, to: Offset) -> impl Iterator<Item = (Offset, &Slot)> {
        self.chunks
            .range(split(from).0..=split(to).0)
            .flat_map(|(chunk, slots)| (chunk * CHUNK..).map(Offset::new).zip(slots))
            .filter(move |(offset, _)| (from..=to).contains(offset))
            .filter_map(|(offset, slot)| Some((offset, slot.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_takes_48_bytes_and_its_place_24() {
        assert_eq!(size_of::<Option<Slot>>(), 48);
        assert_eq!(size_of::<(FrameId, Offset)>(), 24);
    }
}
