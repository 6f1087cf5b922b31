//! Settings of a plan.

use crate::file::DURATION_MAX;
use std::time::Duration;

/// The most copies, and parts that are laid over each other.
const COUNT_MAX: u32 = 10_000;
/// The most parts of which one is taken: ids of frames have 12 bits for its number.
const PARTS_MAX: u32 = (1 << 12) - 1;

/// Settings of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Knobs {
    /// Factor on the speed; `None` if the time of events does not count, but their order.
    pub speed: Option<f64>,
    /// Whole copies, each with agents and channels of its own; at least 1.
    pub clones: u32,
    /// Readers added to each channel.
    pub fan_out: u32,
    /// Parts of equal length that are laid over each other; at least 1.
    pub folds: u32,
    /// Delay from the start of each copy or part to the start of the next.
    pub shift: Duration,
    /// The longest time without an event, before the speed is applied.
    pub max_gap: Option<Duration>,
    /// The share of those who only read that stays away until the end.
    pub offline_share: Option<Fraction>,
    /// Seed of the random choices.
    pub seed: u64,
    /// Maximum length of the schedule.
    pub duration: Option<Duration>,
    /// The part, and the number of parts, from 1.
    pub part: (u32, u32),
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            speed: Some(1.0),
            clones: 1,
            fan_out: 0,
            folds: 1,
            shift: Duration::ZERO,
            max_gap: None,
            offline_share: None,
            seed: 1,
            duration: None,
            part: (1, 1),
        }
    }
}

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {problem}")]
pub struct KnobError {
    /// The setting.
    pub name: &'static str,
    /// The problem with it.
    pub problem: &'static str,
}

impl Knobs {
    /// Refuses what cannot be.
    pub fn check(&self) -> Result<(), KnobError> {
        let must = |holds: bool, name, problem| {
            if holds {
                Ok(())
            } else {
                Err(KnobError { name, problem })
            }
        };
        must(
            self.speed.is_none_or(|speed| (0.001..=1_000_000.0).contains(&speed)),
            "speed",
            "must be between 0.001 and 1000000, or `max`",
        )?;
        must(
            (1..=COUNT_MAX).contains(&self.clones),
            "clone",
            "must be between 1 and 10000",
        )?;
        must(
            (1..=COUNT_MAX).contains(&self.folds),
            "fold",
            "must be between 1 and 10000",
        )?;
        must(
            self.fan_out <= 9_000,
            "fan-out",
            "must be 9000 at most: a roster has 10000 members",
        )?;
        must(
            self.shift == Duration::ZERO || self.clones > 1 || self.folds > 1,
            "shift",
            "needs copies (--clone) or parts (--fold)",
        )?;
        let later = self.clones - 1 + self.folds - 1;
        must(
            self.shift.checked_mul(later).is_some_and(|all| all <= DURATION_MAX),
            "shift",
            "must not add up to more than ten years over all copies and parts",
        )?;
        must(
            self.part.0 >= 1 && self.part.0 <= self.part.1,
            "part",
            "must be one of so many, as in 2/4",
        )?;
        must(self.part.1 <= PARTS_MAX, "part", "must be one of 4095 parts at most")
    }
}

/// A share: over 0, and 1 at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fraction(f64);

impl Fraction {
    /// A share.
    pub fn new(share: f64) -> Option<Self> {
        (share > 0.0 && share <= 1.0).then_some(Self(share))
    }

    /// The number.
    pub const fn get(self) -> f64 {
        self.0
    }
}
