//! Names: of channels, of agents, and what they must not be taken for.

use crate::node::{Node, text};
use crate::process::Ran;
use serde_json::json;

fn run(node: &Node, name: &str, line: &[&str]) -> Ran {
    let vault = format!("{name}.vault");
    let rest = ["--json", "--vault", &vault, "--timeout-s", "120"];
    node.place.run(line.iter().chain(&rest))
}

fn labels(node: &Node, name: &str) -> Vec<String> {
    let listed = node.agent(name, &["channel", "list", "--offline"]);
    let rows = listed["channels"].as_array().expect("a list");
    rows.iter().map(|row| text(&row["label"])).collect()
}

#[test]
fn a_channel_whose_name_is_refused_is_not_left_behind() {
    let node = Node::start("warn");
    node.join("alice");
    node.agent("alice", &["channel", "create", "plans", "--name", "dev/demo/plans"]);
    // Taken: seen before anything is made. Of another org: refused when it is given.
    for (name, code) in [("dev/demo/plans", "SKY-4005"), ("other/demo/plans", "SKY-4001")] {
        let ran = run(&node, "alice", &["channel", "create", "second", "--name", name]);
        assert_eq!(ran.failure()["code"], code, "{}", ran.stderr);
        assert!(
            text(&ran.failure()["help"]).contains("Nothing was made"),
            "{}",
            ran.stderr
        );
        assert_eq!(labels(&node, "alice"), ["plans"]);
    }
    node.agent("alice", &["channel", "create", "second", "--name", "dev/demo/second"]);
    assert_eq!(labels(&node, "alice"), ["plans", "second"]);
}

#[test]
fn a_channel_that_was_left_can_be_forgotten_and_joined_again() {
    let node = Node::start("warn");
    let bob = (node.join("alice"), node.join("bob")).1;
    let channel = text(&node.agent("alice", &["channel", "create", "plans"])["channel"]);
    node.agent("alice", &["channel", "add", "plans", &bob]);
    node.agent("alice", &["send", "plans", "one"]);
    assert_eq!(node.read("bob", &[&channel]), ["one"]);
    let ran = run(&node, "bob", &["channel", "forget", &channel]);
    assert_eq!(
        (ran.code, &ran.failure()["code"]),
        (2, &json!("SKY-5023")),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("skytale channel leave"), "{}", ran.stderr);
    node.agent("alice", &["channel", "remove", "plans", &bob]);
    node.agent("bob", &["channel", "list"]);
    let ran = run(&node, "bob", &["channel", "forget", &channel]);
    assert_eq!(ran.code, 2, "it has an unread message: {}", ran.stderr);
    let forgotten = node.agent("bob", &["channel", "forget", &channel, "--force"]);
    assert_eq!(forgotten["forgotten"], json!(channel));
    assert!(labels(&node, "bob").is_empty());
    let ran = run(&node, "bob", &["channel", "forget", &channel]);
    assert_eq!(ran.code, 5, "{}", ran.stderr);

    node.agent("alice", &["channel", "add", "plans", &bob]);
    node.agent("alice", &["send", "plans", "two"]);
    assert_eq!(node.read("bob", &[&channel]), ["two"]);
}

#[test]
fn a_label_that_could_mean_another_channel_is_refused_unless_it_is_forced() {
    let node = Node::start("warn");
    node.join("alice");
    let channel = text(&node.agent("alice", &["channel", "create", "plans"])["channel"]);
    let beginning = &channel[..5];
    for label in ["plans", "Plans", "p\u{4cf}ans", beginning] {
        let ran = run(&node, "alice", &["channel", "create", label]);
        assert_eq!(
            (ran.code, &ran.failure()["code"]),
            (2, &json!("SKY-6004")),
            "{label}: {}",
            ran.stderr
        );
        assert!(ran.stderr.contains("--force"), "{}", ran.stderr);
    }
    assert_eq!(labels(&node, "alice"), ["plans"]);
    node.agent("alice", &["channel", "create", "Plans", "--force"]);

    // One name in two forms of Unicode is one name.
    node.agent("alice", &["channel", "create", "Zoe\u{308}"]);
    let ran = run(&node, "alice", &["channel", "create", "Zo\u{eb}"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    for form in ["Zoe\u{308}", "Zo\u{eb}"] {
        node.agent("alice", &["send", form, "hello"]);
    }
    let ran = run(&node, "alice", &["channel", "label", "plans", "Zo\u{eb}"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);

    let ran = run(&node, "alice", &["send", "plnas", "hello"]);
    assert_eq!(ran.code, 5, "{}", ran.stderr);
    assert!(
        text(&ran.failure()["help"]).contains("Did you mean `plans`?"),
        "{}",
        ran.stderr
    );
    let ran = run(&node, "alice", &["send", "dev/no/such", "hello"]);
    assert_eq!(
        (ran.code, &ran.failure()["code"]),
        (5, &json!("SKY-5006")),
        "{}",
        ran.stderr
    );
}

#[test]
fn an_agent_has_a_name_wherever_its_id_is_taken_or_shown() {
    let node = Node::start("warn");
    let (alice, bob) = (node.join("alice"), node.join("bob"));
    let added = node.agent("alice", &["contact", "add", "bob", &bob]);
    assert_eq!((&added["name"], &added["agent"]), (&json!("bob"), &json!(bob)));
    node.agent("bob", &["contact", "add", "alice", &alice]);
    let channel = text(&node.agent("alice", &["channel", "create", "plans"])["channel"]);
    let changed = node.agent("alice", &["channel", "add", "plans", "bob"]);
    assert_eq!(
        (&changed["agents"], &changed["names"]),
        (&json!([bob]), &json!({ &bob: "bob" }))
    );
    node.agent("alice", &["send", "plans", "hello"]);

    let shown = node
        .place
        .run(["read", &channel, "--vault", "bob.vault", "--timeout-s", "120"]);
    let beside = format!("alice ({})", &alice[..16]);
    assert!(shown.stdout.contains(&beside), "{}", shown.stdout);
    let read = run(&node, "bob", &["read", &channel]);
    assert!(read.stdout.contains("\"author_name\":\"alice\""), "{}", read.stdout);
    let members = node.agent("bob", &["channel", "members", &channel]);
    assert_eq!(members["names"], json!({ &alice: "alice" }));

    // A name that could be another's is not taken, and neither is one that lies about an id.
    for name in ["b\u{43e}b", "Bob", "me", "bob (0123456789abcdef)", &bob[..12], ""] {
        let ran = run(&node, "alice", &["contact", "add", name, &"cd".repeat(32)]);
        assert_eq!(ran.code, 2, "{name}: {}", ran.stderr);
    }
    let ran = run(&node, "alice", &["channel", "remove", "plans", "bbo"]);
    assert_eq!(ran.code, 5, "{}", ran.stderr);
    assert!(ran.stderr.contains("Did you mean `bob`?"), "{}", ran.stderr);

    // By the digits that are shown of it, and not oneself.
    let ran = run(&node, "alice", &["channel", "remove", "plans", &alice[..16]]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("skytale channel leave"), "{}", ran.stderr);
    node.agent("alice", &["channel", "remove", "plans", &bob[..16]]);
    let listed = node.agent("alice", &["contact", "list"]);
    assert_eq!(listed["contacts"], json!([{"name": "bob", "agent": bob}]));
    node.agent("alice", &["contact", "remove", "bob"]);
    assert_eq!(node.agent("alice", &["contact", "list"])["contacts"], json!([]));
    let ran = run(&node, "alice", &["contact", "remove", "bob"]);
    assert_eq!(ran.code, 5, "{}", ran.stderr);
}

#[test]
fn the_accounts_agents_are_listed_and_one_is_ended_for_good() {
    let node = Node::start("warn");
    let (alice, bob) = (node.join("alice"), node.join("bob"));
    node.agent("alice", &["contact", "add", "bob", &bob]);
    let listed = node.agent("alice", &["agents", "list"]);
    let rows = listed["agents"].as_array().expect("a list");
    let row = |id: &str| rows.iter().find(|row| row["id"] == id).expect("listed");
    assert_eq!(
        (&row(&bob)["name"], &row(&alice)["name"]),
        (&json!("bob"), &json!(null))
    );

    let ran = run(&node, "alice", &["agents", "end", "bob"]);
    assert_eq!(ran.code, 2, "not without a word: {}", ran.stderr);
    let ended = node.agent("alice", &["agents", "end", "bob", "--yes"]);
    assert_eq!(ended["ended"], json!(bob));
    let ran = run(&node, "bob", &["channel", "list"]);
    assert_eq!(
        (ran.code, &ran.failure()["code"]),
        (4, &json!("SKY-4016")),
        "{}",
        ran.stderr
    );
    let ran = run(&node, "alice", &["agents", "end", &"ef".repeat(32), "--yes"]);
    assert_eq!(ran.code, 5, "{}", ran.stderr);

    let audit = node.agent("alice", &["audit", "--limit", "3"]);
    let events = audit["events"].as_array().expect("a list");
    assert_eq!(events.len(), 3);
    let target = format!("agent:{bob}");
    assert!(
        events
            .iter()
            .any(|event| event["action"] == "agent.end" && event["target"] == target.as_str()),
        "{audit}"
    );
    let older = node.agent("alice", &["audit", "--limit", "1", "--before", &text(&audit["next"])]);
    assert!(older["events"][0]["id"].as_str() < events[2]["id"].as_str(), "{older}");
}

#[test]
fn a_reader_begins_where_its_options_say_and_marks_nothing_as_read_by_itself() {
    let node = Node::start("warn");
    let bob = (node.join("alice"), node.join("bob")).1;
    let channel = text(&node.agent("alice", &["channel", "create", "plans"])["channel"]);
    node.agent("alice", &["channel", "add", "plans", &bob]);
    for word in ["one", "two", "three", "four"] {
        node.agent("alice", &["send", "plans", word]);
    }
    let all = run(&node, "bob", &["read", &channel]);
    assert!(
        all.stderr.contains("4 messages stay unread") && all.stderr.contains("--ack"),
        "{}",
        all.stderr
    );
    let first: serde_json::Value = serde_json::from_str(all.stdout.lines().next().expect("a line")).expect("JSON");
    let third = (first["offset"].as_u64().expect("an offset") + 2).to_string();
    let read = |arguments: &[&str]| node.read("bob", &[&[channel.as_str(), "--offline"], arguments].concat());
    assert_eq!(read(&["--last", "2"]), ["three", "four"]);
    assert_eq!(read(&["--from", &third]), ["three", "four"]);
    assert_eq!(read(&["--after", &third]), ["four"]);
    assert_eq!(read(&["--since", "1h"]), ["one", "two", "three", "four"]);
    assert!(read(&["--last", "0"]).is_empty());

    // Messages before the shown ones are not marked with them.
    let ran = run(&node, "bob", &["read", &channel, "--last", "1", "--ack"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert_eq!(read(&["--limit", "1", "--ack"]), ["one"]);
    let tail = run(&node, "bob", &["tail", &channel, "--last", "2", "--count", "2"]);
    assert_eq!(tail.stdout.lines().count(), 2, "{}", tail.stdout);
    assert!(tail.stderr.contains("nothing is marked as read"), "{}", tail.stderr);
    let unread = || node.agent("bob", &["channel", "list"])["channels"][0]["unread"].clone();
    assert_eq!(unread(), json!(3));
    let tail = run(&node, "bob", &["tail", &channel, "--since", "1h", "--count", "4"]);
    assert_eq!(tail.stdout.lines().count(), 4, "{}", tail.stdout);
    assert_eq!(unread(), json!(0));
    for wrong in [
        &["--last", "1", "--from", "2"] as &[&str],
        &["--since", "yesterday"],
        &["--unread", "--last", "1"],
    ] {
        let ran = run(&node, "bob", &[&["read", channel.as_str()], wrong].concat());
        assert_eq!(ran.code, 2, "{wrong:?}: {}", ran.stderr);
    }
}
