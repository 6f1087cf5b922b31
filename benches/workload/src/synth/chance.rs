//! Random numbers that are the same for the same seed.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};
use std::f64::consts::TAU;
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Chance(Pcg64Mcg);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Pcg64Mcg::seed_from_u64(seed))
    }

    /// Draws a number between 0 and 1, without 1.
    fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One of so many.
    pub(crate) fn below(&mut self, count: u32) -> u32 {
        (self.unit() * f64::from(count)) as u32
    }

    /// The time to the next event of a Poisson process.
    pub(crate) fn wait(&mut self, mean: Duration) -> Duration {
        // At most 20 means: larger values have a probability of one in 500 million.
        mean.mul_f64((-(1.0 - self.unit()).ln()).min(20.0))
    }

    /// A length from a log-normal distribution, between 32 bytes and 256 KiB.
    pub(crate) fn length(&mut self, median_bytes: u32, sigma: f64) -> u32 {
        // Box and Muller, 1958.
        let normal = (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (TAU * self.unit()).cos();
        (f64::from(median_bytes) * (sigma * normal).exp()).clamp(32.0, 262_144.0) as u32
    }
}
