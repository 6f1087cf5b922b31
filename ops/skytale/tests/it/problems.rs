//! Reports to a person on losses and contradictions, and the ways to deal with them.

use crate::node::{ANY_PORT, Node, text};
use crate::process::{Place, Ran, Running, free_port};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Waiting for longer is hanging.
const HANGING: Duration = Duration::from_secs(300);

/// Runs a command of an agent, however it ends.
fn run(place: &Place, name: &str, arguments: &[&str]) -> Ran {
    let vault = format!("{name}.vault");
    let line = ["--json"].iter().chain(arguments);
    place.run(line.chain(&["--vault", &vault, "--timeout-s", "120"]))
}

/// The same for a person.
fn shown(place: &Place, name: &str, arguments: &[&str]) -> Ran {
    let vault = format!("{name}.vault");
    place.run(arguments.iter().chain(&["--vault", &vault, "--timeout-s", "120"]))
}

/// Its exit code and the code of its failure.
fn failure(ran: &Ran) -> (i32, String) {
    assert_ne!(ran.code, 0, "{}", ran.stdout);
    (ran.code, text(&ran.failure()["code"]))
}

/// Returns its output, one value a line.
fn values(ran: &Ran) -> Vec<Value> {
    let value = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    ran.stdout.lines().map(value).collect()
}

/// The texts of the messages that it showed.
fn texts(ran: &Ran) -> Vec<String> {
    values(ran).iter().map(|message| text(&message["text"])).collect()
}

/// The row of a channel in a list.
fn row(listed: &Ran, channel: &str) -> Value {
    let listed = values(listed).remove(0);
    let rows = listed["channels"].as_array().expect("a list").clone();
    let row = rows.into_iter().find(|row| row["channel"] == channel);
    row.unwrap_or_else(|| panic!("no {channel}: {listed}"))
}

fn problems(ran: &Ran) -> Vec<Value> {
    values(ran).remove(0)["problems"].as_array().expect("a list").clone()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("copied")),
        }
    }
}

/// Stops a node, does something to its folder, and starts it again.
fn meanwhile(node: Node, change: impl FnOnce(&Place)) -> Node {
    let Node { mut place, running, .. } = node;
    assert_eq!(running.stop("TERM").0, 0);
    change(&place);
    let arguments = ["--json", "dev", "--dir", "node"].into_iter().chain(ANY_PORT);
    let mut running = Running::start(place.command(arguments), &place.path("again.log"));
    let told = running.json();
    place.set("SKYTALE_API_URL", text(&told["api_url"]));
    Node { place, running, told }
}

fn keep_node(place: &Place) {
    copy(&place.path("node"), &place.path("node.copy"));
}

fn put_node_back(place: &Place) {
    std::fs::remove_dir_all(place.path("node")).expect("removed");
    copy(&place.path("node.copy"), &place.path("node"));
}

/// Carol, Bob and Dave in a room, where Bob has seen two messages more than the node that was put back has; and Bob alone in
/// another channel. Gives the room and the other channel.
fn put_back_behind_bob() -> (Node, String, String) {
    let node = Node::start("warn");
    let ids = ["carol", "bob", "dave"].map(|name| node.join(name));
    let room = text(&node.agent("carol", &["channel", "create", "room"])["channel"]);
    node.agent("carol", &["channel", "add", &room, &ids[1], &ids[2]]);
    node.agent("carol", &["channel", "send", &room, "m1"]);
    let quiet = text(&node.agent("bob", &["channel", "create", "quiet"])["channel"]);
    node.agent("bob", &["channel", "label", &room, "room"]);
    for name in ["bob", "dave", "carol"] {
        node.agent(name, &["channel", "list"]);
    }
    let node = meanwhile(node, keep_node);
    for message in ["m2", "m3"] {
        node.agent("carol", &["channel", "send", &room, message]);
    }
    assert_eq!(node.read("bob", &[&room]), ["m1", "m2", "m3"]);
    (meanwhile(node, put_node_back), room, quiet)
}

#[test]
fn a_divergence_is_reported_by_every_command_that_reads_with_exit_code_7() {
    let (node, room, quiet) = put_back_behind_bob();
    let dave = text(&node.agent("dave", &["whoami"])["agent"]);
    for message in ["d1", "d2", "d3", "d4"] {
        node.agent("dave", &["channel", "send", &room, message]);
    }
    let place = &node.place;
    let read = run(place, "bob", &["channel", "read", &room]);
    assert_eq!(failure(&read), (7, "SKY-5011".into()), "{}", read.stderr);
    let shown_texts = texts(&read);
    assert_eq!(
        shown_texts[..3],
        ["m1", "m2", "m3"],
        "what it has is shown all the same"
    );
    let why = read.failure()["why"].to_string();
    assert!(why.contains(&dave) && why.contains("at offset"), "{why}");

    let listed = run(place, "bob", &["channel", "list"]);
    assert_eq!(failure(&listed), (7, "SKY-5011".into()), "{}", listed.stderr);
    assert_eq!(row(&listed, &room)["diverged"], true);
    assert_eq!(row(&listed, &quiet)["diverged"], false);
    let listed = shown(place, "bob", &["channel", "list", "--offline"]);
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    assert!(
        listed.stdout.contains("  diverged  ") && listed.stdout.contains("`skytale channel problems`"),
        "{}",
        listed.stdout
    );
    let tailed = run(place, "bob", &["channel", "tail", &room]);
    assert_eq!(failure(&tailed), (7, "SKY-5011".into()), "{}", tailed.stderr);
    let listed = run(place, "bob", &["channel", "problems", "room"]);
    assert_eq!(failure(&listed), (7, "SKY-5011".into()), "{}", listed.stderr);
    let found = problems(&listed);
    let divergence = found
        .iter()
        .find(|problem| problem["problem"] == "diverged")
        .expect("a divergence");
    assert_eq!(
        (&divergence["channel"], &divergence["author"]),
        (&json!(room), &json!(dave))
    );
    let (ours, theirs) = (text(&divergence["ours"]), text(&divergence["theirs"]));
    assert!(ours != theirs && divergence["first"].is_u64(), "{divergence}");
    assert!(why.contains(&ours) && why.contains(&theirs), "{why}");

    // The other channel is none the worse.
    assert_eq!(node.read("bob", &["quiet"]), [""; 0]);
    node.agent("bob", &["channel", "send", "quiet", "still here"]);
    assert_eq!(
        problems(&run(place, "bob", &["channel", "problems", "quiet"])),
        [Value::Null; 0]
    );

    // The operator says that the node was put back: the agents settle on the log that is there.
    let node = meanwhile(node, accept_rollback);
    let place = &node.place;
    assert_eq!(node.read("bob", &["room"]), ["m1", "d1", "d2", "d3", "d4"]);
    let found = problems(&run(place, "bob", &["channel", "problems", "room"]));
    let [settled] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(settled["problem"], "settled");
    assert!(
        text(&settled["what"]).contains("2 messages that were read before"),
        "{settled}"
    );
    assert_eq!(node.read("bob", &["room", "--replaced", "--offline"]), ["m2", "m3"]);
    let shown_once = node.agent("bob", &["channel", "list"]);
    assert_eq!(shown_once["channels"][0]["diverged"], false);
    // Carol had sent what is gone: it goes out again when she comes.
    assert_eq!(node.read("carol", &[&room])[..5], ["m1", "d1", "d2", "d3", "d4"]);
    node.agent("carol", &["channel", "send", &room, "m4"]);
    let all = ["m1", "d1", "d2", "d3", "d4", "m2", "m3", "m4"];
    for name in ["carol", "bob", "dave"] {
        assert_eq!(node.read(name, &[&room]), all, "{name}");
    }
    node.agent("dave", &["channel", "send", &room, "d5"]);
    node.agent("bob", &["channel", "send", &room, "b1"]);
    for name in ["carol", "bob", "dave"] {
        assert_eq!(node.read(name, &[&room])[8..], ["d5", "b1"], "{name}");
    }
    assert_eq!(node.read("bob", &["room", "--replaced", "--offline"]), [""; 0]);
}

/// Does the work of an operator who has put a node back.
fn accept_rollback(place: &Place) {
    let asked = place.run(["--json", "relay", "accept-rollback", "node"]);
    assert_eq!(failure(&asked), (2, "SKY-6004".into()), "{}", asked.stderr);
    let accepted = place.run(["relay", "accept-rollback", "node", "--yes"]);
    assert_eq!(accepted.code, 0, "{}", accepted.stderr);
    assert!(
        accepted.stdout.contains("accepted: the log is whole"),
        "{}",
        accepted.stdout
    );
}

#[test]
fn a_log_that_went_back_keeps_its_own_channel_alone() {
    let (node, room, _) = put_back_behind_bob();
    let place = &node.place;
    for arguments in [
        &["channel", "read", "room"][..],
        &["channel", "members", "room"],
        &["channel", "tail", "room"],
    ] {
        let ran = run(place, "bob", arguments);
        assert_eq!(failure(&ran), (7, "SKY-1018".into()), "{arguments:?}: {}", ran.stderr);
    }
    // Not lost, not called failed: it waits.
    let sent = run(place, "bob", &["channel", "send", "room", "held"]);
    assert_eq!(failure(&sent), (7, "SKY-1018".into()), "{}", sent.stderr);
    let queued = values(&sent).remove(0)["messages"][0].clone();
    assert_eq!(queued["state"], "queued");
    let outbox = node.agent("bob", &["channel", "outbox", "room"]);
    assert_eq!(
        (&outbox["outbox"][0]["frame_id"], &outbox["failed"]),
        (&queued["frame_id"], &json!([]))
    );

    // The rest of the vault works.
    let carol = text(&node.agent("carol", &["whoami"])["agent"]);
    node.agent("bob", &["channel", "send", "quiet", "said"]);
    assert_eq!(node.read("bob", &["quiet"]), ["said"]);
    node.agent("bob", &["channel", "create", "another"]);
    node.agent("bob", &["channel", "add", "another", &carol]);
    node.agent("bob", &["init"]);
    let read = run(place, "bob", &["channel", "read", "room", "--offline"]);
    assert_eq!(texts(&read)[..3], ["m1", "m2", "m3"]);
    assert_eq!(failure(&read), (7, "SKY-1018".into()), "{}", read.stderr);

    let listed = run(place, "bob", &["channel", "list"]);
    assert_eq!(failure(&listed), (7, "SKY-1018".into()), "{}", listed.stderr);
    assert_eq!(row(&listed, &room)["diverged"], true);
    let found = problems(&run(place, "bob", &["channel", "problems", "room"]));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (&found[0]["problem"], &found[0]["code"]),
        (&json!("rolled-back"), &json!("SKY-1018"))
    );
    let offsets = |end: &str| found[0][end].as_u64().expect("an offset");
    assert_eq!(offsets("last") - offsets("first"), 1, "m2 and m3");

    let node = meanwhile(node, accept_rollback);
    // The held message goes out, and so does Carol's.
    assert_eq!(node.read("bob", &["room"])[0], "m1");
    node.agent("bob", &["channel", "send", "room", "after"]);
    node.read("carol", &[&room]);
    node.agent("carol", &["channel", "send", &room, "m4"]);
    let all = ["m1", "held", "after", "m2", "m3", "m4"];
    for name in ["bob", "carol", "dave"] {
        assert_eq!(node.read(name, &[&room]), all, "{name}");
    }
}

#[test]
fn an_own_log_and_a_channel_that_a_node_has_forgotten_keep_the_others_from_nothing() {
    let node = Node::start("warn");
    let (carol, bob) = (node.join("carol"), node.join("bob"));
    let kept = text(&node.agent("carol", &["channel", "create", "kept"])["channel"]);
    node.agent("carol", &["channel", "add", "kept", &bob]);
    node.agent("bob", &["channel", "list"]);
    let node = meanwhile(node, keep_node);
    let forgotten = text(&node.agent("carol", &["channel", "create", "forgotten"])["channel"]);
    node.agent("carol", &["channel", "add", "forgotten", &bob]);
    assert_eq!(
        row(&run(&node.place, "bob", &["channel", "list"]), &forgotten)["state"],
        "active"
    );
    let node = meanwhile(node, put_node_back);
    let place = &node.place;

    node.agent("bob", &["channel", "send", &kept, "still here"]);
    assert_eq!(node.read("carol", &["kept"]), ["still here"]);
    node.agent("bob", &["channel", "create", "new"]);
    node.agent("bob", &["channel", "add", "new", &carol]);
    let ran = run(place, "bob", &["channel", "read", &forgotten]);
    assert_eq!(failure(&ran), (7, "SKY-1018".into()), "{}", ran.stderr);
    assert!(ran.stderr.contains("put back from a copy"), "{}", ran.stderr);
    let found = problems(&run(place, "bob", &["channel", "problems"]));
    let own = found.iter().find(|problem| problem["channel"].is_null());
    assert_eq!(own.expect("the own log")["problem"], "rolled-back", "{found:?}");

    // Carol, who had made it, makes it again, and adds Bob.
    let node = meanwhile(node, accept_rollback);
    for _ in 0..3 {
        for name in ["carol", "bob"] {
            node.agent(name, &["channel", "list"]);
        }
    }
    node.agent("carol", &["channel", "send", "forgotten", "hello"]);
    assert_eq!(node.read("bob", &[&forgotten]), ["hello"]);
    node.agent("bob", &["channel", "send", &forgotten, "and back"]);
    assert_eq!(node.read("carol", &["forgotten"]), ["hello", "and back"]);
    let found = problems(&run(&node.place, "bob", &["channel", "problems"]));
    assert!(
        found.iter().all(|problem| !problem["channel"].is_null()),
        "its own log is settled: {found:?}"
    );
}

#[test]
fn a_restored_vault_says_what_the_other_copy_sent_and_strict_makes_it_a_failure() {
    let node = Node::start("warn");
    let place = &node.place;
    let bob = (node.join("alice"), node.join("bob")).1;
    let room = text(&node.agent("alice", &["channel", "create", "room"])["channel"]);
    node.agent("alice", &["channel", "add", "room", &bob]);
    node.agent("bob", &["channel", "list"]);
    node.agent("bob", &["channel", "send", &room, "b0"]);
    for arguments in [
        &["channel", "read", &room][..],
        &["channel", "list"],
        &["channel", "problems"],
    ] {
        let ran = run(place, "bob", &[arguments, &["--strict"]].concat());
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
    }
    place.json(&["vault", "backup", "bob.backup", "--vault", "bob.vault"]);
    for message in ["b1", "b2", "b3"] {
        node.agent("bob", &["channel", "send", &room, message]);
    }
    place.json(&["vault", "restore", "bob.backup", "--force", "--vault", "bob.vault"]);
    let listed = shown(place, "bob", &["channel", "list", "--offline"]);
    assert!(listed.stdout.contains("renewing"), "{}", listed.stdout);
    for message in ["b4", "b5"] {
        node.agent("bob", &["channel", "send", &room, message]);
    }
    assert_eq!(node.read("alice", &["room"]), ["b0", "b1", "b2", "b3", "b4", "b5"]);

    let read = run(place, "bob", &["channel", "read", &room]);
    assert_eq!(read.code, 0, "{}", read.stderr);
    assert_eq!(texts(&read), ["b0", "b4", "b5"]);
    assert!(
        read.stderr.contains("are gone: another copy of this vault sent them"),
        "{}",
        read.stderr
    );
    for arguments in [
        &["channel", "read", &room][..],
        &["channel", "list"],
        &["channel", "problems"],
    ] {
        let ran = run(place, "bob", &[arguments, &["--strict"]].concat());
        assert_eq!(failure(&ran), (7, "SKY-5032".into()), "{arguments:?}: {}", ran.stderr);
    }
    let found = problems(&run(place, "bob", &["channel", "problems"]));
    assert_eq!((found.len(), &found[0]["problem"]), (1, &json!("lost")), "{found:?}");
    assert_eq!(
        row(&run(place, "bob", &["channel", "list"]), &room)["standing"],
        "current"
    );
}

#[test]
fn a_superseded_copy_says_so_and_takes_over_where_it_is_told_to() {
    let node = Node::start("warn");
    let place = &node.place;
    let bob = (node.join("alice"), node.join("bob")).1;
    let room = text(&node.agent("alice", &["channel", "create", "room"])["channel"]);
    node.agent("alice", &["channel", "add", "room", &bob]);
    node.agent("bob", &["channel", "list"]);
    assert_eq!(
        node.agent("bob", &["vault", "takeover", "--yes"])["channels"],
        json!([])
    );
    place.json(&["vault", "backup", "bob.backup", "--vault", "bob.vault"]);
    std::fs::copy(place.path("bob.vault.key"), place.path("other.vault.key")).expect("copied");
    place.json(&["vault", "restore", "bob.backup", "--vault", "other.vault"]);
    node.agent("other", &["channel", "send", &room, "from the other copy"]);

    let listed = shown(place, "bob", &["channel", "list"]);
    assert!(
        listed.stdout.contains("superseded"),
        "{}\n{}",
        listed.stdout,
        listed.stderr
    );
    let read = shown(place, "bob", &["channel", "read", &room]);
    assert!(
        read.code == 0 && read.stderr.contains("skytale vault takeover"),
        "{}",
        read.stderr
    );
    let ran = run(place, "bob", &["vault", "takeover"]);
    assert_eq!(failure(&ran), (2, "SKY-6004".into()), "{}", ran.stderr);
    let taken = node.agent("bob", &["vault", "takeover", "--yes"]);
    assert_eq!((&taken["channels"], &taken["asked"]), (&json!([room]), &json!(true)));
    assert_eq!(
        row(&run(place, "bob", &["channel", "list"]), &room)["standing"],
        "out-of-sync"
    );
    // Any member that is online answers.
    node.agent("alice", &["channel", "send", "room", "welcome back"]);
    assert_eq!(
        row(&run(place, "bob", &["channel", "list"]), &room)["standing"],
        "current"
    );
    node.agent("bob", &["channel", "send", &room, "from this copy"]);
    let read = node.read("alice", &["room"]);
    assert_eq!(read.last().map(String::as_str), Some("from this copy"), "{read:?}");
}

#[test]
fn a_group_is_begun_again_only_where_that_is_confirmed() {
    let node = Node::start("warn");
    let place = &node.place;
    let (alice, bob) = (node.join("alice"), node.join("bob"));
    let room = text(&node.agent("alice", &["channel", "create", "room"])["channel"]);
    node.agent("alice", &["channel", "add", "room", &bob]);
    node.agent("bob", &["channel", "list"]);
    let ran = run(place, "bob", &["channel", "reboot", &room]);
    assert_eq!(failure(&ran), (2, "SKY-6004".into()), "{}", ran.stderr);
    let rebooted = node.agent("bob", &["channel", "reboot", &room, "--yes"]);
    assert_eq!(
        (&rebooted["change"], &rebooted["needed"]),
        (&json!("rebooted"), &json!(true))
    );
    let mut members = [alice, bob];
    members.sort_unstable();
    assert_eq!(rebooted["agents"], json!(members));
    node.agent("alice", &["channel", "send", "room", "in the new group"]);
    assert_eq!(node.read("bob", &[&room]), ["in the new group"]);
    // Somebody who is no member cannot.
    node.join("mallory");
    let ran = run(place, "mallory", &["channel", "reboot", &room, "--yes"]);
    assert_eq!(failure(&ran), (5, "SKY-5006".into()), "{}", ran.stderr);
}

/// Segments of a relay node's log, oldest first.
fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension() == Some("seg".as_ref()) => found.push(path),
                false => {}
            }
        }
    }
    found.sort_unstable();
    found
}

#[test]
fn what_a_relay_no_longer_keeps_is_told_with_its_range_and_other_channels_go_on() {
    let mut place = Place::new();
    let port = free_port();
    let secret = |byte: &str| byte.repeat(32);
    let settings = format!(
        "api_url = 'http://127.0.0.1:{port}'\nadmin_secret = '{admin}'\n\
         [api]\nadmin.listen = '127.0.0.1:0'\nlisten = '127.0.0.1:{port}'\nurl = 'http://127.0.0.1:{port}'\ndatabase = 'sqlite:api.db'\n\
         admin_secret = '{admin}'\nrelay_secret = '{relay}'\nkey_encryption_key = '{kek}'\n\
         [relay]\nlisten = '127.0.0.1:0'\ndata_dir = 'relay'\napi_url = 'http://127.0.0.1:{port}'\nretention_s = 1\n\
         relay_secret = '{relay}'\ndisk_free_bytes_min = 0\n[relay.store]\nsegment_bytes = 4096\n\
         [relay.admin]\nlisten = '127.0.0.1:0'\n",
        admin = secret("a7"),
        relay = secret("r5"),
        kek = secret("c3"),
    );
    let long = settings.replace("retention_s = 1\n", "retention_s = 86400\n");
    place.write("skytale.toml", &long);
    let mut api = Running::start(place.command(["--json", "api"]), &place.path("api.log"));
    api.json();
    let mut relay = Running::start(place.command(["--json", "relay"]), &place.path("relay.log"));
    relay.json();
    let account = place.json(&["account", "create", "acme"]);
    place.set("SKYTALE_API_KEY", text(&account["key"]["secret"]));
    let agent = |name: &str, arguments: &[&str]| {
        let ran = run(&place, name, arguments);
        assert_eq!(ran.code, 0, "{name} {arguments:?}: {}", ran.stderr);
        ran
    };
    let bob = text(&values(&(agent("alice", &["init"]), agent("bob", &["init"])).1)[0]["agent"]);
    let made = |label: &str| {
        let made = agent("alice", &["channel", "create", label]);
        let channel = text(&values(&made)[0]["channel"]);
        agent("alice", &["channel", "add", &channel, &bob]);
        channel
    };
    let (room, quiet) = (made("room"), made("quiet"));
    agent("alice", &["channel", "send", "room", "seen"]);
    assert_eq!(texts(&agent("bob", &["channel", "read", &room])), ["seen"]);

    // Enough that its segments are full and old; until the first ones are gone.
    for number in 0..12 {
        let message = format!("{number} {}", "x".repeat(5_000));
        agent("alice", &["channel", "send", "room", &message]);
    }
    let full = segments(&place.path("relay"));
    assert!(full.len() > 12, "{full:?}");
    let restart = |relay: Running, settings: &str| {
        assert_eq!(relay.stop("TERM").0, 0);
        place.write("skytale.toml", settings);
        let mut relay = Running::start(place.command(["--json", "relay"]), &place.path("relay.log"));
        relay.json();
        relay
    };
    let relay = restart(relay, &settings);
    let begun = Instant::now();
    while full.iter().take(full.len() - 6).any(|path| path.exists()) {
        assert!(begun.elapsed() < HANGING, "nothing was trimmed");
        std::thread::sleep(Duration::from_millis(500));
    }
    let _relay = restart(relay, &long);

    let read = agent("bob", &["channel", "read", &room]);
    assert!(
        read.stderr.contains("are gone: the log no longer kept them"),
        "{}",
        read.stderr
    );
    assert_eq!(texts(&read)[0], "seen");
    let found = problems(&agent("bob", &["channel", "problems", &room]));
    assert_eq!(
        (&found[0]["problem"], &found[0]["code"]),
        (&json!("lost"), &json!("SKY-1009"))
    );
    let said = format!("messages {} to {} are gone", found[0]["first"], found[0]["last"]);
    assert!(read.stderr.contains(&said), "{said}: {}", read.stderr);
    let strict = run(&place, "bob", &["channel", "read", &room, "--strict"]);
    assert_eq!(failure(&strict), (7, "SKY-1009".into()), "{}", strict.stderr);

    // Both channels go on.
    for channel in [&room, &quiet] {
        agent("alice", &["channel", "send", channel, "after"]);
        let read = texts(&agent("bob", &["channel", "read", channel]));
        assert_eq!(read.last().map(String::as_str), Some("after"));
    }
    assert_eq!(
        problems(&agent("bob", &["channel", "problems", &quiet, "--strict"])),
        [Value::Null; 0]
    );
    assert_eq!(row(&agent("bob", &["channel", "list"]), &room)["standing"], "current");
}
