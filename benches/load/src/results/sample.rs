//! Results that look like those of a run, for tests.

use super::{
    CatchUp, Count, Histogram64, LATENCY_US_MAX, Latency, Machine, Measure, Measured, NodeSeries, Report, Results,
    Speed, histogram,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// Numbers that are the same for the same seed (xorshift).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A latency with a long tail.
    fn latency(&mut self, median_us: f64) -> u64 {
        let tail = if self.unit() > 0.995 { 12.0 } else { 1.0 };
        let normal = (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
        (median_us * (0.35 * normal).exp() * tail) as u64
    }
}

/// A run of so many intervals of half a second: readers are away and come back after two thirds.
pub(super) fn run(seed: u64, intervals: usize) -> (Report, Measured) {
    let mut dice = Dice::new(seed);
    let mut latencies: BTreeMap<Measure, Vec<Histogram64>> = BTreeMap::new();
    let mut counts: BTreeMap<Count, Vec<u64>> = BTreeMap::new();
    let mut backlog = 0i64;
    let mut report = Report::default();
    for interval in 0..intervals {
        let place = interval as f64 / intervals as f64;
        let storm = (0.66..0.72).contains(&place);
        let rate = 40.0 + 25.0 * (place * 9.0).sin() + 6.0 * dice.unit();
        let planned = rate as u64;
        let slow = if storm { 6.0 } else { 1.0 };
        let mut add = |measure: Measure, times: u64, median: f64, dice: &mut Dice| {
            let mut interval = histogram();
            for _ in 0..times {
                interval
                    .record(dice.latency(median).clamp(1, LATENCY_US_MAX))
                    .expect("in bounds");
            }
            latencies.entry(measure).or_default().push(interval);
        };
        add(Measure::Append, planned, 2_300.0 * slow, &mut dice);
        add(Measure::Delivered, planned * 3, 3_900.0 * slow, &mut dice);
        add(Measure::SendDelay, planned, 60.0, &mut dice);
        let back = if storm { 8 } else { 0 };
        add(Measure::CaughtUp, back, 180_000.0, &mut dice);
        add(
            Measure::Connected,
            back + u64::from(interval == 0) * 10,
            9_000.0,
            &mut dice,
        );
        add(Measure::Token, back + u64::from(interval == 0) * 10, 4_000.0, &mut dice);
        backlog = (backlog + if storm { 9 } else { -20 }).max((rate / 12.0) as i64);
        for (count, value) in [
            (Count::Planned, planned),
            (Count::Sent, planned),
            (Count::Acknowledged, planned.saturating_sub(backlog.unsigned_abs() / 9)),
            (Count::Delivered, planned * 3),
            (Count::Refused, u64::from(dice.unit() > 0.8)),
            (Count::Backlog, backlog.unsigned_abs()),
            (Count::Online, if (0.3..0.66).contains(&place) { 12 } else { 40 }),
        ] {
            counts.entry(count).or_default().push(value);
        }
        for _ in 0..back {
            let missed = 1 + (dice.unit().powi(3) * 4_000.0) as u64;
            report.catch_up.push(CatchUp {
                at_ms: interval as u64 * 500,
                missed,
                took_us: 20_000 + dice.latency(missed as f64 * 60.0),
            });
        }
    }
    fill(&mut report, intervals, &counts, &mut dice);
    let measured = Measured {
        interval: Duration::from_millis(500),
        latencies,
        counts,
    };
    (report, measured)
}

fn fill(report: &mut Report, intervals: usize, counts: &BTreeMap<Count, Vec<u64>>, dice: &mut Dice) {
    let sum = |count: Count| counts.get(&count).map_or(0, |values| values.iter().sum::<u64>());
    let duration_us = intervals as u64 * 500_000;
    report.skytale_report = super::REPORT_VERSION;
    let run = &mut report.run;
    run.made_by = "skytale 0.1.0".into();
    run.revision = Some("5511d6c".into());
    run.command = ["skytale", "bench", "run", "night.skw", "--speed", "2"]
        .map(str::to_owned)
        .into();
    run.started_ms = 1_764_410_400_123;
    run.target = "relay".into();
    run.place = "fleet".into();
    run.level = "relay".into();
    run.speed = Speed::Factor(2.0);
    run.settings = BTreeMap::from([("nodes".to_owned(), 3.into()), ("window".to_owned(), 64.into())]);
    run.machine = Machine {
        system: "Linux 6.1.0".into(),
        processor: "a processor".into(),
        processors: 8,
        memory_bytes: 16 << 30,
    };
    (run.part, run.parts, run.joined) = (1, 1, 1);
    let workload = &mut report.workload;
    workload.name = "night.skw".into();
    workload.blake3 = "ab".repeat(32);
    workload.source = "synth".into();
    workload.made_by = "skytale 0.1.0, profile nightly-team, seed 1".into();
    (workload.events, workload.duration_us) = (11_198, 2 * duration_us);
    let planned = &mut report.planned;
    planned.operations = sum(Count::Planned) + 80;
    planned.appends = sum(Count::Planned);
    planned.duration_us = duration_us;
    (planned.agents, planned.channels, planned.body_bytes) = (40, 5, 30_000_000);
    planned.deliveries = 3 * sum(Count::Planned);
    (report.verdict.valid, report.verdict.passed) = (true, true);
    let totals = &mut report.totals;
    totals.duration_us = duration_us + 40_000;
    totals.first_planned_us = 1_200;
    totals.appending_us = duration_us - 10_000;
    totals.sent = sum(Count::Sent);
    totals.acknowledged = totals.sent;
    totals.acknowledged_bytes = totals.sent * 1_024;
    totals.delivered = sum(Count::Delivered);
    totals.delivered_bytes = totals.delivered * 1_024;
    (totals.again, totals.sessions, totals.generator_cpu_us) = (31, 90, duration_us / 3);
    totals.acknowledged_per_s = totals.sent as f64 / totals.appending_s();
    totals.delivered_per_s = totals.delivered as f64 / (totals.duration_us as f64 / 1e6);
    report.verified.channels = 5;
    report.verified.entries = totals.sent;
    report.verified.readers = 40;
    report.refusals = BTreeMap::from([
        ("SKY-1006".to_owned(), 31),
        ("SKY-2006".to_owned(), sum(Count::Refused)),
    ]);
    report.divergence.messages_outrun = 31;
    report.nodes = ["relay-1", "relay-2", "relay-3"]
        .map(|name| node(name, intervals, dice))
        .into();
}

fn node(name: &str, intervals: usize, dice: &mut Dice) -> NodeSeries {
    let times: Vec<u64> = (0..intervals as u64)
        .step_by(4)
        .map(|interval| interval * 500)
        .collect();
    let mut metrics: BTreeMap<String, Vec<Option<f64>>> = BTreeMap::new();
    let level = dice.unit();
    for (metric, scale) in [
        ("processor_share", 0.6),
        ("memory_bytes", 9e7),
        ("sync_seconds", 0.004),
        ("batch_frames", 22.0),
        ("follower_lag_entries", 40.0),
    ] {
        let value = |_: &u64| (dice.unit() > 0.02).then(|| scale * (0.6 + level * 0.3 + dice.unit() * 0.2));
        metrics.insert(metric.to_owned(), times.iter().map(value).collect());
    }
    NodeSeries {
        name: name.to_owned(),
        at_ms: times,
        metrics,
    }
}

/// The results of that run.
pub(super) fn results(seed: u64, intervals: usize) -> Results {
    let (report, measured) = run(seed, intervals);
    Results::new(report, measured)
}

/// A report in which every field and list has something, under the key `NAME` in maps.
pub(super) fn full() -> Report {
    let name = || "NAME".to_owned();
    let mut report = results(1, 6).report;
    report.run.settings = BTreeMap::from([(name(), 1.into())]);
    report.latencies_us = BTreeMap::from([(name(), Latency::default())]);
    let mut series = report.series.latencies_us.remove("append").into_iter();
    report.series.latencies_us = series.by_ref().map(|series| (name(), series)).collect();
    report.series.counts = BTreeMap::from([(name(), vec![1])]);
    report.refusals = BTreeMap::from([(name(), 1)]);
    report.divergence.captured_refusals = BTreeMap::from([(name(), 1)]);
    report.verdict.invalid_because = vec![name()];
    report.verdict.first_faults = vec![name()];
    for node in &mut report.nodes {
        node.metrics = BTreeMap::from([(name(), vec![Some(1.0)])]);
    }
    report
}
