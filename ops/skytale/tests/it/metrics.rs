//! Metrics for operators: the dashboard and the alerts of `ops/grafana` ask for metrics that servers have, and each
//! metric of a server has a description.

use crate::fleet;
use crate::full_disk::get;
use crate::node::{Node, text};
use crate::process::{Place, Running};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Long enough for a slow machine; what takes longer hangs.
const HANGING: Duration = Duration::from_secs(120);

const CONFIG: &str = "[api]\nadmin.listen = '127.0.0.1:0'\nlisten = '127.0.0.1:0'\nurl = 'http://127.0.0.1:7600'\n\
    database = 'sqlite:api.db'\nadmin_secret = 'a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7'\n\
    relay_secret = 'r5r5r5r5r5r5r5r5r5r5r5r5r5r5r5r5'\n\
    key_encryption_key = 'c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3'\n";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../grafana")
}

/// Names of metrics in a text: ours, and those of the process.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c: char| !is_part(c));
    let metrics = words.filter(|word| word.starts_with("skytale_") || word.starts_with("process_"));
    metrics.map(|name| base(name).to_owned()).collect()
}

/// A metric's name, without what a histogram's parts have behind it.
fn base(name: &str) -> &str {
    let parts = ["_bucket", "_sum", "_count"];
    parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name)
}

/// The metrics on a page. Each says what it is, in one line before its first value.
fn on(page: &str) -> BTreeSet<String> {
    let mut helped = BTreeSet::new();
    let mut names = BTreeSet::new();
    for line in page.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, meaning) = help.split_once(' ').expect("a meaning");
            assert!(meaning.len() > 5, "{line}");
            assert!(helped.insert(name.to_owned()), "{name} is explained twice");
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().expect("a name");
            assert!(
                helped.contains(name) || helped.contains(base(name)),
                "{name} does not say what it is"
            );
            names.insert(base(name).to_owned());
        }
    }
    // One form of codes everywhere.
    for (_, rest) in page
        .match_indices("code=\"")
        .map(|(at, found)| page.split_at(at + found.len()))
    {
        let code = rest.split('"').next().expect("a value");
        let is_code = code
            .strip_prefix("SKY-")
            .is_some_and(|number| number.parse::<u16>().is_ok());
        assert!(is_code || ["closed", "unknown"].contains(&code), "{code}");
    }
    names
}

/// An API that was asked a few things: its metrics, which are not on its public address.
fn api() -> BTreeSet<String> {
    let mut place = Place::new();
    place.write("skytale.toml", CONFIG);
    let mut api = Running::start(place.command(["--json", "api"]), &place.path("api.log"));
    let told = api.json();
    let (address, admin) = (text(&told["address"]), text(&told["admin"]));
    place.set("SKYTALE_API_URL", format!("http://{address}"));
    place.set("SKYTALE_ADMIN_SECRET", "a7".repeat(16));
    place.json(&["account", "create", "acme"]);
    place.json(&["relay", "enrol", "node"]);
    let (status, problem) = get(&address, "/metrics");
    assert_eq!(status, "404", "{problem}");
    assert!(problem.contains("SKY-4004"), "{problem}");
    assert_eq!(get(&admin, "/readyz").0, "200");
    let (status, page) = get(&admin, "/metrics");
    assert_eq!(status, "200");
    for line in [
        "skytale_api_accounts 1",
        "skytale_api_keys 1",
        "skytale_api_agents 0",
        "skytale_api_channels 0",
        "skytale_api_relays{state=\"live\"} 0",
        "skytale_api_refusals_total{code=\"SKY-4004\"} 1",
        "skytale_api_ready 1",
        &format!("skytale_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(page.lines().any(|shown| shown == line), "`{line}` is not in {page}");
    }
    assert!(
        page.contains("skytale_api_requests_total{method=\"POST\",path=\"/v1/accounts\",status=\"201\"} 1"),
        "{page}"
    );
    assert_eq!(api.stop("TERM").0, 0);
    on(&page)
}

/// A relay node that two agents use, and a bridge beside it.
fn relay() -> BTreeSet<String> {
    let node = Node::start("warn");
    node.join("alice");
    let bob = node.join("bob");
    let channel = text(&node.agent("alice", &["channel", "create", "watched"])["channel"]);
    node.agent("alice", &["channel", "add", "watched", &bob]);
    node.agent("alice", &["channel", "send", "watched", "hello"]);
    assert_eq!(node.read("bob", &[&channel]), ["hello"]);
    let admin = text(&node.told["relay"]["admin"]);
    let (status, page) = get(&admin, "/metrics");
    assert_eq!(status, "200");
    let (status, problem) = get(&admin, "/nothing");
    assert_eq!(status, "404");
    let problem: Value = serde_json::from_str(&problem).expect("a problem document");
    assert_eq!(problem["code"], "SKY-4004");
    assert_eq!(node.running.stop("TERM").0, 0);
    on(&page)
}

/// A relay node of a fleet, through which an agent made a channel.
fn fleet_node() -> BTreeSet<String> {
    let mut place = fleet::place();
    let mut running = fleet::fleet(&mut place, &["--nodes", "1"]);
    let vault = ["--vault", "alice.vault", "--timeout-s", "60"];
    place.json(&[&["init"], &vault[..]].concat());
    place.json(&[&["channel", "create", "plans"], &vault[..]].concat());
    let told = running.json();
    let admin = text(&told["nodes"][0]["admin"]);
    let begun = Instant::now();
    let page = loop {
        let (status, page) = get(&admin, "/metrics");
        assert_eq!(status, "200");
        let mut wrong = Vec::new();
        for quiet in [
            "skytale_fleet_shard_halted",
            "skytale_fleet_copies_behind",
            "skytale_fleet_key_problems",
            "skytale_fleet_rights_problems",
            "skytale_fleet_servers_unread",
        ] {
            let values: Vec<&str> = page.lines().filter(|line| line.starts_with(quiet)).collect();
            assert!(!values.is_empty(), "{quiet}");
            wrong.extend(values.into_iter().filter(|line| !line.ends_with(" 0")));
        }
        // A server that is late with an answer counts for some seconds.
        if wrong.is_empty() {
            break page;
        }
        assert!(begun.elapsed() < HANGING, "of a fleet that is well: {wrong:?}");
        std::thread::sleep(Duration::from_millis(500));
    };
    assert_eq!(running.stop("TERM").0, 0);
    on(&page)
}

#[test]
fn the_dashboard_and_the_alerts_ask_for_metrics_that_servers_have() {
    let mut there = api();
    there.extend(relay());
    there.extend(fleet_node());
    for process in [
        "process_open_fds",
        "process_max_fds",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
    ] {
        assert!(there.contains(process), "{process}");
    }
    for file in ["dashboard.json", "rules.yaml", "rules_test.yaml"] {
        let text = std::fs::read_to_string(folder().join(file)).expect("the file");
        let asked = named(&text);
        assert!(asked.len() > 10, "{file}");
        let missing: Vec<_> = asked.difference(&there).collect();
        assert!(missing.is_empty(), "{file} asks for {missing:?}; there are {there:?}");
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_reads() {
    let dashboard: Value =
        serde_json::from_slice(&std::fs::read(folder().join("dashboard.json")).expect("the file")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().expect("targets");
        assert!(
            !targets.is_empty() && targets.iter().all(|target| target["expr"].is_string()),
            "{panel}"
        );
        assert!(
            panel["description"].as_str().is_some_and(|text| text.ends_with('.')),
            "{panel}"
        );
    }
}

#[test]
fn prometheus_takes_the_alerts_and_they_fire_when_they_should() {
    for line in [["check", "rules", "rules.yaml"], ["test", "rules", "rules_test.yaml"]] {
        let ran = Command::new("promtool").args(line).current_dir(folder()).output();
        let ran = ran.unwrap_or_else(|error| panic!("promtool: {error}: `ops/test/run test` installs it"));
        assert!(
            ran.status.success(),
            "{}{}",
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr)
        );
    }
    // Every alert has a test of its own.
    let rules = std::fs::read_to_string(folder().join("rules.yaml")).expect("the file");
    let tests = std::fs::read_to_string(folder().join("rules_test.yaml")).expect("the file");
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("alertname: {alert}")), "{alert} is not tested");
    }
}
