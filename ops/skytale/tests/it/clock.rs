//! Nodes whose machines' clocks are wrong: real processes, each with a clock of its own (libfaketime).

use crate::fleet::{fleet, place};
use crate::node::text;
use crate::process::{Place, Running, free_port};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Long enough for a slow machine; what takes longer hangs.
const WITHIN: Duration = Duration::from_secs(300);

/// The secret that relay nodes share, many times over.
const SECRET: &str = "r5";

/// Clock of processes, set by a file. The clock since the machine's start is left alone.
struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// `None`, with a reason printed, where there is no libfaketime.
    fn right(file: PathBuf) -> Option<Self> {
        let libraries = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let in_folder = |folder: PathBuf| folder.join("faketime/libfaketime.so.1");
        let library = libraries
            .map(|folder| in_folder(folder.path()))
            .find(|path| path.is_file());
        let Some(library) = library else {
            eprintln!("skipped: no libfaketime: run the tests with `ops/test/run test`, which installs it");
            return None;
        };
        let clock = Self { library, file };
        clock.set("+0");
        Some(clock)
    }

    /// Sets it, as `faketime` understands it.
    fn set(&self, ahead: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{ahead}\n")).expect("written");
        std::fs::rename(&new, &self.file).expect("renamed");
    }

    /// A command that goes by it.
    fn for_command(&self, mut command: Command) -> Command {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_CACHE_DURATION", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
        command
    }
}

/// The status and body of a GET.
fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.split(' ').nth(1).expect("a status").to_owned(), body.to_owned())
}

/// A metric, with its labels; 0 where it is not there.
fn metric(admin: &str, name: &str) -> f64 {
    let metrics = get(admin, "/metrics").1;
    let value = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().expect("a number"))
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < WITHIN, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn run(place: &Place, agent: &str, arguments: &[&str]) -> Value {
    let vault = format!("{agent}.vault");
    place.json(&[arguments, &["--vault", &vault, "--timeout-s", "120"]].concat())
}

/// Returns the messages that an agent has not read, as texts.
fn unread(place: &Place, agent: &str, channel: &str) -> Vec<String> {
    let vault = format!("{agent}.vault");
    let line = [
        "--json",
        "channel",
        "read",
        channel,
        "--unread",
        "--vault",
        &vault,
        "--timeout-s",
        "120",
    ];
    let ran = place.run(line);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let json = |line: &str| serde_json::from_str::<Value>(line).expect("JSON");
    ran.stdout.lines().map(|line| text(&json(line)["text"])).collect()
}

/// An API with its operator's secret, which nodes and agents of this place go to. Gives its URL, too.
fn api(place: &mut Place) -> (Running, String) {
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let admin = "a7".repeat(32);
    place.write(
        "api.toml",
        &format!(
            "api_url = '{url}'\nadmin_secret = '{admin}'\n[api]\nadmin.listen = '127.0.0.1:0'\nlisten = '127.0.0.1:{port}'\nurl = '{url}'\n\
             database = 'sqlite:api.db'\nadmin_secret = '{admin}'\nrelay_secret = '{relay}'\n\
             key_encryption_key = '{kek}'\n",
            relay = SECRET.repeat(32),
            kek = "c3".repeat(32),
        ),
    );
    let line = ["--json", "--config", "api.toml", "api"];
    let mut api = Running::start(place.command(line), &place.path("api.log"));
    api.json();
    place.set("SKYTALE_CONFIG", "api.toml");
    place.set("SKYTALE_API_URL", &url);
    let account = place.json(&["account", "create", "acme"]);
    place.set("SKYTALE_API_KEY", text(&account["key"]["secret"]));
    (api, url)
}

/// A node that goes by a clock. Gives where its admin HTTP is, too.
fn relay(place: &Place, clock: &Clock, settings: &str, log: &str) -> (Running, String) {
    let line = ["--json", "--log", "warn", "--config", settings, "relay"];
    let mut node = Running::start(clock.for_command(place.command(line)), &place.path(log));
    let admin = text(&node.json()["admin"]);
    (node, admin)
}

fn remarks(admin: &str) -> Vec<String> {
    let (_, body) = get(admin, "/readyz");
    let report: Value = serde_json::from_str(&body).expect("JSON");
    let remarks = report["remarks"].as_array().expect("a list");
    remarks.iter().map(|remark| text(&remark["detail"])).collect()
}

/// In words: the clock and the time that runs are not read at the same moment.
const FORTY_DAYS: [&str; 2] = ["40 d 0 h", "39 d 23 h"];

#[test]
fn a_clock_that_leaps_forty_days_for_a_minute_takes_nothing_from_a_node_s_log() {
    let mut place = Place::new();
    let Some(clock) = Clock::right(place.path("clock")) else {
        return;
    };
    let (_api, url) = api(&mut place);
    place.write(
        "node.toml",
        &format!(
            "[relay]\ndata_dir = 'node'\nlisten = '127.0.0.1:0'\napi_url = '{url}'\nrelay_secret = '{}'\n\
             retention_s = 300\n[relay.admin]\nlisten = '127.0.0.1:0'\n[relay.store]\nsegment_bytes = 16384\n",
            SECRET.repeat(32),
        ),
    );
    let (node, admin) = relay(&place, &clock, "node.toml", "node.log");
    let [_, bob] = ["alice", "bob"].map(|agent| text(&run(&place, agent, &["init"])["agent"]));
    let channel = text(&run(&place, "alice", &["channel", "create", "plans"])["channel"]);
    run(&place, "alice", &["channel", "add", "plans", &bob]);
    let mut lines: Vec<String> = (0..300).map(|line| format!("{line} {}", "x".repeat(1_000))).collect();
    place.write("lines", &lines.join("\n"));
    run(
        &place,
        "alice",
        &["channel", "send", "plans", "--lines", "--file", "lines"],
    );
    let segments = || {
        std::fs::read_dir(place.path("node/log/segments"))
            .expect("a folder")
            .count()
    };
    let before = segments();
    assert!(before > 3, "{before}");
    eventually("nothing is remarked", || remarks(&admin).is_empty());

    clock.set("+40d");
    eventually("the leap is seen", || {
        metric(&admin, "skytale_store_clock_leap_seconds") > 39.0 * 86_400.0
    });
    let checks = metric(&admin, "skytale_store_retention_checks_total");
    // There is no other node, so this one goes on to serve.
    run(&place, "alice", &["channel", "send", "plans", "meanwhile"]);
    lines.push("meanwhile".to_owned());
    eventually("retention is enforced", || {
        metric(&admin, "skytale_store_retention_checks_total") > checks
    });
    assert_eq!(metric(&admin, "skytale_store_dropped_segments_total"), 0.0);
    assert!(segments() >= before);
    let remarked = remarks(&admin);
    assert!(
        remarked
            .iter()
            .any(|remark| remark.contains(" ahead") && FORTY_DAYS.iter().any(|days| remark.contains(days))),
        "{remarked:?}"
    );

    clock.set("+0");
    eventually("the clock is back", || {
        metric(&admin, "skytale_store_clock_leap_seconds") == 0.0
    });
    eventually("nothing is remarked", || remarks(&admin).is_empty());
    assert_eq!(node.stop("INT").0, 0);

    // A process that starts with a wrong clock goes by what was believed before.
    clock.set("+40d");
    let (node, admin) = relay(&place, &clock, "node.toml", "again.log");
    let remarked = remarks(&admin);
    assert!(
        remarked
            .iter()
            .any(|remark| remark.contains(" ahead") && FORTY_DAYS.iter().any(|days| remark.contains(days))),
        "{remarked:?}"
    );
    clock.set("+0");
    eventually("the clock is right", || remarks(&admin).is_empty());
    assert_eq!(unread(&place, "bob", &channel), lines);
    assert_eq!(node.stop("INT").0, 0);
}

/// An API with its operator's secret, and two enrolled nodes over a fleet's streams, each with a clock of its own.
struct Operated {
    place: Place,
    nodes: Vec<(Clock, String)>,
    _servers: Vec<Running>,
}

impl Operated {
    fn start() -> Option<Self> {
        let mut place = place();
        let clocks: Vec<Clock> = [1, 2]
            .into_iter()
            .filter_map(|number| Clock::right(place.path(&format!("clock-{number}"))))
            .collect();
        if clocks.is_empty() {
            return None;
        }
        let streams = fleet(&mut place, &["--nodes", "1"]);
        let (api, url) = api(&mut place);
        let (mut servers, mut nodes) = (vec![streams, api], Vec::new());
        for (number, clock) in clocks.into_iter().enumerate() {
            let secret = text(&place.json(&["relay", "enrol", &format!("node-{number}")])["secret"]);
            let file = format!("node-{number}.toml");
            let settings = settings(&place.path("fleet/relay-1/relay.toml"), number, &url, &secret);
            place.write(&file, &settings);
            let (node, admin) = relay(&place, &clock, &file, &format!("node-{number}.log"));
            nodes.push((clock, admin));
            servers.push(node);
        }
        Some(Self {
            place,
            nodes,
            _servers: servers,
        })
    }

    /// Returns the state of a node in the directory.
    fn state(&self, node: usize) -> String {
        let label = format!("node-{node}");
        let listed = self.place.json(&["relay", "fleet"]);
        let relays = listed["relays"].as_array().expect("a list");
        let relay = relays.iter().find(|relay| relay["label"] == label.as_str());
        relay.map_or_else(String::new, |relay| text(&relay["state"]))
    }
}

/// The settings of a node over the same streams as another one.
fn settings(of: &Path, number: usize, api: &str, secret: &str) -> String {
    let text = std::fs::read_to_string(of).expect("a relay node's settings");
    let mut settings: toml::Table = text.parse().expect("TOML");
    let relay = settings["relay"].as_table_mut().expect("a section");
    // Its port is that one's.
    relay.remove("https");
    let texts = [
        ("data_dir", format!("node-{number}")),
        ("listen", "127.0.0.1:0".into()),
        ("api_url", api.to_owned()),
        ("issuer", api.to_owned()),
        ("relay_secret", secret.to_owned()),
    ];
    relay.extend(texts.map(|(key, text)| (key.to_owned(), toml::Value::String(text))));
    settings.to_string()
}

#[test]
fn agents_leave_a_node_whose_clock_is_an_hour_off_and_it_comes_back_by_itself() {
    let Some(operated) = Operated::start() else {
        return;
    };
    let place = &operated.place;
    for node in [0, 1] {
        eventually("both are in the directory", || operated.state(node) == "live");
    }
    let [_, bob] = ["alice", "bob"].map(|agent| text(&run(place, agent, &["init"])["agent"]));
    let channel = text(&run(place, "alice", &["channel", "create", "plans"])["channel"]);
    run(place, "alice", &["channel", "add", "plans", &bob]);
    run(place, "bob", &["channel", "list"]);
    let line = [
        "--json",
        "channel",
        "tail",
        &channel,
        "--vault",
        "bob.vault",
        "--timeout-s",
        "120",
    ];
    let mut tail = Running::start(place.command(line), &place.path("tail.log"));
    run(place, "alice", &["channel", "send", "plans", "all clocks are right"]);
    assert_eq!(text(&tail.json()["text"]), "all clocks are right");
    let sessions = |node: usize| metric(&operated.nodes[node].1, "skytale_relay_sessions");

    for ahead in ["-1h", "+1h"] {
        // A command that has ended may still have a session for a moment.
        let mut here = None;
        eventually("bob is somewhere", || {
            here = match (sessions(0) > 0.0, sessions(1) > 0.0) {
                (true, false) => Some(0),
                (false, true) => Some(1),
                _ => None,
            };
            here.is_some()
        });
        let here = here.expect("somewhere");
        let (clock, admin) = &operated.nodes[here];
        clock.set(ahead);
        eventually("the node notices", || metric(admin, "skytale_relay_clock_wrong") > 0.0);
        let (status, body) = get(admin, "/readyz");
        // By the API's clock first, and by most of the fleet's when these were heard.
        let says = body.contains(r#""check":"clock""#) && body.contains("agents are sent to other nodes");
        assert!(status == "503" && says, "{status} {body}");
        eventually("the directory knows", || operated.state(here) == "draining");
        // Others work, and its agents go on elsewhere.
        let sent = format!("a clock is {ahead}");
        run(place, "alice", &["channel", "send", "plans", &sent]);
        assert_eq!(text(&tail.json()["text"]), sent);
        eventually("all have left", || sessions(here) == 0.0);
        eventually("the other one serves", || operated.state(1 - here) == "live");

        clock.set("+0");
        eventually("it is right again", || {
            get(admin, "/readyz").0 == "200" && operated.state(here) == "live"
        });
    }
}
