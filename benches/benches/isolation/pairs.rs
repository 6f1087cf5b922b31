//! A victim's times in quiet and under a flood, in turn.

use crate::places::times;
use crate::{AIM, FLOODED, QUIET};
use hdrhistogram::Histogram;
use skytale_benches::stopwatch::Took;
use skytale_benches::versus::{Aim, Bench, Case, Pair, Work, sized};
use std::time::Duration;

/// Times of several pairs.
pub(crate) struct Measured {
    pairs: Vec<Pair>,
    /// All times of each side.
    pub(crate) all: [Histogram<u64>; 2],
}

impl Measured {
    /// Measures both sides several times, each of them first in half of the pairs.
    pub(crate) fn in_turn(mut measure: impl FnMut(usize) -> anyhow::Result<Histogram<u64>>) -> anyhow::Result<Self> {
        let mut all = [times()?, times()?];
        let mut pairs = Vec::new();
        for number in 0..sized(6, 2) {
            let mut took = [Took {
                wall: Duration::ZERO,
                cpu: None,
            }; 2];
            let order = if number % 2 == 0 {
                [QUIET, FLOODED]
            } else {
                [FLOODED, QUIET]
            };
            for side in order {
                let measured = measure(side)?;
                took[side].wall = Duration::from_nanos(measured.value_at_quantile(0.99));
                all[side].add(&measured)?;
            }
            pairs.push(Pair {
                ours: took[FLOODED],
                limit: took[QUIET],
            });
        }
        Ok(Self { pairs, all })
    }

    /// Adds the row of the case.
    pub(crate) fn add_to(self, bench: &mut Bench, name: String) {
        let case = Case {
            name,
            work: Work::Latency,
            aim: Aim::AtMost(AIM),
            pairs: self.pairs.len(),
        };
        bench.add(case, self.pairs);
    }
}
