//! A fleet on one machine: real NATS servers, relay nodes as processes.

use crate::process::{Place, Running};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

/// The program, as `ops/test/run` installs it.
fn nats_server() -> PathBuf {
    let named = std::env::var_os("SKYTALE_NATS_SERVER").map(PathBuf::from);
    let cached = std::env::var_os("HOME")
        .map(|home| PathBuf::from(home).join(".cache/skytale-test/nats-server-2.15.1/nats-server"));
    let there = named.into_iter().chain(cached).find(|program| program.is_file());
    there.expect("nats-server is missing: run the tests with `ops/test/run test`, or set SKYTALE_NATS_SERVER")
}

fn place() -> Place {
    let mut place = Place::new();
    place.set("SKYTALE_NATS_SERVER", nats_server().to_string_lossy());
    place
}

/// Processes that work in a folder of this place.
fn servers_left(place: &Place) -> usize {
    let folder = place.path("fleet/nats");
    let processes = std::fs::read_dir("/proc").expect("a system with /proc").flatten();
    let working = processes.filter_map(|process| std::fs::read_link(process.path().join("cwd")).ok());
    working.filter(|dir| dir.starts_with(&folder)).count()
}

fn holds(report: &Value) {
    assert_eq!(report["ok"], true, "{report:#}");
    for none in ["lost", "duplicated", "out_of_order", "foreign"] {
        assert_eq!(report[none], 0, "{none}");
    }
    assert_eq!(report["contradictions"].as_array().map(Vec::len), Some(0));
    assert_eq!(report["digests_agree"], true);
    assert_eq!(report["transcripts_agree"], true);
    assert_eq!(report["delivered"], report["expected"]);
}

#[test]
fn nodes_and_servers_fail_in_turn_and_nothing_is_lost() {
    let report = place().json(&[
        "fleet",
        "demo",
        "--agents",
        "3",
        "--rate",
        "20",
        "--fault-s",
        "1",
        "--dir",
        "fleet",
    ]);
    holds(&report);
    assert_eq!(report["faults"].as_array().map(Vec::len), Some(6));
    assert!(report["epochs"].as_u64() > Some(5), "{report:#}");
}

#[test]
fn a_region_is_cut_off_and_the_others_go_on() {
    let line = [
        "fleet",
        "demo",
        "--regions",
        "3",
        "--agents",
        "3",
        "--rate",
        "20",
        "--fault-s",
        "1",
        "--dir",
        "fleet",
    ];
    let report = place().json(&line);
    holds(&report);
    assert_eq!(
        (report["regions"].as_u64(), report["nodes"].as_u64()),
        (Some(3), Some(3))
    );
    assert_eq!(report["faults"].as_array().map(Vec::len), Some(8));
}

#[test]
fn a_fleet_says_what_its_nodes_do_and_ends_with_its_starter() {
    let place = place();
    let line = ["--json", "fleet", "up", "--dir", "fleet", "--api-listen", "127.0.0.1:0"];
    let mut running = Running::start(place.command(line), &place.path("stderr"));
    let told: Value = running.json();
    assert!(
        told["api_url"]
            .as_str()
            .is_some_and(|url| url.starts_with("http://127.0.0.1:"))
    );
    let nodes: Value = running.json();
    let nodes = nodes["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), 3);
    assert!(nodes.iter().all(|node| node["state"] == "ready"), "{nodes:?}");
    assert!(servers_left(&place) > 0);
    let (code, _) = running.stop("INT");
    assert_eq!(code, 0);
    assert_eq!(servers_left(&place), 0);
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
                     [[region]]\nname = \"eu\"\nnumber = 1\nshards = 2\nservers = [\n\
                     { name = \"eu-1\", host = \"127.0.0.1\" }, { name = \"eu-2\", host = \"127.0.0.2\" } ]\n\
                     [[region]]\nname = \"us\"\nnumber = 2\nshards = 2\nservers = [ { name = \"us-1\", host = \"127.0.0.3\" } ]\n";
    place.write("inventory.toml", inventory);
    let line = ["fleet", "nats", "--inventory", "inventory.toml", "--out", "conf"];
    let written = place.json(&line);
    let servers = written["servers"].as_array().expect("a list");
    assert_eq!(servers.len(), 3);
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
    let key = std::fs::read(place.path("conf/relay.nk")).expect("a key");
    place.json(&line);
    assert_eq!(std::fs::read(place.path("conf/relay.nk")).expect("a key"), key);

    place.write("inventory.toml", &inventory.replace("127.0.0.2", "nats.example.net"));
    let refused = place.run(line);
    assert!(refused.stderr.contains("in the clear"), "{}", refused.stderr);
}
