//! The two clocks: one that only goes forward, and the one that tokens are written by.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// For waiting.
    pub(crate) instant: Instant,
    /// For tokens: unix milliseconds.
    pub(crate) unix_ms: u64,
}

impl Now {
    /// This moment.
    pub(crate) fn read() -> Self {
        Self {
            instant: Instant::now(),
            unix_ms: unix_ms(),
        }
    }

    /// The moment when the unix clock will show `unix_ms`; now, where that has passed.
    pub(crate) fn at(&self, unix_ms: u64) -> Instant {
        self.instant + Duration::from_millis(unix_ms.saturating_sub(self.unix_ms))
    }
}

/// Unix milliseconds; 0 before 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Unix seconds.
pub(crate) fn unix_s() -> u64 {
    unix_ms() / 1000
}
