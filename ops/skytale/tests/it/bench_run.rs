//! Workloads replayed as load: what a person gets of it.
//!
//! The machine may be busy: no run here is called invalid for a late generator, and nothing is said of how fast anything was.

use crate::fleet::nats_server;
use crate::node::{Node, text};
use crate::process::{Place, Ran, Running};
use serde_json::Value;
use skytale_proto::ChannelMode;
use skytale_workload::{Agent, Channel, Event, Frame, Header, Log, Source, What, Writer};
use std::collections::BTreeMap;

/// However late the generator is.
const LATE: [&str; 4] = ["--lag-max", "10m", "--patience", "2m"];

fn synth(place: &Place, profile: &str, file: &str, agents: &str, duration: &str, rate: &str) -> Value {
    let size = ["--agents", agents, "--duration", duration, "--rate", rate];
    let mut line = vec!["bench", "synth", profile, file];
    line.extend(size);
    place.json(&line)
}

fn bench_run(place: &Place, arguments: &[&str]) -> Ran {
    let mut line = vec!["--json", "bench", "run"];
    line.extend(arguments);
    line.extend(LATE);
    place.run(line)
}

/// A run that passed, as its report.
fn passed(place: &Place, arguments: &[&str]) -> Value {
    let ran = bench_run(place, arguments);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let report: Value = serde_json::from_str(ran.stdout.lines().last().expect("a report")).expect("JSON");
    assert_eq!(
        (&report["verdict"]["passed"], &report["verdict"]["valid"]),
        (&true.into(), &true.into())
    );
    assert_eq!(number(&report["verified"]["readers_short"]), 0, "{report}");
    report
}

/// Waits until a run whose log is `run.log` has said how far it is, some ten seconds after its beginning.
fn under_way(place: &Place) {
    for _ in 0..3_000 {
        let log = std::fs::read_to_string(place.path("run.log")).unwrap_or_default();
        if log.contains("appends/s") {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("the run does not begin");
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// Of each channel, in the order of its first event: its events, with agents numbered as they appear in it.
fn channels(place: &Place, file: &str) -> Vec<Vec<String>> {
    let output = std::process::Command::new("gzip")
        .args(["-dc", file])
        .current_dir(place.path(""))
        .output()
        .expect("gzip");
    let lines = String::from_utf8(output.stdout).expect("text");
    let mut all: BTreeMap<u64, (Vec<String>, BTreeMap<u64, usize>)> = BTreeMap::new();
    for line in lines.lines().filter(|line| line.starts_with('[')) {
        let event: Vec<Value> = serde_json::from_str(line).expect("JSON");
        let letter = text(&event[1]);
        if !["n", "c", "p", "m", "r", "j"].contains(&letter.as_str()) {
            continue;
        }
        let (events, known) = all.entry(number(&event[3])).or_default();
        let mut agent = |id: u64| {
            let next = known.len();
            *known.entry(id).or_insert(next)
        };
        let mut told = format!("{letter} {} {}", agent(number(&event[2])), event[4]);
        for lists in event.iter().skip(5).filter_map(Value::as_array) {
            let members: Vec<usize> = lists.iter().map(|id| agent(number(id))).collect();
            told.push_str(&format!(" {members:?}"));
        }
        events.push(told);
    }
    all.into_values().map(|(events, _)| events).collect()
}

fn times(place: &Place, file: &str, letter: &str) -> Vec<u64> {
    let output = std::process::Command::new("gzip")
        .args(["-dc", file])
        .current_dir(place.path(""))
        .output()
        .expect("gzip");
    let (mut at, mut all) = (0, Vec::new());
    for line in String::from_utf8(output.stdout)
        .expect("text")
        .lines()
        .filter(|line| line.starts_with('['))
    {
        let event: Vec<Value> = serde_json::from_str(line).expect("JSON");
        at += number(&event[0]);
        if event[1] == letter {
            all.push(at);
        }
    }
    all
}

#[test]
fn a_captured_run_is_the_workload_again() {
    let node = Node::start("warn");
    let place = &node.place;
    synth(place, "chatty-pair", "told.skw", "6", "4s", "30");
    let report = passed(place, &["told.skw", "--keep-order", "--out", "first"]);
    assert_eq!(report["planned"]["appends"], report["totals"]["acknowledged"]);
    place.json(&["bench", "capture", "first.skw", "--from-log", "node"]);
    let (told, first) = (channels(place, "told.skw"), channels(place, "first.skw"));
    assert_eq!(told.len(), 3);
    assert!(told == first, "{told:?}\n{first:?}");
    let kinds = |file: &str| place.json(&["bench", "inspect", file])["kinds"].clone();
    let (of_told, of_first) = (kinds("told.skw"), kinds("first.skw"));
    for kind in ["create", "commit", "message", "key_package", "key_package_claim"] {
        assert_eq!(of_told[kind], of_first[kind], "{kind}");
    }
    // No message came before its time: times between are those of the workload, or longer where the machine was late.
    let (planned, came) = (times(place, "told.skw", "m"), times(place, "first.skw", "m"));
    assert_eq!(planned.len(), came.len());
    let (length, took) = (planned[planned.len() - 1] - planned[0], came[came.len() - 1] - came[0]);
    assert!(took + 100_000 > length, "{took} {length}");

    // The capture is replayed without sessions of its own.
    let again = passed(place, &["first.skw", "--out", "second", "--speed", "4"]);
    assert_eq!(number(&again["totals"]["sessions"]), 6);
    assert_eq!(again["planned"]["deliveries"], report["planned"]["deliveries"]);
    for file in [
        "report.json",
        "report.html",
        "append.hlog",
        "delivered.hlog",
        "counts.csv",
    ] {
        assert!(place.path("second").join(file).exists(), "{file}");
    }
    let page = std::fs::read_to_string(place.path("second").join("report.html")).expect("a page");
    assert!(page.contains("<svg") && page.trim_end().ends_with("</html>"), "{page}");
    for foreign in ["<script", "src=", "href=", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[test]
fn a_tap_of_a_run_is_the_workload_again_with_its_sessions() {
    let place = Place::new();
    synth(&place, "nightly-team", "told.skw", "8", "6s", "30");
    passed(
        &place,
        &["told.skw", "--local", "--keep-order", "--tap", "taps", "--out", "first"],
    );
    let captured = place.json(&["bench", "capture", "again.skw", "--from-tap", "taps"]);
    assert_eq!(
        (number(&captured["made_up"]), number(&captured["damaged"])),
        (0, 0),
        "{captured}"
    );
    let inspected = |file: &str| place.json(&["bench", "inspect", file]);
    let (told, again) = (inspected("told.skw"), inspected("again.skw"));
    for kind in [
        "create",
        "commit",
        "message",
        "key_package",
        "key_package_claim",
        "connect",
        "subscribe",
        "token",
    ] {
        assert_eq!(told["kinds"][kind], again["kinds"][kind], "{kind}");
    }
    assert!(channels(&place, "told.skw") == channels(&place, "again.skw"));
    assert_eq!(number(&told["away_ms"]["count"]), number(&again["away_ms"]["count"]));
    assert_eq!(told["message_bytes"], again["message_bytes"]);
    assert_eq!(told["readers"], again["readers"]);
    assert!(
        place
            .run(["bench", "capture", "x.skw", "--from-tap", "first"])
            .stderr
            .contains("no files of a tap")
    );
}

#[test]
fn a_node_that_stalls_for_two_seconds_is_seen_in_the_latencies_of_what_was_due() {
    let place = Place::new();
    synth(&place, "chatty-pair", "pair.skw", "4", "6s", "40");
    let report = passed(&place, &["pair.skw", "--local", "--stall-at", "2s", "--out", "stalled"]);
    // A third of what is due falls into the stall, and all of it waits: half of that for over a second.
    let append = &report["latencies_us"]["append"];
    assert!(number(&append["p99"]) > 1_000_000, "{append}");
    assert!(number(&append["p90"]) > 500_000, "{append}");
    let worst = report["series"]["latencies_us"]["append"]["max"]
        .as_array()
        .expect("a series");
    assert!(worst.iter().any(|max| number(max) > 1_500_000), "{worst:?}");
    let backlog = report["series"]["counts"]["backlog"].as_array().expect("a series");
    assert!(backlog.iter().any(|backlog| number(backlog) > 30), "{backlog:?}");
}

#[test]
fn a_node_that_is_killed_loses_nothing_and_parts_are_joined() {
    let place = Place::new();
    synth(&place, "fan-out", "out.skw", "8", "4s", "40");
    let report = passed(
        &place,
        &[
            "out.skw",
            "--local",
            "--kill-at",
            "2s",
            "--clone",
            "3",
            "--out",
            "killed",
        ],
    );
    assert!(number(&report["totals"]["sessions_lost"]) > 0, "{}", report["totals"]);
    assert_eq!(report["totals"]["acknowledged"], report["planned"]["appends"]);
    assert!(
        report["nodes"][0]["metrics"]["memory_bytes"].is_array(),
        "{}",
        report["nodes"]
    );

    // Both begin together, and have time to get ready.
    let start = std::time::SystemTime::now() + std::time::Duration::from_secs(8);
    let start = humantime::format_rfc3339_millis(start).to_string();
    let one = |part: &str| {
        let out = format!("part-{}", &part[..1]);
        let line = [
            "out.skw",
            "--local",
            "--clone",
            "3",
            "--part",
            part,
            "--out",
            &out,
            "--start-at",
            &start,
        ];
        passed(&place, &line)
    };
    let one = &one;
    let parts = std::thread::scope(|scope| {
        let runs = ["1/2", "2/2"].map(|part| scope.spawn(move || one(part)));
        runs.map(|run| run.join().expect("a run"))
    });
    let joined = place.json(&["bench", "merge", "joined", "part-1", "part-2"]);
    let sum: u64 = parts.iter().map(|part| number(&part["totals"]["acknowledged"])).sum();
    assert_eq!(number(&joined["report"]["totals"]["acknowledged"]), sum);
    assert_eq!(Value::from(sum), report["planned"]["appends"]);
}

#[test]
fn as_fast_as_it_goes_has_no_latencies_and_repeats_are_compared() {
    let place = Place::new();
    synth(&place, "tool-swarm", "swarm.skw", "12", "20s", "40");
    let ran = bench_run(
        &place,
        &[
            "swarm.skw",
            "--local",
            "--speed",
            "max",
            "--repeat",
            "3",
            "--out",
            "fast",
        ],
    );
    assert_eq!(
        (ran.code, ran.stdout.lines().count()),
        (0, 3),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
    for line in ran.stdout.lines() {
        let report: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(report["latencies_us"], Value::Object(serde_json::Map::new()));
        assert_eq!(report["totals"]["acknowledged"], report["planned"]["appends"]);
        assert!(report["totals"]["acknowledged_per_s"].as_f64() > Some(1.0), "{report}");
    }
    // Against itself as the other version, in turn.
    let line = [
        "swarm.skw",
        "--local",
        "--speed",
        "max",
        "--versus",
        env!("CARGO_BIN_EXE_skytale"),
        "--out",
        "both",
    ];
    let ran = bench_run(&place, &line);
    assert_eq!(
        (ran.code, ran.stdout.lines().count()),
        (0, 2),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
    let compared = place.run(["bench", "compare", "both/a", "both/b"]);
    assert_eq!(compared.code, 0, "{}", compared.stderr);
    // A run is as fast as itself: without repeats the ratio decides.
    let against_itself = |condition: &str| {
        place
            .run(["bench", "compare", "both/a", "both/a", "--fail-if", condition])
            .code
    };
    assert_eq!(against_itself("acknowledged_per_s<0.5x"), 0);
    assert_eq!(against_itself("acknowledged_per_s<2x"), 7);
}

/// Writes a workload by hand: milliseconds and what happens.
fn write(place: &Place, name: &str, events: impl IntoIterator<Item = (u64, What)>) {
    let file = std::fs::File::create(place.path(name)).expect("a file");
    let mut writer = Writer::new(file, &Header::new(Source::Synth, "by hand")).expect("a header");
    for (ms, what) in events {
        let at = std::time::Duration::from_millis(ms);
        writer.write(&Event { at, what }).expect("an event");
    }
    writer.finish().expect("totals");
}

fn append(author: u32, frame: Frame) -> What {
    What::Append {
        author: Agent(author),
        body_bytes: 300,
        frame,
    }
}

fn commit(adds: &[u32], removes: &[u32]) -> What {
    let agents = |numbers: &[u32]| numbers.iter().copied().map(Agent).collect::<Vec<_>>();
    append(
        0,
        Frame::Commit {
            channel: Channel(0),
            adds: agents(adds),
            removes: agents(removes),
            recipients: agents(adds),
        },
    )
}

fn reads(agent: u32, follow: bool) -> What {
    What::Subscribe {
        agent: Agent(agent),
        log: Log::Channel(Channel(0)),
        behind: 0,
        follow,
    }
}

#[test]
fn members_that_are_removed_and_come_again_read_what_is_theirs() {
    let place = Place::new();
    let mode = ChannelMode::Mls;
    let channel = Channel(0);
    let mut events = vec![
        (0, What::Connect(Agent(0))),
        (0, What::Connect(Agent(1))),
        (0, What::Connect(Agent(2))),
        // Nobody reads the Create: its author only writes.
        (10, append(0, Frame::Create { channel, mode })),
        (20, commit(&[1, 2], &[])),
        (30, reads(1, true)),
    ];
    let messages = |from: u64| (0..10).map(move |number| (from + number * 20, append(0, Frame::Message(channel))));
    events.extend(messages(100));
    // A reader that does not follow reads up to the head, once.
    events.push((400, reads(2, false)));
    events.push((500, commit(&[], &[1])));
    events.extend(messages(600));
    events.push((900, commit(&[1], &[])));
    events.push((920, reads(1, true)));
    events.extend(messages(1_000));
    write(&place, "again.skw", events);
    for keep_order in [false, true] {
        let out = format!("out-{keep_order}");
        let mut line = vec!["again.skw", "--local", "--out", &out];
        line.extend(keep_order.then_some("--keep-order"));
        let report = passed(&place, &line);
        let totals = &report["totals"];
        // The commit that adds it and ten messages, twice, and the commit that removes it.
        let followed = 11 + 1 + 11;
        // The other reads up to the head once: a commit and ten messages. Without an order among agents it may come
        // earlier or later than the author on a busy machine.
        let entries = 33;
        let once = match keep_order {
            true => 11..=11,
            false => 1..=entries,
        };
        let read_once = number(&totals["delivered"]).checked_sub(followed);
        assert!(read_once.is_some_and(|read| once.contains(&read)), "{totals}");
        assert_eq!(report["totals"]["sent"], report["planned"]["appends"]);
    }
}

#[test]
fn a_target_that_is_gone_does_not_pass_and_is_in_every_figure() {
    let node = Node::start("warn");
    let place = &node.place;
    synth(place, "chatty-pair", "pair.skw", "4", "20s", "20");
    let line = [
        "bench",
        "run",
        "pair.skw",
        "--patience",
        "2s",
        "--lag-max",
        "10m",
        "--out",
        "gone",
    ];
    let mut run = Running::start(place.command(line), &place.path("run.log"));
    under_way(place);
    node.running.signal("STOP");
    let (code, _) = run.end();
    node.running.signal("CONT");
    assert_eq!(code, 7);
    let report = std::fs::read_to_string(place.path("gone/report.json")).expect("a report");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let totals = &report["totals"];
    assert_eq!(report["verdict"]["passed"], false);
    assert!(number(&totals["unfinished"]) > 0, "{totals}");
    let append = &report["latencies_us"]["append"];
    assert_eq!(
        number(&append["count"]),
        number(&totals["acknowledged"]) + number(&totals["unfinished"]),
        "{append} {totals}"
    );
    let planned = report["series"]["counts"]["planned"].as_array().expect("a series");
    assert_eq!(
        Value::from(planned.iter().map(number).sum::<u64>()),
        report["planned"]["appends"]
    );
    let backlog = report["series"]["counts"]["backlog"].as_array().expect("a series");
    assert!(backlog.last().map(number) > Some(0), "{backlog:?}");
}

#[test]
fn results_are_kept_whatever_ends_a_run_and_hold_no_secret() {
    let place = Place::new();
    synth(&place, "chatty-pair", "pair.skw", "4", "120s", "20");
    let mut line = vec![
        "--json",
        "--set",
        "admin_secret=marker-Kx81",
        "bench",
        "run",
        "pair.skw",
        "--local",
    ];
    line.extend(["--kill-at", "9s", "--out", "new/deep/out"]);
    line.extend(LATE);
    let running = Running::start(place.command(line), &place.path("run.log"));
    under_way(&place);
    assert_eq!(running.stop("TERM").0, 143);
    for file in ["report.json", "report.html"] {
        let text = std::fs::read_to_string(place.path("new/deep/out").join(file)).expect("a file");
        assert!(
            text.contains("admin_secret=") && !text.contains("marker-Kx81"),
            "{file}"
        );
    }
    let ran = bench_run(&place, &["pair.skw", "--local", "--out", "/proc/no"]);
    assert!(
        ran.code == 3 && ran.stderr.contains("cannot make /proc/no"),
        "{}",
        ran.stderr
    );
    let ran = bench_run(&place, &["pair.skw", "--local", "--kill-at", "600s"]);
    assert!(ran.code == 2 && ran.stderr.contains("after the end"), "{}", ran.stderr);
}

#[test]
fn real_agents_encrypt_end_to_end_and_return_to_what_they_missed() {
    let place = Place::new();
    synth(&place, "reconnect-storm", "storm.skw", "8", "5s", "20");
    let report = passed(&place, &["storm.skw", "--local", "--mls", "--out", "mls"]);
    assert_eq!(report["run"]["level"], "agent");
    assert_eq!(report["totals"]["acknowledged"], report["planned"]["appends"]);
    assert!(
        report["catch_up"].as_array().is_some_and(|all| !all.is_empty()),
        "{}",
        report["catch_up"]
    );
    assert!(
        number(&report["latencies_us"]["caught_up"]["count"]) >= 7,
        "{}",
        report["latencies_us"]
    );
}

/// The commands of `benches/workloads/README.md`, with what makes them short.
#[test]
fn the_workloads_of_this_repository_run_as_their_readme_says() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benches/workloads");
    let readme = std::fs::read_to_string(folder.join("README.md")).expect("a README");
    let mut place = Place::new();
    place.set("SKYTALE_NATS_SERVER", nats_server().to_string_lossy());
    let mut ran = Vec::new();
    for line in readme
        .lines()
        .filter_map(|line| line.strip_prefix("$ skytale bench run "))
    {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let name = words[0].clone();
        words[0] = folder.join(&name).display().to_string();
        words.extend(["--out".to_owned(), format!("out-{}", ran.len())]);
        if name == "hour.skw" {
            // Its first minute.
            words.extend(["--duration", "6s"].map(str::to_owned));
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        ran.push((name, passed(&place, &words)));
    }
    let of = |name: &str| &ran.iter().find(|(of, _)| of == name).expect("it was run").1;
    assert_eq!(ran.len(), 3);
    let crowd = of("crowd.skw");
    assert_eq!(crowd["totals"]["acknowledged"], crowd["planned"]["appends"]);
    let returned: Vec<u64> = crowd["catch_up"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| number(&one["missed"]))
        .collect();
    assert!(
        returned.iter().filter(|missed| **missed >= 10).count() >= 900,
        "{returned:?}"
    );
    assert_eq!(of("hour.skw")["verdict"]["interrupted"], false);
    let fleet = of("pairs.skw");
    assert_eq!(fleet["nodes"].as_array().map(Vec::len), Some(3));
    assert!(number(&fleet["totals"]["sessions_lost"]) > 0);
    assert_eq!(fleet["totals"]["acknowledged"], fleet["planned"]["appends"]);
}

/// The commands of `docs/load-testing.md`, on a small log. Whether an objective or a condition holds is the machine's affair.
#[test]
fn the_commands_of_load_testing_do_what_the_document_says() {
    let document = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/load-testing.md");
    let document = std::fs::read_to_string(document).expect("a document");
    let node = Node::start("warn");
    let place = &node.place;
    synth(place, "chatty-pair", "traffic.skw", "4", "3s", "30");
    passed(place, &["traffic.skw", "--out", "traffic"]);
    let mut count = 0;
    for line in document.lines().filter_map(|line| line.strip_prefix("$ skytale ")) {
        let line = line.replace("/var/lib/skytale/relay", "node").replace('\'', "");
        let line = line.replace("--to 64", "--to 8");
        let mut words: Vec<&str> = line.split(' ').collect();
        if words[1] == "search" {
            // A step that a busy machine cannot follow ends the search, and need not be waited for long.
            words.extend(["--shortest", "0s", "--lag-max", "10m", "--patience", "10s"]);
        } else if words.contains(&"--local") {
            words.extend(LATE);
        }
        let ran = place.run(&words);
        let may_fail = words[1] == "compare" || words[1] == "search";
        assert!(
            ran.code == 0 || may_fail && ran.code == 7,
            "{words:?}: {}{}",
            ran.stdout,
            ran.stderr
        );
        count += 1;
    }
    assert_eq!(count, 8);
    for file in [
        "ten/report.html",
        "limit/search.html",
        "before/run-3/report.json",
        "after/run-3/report.json",
    ] {
        assert!(place.path(file).exists(), "{file}");
    }
}

#[test]
fn a_search_says_at_which_speed_objectives_hold() {
    let place = Place::new();
    synth(&place, "chatty-pair", "pair.skw", "4", "4s", "30");
    let mut line = vec![
        "--json", "bench", "search", "pair.skw", "--local", "--to", "4", "--speed", "2", "--out", "found",
    ];
    line.extend(["--objective", "append.p99<10m", "--objective", "refused<50%"]);
    line.extend(LATE);
    line.extend(["--shortest", "500ms"]);
    let ran = place.run(&line);
    // A minute is no unit of a latency.
    assert!(ran.code == 2 && ran.stderr.contains("as in 50ms"), "{}", ran.stderr);
    let line: Vec<&str> = line
        .iter()
        .map(|word| {
            if *word == "append.p99<10m" {
                "append.p99<600s"
            } else {
                *word
            }
        })
        .collect();
    let ran = place.run(&line);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let found: Value = serde_json::from_str(ran.stdout.trim()).expect("JSON");
    assert_eq!(
        (&found["speed"], found["steps"].as_array().map(Vec::len)),
        (&Value::from(4.0), Some(2)),
        "{found}"
    );
    assert!(place.path("found/search.html").exists() && place.path("found/step-2/report.json").exists());
}

#[test]
fn a_dry_run_sends_nothing_an_interrupted_one_keeps_what_there_is_and_mistakes_are_named() {
    let mut place = Place::new();
    synth(&place, "nightly-team", "team.skw", "16", "10m", "20");
    let dry = place.json(&["bench", "run", "team.skw", "--dry-run", "--clone", "2", "--speed", "10"]);
    assert_eq!((number(&dry["agents"]), number(&dry["channels"])), (32, 4), "{dry}");
    assert!(
        dry["duration_s"].as_f64().is_some_and(|s| (59.0..61.0).contains(&s)),
        "{dry}"
    );

    let mut line = vec!["--json", "bench", "run", "team.skw", "--local", "--out", "cut"];
    line.extend(LATE);
    let running = Running::start(place.command(line), &place.path("run.log"));
    under_way(&place);
    let (code, told) = running.stop("INT");
    assert_eq!(code, 130, "{told}");
    let report: Value =
        serde_json::from_str(&std::fs::read_to_string(place.path("cut/report.json")).expect("a report")).expect("JSON");
    assert_eq!(report["verdict"]["interrupted"], true);
    assert_eq!(report["verdict"]["passed"], true);
    assert!(place.path("cut/report.html").exists());

    place.set("SKYTALE_API_URL", "http://127.0.0.1:1");
    let mistakes: [(&[&str], &str); 8] = [
        (&["none.skw"], "cannot read none.skw"),
        (&["team.skw", "--speed", "fast"], "give a factor"),
        (&["team.skw", "--part", "3/2"], "one of so many"),
        (&["team.skw", "--shift", "1s"], "needs copies"),
        (&["team.skw", "--offline-share", "0.5"], "there are none"),
        (&["team.skw", "--kill-at", "1s"], "need --local or --fleet"),
        (&["team.skw", "--out", "cut"], "exists already"),
        (&["team.skw"], "an API key is needed"),
    ];
    for (arguments, problem) in mistakes {
        let ran = bench_run(&place, arguments);
        assert!(
            ran.code != 0 && ran.stderr.contains(problem),
            "{arguments:?}: {}",
            ran.stderr
        );
    }
}
