//! Distributions of latencies, all targets in one plot.

use crate::which::Which;
use skytale_load::results::{Histogram64, Measure, Results, histogram};
use skytale_workload::report::{Axis, Line, Plot};
use std::collections::BTreeMap;

/// Points of a distribution for each power of ten.
const POINTS: u32 = 40;

/// Plots by name, as SVG: of all valid runs of each target together.
pub(crate) fn plots(runs: &BTreeMap<Which, Vec<Results>>) -> Vec<(&'static str, String)> {
    let measures = [Measure::Append, Measure::Delivered, Measure::CaughtUp];
    let plots = measures.into_iter().filter_map(|measure| {
        let lines: Vec<Line> = runs
            .iter()
            .filter_map(|(which, runs)| line(*which, runs, measure))
            .collect();
        let plot = Plot {
            title: format!(
                "{}: the share of all that took so long at most",
                measure.name().replace('_', " ")
            ),
            x_unit: "percentile".into(),
            y_unit: "ms".into(),
            x_axis: Axis::Percentile,
            y_axis: Axis::Log,
            lines,
            ..Plot::default()
        };
        (!plot.lines.is_empty()).then(|| (measure.name(), standalone(&plot)))
    });
    plots.collect()
}

/// A plot as a file of its own, which no page gives a font and a background.
fn standalone(plot: &Plot) -> String {
    let beginning = "<svg xmlns=\"http://www.w3.org/2000/svg\" font-family=\"sans-serif\" font-size=\"12\" style=\"background:#fff\" ";
    plot.to_string().replacen("<svg ", beginning, 1)
}

fn line(which: Which, runs: &[Results], measure: Measure) -> Option<Line> {
    let mut whole = histogram();
    for run in runs.iter().filter(|run| run.report.verdict.valid) {
        if let Some(one) = run.measured.whole(measure) {
            // The bounds are the same.
            let _ = whole.add(one);
        }
    }
    (!whole.is_empty()).then(|| Line {
        label: which.name().to_owned(),
        points: points(&whole),
    })
}

/// Percentiles up to the one that a single value stands for.
fn points(whole: &Histogram64) -> Vec<(f64, f64)> {
    let nines = (whole.len() as f64).log10().clamp(0.3, 6.0);
    let count = (nines * f64::from(POINTS)).floor() as u32;
    let shares = (0..=count).map(|number| 1.0 - 10f64.powf(-f64::from(number) / f64::from(POINTS)));
    shares
        .map(|share| (share, whole.value_at_quantile(share) as f64 / 1e3))
        .collect()
}
