//! Enrolled relay nodes, an API and agents, each a process of its own: one of them goes wrong, and the others say so and go on.

use crate::full_disk::get;
use crate::node::text;
use crate::process::{Place, Running, free_port};
use serde_json::Value;
use std::time::Duration;

/// An API with an operator's secret, which can be stopped and started again, and an account.
struct Site {
    place: Place,
    url: String,
    api: Option<Running>,
}

/// A relay node that runs.
struct Node {
    process: Running,
    admin: String,
    address: String,
    log: String,
}

impl Site {
    fn start() -> Self {
        let mut place = Place::new();
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}");
        let secret = |byte: &str| byte.repeat(32);
        place.write(
            "api.toml",
            &format!(
                "api_url = '{url}'\nadmin_secret = '{admin}'\n[api]\nadmin.listen = '127.0.0.1:0'\nlisten = '127.0.0.1:{port}'\nurl = '{url}'\n\
                 database = 'sqlite:api.db'\nadmin_secret = '{admin}'\nrelay_secret = '{relay}'\n\
                 key_encryption_key = '{kek}'\n",
                admin = secret("a7"),
                relay = secret("r5"),
                kek = secret("c3"),
            ),
        );
        place.set("SKYTALE_CONFIG", "api.toml");
        let mut site = Self { place, url, api: None };
        site.start_api();
        let account = site.place.json(&["account", "create", "acme"]);
        site.place.set("SKYTALE_API_KEY", text(&account["key"]["secret"]));
        site
    }

    fn start_api(&mut self) {
        let mut api = Running::start(self.place.command(["--json", "api"]), &self.place.path("api.log"));
        api.json();
        self.api = Some(api);
    }

    fn kill_api(&mut self) {
        // Killed when dropped.
        self.api = None;
    }

    /// A new enrolment's id and key.
    fn enrol(&self, label: &str) -> (String, String) {
        let made = self.place.json(&["relay", "enrol", label]);
        (text(&made["enrolment"]["id"]), text(&made["secret"]))
    }

    /// Starts the relay node of a data folder, at a free port.
    fn node(&self, folder: &str, key: &str, more: &str) -> Node {
        self.node_at(folder, "127.0.0.1:0", key, more)
    }

    fn node_at(&self, folder: &str, listen: &str, key: &str, more: &str) -> Node {
        let file = format!("{folder}.toml");
        self.place.write(
            &file,
            &format!(
                "[relay]\ndata_dir = '{folder}'\nlisten = '{listen}'\napi_url = '{url}'\nrelay_secret = '{key}'\n\
                 disk_free_bytes_min = 0\n[relay.admin]\nlisten = '127.0.0.1:0'\n{more}",
                url = self.url
            ),
        );
        let log = format!("{folder}.log");
        let line = ["--json", "--config", &file, "relay"];
        let mut process = Running::start(self.place.command(line), &self.place.path(&log));
        let told = process.json();
        Node {
            process,
            admin: text(&told["admin"]),
            address: text(&told["addresses"][0]),
            log,
        }
    }

    /// Returns the output of an agent's command, as JSON.
    fn agent(&self, arguments: &[&str]) -> Value {
        let mut line = arguments.to_vec();
        line.extend(["--vault", "alice.vault", "--timeout-s", "120"]);
        self.place.json(&line)
    }

    /// Waits until the node's log has a text.
    fn logged(&self, node: &Node, wanted: &str) {
        until(|| {
            let log = std::fs::read_to_string(self.place.path(&node.log)).unwrap_or_default();
            log.contains(wanted).then_some(())
        });
    }
}

impl Node {
    /// Waits until `/readyz` has this status, and a reason or a remark with this text.
    fn says(&self, status: &str, wanted: &str) {
        until(|| {
            let (now, body) = get(&self.admin, "/readyz");
            (now == status && body.contains(wanted)).then_some(())
        });
    }
}

fn until<T>(found: impl Fn() -> Option<T>) -> T {
    for _ in 0..3_000 {
        if let Some(found) = found() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("it hangs");
}

#[test]
fn a_revoked_node_sends_its_agents_to_another_and_serves_again_when_it_is_enrolled_again() {
    let site = Site::start();
    let (id, key) = site.enrol("one");
    let one = site.node("one", &key, "");
    one.says("200", "");
    site.agent(&["init"]);
    site.agent(&["channel", "create", "plans"]);

    assert_eq!(site.place.json(&["relay", "revoke", &id])["revoked"], id.as_str());
    one.says("503", "SKY-4021");
    site.logged(&one, "SKY-4021");
    let (_, metrics) = get(&one.admin, "/metrics");
    assert!(
        metrics.contains("skytale_relay_barred{reason=\"revoked\"} 1"),
        "{metrics}"
    );
    let ran = site.place.run([
        "--json",
        "channel",
        "send",
        "plans",
        "one",
        "--vault",
        "alice.vault",
        "--timeout-s",
        "3",
    ]);
    assert_ne!(ran.code, 0, "nobody serves: {}", ran.stdout);

    // With a key of its own again, the same node serves what it has, and what waited goes out.
    assert_eq!(one.process.stop("TERM").0, 0);
    let (_, key) = site.enrol("one");
    let one = site.node("one", &key, "");
    one.says("200", "");
    site.agent(&["channel", "send", "plans", "two"]);
}

#[test]
fn a_copy_of_a_node_on_a_second_machine_is_refused_and_both_name_it() {
    let site = Site::start();
    let (_, key) = site.enrol("one");
    let first = site.node("one", &key, "");
    first.says("200", "");
    until(|| {
        let fleet = site.place.json(&["relay", "fleet"]);
        (fleet["relays"].as_array().map(Vec::len) == Some(1)).then_some(())
    });
    std::fs::create_dir(site.place.path("two")).expect("a folder");
    std::fs::copy(site.place.path("one/endpoint.key"), site.place.path("two/endpoint.key")).expect("copied");
    let second = site.node("two", &key, "");
    second.says("503", "SKY-4027");
    site.logged(&second, "SKY-4027");
    first.says("200", "SKY-4027");
    site.logged(&first, "SKY-4027");
    let fleet = site.place.json(&["relay", "fleet"]);
    assert_eq!(fleet["relays"].as_array().map(Vec::len), Some(1));
    assert!(fleet["relays"][0]["twin"]["addresses"][0].is_string(), "{fleet}");
    site.agent(&["init"]);

    // The first one stops: the other one serves, without a restart.
    assert_eq!(first.process.stop("TERM").0, 0);
    second.says("200", "");
    site.agent(&["channel", "create", "plans"]);
}

#[test]
fn an_api_that_is_gone_stops_no_agent_where_the_operator_says_so_also_after_a_restart() {
    let mut site = Site::start();
    let (_, key) = site.enrol("one");
    let trust = "[relay.trust]\nrevocations_every_ms = 500\nrevocations_stale_after_ms = 1000\nserve_without_api_ms = 3660000\n";
    let one = site.node("one", &key, trust);
    one.says("200", "");
    site.agent(&["init"]);
    site.agent(&["channel", "create", "plans"]);
    until(|| site.place.path("one/trust").exists().then_some(()));

    site.kill_api();
    one.says("200", "the API has not told revocations for ");
    site.agent(&["channel", "send", "plans", "one"]);
    // Killed, and started where agents know it.
    let address = one.address.clone();
    drop(one);
    let one = site.node_at("one", &address, &key, trust);
    one.says("200", "the API has not told revocations for ");
    site.agent(&["channel", "send", "plans", "two"]);

    site.start_api();
    until(|| {
        let (status, body) = get(&one.admin, "/readyz");
        (status == "200" && !body.contains("has not told") && body.contains("serve_without_api_ms is 3660000"))
            .then_some(())
    });
    site.agent(&["channel", "send", "plans", "three"]);
    drop(one);

    // If revocation wins, as it does by default after 30 s, the same API stops everybody.
    let strict = "[relay.trust]\nrevocations_every_ms = 500\nserve_without_api_ms = 2000\n";
    let one = site.node("one", &key, strict);
    one.says("200", "");
    site.kill_api();
    one.says("503", "the API has not told revocations for ");
}
