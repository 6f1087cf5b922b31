//! Delays between attempts. Pure except for the jitter.

use std::time::Duration;

/// Exponential backoff with full jitter in its upper half.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    pub(crate) const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, attempts: 0 }
    }

    /// Resets the backoff after a success.
    pub(crate) const fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Returns the next delay: at least `asked`, if the peer requested a delay.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let ceiling = self
            .min
            .saturating_mul(1_u32.checked_shl(self.attempts.min(20)).unwrap_or(u32::MAX))
            .min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        let wait = ceiling.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        wait.max(asked.unwrap_or_default())
    }

    /// Returns the next delay after a refusal that does not pass by itself: the longest one.
    pub(crate) fn longest(&mut self, asked: Option<Duration>) -> Duration {
        self.attempts = self.attempts.saturating_add(1);
        self.max
            .mul_f64(0.5 + rand::random::<f64>() / 2.0)
            .max(asked.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_start_again() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(min, max);
        let first = backoff.next(None);
        assert!(first <= min && first >= min / 2, "{first:?}");
        let later: Vec<Duration> = (0..40).map(|_| backoff.next(None)).collect();
        assert!(later.iter().all(|wait| *wait <= max));
        assert!(later[39] >= max / 2);
        backoff.reset();
        assert!(backoff.next(None) <= min);
    }

    #[test]
    fn a_wait_that_is_asked_for_is_kept() {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(2));
        assert!(backoff.next(Some(Duration::from_secs(9))) >= Duration::from_secs(9));
    }
}
