//! `skytale config check`, and servers at their start: everything that is wrong, at once, by the same code.

use crate::node::{Node, text};
use crate::process::{Place, Ran, Running, free_port};
use serde_json::Value;
use std::net::{SocketAddr, TcpListener, UdpSocket};

/// Returns the problems, as a program reads them: one text for each problem.
fn problems(ran: &Ran) -> Vec<String> {
    assert_eq!((ran.code, ran.stdout.as_str()), (3, ""), "{}", ran.stderr);
    let failure = ran.failure();
    match failure["problems"].as_array() {
        Some(several) => several.iter().map(|problem| text(&problem["what"])).collect(),
        None => vec![text(&failure["what"])],
    }
}

/// Each of these words is in a problem of its own, and there is nothing else.
fn are_about(found: &[String], keys: &[&str]) {
    for key in keys {
        let about = found.iter().filter(|problem| problem.contains(&format!("`{key}`")));
        assert_eq!(about.count(), 1, "{key}: {found:#?}");
    }
    assert_eq!(found.len(), keys.len(), "{found:#?}");
}

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Settings with which everything starts, in a folder of their own.
fn good(place: &Place) -> String {
    place.write(
        "accounts.toml",
        &format!("[[account]]\nname = 'a'\nbearer = '{SECRET}'\nnames = ['org/a/*']\n"),
    );
    format!(
        "api_url = 'https://api.example.org'\napi_key = 'sk_live_anything'\n\
         [api]\nlisten = '127.0.0.1:0'\nurl = 'http://127.0.0.1:7600'\ndatabase = 'sqlite:api.db'\nadmin_secret = 'a{SECRET}'\n\
         relay_secret = 'r{SECRET}'\nkey_encryption_key = '{SECRET}{SECRET}'\n\
         [relay]\nlisten = ['127.0.0.1:0']\ndata_dir = 'relay'\napi_url = 'http://127.0.0.1:1'\nrelay_secret = 'r{SECRET}'\n\
         [relay.admin]\nlisten = '127.0.0.1:0'\n\
         [bridge]\nlisten = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'\nsecret_key_file = 'bridge.key'\n\
         api_url = 'https://api.example.org'\napi_key = 'sk_live_anything'\naccounts_file = 'accounts.toml'\n"
    )
}

#[test]
fn settings_with_which_everything_starts_pass_and_nothing_is_made() {
    let place = Place::new();
    place.write("skytale.toml", &good(&place));
    let checked = place.json(&["config", "check"]);
    assert_eq!(
        checked["checked"],
        serde_json::json!(["api", "relay", "bridge", "agent"])
    );
    assert_eq!(checked["unset"], serde_json::json!([]));
    for part in ["api", "relay", "bridge", "agent"] {
        let checked = place.json(&["config", "check", part]);
        assert_eq!(checked["checked"], serde_json::json!([part]));
    }
    let mut left: Vec<_> = std::fs::read_dir(place.path(""))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["accounts.toml", "skytale.toml"]);
}

#[test]
fn an_empty_configuration_says_what_was_not_checked_and_each_part_says_what_it_needs() {
    let place = Place::new();
    let ran = place.run(["config", "check"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stdout.contains("not checked") && ran.stdout.contains("`skytale config check api`"),
        "{}",
        ran.stdout
    );
    let needed: [(&str, &[&str]); 4] = [
        (
            "api",
            &[
                "api.database",
                "api.url",
                "api.admin_secret",
                "api.relay_secret",
                "api.key_encryption_key",
            ],
        ),
        ("relay", &["relay.data_dir", "relay.api_url", "relay.relay_secret"]),
        (
            "bridge",
            &[
                "bridge.secret_key_file",
                "bridge.api_url",
                "bridge.api_key",
                "bridge.accounts_file",
            ],
        ),
        ("agent", &["api_key"]),
    ];
    for (part, keys) in needed {
        are_about(&problems(&place.run(["--json", "config", "check", part])), keys);
        if part != "agent" {
            // The server itself says the same.
            are_about(&problems(&place.run(["--json", part])), keys);
        }
    }
}

#[test]
fn a_server_and_the_check_of_it_say_the_same_of_a_file_in_which_all_is_wrong() {
    let place = Place::new();
    place.write(
        "skytale.toml",
        "api_key = 'garbage'\napi_url = 'notaurl'\n\
         [api]\nlisten = '0.0.0.0:7600'\nurl = 'example.org'\ndatabase = 'mysql://user:marker@host/name'\n\
         admin_secret = 'short'\nrelay_secret = 'file:/nowhere/relay-secret'\nkey_encryption_key = 'xyz'\n\
         token_lifetime_s = 86400\nurll = 'x'\n\
         [relay]\nlisten = 'here'\nretention_s = 'soon'\ndata_dir = 'skytale.toml/relay'\napi_url = 'ftp://host'\n\
         relay_secret = 'rk_live_marker'\n[relay.limits]\nconnections_max = 0\n\
         [relay.fleet]\nnats = ['nats://10.0.0.1:4222']\nnats_key = 'marker'\nregions = ['x']\nreplicas = 2\n\
         [bridge]\nsecret_key_file = 'skytale.toml'\napi_url = 'http://far.example.org'\napi_key = 'marker'\n\
         accounts_file = 'missing.toml'\n[bridge.limits]\nlinks_max = 0\n",
    );
    let everywhere = ["api.urll", "relay.listen", "relay.retention_s"];
    let api = [
        "api.listen",
        "api.url",
        "api.database",
        "api.admin_secret",
        "api.relay_secret",
        "api.key_encryption_key",
        "api.token_lifetime_s",
    ];
    let relay = [
        "relay.data_dir",
        "relay.api_url",
        "relay.relay_secret",
        "relay.limits.connections_max",
        "relay.fleet.nats_key",
        "relay.fleet.sync_key",
        "relay.fleet.checkpoint_key",
        "relay.fleet.nodes_file",
        "relay.fleet.regions",
        "relay.fleet.replicas",
    ];
    for (part, keys) in [("api", &api[..]), ("relay", &relay)] {
        let keys = [&everywhere[..], keys].concat();
        let (checked, started) = (
            place.run(["--json", "config", "check", part]),
            place.run(["--json", part]),
        );
        are_about(&problems(&checked), &keys);
        are_about(&problems(&started), &keys);
        assert!(!checked.stderr.contains("marker"), "{}", checked.stderr);
    }
    // Files of the bridge are named by their paths.
    let bridge = place.run(["config", "check", "bridge"]);
    for word in [
        "bridge's secret key in skytale.toml",
        "`bridge.api_url`",
        "`bridge.api_key`",
        "missing.toml",
        "`bridge.limits.links_max`",
    ] {
        assert_eq!(bridge.stderr.matches(word).count(), 1, "{word}: {}", bridge.stderr);
    }
    let all = problems(&place.run(["--json", "config", "check"]));
    for key in everywhere
        .iter()
        .chain(&api)
        .chain(&relay)
        .chain(&["api_key", "api_url"])
    {
        assert!(
            all.iter().any(|problem| problem.contains(&format!("`{key}`"))),
            "{key}: {all:#?}"
        );
    }
    assert!(!place.path("api.db").exists() && !place.path("bridge.key").exists());
}

#[test]
fn each_problem_comes_with_what_to_do_in_the_words_of_where_it_was_set() {
    let mut place = Place::new();
    place.set("SKYTALE_API_URL", "notaurl");
    place.set("SKYTALE_API_KEY", "garbage");
    place.set("SKYTALE_RELAY__RETENTION_S", "soon");
    let ran = place.run(["config", "check", "agent", "--set", "relay.limits.streams_max=many"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    for word in [
        "4 problems",
        "environment variable SKYTALE_API_URL",
        "`notaurl`, which is no URL",
        "https://api.example.org",
        "environment variable SKYTALE_API_KEY",
        "sk_live_...",
        "a whole number of seconds",
        "SKYTALE_RELAY__RETENTION_S=2592000",
        "--set relay.limits.streams_max=4096",
    ] {
        assert!(ran.stderr.contains(word), "no {word}: {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("u64"), "{}", ran.stderr);
}

/// `SKYTALE_API_URL` is what a person mistypes first.
#[test]
fn a_url_or_a_key_that_is_none_is_found_without_a_word_about_the_part() {
    for (name, value) in [("SKYTALE_API_URL", "notaurl"), ("SKYTALE_API_KEY", "garbage")] {
        let mut place = Place::new();
        place.set(name, value);
        let ran = place.run(["config", "check"]);
        assert_eq!(ran.code, 3, "{name}: {}", ran.stderr);
        assert!(ran.stderr.contains(name), "{}", ran.stderr);
    }
}

#[test]
fn a_list_is_given_with_commas_or_as_a_file_has_it_in_each_way() {
    let lists = [
        "127.0.0.1:1,[::1]:2",
        "[\"127.0.0.1:1\", \"[::1]:2\"]",
        "[127.0.0.1:1,[::1]:2]",
    ];
    let wanted = serde_json::json!(["127.0.0.1:1", "[::1]:2"]);
    for list in lists {
        let mut place = Place::new();
        place.set("SKYTALE_RELAY__ADVERTISE", list);
        place.set("SKYTALE_RELAY__FLEET__NATS", list);
        let set = [
            "--set",
            &format!("relay.listen={list}"),
            "--set",
            &format!("api.region_distances={list}"),
        ];
        let printed = place.json(&[&["config", "print"][..], &set].concat());
        let value = |path: &str| printed.pointer(path).map(|row| row["value"].clone()).expect(path);
        assert_eq!(value("/config/relay/advertise"), wanted, "{list}");
        assert_eq!(value("/config/relay/fleet.nats"), wanted, "{list}");
        assert_eq!(value("/config/relay/listen"), wanted, "{list}");
        assert_eq!(value("/config/api/region_distances"), wanted, "{list}");
    }
}

#[test]
fn with_connect_addresses_are_bound_and_nobody_at_the_other_end_is_a_problem() {
    let place = Place::new();
    let (tcp, udp) = (
        SocketAddr::from(([127, 0, 0, 1], free_port())),
        SocketAddr::from(([127, 0, 0, 1], free_port())),
    );
    let taken = (TcpListener::bind("127.0.0.1:0"), UdpSocket::bind("127.0.0.1:0"));
    let (taken_tcp, taken_udp) = (taken.0.expect("a port"), taken.1.expect("a port"));
    let port = |address: std::io::Result<SocketAddr>| address.expect("bound").to_string();
    place.write("skytale.toml", &good(&place));
    let listens = |api: &str, relay: &str| {
        let more = "relay.fleet.nats=nats://127.0.0.1:1";
        let (api, relay) = (format!("api.listen={api}"), format!("relay.listen={relay}"));
        let line = [
            "--json",
            "config",
            "check",
            "api",
            "relay",
            "--connect",
            "--set",
            more,
            "--set",
        ];
        let rest = ["relay.fleet.sync_is_always=true", "--set", &api, "--set", &relay];
        place.run(line.iter().chain(&rest))
    };
    let free = problems(&listens(&tcp.to_string(), &udp.to_string()));
    are_about(&free, &["relay.api_url", "relay.fleet.nats"]);
    // Advice for an agent is no help to an operator.
    let ran = listens(&tcp.to_string(), &udp.to_string());
    for word in ["outbox", "Keep the frame"] {
        assert!(!ran.stderr.contains(word), "{}", ran.stderr);
    }
    let ran = listens(&port(taken_tcp.local_addr()), &port(taken_udp.local_addr()));
    are_about(
        &problems(&ran),
        &["api.listen", "relay.listen", "relay.api_url", "relay.fleet.nats"],
    );
    let ran = place.run([
        "config",
        "check",
        "api",
        "--connect",
        "--set",
        "api.database=postgres://u:marker@127.0.0.1:1/n",
    ]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("`api.database`") && !ran.stderr.contains("marker"),
        "{}",
        ran.stderr
    );
}

#[test]
fn with_connect_the_api_must_answer_and_take_the_key_and_the_relay_nodes_secret() {
    let node = Node::start("warn");
    assert_eq!(
        node.place.json(&["config", "check", "agent", "--connect"])["connected"],
        true
    );
    let ran = node.place.run([
        "config",
        "check",
        "agent",
        "--connect",
        "--set",
        &format!("api_key=sk_live_{}", "k".repeat(60)),
    ]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);

    let url = text(&node.told["api_url"]);
    node.place.write(
        "relay.toml",
        &format!(
            "[relay]\nlisten = ['127.0.0.1:0']\ndata_dir = 'other'\napi_url = '{url}'\nrelay_secret = 'another{SECRET}'\n\
             [relay.admin]\nlisten = '127.0.0.1:0'\n"
        ),
    );
    let refused = node.place.run([
        "--json",
        "config",
        "check",
        "relay",
        "--connect",
        "--config",
        "relay.toml",
    ]);
    are_about(&problems(&refused), &["relay.relay_secret"]);
}

#[test]
fn a_server_that_passed_the_check_starts() {
    let place = Place::new();
    place.write("skytale.toml", &good(&place));
    place.json(&["config", "check", "api", "--connect"]);
    let mut api = Running::start(place.command(["--json", "api"]), &place.path("api.log"));
    let told: Value = api.json();
    assert_eq!(told["url"], "http://127.0.0.1:7600");
    assert_eq!(api.stop("TERM").0, 0);
}

#[test]
fn a_server_whose_address_is_taken_names_who_listens_there() {
    let place = Place::new();
    place.write("skytale.toml", &good(&place));
    let mut api = Running::start(place.command(["--json", "api"]), &place.path("api.log"));
    let address = text(&api.json()["address"]);
    let process = format!("process {}", api.id());
    let second = place.run(["api", "--listen", &address]);
    assert!(
        second.code == 3 && second.stderr.contains(&process),
        "{}",
        second.stderr
    );
    let relay = place.run(["relay", "--set", &format!("relay.admin.listen={address}")]);
    assert!(relay.code == 3 && relay.stderr.contains(&process), "{}", relay.stderr);
    let checked = place.run([
        "config",
        "check",
        "api",
        "--connect",
        "--set",
        &format!("api.listen={address}"),
    ]);
    assert!(
        checked.code == 3 && checked.stderr.contains(&process),
        "{}",
        checked.stderr
    );
    assert_eq!(api.stop("TERM").0, 0);
}
