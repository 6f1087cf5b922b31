//! Pacing within a relay's rates. Pure: the caller passes the time.

use std::time::Duration;
use tokio::time::Instant;

/// Size of a burst, as time at the sustained rate. A relay allows at least this much.
const BURST: Duration = Duration::from_secs(1);
/// Share of a rate that is used, in percent: differing clocks and earlier connections take the rest.
const SHARE_PERCENT: u64 = 95;

/// The rates of one session: they determine when the next frame may be sent.
#[derive(Debug)]
pub(super) struct Pace {
    frames: Bucket,
    bytes: Bucket,
}

/// A virtual clock that each unit advances: a unit may be sent while the clock is at most a burst ahead of the real
/// one.
#[derive(Debug)]
struct Bucket {
    per_second: u64,
    at: Instant,
}

impl Pace {
    /// Creates the rates of a session; 0 means unlimited.
    pub(super) const fn new(frames_per_second: u32, bytes_per_second: u64, now: Instant) -> Self {
        Self {
            frames: Bucket::new(frames_per_second as u64, now),
            bytes: Bucket::new(bytes_per_second, now),
        }
    }

    /// Takes a frame of `bytes` bytes. Returns when it may be sent; `None` means now. Frames are sent in the order of
    /// the calls.
    pub(super) fn take(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        let turn = self.frames.take(1, now).max(self.bytes.take(bytes as u64, now));
        (turn > now).then_some(turn)
    }
}

impl Bucket {
    const fn new(per_second: u64, now: Instant) -> Self {
        Self { per_second, at: now }
    }

    fn take(&mut self, units: u64, now: Instant) -> Instant {
        if self.per_second == 0 {
            return now;
        }
        let rate = (self.per_second.saturating_mul(SHARE_PERCENT) / 100).max(1);
        let nanos = u128::from(units) * 1_000_000_000 / u128::from(rate);
        // A rate of one byte a second would hold a frame forever: no frame waits longer than a minute for itself.
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(Duration::from_secs(60));
        self.at = self.at.max(now) + cost;
        self.at.checked_sub(BURST).map_or(now, |turn| turn.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let now = Instant::now();
        let mut pace = Pace::new(100, 0, now);
        let turns: Vec<Instant> = (0..295).map(|_| pace.take(10, now).unwrap_or(now)).collect();
        assert!(turns.is_sorted(), "in the order of the calls");
        let at_once = turns.iter().filter(|turn| **turn == now).count();
        assert!((90..=100).contains(&at_once), "{at_once} at once");
        let last = *turns.last().expect("a turn") - now;
        assert!(
            last > Duration::from_millis(1_900) && last < Duration::from_millis(2_300),
            "{last:?}"
        );
    }

    #[test]
    fn bytes_count_too() {
        let now = Instant::now();
        let mut pace = Pace::new(0, 1_000_000, now);
        assert_eq!(pace.take(900_000, now), None);
        assert!(pace.take(900_000, now).is_some());
    }

    #[test]
    fn no_rate_is_no_wait() {
        let now = Instant::now();
        let mut pace = Pace::new(0, 0, now);
        assert!((0..10_000).all(|_| pace.take(1_000_000, now).is_none()));
    }
}
