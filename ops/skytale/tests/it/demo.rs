//! The demonstration, in a small size.

use crate::process::{Place, Running};
use std::time::{Duration, Instant};

/// Long enough for a slow machine; what takes longer hangs.
const HANGING: Duration = Duration::from_secs(120);

#[test]
fn the_demonstration_loses_nothing_and_says_so() {
    let place = Place::new();
    let line = [
        "demo",
        "--messages",
        "300",
        "--changes",
        "6",
        "--payload-bytes",
        "200",
        "--keep",
        "--dir",
        "kept",
    ];
    let report = place.json(&line);
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(
        (report["sent"].as_u64(), report["delivered"].as_u64()),
        (Some(300), Some(900))
    );
    for none in ["lost", "duplicated", "out_of_order", "foreign"] {
        assert_eq!(report[none], 0, "{none}");
    }
    assert_eq!(
        (report["changes"].as_u64(), report["epochs"].as_u64()),
        (Some(6), Some(6))
    );
    assert_eq!(report["relay_kills"], 1);
    assert_eq!(
        (report["digests_agree"].as_bool(), report["transcripts_agree"].as_bool()),
        (Some(true), Some(true))
    );
    assert_eq!(report["agents"].as_array().map(Vec::len), Some(3));
    let kept = report["kept"].as_str().expect("a folder");
    assert_eq!(place.json(&["log", "verify", &format!("{kept}/relay")])["ok"], true);
}

#[test]
fn a_relay_node_killed_again_and_again_under_load_loses_nothing() {
    let report = Place::new().json(&["demo", "--messages", "3000", "--changes", "8", "--kills", "7"]);
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(
        (report["relay_kills"].as_u64(), report["delivered"].as_u64()),
        (Some(7), Some(9000))
    );
    assert_eq!(report["digests_agree"], true);
}

#[test]
fn the_table_is_for_a_person_and_the_timeline_is_not_in_it() {
    let mut place = Place::new();
    let temporary = place.path("tmp");
    std::fs::create_dir(&temporary).expect("a folder");
    place.set("TMPDIR", temporary.to_string_lossy());
    let ran = place.run(["demo", "--messages", "20", "--changes", "0", "--senders", "1"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stdout.contains("messages sent") && ran.stdout.contains("ok:"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stderr.contains("SIGKILL") && ran.stderr.contains("carol is current"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stdout.contains("carol is current"), "{}", ran.stdout);
    let left: Vec<_> = std::fs::read_dir(place.path("tmp")).expect("read").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_demonstration_needs_no_udp() {
    let report = Place::new().json(&["demo", "--transport", "https", "--messages", "200", "--changes", "4"]);
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(report["sent"], 200, "{report}");
}

#[test]
fn an_interrupted_demonstration_leaves_nothing_behind() {
    let mut place = Place::new();
    let temporary = place.path("tmp");
    std::fs::create_dir(&temporary).expect("a folder");
    place.set("TMPDIR", temporary.to_string_lossy());
    let log = place.path("demo.log");
    let running = Running::start(place.command(["demo", "--messages", "100000000"]), &log);
    let mut relay = None;
    while relay.is_none() {
        std::thread::sleep(Duration::from_millis(50));
        let text = running.stderr();
        assert!(!text.contains("error:"), "{text}");
        let after = text.split_once("as process ").map(|(_, after)| after.to_owned());
        relay = after.and_then(|after| after.split_once(';').map(|(id, _)| id.to_owned()));
    }
    let relay = format!("/proc/{}/cmdline", relay.expect("a process id"));
    let is_relay = || std::fs::read_to_string(&relay).is_ok_and(|line| line.contains("until-stdin-ends"));
    assert!(is_relay());
    // As a wrapper does that signals the process and its group.
    assert_eq!(running.stop_twice("INT").0, 130);
    let begun = Instant::now();
    while is_relay() {
        assert!(begun.elapsed() < HANGING, "the relay node is still there");
        std::thread::sleep(Duration::from_millis(50));
    }
    let left: Vec<_> = std::fs::read_dir(place.path("tmp")).expect("read").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_agent_returns_from_anything_and_what_it_lost_is_told() {
    let report = Place::new().json(&["demo", "--returns"]);
    assert_eq!(report["ok"], true, "{report}");
    let rows = report["returns"].as_array().expect("rows");
    let number = |row: &serde_json::Value, field: &str| row[field].as_u64().expect("a number");
    for row in rows {
        for none in ["untold", "twice", "foreign"] {
            assert_eq!(row[none], 0, "{row}");
        }
        assert_eq!(
            number(row, "read") + number(row, "told_lost"),
            number(row, "sent"),
            "{row}"
        );
        assert!(row["problems"].as_array().is_some_and(Vec::is_empty), "{row}");
    }
    let find = |event: &str| {
        let found = rows
            .iter()
            .find(|row| row["event"].as_str().is_some_and(|told| told.starts_with(event)));
        found.unwrap_or_else(|| panic!("no row for {event}: {report}"))
    };
    for (event, state, sent) in [
        ("retention passed: messages", "current", 25),
        ("retention passed: a change", "current: rejoined", 25),
        ("retention passed: a quiet", "current", 2),
        ("vault restored", "current: took new keys", 10),
        ("a commit that this vault cannot apply", "current: rejoined", 7),
        ("100 days away: in a channel", "current", 12),
        ("100 days away: added", "current", 4),
    ] {
        let row = find(event);
        assert_eq!((&row["state"], number(row, "sent")), (&state.into(), sent), "{row}");
        assert!(row["diverged_at"].is_null(), "{row}");
    }
    for (event, lost) in [
        ("retention passed: a quiet", 0),
        ("vault restored", 3),
        ("a commit", 5),
        ("100 days", 0),
    ] {
        assert_eq!(number(find(event), "told_lost"), lost, "{event}");
    }
    let node = find("node restored");
    assert_eq!((number(node, "sent"), number(node, "read")), (8, 8), "{node}");
    assert!(node["diverged_at"].is_u64(), "{node}");
}
