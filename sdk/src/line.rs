//! A queue whose entries are owned by their callers.
//!
//! ```text
//!   join -> Place --dropped--> the item is taken out of the line
//!             |
//!             v  in the order of the joins
//!           next, on the thread that works; recv, in the task that works
//! ```
//!
//! Joining never waits, so there is no slot or permit to hold: a future that is not polled keeps its own item in the queue
//! and nothing else. The queue is bounded by the number of live [`Place`]s, one a caller.

use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use tokio::sync::Notify;

/// The queue. Items come out in the order in which they joined.
pub(crate) struct Line<T> {
    state: Mutex<State<T>>,
    /// Wakes a waiting thread.
    changed: Condvar,
    /// Wakes a waiting task.
    woken: Notify,
}

struct State<T> {
    next: u64,
    waiting: BTreeMap<u64, T>,
    closed: bool,
}

/// A place in the queue. Dropping it removes the item, unless a worker has taken it.
#[must_use]
pub(crate) struct Place<T> {
    line: Arc<Line<T>>,
    number: u64,
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        let left = self.line.state.lock().waiting.remove(&self.number);
        // Outside the lock: dropping an item may run any code.
        drop(left);
    }
}

impl<T> fmt::Debug for Line<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<T> Line<T> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                next: 0,
                waiting: BTreeMap::new(),
                closed: false,
            }),
            changed: Condvar::new(),
            woken: Notify::new(),
        }
    }

    /// Joins at the end. `None` once the line is closed.
    pub(crate) fn join(self: &Arc<Self>, item: T) -> Option<Place<T>> {
        self.push(item).map(|number| Place {
            line: Arc::clone(self),
            number,
        })
    }

    /// Adds an item that no [`Place`] owns; the caller bounds their number. Returns its number, or `None` once the
    /// queue is closed.
    pub(crate) fn push(&self, item: T) -> Option<u64> {
        let number = {
            let mut state = self.state.lock();
            if state.closed {
                return None;
            }
            let number = state.next;
            state.next += 1;
            state.waiting.insert(number, item);
            number
        };
        self.wake();
        Some(number)
    }

    /// Returns the number of queued items.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// Waits for the first item. `None` once the line is closed and empty.
    pub(crate) fn next(&self) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if let Some((_, item)) = state.waiting.pop_first() {
                return Some(item);
            }
            if state.closed {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }

    /// The first item, if there is one.
    pub(crate) fn try_next(&self) -> Option<T> {
        self.state.lock().waiting.pop_first().map(|(_, item)| item)
    }

    /// Like [`Line::next`], in a task; only one task at a time. Cancel-safe.
    pub(crate) async fn recv(&self) -> Option<T> {
        loop {
            {
                let mut state = self.state.lock();
                if let Some((_, item)) = state.waiting.pop_first() {
                    return Some(item);
                }
                if state.closed {
                    return None;
                }
            }
            // A join since the check above has left a permit, so this does not miss it.
            self.woken.notified().await;
        }
    }

    fn wake(&self) {
        self.changed.notify_all();
        self.woken.notify_one();
    }

    /// Whether [`Line::next`] would wait.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.waiting.is_empty() && !state.closed
    }

    /// Closes the queue to new items. Queued items still come out.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.wake();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Closes the queue, and drops its items.
    pub(crate) fn abandon(&self) {
        let left = {
            let mut state = self.state.lock();
            state.closed = true;
            std::mem::take(&mut state.waiting)
        };
        self.wake();
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(line: &Line<u32>) -> usize {
        line.state.lock().waiting.len()
    }

    #[test]
    fn items_come_in_order_and_those_that_left_do_not_come() {
        let line = Arc::new(Line::new());
        let mut places: Vec<_> = (0..1_000).map(|number| line.join(number)).collect();
        assert_eq!(waiting(&line), 1_000, "joining never waits");
        places.retain(|place| place.as_ref().is_some_and(|place| place.number % 3 == 0));
        assert_eq!(waiting(&line), 334, "the line is as long as there are places");
        let mut expected = (0..1_000).filter(|number| number % 3 == 0);
        while !line.is_idle() {
            assert_eq!(line.next(), expected.next());
        }
        assert_eq!(expected.next(), None);
        // A taken item no longer belongs to its place.
        drop(places);
        assert!(line.is_idle());
    }

    #[test]
    fn a_closed_line_gives_what_it_has_and_takes_no_more() {
        let line = Arc::new(Line::new());
        let place = line.join(1);
        line.close();
        assert!(line.join(2).is_none() && line.is_closed());
        assert_eq!((line.next(), line.next()), (Some(1), None));
        drop(place);
    }

    #[test]
    fn who_waits_for_an_item_hears_of_the_end() {
        let line = Arc::new(Line::<u32>::new());
        let waits = Arc::clone(&line);
        let waiter = std::thread::spawn(move || waits.next());
        line.close();
        assert_eq!(waiter.join().expect("no panic"), None);
    }

    #[tokio::test]
    async fn a_task_that_waits_hears_of_items_and_of_the_end() {
        let line = Arc::new(Line::new());
        let waits = Arc::clone(&line);
        let task = tokio::spawn(async move {
            let mut came = Vec::new();
            while let Some(item) = waits.recv().await {
                came.push(item);
            }
            came
        });
        let mut places = Vec::new();
        for number in 0..100 {
            places.push(line.join(number));
            tokio::task::yield_now().await;
        }
        line.close();
        assert_eq!(task.await.expect("no panic"), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn an_abandoned_line_drops_its_items() {
        let line = Arc::new(Line::new());
        let item = Arc::new(());
        let place = line.join(Arc::clone(&item));
        line.abandon();
        assert_eq!(Arc::strong_count(&item), 1);
        assert_eq!(line.next(), None);
        drop(place);
    }
}
