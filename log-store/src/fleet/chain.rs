//! The hash of all that was folded of a shard: two nodes with the same hash at the same sequence have seen the same.

use super::shards::ShardId;
use crate::local::ShardPosition;

/// A message of a shard's stream, as it goes into the chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link<'a> {
    pub(super) sequence: u64,
    /// The stream's own time of the message, unix milliseconds.
    pub(super) published_ms: u64,
    pub(super) subject: &'a str,
    pub(super) payload: &'a [u8],
}

/// The hash of one message, wherever it is.
pub(super) fn message_hash(subject: &str, payload: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"skytale fleet message 1");
    hasher.update(&(subject.len() as u64).to_le_bytes());
    hasher.update(subject.as_bytes());
    hasher.update(payload);
    *hasher.finalize().as_bytes()
}

/// Moves a position on by the next message: its sequence, its time (which never goes back) and the hashes.
pub(super) fn advance(position: &mut ShardPosition, link: Link<'_>) {
    position.time_ms = position.time_ms.max(link.published_ms);
    position.message = message_hash(link.subject, link.payload);
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"skytale fleet chain 1");
    hasher.update(&position.chain);
    hasher.update(&link.sequence.to_le_bytes());
    hasher.update(&position.time_ms.to_le_bytes());
    hasher.update(&position.message);
    position.chain = *hasher.finalize().as_bytes();
    position.sequence = link.sequence;
}

/// The position before a shard's first message.
pub(super) fn beginning(shard: ShardId, stream: u64) -> ShardPosition {
    ShardPosition {
        shard: shard.number(),
        stream,
        owed_from: 1,
        ..ShardPosition::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skytale_proto::Region;

    #[test]
    fn the_chain_tells_bytes_subjects_places_and_times_apart() {
        let shard = ShardId {
            region: Region(0),
            index: 0,
        };
        let chain = |links: &[(u64, u64, &str, &[u8])]| {
            let mut position = beginning(shard, 1);
            for (sequence, published_ms, subject, payload) in links {
                let link = Link {
                    sequence: *sequence,
                    published_ms: *published_ms,
                    subject,
                    payload,
                };
                advance(&mut position, link);
            }
            position
        };
        let one = chain(&[(1, 5, "a", b"x"), (2, 6, "a", b"y")]);
        assert_eq!(one, chain(&[(1, 5, "a", b"x"), (2, 6, "a", b"y")]));
        for other in [
            chain(&[(1, 5, "a", b"x"), (2, 6, "a", b"z")]),
            chain(&[(1, 5, "a", b"y"), (2, 6, "a", b"y")]),
            chain(&[(1, 5, "b", b"x"), (2, 6, "a", b"y")]),
            chain(&[(1, 5, "a", b"x"), (3, 6, "a", b"y")]),
            chain(&[(1, 5, "a", b"x"), (2, 7, "a", b"y")]),
            chain(&[(1, 5, "a", b"x"), (2, 6, "ay", b"")]),
        ] {
            assert_ne!(one.chain, other.chain);
        }
        assert_eq!(
            chain(&[(1, 5, "a", b"x"), (2, 3, "a", b"y")]).time_ms,
            5,
            "time never goes back"
        );
    }
}
