//! Commands beside a process that has the vault open.

use crate::node::{Node, text};
use crate::process::{Ran, Running};
use serde_json::{Value, json};

/// A node, and alice and bob in a channel `plans`. Gives bob's id and the channel's.
fn plans() -> (Node, String, String) {
    let node = Node::start("warn");
    let bob = (node.join("alice"), node.join("bob")).1;
    let channel = text(&node.agent("alice", &["channel", "create", "plans"])["channel"]);
    node.agent("alice", &["channel", "add", "plans", &bob]);
    // He finds that he was added.
    node.agent("bob", &["channel", "list"]);
    (node, bob, channel)
}

/// A tail of alice's that runs, and is known to: it has shown what bob has sent.
fn tail(node: &Node, channel: &str, name: &str) -> Running {
    tail_after(node, channel, name, None).0
}

/// The same, from an offset on: what another tail shows and acknowledges meanwhile is shown here, too. Returns the offset of
/// bob's message as well.
fn tail_after(node: &Node, channel: &str, name: &str, after: Option<u64>) -> (Running, u64) {
    let line = [
        "--json",
        "channel",
        "tail",
        "plans",
        "--vault",
        "alice.vault",
        "--timeout-s",
        "120",
    ];
    let after = after.map(|after| format!("--after={after}"));
    let line = line.into_iter().chain(after.as_deref());
    let mut tail = Running::start(node.place.command(line), &node.place.path(name));
    let hello = format!("hello {name}");
    node.agent("bob", &["channel", "send", channel, &hello]);
    let offset = shows(&mut tail, &hello);
    (tail, offset)
}

/// Returns the offset of the message.
fn shows(tail: &mut Running, expected: &str) -> u64 {
    let shown = tail.json();
    assert_eq!(text(&shown["text"]), expected, "{}", tail.stderr());
    shown["offset"].as_u64().expect("an offset")
}

fn alice(node: &Node, arguments: &[&str]) -> Ran {
    let vault = ["--vault", "alice.vault", "--timeout-s", "120"];
    node.place
        .run(std::iter::once(&"--json").chain(arguments).chain(&vault))
}

#[test]
fn every_command_works_beside_a_tail_and_says_the_same() {
    let (node, bob, channel) = plans();
    let carol = node.join("carol");
    node.agent("alice", &["contact", "add", "bob", &bob]);
    let same: [&[&str]; 8] = [
        &["whoami"],
        &["channel", "list"],
        &["channel", "list", "--offline"],
        &["channel", "members", "plans"],
        &["channel", "outbox"],
        &["init"],
        &["init", "--offline"],
        &["contact", "list"],
    ];
    // The cursor moves with each message.
    let asked = |node: &Node| -> Vec<Value> {
        let mut all: Vec<Value> = same.iter().map(|line| node.agent("alice", line)).collect();
        for list in &mut all[1..3] {
            list["channels"][0]["cursor"] = json!(null);
        }
        all
    };
    let before = asked(&node);
    let mut tail = tail(&node, &channel, "tail.log");
    assert_eq!(asked(&node), before);

    let sent = node.agent("alice", &["channel", "send", "plans", "one"]);
    assert_eq!(sent["messages"][0]["state"], "delivered");
    let sent = node.agent("alice", &["channel", "send", "plans", "--queue", "two"]);
    assert_eq!(sent["messages"][0]["state"], "queued");
    let lines = node.place.run_with(
        [
            "--json",
            "channel",
            "send",
            "plans",
            "--lines",
            "--vault",
            "alice.vault",
            "--timeout-s",
            "120",
        ],
        b"three\nfour\n",
    );
    assert_eq!(lines.code, 0, "{}", lines.stderr);
    let once = |_| node.agent("alice", &["send", "plans", "five", "--id", "a"]);
    assert_eq!(once(1), once(2), "one id is one message");
    // Messages queued beside an agent that is online go out.
    assert_eq!(
        node.read("bob", &[&channel]),
        ["hello tail.log", "one", "two", "three", "four", "five"]
    );
    assert_eq!(
        node.read("alice", &["plans", "--after", "0"]),
        ["hello tail.log", "one", "two", "three", "four", "five"]
    );
    assert_eq!(node.read("alice", &["plans", "--offline", "--limit", "2"]).len(), 2);
    assert!(
        node.read("alice", &["plans", "--unread"]).is_empty(),
        "the tail has shown it"
    );

    let labelled = node.agent("alice", &["channel", "label", "plans", "our plans"]);
    assert_eq!(
        (&labelled["label"], &labelled["before"]),
        (&json!("our plans"), &json!("plans"))
    );
    let added = node.agent("alice", &["channel", "add", "our plans", &carol]);
    assert_eq!(
        (added["change"].as_str(), added["epoch"].as_u64()),
        (Some("added"), Some(2))
    );
    let rotated = node.agent("alice", &["channel", "rotate", "our plans"]);
    assert_eq!(rotated["epoch"], 3);
    let removed = node.agent("alice", &["channel", "remove", "our plans", &carol]);
    assert_eq!(
        (removed["change"].as_str(), removed["epoch"].as_u64()),
        (Some("removed"), Some(4))
    );
    let purged = node.agent("alice", &["channel", "purge", "our plans", "--keep", "1"]);
    assert_eq!((&purged["messages"], &purged["unread"]), (&json!(5), &json!(0)));
    let made = node.agent("alice", &["channel", "create", "second", "--name", "dev/demo/second"]);
    node.agent("alice", &["channel", "add", "dev/demo/second", &bob]);
    // Its last admin names another before it leaves.
    let promoted = node.agent("alice", &["channel", "promote", "second", &bob]);
    assert_eq!(promoted["change"], "promoted");
    let demoted = node.agent("alice", &["channel", "demote", "second", &bob]);
    assert_eq!(demoted["change"], "demoted");
    let own = text(&node.agent("alice", &["whoami"])["agent"]);
    // Without another admin it may neither go nor be one no longer.
    for alone in [
        &["channel", "leave", "second"][..],
        &["channel", "demote", "second", &own],
    ] {
        assert_eq!(alice(&node, alone).failure()["code"], "SKY-5033");
    }
    node.agent("alice", &["channel", "promote", "second", &bob]);
    let policy = node.agent("alice", &["channel", "policy", "second", "--grant", "add=admins"]);
    assert_eq!(
        (&policy["rights"]["add"], policy["admins"].as_array().map(Vec::len)),
        (&json!("admins"), Some(2))
    );
    let left = node.agent("alice", &["channel", "leave", "second"]);
    assert_eq!((&left["change"], &left["channel"]), (&json!("left"), &made["channel"]));

    // An agent that cannot be added yet is added later, or is not.
    let stranger = "ab".repeat(32);
    let ran = alice(&node, &["channel", "add", "our plans", &stranger]);
    assert_eq!(ran.failure()["code"], "SKY-1010", "{}", ran.stderr);
    let later = node.agent("alice", &["channel", "add", "our plans", "--later", &stranger]);
    assert_eq!(later["deferred"], json!([stranger]));
    assert_eq!(
        node.agent("alice", &["channel", "outbox"])["deferred"][0]["agent"],
        json!(stranger)
    );
    node.agent("alice", &["channel", "remove", "our plans", &stranger]);
    let outbox = node.agent("alice", &["channel", "outbox"]);
    assert_eq!((&outbox["deferred"], &outbox["failed"]), (&json!([]), &json!([])));

    // A backup is where this command's folder is, and is refused where something is.
    let made = node.agent("alice", &["vault", "backup", "alice.backup"]);
    assert_eq!(made["file"], "alice.backup");
    let ran = alice(&node, &["vault", "backup", "alice.backup"]);
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("--force"), "{}", ran.stderr);
    let dropped = node.agent("alice", &["channel", "outbox", "drop", "--all"]);
    assert_eq!(dropped["dropped"], json!([]));

    // Failures are the same, too.
    let ran = alice(&node, &["channel", "read", "nothing"]);
    assert_eq!(
        (ran.code, ran.failure()["code"].as_str()),
        (5, Some("SKY-5006")),
        "{}",
        ran.stderr
    );

    node.agent("bob", &["channel", "send", &channel, "still there"]);
    shows(&mut tail, "still there");
    let (code, rest) = tail.stop("TERM");
    assert_eq!((code, rest.as_str()), (143, ""));
}

#[test]
fn two_tails_show_every_message_and_the_second_outlives_the_first() {
    let (node, _, channel) = plans();
    let (mut first, offset) = tail_after(&node, &channel, "first.log", None);
    let (mut second, _) = tail_after(&node, &channel, "second.log", Some(offset));
    shows(&mut first, "hello second.log");
    for number in 0..20 {
        let word = format!("m {number}");
        node.agent("bob", &["channel", "send", &channel, &word]);
        shows(&mut first, &word);
        shows(&mut second, &word);
    }
    assert_eq!(first.stop("TERM").0, 143);
    // It opens the vault itself, goes online, and goes on behind what it has shown.
    node.agent("bob", &["channel", "send", &channel, "to the second"]);
    shows(&mut second, "to the second");
    assert_eq!(
        node.agent("alice", &["channel", "send", "plans", "beside it"])["messages"][0]["state"],
        "delivered"
    );

    // Killed, it leaves its socket and its lock's file: neither is an obstacle.
    second.signal("KILL");
    drop(second);
    assert!(node.place.path("alice.vault.sock").exists());
    assert_eq!(
        node.agent("alice", &["channel", "send", "plans", "after it"])["messages"][0]["state"],
        "delivered"
    );
    assert!(!node.place.path("alice.vault.sock").exists());
}

#[test]
fn a_message_that_waits_when_the_owner_ends_is_sent_once_by_the_next_one() {
    let (node, _, channel) = plans();
    let tail = tail(&node, &channel, "tail.log");
    node.running.signal("STOP");
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| node.agent("alice", &["channel", "send", "plans", "waits"]));
        // Queued by the tail, for the other process.
        while node.agent("alice", &["channel", "outbox"])["outbox"] == json!([]) {}
        assert_eq!(tail.stop("TERM").0, 143);
        node.running.signal("CONT");
        let sent = sending.join().expect("no panic");
        assert_eq!(sent["messages"][0]["state"], "delivered", "{sent}");
    });
    assert_eq!(node.read("bob", &[&channel]), ["hello tail.log", "waits"]);
}

#[test]
fn commands_that_start_at_once_all_succeed() {
    let (node, _, channel) = plans();
    let words: Vec<String> = (0..12).map(|number| format!("m {number:02}")).collect();
    std::thread::scope(|scope| {
        for word in &words {
            let node = &node;
            scope.spawn(move || {
                let sent = node.agent("alice", &["channel", "send", "plans", word]);
                assert_eq!(sent["messages"][0]["state"], "delivered", "{sent}");
            });
        }
    });
    let mut read = node.read("bob", &[&channel]);
    read.sort();
    assert_eq!(read, words, "each once");
    assert_eq!(node.agent("alice", &["channel", "outbox"])["outbox"], json!([]));
}

#[test]
fn a_wrong_key_is_refused_beside_a_tail_as_it_is_without() {
    let (node, _, channel) = plans();
    let key = node.place.write("wrong.key", &"ab".repeat(32));
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("set");
    let wrong = || {
        let ran = alice(&node, &["whoami", "--vault-key-file", "wrong.key"]);
        assert!(ran.stdout.is_empty());
        (
            ran.code,
            ran.failure()["code"].clone(),
            ran.failure()["why"].to_string().contains("wrong"),
        )
    };
    let without = wrong();
    let _tail = tail(&node, &channel, "tail.log");
    assert_eq!(wrong(), without);
    assert_eq!(without, (3, json!("SKY-5002"), true));
}

#[test]
fn help_says_that_commands_work_beside_an_agent() {
    let place = crate::process::Place::new();
    for line in [
        &["channel", "--help"] as &[&str],
        &["channel", "send", "--help"],
        &["whoami", "--help"],
    ] {
        let ran = place.run(line);
        let words: Vec<&str> = ran.stdout.split_whitespace().collect();
        assert!(
            words.join(" ").contains("has the vault open"),
            "{line:?}: {}",
            ran.stdout
        );
    }
}
