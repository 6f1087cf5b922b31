//! Accepted bundles with Welcomes that have not been seen on their logs.
//!
//! A bundle and its Welcomes are in different streams, and no write spans two of them. So every node notes, as it folds,
//! which Welcomes a bundle owes, and strikes them out as it folds those: in whatever order the two come. The node that
//! took the bundle publishes them at once; where it cannot any more, any other does after a while. One that arrives
//! twice is a duplicate to the fold.

use super::metrics;
use super::shards::ShardId;
use parking_lot::Mutex;
use skytale_proto::{FrameId, Header, LogId, Offset};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Position of a bundle in the streams.
type Place = (ShardId, u64);

/// Welcomes that are owed, as far as this node has folded.
pub(super) struct Owed {
    inner: Mutex<Inner>,
    moved: watch::Sender<()>,
}

#[derive(Default)]
struct Inner {
    bundles: BTreeMap<Place, Bundle>,
    places: HashMap<(LogId, Offset), Place>,
    welcomes: HashMap<FrameId, Place>,
}

/// A bundle; before it is folded, one that may owe something.
struct Bundle {
    entry: Option<(LogId, Offset)>,
    left: HashMap<FrameId, Header>,
    since: Instant,
}

impl Owed {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::default(),
            moved: watch::Sender::new(()),
        }
    }

    /// A bundle is about to be folded.
    pub(super) fn expect(&self, shard: ShardId, sequence: u64) {
        let bundle = Bundle {
            entry: None,
            left: HashMap::new(),
            since: Instant::now(),
        };
        self.inner.lock().bundles.insert((shard, sequence), bundle);
    }

    /// The bundle was folded: it is at this entry, and owes these Welcomes. None, where it was refused or repeated.
    pub(super) fn decide(&self, shard: ShardId, sequence: u64, entry: Option<(LogId, Offset)>, left: Vec<Header>) {
        let place = (shard, sequence);
        let mut inner = self.inner.lock();
        match entry {
            Some(entry) if !left.is_empty() => {
                inner.places.insert(entry, place);
                for header in &left {
                    inner.welcomes.insert(header.id, place);
                }
                let bundle = Bundle {
                    entry: Some(entry),
                    left: left.into_iter().map(|header| (header.id, header)).collect(),
                    since: Instant::now(),
                };
                inner.bundles.insert(place, bundle);
            }
            _ => {
                inner.bundles.remove(&place);
            }
        }
        metrics::welcomes_owed(inner.bundles.len());
    }

    /// A Welcome was folded, whatever its verdict: folding it again would give no other.
    pub(super) fn settle(&self, welcome: &FrameId) {
        let mut inner = self.inner.lock();
        let Some(place) = inner.welcomes.remove(welcome) else {
            return;
        };
        let Some(bundle) = inner.bundles.get_mut(&place) else {
            return;
        };
        bundle.left.remove(welcome);
        if bundle.left.is_empty() {
            let entry = bundle.entry;
            inner.bundles.remove(&place);
            if let Some(entry) = entry {
                inner.places.remove(&entry);
            }
            metrics::welcomes_owed(inner.bundles.len());
            self.moved.send_replace(());
        }
    }

    /// The first message of a shard that may owe something.
    pub(super) fn first(&self, shard: ShardId) -> Option<u64> {
        let inner = self.inner.lock();
        let mut range = inner.bundles.range((shard, 0)..=(shard, u64::MAX));
        range.next().map(|((_, sequence), _)| *sequence)
    }

    /// Returns the Welcomes that the bundle at an entry still owes.
    pub(super) fn left(&self, log: LogId, offset: Offset) -> Vec<Header> {
        let inner = self.inner.lock();
        let place = inner.places.get(&(log, offset));
        let bundle = place.and_then(|place| inner.bundles.get(place));
        bundle.map_or_else(Vec::new, |bundle| bundle.left.values().cloned().collect())
    }

    /// Welcomes that have been owed for longer than this, at most so many.
    pub(super) fn overdue(&self, longer: Duration, most: usize) -> Vec<Header> {
        let inner = self.inner.lock();
        let bundles = inner.bundles.values();
        let overdue = bundles.filter(|bundle| bundle.entry.is_some() && bundle.since.elapsed() > longer);
        overdue
            .flat_map(|bundle| bundle.left.values().cloned())
            .take(most)
            .collect()
    }

    /// Waits until the bundle at an entry owes nothing.
    pub(super) async fn wait(&self, log: LogId, offset: Offset) {
        let mut moved = self.moved.subscribe();
        while self.inner.lock().places.contains_key(&(log, offset)) {
            // The sender lives as long as this.
            let _ = moved.changed().await;
        }
    }

    /// Returns the number of bundles that owe something.
    pub(super) fn bundles(&self) -> usize {
        self.inner.lock().places.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skytale_proto::{AgentId, ChannelId, Detail, Region};

    const SHARD: ShardId = ShardId {
        region: Region(0),
        index: 3,
    };

    fn welcomes(channel: ChannelId, offset: Offset, count: u8) -> Vec<Header> {
        let one = |agent| Header {
            log: agent,
            id: FrameId::generate(),
            author: AgentId::from_bytes([1; 32]),
            parent: Offset::ZERO,
            detail: Detail::Welcome {
                channel,
                offset,
                returns: false,
            },
        };
        (0..count)
            .map(|agent| one(AgentId::from_bytes([agent; 32]).log()))
            .collect()
    }

    #[test]
    fn a_bundle_is_owed_until_its_last_welcome_is_seen() {
        let (owed, channel) = (Owed::new(), ChannelId::generate());
        let entry = (channel.log(), Offset::new(4));
        owed.expect(SHARD, 9);
        assert_eq!(owed.first(SHARD), Some(9), "it may owe something");
        let left = welcomes(channel, entry.1, 2);
        owed.decide(SHARD, 9, Some(entry), left.clone());
        assert_eq!((owed.first(SHARD), owed.bundles()), (Some(9), 1));
        assert_eq!(owed.overdue(Duration::ZERO, 10).len(), 2);
        owed.settle(&left[0].id);
        assert_eq!(owed.left(entry.0, entry.1), left[1..]);
        owed.settle(&left[0].id);
        owed.settle(&left[1].id);
        assert_eq!((owed.first(SHARD), owed.bundles()), (None, 0));
        assert!(owed.left(entry.0, entry.1).is_empty());
    }

    #[test]
    fn a_bundle_that_was_refused_owes_nothing() {
        let owed = Owed::new();
        owed.expect(SHARD, 9);
        owed.expect(SHARD, 7);
        owed.decide(SHARD, 7, None, Vec::new());
        assert_eq!(owed.first(SHARD), Some(9));
        owed.decide(SHARD, 9, Some((ChannelId::generate().log(), Offset::FIRST)), Vec::new());
        assert_eq!(owed.first(SHARD), None);
        assert!(owed.overdue(Duration::ZERO, 10).is_empty());
    }
}
