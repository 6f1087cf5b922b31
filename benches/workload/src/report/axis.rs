//! Axes: from values to places between 0 and 1.

/// Scale of an axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Axis {
    /// Values from 0, evenly.
    #[default]
    Linear,
    /// Each power of ten as long. Values that are not positive are left out.
    Log,
    /// Shares from 0 to 1: 0, 90, 99, 99.9 % as far from each other, as in plots of HdrHistogram.
    Percentile,
}

/// The most powers of ten that an axis shows: those below are cut off.
const DECADES_MAX: f64 = 9.0;

/// An axis with its ends. For logarithmic axes these are powers of ten, of `1 / (1 - share)` on the axis of percentiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    axis: Axis,
    low: f64,
    high: f64,
}

impl Scale {
    /// An axis for values. It ends at a mark if `is_round`.
    pub(super) fn new(axis: Axis, values: impl Iterator<Item = f64>, is_round: bool) -> Self {
        let exponent = |value: f64| match axis {
            Axis::Linear => Some(value),
            Axis::Log => (value > 0.0).then(|| value.log10()),
            Axis::Percentile => (value < 1.0).then(|| -(1.0 - value.max(0.0)).log10()),
        };
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite()).filter_map(exponent) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        match axis {
            Axis::Linear => {
                let step = step(high);
                low = 0.0;
                high = match high {
                    high if high <= 0.0 => step,
                    high if is_round => (high / step).ceil() * step,
                    high => high,
                };
            }
            Axis::Log => {
                high = high.ceil();
                low = low.floor().clamp(high - DECADES_MAX, high - 1.0);
            }
            Axis::Percentile => (low, high) = (0.0, high.clamp(1.0, DECADES_MAX)),
        }
        Self { axis, low, high }
    }

    /// Returns the place of a value, 0 to 1; none for one that the axis cannot show.
    pub(super) fn at(&self, value: f64) -> Option<f64> {
        let value = match self.axis {
            _ if value.is_nan() => return None,
            Axis::Linear if value.is_infinite() => return None,
            Axis::Linear => value,
            Axis::Log if value <= 0.0 || value.is_infinite() => return None,
            Axis::Log => value.log10(),
            Axis::Percentile if value >= 1.0 => self.high,
            Axis::Percentile => -(1.0 - value.max(0.0)).log10(),
        };
        Some((value.clamp(self.low, self.high) - self.low) / (self.high - self.low))
    }

    /// Its marks: places and their labels.
    pub(super) fn marks(&self) -> Vec<(f64, String)> {
        let place = |value: f64| (value - self.low) / (self.high - self.low);
        match self.axis {
            Axis::Linear => {
                let step = step(self.high);
                let count = (self.high / step + 1e-9).floor() as u32;
                let value = |number| f64::from(number) * step;
                (0..=count)
                    .map(|number| (place(value(number)), short(value(number))))
                    .collect()
            }
            Axis::Log => {
                let decades = (self.high - self.low).round() as i32;
                let within: &[f64] = if decades <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let mut marks = Vec::new();
                for decade in 0..=decades {
                    for factor in within {
                        let power = self.low + f64::from(decade) + factor.log10();
                        if power <= self.high + 1e-9 {
                            marks.push((place(power), short(factor * 10f64.powf(self.low + f64::from(decade)))));
                        }
                    }
                }
                marks
            }
            Axis::Percentile => {
                let mut marks = vec![(0.0, "0 %".to_owned()), (place(2f64.log10()), "50 %".to_owned())];
                for nines in 1..=self.high.floor() as usize {
                    let text = match nines {
                        1 => "90 %".to_owned(),
                        2 => "99 %".to_owned(),
                        _ => format!("99.{} %", "9".repeat(nines - 2)),
                    };
                    marks.push((place(nines as f64), text));
                }
                marks
            }
        }
    }
}

/// Steps of an axis from 0 to at least `most`: 1, 2 or 5 times a power of ten, four to ten of them.
fn step(most: f64) -> f64 {
    if !(most.is_finite() && most > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf((most / 10.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0, 20.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| most / step <= 8.0)
        .unwrap_or(20.0 * power)
}

/// A number on an axis: `1.5k`, `20M`.
fn short(value: f64) -> String {
    let (value, suffix) = match value.abs() {
        large if large >= 1e9 => (value / 1e9, "G"),
        large if large >= 1e6 => (value / 1e6, "M"),
        large if large >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    if value != 0.0 && value.abs() < 0.001 {
        return format!("{value:.0e}");
    }
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_steps_few_enough_to_read() {
        for most in [1e-6, 0.3, 1.0, 7.0, 9.99, 42.0, 1e3, 123_456.0, 9e12] {
            let steps = most / step(most);
            assert!((1.5..=8.0).contains(&steps), "{most}: {steps}");
        }
        for none in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(step(none) > 0.0);
        }
        assert_eq!(
            [0.0, 0.5, 9_500.0, 12_000.0, 2.5e6, 1e-6].map(short),
            ["0", "0.5", "9500", "12k", "2.5M", "1e-6"]
        );
    }

    #[test]
    fn each_power_of_ten_is_as_long() {
        let scale = Scale::new(Axis::Log, [3.0, 2_000.0, 0.0, f64::NAN].into_iter(), true);
        let marks: Vec<String> = scale.marks().into_iter().map(|(_, text)| text).collect();
        assert_eq!(marks, ["1", "10", "100", "1000", "10k"]);
        assert_eq!(
            (scale.at(1.0), scale.at(100.0), scale.at(1e9)),
            (Some(0.0), Some(0.5), Some(1.0))
        );
        assert_eq!((scale.at(0.0), scale.at(-1.0), scale.at(f64::NAN)), (None, None, None));
        let one = Scale::new(Axis::Log, [5.0].into_iter(), true);
        assert_eq!(one.marks().len(), 4);
        assert!(Scale::new(Axis::Log, [].into_iter(), true).marks().len() > 1);
        assert!(Scale::new(Axis::Log, [1e-300, 1e300].into_iter(), true).marks().len() <= 10);
    }

    #[test]
    fn nines_are_as_far_from_each_other() {
        let scale = Scale::new(Axis::Percentile, [0.0, 0.5, 0.9999].into_iter(), false);
        let marks: Vec<String> = scale.marks().into_iter().map(|(_, text)| text).collect();
        assert_eq!(marks[..4], ["0 %", "50 %", "90 %", "99 %"]);
        let at = |share: f64| scale.at(share).expect("a place");
        assert!((at(0.99) - at(0.9) - (at(0.999) - at(0.99))).abs() < 1e-9);
        assert_eq!((at(1.0), at(0.0), at(-3.0)), (1.0, 0.0, 0.0));
    }
}
