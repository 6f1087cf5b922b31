//! Distance of this machine's clock from others, and the choice of the one that is believed. Pure.
//!
//! ```text
//!  asked ──────────── the other says 12:00:07 ──────────── answered
//!    └───── somewhere in here, and up to a second later ─────┘       = a span: the other's clock less the time that runs
//! ```
//!
//! All is measured against the time that runs since the machine's start, which nobody sets: so it shows whose clock moved.
//! A difference counts only as far as it is certain: a slow answer tells less, and never something wrong.

use skytale_proto::limits::{CLOCK_RIGHT_WITHIN, CLOCK_WRONG_BEYOND};
use std::collections::BTreeMap;
use std::time::Duration;

/// Spans as near as this are of one clock that goes on.
const NEAR_MS: i64 = 2_000;
/// A clock that says something else than before is believed when it has said so this often in a row...
const SAID_AGAIN: u32 = 3;
/// ...over this time.
const SAID_FOR_MS: u64 = 10_000;

/// Source of the time. The first of them that has reported it decides whether this machine's clock is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Time on which most of the fleet's machines agree.
    Fleet,
    /// The API, which signs tokens by its clock.
    Api,
}

impl Source {
    /// Returns its name in metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Fleet => "fleet",
            Self::Api => "api",
        }
    }

    /// Returns its name in a sentence.
    const fn whose(self) -> &'static str {
        match self {
            Self::Fleet => "the fleet's",
            Self::Api => "the API's",
        }
    }
}

/// Position of a clock: unix milliseconds less those that run since the machine's start, between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    low_ms: i64,
    high_ms: i64,
}

impl Span {
    /// Makes it from a time (unix milliseconds) that was given in whole numbers of `precision`, in the answer to a
    /// question. The times of question and answer are by [`Clock::running_ms`](super::Clock::running_ms).
    pub fn told(time_ms: u64, precision: Duration, asked_ms: u64, answered_ms: u64) -> Self {
        let low_ms = signed(time_ms).saturating_sub(signed(answered_ms));
        let high_ms = signed(time_ms)
            .saturating_add(signed(millis(precision)))
            .saturating_sub(signed(asked_ms));
        Self {
            low_ms,
            high_ms: high_ms.max(low_ms),
        }
    }

    /// Returns the certain distance of another clock from this one, in milliseconds, positive if the other is ahead.
    fn ahead_ms(&self, other_ms: i64) -> i64 {
        if other_ms > self.high_ms {
            other_ms.saturating_sub(self.high_ms)
        } else if other_ms < self.low_ms {
            other_ms.saturating_sub(self.low_ms)
        } else {
            0
        }
    }

    /// Whether both may be of one clock.
    fn is_near(&self, other: &Self) -> bool {
        self.low_ms <= other.high_ms.saturating_add(NEAR_MS) && other.low_ms <= self.high_ms.saturating_add(NEAR_MS)
    }

    /// Returns the overlap of both; the newer one if they do not overlap.
    fn narrowed(&self, newer: Self) -> Self {
        let both = Self {
            low_ms: self.low_ms.max(newer.low_ms),
            high_ms: self.high_ms.min(newer.high_ms),
        };
        if both.low_ms <= both.high_ms { both } else { newer }
    }
}

/// Reports of one source.
#[derive(Clone, Debug)]
struct Told {
    believed: Span,
    other: Option<Other>,
}

/// Report of a source that differs from its believed one.
#[derive(Clone, Copy, Debug)]
struct Other {
    span: Span,
    since_ms: u64,
    times: u32,
}

/// A clock that differs from this machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Differs {
    pub(super) from: Source,
    /// Certain distance of this machine's clock, in milliseconds, positive if it is ahead.
    pub(super) ahead_ms: i64,
}

/// Judgement on this machine's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Judgement {
    /// It is wrong, by the source that decides.
    pub(super) wrong: Option<Differs>,
    /// It is right by the source that decides, and differs from these.
    pub(super) others: Vec<Differs>,
}

/// Reports of all sources.
#[derive(Clone, Debug, Default)]
pub(super) struct Skew {
    told: BTreeMap<Source, Told>,
    /// The clock that tokens are judged by: unix milliseconds less those that run. `None` before the API has told its time.
    tokens_ms: Option<i64>,
    judgement: Judgement,
}

impl Skew {
    /// A source tells its time. `own_ms` is this machine's clock, less the time that runs, which is `running_ms`.
    pub(super) fn tell(&mut self, source: Source, span: Span, own_ms: i64, running_ms: u64) {
        let Some(told) = self.told.get_mut(&source) else {
            self.told.insert(
                source,
                Told {
                    believed: span,
                    other: None,
                },
            );
            return self.follow(source);
        };
        if told.believed.is_near(&span) {
            told.believed = told.believed.narrowed(span);
            told.other = None;
            return self.follow(source);
        }
        let other = match told.other {
            Some(other) if other.span.is_near(&span) => Other {
                span: other.span.narrowed(span),
                times: other.times.saturating_add(1),
                ..other
            },
            _ => Other {
                span,
                since_ms: running_ms,
                times: 1,
            },
        };
        let lasted = other.times >= SAID_AGAIN && running_ms.saturating_sub(other.since_ms) >= SAID_FOR_MS;
        // Two clocks that say the same are right at once: the time that runs stood still, as that of a paused machine does.
        if lasted || other.span.ahead_ms(own_ms).unsigned_abs() <= NEAR_MS.unsigned_abs() {
            (told.believed, told.other) = (other.span, None);
            self.follow(source);
        } else {
            told.other = Some(other);
        }
    }

    /// The clock that tokens are judged by goes by the API's.
    fn follow(&mut self, source: Source) {
        let Some(Told { believed, .. }) = self.told.get(&source).filter(|_| source == Source::Api) else {
            return;
        };
        let middle_ms = believed.low_ms.midpoint(believed.high_ms);
        let tokens_ms = self.tokens_ms.unwrap_or(middle_ms);
        self.tokens_ms = Some(tokens_ms.clamp(believed.low_ms, believed.high_ms));
    }

    /// The clock that tokens are judged by, less the time that runs.
    pub(super) fn tokens_ms(&self, own_ms: i64) -> i64 {
        self.tokens_ms.unwrap_or(own_ms)
    }

    /// Judges this machine's clock, which is `own_ms` less the time that runs. Returns whether the
    /// judgement on which clock is wrong has changed.
    pub(super) fn judge(&mut self, own_ms: i64) -> bool {
        let before = std::mem::take(&mut self.judgement);
        let within = |from| {
            let was_apart = [before.wrong]
                .into_iter()
                .flatten()
                .chain(before.others.iter().copied());
            match was_apart.into_iter().any(|differs| differs.from == from) {
                true => millis(CLOCK_RIGHT_WITHIN),
                false => millis(CLOCK_WRONG_BEYOND),
            }
        };
        for (index, (from, told)) in self.told.iter().enumerate() {
            let ahead_ms = told.believed.ahead_ms(own_ms);
            if ahead_ms.unsigned_abs() <= within(*from) {
                continue;
            }
            let differs = Differs { from: *from, ahead_ms };
            if index == 0 {
                self.judgement.wrong = Some(differs);
            } else if self.judgement.wrong.is_none() {
                self.judgement.others.push(differs);
            }
        }
        let whose = |judgement: &Judgement| {
            let others: Vec<Source> = judgement.others.iter().map(|differs| differs.from).collect();
            (judgement.wrong.map(|differs| differs.from), others)
        };
        whose(&before) != whose(&self.judgement)
    }

    pub(super) const fn judgement(&self) -> &Judgement {
        &self.judgement
    }

    /// Returns the certain distance of this machine's clock from each source's, in milliseconds, positive if it is
    /// ahead.
    pub(super) fn distances(&self, own_ms: i64) -> impl Iterator<Item = (Source, i64)> {
        let ahead = move |(source, told): (&Source, &Told)| (*source, told.believed.ahead_ms(own_ms));
        self.told.iter().map(ahead)
    }
}

impl Differs {
    /// The difference in words: `this node's clock is 3600 s behind the API's`.
    pub(super) fn words(&self) -> String {
        let (seconds, way) = (self.ahead_ms.unsigned_abs() / 1_000, self.ahead_ms > 0);
        let way = if way { "ahead of" } else { "behind" };
        format!("this node's clock is {seconds} s {way} {}", self.from.whose())
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWN_MS: i64 = 1_800_000_000_000;
    const HOUR_MS: i64 = 3_600_000;
    const SECOND: Duration = Duration::from_secs(1);

    /// Returns the report of a clock that is so far ahead of [`OWN_MS`], asked for at a time and answered a moment
    /// later.
    fn told(ahead_ms: i64, asked_ms: u64) -> Span {
        let time_ms = (OWN_MS + ahead_ms) as u64 + asked_ms;
        Span::told(time_ms / 1_000 * 1_000, SECOND, asked_ms, asked_ms + 5)
    }

    fn wrong(skew: &mut Skew, own_ms: i64) -> Option<(Source, i64)> {
        skew.judge(own_ms);
        let wrong = skew.judgement().wrong;
        wrong.map(|differs| (differs.from, (differs.ahead_ms as f64 / 60_000.0).round() as i64))
    }

    #[test]
    fn a_clock_that_is_an_hour_off_is_wrong_by_the_first_word_of_the_api() {
        for (ahead_ms, minutes) in [(-HOUR_MS, -60), (HOUR_MS, 60)] {
            let mut skew = Skew::default();
            assert_eq!(wrong(&mut skew, OWN_MS + ahead_ms), None, "nobody has told anything");
            assert_eq!(skew.tokens_ms(OWN_MS + ahead_ms), OWN_MS + ahead_ms);
            skew.tell(Source::Api, told(0, 0), OWN_MS + ahead_ms, 5);
            assert_eq!(wrong(&mut skew, OWN_MS + ahead_ms), Some((Source::Api, minutes)));
            // Tokens are judged by the clock that signs them.
            assert!((skew.tokens_ms(OWN_MS + ahead_ms) - OWN_MS).abs() <= 1_005);
            // It is set right, and right at once.
            assert_eq!(wrong(&mut skew, OWN_MS), None);
        }
    }

    #[test]
    fn a_clock_is_wrong_a_little_later_and_right_a_little_earlier() {
        let mut skew = Skew::default();
        skew.tell(Source::Api, told(0, 0), OWN_MS, 5);
        assert_eq!(wrong(&mut skew, OWN_MS + 15_000), None);
        assert!(wrong(&mut skew, OWN_MS + 22_000).is_some());
        assert!(wrong(&mut skew, OWN_MS + 15_000).is_some());
        assert_eq!(wrong(&mut skew, OWN_MS + 9_000), None);
    }

    #[test]
    fn the_fleet_decides_where_it_has_told_its_time() {
        let mut skew = Skew::default();
        skew.tell(Source::Api, told(2 * HOUR_MS, 0), OWN_MS, 5);
        assert_eq!(wrong(&mut skew, OWN_MS), Some((Source::Api, -120)));
        skew.tell(Source::Fleet, told(0, 0), OWN_MS, 5);
        assert_eq!(
            wrong(&mut skew, OWN_MS),
            None,
            "the fleet agrees: it is the API's that is wrong"
        );
        let others = &skew.judgement().others;
        assert_eq!(
            others.iter().map(|differs| differs.from).collect::<Vec<_>>(),
            [Source::Api]
        );
        assert!(
            others[0].words().starts_with("this node's clock is 71"),
            "{}",
            others[0].words()
        );
        // Tokens are signed by the API's clock all the same.
        assert!((skew.tokens_ms(OWN_MS) - OWN_MS - 2 * HOUR_MS).abs() <= 1_005);
        assert_eq!(wrong(&mut skew, OWN_MS - HOUR_MS), Some((Source::Fleet, -60)));
    }

    #[test]
    fn one_wrong_answer_of_the_api_changes_nothing_and_one_clock_that_stays_wrong_is_followed() {
        let mut skew = Skew::default();
        skew.tell(Source::Api, told(0, 0), OWN_MS, 5);
        for (turn, at_ms) in (1..9).map(|turn| (turn, turn * 5_000)) {
            // Two processes of the API answer in turn, and one of them has a wrong clock.
            skew.tell(Source::Api, told(turn as i64 % 2 * HOUR_MS, at_ms), OWN_MS, at_ms + 5);
            assert_eq!(wrong(&mut skew, OWN_MS), None);
        }
        let at_ms = |turn: u64| 100_000 + turn * 5_000;
        skew.tell(Source::Api, told(HOUR_MS, at_ms(0)), OWN_MS, at_ms(0) + 5);
        skew.tell(Source::Api, told(HOUR_MS, at_ms(1)), OWN_MS, at_ms(1) + 5);
        assert_eq!(wrong(&mut skew, OWN_MS), None);
        skew.tell(Source::Api, told(HOUR_MS, at_ms(2)), OWN_MS, at_ms(2) + 5);
        assert_eq!(wrong(&mut skew, OWN_MS), Some((Source::Api, -60)));
    }

    #[test]
    fn a_clock_that_leaps_is_wrong_before_anyone_is_asked_and_moves_no_token() {
        let mut skew = Skew::default();
        skew.tell(Source::Api, told(0, 0), OWN_MS, 5);
        let tokens_ms = skew.tokens_ms(OWN_MS);
        assert!(wrong(&mut skew, OWN_MS + HOUR_MS).is_some());
        assert_eq!(skew.tokens_ms(OWN_MS + HOUR_MS), tokens_ms);
    }

    #[test]
    fn a_machine_that_was_paused_believes_two_clocks_that_agree() {
        let mut skew = Skew::default();
        skew.tell(Source::Api, told(0, 0), OWN_MS, 5);
        // An hour is missing in the time that runs, by both clocks.
        skew.tell(Source::Api, told(HOUR_MS, 1_000), OWN_MS + HOUR_MS, 1_005);
        assert_eq!(wrong(&mut skew, OWN_MS + HOUR_MS), None);
        assert!((skew.tokens_ms(OWN_MS + HOUR_MS) - OWN_MS - HOUR_MS).abs() <= 1_005);
    }

    #[test]
    fn absurd_times_are_far_away_and_nothing_else() {
        let mut skew = Skew::default();
        skew.tell(Source::Api, Span::told(u64::MAX, SECOND, 0, u64::MAX), OWN_MS, 0);
        skew.tell(Source::Fleet, Span::told(0, SECOND, u64::MAX, 0), OWN_MS, 0);
        assert!(wrong(&mut skew, OWN_MS).is_some());
        assert!(wrong(&mut skew, i64::MIN).is_some());
        skew.judge(i64::MAX);
    }

    proptest! {
        /// However slow answers are, a clock that is as near as it must be is never called wrong, and one that is further away
        /// than the slowest answer took is.
        #[test]
        fn an_answer_tells_what_is_certain(
            ahead_ms in -200_000..200_000i64,
            ways in proptest::collection::vec((0..60_000u64, 0..60_000u64), 1..10),
        ) {
            let mut skew = Skew::default();
            let mut asked_ms = 1_000_000;
            let own_ms = OWN_MS + ahead_ms;
            for (there_ms, back_ms) in &ways {
                let time_ms = OWN_MS as u64 + asked_ms + there_ms;
                let answered_ms = asked_ms + there_ms + back_ms;
                skew.tell(Source::Api, Span::told(time_ms / 1_000 * 1_000, SECOND, asked_ms, answered_ms), own_ms, answered_ms);
                asked_ms = answered_ms + 1_000;
                let is_wrong = wrong(&mut skew, own_ms).is_some();
                if ahead_ms.abs() <= 20_000 {
                    prop_assert!(!is_wrong);
                }
                let widest_ms = (there_ms + back_ms) as i64 + 1_000;
                if ahead_ms.abs() > 20_000 + widest_ms {
                    prop_assert!(is_wrong);
                }
                prop_assert!((skew.tokens_ms(own_ms) - OWN_MS).abs() <= 121_000);
            }
        }
    }
}
