//! The known relay nodes, and the order of attempts. Pure except for the jitter.

use super::backoff::Backoff;
use crate::net::Relay;
use skytale_proto::EndpointId;
use std::time::Duration;
use tokio::time::Instant;

/// Time after a failure during which a relay node comes behind those that did not fail.
const BEHIND: Duration = Duration::from_secs(60);
/// Shortest pause of a failed relay node, if there are others.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Relay nodes in their given order, nearest first, with the state of each.
#[derive(Debug)]
pub(super) struct Relays {
    pauses: (Duration, Duration),
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    relay: Relay,
    pause: Backoff,
    /// Time of its last failure, and end of the pause for it.
    failed: Option<(Instant, Instant)>,
    /// Whether it was reachable, and was left only because others might serve better.
    answered: bool,
}

impl Known {
    fn is_ready(&self, now: Instant) -> bool {
        self.failed.is_none_or(|(_, until)| until <= now)
    }

    fn is_behind(&self, now: Instant) -> bool {
        self.failed.is_some_and(|(at, until)| now < until.max(at + BEHIND))
    }
}

impl Relays {
    /// Creates an empty list. A failed relay node is paused for a time between these, which grows with each failure.
    pub(super) const fn new(pause_min: Duration, pause_max: Duration) -> Self {
        Self {
            pauses: (pause_min, pause_max),
            known: Vec::new(),
        }
    }

    /// Replaces the list. An empty list is ignored. A relay node that is in both, at the same addresses, keeps its
    /// state.
    pub(super) fn update(&mut self, relays: Vec<Relay>) {
        if relays.is_empty() {
            return;
        }
        let mut before = std::mem::take(&mut self.known);
        let shortest = match relays.len() {
            1 => self.pauses.0,
            _ => self.pauses.0.max(PAUSE_MIN),
        };
        for relay in relays {
            if self.known.iter().any(|known| known.relay.endpoint == relay.endpoint) {
                continue;
            }
            let known = before.iter().position(|known| known.relay == relay);
            self.known
                .push(known.map(|at| before.swap_remove(at)).unwrap_or_else(|| Known {
                    relay,
                    pause: Backoff::new(shortest, self.pauses.1.max(shortest)),
                    failed: None,
                    answered: false,
                }));
        }
    }

    /// Whether there are nodes other than this one.
    pub(super) fn are_there_others(&self, than: EndpointId) -> bool {
        self.known.iter().any(|known| known.relay.endpoint != than)
    }

    /// Returns the nodes that may be tried now, best first: in the given order, recently failed ones last.
    pub(super) fn ready(&self, now: Instant) -> Vec<Relay> {
        let mut ready: Vec<&Known> = self.known.iter().filter(|known| known.is_ready(now)).collect();
        ready.sort_by_key(|known| known.is_behind(now));
        ready.into_iter().map(|known| known.relay.clone()).collect()
    }

    /// Returns the nodes that may be tried without a session: the ready ones, then those that were left although they
    /// answered. Any session is better than none.
    pub(super) fn ready_or_left(&self, now: Instant) -> Vec<Relay> {
        let mut left: Vec<&Known> = self
            .known
            .iter()
            .filter(|known| known.answered && !known.is_ready(now))
            .collect();
        left.sort_by_key(|known| known.failed);
        let left = left.into_iter().map(|known| known.relay.clone());
        self.ready(now).into_iter().chain(left).collect()
    }

    /// Returns when the next node may be tried; `None` if none is known.
    pub(super) fn next_at(&self, now: Instant) -> Option<Instant> {
        let at = |known: &Known| known.failed.map_or(now, |(_, until)| until.max(now));
        self.known.iter().map(at).min()
    }

    /// Records a failure or a pause of a node. Returns the end of its pause. `asked` is a pause that it requested, or
    /// the shortest one.
    pub(super) fn failed(&mut self, relay: EndpointId, asked: Option<Duration>, now: Instant) -> Instant {
        let Some(known) = self.known.iter_mut().find(|known| known.relay.endpoint == relay) else {
            // No longer in the list.
            return now;
        };
        let until = now + known.pause.next(asked);
        known.failed = Some((now, until));
        known.answered = false;
        until
    }

    /// Pauses a node that answers, like one that [`failed`](Self::failed).
    pub(super) fn left(&mut self, relay: EndpointId, pause: Option<Duration>, now: Instant) {
        self.failed(relay, pause, now);
        if let Some(known) = self.known.iter_mut().find(|known| known.relay.endpoint == relay) {
            known.answered = true;
        }
    }

    /// Records that a node has worked for a while: its next pause is short again.
    pub(super) fn worked(&mut self, relay: EndpointId) {
        if let Some(known) = self.known.iter_mut().find(|known| known.relay.endpoint == relay) {
            known.pause.reset();
            known.failed = None;
            known.answered = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn relay(number: u8) -> Relay {
        Relay {
            endpoint: EndpointId::from_bytes([number; 32]),
            addresses: vec![([192, 0, 2, number], 7_600).into()],
            https_url: None,
        }
    }

    fn relays(numbers: &[u8]) -> Relays {
        let mut relays = Relays::new(Duration::from_millis(100), Duration::from_secs(30));
        relays.update(numbers.iter().copied().map(relay).collect());
        relays
    }

    fn numbers(relays: &[Relay]) -> Vec<u8> {
        relays.iter().map(|relay| relay.endpoint.as_bytes()[0]).collect()
    }

    #[test]
    fn an_empty_list_keeps_the_one_that_is_known() {
        let mut relays = relays(&[1, 2]);
        relays.update(Vec::new());
        assert_eq!(numbers(&relays.ready(Instant::now())), [1, 2]);
    }

    #[test]
    fn one_that_failed_waits_and_then_stands_behind_the_others_until_that_is_long_ago() {
        let (mut relays, now) = (relays(&[1, 2, 3]), Instant::now());
        let until = relays.failed(relay(1).endpoint, None, now);
        assert!(until >= now + PAUSE_MIN / 2, "one of several is given time");
        assert_eq!(numbers(&relays.ready(now)), [2, 3]);
        assert_eq!(numbers(&relays.ready(until)), [2, 3, 1]);
        assert_eq!(numbers(&relays.ready(now + BEHIND)), [1, 2, 3]);
        relays.worked(relay(1).endpoint);
        assert_eq!(numbers(&relays.ready(now)), [1, 2, 3]);
    }

    #[test]
    fn one_that_was_left_and_answers_is_better_than_none() {
        let (mut relays, now) = (relays(&[1, 2, 3]), Instant::now());
        let pause = Some(Duration::from_secs(20));
        relays.left(relay(2).endpoint, pause, now);
        relays.left(relay(1).endpoint, pause, now + Duration::from_secs(1));
        let now = now + Duration::from_secs(2);
        assert_eq!(numbers(&relays.ready(now)), [3]);
        assert_eq!(
            numbers(&relays.ready_or_left(now)),
            [3, 2, 1],
            "the one left first comes first"
        );
        relays.failed(relay(3).endpoint, None, now);
        relays.failed(relay(2).endpoint, None, now);
        assert_eq!(
            numbers(&relays.ready_or_left(now)),
            [1],
            "those that did not answer have their pause"
        );
        assert_eq!(relays.ready(now), []);
    }

    #[test]
    fn pauses_grow_and_one_that_stands_alone_is_tried_again_soon() {
        let (mut alone, now) = (relays(&[1]), Instant::now());
        assert!(alone.failed(relay(1).endpoint, None, now) <= now + Duration::from_millis(100));
        assert!(alone.ready(now).is_empty());
        assert!(alone.next_at(now).is_some_and(|at| at > now));
        let pauses: Vec<_> = (0..20)
            .map(|_| alone.failed(relay(1).endpoint, None, now) - now)
            .collect();
        assert!(pauses[19] >= Duration::from_secs(15) && pauses.iter().all(|pause| *pause <= Duration::from_secs(30)));
        assert_eq!(relays(&[]).next_at(now), None);
    }

    #[test]
    fn a_new_list_brings_its_order_and_a_moved_node_a_new_chance() {
        let (mut relays, now) = (relays(&[1, 2, 3]), Instant::now());
        for number in [1, 2] {
            relays.failed(relay(number).endpoint, None, now);
        }
        let mut moved = relay(2);
        moved.addresses = vec![([192, 0, 2, 99], 7_600).into()];
        relays.update(vec![relay(4), moved.clone(), relay(1), moved]);
        assert_eq!(numbers(&relays.ready(now)), [4, 2], "1 still waits, 3 is gone");
        assert!(relays.are_there_others(relay(4).endpoint));
        assert_eq!(relays.failed(relay(3).endpoint, None, now), now);
    }

    proptest! {
        #[test]
        fn each_one_known_is_either_ready_or_will_be(steps in proptest::collection::vec((0..6u8, any::<bool>(), 0..5_000u64), 0..60)) {
            let (mut relays, mut now) = (relays(&[1, 2, 3, 4]), Instant::now());
            for (number, fails, pass_ms) in steps {
                if fails {
                    relays.failed(relay(number).endpoint, None, now);
                } else {
                    relays.worked(relay(number).endpoint);
                }
                now += Duration::from_millis(pass_ms);
                let mut ready = numbers(&relays.ready(now));
                prop_assert_eq!(relays.next_at(now) == Some(now), !ready.is_empty());
                ready.sort_unstable();
                ready.dedup();
                prop_assert_eq!(ready.len(), relays.ready(now).len());
                let later = now + Duration::from_secs(31);
                prop_assert_eq!(relays.ready(later).len(), 4);
            }
        }
    }
}
