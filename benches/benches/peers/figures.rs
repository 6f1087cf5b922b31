//! Figures by which runs are compared, and their table.

use crate::which::Which;
use skytale_load::results::{Measure, Results};
use std::collections::BTreeMap;
use std::time::Duration;

/// A figure of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    Latency(Measure, Quantile),
    MessagesPerSecond,
    ServerCpu,
    GeneratorCpu,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Quantile {
    P50,
    P99,
}

const FIGURES: [Figure; 9] = [
    Figure::Latency(Measure::Append, Quantile::P50),
    Figure::Latency(Measure::Append, Quantile::P99),
    Figure::Latency(Measure::Delivered, Quantile::P50),
    Figure::Latency(Measure::Delivered, Quantile::P99),
    Figure::Latency(Measure::CaughtUp, Quantile::P99),
    Figure::Latency(Measure::Connected, Quantile::P99),
    Figure::MessagesPerSecond,
    Figure::ServerCpu,
    Figure::GeneratorCpu,
];

/// The figures of one run: latencies and processor times in seconds.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    values: BTreeMap<Figure, f64>,
    is_valid: bool,
}

impl Figure {
    fn name(self) -> String {
        match self {
            Self::Latency(measure, quantile) => {
                let quantile = match quantile {
                    Quantile::P50 => "p50",
                    Quantile::P99 => "p99",
                };
                format!("{} {quantile}", measure.name().replace('_', " "))
            }
            Self::MessagesPerSecond => "messages/s".to_owned(),
            Self::ServerCpu => "server, processor s".to_owned(),
            Self::GeneratorCpu => "generator, processor s".to_owned(),
        }
    }

    fn shown(self, value: f64) -> String {
        match self {
            Self::Latency(..) => format!("{:.2} ms", value * 1e3),
            Self::MessagesPerSecond => format!("{value:.0}"),
            Self::ServerCpu | Self::GeneratorCpu => format!("{value:.2}"),
        }
    }
}

impl Figures {
    pub(crate) fn of(results: &Results, server: Duration) -> Self {
        let report = &results.report;
        let value = |figure: Figure| match figure {
            Figure::Latency(measure, quantile) => {
                let latency = report
                    .latencies_us
                    .get(measure.name())
                    .filter(|latency| latency.count > 0)?;
                let us = match quantile {
                    Quantile::P50 => latency.p50,
                    Quantile::P99 => latency.p99,
                };
                Some(us as f64 / 1e6)
            }
            Figure::MessagesPerSecond => Some(report.totals.acknowledged_per_s),
            Figure::ServerCpu => Some(server.as_secs_f64()),
            Figure::GeneratorCpu => Some(report.totals.generator_cpu_us as f64 / 1e6),
        };
        Self {
            values: FIGURES
                .into_iter()
                .filter_map(|figure| Some((figure, value(figure)?)))
                .collect(),
            is_valid: report.verdict.valid,
        }
    }

    fn get(&self, figure: Figure) -> Option<f64> {
        self.values.get(&figure).copied().filter(|_| self.is_valid)
    }
}

/// The figures of all rounds, by target.
pub(crate) type Rounds = BTreeMap<Which, Vec<Figures>>;

/// A table in Markdown: of each figure and target the median, and of the other targets the ratio to ours of the same
/// round: median (least .. greatest).
pub(crate) fn table(rounds: &Rounds) -> String {
    let head: Vec<&str> = rounds.keys().map(|which| which.name()).collect();
    let mut text = format!("| | {} |\n|---|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for figure in FIGURES {
        let cells: Vec<String> = rounds
            .iter()
            .map(|(which, runs)| cell(figure, *which, runs, rounds))
            .collect();
        text.push_str(&format!("| {} | {} |\n", figure.name(), cells.join(" | ")));
    }
    text
}

fn cell(figure: Figure, which: Which, runs: &[Figures], rounds: &Rounds) -> String {
    let Some(median) = median(runs.iter().filter_map(|run| run.get(figure)).collect()) else {
        return "-".to_owned();
    };
    let shown = figure.shown(median);
    let ours = rounds.get(&Which::Ours).filter(|_| which != Which::Ours);
    let ratios: Vec<f64> = ours
        .into_iter()
        .flat_map(|ours| runs.iter().zip(ours))
        .filter_map(|(run, ours)| Some(run.get(figure)? / ours.get(figure).filter(|ours| *ours > 0.0)?))
        .collect();
    let (least, greatest) = (
        ratios.iter().copied().fold(f64::INFINITY, f64::min),
        ratios.iter().copied().fold(0.0, f64::max),
    );
    match self::median(ratios) {
        Some(ratio) => format!("{shown}, **{ratio:.2}** ({least:.2} .. {greatest:.2})"),
        None => shown,
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        1 => values.get(middle).copied(),
        _ => Some((values.get(middle.checked_sub(1)?)? + values.get(middle)?) / 2.0),
    }
}
