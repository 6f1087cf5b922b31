//! Schedule of fetches of the keys that are due to tokens with an unknown key. Pure.
//!
//! Anyone can make up a token with a key id that nobody knows, so such tokens do not decide how often the API is asked:
//!
//! ```text
//!  unknown key ──> a fetch is pending ──────────────────────────────> it starts, at once
//!              └─> none is, and one of BURST is left: it is spent ──┘
//!              └─> none is left: pending until one is given back, one each `every`
//! ```
//!
//! One fetch answers everyone who asked before it started. So however many tokens with however many made-up keys come, the
//! API gets [`BURST`] fetches, and one each `every` after that; and a token of a real new key waits for `every` at most.

use std::time::Duration;
use tokio::time::Instant;

/// Fetches that may follow each other at once: signing keys that change several times in a row.
pub(super) const BURST: u32 = 8;

/// The budget of fetches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refetch {
    every: Duration,
    left: u32,
    /// Time from which on the next one is given back, as long as some are spent.
    since: Instant,
    /// Time at which the pending fetch may start.
    pending: Option<Instant>,
}

impl Refetch {
    pub(super) const fn new(every: Duration, now: Instant) -> Self {
        Self {
            every,
            left: BURST,
            since: now,
            pending: None,
        }
    }

    /// A token names an unknown key: when a fetch for it may start.
    pub(super) fn want(&mut self, now: Instant) -> Instant {
        if let Some(at) = self.pending {
            return at;
        }
        self.give_back(now);
        let at = match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                now
            }
            // A permit that is given back then is spent.
            None => {
                self.since += self.every;
                self.since
            }
        };
        self.pending = Some(at);
        at
    }

    /// Returns the time at which the pending fetch may start, if there is one.
    pub(super) const fn pending(&self) -> Option<Instant> {
        self.pending
    }

    /// A fetch starts, for whatever reason: it answers the pending one.
    pub(super) const fn started(&mut self) {
        self.pending = None;
    }

    fn give_back(&mut self, now: Instant) {
        while self.left < BURST && self.since + self.every <= now {
            self.left += 1;
            self.since += self.every;
        }
        if self.left == BURST {
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EVERY: Duration = Duration::from_secs(5);

    #[test]
    fn keys_that_change_several_times_in_a_row_are_fetched_each_time_at_once() {
        let now = Instant::now();
        let mut refetch = Refetch::new(EVERY, now);
        for _ in 0..BURST {
            assert_eq!(refetch.want(now), now);
            refetch.started();
        }
        let next = now + EVERY;
        assert_eq!((refetch.want(now), refetch.pending()), (next, Some(next)));
        // Everyone who comes until it starts waits for the same one.
        assert_eq!(refetch.want(now + EVERY / 2), next);
        refetch.started();
        assert_eq!(refetch.want(next), next + EVERY);
    }

    #[test]
    fn what_is_not_spent_comes_back_up_to_the_burst() {
        let now = Instant::now();
        let mut refetch = Refetch::new(EVERY, now);
        for _ in 0..BURST {
            refetch.want(now);
            refetch.started();
        }
        let later = now + EVERY * 100;
        for _ in 0..BURST {
            assert_eq!(refetch.want(later), later);
            refetch.started();
        }
        assert!(refetch.want(later) > later);
    }

    proptest! {
        /// Any requests at any times: no more than the burst and one each `EVERY`, and nobody waits for longer than
        /// that.
        #[test]
        fn a_flood_is_bounded_and_everyone_is_answered(gaps_ms in proptest::collection::vec(prop_oneof![9 => 0u64..2_000, 1 => 0u64..100_000], 1..400)) {
            let begun = Instant::now();
            let mut now = begun;
            let mut refetch = Refetch::new(EVERY, begun);
            let mut fetches = 0;
            for gap in gaps_ms {
                now += Duration::from_millis(gap);
                if refetch.pending().is_some_and(|at| at <= now) {
                    refetch.started();
                    fetches += 1;
                }
                prop_assert!(refetch.want(now) <= now + EVERY);
            }
            let most = u64::from(BURST) + now.duration_since(begun).as_secs() / EVERY.as_secs();
            prop_assert!(fetches <= most, "{fetches} of {most}");
        }
    }
}
