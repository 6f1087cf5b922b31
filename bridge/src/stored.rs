//! Entries that the bridge writes into raw logs, and the logs' ids.
//!
//! ```text
//!   slim channel (prefix) ── log "frames"    the channel's frames, in the order that all members see
//!                         └─ log "cursors"   how far each member has come
//!   all channels          ── log "exchange"  transient frames between bridges
//! ```
//!
//! A channel's log holds everything under one prefix: a group's data and control ids have one prefix, and frames to
//! both have one order. A log's id is a hash of the account and the prefix, so every bridge of the account finds it
//! without asking.

use crate::routing::LinkId;
use crate::wire::{FullName, Inbound, Prefix, Publish};
use bytes::Bytes;
use prost::Message as _;
use skytale_proto::ChannelId;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Messages as generated from `proto/skytale/slim/v1`.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/skytale.slim.v1.rs"));
}

/// Prefix of the bytes that are hashed to a log's id, before the log's own part. Persisted: keep stable.
const CONTEXT: &str = "skytale slim bridge v1 log ids";
/// Members of one channel whose cursors are kept. Those that have left give way to others; those that have not do not.
pub const MEMBERS_MAX: usize = 10_000;
/// All cursors of a channel, encoded: one entry of a log holds them.
pub const CURSORS_BYTES_MAX: usize = 768 * 1024;
/// Maximum bytes of an encoded cursor besides its ids.
const CURSOR_BYTES: usize = 80;
/// Ids under one prefix that are kept for a member.
pub const IDS_MAX: usize = 64;

/// A log of the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Log {
    /// A channel's frames.
    Frames(Prefix),
    /// A channel's cursors.
    Cursors(Prefix),
    /// Transient frames between bridges.
    Exchange,
}

impl Log {
    /// Its id, for the bridges of one domain (see the configuration), in a home region.
    pub fn channel(&self, domain: &str, region: u8) -> ChannelId {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(&(domain.len() as u64).to_le_bytes());
        hasher.update(domain.as_bytes());
        let (kind, prefix) = match self {
            Self::Frames(prefix) => (1, *prefix),
            Self::Cursors(prefix) => (2, *prefix),
            Self::Exchange => (3, [0; 3]),
        };
        hasher.update(&[kind]);
        for component in prefix {
            hasher.update(&component.to_le_bytes());
        }
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        id[0] = region;
        ChannelId::from_bytes(id)
    }
}

/// Origin of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The bridge process.
    pub bridge: u64,
    /// Its link.
    pub link: LinkId,
}

/// A frame of a log.
#[derive(Clone, Debug)]
pub struct StoredFrame {
    /// Origin of the frame.
    pub origin: Origin,
    /// The frame.
    pub publish: Publish,
}

/// The body of an entry that holds a frame.
pub fn encode_frame(origin: Origin, publish: &Publish) -> Bytes {
    let frame = proto::StoredFrame {
        bridge: origin.bridge,
        link: origin.link.0,
        message: publish.encode(None),
    };
    encode(proto::stored::Kind::Frame(frame))
}

/// The frame of an entry; `None` for an entry that holds none: another kind, or bytes that an agent of the account
/// wrote that is no bridge.
pub fn decode_frame(body: Bytes) -> Option<StoredFrame> {
    let stored = proto::Stored::decode(body).ok()?;
    let Some(proto::stored::Kind::Frame(frame)) = stored.kind else {
        return None;
    };
    let Ok(Inbound::Publish(publish)) = Inbound::decode(&frame.message) else {
        return None;
    };
    Some(StoredFrame {
        origin: Origin {
            bridge: frame.bridge,
            link: LinkId(frame.link),
        },
        publish,
    })
}

fn encode(kind: proto::stored::Kind) -> Bytes {
    proto::Stored { kind: Some(kind) }.encode_to_vec().into()
}

/// Progress of a member.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Counts its joins.
    pub generation: u32,
    /// The last offset that it has received.
    pub offset: u64,
    /// It has left.
    pub gone: bool,
    /// The ids that it was subscribed to.
    pub ids: BTreeSet<u128>,
}

impl Cursor {
    /// An upper bound of its length, encoded.
    fn bytes(&self) -> usize {
        CURSOR_BYTES + 16 * self.ids.len().min(IDS_MAX)
    }

    /// Takes in what another record says of the same member. The order of records does not matter.
    fn merge(&mut self, other: Self) {
        if other.generation > self.generation {
            *self = other;
        } else if other.generation == self.generation {
            self.gone |= other.gone;
            match other.offset.cmp(&self.offset) {
                Ordering::Greater => {
                    self.offset = other.offset;
                    self.ids = other.ids;
                }
                Ordering::Equal => self.ids.extend(other.ids),
                Ordering::Less => {}
            }
        }
    }
}

/// The cursors of a channel: a fold over its cursor log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursors {
    /// The last offset of the cursor log that is in it.
    pub as_of: u64,
    members: BTreeMap<FullName, Cursor>,
    /// An upper bound of all of them, encoded.
    bytes: usize,
}

impl Cursors {
    /// A member's cursor, unless it never joined or has left.
    pub fn get(&self, member: &FullName) -> Option<&Cursor> {
        self.members.get(member).filter(|cursor| !cursor.gone)
    }

    /// All members that have not left.
    pub fn iter(&self) -> impl Iterator<Item = (&FullName, &Cursor)> {
        self.members.iter().filter(|(_, cursor)| !cursor.gone)
    }

    /// The generation that a member's next join has.
    pub fn next_generation(&self, member: &FullName) -> u32 {
        self.members
            .get(member)
            .map_or(1, |cursor| cursor.generation.saturating_add(1))
    }

    /// Takes in one cursor. `false` where there is no room for it: nobody who has not left gives way.
    pub fn set(&mut self, member: FullName, cursor: Cursor) -> bool {
        let known = self.members.get(&member);
        let mut next = match known {
            Some(known) => {
                let mut known = known.clone();
                known.merge(cursor);
                known
            }
            None => cursor,
        };
        while next.ids.len() > IDS_MAX {
            next.ids.pop_first();
        }
        let before = known.map_or(0, Cursor::bytes);
        let is_new = known.is_none();
        let fits = |cursors: &Self| {
            cursors.bytes - before + next.bytes() <= CURSORS_BYTES_MAX
                && (!is_new || cursors.members.len() < MEMBERS_MAX)
        };
        while !fits(self) {
            let gone = self
                .members
                .iter()
                .filter(|(other, cursor)| cursor.gone && **other != member);
            let Some(victim) = gone.min_by_key(|(_, cursor)| cursor.offset).map(|(member, _)| *member) else {
                return false;
            };
            if let Some(victim) = self.members.remove(&victim) {
                self.bytes -= victim.bytes();
            }
        }
        self.bytes = self.bytes - before + next.bytes();
        self.members.insert(member, next);
        true
    }

    /// Takes in an entry of the cursor log at `offset`. An entry that is not a record of cursors counts as seen.
    pub fn fold(&mut self, offset: u64, body: Option<Bytes>) -> Option<u64> {
        self.as_of = self.as_of.max(offset);
        let stored = proto::Stored::decode(body?).ok()?;
        let Some(proto::stored::Kind::Cursors(record)) = stored.kind else {
            return None;
        };
        for cursor in record.cursors.into_iter().take(MEMBERS_MAX) {
            let Some(member) = FullName::from_bytes(&cursor.member) else {
                continue;
            };
            let ids = cursor.ids.as_chunks::<16>().0.iter().take(IDS_MAX);
            self.set(
                member,
                Cursor {
                    generation: cursor.generation,
                    offset: cursor.offset,
                    gone: cursor.gone,
                    ids: ids.map(|id| u128::from_be_bytes(*id)).collect(),
                },
            );
        }
        Some(record.as_of)
    }

    /// The body of an entry that holds them all. A reader needs only the entries after `as_of` beside it.
    pub fn encode(&self) -> Bytes {
        let cursors = self.members.iter().map(|(member, cursor)| proto::Cursor {
            member: Bytes::copy_from_slice(&member.to_bytes()),
            generation: cursor.generation,
            offset: cursor.offset,
            gone: cursor.gone,
            ids: cursor
                .ids
                .iter()
                .take(IDS_MAX)
                .flat_map(|id| id.to_be_bytes())
                .collect(),
        });
        encode(proto::stored::Kind::Cursors(proto::Cursors {
            as_of: self.as_of,
            cursors: cursors.collect(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(number: u64) -> FullName {
        FullName {
            prefix: [number, 2, 3],
            id: u128::from(number),
        }
    }

    fn cursor() -> impl Strategy<Value = (u64, Cursor)> {
        (0..3u64, 1..4u32, 0..9u64, any::<bool>()).prop_map(|(who, generation, offset, gone)| {
            let cursor = Cursor {
                generation,
                offset,
                gone,
                ids: BTreeSet::from([u128::from(offset)]),
            };
            (who, cursor)
        })
    }

    #[test]
    fn those_who_have_left_give_way_and_nobody_else() {
        let mut cursors = Cursors::default();
        let live = |offset: u64| Cursor {
            generation: 1,
            offset,
            gone: false,
            ids: (0..IDS_MAX as u128).collect(),
        };
        assert!(cursors.set(member(0), live(1)));
        let gone = Cursor { gone: true, ..live(9) };
        assert!(cursors.set(member(1), gone.clone()));
        let mut number = 2;
        while cursors.set(member(number), live(100)) {
            number += 1;
        }
        assert!(number > 600, "{number}");
        assert!(cursors.encode().len() <= CURSORS_BYTES_MAX);
        assert!(!cursors.members.contains_key(&member(1)), "it had left");
        assert_eq!(cursors.get(&member(0)), Some(&live(1)), "the one furthest behind");
        // A known member goes on, and one more comes where another has left.
        assert!(cursors.set(member(0), live(2)));
        assert!(cursors.set(member(5), gone));
        assert!(cursors.set(member(number), live(100)));
        assert!(!cursors.set(member(number + 1), live(100)));
        let bytes = cursors.members.values().map(Cursor::bytes).sum::<usize>();
        assert_eq!(bytes, cursors.bytes);
    }

    #[test]
    fn logs_of_other_channels_kinds_and_domains_are_other_logs() {
        let logs = [
            Log::Frames([1, 2, 3]),
            Log::Cursors([1, 2, 3]),
            Log::Frames([3, 2, 1]),
            Log::Exchange,
        ];
        let mut ids: Vec<_> = ["a", "b"]
            .iter()
            .flat_map(|domain| logs.iter().map(move |log| log.channel(domain, 0)))
            .collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 8);
        assert_eq!(logs[0].channel("a", 7).home().0, 7);
        // Persisted: a change of this number loses every log.
        assert_eq!(Log::Frames([1, 2, 3]).channel("a", 0).to_string(), FIRST_LOG_OF_A);
    }

    const FIRST_LOG_OF_A: &str = "00df20dc3a76437de0872552c564d6ea";

    proptest! {
        #[test]
        fn cursors_are_the_same_in_whatever_order_records_come(
            records in proptest::collection::vec(cursor(), 0..12),
            seed in any::<u64>(),
        ) {
            let fold = |records: &[(u64, Cursor)]| {
                let mut cursors = Cursors::default();
                for (who, cursor) in records {
                    cursors.set(member(*who), cursor.clone());
                }
                cursors
            };
            let mut mixed = records.clone();
            let length = mixed.len().max(1) as u64;
            for at in 0..mixed.len() {
                let to = (seed.rotate_left(at as u32) % length) as usize;
                mixed.swap(at, to);
            }
            prop_assert_eq!(fold(&records), fold(&mixed));
        }

        #[test]
        fn a_record_holds_all_cursors(records in proptest::collection::vec(cursor(), 0..12), as_of in 0..99u64) {
            let mut cursors = Cursors { as_of, ..Cursors::default() };
            for (who, cursor) in records {
                cursors.set(member(who), cursor);
            }
            let mut read = Cursors::default();
            prop_assert_eq!(read.fold(as_of, Some(cursors.encode())), Some(as_of));
            prop_assert_eq!(read, cursors);
        }

        #[test]
        fn any_bytes_are_an_entry_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = decode_frame(bytes.clone());
            let _ = Cursors::default().fold(1, Some(bytes));
        }
    }
}
