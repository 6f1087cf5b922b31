//! State machines of the agent's own log, and of the joins that it points to. Pure except for the jitter of their
//! delays.
//!
//! ```text
//!   agent log:  subscribe ──entries──> engine ──> bundles that are to be fetched
//!                   ^         │ refused, vault failed: again after a pause
//!                   └─────────┘ gone, or a gap: the session ends
//!
//!   joins:      each bundle ──fetched──> joined
//!                   ^    │ refused for good: given up
//!                   └────┘ else: again after a pause, or when there are more
//! ```

use super::super::backoff::Backoff;
use super::super::refusals::{Counted, Refusals};
use crate::engine::PendingJoin;
use crate::net::RelayError;
use skytale_proto::{ChannelId, Code, Offset};
use std::collections::HashMap;
use std::time::Duration;

/// Delays between attempts to read the agent's log, or a bundle.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Interval at which the vault is checked even without bundles to fetch.
const IDLE: Duration = Duration::from_secs(3_600);

/// The agent's own log in one session.
#[derive(Debug)]
pub(super) struct LogState {
    backoff: Backoff,
    refusals: Refusals,
    /// Number of consecutive reports of the relay node that the log is shorter than this agent's cursor.
    short: u32,
}

/// Number of consecutive refusals for one reason after which it is considered permanent: a relay node may only lag, and
/// another one may be tried meanwhile.
const BORNE: u32 = 4;

/// Decision after the end of the subscription to the agent's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogDecision {
    /// Subscribe again after the last entry processed.
    Again {
        /// Delay before the retry.
        pause: Duration,
        /// Report to the application.
        tell: Tell,
        /// Whether to look for another relay node.
        move_on: bool,
    },
    /// The session is useless.
    EndSession,
}

/// Report of a failure to the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tell {
    Nothing,
    Refused,
    VaultFailed,
}

impl LogState {
    pub(super) const fn new() -> Self {
        Self {
            backoff: Backoff::new(RETRY.0, RETRY.1),
            refusals: Refusals::new(),
            short: 0,
        }
    }

    /// Whether the log is permanently shorter than this agent's cursor: then nothing waits for it.
    pub(super) const fn is_short(&self) -> bool {
        self.short >= BORNE
    }

    /// Handles new entries, or that the head was reached.
    pub(super) const fn on_item(&mut self) {
        self.short = 0;
        self.backoff.reset();
        self.refusals.reset();
    }

    /// Handles that the subscription has ended, or did not start, by its code.
    pub(super) fn on_end(&mut self, error: &RelayError) -> LogDecision {
        match error.refused().map(|refused| refused.code()) {
            Some(Code::CursorBeyondHead) => self.short = self.short.saturating_add(1),
            _ => self.short = 0,
        }
        match error {
            // The end of the session reports it.
            RelayError::Refused(refused) if refused.code() == Code::Draining => LogDecision::Again {
                pause: self.backoff.next(refused.retry_after),
                tell: Tell::Nothing,
                move_on: false,
            },
            RelayError::Refused(refused) => LogDecision::Again {
                move_on: self.refusals.count(refused.code()) == Counted::TooMany,
                pause: self.backoff.next(refused.retry_after),
                tell: Tell::Refused,
            },
            RelayError::Local { .. } => LogDecision::Again {
                pause: self.backoff.next(None),
                tell: Tell::VaultFailed,
                move_on: false,
            },
            _ => LogDecision::EndSession,
        }
    }
}

/// The bundles to be fetched, in one session.
#[derive(Debug)]
pub(super) struct JoinsState {
    backoff: Backoff,
    refusals: Refusals,
    /// Whether a bundle of this round must be retried.
    failed: bool,
    /// Number of consecutive refusals of a bundle with the same code.
    refused: HashMap<(ChannelId, Offset), (Code, u32)>,
}

/// Decision about a bundle that was not fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FetchDecision {
    /// Give up: it is permanently gone.
    GiveUp,
    /// Retry.
    Again {
        /// Whether to report it to the application.
        tell: bool,
        /// Whether to look for another relay node.
        move_on: bool,
    },
}

impl JoinsState {
    pub(super) fn new() -> Self {
        Self {
            backoff: Backoff::new(RETRY.0, RETRY.1),
            refusals: Refusals::new(),
            failed: false,
            refused: HashMap::new(),
        }
    }

    /// Records a refusal of a bundle. Returns whether it is permanent: then nothing waits for it, and it is retried
    /// rarely.
    pub(super) fn lasts(&mut self, join: PendingJoin, code: Code) -> bool {
        let may_last = matches!(
            code,
            Code::CursorBeyondHead | Code::UnknownLog | Code::NotMember | Code::StoreCorrupt
        );
        let key = (join.channel, join.offset);
        if !may_last {
            self.refused.remove(&key);
            return false;
        }
        let counted = self.refused.entry(key).or_insert((code, 0));
        *counted = match *counted {
            (before, count) if before == code => (code, count.saturating_add(1)),
            _ => (code, 1),
        };
        counted.1 >= BORNE
    }

    /// Handles that a bundle was fetched, and is no longer pending.
    pub(super) const fn on_fetched(&mut self) {
        self.refusals.reset();
    }

    /// Handles that a bundle was not fetched; `None` if it timed out.
    pub(super) fn on_not_fetched(&mut self, error: Option<&RelayError>) -> FetchDecision {
        let refused = error.and_then(RelayError::refused).map(|refused| refused.code());
        // If a relay refuses it for another reason, another relay may have it.
        if refused == Some(Code::Trimmed) {
            return FetchDecision::GiveUp;
        }
        self.failed = true;
        match refused {
            // The end of the session reports it.
            None | Some(Code::Draining) => FetchDecision::Again {
                tell: false,
                move_on: false,
            },
            Some(code) => FetchDecision::Again {
                tell: true,
                move_on: self.refusals.count(code) == Counted::TooMany,
            },
        }
    }

    /// Handles a failure of the vault: the round is retried.
    pub(super) const fn on_vault_failed(&mut self) {
        self.failed = true;
    }

    /// Handles that all pending bundles, this many, have been tried. Returns how long to wait for more; `None`: look
    /// again at once.
    pub(super) fn on_round(&mut self, pending: usize) -> Option<Duration> {
        if std::mem::take(&mut self.failed) {
            return Some(self.backoff.next(None));
        }
        self.backoff.reset();
        (pending == 0).then_some(IDLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::relay::Refused;

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

    fn vault() -> RelayError {
        RelayError::Local {
            code: Code::VaultIo,
            reason: "for a test".into(),
        }
    }

    fn lost() -> RelayError {
        RelayError::Lost {
            code: Code::Offline,
            reason: "for a test".into(),
        }
    }

    fn gap() -> RelayError {
        RelayError::Gap {
            expected: Offset::new(3),
            found: Offset::new(5),
        }
    }

    #[test]
    fn the_agents_log_is_asked_for_again_unless_the_session_is_of_no_more_use() {
        let decide = |error: &RelayError| LogState::new().on_end(error);
        let told = |decision| match decision {
            LogDecision::Again { tell, move_on, pause } => {
                assert!(!move_on && pause > Duration::ZERO && pause <= RETRY.0);
                Some(tell)
            }
            LogDecision::EndSession => None,
        };
        assert_eq!(told(decide(&refused(Code::Draining))), Some(Tell::Nothing));
        assert_eq!(told(decide(&refused(Code::CatchingUp))), Some(Tell::Refused));
        assert_eq!(told(decide(&refused(Code::Trimmed))), Some(Tell::Refused));
        assert_eq!(told(decide(&vault())), Some(Tell::VaultFailed));
        assert_eq!(told(decide(&gap())), None);
        assert_eq!(told(decide(&lost())), None);
    }

    #[test]
    fn a_relay_node_that_refuses_the_agents_log_again_and_again_is_left() {
        let mut state = LogState::new();
        let mut moves = || {
            matches!(
                state.on_end(&refused(Code::CatchingUp)),
                LogDecision::Again { move_on: true, .. }
            )
        };
        assert_eq!([moves(), moves(), moves()], [false, false, true]);
        state.on_item();
        let decision = state.on_end(&refused(Code::CatchingUp));
        assert!(matches!(decision, LogDecision::Again { move_on: false, pause, .. } if pause <= RETRY.0));
    }

    #[test]
    fn a_bundle_that_is_gone_is_given_up_and_no_other() {
        let mut state = JoinsState::new();
        assert_eq!(
            state.on_not_fetched(Some(&refused(Code::Trimmed))),
            FetchDecision::GiveUp
        );
        assert_eq!(state.on_round(1), None, "the next may be there");
        let quiet = FetchDecision::Again {
            tell: false,
            move_on: false,
        };
        for error in [Some(&refused(Code::Draining)), Some(&lost()), Some(&gap()), None] {
            assert_eq!(state.on_not_fetched(error), quiet);
            let pause = state.on_round(1).expect("a pause");
            assert!(pause > Duration::ZERO && pause < IDLE);
        }
        let told = FetchDecision::Again {
            tell: true,
            move_on: false,
        };
        assert_eq!(state.on_not_fetched(Some(&refused(Code::NotMember))), told);
    }

    #[test]
    fn a_log_or_a_bundle_that_is_refused_again_and_again_is_waited_for_no_longer() {
        let mut state = LogState::new();
        for _ in 1..BORNE {
            state.on_end(&refused(Code::CursorBeyondHead));
            assert!(!state.is_short());
        }
        state.on_end(&refused(Code::CursorBeyondHead));
        assert!(state.is_short());
        state.on_end(&refused(Code::CatchingUp));
        assert!(!state.is_short());

        let mut state = JoinsState::new();
        let join = |offset| PendingJoin {
            channel: ChannelId::from_bytes([1; 16]),
            offset: Offset::new(offset),
        };
        for _ in 1..BORNE {
            assert!(!state.lasts(join(1), Code::UnknownLog));
        }
        assert!(!state.lasts(join(2), Code::UnknownLog), "each for itself");
        assert!(state.lasts(join(1), Code::UnknownLog));
        assert!(!state.lasts(join(1), Code::CursorBeyondHead), "another reason");
        for _ in 0..2 * BORNE {
            assert!(!state.lasts(join(3), Code::CatchingUp), "that passes");
        }
    }

    #[test]
    fn bundles_are_fetched_one_after_the_other_and_then_waited_for() {
        let mut state = JoinsState::new();
        state.on_fetched();
        assert_eq!(state.on_round(2), None);
        assert_eq!(state.on_round(0), Some(IDLE));
        // A failed bundle does not block the others, and is retried after a while.
        state.on_not_fetched(None);
        state.on_fetched();
        assert!(state.on_round(2).is_some_and(|pause| pause <= RETRY.0));
        state.on_vault_failed();
        assert!(state.on_round(0).is_some_and(|pause| pause < IDLE));
    }
}
