//! The clock by which the age of KeyPackages is judged.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Largest difference between two correctly set clocks.
pub(super) const CLOCKS_DIFFER_MAX: Duration = Duration::from_secs(3_600);

/// The end of the year 9999, unix milliseconds: later times are not believed.
const LATEST_MS: u64 = 253_402_300_799_999;

/// Source of the current time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// Uses a clock of the caller, which returns unix milliseconds.
    pub fn new(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    fn now_ms(&self) -> u64 {
        (self.0)()
    }
}

impl Default for Clock {
    /// Uses this machine's clock.
    fn default() -> Self {
        Self::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// This machine's clock, and the last time reported by a relay node.
///
/// The later of the two counts. A clock that lost its time restarts in the past, at 1970 or when the machine was built,
/// so the one that is behind is wrong. A lying relay node can only make KeyPackages look older than they are. It could
/// refuse service anyway, but it cannot revive an expired one.
#[derive(Debug)]
pub(super) struct Clocks {
    own: Clock,
    relay_ahead_ms: u64,
    /// Whether they are far apart, which was logged.
    far_apart: bool,
}

impl Clocks {
    pub(super) const fn new(own: Clock) -> Self {
        Self {
            own,
            relay_ahead_ms: 0,
            far_apart: false,
        }
    }

    /// Records the time of a relay node's clock.
    pub(super) fn hear(&mut self, relay_ms: u64) {
        let own_ms = self.own.now_ms();
        self.relay_ahead_ms = relay_ms.saturating_sub(own_ms);
        let far_apart = own_ms.abs_diff(relay_ms) > millis(CLOCKS_DIFFER_MAX);
        let told = std::mem::replace(&mut self.far_apart, far_apart);
        if far_apart && !told {
            tracing::warn!(
                own_ms,
                relay_ms,
                "this machine's clock and the relay node's are far apart"
            );
        }
    }

    /// Returns unix milliseconds, by the later clock.
    pub(super) fn now_ms(&self) -> u64 {
        self.own.now_ms().saturating_add(self.relay_ahead_ms).min(LATEST_MS)
    }

    /// Returns unix milliseconds, by this machine's clock only.
    pub(super) fn own_ms(&self) -> u64 {
        self.own.now_ms().min(LATEST_MS)
    }
}

/// Converts a duration to milliseconds, limited to the range of a vault's integers.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .min(i64::MAX.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 24 * 3_600 * 1_000;

    #[test]
    fn the_later_clock_counts_and_the_last_word_of_a_relay_node() {
        let mut clocks = Clocks::new(Clock::new(|| 5 * DAY_MS));
        assert_eq!(clocks.now_ms(), 5 * DAY_MS);
        clocks.hear(9 * DAY_MS);
        assert_eq!(clocks.now_ms(), 9 * DAY_MS);
        for behind in [0, 2 * DAY_MS, 5 * DAY_MS] {
            clocks.hear(behind);
            assert_eq!(clocks.now_ms(), 5 * DAY_MS, "a relay node cannot turn the time back");
        }
        clocks.hear(u64::MAX);
        assert_eq!((clocks.now_ms(), clocks.own_ms()), (LATEST_MS, 5 * DAY_MS));
    }
}
