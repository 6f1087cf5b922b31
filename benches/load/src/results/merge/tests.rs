//! Promises of joined results.

use super::super::{Measure, Speed, sample};
use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::time::Duration;

fn part(seed: u64, number: u32, of: u32, started_ms: u64) -> Results {
    let mut results = sample::results(seed, 20);
    let run = &mut results.report.run;
    (run.part, run.parts, run.started_ms) = (number, of, started_ms);
    results
}

#[test]
fn parts_are_joined_in_any_order_and_everything_is_added() {
    let parts = || vec![part(2, 2, 3, 11_100), part(1, 1, 3, 10_000), part(3, 3, 3, 10_200)];
    let mut given = parts();
    given[0].report.verdict.valid = false;
    given[0].report.verdict.invalid_because = vec!["late".into()];
    given[2].report.verdict.passed = false;
    given[2].report.verdict.faults = 2;
    given[2].report.verdict.first_faults = vec!["a gap".into()];
    given[0].report.nodes[0].at_ms.pop();
    for part in &mut given {
        part.report.divergence.captured_refusals.insert("SKY-1005".into(), 4);
    }
    let joined = merge(given).expect("joined");
    let (report, parts) = (&joined.report, parts());
    let sum = |of: &dyn Fn(&Report) -> u64| parts.iter().map(|part| of(&part.report)).sum::<u64>();

    for measure in Measure::ALL {
        let mut all = histogram();
        for part in &parts {
            if let Some(whole) = part.measured.whole(measure) {
                add(&mut all, &whole);
            }
        }
        assert_eq!(joined.measured.whole(measure).unwrap_or_else(histogram), all);
    }
    // The second part began 1.1 s later: two intervals.
    let sent = |part: &Results| part.measured.counts[&Count::Sent].clone();
    let (all, one, two, three) = (sent(&joined), sent(&parts[1]), sent(&parts[0]), sent(&parts[2]));
    assert_eq!(
        (all.len(), all[0], all[2]),
        (22, one[0] + three[0], one[2] + two[0] + three[2])
    );
    assert_eq!(all[21], two[19]);
    let online = &joined.measured.counts[&Count::Online];
    assert_eq!((online[1], online[19], online[21]), (80, 120, 40));
    let backlog = &joined.measured.counts[&Count::Backlog];
    let last = |part: &Results| part.measured.counts[&Count::Backlog][19];
    assert_eq!(backlog[21], parts.iter().map(last).sum::<u64>());

    let totals = &report.totals;
    assert_eq!(totals.sent, sum(&|report| report.totals.sent));
    assert_eq!(totals.duration_us, parts[0].report.totals.duration_us + 1_100_000);
    assert_eq!(totals.appending_us, parts[0].report.totals.appending_us + 1_100_000);
    assert_eq!(totals.first_planned_us, 1_200);
    let delivered = totals.delivered as f64 / (totals.duration_us as f64 / 1e6);
    assert!((totals.delivered_per_s - delivered).abs() < 0.001);
    let apart: f64 = parts.iter().map(|part| part.report.totals.acknowledged_per_s).sum();
    assert!(totals.acknowledged_per_s < apart && totals.acknowledged_per_s > 0.8 * apart);
    assert_eq!(report.planned.appends, sum(&|report| report.planned.appends));
    assert_eq!(report.refusals["SKY-1006"], 93);
    assert_eq!(report.divergence.messages_outrun, 93);
    assert_eq!(report.divergence.captured_refusals["SKY-1005"], 4);
    assert_eq!(
        report.catch_up.len() as u64,
        sum(&|report| report.catch_up.len() as u64)
    );
    assert!(report.catch_up.is_sorted_by_key(|one| one.at_ms));

    let verdict = &report.verdict;
    assert!(!verdict.valid && !verdict.passed && !verdict.interrupted && verdict.faults == 2);
    assert_eq!(verdict.invalid_because, ["part 2: late"]);
    assert_eq!(verdict.first_faults, ["part 3: a gap"]);
    assert_eq!((report.run.part, report.run.parts, report.run.joined), (1, 1, 3));
    assert_eq!(report.run.started_ms, 10_000);
    assert_eq!(report.run.machine, parts[0].report.run.machine);
    let names: Vec<&str> = report.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["relay-1", "relay-2", "relay-3"]);
    assert_eq!(report.nodes[0].at_ms.len(), parts[0].report.nodes[0].at_ms.len());

    // Written and read as any other.
    let folder = tempfile::tempdir().expect("a folder");
    joined.write(&folder.path().join("joined")).expect("written");
    let read = Results::read(&folder.path().join("joined")).expect("read");
    assert_eq!(
        (read.report, read.measured.latencies),
        (joined.report.clone(), joined.measured.latencies)
    );
}

#[test]
fn parts_with_longer_intervals_are_joined_too() {
    let (one, mut two) = (part(1, 1, 2, 10_000), part(2, 2, 2, 10_000));
    two.measured.join(4);
    let joined = merge(vec![one.clone(), two.clone()]).expect("joined");
    assert_eq!(joined.measured.interval, Duration::from_secs(2));
    assert_eq!(joined.report.series.measured_interval_ms, 2_000);
    let sent = |results: &Results| results.measured.counts[&Count::Sent].iter().sum::<u64>();
    assert_eq!(sent(&joined), sent(&one) + sent(&two));
    assert_eq!(joined.measured.intervals(), 5);
    let mut all = one.measured.whole(Measure::Append).expect("appends");
    add(&mut all, &two.measured.whole(Measure::Append).expect("appends"));
    assert_eq!(joined.measured.whole(Measure::Append), Some(all));
}

#[test]
fn one_part_of_one_stays_what_it_is() {
    let one = sample::results(4, 30);
    let joined = merge(vec![one.clone()]).expect("joined");
    assert_eq!(joined.report, one.report);
    assert_eq!(joined.measured.latencies, one.measured.latencies);
    assert_eq!(joined.measured.counts, one.measured.counts);
}

#[test]
fn what_is_not_one_run_is_refused_with_the_field() {
    let refused = |change: &dyn Fn(&mut Results)| {
        let mut two = part(2, 2, 2, 10_000);
        change(&mut two);
        let error = merge(vec![part(1, 1, 2, 10_000), two]).expect_err("refused");
        assert!(!error.help().is_empty());
        error.to_string()
    };
    let set = |name: &str, change: &dyn Fn(&mut Report)| {
        let told = refused(&|results| change(&mut results.report));
        assert!(told.contains(name), "{name}: {told}");
    };
    set("workload.blake3", &|report| report.workload.blake3 = "other".into());
    set("run.speed is 2x in one and 3x in the other", &|report| {
        report.run.speed = Speed::Factor(3.0)
    });
    set("run.level", &|report| report.run.level = "agent".into());
    set("run.target", &|report| report.run.target = "nats".into());
    set("run.place", &|report| report.run.place = "local".into());
    set("run.settings.window is 64 in one and not set", &|report| {
        report.run.settings.remove("window");
    });
    set("run.parts is 2 in one and 3", &|report| report.run.parts = 3);
    set("part 1 is there twice", &|report| report.run.part = 1);
    set("part 3 of 2 is not a part", &|report| report.run.part = 3);
    set("part 0 of 2 is not a part", &|report| report.run.part = 0);
    set("part 2 began after part 1 had ended", &|report| {
        report.run.started_ms = 90_000
    });
    set("part 2 began after part 1 had ended", &|report| {
        report.run.started_ms = u64::MAX
    });
    let told = refused(&|results| results.measured.interval = Duration::from_millis(997));
    assert!(
        told.contains("series.measured_interval_ms is 500 in one and 997"),
        "{told}"
    );
    let missing = |parts: Vec<Results>| merge(parts).expect_err("refused").to_string();
    assert_eq!(missing(Vec::new()), "there are no results");
    assert_eq!(
        missing(vec![part(1, 1, 3, 1), part(1, 3, 3, 1)]),
        "part 2 of 3 is missing"
    );
    assert_eq!(missing(vec![part(1, 1, 2, 1)]), "part 2 of 2 is missing");
}

proptest! {
    #[test]
    fn counts_of_any_parts_add_up(values in vec(vec(0..1_000u64, 0..8), 1..5), shifts in vec(0..6usize, 5)) {
        let mut to = Vec::new();
        for (values, shift) in values.iter().zip(&shifts) {
            add_counts(Count::Sent, &mut to, values, *shift);
        }
        prop_assert_eq!(to.iter().sum::<u64>(), values.iter().flatten().sum::<u64>());
        let mut level = Vec::new();
        for (values, shift) in values.iter().zip(&shifts) {
            add_counts(Count::Backlog, &mut level, values, *shift);
        }
        let last = values.iter().filter_map(|values| values.last()).sum::<u64>();
        prop_assert_eq!(level.last().copied().unwrap_or(0), last);
    }
}
