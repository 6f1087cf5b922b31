//! State of a shard's logs at one sequence: the start of a node without a replica.
//!
//! ```text
//!  "skytaleC" | version u32 | shard u32 | stream u64 | sequence u64 | time_ms u64 | chain 32 | message 32
//!  | repeated after u64 | repeated u32 | repeated x u64 | logs u32 | logs x (log id, length u32, snapshot)
//!  | BLAKE3 of all before
//! ```
//!
//! Numbers are little-endian; a log id begins with its kind, which says its length. `repeated` are the messages after
//! `repeated after`, the place of the checkpoint before, that were duplicates of entries: a node that begins with an
//! earlier checkpoint does not have the frame ids of earlier entries, and learns from this which messages change
//! nothing. So the bytes follow from the messages alone, and are the same on all nodes: `vouch.rs` rests on it.
//! Persisted: keep stable.

use crate::local::ShardPosition;
use crate::local::replica::Snapshot;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use skytale_proto::LogId;

const MAGIC: &[u8; 8] = b"skytaleC";
const VERSION: u32 = 1;
const HASH_BYTES: usize = 32;
const FIXED_BYTES: usize = 8 + 4 + 4 + 8 * 3 + 64 + 8 + 4;

/// A checkpoint.
#[derive(Clone, Debug)]
pub(super) struct Checkpoint {
    /// Position of the shard; with the repeated messages before that.
    pub(super) position: ShardPosition,
    /// Its logs, in the order of their ids.
    pub(super) logs: Vec<Snapshot>,
}

impl Checkpoint {
    pub(super) fn encode(&self) -> Bytes {
        let position = &self.position;
        let mut out = BytesMut::with_capacity(FIXED_BYTES + position.repeated.len() * 8 + self.logs.len() * 256);
        out.put_slice(MAGIC);
        out.put_u32_le(VERSION);
        out.put_u32_le(position.shard);
        for number in [position.stream, position.sequence, position.time_ms] {
            out.put_u64_le(number);
        }
        out.put_slice(&position.chain);
        out.put_slice(&position.message);
        out.put_u64_le(position.repeated_after);
        out.put_u32_le(count(position.repeated.len()));
        for sequence in &position.repeated {
            out.put_u64_le(*sequence);
        }
        out.put_u32_le(count(self.logs.len()));
        for log in &self.logs {
            let snapshot = log.encode();
            out.put_slice(&log.log().to_bytes());
            out.put_u32_le(count(snapshot.len()));
            out.put_slice(&snapshot);
        }
        let hash = blake3::hash(&out);
        out.put_slice(hash.as_bytes());
        out.freeze()
    }

    /// Decodes the bytes of [`Checkpoint::encode`]; an error names the problem of any other bytes.
    pub(super) fn decode(bytes: &Bytes) -> Result<Self, &'static str> {
        let end = bytes.len().checked_sub(HASH_BYTES).ok_or("cut short")?;
        let mut rest = bytes.slice(..end);
        if blake3::hash(&rest).as_bytes() != &bytes[end..] {
            return Err("the checksum does not fit");
        }
        if rest.len() < FIXED_BYTES || rest.split_to(8).as_ref() != MAGIC {
            return Err("not a checkpoint");
        }
        if rest.get_u32_le() != VERSION {
            return Err("of a version that this program does not read");
        }
        let mut position = ShardPosition {
            shard: rest.get_u32_le(),
            stream: rest.get_u64_le(),
            sequence: rest.get_u64_le(),
            time_ms: rest.get_u64_le(),
            ..ShardPosition::default()
        };
        rest.copy_to_slice(&mut position.chain);
        rest.copy_to_slice(&mut position.message);
        position.repeated_after = rest.get_u64_le();
        position.owed_from = position.sequence + 1;
        let repeated = rest.get_u32_le() as usize;
        if rest.len() / 8 < repeated {
            return Err("cut short");
        }
        position.repeated = (0..repeated).map(|_| rest.get_u64_le()).collect();
        let logs = rest.try_get_u32_le().map_err(|_| "cut short")?;
        let mut found = Vec::new();
        for _ in 0..logs {
            let length = match rest.first() {
                Some(1) => 17,
                Some(2) => 33,
                _ => return Err("a log without an id"),
            };
            if rest.len() < length + 4 {
                return Err("cut short");
            }
            let log = LogId::try_from(rest.split_to(length).as_ref()).map_err(|_| "a log without an id")?;
            let length = rest.get_u32_le() as usize;
            if rest.len() < length {
                return Err("cut short");
            }
            let snapshot = Snapshot::decode(log, rest.split_to(length));
            found.push(snapshot.map_err(|_| "a log's state cannot be read")?);
        }
        if !rest.is_empty() {
            return Err("longer than it says");
        }
        Ok(Self { position, logs: found })
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogState;
    use proptest::prelude::*;
    use skytale_proto::{AgentId, ChannelId};

    fn checkpoint(repeated: Vec<u64>, logs: &[LogId]) -> Checkpoint {
        let snapshot = |log: &LogId| {
            let mut bytes = BytesMut::from([7; 16].as_slice());
            bytes.put_slice(&LogState::new(*log).encode());
            Snapshot::decode(*log, bytes.freeze()).expect("a snapshot")
        };
        Checkpoint {
            position: ShardPosition {
                shard: 3,
                stream: 5,
                sequence: 40,
                time_ms: 7,
                chain: [8; 32],
                message: [9; 32],
                owed_from: 41,
                repeated_after: 20,
                repeated,
            },
            logs: logs.iter().map(snapshot).collect(),
        }
    }

    proptest! {
        #[test]
        fn a_checkpoint_comes_back_as_it_was_and_no_flipped_bit_passes(
            repeated in proptest::collection::vec(any::<u64>(), 0..5),
            channels in proptest::collection::vec(any::<[u8; 16]>(), 0..4),
            bit in any::<prop::sample::Index>(),
        ) {
            let mut logs: Vec<LogId> = channels.into_iter().map(|id| ChannelId::from_bytes(id).log()).collect();
            logs.push(AgentId::from_bytes([4; 32]).log());
            let written = checkpoint(repeated, &logs);
            let bytes = written.encode();
            let read = Checkpoint::decode(&bytes).map_err(TestCaseError::fail)?;
            prop_assert_eq!(&read.position, &written.position);
            prop_assert_eq!(read.encode(), bytes.clone());
            let mut flipped = bytes.to_vec();
            let bit = bit.index(flipped.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Checkpoint::decode(&flipped.into()).is_err());
        }

        #[test]
        fn any_bytes_are_a_checkpoint_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            // With a checksum that fits, so that the checks behind it are reached.
            let hash = blake3::hash(&bytes);
            let whole: Vec<u8> = bytes.iter().chain(hash.as_bytes()).copied().collect();
            let _ = Checkpoint::decode(&bytes.into());
            let _ = Checkpoint::decode(&whole.into());
        }
    }
}
