//! Turns of accounts to append.
//!
//! The store answers frames in the order in which it gets them. So it gets few at a time: as many as a window holds, and the rest
//! wait here, each account in a queue of its own. As the store answers, room in the window goes to the accounts in turn, by deficit
//! round robin (Shreedhar and Varghese, SIGCOMM 1995): each gets as many bytes as any other, whatever number of agents, streams and
//! frames it has waiting.
//!
//! ```text
//!   account A  a a a a a a a ──┐
//!   account B  b ──────────────┼── turns ──> window [ a a b a a ] ──> the store ──> answered: room for the next
//!   account C  c c ────────────┘
//! ```
//!
//! While the window has room nobody waits, and nothing is queued. The queue is bounded by the frames that sessions and
//! accounts may have in flight: one for each stream. Logs that do not wait for one another in the store
//! ([`LogStore::lane`]) do not wait for one another here.
//!
//! [`LogStore::lane`]: skytale_log_store::LogStore::lane

use parking_lot::Mutex;
use skytale_proto::AccountId;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Cost of a frame beside its bytes, and of each Welcome that it causes, in bytes: work that its length does not show.
const FRAME_BYTES: u64 = 1024;
/// Bytes that an account may have in one turn beyond its share.
const QUANTUM_BYTES: u64 = 64 * 1024;

/// Returns the weight of a frame in the window: `frames` is 1, and one more for each Welcome that it causes.
pub(crate) const fn weight(frames: u32, bytes: usize) -> u64 {
    bytes as u64 + frames as u64 * FRAME_BYTES
}

/// The turns of all accounts. Clones are the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    lanes: Arc<Mutex<HashMap<u32, Lane>>>,
    window: u64,
}

/// A frame's place in the store. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Turns,
    lane: u32,
    weight: u64,
}

/// One queue of the store. Pure.
#[derive(Debug, Default)]
struct Lane {
    /// Weight of the frames in the store, and on their way there.
    taken: u64,
    /// Accounts that wait, in the order of their turns.
    order: VecDeque<AccountId>,
    accounts: HashMap<AccountId, Queue>,
}

/// An account that waits.
#[derive(Debug, Default)]
struct Queue {
    /// Weight that it may still have in this turn.
    deficit: u64,
    /// It has had its quantum of this turn.
    in_turn: bool,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    weight: u64,
    go: oneshot::Sender<Turn>,
}

/// A place that was given. Told when nothing is locked.
type Given = (u64, oneshot::Sender<Turn>);

impl Turns {
    /// Makes them with so many bytes for the store at a time.
    pub(crate) fn new(window_bytes: u64) -> Self {
        Self {
            lanes: Arc::default(),
            window: window_bytes,
        }
    }

    /// Waits for the account's turn.
    pub(crate) async fn take(&self, lane: u32, account: AccountId, weight: u64) -> Turn {
        let gone = match self.enter(lane, account, weight) {
            Ok(turn) => return turn,
            Err(go) => go.await,
        };
        // A sender lives until it is used, or its receiver is gone.
        gone.unwrap_or_else(|_| self.turn(lane, 0))
    }

    /// Frames that wait.
    pub(crate) fn waiting(&self) -> usize {
        let lanes = self.lanes.lock();
        let queues = lanes.values().flat_map(|lane| lane.accounts.values());
        queues
            .map(|queue| queue.waiting.iter().filter(|waiting| !waiting.go.is_closed()).count())
            .sum()
    }

    /// A place at once, or where it will come from.
    fn enter(&self, number: u32, account: AccountId, weight: u64) -> Result<Turn, oneshot::Receiver<Turn>> {
        let mut lanes = self.lanes.lock();
        let lane = lanes.entry(number).or_default();
        if lane.order.is_empty() && lane.has_room(weight, self.window) {
            lane.taken += weight;
            return Ok(self.turn(number, weight));
        }
        let (go, gone) = oneshot::channel();
        lane.wait(account, Waiting { weight, go });
        // Those before it may need more room than there is, and not have their turn yet.
        let given = lane.serve(self.window);
        drop(lanes);
        self.tell(number, given);
        Err(gone)
    }

    /// Nothing is locked: a caller that no longer waits gives a place back by dropping it.
    fn tell(&self, number: u32, given: Vec<Given>) {
        for (weight, go) in given {
            let _ = go.send(self.turn(number, weight));
        }
    }

    fn turn(&self, lane: u32, weight: u64) -> Turn {
        Turn {
            turns: self.clone(),
            lane,
            weight,
        }
    }

    fn give_back(&self, number: u32, weight: u64) {
        let given = {
            let mut lanes = self.lanes.lock();
            let Some(lane) = lanes.get_mut(&number) else { return };
            lane.taken = lane.taken.saturating_sub(weight);
            let given = lane.serve(self.window);
            if lane.taken == 0 && lane.order.is_empty() {
                lanes.remove(&number);
            }
            given
        };
        self.tell(number, given);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.give_back(self.lane, self.weight);
    }
}

impl Lane {
    /// A window is never too small for one frame.
    const fn has_room(&self, weight: u64, window: u64) -> bool {
        self.taken == 0 || self.taken.saturating_add(weight) <= window
    }

    fn wait(&mut self, account: AccountId, waiting: Waiting) {
        let queue = self.accounts.entry(account).or_default();
        if queue.waiting.is_empty() {
            self.order.push_back(account);
        }
        queue.waiting.push_back(waiting);
    }

    /// Gives the room there is to those who wait, in turn.
    fn serve(&mut self, window: u64) -> Vec<Given> {
        let mut given = Vec::new();
        while let Some(account) = self.order.front().copied() {
            let alone = self.order.len() == 1;
            let Some(queue) = self.accounts.get_mut(&account) else {
                self.order.pop_front();
                continue;
            };
            while queue.waiting.front().is_some_and(|waiting| waiting.go.is_closed()) {
                queue.waiting.pop_front();
            }
            let Some(weight) = queue.waiting.front().map(|waiting| waiting.weight) else {
                // An account does not keep the unused part of its turn.
                self.order.pop_front();
                self.accounts.remove(&account);
                continue;
            };
            if !queue.in_turn {
                queue.in_turn = true;
                queue.deficit += QUANTUM_BYTES;
            }
            if queue.deficit < weight && !alone {
                queue.in_turn = false;
                self.order.rotate_left(1);
                continue;
            }
            if self.taken != 0 && self.taken.saturating_add(weight) > window {
                break;
            }
            self.taken += weight;
            queue.deficit = queue.deficit.saturating_sub(weight);
            if let Some(waiting) = queue.waiting.pop_front() {
                given.push((weight, waiting.go));
            }
        }
        given
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    const WINDOW: u64 = 10 * FRAME_BYTES;
    const A: AccountId = AccountId::from_bytes([1; 16]);
    const B: AccountId = AccountId::from_bytes([2; 16]);

    fn frame() -> u64 {
        weight(1, 0)
    }

    #[test]
    fn nobody_waits_while_the_window_has_room() {
        let turns = Turns::new(WINDOW);
        let held: Vec<Turn> = (0..10).map(|_| turns.enter(0, A, frame()).expect("room")).collect();
        assert!(turns.enter(0, B, frame()).is_err());
        assert!(
            turns.enter(1, B, frame()).is_ok(),
            "another lane has a window of its own"
        );
        drop(held);
        assert!(turns.lanes.lock().is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn a_frame_larger_than_the_window_goes_alone() {
        let turns = Turns::new(WINDOW);
        let large = turns.enter(0, A, 100 * WINDOW).expect("nothing else is there");
        let waits = turns.enter(0, A, 100 * WINDOW).expect_err("one at a time");
        drop(large);
        assert!(waits.now_or_never().expect("its turn").is_ok());
    }

    #[test]
    fn a_small_frame_does_not_wait_for_room_that_a_large_one_needs() {
        let turns = Turns::new(4 * QUANTUM_BYTES);
        let large = turns.enter(0, A, 3 * QUANTUM_BYTES).expect("room");
        let mut next = turns.enter(0, A, 3 * QUANTUM_BYTES).expect_err("no room");
        let mut small = turns.enter(0, B, frame()).expect_err("behind another account");
        let small = (&mut small).now_or_never().expect("at once").expect("given");
        assert!((&mut next).now_or_never().is_none());
        drop(small);
        drop(large);
        assert!(next.now_or_never().expect("its turn").is_ok());
    }

    #[test]
    fn whoever_gave_up_takes_no_room() {
        let turns = Turns::new(WINDOW);
        let whole = turns.enter(0, A, WINDOW).expect("room");
        drop(turns.enter(0, A, frame()).expect_err("waits"));
        let also = turns.enter(0, B, frame()).expect_err("waits");
        assert_eq!(turns.waiting(), 1);
        drop(whole);
        let turn = also.now_or_never().expect("its turn").expect("given");
        assert_eq!(turns.lanes.lock()[&0].taken, frame());
        drop(turn);
        assert!(turns.lanes.lock().is_empty());
    }

    #[test]
    fn an_account_with_a_crowd_waiting_gets_as_much_as_one_with_a_few() {
        let turns = Turns::new(QUANTUM_BYTES);
        let whole = turns.enter(0, A, QUANTUM_BYTES).expect("room");
        let mut crowd: VecDeque<_> = (0..1_000)
            .map(|_| turns.enter(0, A, 8 * 1024).expect_err("waits"))
            .collect();
        let mut few: VecDeque<_> = (0..20)
            .map(|_| turns.enter(0, B, 8 * 1024).expect_err("waits"))
            .collect();
        let mut holds = VecDeque::from([whole]);
        let (mut of_crowd, mut of_few) = (0, 0);
        while !few.is_empty() {
            drop(holds.pop_front());
            for (queue, count) in [(&mut crowd, &mut of_crowd), (&mut few, &mut of_few)] {
                while let Some(turn) = queue.front_mut().and_then(|wait| wait.now_or_never()) {
                    queue.pop_front();
                    *count += 1;
                    holds.push_back(turn.expect("given"));
                }
            }
        }
        // A quantum more at most.
        assert!((20..=28).contains(&of_crowd), "{of_crowd}");
        assert_eq!(of_few, 20);
    }

    proptest! {
        /// With any frames of others waiting: from when an account begins to wait, no more of another account's bytes
        /// go before its frame than its frame's own, two quanta, and one frame.
        #[test]
        fn what_goes_before_an_accounts_frame_has_a_bound(
            flood in proptest::collection::vec((0..5u8, 1..2_000_000u64), 1..200),
            own in 1..2_000_000u64,
            window in 1..200_000u64,
        ) {
            let turns = Turns::new(window);
            let account = |number: u8| AccountId::from_bytes([10 + number; 16]);
            let mut holds = VecDeque::from([turns.enter(0, A, window).expect("nothing is there")]);
            let mut waits = Vec::new();
            for (who, weight) in flood {
                waits.push((who, weight, turns.enter(0, account(who), weight).expect_err("waits")));
            }
            let mut mine = turns.enter(0, B, own).expect_err("waits");
            let mut before: HashMap<u8, u64> = HashMap::new();
            let largest = waits.iter().map(|(_, weight, _)| *weight).max().unwrap_or_default();
            loop {
                prop_assert!(!holds.is_empty(), "somebody is always served");
                drop(holds.pop_front());
                if (&mut mine).now_or_never().is_some() {
                    break;
                }
                waits.retain_mut(|(who, weight, wait)| match wait.now_or_never() {
                    Some(turn) => {
                        *before.entry(*who).or_default() += *weight;
                        holds.extend(turn.ok());
                        false
                    }
                    None => true,
                });
            }
            for bytes in before.values() {
                prop_assert!(*bytes <= own + 2 * QUANTUM_BYTES + largest, "{} before {}", bytes, own);
            }
        }
    }
}
