//! Turns at something scarce: so many at once, and those who wait get theirs asker by asker, however many of them one asker has
//! waiting.

use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Nobody more can wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Turns. Clones are the same ones.
#[derive(Debug)]
pub(crate) struct Turns<K: Hash + Eq + Clone>(Arc<Mutex<Queue<K>>>);

impl<K: Hash + Eq + Clone> Clone for Turns<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Queue<K: Hash + Eq + Clone> {
    free: usize,
    waiting: usize,
    waiting_max: usize,
    /// Askers with a waiting request, in the order of their next turns.
    order: VecDeque<K>,
    of: HashMap<K, VecDeque<oneshot::Sender<Turn<K>>>>,
}

/// A turn. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<K: Hash + Eq + Clone>(Option<Turns<K>>);

impl<K: Hash + Eq + Clone> Turns<K> {
    pub(crate) fn new(at_once: usize, waiting_max: usize) -> Self {
        Self(Arc::new(Mutex::new(Queue {
            free: at_once,
            waiting: 0,
            waiting_max,
            order: VecDeque::new(),
            of: HashMap::new(),
        })))
    }

    /// Waits for a turn, as one of `most` whom this asker may have waiting.
    pub(crate) async fn take(&self, who: K, most: usize) -> Result<Turn<K>, Full> {
        let turn = {
            let mut queue = self.0.lock();
            if queue.free > 0 {
                queue.free -= 1;
                return Ok(Turn(Some(self.clone())));
            }
            queue.wait(who, most)?
        };
        // The sender goes with its turn alone.
        turn.await.map_err(|_| Full)
    }

    /// Returns the number of waiting requests.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.0.lock().waiting
    }

    /// A turn is over: the next one has it.
    fn pass_on(&self) {
        let mut queue = self.0.lock();
        while let Some(next) = queue.next() {
            match next.send(Turn(Some(self.clone()))) {
                Ok(()) => return,
                // It waits no more.
                Err(mut turn) => turn.0 = None,
            }
        }
        queue.free += 1;
    }
}

impl<K: Hash + Eq + Clone> Drop for Turn<K> {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.pass_on();
        }
    }
}

impl<K: Hash + Eq + Clone> Queue<K> {
    fn wait(&mut self, who: K, most: usize) -> Result<oneshot::Receiver<Turn<K>>, Full> {
        if self.waiting >= self.waiting_max {
            self.forget_gone();
        }
        let own = self.of.entry(who.clone()).or_default();
        if own.len() >= most {
            let before = own.len();
            own.retain(|waiting| !waiting.is_closed());
            self.waiting -= before - own.len();
        }
        let own = self.of.entry(who.clone()).or_default();
        if self.waiting >= self.waiting_max || own.len() >= most {
            if own.is_empty() {
                self.of.remove(&who);
                self.order.retain(|other| *other != who);
            }
            return Err(Full);
        }
        let (give, turn) = oneshot::channel();
        own.push_back(give);
        if !self.order.contains(&who) {
            self.order.push_back(who);
        }
        self.waiting += 1;
        Ok(turn)
    }

    /// The next one: of the asker whose turn it is, which then comes after the others.
    fn next(&mut self) -> Option<oneshot::Sender<Turn<K>>> {
        let who = self.order.pop_front()?;
        let own = self.of.get_mut(&who)?;
        let next = own.pop_front();
        if own.is_empty() {
            self.of.remove(&who);
        } else {
            self.order.push_back(who);
        }
        self.waiting -= usize::from(next.is_some());
        next
    }

    /// Those who gave up waiting take no place.
    fn forget_gone(&mut self) {
        let mut waiting = 0;
        self.of.retain(|_, own| {
            own.retain(|waiting| !waiting.is_closed());
            waiting += own.len();
            !own.is_empty()
        });
        self.waiting = waiting;
        let of = &self.of;
        self.order.retain(|who| of.contains_key(who));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::pin::pin;

    #[tokio::test]
    async fn askers_take_turns_however_many_one_of_them_has_waiting() {
        let turns = Turns::new(1, 100);
        let running = turns.take("busy", 100).await.expect("free");
        let order = Arc::new(Mutex::new(Vec::new()));
        let ask = |who: &'static str| {
            let (turns, order) = (turns.clone(), order.clone());
            tokio::spawn(async move {
                let turn = turns.take(who, 100).await.expect("a place");
                order.lock().push(who);
                drop(turn);
            })
        };
        let mut asked = Vec::new();
        for (count, who) in [(10, "busy"), (1, "quiet"), (1, "other")] {
            for _ in 0..count {
                let before = turns.waiting();
                asked.push(ask(who));
                while turns.waiting() == before {
                    tokio::task::yield_now().await;
                }
            }
        }
        drop(running);
        for asked in asked {
            asked.await.expect("no panic");
        }
        assert_eq!(order.lock()[..3], ["busy", "quiet", "other"]);
        assert!(turns.take("busy", 1).now_or_never().is_some_and(|turn| turn.is_ok()));
    }

    #[tokio::test]
    async fn one_asker_has_so_many_places_and_all_together_so_many() {
        let turns = Turns::new(1, 3);
        let running = turns.take(0, 2).await.expect("free");
        let mut first = pin!(turns.take(1, 2));
        let mut second = pin!(turns.take(1, 2));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        assert!(turns.take(1, 2).now_or_never().is_some_and(|turn| turn.is_err()));
        let mut third = pin!(turns.take(2, 2));
        assert!(third.as_mut().now_or_never().is_none());
        assert!(
            turns.take(3, 2).now_or_never().is_some_and(|turn| turn.is_err()),
            "full"
        );
        drop(running);
        first.await.expect("its turn");
    }

    #[tokio::test]
    async fn who_waits_no_more_takes_no_place_and_no_turn() {
        let turns = Turns::new(1, 2);
        let running = turns.take(0, 2).await.expect("free");
        for who in 1..20 {
            assert!(turns.take(who, 1).now_or_never().is_none(), "a place, given up at once");
        }
        let mut waits = pin!(turns.take(99, 1));
        assert!(waits.as_mut().now_or_never().is_none());
        drop(running);
        drop(waits.await.expect("its turn"));
        assert!(turns.take(5, 1).now_or_never().is_some_and(|turn| turn.is_ok()));
        assert!(turns.0.lock().of.is_empty() && turns.0.lock().order.is_empty());
    }
}
