//! Promises of a results folder.

use super::super::{
    CatchUp, Count, LATENCY_US_MAX, Measure, Measured, NodeSeries, REPORT_VERSION, Report, Results, Speed, histogram,
    sample,
};
use super::hlog;
use super::{COUNTS_FILE, PAGE_FILE, REPORT_FILE, ReadError, WriteError, read_runs};
use data_encoding::BASE64;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer, V2Serializer};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

fn measured() -> impl Strategy<Value = Measured> {
    let values = vec((1..=LATENCY_US_MAX, 1..2_000u64), 0..6);
    let histograms = values.prop_map(|values| {
        let mut interval = histogram();
        for (value, times) in values {
            interval.record_n(value, times).expect("in bounds");
        }
        interval
    });
    let latencies = btree_map(proptest::sample::select(&Measure::ALL), vec(histograms, 0..5), 0..4);
    let counts = btree_map(proptest::sample::select(&Count::ALL), vec(any::<u32>(), 0..5), 0..4);
    (1..100_000u64, latencies, counts).prop_map(|(interval_ms, latencies, counts)| Measured {
        interval: Duration::from_millis(interval_ms),
        latencies,
        counts: counts
            .into_iter()
            .map(|(count, values)| (count, values.into_iter().map(u64::from).collect()))
            .collect(),
    })
}

fn report() -> impl Strategy<Value = Report> {
    let speed = prop_oneof![(0.001..1e4).prop_map(Speed::Factor), Just(Speed::Max)];
    let texts = (".{0,20}", ".{0,20}", vec(".{0,9}", 0..3));
    let numbers = (
        0..4_102_444_800_000u64,
        any::<u64>(),
        -1e12..1e12f64,
        vec(any::<(u64, u64, u64)>(), 0..5),
    );
    (speed, texts, numbers).prop_map(|(speed, (text, other, words), (started_ms, number, value, back))| {
        let mut report = sample::full();
        report.run.speed = speed;
        report.run.started_ms = started_ms;
        report.run.command = words;
        report.workload.name = text;
        report.run.settings = BTreeMap::from([(other.clone(), other.clone().into()), ("n".into(), number.into())]);
        report.totals.acknowledged_per_s = value;
        report.totals.sent = number;
        let one = |(at_ms, missed, took_us)| CatchUp { at_ms, missed, took_us };
        report.catch_up = back.into_iter().map(one).collect();
        report.nodes = vec![NodeSeries {
            name: other,
            at_ms: vec![number],
            metrics: BTreeMap::from([("m".to_owned(), vec![None, Some(value), Some(f64::NAN)])]),
        }];
        report
    })
}

fn assert_same(read: &Results, written: &Results) {
    assert_eq!(read.report, written.report);
    assert_eq!(read.measured.interval, written.measured.interval);
    assert_eq!(read.measured.counts, written.measured.counts);
    assert_eq!(read.measured.latencies, written.measured.latencies);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_written_is_read_back_exactly(report in report(), measured in measured()) {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("results");
        let results = Results::new(report, measured);
        results.write(&dir).expect("written");
        assert_same(&Results::read(&dir).expect("read"), &results);
    }

    #[test]
    fn changed_bytes_give_an_error_that_names_a_file_or_the_same_results(
        file in 0..4usize,
        place in 0.0..1.0f64,
        byte in any::<u8>(),
        is_cut in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("results");
        sample::results(3, 4).write(&dir).expect("written");
        let path = dir.join([REPORT_FILE, COUNTS_FILE, "append.hlog", "token.hlog"][file]);
        let mut bytes = fs::read(&path).expect("a file");
        let at = (place * bytes.len() as f64) as usize;
        if is_cut {
            bytes.truncate(at);
        } else {
            bytes[at] = byte;
        }
        fs::write(&path, &bytes).expect("written");
        if let Err(error) = Results::read(&dir) {
            prop_assert!(error.to_string().contains("results/"), "{}", error);
            prop_assert!(!error.help().is_empty());
        }
    }

    #[test]
    fn any_bytes_as_a_histogram_are_refused_without_a_panic(
        head in prop_oneof![Just(true), any::<bool>()],
        payload in vec(any::<u8>(), 0..200),
    ) {
        let mut plain = Vec::new();
        if head {
            plain.extend(0x1c84_9313_u32.to_be_bytes());
            plain.extend((payload.len() as u32).to_be_bytes());
            plain.extend([0; 4]);
            plain.extend(3_u32.to_be_bytes());
            plain.extend(1_u64.to_be_bytes());
            plain.extend(LATENCY_US_MAX.to_be_bytes());
            plain.extend(1.0_f64.to_be_bytes());
        }
        plain.extend(&payload);
        let _ = hlog::decode(&log(&plain), 1_000, Duration::from_secs(1));
    }
}

/// A log of one interval with this as its histogram.
fn log(plain: &[u8]) -> Vec<u8> {
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut zlib, plain).expect("compressed");
    let zlib = zlib.finish().expect("compressed");
    let mut bytes = 0x1c84_9314_u32.to_be_bytes().to_vec();
    bytes.extend((zlib.len() as u32).to_be_bytes());
    bytes.extend(&zlib);
    line(&BASE64.encode(&bytes))
}

fn line(encoded: &str) -> Vec<u8> {
    let heads = "#[StartTime: 1.000 (seconds since epoch)]\n#[BaseTime: 1.000 (seconds since epoch)]\n";
    format!("{heads}0.000,1.000,5.000,{encoded}\n").into_bytes()
}

#[test]
fn a_folder_is_new_and_a_failure_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("results");
    let mut results = sample::results(1, 10);
    results.write(&dir).expect("written");
    for name in [REPORT_FILE, COUNTS_FILE, PAGE_FILE, "append.hlog", "send_delay.hlog"] {
        assert!(dir.join(name).exists(), "{name}");
    }
    let before = fs::read(dir.join(REPORT_FILE)).expect("a report");
    assert!(before.starts_with(b"{\n  \"skytale_report\": 1,\n  \"run\": {\n    \"made_by\""));
    assert!(matches!(results.write(&dir), Err(WriteError::Exists { .. })));
    assert_eq!(fs::read(dir.join(REPORT_FILE)).expect("a report"), before);

    let other = folder.path().join("other");
    let foreign = Histogram::new_with_bounds(1, 1_000, 2).expect("bounds");
    results.measured.latencies.insert(Measure::Token, vec![foreign]);
    let error = results.write(&other).expect_err("foreign bounds");
    assert!(error.to_string().contains("token.hlog"), "{error}");
    results.measured.latencies.remove(&Measure::Token);
    results.measured.interval = Duration::from_micros(1_500);
    assert!(results.write(&other).is_err() && !other.exists());
    let nowhere = folder.path().join("no/such");
    assert!(matches!(results.write(&nowhere), Err(WriteError::Io { .. })));
}

/// Returns the result of reading the sample after a file was changed.
fn changed(name: &str, change: impl Fn(&Path)) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("results");
    sample::results(2, 6).write(&dir).expect("written");
    change(&dir.join(name));
    let error = Results::read(&dir).expect_err("refused");
    assert!(!error.help().is_empty());
    error.to_string()
}

fn replace(from: &'static str, to: &'static str) -> impl Fn(&Path) {
    move |path| {
        let text = fs::read_to_string(path).expect("text");
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replacen(from, to, 1)).expect("written");
    }
}

#[test]
fn what_is_not_the_run_s_is_refused_with_the_file_and_why() {
    let remove = |path: &Path| fs::remove_file(path).expect("removed");
    for (name, change, told) in [
        ("append.hlog", &remove as &dyn Fn(&Path), "append.hlog is missing"),
        (COUNTS_FILE, &remove, "counts.csv is missing"),
        (REPORT_FILE, &remove, "report.json is missing"),
        (
            "other.hlog",
            &|path| fs::write(path, "").expect("written"),
            "other.hlog does not belong",
        ),
        (
            REPORT_FILE,
            &replace("report\": 1", "report\": 2"),
            "report.json is of version 2",
        ),
        (REPORT_FILE, &replace("{", "["), "report.json is damaged"),
        (
            REPORT_FILE,
            &replace(
                "interval_ms\": 500,\n    \"measured",
                "interval_ms\": 501,\n    \"measured",
            ),
            "series.interval_ms",
        ),
        (
            REPORT_FILE,
            &replace("measured_interval_ms\": 500", "measured_interval_ms\": 0"),
            "out of range",
        ),
        (
            REPORT_FILE,
            &replace("started_ms\": 1764410400123", "started_ms\": 1764410400125"),
            "another time",
        ),
        (
            REPORT_FILE,
            &replace("\"append\": {\n      \"count\": ", "\"append\": {\n      \"count\": 1"),
            "disagree on latencies_us.append",
        ),
        (COUNTS_FILE, &replace("at_ms", "at"), "line 1: the first column"),
        (COUNTS_FILE, &replace("planned", "plan"), "unknown count \"plan\""),
        (COUNTS_FILE, &replace("planned", "sent"), "there twice"),
        (COUNTS_FILE, &replace("\n500,", "\n501,"), "line 3: at_ms"),
        (COUNTS_FILE, &replace("\n500,", "\n500,x"), "is not a number"),
        (COUNTS_FILE, &replace("\n500,", "\n500,1,"), "too many cells"),
        (
            COUNTS_FILE,
            &replace("\n500,", "\n500,1"),
            "disagree on series.counts.planned",
        ),
        (
            "append.hlog",
            &replace("\n0.500,0.500", "\n0.500,0.501"),
            "interval 2 is not at its time",
        ),
        ("append.hlog", &replace("#[BaseTime", "#[Based"), "no BaseTime"),
        ("append.hlog", &replace(",H", ",!"), "it is not base64"),
    ] {
        let error = changed(name, change);
        assert!(error.contains(told), "{told}: {error}");
    }
    // Another run's log of the same length.
    let error = changed("append.hlog", |path| {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("other");
        sample::results(9, 6).write(&dir).expect("written");
        fs::copy(dir.join("append.hlog"), path).expect("copied");
    });
    assert!(error.contains("disagree on latencies_us.append"), "{error}");
}

#[test]
fn hostile_histograms_are_refused_before_they_cost_memory() {
    let decode = |bytes: Vec<u8>| hlog::decode(&bytes, 1_000, Duration::from_secs(1)).expect_err("refused");
    let encoded = |plain: &[u8]| decode(log(plain));
    let head = |length: u32, digits: u32, high: u64| {
        let mut plain = 0x1c84_9313_u32.to_be_bytes().to_vec();
        plain.extend(length.to_be_bytes());
        plain.extend([0; 4]);
        plain.extend(digits.to_be_bytes());
        plain.extend(1_u64.to_be_bytes());
        plain.extend(high.to_be_bytes());
        plain.extend(1.0_f64.to_be_bytes());
        plain
    };
    let with = |payload: &[u8]| {
        let mut plain = head(payload.len() as u32, 3, LATENCY_US_MAX);
        plain.extend(payload);
        plain
    };
    assert!(encoded(&head(u32::MAX, 3, LATENCY_US_MAX)).contains("length is wrong"));
    assert!(encoded(&head(0, 5, LATENCY_US_MAX)).contains("bounds or digits"));
    assert!(encoded(&head(0, 3, u64::MAX)).contains("bounds or digits"));
    // The smallest i64, which has no opposite; a run of zeros beyond the end; a count beyond all; half a number.
    assert!(encoded(&with(&[0xff; 9])).contains("too many counts"));
    assert!(encoded(&with(&[0xff, 0xff, 0xff, 0x7f])).contains("too many counts"));
    assert!(encoded(&with(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f])).contains("too large"));
    assert!(encoded(&with(&[0x80])).contains("within a number"));
    // A bomb: a gigabyte of zeros in a megabyte.
    let bomb = vec![0; 64 << 20];
    assert!(encoded(&with(&bomb)).contains("larger than"));
    let mut plain = Vec::new();
    V2Serializer::new()
        .serialize(&histogram(), &mut plain)
        .expect("serialized");
    assert!(decode(line(&BASE64.encode(&plain))).contains("compressed"));
    let mut whole = Vec::new();
    V2DeflateSerializer::new()
        .serialize(&histogram(), &mut whole)
        .expect("serialized");
    assert_eq!(
        hlog::decode(&line(&BASE64.encode(&whole)), 1_000, Duration::from_secs(1)),
        Ok(vec![histogram()])
    );
    let mut many = line(&BASE64.encode(&whole));
    for second in 1..=4_000 {
        many.extend(format!("{second}.000,1.000,0.000,{}\n", BASE64.encode(&whole)).bytes());
    }
    assert!(decode(many).contains("more than 4000 intervals"));
}

#[test]
fn a_file_that_is_too_large_is_not_read_to_its_end() {
    let error = changed(COUNTS_FILE, |path| {
        let file = fs::OpenOptions::new().write(true).open(path).expect("a file");
        file.set_len(1 << 40).expect("a hole");
    });
    assert!(error.contains("counts.csv has more than"), "{error}");
}

#[test]
fn repeats_are_read_in_the_order_of_their_numbers() {
    let folder = tempfile::tempdir().expect("a folder");
    let runs = |dir: &Path| read_runs(dir, |results| results.report.run.started_ms);
    assert!(matches!(runs(folder.path()), Err(ReadError::NoResults { .. })));
    assert!(matches!(
        runs(&folder.path().join("none")),
        Err(ReadError::Missing { .. })
    ));
    for number in [1_u64, 2, 10] {
        let mut results = sample::results(number, 3);
        results.report.run.started_ms = number;
        results
            .write(&folder.path().join(format!("run-{number}")))
            .expect("written");
    }
    fs::create_dir(folder.path().join("notes")).expect("a folder");
    assert_eq!(runs(folder.path()).expect("read"), [1, 2, 10]);
    assert_eq!(runs(&folder.path().join("run-10")).expect("read"), [10]);
    fs::create_dir(folder.path().join("run-3")).expect("a folder");
    let error = runs(folder.path()).expect_err("a run that is not whole").to_string();
    assert!(error.contains("run-3/report.json is missing"), "{error}");
}

/// Every field, as its path.
fn paths(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                paths(value, &path, found);
            }
        }
        serde_json::Value::Array(values) if values.iter().any(serde_json::Value::is_object) => {
            for value in values {
                paths(value, &format!("{path}[]"), found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

#[test]
fn every_field_of_a_report_is_in_the_document() {
    let document = include_str!("../../../../../docs/load-results.md");
    let report = serde_json::to_value(sample::full()).expect("JSON");
    let mut found = Vec::new();
    paths(&report, "", &mut found);
    found.sort();
    found.dedup();
    assert!(found.len() > 70, "{found:?}");
    let missing: Vec<&String> = found
        .iter()
        .filter(|path| !document.contains(&format!("| `{path}` |")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    for name in Measure::ALL
        .map(Measure::name)
        .into_iter()
        .chain(Count::ALL.map(Count::name))
    {
        assert!(document.contains(&format!("`{name}`")), "{name}");
    }
    assert!(document.contains(&format!("version is {REPORT_VERSION}")));
}
