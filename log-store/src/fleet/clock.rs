//! Time in a fleet: the one that a majority of clocks has reached.
//!
//! Every node hears the clocks of the others and of the NATS servers, each as so many milliseconds ahead of its own. The
//! middle one of these and its own (the lower one, of an even number) is the fleet's time: something is due by the fleet's
//! time exactly if it is due by more than half of the clocks. So no single clock, ahead by whatever, makes anything old.
//!
//! A node knows that its own clock is wrong where more than half of all clocks agree with each other and not with it.

use super::metrics;
use super::node::Node;
use super::peers::NodeNumber;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Time for which a clock counts after it was heard. Servers are asked one after the other.
const COUNTS_FOR: Duration = Duration::from_secs(60);
/// Clocks that are remembered, at most.
const VOICES_MAX: usize = 2_048;

/// Owner of a clock.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Voice {
    /// Another node's.
    Node(NodeNumber),
    /// A NATS server's, by its name.
    Server(String),
}

/// The clocks that were heard.
pub(super) struct Clocks {
    /// Clocks that are not further apart agree.
    tolerance_ms: i64,
    /// Offset of each from this node's clock, in milliseconds, positive if it is ahead, and the time at which it was
    /// heard.
    voices: BTreeMap<Voice, (i64, Instant)>,
}

/// Result of a comparison of the clocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    /// Offset of the fleet's time from this node's clock, positive if it is ahead.
    pub(super) ahead_ms: i64,
    /// More than half of all clocks agree on that.
    pub(super) is_agreed: bool,
    /// More than half of all clocks agree on that, and this node's does not.
    pub(super) is_wrong: bool,
    /// Servers whose clocks do not agree with the fleet's time, and how far they are ahead of it.
    pub(super) wrong_servers: Vec<(String, i64)>,
}

impl Clocks {
    pub(super) fn new(tolerance: Duration) -> Self {
        Self {
            tolerance_ms: i64::try_from(tolerance.as_millis()).unwrap_or(i64::MAX),
            voices: BTreeMap::new(),
        }
    }

    /// A clock showed `time_ms` when this node's showed `now_ms`.
    pub(super) fn hear(&mut self, voice: Voice, time_ms: u64, now_ms: u64) {
        self.voices.retain(|_, (_, heard)| heard.elapsed() < COUNTS_FOR);
        if self.voices.len() < VOICES_MAX || self.voices.contains_key(&voice) {
            let ahead = i128::from(time_ms) - i128::from(now_ms);
            let ahead = i64::try_from(ahead).unwrap_or(if ahead > 0 { i64::MAX } else { i64::MIN });
            self.voices.insert(voice, (ahead, Instant::now()));
        }
    }

    /// Returns their current judgement. `None` if no other clock is known. `None` where no other clock is known.
    pub(super) fn judge(&self) -> Option<Judgement> {
        let counting = || {
            let voices = self.voices.iter();
            voices.filter(|(_, (_, heard))| heard.elapsed() < COUNTS_FOR)
        };
        let mut all: Vec<i64> = counting().map(|(_, (ahead, _))| *ahead).collect();
        if all.is_empty() {
            return None;
        }
        // Its own.
        all.push(0);
        all.sort_unstable();
        let middle = all[(all.len() - 1) / 2];
        let agrees = |ahead: i64| ahead.abs_diff(middle) <= self.tolerance_ms.unsigned_abs();
        let agreeing = all.iter().filter(|ahead| agrees(**ahead)).count();
        let settled = 2 * agreeing > all.len();
        let wrong_servers = counting().filter_map(|(voice, (ahead, _))| match voice {
            Voice::Server(name) if settled && !agrees(*ahead) => Some((name.clone(), ahead.saturating_sub(middle))),
            _ => None,
        });
        Some(Judgement {
            ahead_ms: middle,
            is_agreed: settled,
            is_wrong: settled && !agrees(0),
            wrong_servers: wrong_servers.collect(),
        })
    }
}

/// A time between clocks in words: `41 min ahead of`.
pub(super) fn difference(ahead_ms: i64) -> String {
    let seconds = ahead_ms.unsigned_abs().saturating_add(500) / 1_000;
    let rounded = |unit: u64| (seconds + unit / 2) / unit;
    let (count, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7_200 => (rounded(60), "min"),
        7_200..172_800 => (rounded(3_600), "h"),
        _ => (rounded(86_400), "days"),
    };
    format!("{count} {unit} {}", if ahead_ms < 0 { "behind" } else { "ahead of" })
}

impl Node {
    /// The fleet's time, unix milliseconds; `None` where no other clock is known, or this node's is wrong: then it decides
    /// nothing by time.
    pub(super) fn fleet_now_ms(&self) -> Option<u64> {
        let judged = self.peers.clocks.lock().judge()?;
        (!judged.is_wrong).then(|| self.config.now_ms().saturating_add_signed(judged.ahead_ms))
    }

    /// Notes the clocks' judgement, for the node's health.
    pub(super) fn judge_clocks(&self) {
        let judged = self.peers.clocks.lock().judge();
        let mut shown = self.clocks.lock();
        if let Some(judged) = &judged {
            metrics::clock_ahead(-judged.ahead_ms);
            if judged.is_wrong && !shown.as_ref().is_some_and(|before| before.is_wrong) {
                tracing::error!(
                    "this node's clock is {} the fleet's: set it (NTP); until then this node gives nothing up",
                    difference(judged.ahead_ms.saturating_neg())
                );
            }
            let before = shown.as_ref().map_or(0, |before| before.wrong_servers.len());
            if judged.wrong_servers.len() > before {
                for (server, ahead) in &judged.wrong_servers {
                    tracing::warn!(%server, "this NATS server's clock is {} the fleet's", difference(*ahead));
                }
            }
        }
        *shown = judged;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: i64 = 86_400_000;

    fn clocks(aheads: &[i64]) -> Clocks {
        let mut clocks = Clocks::new(Duration::from_secs(30));
        let base = 1_000 * DAY;
        for (number, ahead) in (0..).zip(aheads) {
            clocks.hear(Voice::Node([number; 16]), (base + ahead) as u64, base as u64);
        }
        clocks
    }

    #[test]
    fn one_clock_that_is_ahead_or_behind_moves_nothing() {
        assert_eq!(clocks(&[]).judge(), None);
        for odd in [40 * DAY, -40 * DAY, 3_600_000] {
            let judged = clocks(&[5, -3, odd]).judge().expect("judged");
            assert!(judged.ahead_ms.abs() <= 5 && !judged.is_wrong, "{judged:?}");
        }
        // Seen from the one that is wrong.
        let judged = clocks(&[-40 * DAY, -40 * DAY + 7]).judge().expect("judged");
        assert!(judged.is_wrong && judged.ahead_ms < -39 * DAY, "{judged:?}");
        let judged = clocks(&[3_600_000, 3_600_007]).judge().expect("judged");
        assert!(judged.is_wrong, "{judged:?}");
    }

    #[test]
    fn of_two_clocks_the_earlier_one_counts_and_neither_is_called_wrong() {
        for other in [40 * DAY, -40 * DAY] {
            let judged = clocks(&[other]).judge().expect("judged");
            assert_eq!((judged.ahead_ms, judged.is_wrong), (other.min(0), false));
        }
    }

    #[test]
    fn a_server_that_differs_is_named() {
        let mut clocks = clocks(&[4]);
        clocks.hear(Voice::Server("n1".into()), 10 * DAY as u64, 10 * DAY as u64 + 9);
        clocks.hear(Voice::Server("n2".into()), 50 * DAY as u64, 10 * DAY as u64);
        let judged = clocks.judge().expect("judged");
        assert_eq!(judged.wrong_servers, [("n2".to_owned(), 40 * DAY)]);
        assert_eq!(difference(40 * DAY), "40 days ahead of");
        assert_eq!(difference(-3_600_000), "60 min behind");
    }

    proptest! {
        /// Age that is due by the fleet's time is due by more than half of the clocks, no matter what they show.
        #[test]
        fn what_is_due_is_due_by_a_majority(aheads in proptest::collection::vec(any::<i32>(), 1..9), due in any::<i32>()) {
            let aheads: Vec<i64> = aheads.into_iter().map(i64::from).collect();
            let judged = clocks(&aheads).judge().expect("judged");
            let all = aheads.iter().copied().chain([0]);
            let reached = all.clone().filter(|ahead| *ahead >= i64::from(due)).count();
            let majority = 2 * reached > all.count();
            prop_assert_eq!(judged.ahead_ms >= i64::from(due), majority);
        }
    }
}
