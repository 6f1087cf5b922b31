//! Settings of a run's plan.

use serde_json::Value;
use skytale_load::results::Speed;
use skytale_workload::plan::{Fraction, Knobs};
use std::collections::BTreeMap;
use std::time::Duration;

/// Rate of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rate {
    Factor(f64),
    Max,
}

#[derive(Debug, Clone, clap::Args)]
pub(in super::super) struct KnobArgs {
    /// Speed factor: operations come at planned times, whatever the target does; or `max`: as fast as the target takes them.
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = rate)]
    pub(super) speed: Rate,
    /// With --speed max: operations that may be open at once.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) in_flight: u32,
    /// Replay N copies of the workload, each with agents and channels of its own.
    #[arg(long, value_name = "N", default_value_t = 1)]
    clone: u32,
    /// Cut the workload into so many parts of equal length and lay them over each other, each with agents and channels of its own.
    #[arg(long, value_name = "N", default_value_t = 1)]
    fold: u32,
    /// Begin each copy or part so much later than the one before it.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = super::super::duration)]
    shift: Duration,
    /// Add N readers to each channel.
    #[arg(long, value_name = "N", default_value_t = 0)]
    fan_out: u32,
    /// Shorten each time without an event to this at most.
    #[arg(long, value_name = "DURATION", value_parser = super::super::duration)]
    max_gap: Option<Duration>,
    /// Take this share of the agents that only read offline after a fifth of the time, and bring them back at the end, all at once.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    offline_share: Option<Fraction>,
    /// Seed for random choices.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Leave out events later than this.
    #[arg(long, value_name = "DURATION", value_parser = super::super::duration)]
    duration: Option<Duration>,
    /// Run one part of several: some of the channels, with the agents in them. Join the results with `bench merge`.
    #[arg(long, value_name = "I/N", default_value = "1/1", value_parser = part)]
    pub(super) part: (u32, u32),
}

fn rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        return Ok(Rate::Max);
    }
    let factor = text.strip_suffix('x').unwrap_or(text).parse();
    factor
        .map(Rate::Factor)
        .map_err(|_| "give a factor, as in 1, 10 or 2.5, or max".into())
}

fn share(text: &str) -> Result<Fraction, String> {
    let share = text.parse().ok().and_then(Fraction::new);
    share.ok_or_else(|| "give a share: over 0, and 1 at most".into())
}

fn part(text: &str) -> Result<(u32, u32), String> {
    let parts = text
        .split_once('/')
        .and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
    parts.ok_or_else(|| "give one of so many, as in 2/4".into())
}

impl KnobArgs {
    pub(super) fn knobs(&self) -> Knobs {
        Knobs {
            speed: match self.speed {
                Rate::Factor(factor) => Some(factor),
                Rate::Max => None,
            },
            clones: self.clone,
            fan_out: self.fan_out,
            folds: self.fold,
            shift: self.shift,
            max_gap: self.max_gap,
            offline_share: self.offline_share,
            seed: self.seed,
            duration: self.duration,
            part: self.part,
        }
    }

    pub(super) fn in_flight(&self) -> Option<usize> {
        (self.speed == Rate::Max).then_some(self.in_flight as usize)
    }

    /// The factor, unless it is `max`.
    pub(in super::super) const fn factor(&self) -> Option<f64> {
        match self.speed {
            Rate::Factor(factor) => Some(factor),
            Rate::Max => None,
        }
    }

    /// All parts.
    pub(super) fn whole(&self) -> Self {
        Self {
            part: (1, 1),
            ..self.clone()
        }
    }

    /// The same at another speed.
    pub(in super::super) fn at(&self, factor: f64) -> Self {
        Self {
            speed: Rate::Factor(factor),
            ..self.clone()
        }
    }

    pub(super) fn speed(&self) -> Speed {
        match self.speed {
            Rate::Factor(factor) => Speed::Factor(factor),
            Rate::Max => Speed::Max,
        }
    }

    /// Every setting, as it is in force.
    pub(super) fn settings(&self) -> BTreeMap<String, Value> {
        let ms = |duration: Duration| Value::from(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        let mut settings = BTreeMap::from([
            ("clone".to_owned(), Value::from(self.clone)),
            ("fold".to_owned(), Value::from(self.fold)),
            ("shift_ms".to_owned(), ms(self.shift)),
            ("fan_out".to_owned(), Value::from(self.fan_out)),
            ("max_gap_ms".to_owned(), self.max_gap.map_or(Value::Null, ms)),
            (
                "offline_share".to_owned(),
                self.offline_share.map_or(Value::Null, |share| Value::from(share.get())),
            ),
            ("seed".to_owned(), Value::from(self.seed)),
            ("duration_ms".to_owned(), self.duration.map_or(Value::Null, ms)),
        ]);
        if self.speed == Rate::Max {
            settings.insert("in_flight".to_owned(), Value::from(self.in_flight));
        }
        settings
    }
}
