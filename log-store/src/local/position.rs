//! Positions of a replica in each of the streams that it follows.
//!
//! A replica's batches give them in their marks: after a crash the segments alone tell where each shard is, and
//! following goes on from there. A batch gives the positions that changed; the first batch of a segment gives all of
//! them, and so does the footer: a start reads the last segment, or one footer.
//!
//! ```text
//!  shard u32 | stream u64 | sequence u64 | time_ms u64 | chain 32 | message 32 | owed_from u64
//!  | repeated_after u64 | repeated u32 | repeated x u64
//! ```
//!
//! Numbers are little-endian. Persisted: keep stable.

use super::segment::{take, take_u32, take_u64};
use bytes::{BufMut as _, BytesMut};
use std::collections::BTreeMap;

/// Bytes of a position without repeated sequences.
const POSITION_BYTES: usize = 4 + 8 * 5 + 64 + 4;

/// Progress of a replica in one shard.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ShardPosition {
    /// The shard, by a number of the fleet's.
    pub shard: u32,
    /// Id of the stream: its time of creation, unix nanoseconds.
    pub stream: u64,
    /// The last message folded; 0 for none.
    pub sequence: u64,
    /// The shard's time at that message, unix milliseconds. Never goes back.
    pub time_ms: u64,
    /// The hash of all messages up to that one.
    pub chain: [u8; 32],
    /// The hash of that message alone.
    pub message: [u8; 32],
    /// The first message that may have caused Welcomes which have not been seen in their logs; past `sequence` for none.
    pub owed_from: u64,
    /// The sequence after which `repeated` begins.
    pub repeated_after: u64,
    /// Messages that were found to be duplicates of entries, ascending.
    pub repeated: Vec<u64>,
}

impl ShardPosition {
    /// Takes in a later position of the same shard, whose repeated sequences are those that are new.
    pub(crate) fn advance(&mut self, later: Self) {
        let mut repeated = std::mem::take(&mut self.repeated);
        let after = later.repeated_after;
        if after > self.repeated_after {
            repeated.retain(|sequence| *sequence > after);
        }
        repeated.extend(later.repeated.iter().filter(|sequence| **sequence > after));
        *self = Self { repeated, ..later };
    }

    fn encode(&self, out: &mut BytesMut) {
        out.reserve(POSITION_BYTES + self.repeated.len() * 8);
        out.put_u32_le(self.shard);
        for number in [self.stream, self.sequence, self.time_ms] {
            out.put_u64_le(number);
        }
        out.put_slice(&self.chain);
        out.put_slice(&self.message);
        out.put_u64_le(self.owed_from);
        out.put_u64_le(self.repeated_after);
        out.put_u32_le(u32::try_from(self.repeated.len()).unwrap_or(u32::MAX));
        for sequence in &self.repeated {
            out.put_u64_le(*sequence);
        }
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let mut position = Self {
            shard: take_u32(bytes)?,
            stream: take_u64(bytes)?,
            sequence: take_u64(bytes)?,
            time_ms: take_u64(bytes)?,
            chain: take(bytes, 32)?.try_into().ok()?,
            message: take(bytes, 32)?.try_into().ok()?,
            owed_from: take_u64(bytes)?,
            repeated_after: take_u64(bytes)?,
            repeated: Vec::new(),
        };
        let count = take_u32(bytes)? as usize;
        if bytes.len() / 8 < count {
            return None;
        }
        position.repeated = (0..count).map(|_| take_u64(bytes)).collect::<Option<Vec<_>>>()?;
        Some(position)
    }
}

/// Positions in a batch's mark.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct MarkPositions {
    /// These are the positions of all shards, as they are after the batch; else what the batch changed.
    pub(crate) complete: bool,
    pub(crate) shards: Vec<ShardPosition>,
}

impl MarkPositions {
    /// Appends them to a mark's payload. Nothing, where there is nothing to say: so is a mark of a store that
    /// follows nobody.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        if self.shards.is_empty() {
            return;
        }
        out.put_u8(u8::from(self.complete));
        out.put_u32_le(u32::try_from(self.shards.len()).unwrap_or(u32::MAX));
        for position in &self.shards {
            position.encode(out);
        }
    }

    /// Reads the bytes after a mark's records, to the end.
    pub(crate) fn decode(bytes: &mut &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let complete = match take(bytes, 1)? {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        let count = take_u32(bytes)? as usize;
        if bytes.len() / POSITION_BYTES < count {
            return None;
        }
        let shards = (0..count)
            .map(|_| ShardPosition::decode(bytes))
            .collect::<Option<Vec<_>>>()?;
        Some(Self { complete, shards })
    }
}

/// The positions of all shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Positions(BTreeMap<u32, ShardPosition>);

impl Positions {
    /// Takes in what a batch says.
    pub(crate) fn take(&mut self, marked: MarkPositions) {
        if marked.complete {
            self.0.clear();
        }
        for position in marked.shards {
            match self.0.get_mut(&position.shard) {
                Some(known) => known.advance(position),
                None => {
                    self.0.insert(position.shard, position);
                }
            }
        }
    }

    /// All of them, as the first mark of a segment gives them, and the footer.
    pub(crate) fn complete(&self) -> MarkPositions {
        MarkPositions {
            complete: true,
            shards: self.to_vec(),
        }
    }

    pub(crate) fn to_vec(&self) -> Vec<ShardPosition> {
        self.0.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn position() -> impl Strategy<Value = ShardPosition> {
        (
            any::<[u32; 1]>(),
            any::<[u64; 5]>(),
            any::<[[u8; 32]; 2]>(),
            proptest::collection::vec(any::<u64>(), 0..5),
        )
            .prop_map(|([shard], numbers, [chain, message], repeated)| ShardPosition {
                shard,
                stream: numbers[0],
                sequence: numbers[1],
                time_ms: numbers[2],
                chain,
                message,
                owed_from: numbers[3],
                repeated_after: numbers[4],
                repeated,
            })
    }

    proptest! {
        #[test]
        fn positions_come_back_as_they_were(complete: bool, shards in proptest::collection::vec(position(), 1..6)) {
            let marked = MarkPositions { complete, shards };
            let mut out = BytesMut::new();
            marked.encode(&mut out);
            let mut rest: &[u8] = &out;
            prop_assert_eq!(MarkPositions::decode(&mut rest), Some(marked));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_bytes_are_positions_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = MarkPositions::decode(&mut bytes.as_slice());
        }
    }

    #[test]
    fn repeated_sequences_gather_until_the_next_interval_begins() {
        let mut positions = Positions::default();
        let at = |sequence, repeated_after, repeated: &[u64]| MarkPositions {
            complete: false,
            shards: vec![ShardPosition {
                shard: 7,
                sequence,
                repeated_after,
                repeated: repeated.to_vec(),
                ..ShardPosition::default()
            }],
        };
        positions.take(at(8, 0, &[3, 5]));
        positions.take(at(9, 0, &[9]));
        assert_eq!(positions.to_vec()[0].repeated, [3, 5, 9]);
        positions.take(at(12, 10, &[10, 11]));
        assert_eq!(positions.to_vec()[0].repeated, [11]);
        assert_eq!(positions.to_vec()[0].sequence, 12);
    }
}
