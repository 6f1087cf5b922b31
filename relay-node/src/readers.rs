//! Positions of all subscriptions, so that the slowest one can be seen.

use parking_lot::Mutex;
use skytale_proto::Offset;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// All subscriptions that run.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    places: Mutex<HashMap<u64, Place>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Place {
    head: watch::Receiver<Offset>,
    cursor: Arc<AtomicU64>,
}

/// One subscription, for as long as it runs.
#[derive(Debug)]
pub(crate) struct Reader {
    readers: Arc<Readers>,
    id: u64,
    cursor: Arc<AtomicU64>,
}

impl Readers {
    /// A subscription begins.
    pub(crate) fn enter(self: &Arc<Self>, head: watch::Receiver<Offset>, after: Offset) -> Reader {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let cursor = Arc::new(AtomicU64::new(after.get()));
        let place = Place {
            head,
            cursor: cursor.clone(),
        };
        self.places.lock().insert(id, place);
        Reader {
            readers: self.clone(),
            id,
            cursor,
        }
    }

    /// Returns the number of subscriptions.
    pub(crate) fn len(&self) -> usize {
        self.places.lock().len()
    }

    /// Returns the number of entries that the slowest one is behind its log's head.
    pub(crate) fn lag_max(&self) -> u64 {
        let places = self.places.lock();
        places.values().map(Place::lag).max().unwrap_or(0)
    }
}

impl Place {
    fn lag(&self) -> u64 {
        self.head
            .borrow()
            .get()
            .saturating_sub(self.cursor.load(Ordering::Relaxed))
    }
}

impl Reader {
    /// Entries up to and with `cursor` have been sent.
    pub(crate) fn at(&self, cursor: Offset) {
        self.cursor.store(cursor.get(), Ordering::Relaxed);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.readers.places.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_reader_counts_and_only_while_it_reads() {
        let readers = Arc::new(Readers::default());
        let (head, watched) = watch::channel(Offset::new(10));
        let slow = readers.enter(watched.clone(), Offset::ZERO);
        let fast = readers.enter(watched, Offset::ZERO);
        fast.at(Offset::new(10));
        assert_eq!((readers.len(), readers.lag_max()), (2, 10));
        slow.at(Offset::new(7));
        head.send_replace(Offset::new(20));
        assert_eq!(readers.lag_max(), 13);
        drop(slow);
        assert_eq!((readers.len(), readers.lag_max()), (1, 10));
    }
}
