//! The clock that retention by age goes by: a wall clock that leaps does not move it until the leap has lasted.
//!
//! ```text
//!  wall clock        ─────────────┐            ┌──────────────────────────> taken for true after CONFIRMED_AFTER
//!                                 └── leap ────┘
//!  retention's clock ──────────── time that passes, by the clock that nobody sets ──────────┘
//! ```
//!
//! Retention cannot be undone, so it must not depend on one reading of a clock that anyone may set. Time that passes is
//! measured by the time since the machine's start, which goes on while the machine sleeps. While the wall clock is not
//! far from that, it is followed slowly. A wall clock that is further away has leapt: it is believed only after it has
//! stayed where it leapt to. Until then the earlier of the two counts, so a clock that goes back only delays.

mod reading;
mod steady;

pub use reading::Clocks;

use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use steady::{Apart, CONFIRMED_AFTER, Change, SteadyClock};

/// Interval at which the believed time is written down, in milliseconds.
const KEPT_EVERY_MS: u64 = 60_000;
/// The file that keeps the believed time, in the store's folder.
const FILE: &str = "CLOCK";
const FILE_TITLE: &str = "skytale log store clock 1";
const FILE_BYTES_MAX: u64 = 256;

/// The steady clock of a store, with the believed time kept in a file.
pub(crate) struct StoreClock {
    clocks: Clocks,
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    clock: SteadyClock,
    /// Believed time at the last write, and whether that write failed.
    kept_ms: Option<u64>,
    failing: bool,
}

impl StoreClock {
    /// The clock of the store in a folder, whose newest entry has this time (unix milliseconds; 0 where there is none).
    pub(crate) fn open(dir: &Path, clocks: &Clocks, newest_ms: u64) -> Self {
        let path = dir.join(FILE);
        let read = clocks.read();
        let believed_ms = match (kept(&path), newest_ms) {
            (Some(kept_ms), _) => kept_ms,
            (None, 0) => read.wall_ms,
            // An entry may have been written while the clock was ahead.
            (None, newest_ms) => newest_ms.min(read.wall_ms),
        };
        let clock = Self {
            clocks: clocks.clone(),
            path,
            state: Mutex::new(State {
                clock: SteadyClock::new(believed_ms, read),
                kept_ms: None,
                failing: false,
            }),
        };
        clock.look();
        // Entries written from here on may have a wrong time.
        clock.keep();
        clock
    }

    /// Looks at the clocks, and gives the time that retention goes by, unix milliseconds.
    pub(crate) fn look(&self) -> u64 {
        let mut state = self.state.lock();
        let change = state.clock.observe(self.clocks.read());
        match change {
            None => {}
            Some(Change::Leapt(ahead_ms)) => tracing::warn!(
                apart = %Apart(ahead_ms),
                confirmed_after_s = CONFIRMED_AFTER.as_secs(),
                "the machine's clock leapt: retention by age does not go by it unless it stays there"
            ),
            Some(Change::Over) => tracing::info!("the machine's clock is back: retention by age goes by it"),
            Some(Change::Taken(ahead_ms)) => tracing::warn!(
                apart = %Apart(ahead_ms),
                "the machine's clock stayed where it leapt to: retention by age goes by it"
            ),
        }
        super::metrics::clock_leap(state.clock.leap().map_or(0, |leap| leap.ahead_ms));
        state.clock.now_ms()
    }

    /// Writes down the believed time, now and then. Blocks.
    pub(crate) fn keep(&self) {
        let mut state = self.state.lock();
        let running_ms = state.clock.read().running_ms;
        let due = |kept_ms: u64| running_ms.saturating_sub(kept_ms) >= KEPT_EVERY_MS;
        if !state.kept_ms.is_none_or(due) {
            return;
        }
        state.kept_ms = Some(running_ms);
        let text = format!("{FILE_TITLE}\n{}\n", state.clock.believed_ms());
        let written = super::folder::replace_file(&self.path, text.as_bytes());
        if let Err(error) = &written
            && !state.failing
        {
            tracing::warn!(path = %self.path.display(), %error, "the time cannot be written down: retention by age may begin an hour late after a restart");
        }
        state.failing = written.is_err();
    }

    /// Returns the meaning of a leap for the operator, if there is one.
    pub(crate) fn remark(&self) -> Option<String> {
        let leap = self.state.lock().clock.leap()?;
        let (apart, left) = (Apart(leap.ahead_ms), leap.left.as_secs().div_ceil(60));
        Some(format!(
            "this machine's clock is {apart} the time that has passed in this log: retention by age does not go by it, \
             unless it stays so for {left} min more. If the clock is wrong, set it right before then; after a long stop, or \
             once the clock was set right, there is nothing to do"
        ))
    }
}

/// Returns the time that was believed when the store was open last.
fn kept(path: &Path) -> Option<u64> {
    let metadata = std::fs::metadata(path).ok()?;
    let text = match metadata.len() {
        0..=FILE_BYTES_MAX => std::fs::read_to_string(path).ok(),
        _ => None,
    };
    let kept_ms = text.as_deref().and_then(|text| {
        let (title, rest) = text.split_once('\n')?;
        (title == FILE_TITLE).then(|| rest.strip_suffix('\n')?.parse().ok())?
    });
    if kept_ms.is_none() {
        tracing::warn!(path = %path.display(), "not the time of a log store: the newest entry's is taken");
    }
    kept_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_believed_is_read_as_it_was_written_and_all_else_is_nothing() {
        let dir = tempfile::TempDir::new().expect("a folder");
        let (clocks, path) = (Clocks::default(), dir.path().join(FILE));
        let believed = |newest_ms| {
            let _ = std::fs::remove_file(&path);
            let clock = StoreClock::open(dir.path(), &clocks, newest_ms);
            clock.state.lock().clock.believed_ms()
        };
        let wall_ms = clocks.read().wall_ms;
        assert!(believed(0) >= wall_ms, "a new store takes the clock's word");
        assert!(believed(1) < 1_000_000, "an old one that of its newest entry");
        believed(u64::MAX);
        let kept_ms = kept(&path).expect("kept");
        assert!(kept_ms >= wall_ms && kept_ms < u64::MAX);
        for wrong in [
            "",
            "skytale",
            "skytale log store clock 1\n",
            "skytale log store clock 1\n-1\n",
            "x\n5\n",
        ] {
            std::fs::write(&path, wrong).expect("written");
            assert_eq!(kept(&path), None, "{wrong}");
        }
        std::fs::write(&path, "skytale log store clock 1\n5\n").expect("written");
        assert_eq!(kept(&path), Some(5));
    }
}
