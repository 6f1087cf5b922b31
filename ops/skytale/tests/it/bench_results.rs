//! Results of load runs: joined and compared.

use crate::node::text;
use crate::process::Place;
use skytale_load::results::{Count, Measure, Measured, REPORT_VERSION, Report, Results, Speed, histogram};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// A run of two seconds with 200 appends, about so slow.
fn run(append_us: u64) -> Results {
    let interval = |shift: u64| {
        let mut interval = histogram();
        for number in 0..100 {
            interval
                .record(append_us + shift + number * append_us / 200)
                .expect("in bounds");
        }
        interval
    };
    let intervals: Vec<_> = (0..2).map(interval).collect();
    let measured = Measured {
        interval: Duration::from_secs(1),
        latencies: BTreeMap::from([(Measure::Append, intervals.clone()), (Measure::Delivered, intervals)]),
        counts: BTreeMap::from([(Count::Sent, vec![100, 100]), (Count::Backlog, vec![0, 1])]),
    };
    let mut report = Report {
        skytale_report: REPORT_VERSION,
        ..Report::default()
    };
    report.run.made_by = "skytale test".into();
    report.run.started_ms = 1_764_410_400_000;
    report.run.target = "relay".into();
    report.run.speed = Speed::Factor(1.0);
    (report.run.part, report.run.parts, report.run.joined) = (1, 1, 1);
    report.workload.name = "w.skw".into();
    report.workload.blake3 = "00".repeat(32);
    (report.verdict.valid, report.verdict.passed) = (true, true);
    report.planned.appends = 200;
    let totals = &mut report.totals;
    (totals.duration_us, totals.appending_us) = (2_000_000, 2_000_000);
    (totals.sent, totals.acknowledged, totals.delivered) = (200, 200, 400);
    (totals.acknowledged_per_s, totals.delivered_per_s) = (100.0, 200.0);
    Results::new(report, measured)
}

fn write(place: &Place, name: &str, results: &Results) {
    results.write(&place.path(name)).expect("written");
}

/// Repeats of a run.
fn repeats(place: &Place, name: &str, append_us: u64) {
    std::fs::create_dir(place.path(name)).expect("a folder");
    for number in 1..=4 {
        write(
            place,
            &format!("{name}/run-{number}"),
            &run(append_us + number * append_us / 100),
        );
    }
}

#[test]
fn parts_of_a_run_are_joined_exactly_and_what_is_none_is_refused() {
    let place = Place::new();
    for number in 1..=2_u32 {
        let mut part = run(2_000 * u64::from(number));
        (part.report.run.part, part.report.run.parts) = (number, 2);
        write(&place, &format!("part-{number}"), &part);
    }
    let joined = place.json(&["bench", "merge", "joined", "part-1", "part-2"]);
    assert_eq!(joined["folder"], "joined");
    let report = &joined["report"];
    assert_eq!(
        (&report["run"]["joined"], &report["run"]["parts"]),
        (&2.into(), &1.into())
    );
    assert_eq!(report["latencies_us"]["append"]["count"], 400);
    assert_eq!(report["totals"]["acknowledged_per_s"], 200.0);
    let read = Results::read(&place.path("joined")).expect("read");
    assert_eq!(serde_json::to_value(&read.report).expect("JSON"), *report);
    for file in ["report.json", "report.html", "append.hlog", "counts.csv"] {
        assert!(place.path("joined").join(file).exists(), "{file}");
    }
    let ran = place.run(["bench", "merge", "again", "part-2", "part-1"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for told in [
        "2 parts joined",
        "Passed",
        "append acknowledged",
        "p99.9",
        "again/report.html",
    ] {
        assert!(ran.stdout.contains(told), "{told}: {}", ran.stdout);
    }

    let refused = |line: &[&str], told: &str| {
        let ran = place.run(["--json", "bench", "merge"].iter().chain(line));
        let failure = ran.failure();
        assert!(ran.code != 0 && failure.to_string().contains(told), "{told}: {failure}");
        assert!(ran.stdout.is_empty());
    };
    let before = std::fs::read(place.path("joined/report.json")).expect("a report");
    refused(&["joined", "part-1", "part-2"], "joined exists");
    assert_eq!(
        std::fs::read(place.path("joined/report.json")).expect("a report"),
        before
    );
    refused(&["new", "part-1"], "part 2 of 2 is missing");
    refused(&["new", "part-1", "part-1"], "part 1 is there twice");
    refused(&["new", "part-1", "nowhere"], "nowhere/report.json is missing");
    let mut other = run(2_000);
    (other.report.run.part, other.report.run.parts) = (2, 2);
    other.report.run.speed = Speed::Factor(2.0);
    write(&place, "other", &other);
    refused(
        &["new", "part-1", "other"],
        "run.speed is 1x in one and 2x in the other",
    );
    change(
        &place.path("part-2/report.json"),
        "\"skytale_report\": 1",
        "\"skytale_report\": 9",
    );
    refused(&["new", "part-1", "part-2"], "part-2/report.json is of version 9");
    assert!(!place.path("new").exists());
}

fn change(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).expect("text");
    assert!(text.contains(from), "{text}");
    std::fs::write(file, text.replacen(from, to, 1)).expect("written");
}

#[test]
fn slower_repeats_fail_a_condition_and_the_exit_code_says_so() {
    let place = Place::new();
    repeats(&place, "before", 2_000);
    repeats(&place, "after", 4_000);
    let same = place.json(&["bench", "compare", "before", "before", "--fail-if", "append.p99>1.1x"]);
    assert_eq!((&same["failed"], &same["a"]["runs"]), (&false.into(), &4.into()));
    let p99 = same["metrics"]
        .as_array()
        .expect("metrics")
        .iter()
        .find(|one| one["metric"] == "append.p99");
    let p99 = p99.expect("a p99");
    assert_eq!(p99["ratio"], 1.0);
    assert!(p99["interval"]["low"].as_f64() < Some(1.0) && p99["interval"]["high"].as_f64() > Some(1.0));

    let line = ["bench", "compare", "before", "after", "--html", "page.html"];
    let conditions = ["--fail-if", "append.p99>1.5x", "--fail-if", "acknowledged_per_s<0.9x"];
    let ran = place.run(line.iter().chain(&conditions));
    assert_eq!(ran.code, 7, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("append.p99>1.5x: failed") && !ran.stderr.contains("acknowledged"),
        "{}",
        ran.stderr
    );
    for told in [
        "4 runs against relay",
        "95 % interval",
        "append.p999",
        "acknowledged_per_s<0.9x",
    ] {
        assert!(ran.stdout.contains(told), "{told}: {}", ran.stdout);
    }
    let page = std::fs::read_to_string(place.path("page.html")).expect("a page");
    assert!(page.contains("Failed: 1 of 2 conditions") && page.trim_end().ends_with("</html>"));
    let ran = place.run(line);
    assert!(
        ran.code != 0 && ran.stderr.contains("cannot write page.html"),
        "{}",
        ran.stderr
    );

    let ran = place.run([
        "--json",
        "bench",
        "compare",
        "before",
        "after",
        "--fail-if",
        "append.p99>1.5x",
    ]);
    assert_eq!((ran.code, text(&ran.failure()["code"])), (7, "SKY-6003".to_owned()));
    assert!(ran.stdout.contains("\"judgement\":\"failed\""), "{}", ran.stdout);
    // A figure that nobody measured does not pass in silence.
    let ran = place.run(["bench", "compare", "before", "after", "--fail-if", "token.p99>1.5x"]);
    assert_eq!(ran.code, 7);
    assert!(ran.stderr.contains("not measured on both sides"), "{}", ran.stderr);
    let ran = place.run(["bench", "compare", "before/run-1", "after/run-1"]);
    assert!(
        ran.code == 0 && ran.stdout.contains("none: one run on a side"),
        "{}",
        ran.stdout
    );
}

#[test]
fn what_does_not_compare_is_refused_unless_it_is_allowed() {
    let place = Place::new();
    write(&place, "one", &run(2_000));
    let mut unlike = run(2_000);
    unlike.report.workload.blake3 = "11".repeat(32);
    write(&place, "unlike", &unlike);
    let mut invalid = run(2_000);
    invalid.report.verdict.valid = false;
    invalid.report.verdict.invalid_because = vec!["the generator was late".into()];
    write(&place, "invalid", &invalid);
    let mut max = run(2_000);
    max.report.run.speed = Speed::Max;
    write(&place, "max", &Results::new(max.report, max.measured));
    let refused = |line: &[&str], told: &str| {
        let ran = place.run(["bench", "compare"].iter().chain(line));
        assert!(ran.code != 0 && ran.stderr.contains(told), "{told}: {}", ran.stderr);
        assert!(ran.stdout.is_empty());
    };
    refused(&["one", "unlike"], "--unlike");
    let told = place.json(&["bench", "compare", "one", "unlike", "--unlike"]);
    assert_eq!(told["unlike"][0]["field"], "workload.blake3");
    refused(&["one", "invalid"], "the generator was late");
    let ran = place.run(["bench", "compare", "one", "invalid", "--invalid"]);
    assert!(
        ran.code == 0 && ran.stdout.contains("run 1 of side b is not valid"),
        "{}",
        ran.stdout
    );
    refused(&["max", "max", "--fail-if", "append.p99>1.1x"], "speed max");
    let told = place
        .run(["bench", "compare", "max", "max", "--fail-if", "delivered_per_s<0.9x"])
        .stdout;
    assert!(told.contains("delivered_per_s") && !told.contains("append.p"), "{told}");
    for (condition, told) in [
        ("append.p98>1x", "acknowledged_per_s"),
        ("append.p99>1.1", "ends with x"),
        ("append.p99", "METRIC>FACTORx"),
    ] {
        let ran = place.run(["bench", "compare", "one", "one", "--fail-if", condition]);
        assert!(ran.code == 2 && ran.stderr.contains(told), "{told}: {}", ran.stderr);
    }
    std::fs::create_dir(place.path("empty")).expect("a folder");
    refused(&["one", "empty"], "empty holds no results");
    std::fs::remove_file(place.path("one/append.hlog")).expect("removed");
    refused(&["one", "max"], "append.hlog is missing");
}
