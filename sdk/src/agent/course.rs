//! Choice of the next relay node, and its time: after a session, after failed attempts, when one is to be left. Pure
//! except for the jitter of its delays.
//!
//! ```text
//!   seek ──round of attempts──> session ──lost───────> seek, soon
//!    ^          │ none                │ ──trouble────> another first, if one may be tried
//!    └─ pause ──┘                     └─ draining ───> another first, until the deadline
//! ```

use super::backoff::Backoff;
use super::relays::Relays;
use crate::net::{Relay, RelayError};
use skytale_proto::{Code, EndpointId};
use std::time::Duration;
use tokio::time::Instant;

/// Length of a good session, after which earlier failures are forgotten.
const SESSION_GOOD: Duration = Duration::from_secs(5);
/// Longest time before a draining relay node is left if there is no other.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(2);
/// Pause of a drained relay node, if there are others.
const DRAINED_PAUSE: Duration = Duration::from_secs(2);
/// Shortest pause of a relay node that was left for its refusals or its silence; doubled each time the next one was no
/// better.
const TROUBLE_PAUSE: Duration = Duration::from_secs(5);
/// The longest such pause.
const TROUBLE_PAUSE_MAX: Duration = Duration::from_secs(60);

/// The known relay nodes, with the state of each and of its sessions.
#[derive(Debug)]
pub(super) struct Course {
    relays: Relays,
    pauses: (Duration, Duration),
    backoff: Backoff,
    /// Number of consecutive sessions left because their relay node refused or did not answer.
    troubles: u32,
    /// Whether the last session was a good one.
    was_good: bool,
}

/// Result of a round of attempts without a session.
#[derive(Debug)]
pub(super) struct Missed {
    pub(super) error: RelayError,
    /// Whether all refused, for reasons that stay the same in the next round.
    pub(super) for_good: bool,
    /// Time at which another round is worthwhile; `None` if no relay node is known.
    pub(super) again_at: Option<Instant>,
}

/// End of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    /// It was lost.
    Lost,
    /// The work moved to another one.
    Moved,
}

/// Actions at the end of a session, besides trying the next relay node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AfterSession {
    /// Whether to request a new token.
    pub(super) renew_token: bool,
}

/// Action after a lost session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterLoss {
    /// Reconnect at once, except for the jitter: a relay node's agents must not all reconnect at the same moment.
    Soon,
    /// Reconnect after this time: other relay nodes may have the reason for its end, too.
    After {
        pause: Duration,
        /// Whether no session is possible as things are.
        for_good: bool,
    },
}

impl Course {
    /// Creates an empty state. Pauses are between these limits, and grow.
    pub(super) const fn new(pause_min: Duration, pause_max: Duration) -> Self {
        Self {
            relays: Relays::new(pause_min, pause_max),
            pauses: (pause_min, pause_max),
            backoff: Backoff::new(pause_min, pause_max),
            troubles: 0,
            was_good: false,
        }
    }

    // ---- which

    /// Takes a list of relay nodes, and returns those that may be tried now, best first. `except` is the node that
    /// serves now, and is left out. If no node serves now, nodes that were left although they answered come last.
    pub(super) fn ready(&mut self, list: Vec<Relay>, except: Option<EndpointId>, now: Instant) -> Vec<Relay> {
        self.relays.update(list);
        let Some(here) = except else {
            return self.relays.ready_or_left(now);
        };
        let mut ready = self.relays.ready(now);
        ready.retain(|relay| relay.endpoint != here);
        ready
    }

    /// Whether there are nodes other than this one.
    pub(super) fn are_there_others(&self, than: EndpointId) -> bool {
        self.relays.are_there_others(than)
    }

    /// Whether a node other than `here` may be tried now. If all of them were tried a moment ago, this one is as good.
    pub(super) fn may_move(&self, here: EndpointId, now: Instant) -> bool {
        self.relays.ready(now).iter().any(|relay| relay.endpoint != here)
    }

    /// Returns until when to look for another relay node, if the present one stops `within` a time.
    pub(super) fn drain_until(within: Duration, now: Instant) -> Instant {
        now + (within / 2).min(DRAIN_WAIT_MAX)
    }

    /// Returns when to look again after a round without success; `None` if that is too late.
    pub(super) fn look_again_at(&self, missed: &Missed, deadline: Instant, now: Instant) -> Option<Instant> {
        let again_at = missed.again_at.unwrap_or(deadline).max(now + self.pauses.0);
        (again_at < deadline).then_some(again_at)
    }

    // ---- what happened

    /// Records that a relay node was unreachable, or started no session. Returns the end of its pause.
    pub(super) fn on_failed(&mut self, relay: EndpointId, error: &RelayError, now: Instant) -> Instant {
        self.relays.failed(relay, error.retry_after(), now)
    }

    /// Handles a failed round of attempts, with its errors. `token_is_fresh`: a refused token, if any, was the newest.
    pub(super) fn on_round_failed(&self, mut errors: Vec<RelayError>, token_is_fresh: bool, now: Instant) -> Missed {
        let no = |error: &RelayError| !error.is_retryable() && (token_is_fresh || !is_about_the_token(error.code()));
        let for_good = !errors.is_empty() && errors.iter().all(no);
        if let Some(at) = errors.iter().position(|error| is_about_the_token(error.code())) {
            errors.swap(0, at);
        }
        Missed {
            for_good,
            again_at: self.relays.next_at(now),
            error: errors.into_iter().next().unwrap_or_else(|| RelayError::Unreachable {
                reason: "the relay directory names no relay node that may be tried now".into(),
            }),
        }
    }

    /// Handles a round without a session. Returns the delay before the next one.
    pub(super) fn on_missed(&mut self, missed: &Missed, now: Instant) -> Duration {
        let error = &missed.error;
        match missed.again_at {
            _ if !error.is_retryable() => self.backoff.longest(error.retry_after()),
            Some(at) => at.saturating_duration_since(now),
            None => self.backoff.next(error.retry_after()),
        }
    }

    /// Records that a search has found a session.
    pub(super) const fn on_session(&mut self) {
        self.backoff.reset();
    }

    /// Judges the relay node and the token by the end of a session.
    pub(super) fn on_session_end(
        &mut self,
        relay: EndpointId,
        parting: Parting,
        error: &RelayError,
        lasted: Duration,
        now: Instant,
    ) -> AfterSession {
        let was_good = lasted >= SESSION_GOOD;
        self.was_good = was_good;
        let is_trouble = parting == Parting::Moved && error.code() != Code::Draining;
        let troubles = self.troubles.min(16);
        self.troubles = match is_trouble {
            true => self.troubles.saturating_add(1),
            false => 0,
        };
        let renew_token = is_about_the_token(error.code());
        if renew_token && was_good {
            return AfterSession { renew_token };
        }
        if was_good && !is_trouble {
            self.relays.worked(relay);
        }
        let pause = match error.code() {
            _ if !self.relays.are_there_others(relay) => None,
            Code::Draining => Some(DRAINED_PAUSE),
            _ if is_trouble => Some(TROUBLE_PAUSE.saturating_mul(1 << troubles).min(TROUBLE_PAUSE_MAX)),
            _ => None,
        };
        let pause = pause.max(error.retry_after());
        if is_trouble && was_good {
            self.relays.left(relay, pause, now);
        } else {
            self.relays.failed(relay, pause, now);
        }
        AfterSession { renew_token }
    }

    /// Decides what to do after a lost session.
    pub(super) fn on_lost(&mut self, error: &RelayError) -> AfterLoss {
        // A new token may help: the provider says at once if there will be none.
        let is_about_the_token = is_about_the_token(error.code());
        if error.is_retryable() || (is_about_the_token && self.was_good) {
            return AfterLoss::Soon;
        }
        AfterLoss::After {
            pause: self.backoff.longest(error.retry_after()),
            for_good: !is_about_the_token,
        }
    }
}

/// Whether a new token may help.
pub(super) const fn is_about_the_token(code: Code) -> bool {
    matches!(code.number(), 3_001..=3_999)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::relay::Refused;
    use skytale_proto::Offset;

    const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

    fn relay(number: u8) -> Relay {
        Relay {
            endpoint: EndpointId::from_bytes([number; 32]),
            addresses: vec![([192, 0, 2, number], 7_600).into()],
            https_url: None,
        }
    }

    fn course(numbers: &[u8], now: Instant) -> Course {
        let mut course = Course::new(PAUSES.0, PAUSES.1);
        let list: Vec<_> = numbers.iter().copied().map(relay).collect();
        assert_eq!(course.ready(list.clone(), None, now), list);
        course
    }

    /// Those for an agent that has a session.
    fn numbers(course: &mut Course, now: Instant) -> Vec<u8> {
        let ready = course.ready(Vec::new(), Some(relay(99).endpoint), now);
        ready.iter().map(|relay| relay.endpoint.as_bytes()[0]).collect()
    }

    fn refused(code: Code) -> RelayError {
        RelayError::Refused(Refused {
            number: code.number(),
            message: "for a test".into(),
            retryable: code.is_retryable(),
            retry_after: None,
            offset: Offset::ZERO,
            agent: None,
        })
    }

    fn unreachable() -> RelayError {
        RelayError::Unreachable {
            reason: "for a test".into(),
        }
    }

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn it_is_for_good_only_if_everyone_says_so_and_another_token_would_not_help() {
        let now = Instant::now();
        let course = course(&[1, 2], now);
        let missed = |errors: &[RelayError], fresh| {
            let missed = course.on_round_failed(errors.to_vec(), fresh, now);
            (missed.error.code(), missed.for_good)
        };
        let revoked = refused(Code::TokenRevoked);
        assert_eq!(missed(&[], true), (Code::Offline, false));
        assert_eq!(missed(&[unreachable(), unreachable()], true), (Code::Offline, false));
        assert_eq!(
            missed(&[unreachable(), revoked.clone()], true),
            (Code::TokenRevoked, false)
        );
        assert_eq!(
            missed(&[revoked.clone(), revoked.clone()], true),
            (Code::TokenRevoked, true)
        );
        assert_eq!(missed(&[revoked], false), (Code::TokenRevoked, false));
        assert_eq!(
            missed(&[refused(Code::MessageMalformed)], false),
            (Code::MessageMalformed, true)
        );
    }

    #[test]
    fn rounds_are_as_far_apart_as_what_failed_says() {
        let now = Instant::now();
        let mut course = course(&[1], now);
        let missed = |error, again_at| Missed {
            error,
            for_good: false,
            again_at,
        };
        let at = now + Duration::from_secs(3);
        assert_eq!(
            course.on_missed(&missed(unreachable(), Some(at)), now),
            Duration::from_secs(3)
        );
        assert_eq!(
            course.on_missed(&missed(unreachable(), Some(now)), now + LONG),
            Duration::ZERO
        );
        assert!(course.on_missed(&missed(unreachable(), None), now) <= PAUSES.0);
        let long = course.on_missed(&missed(refused(Code::TokenAudience), Some(now)), now);
        assert!(long >= PAUSES.1 / 2 && long <= PAUSES.1, "{long:?}");
    }

    #[test]
    fn a_relay_node_that_was_left_for_its_trouble_is_left_alone_longer_each_time() {
        let mut now = Instant::now();
        let mut course = course(&[1, 2], now);
        let silent = RelayError::Unanswered {
            what: "a verdict",
            waited: LONG,
        };
        let mut last = Duration::ZERO;
        for _ in 0..4 {
            course.on_session_end(relay(1).endpoint, Parting::Moved, &silent, LONG, now);
            assert_eq!(numbers(&mut course, now), [2]);
            let mut pause = Duration::ZERO;
            while numbers(&mut course, now + pause) == [2] {
                pause += Duration::from_secs(1);
            }
            assert!(
                pause > last && pause <= TROUBLE_PAUSE_MAX + Duration::from_secs(1),
                "{pause:?}"
            );
            (last, now) = (pause, now + pause);
        }
        // A session that is lost is no trouble: the next one may be with any of them, and soon.
        assert_eq!(course.on_lost(&unreachable()), AfterLoss::Soon);
        course.on_session_end(relay(1).endpoint, Parting::Lost, &unreachable(), LONG, now);
        assert_eq!(numbers(&mut course, now + Duration::from_secs(2)).len(), 2);
    }

    #[test]
    fn without_a_session_one_that_was_left_for_its_trouble_is_tried_at_once() {
        let mut now = Instant::now();
        let mut course = course(&[1, 2], now);
        let homeless = refused(Code::HomeUnreachable);
        for number in [1, 2, 1, 2] {
            course.on_session_end(relay(number).endpoint, Parting::Moved, &homeless, LONG, now);
            now += TROUBLE_PAUSE;
        }
        let seeking = |course: &mut Course| {
            let ready = course.ready(Vec::new(), None, now);
            ready
                .iter()
                .map(|relay| relay.endpoint.as_bytes()[0])
                .collect::<Vec<_>>()
        };
        assert_eq!(numbers(&mut course, now), [] as [u8; 0], "no reason to move");
        assert_eq!(seeking(&mut course), [1, 2]);
        // Not one that ends each session at once, or is not reached.
        course.on_session_end(relay(1).endpoint, Parting::Moved, &homeless, Duration::ZERO, now);
        assert_eq!(seeking(&mut course), [2]);
        course.on_failed(relay(2).endpoint, &unreachable(), now);
        assert_eq!(seeking(&mut course), [] as [u8; 0]);
    }

    #[test]
    fn a_token_that_was_refused_says_nothing_of_a_relay_node_that_was_good() {
        let now = Instant::now();
        let mut course = course(&[1, 2], now);
        let expired = refused(Code::TokenExpired);
        let after = course.on_session_end(relay(1).endpoint, Parting::Lost, &expired, LONG, now);
        assert!(after.renew_token);
        assert_eq!(numbers(&mut course, now), [1, 2]);
        let after = course.on_session_end(relay(1).endpoint, Parting::Lost, &expired, Duration::ZERO, now);
        assert!(after.renew_token);
        assert_eq!(numbers(&mut course, now), [2], "one that ends each session at once is");
    }

    #[test]
    fn an_agent_whose_session_another_process_took_does_not_take_it_back_at_once() {
        let now = Instant::now();
        let mut course = course(&[1, 2], now);
        let after = course.on_lost(&refused(Code::SessionReplaced));
        assert!(
            matches!(after, AfterLoss::After { pause, for_good: true } if pause >= PAUSES.1 / 2),
            "{after:?}"
        );
        let after = course.on_lost(&refused(Code::TokenRevoked));
        assert!(matches!(after, AfterLoss::After { for_good: false, .. }), "{after:?}");
    }

    #[test]
    fn after_a_good_session_that_its_token_ended_another_token_is_asked_for_at_once() {
        let now = Instant::now();
        let mut course = course(&[1], now);
        let revoked = refused(Code::TokenRevoked);
        course.on_session_end(relay(1).endpoint, Parting::Lost, &revoked, LONG, now);
        assert_eq!(course.on_lost(&revoked), AfterLoss::Soon);
        // And not again and again, where the next session ends at once, too.
        course.on_session_end(relay(1).endpoint, Parting::Lost, &revoked, Duration::ZERO, now);
        assert!(matches!(course.on_lost(&revoked), AfterLoss::After { .. }));
    }

    #[test]
    fn a_relay_node_that_drains_is_left_in_time_for_another_or_for_none() {
        let now = Instant::now();
        let (mut two, one) = (course(&[1, 2], now), course(&[1], now));
        let (first, second) = (relay(1).endpoint, relay(2).endpoint);
        assert!(two.are_there_others(first) && two.may_move(first, now));
        assert!(!one.are_there_others(first) && !one.may_move(first, now));
        assert_eq!(
            Course::drain_until(Duration::from_secs(1), now),
            now + Duration::from_millis(500)
        );
        let deadline = Course::drain_until(LONG, now);
        assert_eq!(deadline, now + DRAIN_WAIT_MAX);
        // The other one is tried again as long as there is time, and not in a tight loop.
        let missed = |again_at| Missed {
            error: unreachable(),
            for_good: false,
            again_at,
        };
        assert_eq!(
            two.look_again_at(&missed(Some(now)), deadline, now),
            Some(now + PAUSES.0)
        );
        assert_eq!(two.look_again_at(&missed(Some(deadline)), deadline, now), None);
        assert_eq!(two.look_again_at(&missed(None), deadline, now), None);
        two.on_failed(second, &unreachable(), now);
        assert!(!two.may_move(first, now), "it was tried a moment ago");
        assert!(two.may_move(first, now + PAUSES.1));
        // And the one that drained is left alone for a moment.
        let draining = refused(Code::Draining);
        two.on_session_end(first, Parting::Moved, &draining, LONG, now);
        assert!(!numbers(&mut two, now).contains(&1));
    }
}
