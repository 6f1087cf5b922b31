//! Readings of the machine's clocks; in tests, of clocks that are moved by hand.

use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Reading of the machine's clocks, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Time since the machine's start, with the time that it slept.
    pub(crate) running_ms: u64,
    /// Time since 1970.
    pub(crate) wall_ms: u64,
}

/// Clocks of a store. The machine's own clocks, outside of tests. Clones share it.
#[derive(Clone, Default)]
pub struct Clocks {
    by_hand: Option<Arc<Mutex<Reading>>>,
}

impl Clocks {
    /// Clocks that show now what the machine's do, and move by hand.
    #[cfg(feature = "faulty")]
    pub fn by_hand() -> Self {
        Self {
            by_hand: Some(Arc::new(Mutex::new(machine()))),
        }
    }

    /// Lets time pass.
    #[cfg(feature = "faulty")]
    pub fn pass(&self, time: Duration) {
        self.change(|reading| {
            reading.running_ms = reading.running_ms.saturating_add(millis(time));
            reading.wall_ms = reading.wall_ms.saturating_add(millis(time));
        });
    }

    /// Sets the wall clock forward.
    #[cfg(feature = "faulty")]
    pub fn leap(&self, by: Duration) {
        self.change(|reading| reading.wall_ms = reading.wall_ms.saturating_add(millis(by)));
    }

    /// Sets the wall clock back.
    #[cfg(feature = "faulty")]
    pub fn leap_back(&self, by: Duration) {
        self.change(|reading| reading.wall_ms = reading.wall_ms.saturating_sub(millis(by)));
    }

    #[cfg(feature = "faulty")]
    fn change(&self, change: impl FnOnce(&mut Reading)) {
        if let Some(reading) = &self.by_hand {
            change(&mut reading.lock());
        }
    }

    pub(crate) fn read(&self) -> Reading {
        match &self.by_hand {
            Some(reading) => *reading.lock(),
            None => machine(),
        }
    }
}

impl PartialEq for Clocks {
    fn eq(&self, other: &Self) -> bool {
        match (&self.by_hand, &other.by_hand) {
            (Some(one), Some(another)) => Arc::ptr_eq(one, another),
            (one, another) => one.is_none() && another.is_none(),
        }
    }
}

impl Eq for Clocks {}

impl fmt::Debug for Clocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.by_hand.is_some() {
            "by hand"
        } else {
            "the machine's"
        })
    }
}

fn machine() -> Reading {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Reading {
        running_ms: millis(running()),
        wall_ms: millis(wall),
    }
}

#[cfg(target_os = "linux")]
fn running() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
fn running() -> Duration {
    static BEGUN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    BEGUN.get_or_init(std::time::Instant::now).elapsed()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
