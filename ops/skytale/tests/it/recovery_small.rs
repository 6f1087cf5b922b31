//! Ways back that are short: keys that have expired, sends that failed, additions in part, goodbyes of the last ones.

use crate::node::{Node, text};
use crate::process::Ran;
use serde_json::{Value, json};
use skytale_sdk::{Agent, AgentConfig, ApiClient, ApiKey, VaultKey};
use std::time::{Duration, Instant};

/// Long enough for a slow machine; what takes longer hangs.
const HANGING: Duration = Duration::from_secs(120);

/// Runs an agent's command, however it ends.
fn run(node: &Node, name: &str, arguments: &[&str]) -> Ran {
    let vault = format!("{name}.vault");
    let line = ["--json"].iter().chain(arguments);
    let line: Vec<&str> = line.copied().chain(["--vault", &vault, "--timeout-s", "120"]).collect();
    node.place.run(line)
}

fn told(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {} {}", ran.stdout, ran.stderr))
}

fn code(ran: &Ran) -> (i32, String) {
    (ran.code, text(&ran.failure()["code"]))
}

/// An agent that has offered keys which have all expired, and is away.
fn expired(node: &Node, name: &str) -> String {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (vault, key) = (
        node.place.path(&format!("{name}.vault")),
        node.place.path(&format!("{name}.vault.key")),
    );
    let api_key = ApiKey::new(node.told["api_key"].as_str().expect("a key")).expect("a key");
    let url = node.told["api_url"].as_str().expect("a URL");
    runtime.block_on(async {
        let tokens = ApiClient::new(url, api_key).expect("a client");
        let mut config = AgentConfig::new(vault, VaultKey::file(key), tokens);
        config.engine.key_package_lifetime = Duration::ZERO;
        let agent = Agent::open(config).await.expect("opened");
        agent.connect().await.expect("a socket");
        agent.caught_up().await.expect("current");
        agent.close(Duration::from_secs(5)).await;
        agent.id().to_string()
    })
}

#[test]
fn an_agent_whose_keys_have_expired_is_named_at_once_and_added_once_it_was_online() {
    let node = Node::start("warn");
    node.join("alice");
    let away = expired(&node, "away");
    node.agent("alice", &["channel", "create", "plans"]);
    let ran = run(&node, "alice", &["channel", "add", "plans", &away]);
    assert_eq!(code(&ran), (6, "SKY-5018".into()), "{}", ran.stderr);
    let failure = ran.failure();
    let why = failure["why"].to_string();
    assert!(why.contains(&away) && why.contains("come online"), "{failure}");
    assert!(
        failure["help"]
            .as_str()
            .is_some_and(|help| help.contains("skytale init")),
        "{failure}"
    );

    // It was online in the meantime: 50 that have expired are skipped or gone, in one call.
    expired(&node, "away");
    node.agent("away", &["init"]);
    let added = node.agent("alice", &["channel", "add", "plans", &away]);
    assert_eq!((&added["change"], &added["agents"]), (&json!("added"), &json!([away])));
    let listed = node.agent("away", &["channel", "list"]);
    assert_eq!(listed["channels"][0]["state"], "active");
}

#[test]
fn those_who_can_be_added_are_added_and_the_others_are_named() {
    let node = Node::start("warn");
    node.join("alice");
    let (bob, carol) = (node.join("bob"), node.join("carol"));
    let stranger = "ab".repeat(32);
    node.agent("alice", &["channel", "create", "plans"]);
    let ran = run(&node, "alice", &["channel", "add", "plans", &bob, &stranger, &carol]);
    assert_eq!(code(&ran), (8, "SKY-1010".into()), "{}", ran.stderr);
    assert_eq!(ran.failure()["exit"], 8);
    assert!(ran.failure()["why"].to_string().contains(&stranger), "{}", ran.stderr);
    let added = told(&ran);
    assert_eq!(added["agents"], json!([bob, carol]));
    assert_eq!(added["refused"].as_array().map(Vec::len), Some(1));
    let refused = &added["refused"][0];
    assert_eq!(
        (&refused["agent"], &refused["code"], &refused["retryable"]),
        (&json!(stranger), &json!("SKY-1010"), &json!(true))
    );
    let members = node.agent("alice", &["channel", "members", "plans"]);
    assert_eq!(members["members"].as_array().map(Vec::len), Some(3));
    assert_eq!(
        node.agent("bob", &["channel", "list"])["channels"][0]["state"],
        "active"
    );

    // None of several: each is named, and nothing was done.
    let other = "cd".repeat(32);
    let ran = run(&node, "alice", &["channel", "add", "plans", &stranger, &other]);
    assert_eq!(code(&ran), (5, "SKY-1010".into()), "{}", ran.stderr);
    let why = ran.failure()["why"].to_string();
    assert!(why.contains(&stranger) && why.contains(&other), "{why}");
    assert!(ran.stdout.is_empty(), "{}", ran.stdout);
    // For a person, too.
    let ran = node.place.run([
        "channel",
        "add",
        "plans",
        &stranger,
        &other,
        "--vault",
        "alice.vault",
        "--timeout-s",
        "120",
    ]);
    assert!(
        ran.stderr.contains(&stranger) && ran.stderr.contains("skytale init"),
        "{}",
        ran.stderr
    );
}

#[test]
fn what_failed_is_listed_with_its_reason_until_it_is_dropped_or_sent_again() {
    let node = Node::start("warn");
    let bob = (node.join("alice"), node.join("bob")).1;
    let channel = text(&node.agent("alice", &["channel", "create", "plans"])["channel"]);
    node.agent("alice", &["channel", "add", "plans", &bob]);
    node.agent("bob", &["channel", "list"]);
    let mut ids = Vec::new();
    for word in ["one", "two", "three"] {
        let queued = node.agent("bob", &["channel", "send", &channel, word, "--queue"]);
        ids.push(text(&queued["messages"][0]["frame_id"]));
    }
    // A waiting message can be neither dropped nor sent again.
    let ran = run(&node, "bob", &["channel", "outbox", "drop", &ids[0]]);
    assert_eq!(code(&ran), (5, "SKY-4004".into()), "{}", ran.stderr);
    assert!(
        ran.failure()["help"]
            .as_str()
            .is_some_and(|help| help.contains("waits")),
        "{}",
        ran.stderr
    );

    node.agent("alice", &["channel", "remove", "plans", &bob]);
    let listed = node.agent("bob", &["channel", "list"]);
    assert_eq!(
        (&listed["channels"][0]["state"], &listed["channels"][0]["failed"]),
        (&json!("left"), &json!(3))
    );
    let ran = node.place.run(["channel", "list", "--offline", "--vault", "bob.vault"]);
    assert!(
        ran.stdout.contains("3 sends failed: `skytale channel outbox`"),
        "{}",
        ran.stdout
    );
    let outbox = node.agent("bob", &["channel", "outbox"]);
    assert_eq!(outbox["outbox"], json!([]));
    let failed = outbox["failed"].as_array().expect("a list");
    let listed: Vec<_> = failed.iter().map(|row| text(&row["frame_id"])).collect();
    assert_eq!(listed, ids);
    for row in failed {
        assert_eq!(
            (&row["channel"], &row["kind"], &row["code"]),
            (&json!(channel), &json!("message"), &json!("SKY-5007"))
        );
        assert!(row["failed_ms"].is_u64() && row["help"].is_string(), "{row}");
    }
    assert_eq!(node.agent("bob", &["channel", "outbox", &channel]), outbox);
    let ran = node.place.run(["channel", "outbox", "--vault", "bob.vault"]);
    assert!(
        ran.stdout.contains(&ids[0]) && ran.stdout.contains("SKY-5007 ChannelLeft"),
        "{}",
        ran.stdout
    );

    // If the channel is left it says why it cannot, and keeps it.
    let ran = run(&node, "bob", &["channel", "outbox", "retry", &ids[0]]);
    assert_eq!(code(&ran), (4, "SKY-5007".into()), "{}", ran.stderr);
    node.agent("alice", &["channel", "add", "plans", &bob]);
    node.agent("bob", &["channel", "list"]);
    let again = node.agent("bob", &["channel", "outbox", "retry", &ids[0]]);
    let again = &again["messages"][0];
    assert_eq!((&again["before"], &again["state"]), (&json!(ids[0]), &json!("queued")));
    node.agent("bob", &["channel", "send", &channel, "last"]);
    assert_eq!(node.read("alice", &["plans"]), ["one", "last"]);

    let dropped = node.agent("bob", &["channel", "outbox", "drop", &ids[1]]);
    assert_eq!(dropped["dropped"][0]["frame_id"], json!(ids[1]));
    let dropped = node.agent("bob", &["channel", "outbox", "drop", "--all"]);
    assert_eq!(dropped["dropped"].as_array().map(Vec::len), Some(1));
    let outbox = node.agent("bob", &["channel", "outbox"]);
    assert_eq!(outbox["failed"], json!([]));
    let ran = run(&node, "bob", &["channel", "outbox", "retry", &ids[2]]);
    assert_eq!(code(&ran), (5, "SKY-4004".into()), "{}", ran.stderr);
    let ran = node.place.run(["channel", "outbox", "drop", "--vault", "bob.vault"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
}

/// A channel that nobody has to govern, so that its last admin may leave.
fn everybodys(node: &Node, label: &str) -> String {
    let rights = ["remove=members", "trim=members", "policy=members"];
    let mut create = vec!["channel", "create", label];
    create.extend(rights.iter().flat_map(|right| ["--policy", *right]));
    text(&node.agent("alice", &create)["channel"])
}

#[test]
fn the_last_ones_to_leave_are_gone_at_once() {
    let node = Node::start("warn");
    let bob = (node.join("alice"), node.join("bob")).1;
    let state = |name: &str, channel: &str| {
        let listed = node.agent(name, &["channel", "list"]);
        let rows = listed["channels"].as_array().expect("a list");
        let row = rows.iter().find(|row| row["channel"] == channel);
        text(&row.expect("the channel")["state"])
    };
    // The only member.
    let channel = text(&node.agent("alice", &["channel", "create", "alone"])["channel"]);
    node.agent("alice", &["channel", "send", "alone", "a note", "--queue"]);
    let left = node.agent("alice", &["channel", "leave", "alone"]);
    assert_eq!(
        (&left["change"], &left["state"], &left["needed"]),
        (&json!("left"), &json!("left"), &json!(true))
    );
    assert_eq!(state("alice", &channel), "left");

    // Two, one after the other, each away when the other does it.
    let channel = everybodys(&node, "two");
    node.agent("alice", &["channel", "add", &channel, &bob]);
    node.agent("bob", &["channel", "list"]);
    let left = node.agent("alice", &["channel", "leave", &channel]);
    assert_eq!(left["state"], "leaving");
    let left = node.agent("bob", &["channel", "leave", &channel]);
    assert_eq!(left["state"], "left");
    assert_eq!(
        (state("alice", &channel), state("bob", &channel)),
        ("left".into(), "left".into())
    );

    // Two at one moment.
    let channel = everybodys(&node, "both");
    node.agent("alice", &["channel", "add", &channel, &bob]);
    node.agent("bob", &["channel", "list"]);
    std::thread::scope(|scope| {
        let leaving = ["alice", "bob"].map(|name| {
            let (node, channel) = (&node, &channel);
            scope.spawn(move || node.agent(name, &["channel", "leave", channel]))
        });
        for left in leaving {
            let left = left.join().expect("left");
            assert!(left["state"] == "left" || left["state"] == "leaving", "{left}");
        }
    });
    assert_eq!(
        (state("alice", &channel), state("bob", &channel)),
        ("left".into(), "left".into())
    );
    for name in ["alice", "bob"] {
        let outbox = node.agent(name, &["channel", "outbox", &channel]);
        assert_eq!(
            (&outbox["outbox"], &outbox["failed"]),
            (&json!([]), &json!([])),
            "{name}"
        );
    }
}

#[test]
fn who_has_no_keys_yet_is_added_later_if_that_is_wanted() {
    let node = Node::start("warn");
    let bob = (node.join("alice"), node.join("bob")).1;
    let stranger = "ab".repeat(32);
    let channel = text(&node.agent("alice", &["channel", "create", "plans"])["channel"]);
    // An identity that was never online.
    let late = text(&node.agent("late", &["init", "--offline"])["agent"]);
    let added = node.agent("alice", &["channel", "add", "plans", "--later", &bob, &late, &stranger]);
    let mut by_id = [&late, &stranger];
    by_id.sort_unstable();
    assert_eq!(
        (&added["agents"], &added["deferred"], &added["refused"]),
        (&json!([bob]), &json!(by_id), &json!([]))
    );
    let deferred = node.agent("alice", &["channel", "outbox"])["deferred"].clone();
    let waiting: Vec<_> = deferred
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| text(&row["agent"]))
        .collect();
    assert!(
        waiting.len() == 2 && waiting.contains(&late) && waiting.contains(&stranger),
        "{deferred}"
    );
    let cancelled = node.agent("alice", &["channel", "remove", "plans", &stranger]);
    assert_eq!(cancelled["needed"], true);

    // It comes online, then alice does, whatever for.
    node.agent("late", &["init"]);
    let begun = Instant::now();
    loop {
        node.agent("alice", &["channel", "list"]);
        let deferred = node.agent("alice", &["channel", "outbox"])["deferred"].clone();
        if deferred == json!([]) {
            break;
        }
        // A claim has some seconds; the next command tries again.
        assert!(begun.elapsed() < HANGING, "{deferred}");
    }
    let listed = node.agent("late", &["channel", "list"]);
    assert_eq!(
        (&listed["channels"][0]["channel"], &listed["channels"][0]["state"]),
        (&json!(channel), &json!("active"))
    );
}
