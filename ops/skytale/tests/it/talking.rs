//! Both directions at once: `chat` for a person, `pipe` for a program.

use crate::node::{Node, text};
use crate::process::{Ran, Running};
use serde_json::{Value, json};

/// A node, and alice and bob in a channel. Gives the channel's id.
fn plans() -> (Node, String) {
    let node = Node::start("warn");
    let bob = (node.join("alice"), node.join("bob")).1;
    let channel = text(&node.agent("alice", &["channel", "create", "plans"])["channel"]);
    node.agent("alice", &["channel", "add", "plans", &bob]);
    (node, channel)
}

fn run(node: &Node, name: &str, line: &[&str], stdin: &str) -> Ran {
    let vault = format!("{name}.vault");
    let rest = ["--vault", &vault, "--timeout-s", "120"];
    node.place.run_with(line.iter().chain(&rest), stdin.as_bytes())
}

fn lines(ran: &Ran) -> Vec<Value> {
    let json = |line| serde_json::from_str(line).expect("JSON");
    ran.stdout.lines().map(json).collect()
}

#[test]
fn a_conversation_ends_when_all_that_was_typed_is_delivered() {
    let (node, channel) = plans();
    let ran = run(&node, "alice", &["chat", "plans"], "hello\n\nare you there?\n");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{}", ran.stderr);
    // Bob has read it when he answers, and it does not come again.
    let ran = run(&node, "bob", &["channel", "chat", &channel], "here I am\n");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let shown: Vec<&str> = ran.stdout.lines().collect();
    assert!(
        shown.len() == 2 && shown[0].ends_with("  hello") && shown[1].ends_with("  are you there?"),
        "{}",
        ran.stdout
    );
    assert!(node.read("bob", &[&channel, "--unread"]).is_empty());
    assert_eq!(node.read("alice", &["plans"]), ["hello", "are you there?", "here I am"]);
}

#[test]
fn two_in_a_conversation_see_each_other_while_both_go_on() {
    let (node, channel) = plans();
    let mut alice = talker(
        &node,
        &[
            "--json",
            "chat",
            "plans",
            "--vault",
            "alice.vault",
            "--timeout-s",
            "120",
        ],
        "a.log",
    );
    let mut bob = talker(
        &node,
        &["--json", "chat", &channel, "--vault", "bob.vault", "--timeout-s", "120"],
        "b.log",
    );
    alice.say("one\n");
    assert_eq!(text(&bob.json()["text"]), "one");
    bob.say("two\n");
    assert_eq!(text(&alice.json()["text"]), "two");
    alice.say("three\n");
    assert_eq!(text(&bob.json()["text"]), "three");
    for talker in [alice, bob] {
        let (code, rest) = talker.hang_up();
        assert_eq!((code, rest.as_str()), (0, ""));
    }
}

fn talker(node: &Node, line: &[&str], log: &str) -> Running {
    Running::start_with_stdin(node.place.command(line), &node.place.path(log))
}

#[test]
fn a_program_sends_and_gets_json_lines_and_each_line_is_answered() {
    let (node, channel) = plans();
    let input = "{\"text\":\"one\",\"id\":\"a\"}\n{\"base64\":\"/w==\"}\n\nnonsense\n{\"text\":\"one\",\"id\":\"a\"}\n{\"ack\":1}\n";
    let ran = run(&node, "alice", &["pipe", "plans"], input);
    assert_eq!(ran.code, 8, "two lines cannot be used: {}", ran.stderr);
    let told = lines(&ran);
    let of = |kind: &str| -> Vec<&Value> { told.iter().filter(|line| line["type"] == kind).collect() };
    let refused: Vec<_> = of("refused").iter().map(|line| line["line"].clone()).collect();
    assert_eq!(refused, [json!(4), json!(6)]);
    assert!(of("refused").iter().all(|line| line["code"] == "SKY-6004"));
    let delivered = of("delivered");
    assert_eq!(delivered.len(), 3, "{}", ran.stdout);
    let named: Vec<_> = delivered.iter().filter(|line| line["id"] == "a").collect();
    assert_eq!(named.len(), 2);
    assert_eq!(named[0]["frame_id"], named[1]["frame_id"], "one id is one message");

    // Sent again by a program that was killed: still one message.
    let again = run(&node, "alice", &["pipe", "plans"], "{\"text\":\"one\",\"id\":\"a\"}\n");
    assert_eq!(lines(&again)[0]["offset"], named[0]["offset"], "{}", again.stderr);
    let got = run(&node, "bob", &["pipe", &channel], "{\"text\":\"thanks\"}\n");
    assert_eq!(got.code, 0, "{}", got.stderr);
    let told = lines(&got);
    let messages: Vec<_> = told.iter().filter(|line| line["type"] == "message").collect();
    assert_eq!(messages.len(), 2, "{}", got.stdout);
    assert_eq!(
        (&messages[0]["text"], &messages[0]["base64"]),
        (&json!("one"), &json!(null))
    );
    assert_eq!(
        (&messages[1]["text"], &messages[1]["base64"]),
        (&json!(null), &json!("/w=="))
    );
    assert!(
        node.read("bob", &[&channel, "--unread"]).is_empty(),
        "what was written is read"
    );
}

#[test]
fn a_program_that_acknowledges_itself_gets_again_what_it_has_not_dealt_with() {
    let (node, channel) = plans();
    for word in ["one", "two"] {
        node.agent("alice", &["send", "plans", word]);
    }
    let line = ["pipe", &channel, "--acks", "--vault", "bob.vault", "--timeout-s", "120"];
    let mut bob = talker(&node, &line, "bob.log");
    let first = bob.json();
    assert_eq!(text(&first["text"]), "one");
    assert_eq!(text(&bob.json()["text"]), "two");
    bob.say(&format!("{{\"ack\":{}}}\n", first["offset"]));
    // In its order: when this is delivered, that is done.
    bob.say("{\"text\":\"done\"}\n");
    while bob.json()["type"] != "delivered" {}
    bob.kill();
    let mut again = talker(&node, &line, "again.log");
    assert_eq!(text(&again.json()["text"]), "two", "{}", again.stderr());
    // Killed before it has dealt with it.
    again.kill();
    assert_eq!(node.read("bob", &[&channel, "--unread"]), ["two"]);
}
