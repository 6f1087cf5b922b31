//! Random times and choices, from a seed that is printed: `SKYTALE_SEED` takes the same ones again.

use std::time::Duration;

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) struct Chance(u64);

impl Chance {
    /// A seed of its own, or the one that the environment names. Printed, so that a failed test tells it.
    pub(crate) fn new(test: &str) -> Self {
        let named = std::env::var("SKYTALE_SEED")
            .ok()
            .map(|seed| seed.parse().expect("a number"));
        let seed = named.unwrap_or_else(|| {
            let random = skytale_proto::FrameId::generate();
            u64::from_le_bytes(random.as_bytes()[8..].try_into().expect("eight bytes"))
        });
        eprintln!("{test}: SKYTALE_SEED={seed}");
        Self(seed)
    }

    /// One for somebody else, with other numbers.
    pub(crate) fn split(&mut self) -> Self {
        Self(self.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below a bound.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// One of some.
    pub(crate) fn of<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.below(some.len())]
    }

    /// A time between two.
    pub(crate) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let range = most.saturating_sub(least).as_millis() as usize;
        least + Duration::from_millis(self.below(range + 1) as u64)
    }
}
