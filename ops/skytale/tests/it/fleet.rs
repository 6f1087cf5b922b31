//! A fleet on one machine: real NATS servers, relay nodes as processes.

use crate::node::text;
use crate::process::{Place, Running};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// The program, as `ops/test/run` installs it.
pub(crate) fn nats_server() -> PathBuf {
    let named = std::env::var_os("SKYTALE_NATS_SERVER").map(PathBuf::from);
    let cached = std::env::var_os("HOME")
        .map(|home| PathBuf::from(home).join(".cache/skytale-test/nats-server-2.15.1/nats-server"));
    let there = named.into_iter().chain(cached).find(|program| program.is_file());
    there.expect("nats-server is missing: run the tests with `ops/test/run test`, or set SKYTALE_NATS_SERVER")
}

pub(crate) fn place() -> Place {
    let mut place = Place::new();
    place.set("SKYTALE_NATS_SERVER", nats_server().to_string_lossy());
    place
}

/// Starts a fleet that keeps its data in the folder `fleet`, waits until it runs, and tells those in this place where it is.
pub(crate) fn fleet(place: &mut Place, options: &[&str]) -> Running {
    let line = [
        "--json",
        "fleet",
        "up",
        "--dir",
        "fleet",
        "--api-listen",
        "127.0.0.1:0",
        "--bridge-listen",
        "127.0.0.1:0",
    ];
    let line = line.iter().chain(options);
    let mut running = Running::start(place.command(line), &place.path("fleet.log"));
    let told: Value = running.json();
    for (variable, name) in [("SKYTALE_API_URL", "api_url"), ("SKYTALE_API_KEY", "api_key")] {
        place.set(variable, text(&told[name]));
    }
    std::net::TcpStream::connect(text(&told["bridge"])).expect("the bridge of the fleet listens");
    running
}

/// Processes that work in this place.
fn processes_left(place: &Place) -> usize {
    let folder = place.path("");
    let processes = std::fs::read_dir("/proc").expect("a system with /proc").flatten();
    let working = processes.filter_map(|process| std::fs::read_link(process.path().join("cwd")).ok());
    working.filter(|dir| dir.starts_with(&folder)).count()
}

/// The relay node of a fleet in this place, as a process.
fn relay_process(place: &Place, node: &str) -> u32 {
    let file = format!("{node}/relay.toml");
    let processes = std::fs::read_dir("/proc").expect("a system with /proc").flatten();
    let is_it = |process: &std::fs::DirEntry| {
        let line = std::fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        let dir = std::fs::read_link(process.path().join("cwd")).unwrap_or_default();
        line.contains(&file) && dir.starts_with(place.path(""))
    };
    let found = processes
        .filter(is_it)
        .map(|process| process.file_name().to_string_lossy().parse());
    found.last().expect("the node runs").expect("a number")
}

#[test]
fn a_node_that_is_killed_is_named_at_once_in_words_and_the_fleet_ends_in_order() {
    let mut place = place();
    let running = fleet(&mut place, &[]);
    let process = relay_process(&place, "relay-2").to_string();
    assert!(
        Command::new("kill")
            .args(["-KILL", &process])
            .status()
            .expect("kill")
            .success()
    );
    let begun = Instant::now();
    while !running.stderr().contains("The others go on") {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", running.stderr());
        std::thread::sleep(Duration::from_millis(50));
    }
    let said = running.stderr();
    for word in ["warning: relay-2", "was killed (SIGKILL)", "fleet/relay-2/relay.log"] {
        assert_eq!(said.matches(word).count(), 1, "{word}: {said}");
    }
    assert!(!said.contains("ExitStatus"), "{said}");
    assert_eq!(running.stop("TERM").0, 0);
    assert_eq!(processes_left(&place), 0);
}

fn holds(report: &Value) {
    assert_eq!(report["ok"], true, "{report:#}");
    for none in ["lost", "duplicated", "out_of_order", "foreign"] {
        assert_eq!(report[none], 0, "{none}");
    }
    assert_eq!(report["given_up"], 0, "a wrong clock was believed");
    assert_eq!(report["contradictions"].as_array().map(Vec::len), Some(0));
    assert_eq!(report["denied"].as_array().map(Vec::len), Some(0), "a right is missing");
    assert_eq!(report["digests_agree"], true);
    assert_eq!(report["transcripts_agree"], true);
    assert_eq!(report["delivered"], report["expected"]);
}

/// Each fault once, with the moments and lengths of a seed that is shown when it goes wrong.
fn demonstration(options: &[&str]) -> Value {
    let line = [
        "fleet",
        "demo",
        "--agents",
        "3",
        "--rate",
        "20",
        "--fault-s",
        "1",
        "--pause-s",
        "3",
        "--dir",
        "fleet",
    ];
    let report = place().json(&[&line[..], options].concat());
    holds(&report);
    report
}

/// Each of these faults once.
fn suffered(options: &[&str], faults: &str) -> Value {
    let report = demonstration(&[options, &["--fault", faults]].concat());
    let suffered = report["faults"].as_array().expect("a list");
    let suffered: BTreeSet<&str> = suffered.iter().filter_map(|fault| fault["kind"].as_str()).collect();
    assert_eq!(suffered, faults.split(',').collect());
    report
}

#[test]
fn nodes_and_servers_fail_in_turn_and_nothing_is_lost() {
    let report = suffered(
        &[],
        "leader-killed,nats-killed,nats-paused,relay-cut,relay-emptied,relay-killed,relay-paused,restart",
    );
    assert!(report["epochs"].as_u64() > Some(5), "{report:#}");
}

#[test]
fn the_api_its_database_all_keys_and_all_stores_fail_in_turn_and_nothing_is_lost() {
    suffered(&[], "api-away,database-read-only,keys-rotated,store-restored");
}

#[test]
fn clocks_go_wrong_and_a_disk_fills_and_nothing_is_lost_or_given_up() {
    let mut faults = Vec::new();
    if libfaketime_is_there() {
        faults.extend(["clock-ahead", "clock-behind"]);
    } else {
        let ran = place().run(["--json", "fleet", "demo", "--fault", "clock-ahead"]);
        let failure = ran.failure();
        assert_eq!((ran.code, failure["code"].as_str()), (3, Some("SKY-6002")), "{failure}");
        assert!(text(&failure["help"]).contains("package `libfaketime`"), "{failure}");
    }
    if small_disks_are_possible() {
        faults.push("disk-full");
    }
    if faults.is_empty() {
        return;
    }
    suffered(&[], &faults.join(","));
}

/// As `ops/test/run` installs it.
fn libfaketime_is_there() -> bool {
    let libraries = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let is_there = libraries
        .map(|folder| folder.path().join("faketime/libfaketime.so.1"))
        .any(|file| file.is_file());
    if !is_there {
        eprintln!("skipped in part: no libfaketime: run the tests with `ops/test/run test`, which installs it");
    }
    is_there
}

fn small_disks_are_possible() -> bool {
    let mount = ["--mount", "mount", "-t", "tmpfs", "tmpfs", "/tmp"];
    let mounted = Command::new("unshare").args(mount).output();
    let is_possible = mounted.is_ok_and(|mounted| mounted.status.success());
    if !is_possible {
        eprintln!("skipped in part: no tmpfs can be mounted");
    }
    is_possible
}

#[test]
fn a_region_is_cut_off_and_the_others_go_on() {
    let faults = "region-cut,home-cut,region-killed,leader-killed,relay-cut,api-away,keys-rotated";
    let report = suffered(&["--regions", "3"], faults);
    assert_eq!(
        (report["regions"].as_u64(), report["nodes"].as_u64()),
        (Some(3), Some(3))
    );
    // Three nodes, each with the two shards of its own region, and mirrors of the four of the others.
    assert_eq!(
        (report["streams"].as_u64(), report["mirrors"].as_u64()),
        (Some(6), Some(12))
    );
}

#[test]
fn a_fault_between_regions_needs_regions() {
    let ran = place().run(["--json", "fleet", "demo", "--fault", "home-cut"]);
    let failure = ran.failure();
    assert_eq!((ran.code, failure["code"].as_str()), (2, Some("SKY-6004")), "{failure}");
    assert!(text(&failure["help"]).contains("--regions"), "{failure}");
}

#[test]
fn a_fleet_says_what_its_nodes_do_and_ends_with_its_starter() {
    let mut place = place();
    let mut running = fleet(&mut place, &[]);
    let nodes: Value = running.json();
    let nodes = nodes["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), 3);
    assert!(nodes.iter().all(|node| node["state"] == "ready"), "{nodes:?}");
    assert!(nodes.iter().all(|node| node["streams"].as_u64() > Some(0)), "{nodes:?}");

    // A region that there is not, and which there are.
    let vault = ["--vault", "alice.vault", "--timeout-s", "60"];
    let run = |line: &[&str]| place.run(std::iter::once(&"--json").chain(line).chain(&vault));
    assert_eq!(run(&["init"]).code, 0);
    let nowhere = run(&["channel", "create", "plans", "--region", "9"]);
    let failure = nowhere.failure();
    assert_eq!(failure["code"], "SKY-1007", "{failure}");
    assert!(text(&failure["what"]).contains("no region 9"), "{failure}");
    assert!(text(&failure["help"]).contains("region 0"), "{failure}");
    let here = run(&["channel", "create", "plans here"]);
    assert_eq!(here.code, 0, "{}", here.stderr);

    let (code, _) = running.stop("INT");
    assert_eq!(code, 0);
    assert_eq!(processes_left(&place), 0);
}

#[test]
fn a_fleet_whose_starter_is_killed_ends_with_it_and_goes_on_over_its_folder() {
    let mut place = place();
    let running = fleet(&mut place, &["--nodes", "2"]);
    let init = place.json(&["init", "--vault", "alice.vault", "--timeout-s", "60"]);
    let create = [
        "channel",
        "create",
        "plans",
        "--vault",
        "alice.vault",
        "--timeout-s",
        "60",
    ];
    place.json(&create);
    assert!(
        processes_left(&place) > 5,
        "servers, what watches over them, and relay nodes"
    );
    running.signal("KILL");
    let killed = Instant::now();
    while processes_left(&place) > 0 {
        assert!(
            killed.elapsed() < Duration::from_secs(120),
            "something goes on without it"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(running);

    let running = fleet(&mut place, &["--nodes", "2"]);
    let again = place.json(&["init", "--vault", "alice.vault", "--timeout-s", "60"]);
    assert_eq!((&again["agent"], &again["created"]), (&init["agent"], &false.into()));
    let send = [
        "channel",
        "send",
        "plans",
        "still there",
        "--vault",
        "alice.vault",
        "--timeout-s",
        "60",
    ];
    assert!(place.json(&send).is_object());
    assert_eq!(running.stop("INT").0, 0);
}

#[test]
fn without_nats_server_the_next_step_is_told() {
    let ran = Place::new().run(["--json", "fleet", "up", "--nats-server", "/nowhere/nats-server"]);
    let failure = ran.failure();
    assert!(ran.stdout.is_empty());
    assert!(
        failure["what"]
            .as_str()
            .is_some_and(|text| text.contains("/nowhere/nats-server")),
        "{failure}"
    );
    assert!(
        failure["help"]
            .as_str()
            .is_some_and(|text| text.contains("--nats-server")),
        "{failure}"
    );
}

#[test]
fn servers_take_the_configuration_that_is_written_for_them() {
    let place = place();
    let inventory = "store_dir = \"/tmp/skytale\"\nmax_file = \"1GB\"\n\
                     [[region]]\nname = \"eu\"\nnumber = 1\nshards = 2\nnodes = [\"relay-1\"]\nservers = [\n\
                     { name = \"eu-1\", host = \"127.0.0.1\" }, { name = \"eu-2\", host = \"127.0.0.2\" } ]\n\
                     [[region]]\nname = \"us\"\nnumber = 2\nshards = 2\nservers = [\n\
                     { name = \"us-1\", host = \"127.0.0.3\" }, { name = \"us-2\", host = \"127.0.0.4\" } ]\n";
    place.write("inventory.toml", inventory);
    let line = ["fleet", "nats", "--inventory", "inventory.toml", "--out", "conf"];
    let written = place.json(&line);
    let servers = written["servers"].as_array().expect("a list");
    assert_eq!(servers.len(), 4);
    for server in servers {
        let dir = place.path(server.as_str().expect("a folder"));
        let check = Command::new(nats_server())
            .args(["-t", "-c", "nats-server.conf"])
            .current_dir(dir)
            .output()
            .expect("runs");
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    }
    // The keys stay as they are.
    let key = || std::fs::read(place.path("conf/nodes/relay-1/relay.nk")).expect("a key");
    let before = key();
    place.json(&line);
    assert_eq!(key(), before);

    place.write("inventory.toml", &inventory.replace("127.0.0.2", "nats.example.net"));
    let refused = place.run(line);
    assert!(refused.stderr.contains("in the clear"), "{}", refused.stderr);
}
