//! `login` and profiles: nothing to export by hand.

use crate::node::{Node, text};
use crate::process::{Place, Ran};
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;

/// A node whose agents get nothing by environment variables, and its address and key.
fn bare() -> (Node, String, String) {
    let mut node = Node::start("warn");
    let (url, key) = (text(&node.told["api_url"]), text(&node.told["api_key"]));
    node.place.unset_all();
    (node, url, key)
}

fn login(place: &Place, url: &str, key: &str, more: &[&str]) -> Ran {
    place.run_with(["--json", "login", "--api", url].iter().chain(more), key.as_bytes())
}

#[test]
fn a_key_that_was_given_once_is_used_by_every_command() {
    let (node, url, key) = bare();
    std::fs::remove_dir_all(node.place.path(".config")).expect("what dev has stored");
    let ran = node.place.run(["--json", "init", "--vault", "a.vault"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(text(&ran.failure()["help"]).contains("skytale login"), "{}", ran.stderr);

    let ran = login(&node.place, &url, "sk_live_nonsense", &[]);
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(
        text(&ran.failure()["help"]).contains("Nothing was stored"),
        "{}",
        ran.stderr
    );
    assert_eq!(node.place.json(&["profiles"])["profiles"], json!([]));

    let ran = login(&node.place, &url, &format!("{key}\n"), &[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(!ran.stdout.contains(&key) && !ran.stderr.contains(&key));
    let file = node.place.path(".config/skytale/profiles/default.toml");
    let mode = std::fs::metadata(&file).expect("stored").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    node.join("alice");
    node.agent("alice", &["channel", "create", "plans"]);
    let shown = node.place.json(&["config", "print"]);
    assert!(
        !shown.to_string().contains(&key) && shown.to_string().contains("profile default"),
        "{shown}"
    );

    // A file that others can read is no secret.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("set");
    let ran = node.place.run(["--json", "--profile", "default", "key", "list"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("chmod 600"), "{}", ran.stderr);
    let ran = node.place.run(["key", "list"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("chmod 600"), "{}", ran.stderr);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("set");

    node.place.json(&["logout"]);
    assert!(!file.exists());
    assert_eq!(node.place.run(["key", "list"]).code, 3);
}

#[test]
fn one_of_several_profiles_is_named_and_its_key_goes_to_its_own_api_alone() {
    let (mut node, url, key) = bare();
    // `dev` has stored one of its own, and it is the only one.
    let listed = node.place.json(&["profiles"]);
    assert_eq!(
        (&listed["profiles"][0]["profile"], &listed["profiles"][0]["in_force"]),
        (&json!("dev"), &json!(true))
    );
    node.place.json(&["key", "list"]);
    node.running
        .wait_for_stderr("paste this line into any terminal: skytale init");

    let ran = login(&node.place, &url, &key, &["--profile", "second"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(node.place.run(["key", "list"]).code, 3, "which of the two?");
    node.place.json(&["--profile", "second", "key", "list"]);
    let ran = node.place.run(["--json", "--profile", "third", "key", "list"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(
        text(&ran.failure()["help"]).contains("skytale profiles"),
        "{}",
        ran.stderr
    );
    let ran = node.place.run(["--profile", "../second", "key", "list"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);

    node.place.set("SKYTALE_PROFILE", "second");
    node.place.json(&["key", "list"]);
    let ran = node
        .place
        .run(["--json", "channel", "list", "--api-url", "http://127.0.0.1:9"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("own API alone"), "{}", ran.stderr);
    // An address of the environment without its key is not mixed with another one's key.
    node.place.set("SKYTALE_PROFILE", "");
    node.place.set("SKYTALE_API_URL", "http://127.0.0.1:9");
    node.place.json(&["logout", "--profile", "second"]);
    let ran = node.place.run(["--json", "key", "list"]);
    assert_eq!(
        (ran.code, &ran.failure()["code"]),
        (3, &json!("SKY-6001")),
        "{}",
        ran.stderr
    );
}
