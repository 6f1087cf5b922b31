//! Watches on heads, made when somebody watches and dropped when nobody does.

use parking_lot::{RwLock, RwLockUpgradableReadGuard};
use skytale_proto::{LogId, Offset};
use std::collections::HashMap;
use tokio::sync::watch;

/// Watches below which it is not worth looking for idle ones.
const SWEEP_WATCHES_MIN: usize = 64;

/// The heads of the logs that somebody watches.
///
/// A store publishes every head that moves; if nobody watches the log, that is a look into a map. The map is bounded by
/// the most logs watched at one time: idle watches go when their log's head moves, and all of them when the map has
/// doubled since it was last swept.
#[derive(Debug, Default)]
pub struct HeadWatches {
    watches: RwLock<Watches>,
}

#[derive(Debug, Default)]
struct Watches {
    by_log: HashMap<LogId, watch::Sender<Offset>>,
    /// The map's length at which idle watches are looked for.
    sweep_at: usize,
}

impl HeadWatches {
    /// Makes it with nothing watched.
    pub fn new() -> Self {
        Self::default()
    }

    /// Watches a log whose head is `current`, or further where a later head was published to those who watch it already.
    ///
    /// A head that moves after the caller read `current` and before it watches is missed by this watch. So either both
    /// are done under the lock that publishing takes, or the caller publishes the head once more after this:
    ///
    /// ```
    /// # use skytale_log_store::HeadWatches;
    /// # use skytale_proto::{ChannelId, Offset};
    /// # let (watches, log) = (HeadWatches::new(), ChannelId::generate().log());
    /// # let durable_head = || Offset::new(7);
    /// let watch = watches.watch(log, durable_head());
    /// watches.publish(log, durable_head());
    /// # assert_eq!(*watch.borrow(), Offset::new(7));
    /// ```
    pub fn watch(&self, log: LogId, current: Offset) -> watch::Receiver<Offset> {
        let watches = self.watches.upgradable_read();
        if let Some(sender) = watches.by_log.get(&log) {
            // Subscribed under the lock, so nobody can find this watch idle and drop it.
            let receiver = sender.subscribe();
            raise(sender, current);
            return receiver;
        }
        let mut watches = RwLockUpgradableReadGuard::upgrade(watches);
        watches.sweep();
        let (sender, receiver) = watch::channel(current);
        watches.by_log.insert(log, sender);
        receiver
    }

    /// Tells those who watch a log that its head is at `head`. A head never goes back: a lower one than was given before
    /// changes nothing.
    pub fn publish(&self, log: LogId, head: Offset) {
        let idle = match self.watches.read().by_log.get(&log) {
            None => return,
            Some(sender) => {
                raise(sender, head);
                sender.receiver_count() == 0
            }
        };
        if idle {
            self.drop_idle(log);
        }
    }

    /// Drops a log's watch, unless somebody has come to watch it.
    fn drop_idle(&self, log: LogId) {
        let mut watches = self.watches.write();
        if watches
            .by_log
            .get(&log)
            .is_some_and(|sender| sender.receiver_count() == 0)
        {
            watches.by_log.remove(&log);
        }
    }

    /// Returns the number of watches, idle ones included.
    pub fn len(&self) -> usize {
        self.watches.read().by_log.len()
    }

    /// Whether no watch is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Watches {
    fn sweep(&mut self) {
        if self.by_log.len() < self.sweep_at.max(SWEEP_WATCHES_MIN) {
            return;
        }
        self.by_log.retain(|_, sender| sender.receiver_count() > 0);
        self.sweep_at = self.by_log.len() * 2;
        self.by_log.shrink_to(self.sweep_at);
    }
}

fn raise(sender: &watch::Sender<Offset>, head: Offset) {
    sender.send_if_modified(|told| {
        let moved = head > *told;
        if moved {
            *told = head;
        }
        moved
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use skytale_proto::ChannelId;

    fn log(number: u32) -> LogId {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        ChannelId::from_bytes(bytes).log()
    }

    #[tokio::test]
    async fn a_watch_wakes_on_each_later_head_of_its_log() {
        let watches = HeadWatches::new();
        let mut watch = watches.watch(log(1), Offset::new(3));
        assert_eq!(*watch.borrow_and_update(), Offset::new(3));
        watches.publish(log(2), Offset::new(9));
        assert!(!watch.has_changed().unwrap());
        watches.publish(log(1), Offset::new(4));
        watch.changed().await.unwrap();
        assert_eq!(*watch.borrow_and_update(), Offset::new(4));
    }

    #[test]
    fn a_head_never_goes_back() {
        let watches = HeadWatches::new();
        let mut watch = watches.watch(log(1), Offset::new(3));
        watch.mark_unchanged();
        watches.publish(log(1), Offset::new(2));
        assert!(!watch.has_changed().unwrap());
        let late = watches.watch(log(1), Offset::new(1));
        assert_eq!(*late.borrow(), Offset::new(3));
    }

    #[test]
    fn who_watches_later_tells_the_others_what_it_saw() {
        let watches = HeadWatches::new();
        let first = watches.watch(log(1), Offset::new(3));
        let second = watches.watch(log(1), Offset::new(5));
        assert_eq!((*first.borrow(), *second.borrow()), (Offset::new(5), Offset::new(5)));
        assert_eq!(watches.len(), 1);
    }

    #[test]
    fn publishing_where_nobody_watches_keeps_nothing() {
        let watches = HeadWatches::new();
        for number in 0..1000 {
            watches.publish(log(number), Offset::new(1));
        }
        assert!(watches.is_empty());
    }

    #[test]
    fn an_idle_watch_goes_when_its_head_moves() {
        let watches = HeadWatches::new();
        drop(watches.watch(log(1), Offset::ZERO));
        let kept = watches.watch(log(2), Offset::ZERO);
        watches.publish(log(1), Offset::FIRST);
        watches.publish(log(2), Offset::FIRST);
        assert_eq!(watches.len(), 1);
        assert_eq!(*kept.borrow(), Offset::FIRST);
    }

    #[test]
    fn idle_watches_on_quiet_logs_do_not_pile_up() {
        let watches = HeadWatches::new();
        let kept: Vec<_> = (0..100)
            .map(|number| watches.watch(log(number), Offset::ZERO))
            .collect();
        for number in 100..100_000 {
            drop(watches.watch(log(number), Offset::ZERO));
            assert!(watches.len() <= 2 * kept.len() + SWEEP_WATCHES_MIN, "{}", watches.len());
        }
        for (number, watch) in (0..).zip(&kept) {
            watches.publish(log(number), Offset::new(7));
            assert_eq!(*watch.borrow(), Offset::new(7));
        }
    }

    #[test]
    fn no_head_is_missed_between_watching_and_publishing() {
        let watches = HeadWatches::new();
        let head = std::sync::atomic::AtomicU64::new(0);
        let order = std::sync::atomic::Ordering::SeqCst;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for next in 1..=20_000 {
                    head.store(next, order);
                    watches.publish(log(1), Offset::new(next));
                }
            });
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let watch = watches.watch(log(1), Offset::new(head.load(order)));
                    let known = Offset::new(head.load(order));
                    watches.publish(log(1), known);
                    assert!(*watch.borrow() >= known);
                }
            });
        });
    }
}
