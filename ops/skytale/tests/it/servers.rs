//! Servers, keys and a stopped node's data.

use crate::node::{ANY_PORT, Node, text};
use crate::process::{Place, Running, free_port};
use std::process::Stdio;

#[test]
fn a_local_node_has_the_settings_of_relay_nodes_that_it_is_given() {
    let mut place = Place::new();
    place.set("SKYTALE_RELAY__STORE__SEGMENT_BYTES", "2097152");
    let line = [
        "--json",
        "dev",
        "--dir",
        "node",
        "--set",
        "relay.limits.connections_max=0",
    ];
    let ran = place.run(line.into_iter().chain(ANY_PORT));
    assert!(
        ran.code == 3 && ran.stderr.contains("relay.limits.connections_max"),
        "{}",
        ran.stderr
    );
    let line = ["--json", "dev", "--dir", "node"].into_iter().chain(ANY_PORT);
    let mut running = Running::start(place.command(line), &place.path("dev.log"));
    let _: serde_json::Value = running.json();
    let segments = std::fs::read_dir(place.path("node/relay/log/segments")).expect("segments");
    let sizes: Vec<u64> = segments
        .map(|segment| segment.expect("a file").metadata().expect("its size").len())
        .collect();
    assert_eq!(sizes, [2_097_152]);
    assert_eq!(running.stop("TERM").0, 0);
}

#[test]
fn a_local_node_stops_in_order_and_comes_back_with_its_account_and_log() {
    let node = Node::start("warn");
    let bob = (node.join("alice"), node.join("bob")).1;
    let channel = text(&node.agent("alice", &["channel", "create", "plans"])["channel"]);
    node.agent("alice", &["channel", "add", "plans", &bob]);
    node.agent("alice", &["channel", "send", "plans", "before"]);

    // Running data is not looked at.
    let ran = node.place.run(["log", "verify", "node"]);
    assert_eq!(ran.code, 6, "{}", ran.stderr);
    assert!(ran.stderr.contains("Stop the node first"), "{}", ran.stderr);

    let Node {
        mut place,
        running,
        told,
    } = node;
    assert_eq!(running.stop("TERM").0, 0);

    let verified = place.json(&["log", "verify", "node"]);
    assert_eq!(verified["ok"], true);
    let log = format!("channel:{channel}");
    let logs = verified["logs"].as_array().expect("a list");
    let row = logs
        .iter()
        .find(|row| row["log"] == log.as_str())
        .expect("the channel's log");
    let head = row["head"].as_u64().expect("a number");

    let dumped = place.run(["--json", "log", "dump", "node", "--only", &log]);
    assert_eq!(dumped.code, 0, "{}", dumped.stderr);
    let entries: Vec<serde_json::Value> = dumped
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(entries.len() as u64, head);
    assert_eq!(
        (entries[0]["kind"].as_str(), entries[1]["kind"].as_str()),
        (Some("create"), Some("commit"))
    );
    assert!(
        entries
            .iter()
            .enumerate()
            .all(|(place, entry)| entry["offset"] == place as u64 + 1)
    );
    assert_eq!(entries[1]["adds"][0], bob.as_str());

    // A reader that has read enough may leave.
    let mut early = place.command(["log", "export", &log, "node"]);
    let mut early = early
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    drop(early.stdout.take());
    let early = early.wait_with_output().expect("ended");
    let said = String::from_utf8_lossy(&early.stderr);
    assert!(early.status.success() && !said.contains("pipe"), "{said}");
    let exported = place.json(&["log", "export", &log, "node", "--to", "records.bin"]);
    assert_eq!(exported["entries"].as_u64(), Some(head));
    let size = std::fs::metadata(place.path("records.bin")).expect("there").len();
    assert_eq!(exported["bytes"].as_u64(), Some(size));
    assert_eq!(
        place.run(["log", "export", &log, "node", "--to", "records.bin"]).code,
        3,
        "not written over"
    );

    let arguments = ["--json", "dev", "--dir", "node"].into_iter().chain(ANY_PORT);
    let mut running = Running::start(place.command(arguments), &place.path("again.log"));
    let again = running.json();
    assert_eq!(
        (&again["api_key"], &again["relay"]["endpoint"]),
        (&told["api_key"], &told["relay"]["endpoint"])
    );
    place.set("SKYTALE_API_URL", again["api_url"].as_str().expect("a URL"));
    let node = Node {
        place,
        running,
        told: again,
    };
    assert_eq!(node.read("bob", &[&channel]), ["before"]);
}

#[test]
fn damage_is_found_named_and_told_by_the_exit_code() {
    let node = Node::start("warn");
    node.join("alice");
    node.agent("alice", &["channel", "create", "plans"]);
    let Node { place, running, .. } = node;
    assert_eq!(running.stop("TERM").0, 0);
    let entry = place.run(["--json", "log", "dump", "node"]).stdout;
    let entry: serde_json::Value = serde_json::from_str(entry.lines().next().expect("an entry")).expect("JSON");
    let (file, at) = (text(&entry["file"]), entry["at"].as_u64().expect("a number"));
    let path = place.path(&file);
    let mut bytes = std::fs::read(&path).expect("read");
    let hit = usize::try_from(at).expect("fits") + 40;
    bytes[hit] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    let ran = place.run(["--json", "log", "verify", "node"]);
    assert_eq!(ran.code, 7, "{}", ran.stderr);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(report["ok"], false);
    assert!(
        report["problems"]
            .as_array()
            .is_some_and(|problems| !problems.is_empty()),
        "{report}"
    );
    assert_eq!(ran.failure()["code"], "SKY-1015");
}

#[test]
fn keys_are_made_listed_revoked_and_then_refused() {
    let node = Node::start("warn");
    let made = node.place.json(&["key", "create", "--label", "worker"]);
    let (id, secret) = (text(&made["key"]["id"]), text(&made["secret"]));
    let listed = node.place.json(&["key", "list"]);
    let keys = listed["keys"].as_array().expect("a list");
    let row = keys.iter().find(|key| key["id"] == id.as_str()).expect("the key");
    assert_eq!(row["label"], "worker");
    assert!(!listed.to_string().contains(&secret), "shown once");
    let unnamed = node.place.json(&["key", "create"]);
    assert_eq!(unnamed["key"]["label"], "unnamed");
    // A worker's key makes no keys.
    let line = format!("api_key={secret}");
    let ran = node.place.run(["--json", "key", "list", "--set", &line]);
    assert_eq!(
        (ran.code, ran.failure()["code"].as_str()),
        (4, Some("SKY-4014")),
        "{}",
        ran.stderr
    );

    assert_eq!(node.place.json(&["key", "revoke", &id])["revoked"], id.as_str());
    let ran = node.place.run(["--json", "key", "list", "--set", &line]);
    assert_eq!(
        (ran.code, ran.failure()["code"].as_str()),
        (4, Some("SKY-4003")),
        "{}",
        ran.stderr
    );
}

#[test]
fn an_api_that_is_not_there_is_told_with_its_address_and_where_that_came_from() {
    let mut place = Place::new();
    let ran = place.run(["key", "list"]);
    assert_eq!(ran.code, 3);
    assert!(ran.stderr.contains("SKYTALE_API_KEY"), "{}", ran.stderr);
    place.set("SKYTALE_API_KEY", "sk_live_0123456789");
    place.set("SKYTALE_API_URL", "http://127.0.0.1:9");
    let ran = place.run(["key", "list"]);
    assert_eq!(ran.code, 6);
    for word in ["http://127.0.0.1:9", "SKYTALE_API_URL", "skytale dev", "refused"] {
        assert!(ran.stderr.contains(word), "no {word}: {}", ran.stderr);
    }
}

#[test]
fn api_and_relay_serve_from_a_configuration_file_and_an_operator_makes_accounts() {
    let mut place = Place::new();
    let port = free_port();
    let secret = |byte: &str| byte.repeat(32);
    place.write("relay-secret", &secret("r5"));
    place.write(
        "skytale.toml",
        &format!(
            "api_url = 'http://127.0.0.1:{port}'\nadmin_secret = '{admin}'\n\
             [api]\nadmin.listen = '127.0.0.1:0'\nlisten = '127.0.0.1:{port}'\nurl = 'http://127.0.0.1:{port}'\ndatabase = 'sqlite:api.db'\n\
             admin_secret = '{admin}'\nrelay_secret = 'file:relay-secret'\nkey_encryption_key = '{kek}'\n\
             [relay]\nlisten = '127.0.0.1:0'\ndata_dir = 'relay'\napi_url = 'http://127.0.0.1:{port}'\n\
             relay_secret = 'file:relay-secret'\ndisk_free_bytes_min = 0\n[relay.admin]\nlisten = '127.0.0.1:0'\n",
            admin = secret("a7"),
            kek = secret("c3"),
        ),
    );
    let mut api = Running::start(place.command(["--json", "api"]), &place.path("api.log"));
    assert_eq!(api.json()["address"], format!("127.0.0.1:{port}"));
    let mut relay = Running::start(place.command(["--json", "relay"]), &place.path("relay.log"));
    assert!(relay.json()["admin"].is_string());

    let account = place.json(&["account", "create", "acme"]);
    assert_eq!(account["org"], "acme");
    place.set("SKYTALE_API_KEY", text(&account["key"]["secret"]));
    let made = place.json(&["init", "--vault", "alice.vault", "--timeout-s", "120"]);
    assert_eq!(
        (made["created"].as_bool(), made["online"].as_bool()),
        (Some(true), Some(true))
    );
    let ran = place.run(["--json", "account", "create", "acme"]);
    assert_eq!(ran.failure()["code"], "SKY-4005", "{}", ran.stderr);
    let ran = place.run(["--json", "account", "create", "other", "--set", "admin_secret=wrong"]);
    assert_eq!(
        (ran.code, ran.failure()["code"].as_str()),
        (4, Some("SKY-4015")),
        "{}",
        ran.stderr
    );

    assert_eq!(relay.stop("TERM").0, 0);
    assert_eq!(api.stop("INT").0, 0);
}
