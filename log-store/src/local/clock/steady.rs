//! Time that a store believes, and the moment at which it believes a wall clock that leapt. Pure.

use super::reading::Reading;
use std::fmt;
use std::time::Duration;

/// A wall clock that is further away than this from the time that has passed has leapt.
const LEAP_MIN: Duration = Duration::from_secs(5 * 60);
/// A leap that has lasted so long is taken for the truth.
pub(super) const CONFIRMED_AFTER: Duration = Duration::from_secs(3_600);
/// A wall clock that is near is followed by this part of the time that passes.
const FOLLOWED_PART: u64 = 8;

/// Time that a store believes. Pure.
#[derive(Clone, Debug)]
pub(super) struct SteadyClock {
    /// Unix milliseconds, when `read` was read.
    believed_ms: u64,
    read: Reading,
    leap: Option<Leap>,
}

/// A wall clock that is not where the time that has passed would have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leap {
    /// Distance from the expected time, in milliseconds, positive if the wall clock is ahead.
    pub(super) ahead_ms: i128,
    /// Time that it must still last before it is taken for the truth.
    pub(super) left: Duration,
    since_ms: u64,
}

/// Change that a reading made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The wall clock has leapt by so much (or by another distance than before).
    Leapt(i128),
    /// It is back.
    Over,
    /// It has stayed where it leapt to, this far away, and is taken for the truth.
    Taken(i128),
}

impl SteadyClock {
    /// Begins at a time that is known from before: the one believed last, or the newest entry's.
    pub(super) const fn new(believed_ms: u64, read: Reading) -> Self {
        Self {
            believed_ms,
            read,
            leap: None,
        }
    }

    /// Takes a reading in.
    pub(super) fn observe(&mut self, read: Reading) -> Option<Change> {
        let passed_ms = read.running_ms.saturating_sub(self.read.running_ms);
        self.believed_ms = self.believed_ms.saturating_add(passed_ms);
        self.read = read;
        let ahead_ms = i128::from(read.wall_ms) - i128::from(self.believed_ms);
        if is_near(ahead_ms) {
            let step_ms = ahead_ms.unsigned_abs().min(u128::from(passed_ms / FOLLOWED_PART));
            let step_ms = u64::try_from(step_ms).unwrap_or(u64::MAX);
            self.believed_ms = match ahead_ms > 0 {
                true => self.believed_ms.saturating_add(step_ms),
                false => self.believed_ms.saturating_sub(step_ms),
            };
            return self.leap.take().map(|_| Change::Over);
        }
        match &mut self.leap {
            // The wall clock goes on from where it leapt to.
            Some(leap) if is_near(ahead_ms - leap.ahead_ms) => {
                let lasted = Duration::from_millis(read.running_ms.saturating_sub(leap.since_ms));
                leap.left = CONFIRMED_AFTER.saturating_sub(lasted);
                if !leap.left.is_zero() {
                    return None;
                }
                self.believed_ms = read.wall_ms;
                self.leap = None;
                Some(Change::Taken(ahead_ms))
            }
            _ => {
                self.leap = Some(Leap {
                    ahead_ms,
                    left: CONFIRMED_AFTER,
                    since_ms: read.running_ms,
                });
                Some(Change::Leapt(ahead_ms))
            }
        }
    }

    /// The time that retention goes by, unix milliseconds, at the last reading.
    pub(super) fn now_ms(&self) -> u64 {
        self.believed_ms.min(self.read.wall_ms)
    }

    /// Returns the time believed at the last reading, unix milliseconds.
    pub(super) const fn believed_ms(&self) -> u64 {
        self.believed_ms
    }

    /// The last reading.
    pub(super) const fn read(&self) -> Reading {
        self.read
    }

    /// The leap that is not taken for the truth yet.
    pub(super) const fn leap(&self) -> Option<Leap> {
        self.leap
    }
}

fn is_near(apart_ms: i128) -> bool {
    apart_ms.unsigned_abs() <= LEAP_MIN.as_millis()
}

/// Distance of the wall clock, for a person.
pub(super) struct Apart(pub(super) i128);

impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.0.unsigned_abs() / 60_000;
        let (days, hours, minutes) = (minutes / 1_440, minutes / 60 % 24, minutes % 60);
        match (days, hours) {
            (0, 0) => write!(f, "{minutes} min")?,
            (0, _) => write!(f, "{hours} h {minutes} min")?,
            _ => write!(f, "{days} d {hours} h")?,
        }
        f.write_str(if self.0 > 0 { " ahead of" } else { " behind" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START_MS: u64 = 1_800_000_000_000;
    const SECOND_MS: u64 = 1_000;
    const HOUR_MS: u64 = 3_600 * SECOND_MS;
    const DAY_MS: u64 = 24 * HOUR_MS;

    /// A clock, and the machine that it is read from.
    struct Machine {
        clock: SteadyClock,
        read: Reading,
    }

    impl Machine {
        fn new(believed_ms: u64) -> Self {
            let read = Reading {
                running_ms: 7,
                wall_ms: START_MS,
            };
            Self {
                clock: SteadyClock::new(believed_ms, read),
                read,
            }
        }

        /// Time passes, looked at every so often.
        fn pass(&mut self, time_ms: u64, every_ms: u64) -> Vec<Change> {
            let turns = time_ms / every_ms;
            let turn = |_| {
                self.read.running_ms += every_ms;
                self.read.wall_ms += every_ms;
                self.clock.observe(self.read)
            };
            (0..turns).filter_map(turn).collect()
        }

        fn set(&mut self, ahead_ms: i64) -> Option<Change> {
            self.read.wall_ms = self.read.wall_ms.saturating_add_signed(ahead_ms);
            self.clock.observe(self.read)
        }
    }

    #[test]
    fn a_leap_of_forty_days_for_a_minute_moves_nothing() {
        let mut machine = Machine::new(START_MS);
        machine.pass(HOUR_MS, SECOND_MS);
        let ahead = 40 * DAY_MS as i64;
        assert_eq!(machine.set(ahead), Some(Change::Leapt(i128::from(ahead))));
        assert_eq!(machine.pass(75 * SECOND_MS, SECOND_MS), []);
        assert_eq!(machine.clock.now_ms(), START_MS + HOUR_MS + 75 * SECOND_MS);
        assert_eq!(machine.set(-ahead), Some(Change::Over));
        assert_eq!(machine.clock.now_ms(), machine.read.wall_ms);
    }

    #[test]
    fn a_leap_that_lasts_is_the_truth_and_one_that_moves_on_begins_again() {
        let mut machine = Machine::new(START_MS);
        machine.set(DAY_MS as i64);
        assert_eq!(machine.pass(HOUR_MS - SECOND_MS, SECOND_MS), []);
        assert_eq!(machine.clock.leap().map(|leap| leap.left), Some(Duration::from_secs(1)));
        assert_eq!(
            machine.set(DAY_MS as i64),
            Some(Change::Leapt(2 * i128::from(DAY_MS))),
            "another distance has not lasted"
        );
        assert_eq!(
            machine.pass(HOUR_MS, SECOND_MS),
            [Change::Taken(2 * i128::from(DAY_MS))]
        );
        assert_eq!(machine.clock.now_ms(), machine.read.wall_ms);
        assert_eq!(machine.clock.leap(), None);
    }

    #[test]
    fn a_clock_that_goes_back_only_delays() {
        let mut machine = Machine::new(START_MS);
        let back = -40 * DAY_MS as i64;
        machine.set(back);
        assert_eq!(machine.clock.now_ms(), machine.read.wall_ms);
        machine.pass(60 * SECOND_MS, SECOND_MS);
        assert_eq!(machine.set(-back), Some(Change::Over), "it is where it was");
        assert_eq!(machine.clock.now_ms(), START_MS + 60 * SECOND_MS);
    }

    #[test]
    fn a_node_that_was_down_for_a_week_takes_the_clocks_word_an_hour_later() {
        let mut machine = Machine::new(START_MS - 7 * DAY_MS);
        assert_eq!(machine.set(0), Some(Change::Leapt(7 * i128::from(DAY_MS))));
        assert_eq!(machine.clock.now_ms(), START_MS - 7 * DAY_MS);
        let changes = machine.pass(HOUR_MS, SECOND_MS);
        assert_eq!(changes, [Change::Taken(7 * i128::from(DAY_MS))]);
    }

    #[test]
    fn a_clock_that_is_nearly_right_is_followed_and_no_faster_than_a_part_of_the_time() {
        let mut machine = Machine::new(START_MS);
        assert_eq!(machine.set(240 * SECOND_MS as i64), None);
        machine.pass(80 * SECOND_MS, SECOND_MS);
        assert_eq!(machine.clock.now_ms(), START_MS + 90 * SECOND_MS);
        machine.pass(HOUR_MS, SECOND_MS);
        assert_eq!(machine.clock.now_ms(), machine.read.wall_ms);
        // And one that is set forward a little every minute is a clock that leaps.
        let changes: Vec<_> = (0..60)
            .flat_map(|_| {
                let set = machine.set(240 * SECOND_MS as i64);
                set.into_iter().chain(machine.pass(60 * SECOND_MS, SECOND_MS))
            })
            .collect();
        assert!(changes.iter().all(|change| matches!(change, Change::Leapt(_))) && !changes.is_empty());
        assert!(machine.clock.now_ms() < START_MS + 3 * HOUR_MS);
    }

    #[test]
    fn a_distance_is_told_in_words() {
        let told = |minutes: i128| Apart(minutes * 60_000).to_string();
        assert_eq!(told(6), "6 min ahead of");
        assert_eq!(told(-61), "1 h 1 min behind");
        assert_eq!(told(40 * 1_440 + 61), "40 d 1 h ahead of");
    }

    proptest! {
        /// No reading of the wall clock puts retention's clock further ahead of the elapsed time than following allows,
        /// unless the wall clock has stayed at one distance for the time that confirms it.
        #[test]
        fn no_reading_alone_moves_the_clock(
            steps in proptest::collection::vec((-100_000_000_000i64..100_000_000_000, 1_000..900_000u64), 1..60)
        ) {
            let mut machine = Machine::new(START_MS);
            let (mut at_most_ms, mut passed_ms) = (START_MS, 0);
            for (ahead_ms, time_ms) in steps {
                let mut changes: Vec<_> = machine.set(ahead_ms).into_iter().collect();
                changes.extend(machine.pass(time_ms, time_ms));
                passed_ms += time_ms;
                at_most_ms += time_ms + time_ms / FOLLOWED_PART;
                if changes.iter().any(|change| matches!(change, Change::Taken(_))) {
                    prop_assert!(passed_ms >= HOUR_MS);
                    (at_most_ms, passed_ms) = (machine.read.wall_ms, 0);
                }
                let now_ms = machine.clock.now_ms();
                prop_assert!(now_ms <= at_most_ms, "{} > {}", now_ms, at_most_ms);
                prop_assert!(now_ms <= machine.read.wall_ms);
            }
        }
    }
}
