//! Behaviour of `send` if the node is down, if it is asked twice, and if its keys are no longer good.

use crate::node::{ANY_PORT, Node, text};
use crate::process::{Place, Ran, Running};
use serde_json::{Value, json};

/// A node, and alice and bob in a channel `plans`. Gives bob's id and the channel's.
fn plans() -> (Node, String, String) {
    let node = Node::start("warn");
    let bob = (node.join("alice"), node.join("bob")).1;
    let channel = text(&node.agent("alice", &["channel", "create", "plans"])["channel"]);
    node.agent("alice", &["channel", "add", "plans", &bob]);
    (node, bob, channel)
}

/// A node that has ended: nothing listens where it was. Gives the place of its agents.
fn ended(node: Node) -> Place {
    let Node { place, running, .. } = node;
    running.stop("TERM");
    place
}

fn alice(place: &Place, arguments: &[&str]) -> Ran {
    let (command, rest) = arguments.split_first().expect("a command");
    place.run(["--json", command, "--vault", "alice.vault"].iter().chain(rest))
}

fn outbox(place: &Place) -> Vec<Value> {
    let told = place.json(&["channel", "outbox", "--vault", "alice.vault"]);
    told["outbox"].as_array().expect("a list").clone()
}

#[test]
fn a_dash_is_standard_input_and_no_more_of_it_is_read_than_may_be_sent() {
    let (node, _, channel) = plans();
    let vault = ["--vault", "alice.vault", "--timeout-s", "120"];
    for (line, sent) in [
        (&["send", "plans", "-"] as &[&str], "from stdin\n"),
        (&["channel", "send", "plans"], "without a dash"),
        (&["send", "plans", "-", "--lines"], "one\ntwo\n"),
    ] {
        let ran = node.place.run_with(line.iter().chain(&vault), sent.as_bytes());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }
    // A message that begins with a dash, or is one.
    let send = ["send", "plans"];
    let ran = node.place.run(send.iter().chain(&vault).chain(&["--", "-x"]));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let expected = ["from stdin\n", "without a dash", "one", "two", "-x"];
    assert_eq!(node.read("bob", &[&channel]), expected);
    let ran = node.place.run(send.iter().chain(&["text", "--lines"]).chain(&vault));
    assert_eq!(ran.code, 2, "{}", ran.stderr);
}

#[test]
fn a_message_that_waits_for_the_node_has_an_exit_code_of_its_own_and_is_not_waited_for() {
    let (node, _, _) = plans();
    let place = ended(node);
    // As long as a command may wait it would wait here, if it did not see that nothing listens.
    let ran = alice(&place, &["send", "plans", "kept"]);
    assert_eq!(
        (ran.code, &ran.failure()["code"]),
        (9, &json!("SKY-5009")),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.failure()["retryable"], false, "a repeated command would send twice");
    let help = text(&ran.failure()["help"]);
    assert!(
        help.contains("do not send it again") && help.contains("skytale dev"),
        "{help}"
    );
    assert!(ran.stdout.contains("\"queued\""), "{}", ran.stdout);
    assert_eq!(outbox(&place).len(), 1);

    // Nothing is left where that was asked for, and the exit code says that trying again can help.
    let ran = alice(&place, &["send", "plans", "not kept", "--no-queue"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (6, ""), "{}", ran.stderr);
    assert_eq!(ran.failure()["retryable"], true);
    let help = text(&ran.failure()["help"]);
    assert!(help.contains("Nothing was queued"), "{help}");
    assert_eq!(outbox(&place).len(), 1);

    // As a person reads it.
    let ran = place.run(["send", "plans", "more", "--vault", "alice.vault"]);
    assert_eq!(ran.code, 9);
    assert!(ran.stdout.starts_with("queued "), "{}", ran.stdout);
    assert!(ran.stderr.contains("the node is not running"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("trying again can help"), "{}", ran.stderr);
}

#[test]
fn one_id_is_one_message_however_often_it_is_sent() {
    let (node, _, channel) = plans();
    let first = node.agent("alice", &["send", "plans", "pay", "--id", "order-17"]);
    let again = node.agent("alice", &["send", "plans", "pay", "--id", "order-17"]);
    assert_eq!(first, again);
    node.agent("alice", &["send", "plans", "pay", "--id", "order-18"]);
    let ran = alice(&node.place, &["send", "plans", "pay more", "--id", "order-17"]);
    assert_eq!(ran.failure()["code"], "SKY-5022", "{}", ran.stderr);
    assert_eq!(node.read("bob", &[&channel]), ["pay", "pay"]);

    // Also where the script does not know whether the first time did anything.
    let told = node.told.clone();
    let place = ended(node);
    for _ in 0..3 {
        let ran = alice(&place, &["send", "plans", "late", "--id", "order-19"]);
        assert_eq!(ran.code, 9, "{}", ran.stderr);
    }
    assert_eq!(outbox(&place).len(), 1);
    let api = text(&told["api_url"]).trim_start_matches("http://").to_owned();
    let mut line = vec!["--json", "dev", "--dir", "node", "--api-listen", &api];
    line.extend(&ANY_PORT[2..]);
    let mut running = Running::start(place.command(line), &place.path("again.log"));
    running.json();
    let sent = place.json(&[
        "send",
        "plans",
        "late",
        "--id",
        "order-19",
        "--vault",
        "alice.vault",
        "--timeout-s",
        "120",
    ]);
    assert_eq!(sent["messages"][0]["state"], "delivered", "{sent}");
    let bob = ["read", &channel, "--json", "--vault", "bob.vault", "--timeout-s", "120"];
    let read = place.run(bob);
    assert_eq!(read.stdout.matches("\"late\"").count(), 1, "{}", read.stdout);
}

#[test]
fn a_new_agent_without_a_node_learns_what_to_do_and_nothing_about_messages() {
    let node = Node::start("warn");
    let place = ended(node);
    let ran = place.run(["init", "--vault", "new.vault"]);
    assert_eq!(ran.code, 6, "{}", ran.stderr);
    for part in ["skytale dev", "new.vault is made", "`skytale init` again"] {
        assert!(ran.stderr.contains(part), "no {part}: {}", ran.stderr);
    }
    assert!(
        !ran.stderr.contains("outbox") && !ran.stderr.contains("sent"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_tail_waits_for_the_node_and_says_so() {
    let (node, _, channel) = plans();
    node.agent("bob", &["channel", "list"]);
    let told = node.told.clone();
    let place = ended(node);
    let line = ["--json", "tail", &channel, "--vault", "bob.vault", "--count", "1"];
    let mut tail = Running::start(place.command(line), &place.path("tail.log"));
    tail.wait_for_stderr("waiting for the node");
    let api = text(&told["api_url"]).trim_start_matches("http://").to_owned();
    let mut line = vec!["--json", "dev", "--dir", "node", "--api-listen", &api];
    line.extend(&ANY_PORT[2..]);
    let mut running = Running::start(place.command(line), &place.path("again.log"));
    running.json();
    place.json(&["send", "plans", "hello", "--vault", "alice.vault", "--timeout-s", "120"]);
    assert_eq!(text(&tail.json()["text"]), "hello");
}

#[test]
fn a_key_whose_time_is_over_is_called_so_and_refused() {
    let (mut node, _, _) = plans();
    let created = node.place.json(&["key", "create", "--expires-in-s", "1"]);
    node.place.set("SKYTALE_API_KEY", text(&created["secret"]));
    // It lives for a second.
    while node.place.run(["--json", "key", "list"]).failure()["code"] != "SKY-4017" {}
    for line in [&["channel", "list"] as &[&str], &["key", "list"]] {
        let ran = node.place.run(["--json"].iter().chain(line).chain(&with_vault(line)));
        assert_eq!(
            (ran.code, &ran.failure()["code"]),
            (4, &json!("SKY-4017")),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains("the API key expired on "), "{}", ran.stderr);
    }
    // A message that is sent meanwhile waits, and the error says why.
    let ran = alice(&node.place, &["send", "plans", "kept"]);
    assert_eq!(
        (ran.code, &ran.failure()["code"]),
        (9, &json!("SKY-4017")),
        "{}",
        ran.stderr
    );
}

fn with_vault(line: &[&str]) -> Vec<&'static str> {
    match line.first() {
        Some(&"channel") => vec!["--vault", "alice.vault", "--timeout-s", "120"],
        _ => Vec::new(),
    }
}

#[test]
fn a_wrong_vault_key_is_one_failure_in_json_and_nothing_else() {
    let place = Place::new();
    let made = place.run(["init", "--offline", "--vault", "a.vault"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let key = place.write("wrong.key", &"ab".repeat(32));
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&key, private).expect("set");
    let ran = place.run([
        "--json",
        "whoami",
        "--vault",
        "a.vault",
        "--vault-key-file",
        "wrong.key",
    ]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    assert_eq!(ran.failure()["code"], "SKY-5002");
}
