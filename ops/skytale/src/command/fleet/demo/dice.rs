//! Chance, from a seed: the same seed gives the same faults, in the same order, of the same lengths.

use std::time::Duration;

/// Random choices of a run.
pub(super) struct Dice(blake3::OutputReader);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"skytale fleet demo").update(&seed.to_le_bytes());
        Self(hasher.finalize_xof())
    }

    /// A seed that nobody chose. Short enough to be typed.
    pub(super) fn any_seed() -> u64 {
        let id = skytale_proto::FrameId::generate();
        let hash = blake3::hash(id.as_bytes());
        hash.as_bytes()
            .iter()
            .take(4)
            .fold(0, |seed, byte| (seed << 8) | u64::from(*byte))
    }

    fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A number below a bound; 0 where the bound is.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        // The rest that makes small numbers likelier by 2^-50 matters to nobody here.
        usize::try_from(self.number() % (bound.max(1) as u64)).unwrap_or_default()
    }

    /// A time between two.
    pub(super) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let fraction = self.number() as f64 / u64::MAX as f64;
        least + most.saturating_sub(least).mul_f64(fraction)
    }

    /// Another order.
    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for place in (1..list.len()).rev() {
            list.swap(place, self.below(place + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_all_that_happens() {
        let throw = |seed| {
            let mut dice = Dice::new(seed);
            let mut list: Vec<u8> = (0..20).collect();
            dice.shuffle(&mut list);
            let span = dice.between(Duration::from_secs(2), Duration::from_secs(4));
            assert!((2.0..=4.0).contains(&span.as_secs_f64()));
            assert!(dice.below(3) < 3);
            (list, span)
        };
        assert_eq!(throw(7), throw(7));
        assert_ne!(throw(7), throw(8));
        let (mut list, _) = throw(7);
        list.sort_unstable();
        assert_eq!(list, (0..20).collect::<Vec<u8>>());
    }

    #[test]
    fn without_a_choice_there_is_one() {
        let mut dice = Dice::new(1);
        assert_eq!(dice.below(0), 0);
        let second = Duration::from_secs(1);
        assert_eq!(dice.between(second, Duration::ZERO), second);
    }
}
