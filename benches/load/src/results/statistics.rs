//! A confidence interval of a ratio, from repeats.

use serde::Serialize;
use std::f64::consts::FRAC_PI_2;

/// A confidence interval of 95 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// The share of the interval.
const CONFIDENCE: f64 = 0.95;
/// A value of a histogram is known to three digits: repeats that agree wholly still differ by this much, as a share.
const RESOLUTION: f64 = 0.001;

/// The interval of the ratio b / a of the geometric means of repeats: Welch's t interval (1947) on the logarithms. It does not suppose
/// that both sides vary alike, and says how little two or three repeats tell. None with fewer than two repeats on a side, or with a value
/// that is not positive.
pub(super) fn ratio(a: &[f64], b: &[f64]) -> Option<Interval> {
    let ((mean_a, error_a), (mean_b, error_b)) = (logarithms(a)?, logarithms(b)?);
    let error = error_a + error_b;
    let freedom = |error: f64, count: usize| error * error / (count - 1) as f64;
    let degrees = error * error / (freedom(error_a, a.len()) + freedom(error_b, b.len()));
    let margin = student(degrees) * error.sqrt();
    let middle = mean_b - mean_a;
    let interval = Interval {
        low: (middle - margin).exp(),
        high: (middle + margin).exp(),
    };
    (interval.low.is_finite() && interval.high.is_finite()).then_some(interval)
}

/// The mean of the logarithms, and the square of its standard error.
fn logarithms(values: &[f64]) -> Option<(f64, f64)> {
    if values.len() < 2 || !values.iter().all(|value| value.is_finite() && *value > 0.0) {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().map(|value| value.ln()).sum::<f64>() / count;
    let squares = values.iter().map(|value| (value.ln() - mean).powi(2)).sum::<f64>();
    let variance = (squares / (count - 1.0)).max(RESOLUTION * RESOLUTION / 12.0);
    Some((mean, variance / count))
}

/// The two-sided quantile of Student's t with so many degrees of freedom, at least one. With t = sqrt(n) tan(x), the density in x is
/// cos(x)^(n-1): it is integrated by the midpoint rule until it has the share of the interval.
fn student(degrees: f64) -> f64 {
    const STEPS: u32 = 4_000;
    // Beyond, it is the normal distribution's to four digits.
    let degrees = if degrees.is_finite() {
        degrees.clamp(1.0, 10_000.0)
    } else {
        1.0
    };
    let step = FRAC_PI_2 / f64::from(STEPS);
    let density = |number: u32| ((f64::from(number) + 0.5) * step).cos().powf(degrees - 1.0);
    let whole: f64 = (0..STEPS).map(density).sum();
    let (mut sum, mut number) = (0.0, 0);
    while number < STEPS {
        let next = density(number);
        if sum + next >= CONFIDENCE * whole {
            let part = (CONFIDENCE * whole - sum) / next;
            return degrees.sqrt() * ((f64::from(number) + part) * step).tan();
        }
        sum += next;
        number += 1;
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use super::super::sample::Dice;
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (degrees, quantile) in [
            (1.0, 12.706),
            (2.0, 4.303),
            (2.5, 3.558),
            (5.0, 2.571),
            (10.0, 2.228),
            (30.0, 2.042),
            (10_000.0, 1.960),
        ] {
            let found = student(degrees);
            assert!(
                (found - quantile).abs() < 0.02 * quantile / 2.0,
                "{degrees}: {found} {quantile}"
            );
        }
    }

    #[test]
    fn one_repeat_or_a_zero_gives_no_interval() {
        for (a, b) in [
            (&[1.0][..], &[1.0, 2.0][..]),
            (&[1.0, 2.0], &[1.0]),
            (&[], &[]),
            (&[0.0, 1.0], &[1.0, 2.0]),
            (&[1.0, 2.0], &[f64::NAN, 1.0]),
        ] {
            assert_eq!(ratio(a, b), None, "{a:?} {b:?}");
        }
        let same = ratio(&[5.0, 5.0], &[5.0, 5.0]).expect("an interval");
        assert!(same.low < 1.0 && same.high > 1.0 && same.high < 1.01, "{same:?}");
    }

    #[test]
    fn nineteen_of_twenty_intervals_hold_the_truth() {
        let mut dice = Dice::new(5);
        let mut normal = |mean: f64, deviation: f64| {
            let sum: f64 = (0..12).map(|_| dice.unit()).sum::<f64>() - 6.0;
            (mean + deviation * sum).exp()
        };
        for (repeats_a, repeats_b) in [(3, 3), (5, 5), (3, 8)] {
            let mut held = 0;
            for _ in 0..400 {
                let a: Vec<f64> = (0..repeats_a).map(|_| normal(3.0, 0.05)).collect();
                let b: Vec<f64> = (0..repeats_b).map(|_| normal(3.0 + 1.2f64.ln(), 0.15)).collect();
                let interval = ratio(&a, &b).expect("an interval");
                held += u32::from(interval.low <= 1.2 && 1.2 <= interval.high);
            }
            assert!((366..=396).contains(&held), "{repeats_a} {repeats_b}: {held} of 400");
        }
    }
}
