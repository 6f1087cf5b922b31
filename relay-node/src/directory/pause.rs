//! Pause before the next heartbeat. Pure.

use skytale_proto::limits::RELAY_HEARTBEAT;
use std::time::Duration;

/// The shortest time between two, whatever the API says.
const EVERY_MIN: Duration = Duration::from_millis(100);
/// The longest time between two, whatever the API says.
const EVERY_MAX: Duration = Duration::from_secs(60);
/// Pause after the first failure; twice as long after each that follows, up to the ordinary time.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Maximum part of a pause that is left out, so that nodes that started together do not stay together.
const JITTER: f64 = 0.2;

/// The pause after a heartbeat.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pause {
    /// Interval that the API gave last.
    every: Duration,
    /// Pause before the next one.
    now: Duration,
    failures: u32,
}

impl Default for Pause {
    fn default() -> Self {
        Self {
            every: RELAY_HEARTBEAT,
            now: RELAY_HEARTBEAT,
            failures: 0,
        }
    }
}

impl Pause {
    /// A heartbeat was taken, and the next one asked for.
    pub(super) fn taken(&mut self, next: Duration) {
        self.every = next.clamp(EVERY_MIN, EVERY_MAX);
        self.now = self.every;
        self.failures = 0;
    }

    /// A heartbeat failed. A failure that no retry mends is retried no sooner than usual; no server is asked before the
    /// time that it named.
    pub(super) fn failed(&mut self, retryable: bool, retry_after: Option<Duration>) {
        let retry = RETRY_FIRST.saturating_mul(1 << self.failures.min(16)).min(self.every);
        self.failures = self.failures.saturating_add(1);
        let ordinary = if retryable { retry } else { self.every };
        self.now = ordinary.max(retry_after.unwrap_or_default()).min(EVERY_MAX);
    }

    /// The pause, with a part left out: all of that part where `random` is 1.
    pub(super) fn next(&self, random: f64) -> Duration {
        self.now.mul_f64(1.0 - JITTER * random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_api_says_how_often_within_bounds_and_none_comes_late() {
        let mut pause = Pause::default();
        pause.taken(ms(2_000));
        assert_eq!(pause.next(0.0), ms(2_000));
        assert_eq!(pause.next(1.0), ms(1_600));
        pause.taken(ms(0));
        assert_eq!(pause.next(0.0), EVERY_MIN);
        pause.taken(Duration::MAX);
        assert_eq!(pause.next(0.0), EVERY_MAX);
    }

    #[test]
    fn a_failure_is_mended_soon_and_then_less_often() {
        let mut pause = Pause::default();
        let waits: Vec<Duration> = (0..6)
            .map(|_| {
                pause.failed(true, None);
                pause.next(0.0)
            })
            .collect();
        assert_eq!(waits, [ms(500), ms(1_000), ms(2_000), ms(4_000), ms(5_000), ms(5_000)]);
        pause.taken(ms(5_000));
        pause.failed(true, None);
        assert_eq!(pause.next(0.0), ms(500));
    }

    #[test]
    fn what_no_retry_mends_waits_as_usual_and_whoever_names_a_time_gets_it() {
        let mut pause = Pause::default();
        pause.failed(false, None);
        assert_eq!(pause.next(0.0), RELAY_HEARTBEAT);
        pause.failed(true, Some(ms(30_000)));
        assert_eq!(pause.next(0.0), ms(30_000));
        pause.failed(true, Some(Duration::MAX));
        assert_eq!(pause.next(0.0), EVERY_MAX);
    }
}
