//! Two agents and more, through the command alone.

use crate::node::{Node, text};
use crate::process::Running;
use serde_json::json;

#[test]
fn an_agent_that_was_away_reads_everything_once_it_is_back() {
    let node = Node::start("warn");
    let (alice, bob) = (node.join("alice"), node.join("bob"));
    assert_eq!(node.agent("alice", &["whoami"])["agent"], json!(alice));

    let made = node.agent("alice", &["channel", "create", "plans", "--name", "dev/demo/plans"]);
    let channel = text(&made["channel"]);
    assert_eq!(
        (made["label"].as_str(), made["name"].as_str()),
        (Some("plans"), Some("dev/demo/plans"))
    );

    // Bob is away all the time: he was added by the keys that he left on offer.
    let added = node.agent("alice", &["channel", "add", "plans", &bob]);
    assert_eq!(
        (added["change"].as_str(), added["epoch"].as_u64()),
        (Some("added"), Some(1))
    );
    let again = node.agent("alice", &["channel", "add", "plans", &bob]);
    assert_eq!(again["needed"], false, "{again}");
    let sent = node.agent("alice", &["channel", "send", "plans", "one"]);
    assert_eq!(sent["messages"][0]["state"], "delivered");
    node.agent("alice", &["channel", "rotate", "plans"]);
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
        b"two\n\nthree\n",
    );
    assert_eq!(lines.code, 0, "{}", lines.stderr);

    // By the name that the account knows, and by the beginning of its id.
    assert_eq!(node.read("bob", &["dev/demo/plans"]), ["one", "two", "three"]);
    assert_eq!(
        node.read("bob", &[&channel[..6], "--after", "0", "--limit", "2"]),
        ["one", "two"]
    );
    assert_eq!(node.read("bob", &[&channel, "--unread"]), ["one", "two", "three"]);
    assert!(node.read("bob", &[&channel, "--unread"]).is_empty(), "shown once");

    let members = node.agent("bob", &["channel", "members", &channel]);
    let listed = members["members"].as_array().expect("a list");
    assert!(
        listed.len() == 2 && listed.contains(&json!(alice)) && listed.contains(&json!(bob)),
        "{members}"
    );
    let listed = node.agent("bob", &["channel", "list"]);
    let row = &listed["channels"][0];
    assert_eq!(
        (row["channel"].as_str(), row["state"].as_str()),
        (Some(channel.as_str()), Some("active"))
    );
    assert_eq!((row["unread"].as_u64(), row["epoch"].as_u64()), (Some(0), Some(2)));
}

#[test]
fn a_channel_that_an_agent_was_added_to_is_found_by_the_label_that_it_gives() {
    let node = Node::start("warn");
    let bob = (node.join("alice"), node.join("bob")).1;
    let made = node.agent("alice", &["channel", "create", "plans", "--name", "dev/demo/plans"]);
    let channel = text(&made["channel"]);
    let other = text(&node.agent("alice", &["channel", "create", "plans", "--force"])["channel"]);
    for channel in [&channel, &other] {
        node.agent("alice", &["channel", "add", channel, &bob]);
        node.agent("alice", &["channel", "send", channel, "hello"]);
    }

    // A label is its own agent's; the account's name is for all.
    let rows = |arguments: &[&str]| node.agent("bob", arguments)["channels"].clone();
    let listed = rows(&["channel", "list"]);
    let row = |listed: &serde_json::Value, id: &str| {
        let rows = listed.as_array().expect("a list");
        rows.iter()
            .find(|row| row["channel"] == id)
            .expect("the channel")
            .clone()
    };
    let seen = |row: &serde_json::Value| (row["label"].clone(), row["name"].clone());
    assert_eq!(seen(&row(&listed, &channel)), (json!(""), json!("dev/demo/plans")));
    assert_eq!(seen(&row(&listed, &other)), (json!(""), json!(null)));
    let table = node
        .place
        .run(["channel", "list", "--vault", "bob.vault", "--timeout-s", "120"]);
    assert!(table.stdout.contains("dev/demo/plans"), "{}", table.stdout);

    let labelled = node.agent("bob", &["channel", "label", "dev/demo/plans", "my plans"]);
    assert_eq!(
        (
            &labelled["channel"],
            &labelled["label"],
            &labelled["before"],
            &labelled["shared_with"]
        ),
        (&json!(channel), &json!("my plans"), &json!(""), &json!([]))
    );
    assert_eq!(node.read("bob", &["my plans", "--offline"]), ["hello"]);
    let offline = rows(&["channel", "list", "--offline"]);
    assert_eq!(seen(&row(&offline, &channel)), (json!("my plans"), json!(null)));

    // One label for two is said when it is given, and asked about when it is used.
    let labelled = node.agent("bob", &["channel", "label", &other, "my plans", "--force"]);
    assert_eq!(labelled["shared_with"], json!([channel]));
    let read = |reference: &str| {
        node.place.run([
            "--json",
            "channel",
            "read",
            reference,
            "--offline",
            "--vault",
            "bob.vault",
        ])
    };
    let ran = read("my plans");
    assert_eq!(
        (ran.code, ran.failure()["code"].as_str()),
        (2, Some("SKY-6004")),
        "{}",
        ran.stderr
    );
    node.agent("bob", &["channel", "label", &other, ""]);
    assert_eq!(read("my plans").code, 0);

    for wrong in ["two\nlines", &channel, &"x".repeat(257)] {
        let ran = node
            .place
            .run(["--json", "channel", "label", &other, wrong, "--vault", "bob.vault"]);
        assert_eq!(
            (ran.code, ran.failure()["code"].as_str()),
            (2, Some("SKY-5019")),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn what_was_read_can_be_purged_and_what_was_not_stays() {
    let mut node = Node::start("warn");
    let bob = (node.join("alice"), node.join("bob")).1;
    let channel = text(&node.agent("alice", &["channel", "create", "plans"])["channel"]);
    node.agent("alice", &["channel", "add", "plans", &bob]);
    for word in ["one", "two", "three"] {
        node.agent("alice", &["channel", "send", "plans", word]);
    }
    // To read is not to say that it was dealt with: `--unread` and `tail` do that.
    assert_eq!(node.read("bob", &[&channel]), ["one", "two", "three"]);
    let purge = |arguments: &[&str]| {
        let purged = node.agent("bob", &[&["channel", "purge", &channel], arguments].concat());
        (purged["messages"].clone(), purged["unread"].clone())
    };
    assert_eq!(purge(&["--all"]), (json!(0), json!(3)));
    assert_eq!(
        node.read("bob", &[&channel, "--unread", "--limit", "2"]),
        ["one", "two"]
    );
    assert_eq!(purge(&["--before", "1h"]), (json!(0), json!(0)));
    assert_eq!(purge(&["--keep", "2"]), (json!(1), json!(0)));
    assert_eq!(purge(&["--before", "9999"]), (json!(1), json!(1)));
    assert_eq!(node.read("bob", &[&channel, "--unread"]), ["three"]);
    assert_eq!(
        node.read("alice", &["plans"]),
        ["one", "two", "three"],
        "others keep theirs"
    );

    // And by itself, where that is set.
    node.place.set("SKYTALE_HISTORY", "0");
    node.agent("alice", &["channel", "send", "plans", "four"]);
    assert_eq!(node.read("bob", &[&channel]), ["four"]);
    assert!(
        node.read("alice", &["plans"]).is_empty(),
        "alice has nothing that is unread"
    );

    for wrong in [&["--before", "yesterday"] as &[&str], &[], &["--all", "--keep", "1"]] {
        let line = ["channel", "purge", &channel, "--vault", "bob.vault"];
        let ran = node.place.run(line.iter().chain(wrong));
        assert_eq!(ran.code, 2, "{wrong:?}: {}", ran.stderr);
    }
    let ran = node
        .place
        .run(["channel", "list", "--vault", "bob.vault", "--set", "history=some"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("history") && ran.stderr.contains("30d"),
        "{}",
        ran.stderr
    );
}

#[test]
fn what_is_sent_offline_goes_out_later_and_who_was_removed_reads_no_more() {
    let node = Node::start("warn");
    let (_, bob) = (node.join("alice"), node.join("bob"));
    let channel = text(&node.agent("alice", &["channel", "create", "plans"])["channel"]);
    node.agent("alice", &["channel", "add", "plans", &bob]);

    // Nothing is lost for want of a network: the message is in the vault, and the result says so.
    // With a token and a relay node's address in the vault, an API that is away is no want of a network: all of the node is.
    node.running.signal("STOP");
    let line = [
        "--json",
        "channel",
        "send",
        "plans",
        "kept",
        "--timeout-s",
        "1",
        "--vault",
        "alice.vault",
    ];
    let ran = node.place.run(line);
    node.running.signal("CONT");
    assert_eq!(ran.code, 9, "{}", ran.stderr);
    assert!(ran.stdout.contains("\"queued\""), "{}", ran.stdout);
    assert_eq!(ran.failure()["retryable"], false);
    assert!(
        ran.failure()["help"]
            .as_str()
            .is_some_and(|help| help.contains("outbox")),
        "{}",
        ran.stderr
    );
    let queued = node.agent("alice", &["channel", "send", "plans", "queued", "--queue"]);
    assert_eq!(queued["messages"][0]["state"], "queued");
    let waiting = node.agent("alice", &["channel", "outbox", "plans"]);
    assert_eq!(waiting, node.agent("alice", &["channel", "outbox"]));
    let waiting = waiting["outbox"].as_array().expect("a list");
    assert_eq!(waiting.len(), 2);
    assert!(
        waiting
            .iter()
            .all(|row| row["kind"] == "message" && row["channel"] == channel.as_str())
    );
    assert_eq!(waiting[1]["frame_id"], queued["messages"][0]["frame_id"]);
    assert_eq!((&waiting[1]["bytes"], &waiting[1]["attempts"]), (&json!(6), &json!(0)));
    assert_eq!(waiting[1]["last_refusal"], json!(null));

    node.agent("alice", &["channel", "send", "plans", "last"]);
    assert_eq!(node.read("bob", &[&channel]), ["kept", "queued", "last"]);
    let ran = node.place.run(["channel", "outbox", "--vault", "alice.vault"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "nothing waits\n"));

    node.agent("alice", &["channel", "remove", "plans", &bob]);
    node.agent("alice", &["channel", "send", "plans", "without bob"]);
    let listed = node.agent("bob", &["channel", "list"]);
    assert_eq!(listed["channels"][0]["state"], "left");
    assert_eq!(node.read("bob", &[&channel, "--offline"]), ["kept", "queued", "last"]);
}

#[test]
fn one_command_shows_all_to_an_agent_that_was_removed_and_added_again_meanwhile() {
    let node = Node::start("warn");
    let (_, bob) = (node.join("alice"), node.join("bob"));
    let channel = text(&node.agent("alice", &["channel", "create", "plans"])["channel"]);
    let alice = |arguments: &[&str]| node.agent("alice", &[&["channel"], arguments].concat());
    // Bob is away all the time.
    alice(&["add", "plans", &bob]);
    alice(&["send", "plans", "m1"]);
    alice(&["remove", "plans", &bob]);
    alice(&["send", "plans", "m2"]);
    alice(&["add", "plans", &bob]);
    alice(&["send", "plans", "m3"]);
    assert_eq!(node.read("bob", &[&channel]), ["m1", "m3"]);
    let listed = node.agent("bob", &["channel", "list"]);
    assert_eq!(listed["channels"][0]["state"], "active");

    // And again, as one who knows the channel.
    alice(&["remove", "plans", &bob]);
    alice(&["add", "plans", &bob]);
    alice(&["send", "plans", "m4"]);
    assert_eq!(node.read("bob", &[&channel, "--unread"]), ["m1", "m3", "m4"]);
}

#[test]
fn a_tail_of_an_agent_that_is_removed_shows_the_rest_and_says_so() {
    let node = Node::start("warn");
    let (_, bob) = (node.join("alice"), node.join("bob"));
    let channel = text(&node.agent("alice", &["channel", "create", "plans"])["channel"]);
    node.agent("alice", &["channel", "add", "plans", &bob]);
    node.agent("alice", &["channel", "send", "plans", "the last"]);
    node.agent("alice", &["channel", "remove", "plans", &bob]);
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
    let ran = node.place.run(line);
    assert_eq!(
        (ran.code, ran.failure()["code"].as_str()),
        (4, Some("SKY-5007")),
        "{}",
        ran.stderr
    );
    assert!(ran.stdout.contains("the last"), "{}", ran.stdout);
}

#[test]
fn a_command_with_a_wrong_api_key_says_so_at_once() {
    let mut node = Node::start("warn");
    node.join("alice");
    node.agent("alice", &["channel", "create", "plans"]);
    let right = text(&node.told["api_key"]);
    // Another key of the same form.
    let wrong: String = right
        .char_indices()
        .map(|(at, char)| match (at + 6 > right.len(), char) {
            (true, 'a') => 'b',
            (true, _) => 'a',
            (false, char) => char,
        })
        .collect();
    node.place.set("SKYTALE_API_KEY", &wrong);
    for line in [&["channel", "list"] as &[&str], &["channel", "send", "plans", "kept"]] {
        // As long as a command may wait it would wait here, if it waited at all.
        let rest = ["--json", "--vault", "alice.vault", "--timeout-s", "86400"];
        let ran = node.place.run(line.iter().chain(&rest));
        assert_ne!(ran.code, 0);
        assert_eq!(ran.failure()["code"], "SKY-4002", "{}", ran.stderr);
    }
    node.place.set("SKYTALE_API_KEY", &right);
    node.agent("alice", &["channel", "send", "plans", "next"]);
    assert_eq!(node.read("alice", &["plans"]), ["kept", "next"]);
}

#[test]
fn a_tail_shows_messages_as_they_come_and_stops_in_order() {
    let node = Node::start("warn");
    let (_, bob) = (node.join("alice"), node.join("bob"));
    let channel = text(&node.agent("alice", &["channel", "create", "plans"])["channel"]);
    node.agent("alice", &["channel", "add", "plans", &bob]);
    node.agent("bob", &["channel", "list"]);

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
    let mut tail = Running::start(node.place.command(line), &node.place.path("tail.log"));
    for word in ["one", "two"] {
        node.agent("alice", &["channel", "send", "plans", word]);
        let message = tail.json();
        assert_eq!(
            (message["text"].as_str(), message["own"].as_bool()),
            (Some(word), Some(false))
        );
    }
    // Others work beside it.
    assert_eq!(node.agent("bob", &["whoami"])["agent"], json!(bob));
    let (code, rest) = tail.stop("INT");
    assert_eq!((code, rest.as_str()), (130, ""));
    assert!(
        node.read("bob", &[&channel, "--unread"]).is_empty(),
        "what was shown is read"
    );
}

#[test]
fn a_command_without_its_agent_or_channel_says_what_to_do() {
    let node = Node::start("warn");
    let ran = node.place.run(["channel", "list"]);
    assert_eq!(ran.code, 3);
    assert!(ran.stderr.contains("skytale init"), "{}", ran.stderr);
    node.join("alice");
    let ran = node
        .place
        .run(["--json", "channel", "send", "nowhere", "x", "--vault", "alice.vault"]);
    assert_eq!(ran.code, 5);
    assert_eq!(ran.failure()["code"], "SKY-5006");
    let stranger = "ab".repeat(32);
    node.agent("alice", &["channel", "create", "plans"]);
    let ran = node
        .place
        .run(["--json", "channel", "add", "plans", &stranger, "--vault", "alice.vault"]);
    assert_eq!(ran.code, 5, "{}", ran.stderr);
    assert!(
        ran.failure()["help"]
            .as_str()
            .is_some_and(|help| help.contains("skytale init")),
        "{}",
        ran.stderr
    );
}
