//! Workloads: captured from a node, made from a profile, looked at.

use crate::node::{Node, text};
use crate::process::Place;
use serde_json::Value;
use std::process::Command;

/// Returns the output of `zcat`.
fn lines(place: &Place, file: &str) -> String {
    let output = Command::new("gzip")
        .args(["-dc", file])
        .current_dir(place.path(""))
        .output()
        .expect("gzip");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

const BODY: &str = "marker-body-Rt5pWz8H";

#[test]
fn a_node_is_captured_running_and_stopped_and_nothing_names_anyone() {
    let node = Node::start("warn");
    let (alice, bob) = (node.join("alice"), node.join("bob"));
    let made = node.agent("alice", &["channel", "create", "plans-marker"]);
    let channel = text(&made["channel"]);
    node.agent("alice", &["channel", "add", "plans-marker", &bob]);
    for _ in 0..3 {
        node.agent("alice", &["channel", "send", "plans-marker", BODY]);
    }
    node.read("bob", &[&channel]);
    node.agent("bob", &["channel", "send", &channel, BODY]);

    let Node { place, running, .. } = node;
    let capture = |file: &str, more: &[&str]| {
        let mut line = vec!["bench", "capture", file, "--from-log", "node"];
        line.extend(more);
        place.json(&line)
    };
    let live = capture("running.skw", &[]);
    assert_eq!(running.stop("TERM").0, 0);
    let stopped = capture("stopped.skw", &["--keep-start"]);
    assert_eq!(live["kinds"], stopped["kinds"]);
    assert_eq!(
        (&stopped["agents"], &stopped["channels"]),
        (&Value::from(2), &Value::from(1))
    );
    assert_eq!(
        (&stopped["made_up"], &stopped["damaged"]),
        (&Value::from(0), &Value::from(0))
    );
    // The same counts as the log, except for Welcomes: commits cause them.
    let mut kinds = serde_json::Map::new();
    let dump = place.run(["--json", "log", "dump", "node"]);
    for line in dump.stdout.lines() {
        let entry: Value = serde_json::from_str(line).expect("JSON");
        let count = kinds.entry(text(&entry["kind"])).or_insert_with(|| Value::from(0));
        *count = Value::from(count.as_u64().expect("a count") + 1);
    }
    assert_eq!(kinds.remove("welcome"), Some(Value::from(1)));
    assert_eq!(stopped["kinds"], Value::Object(kinds));
    for (file, has_start) in [("running.skw", false), ("stopped.skw", true)] {
        let seen = place.json(&["bench", "inspect", file]);
        assert_eq!(seen["whole"], true);
        assert_eq!(seen["readers"]["max"], 1);
        assert_eq!(seen["header"]["start_ms"].is_u64(), has_start, "{seen}");
        let all = lines(&place, file);
        let account = channel.split('-').next().unwrap_or(&channel).to_owned();
        for marker in [&alice, &bob, &channel, &account, "plans", BODY, "127.0.0.1"] {
            assert!(!all.contains(marker), "`{marker}` is in {file}: {all}");
        }
        // No id of a frame, in whichever form: they are UUIDs of the last hours.
        let longest = all
            .lines()
            .filter(|line| line.starts_with('['))
            .flat_map(|line| line.split(|letter: char| !letter.is_ascii_alphanumeric()))
            .map(str::len)
            .max();
        assert!(longest < Some(12), "{all}");
    }
    // A window in which nothing was, and a file that is there.
    let line = [
        "--json",
        "bench",
        "capture",
        "none.skw",
        "--from-log",
        "node",
        "--until",
        "2001-01-01T00:00:00Z",
    ];
    let ran = place.run(line);
    assert!(ran.code != 0 && !place.path("none.skw").exists(), "{}", ran.stderr);
    assert_eq!(text(&ran.failure()["what"]), "there is nothing to capture");
    let before = std::fs::read(place.path("stopped.skw")).expect("a file");
    assert_ne!(
        place
            .run(["bench", "capture", "stopped.skw", "--from-log", "node"])
            .code,
        0
    );
    assert_eq!(std::fs::read(place.path("stopped.skw")).expect("a file"), before);
}

#[test]
fn a_profile_is_the_same_for_a_seed_and_a_cut_file_says_so() {
    let place = Place::new();
    let synth = |file: &str, seed: &str| {
        let size = ["--agents", "20", "--duration", "20s", "--rate", "40", "--seed", seed];
        let mut line = vec!["bench", "synth", "reconnect-storm", file];
        line.extend(size);
        place.json(&line)
    };
    let told = synth("one.skw", "7");
    synth("same.skw", "7");
    synth("other.skw", "8");
    let bytes = |file: &str| std::fs::read(place.path(file)).expect("a file");
    assert!(bytes("one.skw") == bytes("same.skw") && bytes("one.skw") != bytes("other.skw"));
    let seen = place.json(&["bench", "inspect", "one.skw"]);
    assert_eq!(seen["events"], told["events"]);
    assert_eq!(seen["header"]["totals"]["events"], told["events"]);
    assert!(seen["backlog"]["max"].as_u64() > Some(20), "{seen}");
    let ran = place.run(["bench", "inspect", "one.skw", "--html", "one.html"]);
    assert!(
        ran.stdout.contains("backlog at return") && ran.stdout.contains('█'),
        "{}",
        ran.stdout
    );

    let page = std::fs::read_to_string(place.path("one.html")).expect("a page");
    assert_eq!(page.matches("<svg").count(), 3, "{page}");
    assert!(page.contains("backlog at return") && page.trim_end().ends_with("</html>"));
    assert_ne!(place.run(["bench", "inspect", "one.skw", "--html", "one.html"]).code, 0);

    std::fs::write(place.path("cut.skw"), &bytes("one.skw")[..bytes("one.skw").len() - 40]).expect("written");
    assert_eq!(place.json(&["bench", "inspect", "cut.skw"])["whole"], false);
    assert!(
        place
            .run(["bench", "inspect", "cut.skw"])
            .stdout
            .contains("the file was cut")
    );
    place.write("text.skw", "no workload");
    let ran = place.run(["--json", "bench", "inspect", "text.skw"]);
    assert!(
        text(&ran.failure()["what"]).contains("cannot read text.skw"),
        "{}",
        ran.stderr
    );
    assert_ne!(ran.code, 0);
    let ran = place.run(["bench", "synth", "no-such", "x.skw"]);
    assert!(ran.stderr.contains("reconnect-storm"), "{}", ran.stderr);
}
