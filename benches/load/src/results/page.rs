//! `report.html`, and the page of a comparison.

use super::alike::speed;
use super::compute::thinned;
use super::text::words;
use super::{
    Comparison, LATENCY_HEADS, Measure, NodeSeries, Report, Results, bytes_text, duration_text, latency_rows,
    total_rows, verdict_words,
};
use super::{Histogram64, measured};
use skytale_workload::report::{Axis, Line, Marks, Page, Part, Plot};
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

/// The most readers in the plot of those who came back, and metrics and nodes that are plotted.
const DOTS_MAX: usize = 2_000;
const METRICS_MAX: usize = 40;
const NODES_MAX: usize = 25;
/// Points of a distribution for each power of ten.
const POINTS: u32 = 40;
/// Words that a node's metric may have in its name, in the order in which metrics are shown.
const METRICS_FIRST: [&str; 9] = [
    "processor",
    "cpu",
    "memory",
    "rss",
    "sync",
    "batch",
    "lag",
    "behind",
    "append",
];

/// The page of a run: the verdict comes first.
pub(super) fn page(results: &Results) -> Page {
    let report = &results.report;
    let mut parts: Vec<Part> = verdict_words(report)
        .into_iter()
        .map(|(is_bad, text)| if is_bad { Part::Bad(text) } else { Part::Text(text) })
        .collect();
    parts.extend([heading("What ran"), table(&[], ran(report))]);
    parts.extend([heading("Totals"), table(&[], total_rows(report))]);
    let latencies = latency_rows(&results.measured);
    if !latencies.is_empty() {
        parts.extend([heading("Latencies"), table(&LATENCY_HEADS, latencies)]);
        let text =
            "Each counts from the time that the plan had, so waiting for the target or the generator is part of it.";
        parts.push(Part::Text(text.into()));
    }
    over_time(report, &mut parts);
    distributions(results, &mut parts);
    came_back(report, &mut parts);
    refusals(report, &mut parts);
    divergence(report, &mut parts);
    nodes(report, &mut parts);
    Page {
        title: format!("{} against {}", report.workload.name, report.run.target),
        parts,
    }
}

/// The page of a comparison of two sides. `a` and `b` are the runs that were compared.
pub fn comparison_page(comparison: &Comparison, a: &[Results], b: &[Results]) -> Page {
    let mut parts = Vec::new();
    let failed = comparison
        .conditions
        .iter()
        .filter(|judged| judged.judgement.is_failure())
        .count();
    match (failed, comparison.conditions.len()) {
        (0, 0) => {}
        (0, _) => parts.push(Part::Text("Passed: no condition fails.".into())),
        (failed, of) => parts.push(Part::Bad(format!("Failed: {failed} of {of} conditions."))),
    }
    parts.push(Part::Text(format!("a: {}", comparison.a)));
    parts.push(Part::Text(format!("b: {}", comparison.b)));
    parts.extend(comparison.notes.iter().map(|note| Part::Bad(note.clone())));
    let unlike = comparison.unlike.iter();
    parts.extend(unlike.map(|difference| Part::Bad(format!("Not alike: {difference}."))));
    let rows = comparison.metrics.iter().map(super::Compared::row).collect();
    parts.extend([heading("Metrics"), table(&Comparison::HEADS, rows)]);
    let text = "Values are of all runs of a side together. The interval is that of the ratio of the runs' geometric means (Welch). \
                Of twenty intervals about one misses the truth.";
    parts.push(Part::Text(text.into()));
    if !comparison.conditions.is_empty() {
        parts.extend([heading("Conditions"), table(&[], comparison.condition_rows())]);
    }
    if !comparison.different.is_empty() {
        let row = |one: &super::Difference| vec![one.field.clone(), one.a.clone(), one.b.clone()];
        let rows = comparison.different.iter().map(row).collect();
        parts.extend([heading("What differs"), table(&["field", "a", "b"], rows)]);
    }
    for measure in Measure::ALL {
        let lines: Vec<Line> = [("a", a), ("b", b)]
            .into_iter()
            .filter_map(|(side, runs)| {
                let wholes: Vec<_> = runs.iter().filter_map(|run| run.measured.whole(measure)).collect();
                distribution(side, &measured::sum(&wholes))
            })
            .collect();
        if lines.len() == 2 {
            let title = format!("Distribution: {}", words(measure));
            parts.extend([heading(&title), Part::Plot(percentiles(&title, lines))]);
        }
    }
    Page {
        title: "Comparison of two loads".to_owned(),
        parts,
    }
}

fn heading(text: &str) -> Part {
    Part::Heading(text.to_owned())
}

fn table(heads: &[&str], rows: Vec<Vec<String>>) -> Part {
    Part::Table {
        heads: heads.iter().map(|head| (*head).to_owned()).collect(),
        rows,
    }
}

fn ran(report: &Report) -> Vec<Vec<String>> {
    let (run, workload, planned, machine) = (&report.run, &report.workload, &report.planned, &report.run.machine);
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(run.started_ms));
    // Later than the year 9999 has no text.
    let at = at.filter(|_| run.started_ms < 253_402_300_800_000);
    let at = at.map_or_else(
        || "?".to_owned(),
        |at| humantime::format_rfc3339_seconds(at).to_string(),
    );
    let revision = run
        .revision
        .as_ref()
        .map_or_else(String::new, |revision| format!(" at {revision}"));
    let mut rows = vec![
        ("command", run.command.join(" ")),
        ("made by", format!("{}{revision}", run.made_by)),
        ("began", at),
        ("target", format!("{} ({}), level {}", run.target, run.place, run.level)),
        ("speed", speed(run.speed)),
        (
            "workload",
            format!(
                "{} ({} by {}): {} events in {}",
                workload.name,
                workload.source,
                workload.made_by,
                workload.events,
                duration_text(workload.duration_us as f64)
            ),
        ),
        ("workload's BLAKE3", workload.blake3.clone()),
        (
            "plan",
            format!(
                "{} operations ({} appends, {} of bodies, {} deliveries) of {} agents in {} channels, {}",
                planned.operations,
                planned.appends,
                bytes_text(planned.body_bytes),
                planned.deliveries,
                planned.agents,
                planned.channels,
                duration_text(planned.duration_us as f64)
            ),
        ),
        (
            "machine of the generator",
            format!(
                "{}, {}, {} processors, {}",
                machine.system,
                machine.processor,
                machine.processors,
                bytes_text(machine.memory_bytes)
            ),
        ),
    ];
    match (run.joined, run.parts) {
        (2.., _) => rows.push(("joined of", format!("{} parts", run.joined))),
        (_, 2..) => rows.push(("part", format!("{} of {}", run.part, run.parts))),
        _ => {}
    }
    let settings: Vec<String> = run
        .settings
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    if !settings.is_empty() {
        rows.push(("settings", settings.join(", ")));
    }
    rows.into_iter()
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect()
}

/// Rates, backlog and latencies over time, all with the same times.
fn over_time(report: &Report, parts: &mut Vec<Part>) {
    let series = &report.series;
    let interval_s = series.interval_ms as f64 / 1e3;
    let end_s = end_s(report);
    let line = |label: &str, values: &mut dyn Iterator<Item = f64>| Line {
        label: label.to_owned(),
        points: values
            .enumerate()
            .map(|(number, value)| ((number as f64 + 0.5) * interval_s, value))
            .collect(),
    };
    let counts = |names: &[&str], scale: f64| -> Vec<Line> {
        let known = |name: &&str| {
            let values = series
                .counts
                .get(*name)
                .filter(|values| values.iter().any(|value| *value > 0))?;
            Some(line(name, &mut values.iter().map(|value| *value as f64 * scale)))
        };
        names.iter().filter_map(known).collect()
    };
    let plot = |title: &str, y_unit: &str, lines: Vec<Line>| Plot {
        title: title.to_owned(),
        x_unit: "seconds".into(),
        y_unit: y_unit.to_owned(),
        lines,
        x_most: Some(end_s),
        ..Plot::default()
    };
    let per_second = if interval_s > 0.0 { 1.0 / interval_s } else { 0.0 };
    for (title, unit, lines) in [
        (
            "Appends over time",
            "1/s",
            counts(&["planned", "sent", "acknowledged"], per_second),
        ),
        ("Deliveries over time", "1/s", counts(&["delivered"], per_second)),
        ("Refusals over time", "1/s", counts(&["refused"], per_second)),
        ("Appends due and not acknowledged", "appends", counts(&["backlog"], 1.0)),
        ("Sessions", "sessions", counts(&["online"], 1.0)),
    ] {
        if !lines.is_empty() {
            parts.extend([heading(title), Part::Plot(plot(title, unit, lines))]);
        }
    }
    for measure in [Measure::Append, Measure::Delivered] {
        let Some(over) = series.latencies_us.get(measure.name()) else {
            continue;
        };
        let lines = [("p50", &over.p50), ("p99", &over.p99), ("max", &over.max)].map(|(label, values)| {
            // An interval without values is a gap, not a latency of 0.
            let mut values = values.iter().zip(&over.count).map(|(us, count)| match count {
                0 => f64::NAN,
                _ => *us as f64 / 1e3,
            });
            line(label, &mut values)
        });
        let title = format!("Latency over time: {}", words(measure));
        let plot = Plot {
            y_axis: Axis::Log,
            ..plot(&title, "ms", lines.into())
        };
        parts.extend([heading(&title), Part::Plot(plot)]);
    }
}

/// The end of the run's time axes.
fn end_s(report: &Report) -> f64 {
    let series = &report.series;
    let intervals = series.counts.values().map(Vec::len).max().unwrap_or(0);
    intervals as f64 * series.interval_ms as f64 / 1e3
}

fn distributions(results: &Results, parts: &mut Vec<Part>) {
    let line = |measure: Measure| distribution(words(measure), &results.measured.whole(measure)?);
    let measures = Measure::ALL
        .into_iter()
        .filter(|measure| *measure != Measure::SendDelay);
    let lines: Vec<Line> = measures.filter_map(line).collect();
    if !lines.is_empty() {
        let title = "Distribution of latencies";
        parts.extend([heading(title), Part::Plot(percentiles(title, lines))]);
    }
}

fn percentiles(title: &str, lines: Vec<Line>) -> Plot {
    Plot {
        title: title.to_owned(),
        x_unit: "percentile".into(),
        y_unit: "ms".into(),
        lines,
        x_axis: Axis::Percentile,
        y_axis: Axis::Log,
        ..Plot::default()
    }
}

/// A line of percentiles, up to the one that a single value stands for.
fn distribution(label: &str, whole: &Histogram64) -> Option<Line> {
    if whole.is_empty() {
        return None;
    }
    let nines = (whole.len() as f64).log10().clamp(0.3, 6.0);
    let count = (nines * f64::from(POINTS)).floor() as u32;
    let shares = (0..=count).map(|number| 1.0 - 10f64.powf(-f64::from(number) / f64::from(POINTS)));
    let points = shares.map(|share| (share, whole.value_at_quantile(share) as f64 / 1e3));
    let end = (1.0 - 10f64.powf(-nines), whole.max() as f64 / 1e3);
    Some(Line {
        label: label.to_owned(),
        points: points.chain([end]).collect(),
    })
}

fn came_back(report: &Report, parts: &mut Vec<Part>) {
    let missed: Vec<_> = report.catch_up.iter().filter(|one| one.missed > 0).copied().collect();
    if missed.is_empty() {
        return;
    }
    let title = "Time to catch up against entries missed";
    let count = missed.len();
    let points = thinned(missed, DOTS_MAX);
    let shown = points.len();
    let points = points
        .iter()
        .map(|one| (one.missed as f64, one.took_us as f64 / 1e3))
        .collect();
    parts.push(heading(title));
    if shown < count {
        parts.push(Part::Text(format!(
            "{shown} of {count} readers are shown, evenly over all."
        )));
    }
    parts.push(Part::Plot(Plot {
        title: title.to_owned(),
        x_unit: "entries missed".into(),
        y_unit: "ms".into(),
        lines: vec![Line {
            label: title.to_owned(),
            points,
        }],
        x_axis: Axis::Log,
        y_axis: Axis::Log,
        marks: Marks::Dots,
        ..Plot::default()
    }));
}

fn refusals(report: &Report, parts: &mut Vec<Part>) {
    let captured = &report.divergence.captured_refusals;
    let codes: std::collections::BTreeSet<&String> = report.refusals.keys().chain(captured.keys()).collect();
    if codes.is_empty() {
        return;
    }
    let count = |of: &BTreeMap<String, u64>, code: &String| of.get(code).copied().unwrap_or(0).to_string();
    let rows = codes
        .into_iter()
        .map(|code| vec![code.clone(), count(&report.refusals, code), count(captured, code)])
        .collect();
    parts.extend([heading("Refusals"), table(&["code", "in this run", "captured"], rows)]);
}

fn divergence(report: &Report, parts: &mut Vec<Part>) {
    let divergence = &report.divergence;
    let rows: Vec<Vec<String>> = [
        (
            "commits refused because another one came first",
            divergence.commits_lost,
        ),
        (
            "messages refused because a commit came first",
            divergence.messages_outrun,
        ),
        ("KeyPackage claims that found none", divergence.claims_without_package),
        (
            "operations left out: what they need never came about",
            divergence.impossible,
        ),
    ]
    .into_iter()
    .filter(|(_, count)| *count > 0)
    .map(|(name, count)| vec![name.to_owned(), count.to_string()])
    .collect();
    if !rows.is_empty() {
        parts.extend([
            heading("Where the run and the capture differ"),
            table(&["", "times"], rows),
        ]);
    }
}

/// The nodes' own metrics: a small plot for each, a line a node.
fn nodes(report: &Report, parts: &mut Vec<Part>) {
    let mut metrics: Vec<&String> = report.nodes.iter().flat_map(|node| node.metrics.keys()).collect();
    let rank = |name: &str| {
        METRICS_FIRST
            .iter()
            .position(|word| name.contains(word))
            .unwrap_or(usize::MAX)
    };
    metrics.sort_by_key(|name| (rank(name), *name));
    metrics.dedup();
    if metrics.is_empty() {
        return;
    }
    parts.push(heading("The nodes' own metrics"));
    let (all, nodes) = (metrics.len(), report.nodes.len());
    if all > METRICS_MAX || nodes > NODES_MAX {
        let text = format!(
            "At most {METRICS_MAX} of {all} metrics and {NODES_MAX} of {nodes} nodes are shown; report.json has all."
        );
        parts.push(Part::Text(text));
    }
    let end_s = end_s(report);
    for metric in metrics.into_iter().take(METRICS_MAX) {
        let line = |node: &NodeSeries| {
            let values = node.metrics.get(metric)?;
            let points = node.at_ms.iter().zip(values);
            Some(Line {
                label: node.name.clone(),
                points: points
                    .map(|(at, value)| (*at as f64 / 1e3, value.unwrap_or(f64::NAN)))
                    .collect(),
            })
        };
        parts.push(Part::Plot(Plot {
            title: metric.clone(),
            x_unit: "s".into(),
            y_unit: unit(metric).into(),
            lines: report.nodes.iter().take(NODES_MAX).filter_map(line).collect(),
            x_most: Some(end_s),
            is_small: true,
            ..Plot::default()
        }));
    }
}

/// The unit that a metric's name ends with.
fn unit(metric: &str) -> &'static str {
    let ends = [
        ("_seconds", "s"),
        ("_ms", "ms"),
        ("_us", "µs"),
        ("_bytes", "bytes"),
        ("_share", "share"),
        ("_bytes_per_s", "bytes/s"),
        ("_per_s", "1/s"),
    ];
    ends.into_iter()
        .find(|(end, _)| metric.ends_with(end))
        .map_or("", |(_, unit)| unit)
}

#[cfg(test)]
mod tests {
    use super::super::{Allow, Verdict, compare, sample};
    use super::*;

    #[test]
    fn a_page_has_the_verdict_first_and_a_plot_for_everything_that_was_measured() {
        let mut results = sample::results(1, 120);
        results.report.verdict = Verdict {
            invalid_because: vec!["<late>".into()],
            ..Verdict::default()
        };
        let html = page(&results).to_string();
        let at = |text: &str| html.find(text).unwrap_or_else(|| panic!("{text}: {html}"));
        assert!(at("Not valid") < at("What ran") && at("&lt;late&gt;") < at("What ran"));
        assert!(at("What ran") < at("Totals") && at("Totals") < at("Latencies"));
        for text in [
            "99.9 %",
            "Time to catch up",
            "SKY-1006",
            "Where the run",
            "sync_seconds",
            "2025-11-29T",
        ] {
            at(text);
        }
        // Five counts, two latencies, a distribution, a scatter, five metrics.
        assert_eq!(html.matches("<svg").count(), 14);
        assert!(at("processor_share") < at("memory_bytes") && at("memory_bytes") < at("follower_lag_entries"));
        assert!(!html.contains("NaN") && !html.contains("http:") && !html.contains("https:"));
    }

    #[test]
    fn a_run_of_nothing_has_a_page_too() {
        let measured = super::super::Measured {
            interval: Duration::from_secs(1),
            latencies: BTreeMap::new(),
            counts: BTreeMap::new(),
        };
        let html = page(&Results::new(Report::default(), measured)).to_string();
        assert!(html.contains("no reason is given") && !html.contains("<svg"));
    }

    #[test]
    fn a_page_of_a_comparison_has_both_distributions() {
        let (a, b) = (vec![sample::results(1, 60)], vec![sample::results(2, 60)]);
        let condition = "append.p99<1000x".parse().expect("a condition");
        let comparison = compare(&a, &b, &[condition], Allow::default()).expect("alike");
        let html = comparison_page(&comparison, &a, &b).to_string();
        assert!(html.contains("Failed: 1 of 1 conditions") && html.contains("none: one run on a side"));
        assert_eq!(html.matches("<svg").count(), Measure::ALL.len());
    }
}
