//! `skytale dev`: beside another one, in a container, and small on the disk.

use crate::node::{Node, text};
use crate::process::{Place, Running, free_port};
use serde_json::Value;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;

#[test]
fn a_second_node_in_the_same_folder_names_the_running_one_and_how_to_use_it() {
    let node = Node::start("warn");
    let ran = node.place.run(["dev", "--dir", "node", "--any-port"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    let url = text(&node.told["api_url"]);
    let process = format!("process {}", node.running.id());
    for word in [
        "node runs in node already",
        &process,
        &url,
        "api-key",
        "--any-port --dir",
    ] {
        assert!(ran.stderr.contains(word), "no {word}: {}", ran.stderr);
    }
    // Its advice works.
    let mut other = Place::new();
    let key = node.place.path("node/api-key");
    other.set("SKYTALE_API_URL", url);
    other.set("SKYTALE_API_KEY", format!("file:{}", key.display()));
    other.json(&["init", "--vault", "carol.vault"]);
}

#[test]
fn a_second_node_on_the_same_addresses_names_all_of_them_the_running_one_and_the_flag() {
    let node = Node::start("warn");
    let address = |pointer: &str| text(node.told.pointer(pointer).unwrap_or_else(|| panic!("{pointer}")));
    let api = address("/api_url").replace("http://", "");
    let (relay, admin, bridge) = (
        address("/relay/addresses/0"),
        address("/relay/admin"),
        address("/bridge"),
    );
    let line = |more: &'static [&'static str]| {
        let given = ["dev", "--dir", "other", "--api-listen", &api, "--relay-listen", &relay];
        let rest = ["--admin-listen", &admin, "--bridge-listen", &bridge];
        node.place.run(given.iter().chain(&rest).chain(more))
    };
    let ran = line(&["--https-listen", "127.0.0.1:0"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    let process = format!("process {}", node.running.id());
    for word in [
        "4 addresses are taken",
        &api,
        &relay,
        &admin,
        &bridge,
        &process,
        "dev --dir node",
        "--any-port",
    ] {
        assert!(ran.stderr.contains(word), "no {word}: {}", ran.stderr);
    }
    assert_eq!(ran.stderr.matches(&process).count(), 1, "{}", ran.stderr);

    let line = ["--json", "dev", "--dir", "other", "--any-port"];
    let mut second = Running::start(node.place.command(line), &node.place.path("second.log"));
    let told: Value = second.json();
    assert_ne!(told["api_url"], node.told["api_url"]);
    assert_eq!(second.stop("TERM").0, 0);
}

#[test]
fn an_empty_node_takes_little_of_the_disk() {
    let node = Node::start("warn");
    let segments = std::fs::read_dir(node.place.path("node/relay/log/segments")).expect("segments");
    let taken: u64 = segments
        .map(|segment| segment.expect("a file").metadata().expect("its size").blocks() * 512)
        .sum();
    assert!(taken <= 4 << 20, "{taken} bytes");
}

#[test]
fn a_node_in_a_container_listens_on_all_addresses_says_so_and_is_reached_by_those_of_this_machine() {
    let mut place = Place::new();
    let ran = place.run(["dev", "--dir", "node", "--api-listen", "0.0.0.0:0"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("--listen-all"), "{}", ran.stderr);

    let (api, relay) = (format!("0.0.0.0:{}", free_port()), format!("0.0.0.0:{}", free_port()));
    let any = "0.0.0.0:0";
    let line = [
        "--json",
        "dev",
        "--dir",
        "node",
        "--listen-all",
        "--api-listen",
        &api,
        "--relay-listen",
        &relay,
    ];
    let line = line.into_iter().chain(["--admin-listen", any, "--bridge-listen", any]);
    let mut running = Running::start(place.command(line), &place.path("dev.log"));
    let told: Value = running.json();
    assert!(
        running.stderr().contains("warning: this node listens on all addresses"),
        "{}",
        running.stderr()
    );
    assert_eq!(
        told["api_url"],
        format!("http://{}", api.replace("0.0.0.0", "127.0.0.1"))
    );
    assert_eq!(told["relay"]["https"], Value::Null);
    // 127.0.0.2 is another address than the one that agents get.
    for listen in [&api, &text(&told["relay"]["admin"]), &text(&told["bridge"])] {
        let listen: SocketAddr = listen.parse().expect("an address");
        TcpStream::connect(("127.0.0.2", listen.port())).unwrap_or_else(|error| panic!("{listen}: {error}"));
    }
    place.set("SKYTALE_API_URL", text(&told["api_url"]));
    place.set("SKYTALE_API_KEY", text(&told["api_key"]));
    place.json(&["init", "--vault", "alice.vault"]);
    place.json(&[
        "channel",
        "create",
        "--vault",
        "alice.vault",
        "--transport",
        "udp",
        "plans",
    ]);
    assert_eq!(running.stop("TERM").0, 0);
}

#[test]
fn usual_addresses_are_those_of_the_documents() {
    let ran = Place::new().run(["dev", "--help"]);
    for port in 7600..=7603 {
        assert!(ran.stdout.contains(&format!("127.0.0.1:{port}")), "{}", ran.stdout);
    }
    assert!(ran.stdout.contains("127.0.0.1:7605"), "{}", ran.stdout);
}
