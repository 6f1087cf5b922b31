//! Work of an operator with a fleet's API.

use crate::node::text;
use crate::process::{Place, Running};

const CONFIG: &str = "[api]\nadmin.listen = '127.0.0.1:0'\nlisten = '127.0.0.1:0'\nurl = 'http://127.0.0.1:7600'\ndatabase = 'sqlite:api.db'\n\
    admin_secret = 'a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7'\nrelay_secret = 'r5r5r5r5r5r5r5r5r5r5r5r5r5r5r5r5'\n\
    key_encryption_key = 'file:old.key'\n";

fn serves(place: &Place, arguments: &[&str]) {
    let mut api = Running::start(place.command(arguments), &place.path("api.log"));
    assert!(api.json()["address"].is_string());
    assert_eq!(api.stop("TERM").0, 0);
}

#[test]
fn signing_keys_go_under_another_key_and_a_wrong_one_changes_nothing() {
    let place = Place::new();
    for (name, byte) in [
        ("old.key", "c3"),
        ("new.key", "5b"),
        ("wrong.key", "11"),
        ("short.key", "1"),
    ] {
        place.write(name, &byte.repeat(32));
    }
    place.write("skytale.toml", CONFIG);
    let rewrap = |arguments: &[&str]| {
        let line = ["--json", "api", "rewrap-keys", "--new-key-file"];
        place.run(line.iter().chain(arguments))
    };

    let ran = rewrap(&["new.key"]);
    assert_eq!(
        (ran.code, ran.failure()["code"].as_str()),
        (3, Some("SKY-6002")),
        "{}",
        ran.stderr
    );
    assert!(!place.path("api.db").exists());

    serves(&place, &["--json", "api"]);
    for wrong in [
        &["old.key"][..],
        &["short.key"],
        &["new.key", "--set", "api.key_encryption_key=file:wrong.key"],
    ] {
        let ran = rewrap(wrong);
        assert_eq!(
            (ran.code, ran.failure()["code"].as_str()),
            (3, Some("SKY-6001")),
            "{}",
            ran.stderr
        );
    }
    serves(&place, &["--json", "api"]);

    let line = ["api", "rewrap-keys", "--new-key-file", "new.key"];
    let done = place.json(&line);
    assert_eq!((&done["rewrapped"], &done["already"]), (&1.into(), &0.into()));
    let done = place.json(&line);
    assert_eq!((&done["rewrapped"], &done["already"]), (&0.into(), &1.into()));
    let ran = place.run(["--json", "api"]);
    assert_eq!(ran.failure()["code"], "SKY-6001", "{}", ran.stderr);
    serves(
        &place,
        &["--json", "api", "--set", "api.key_encryption_key=file:new.key"],
    );
}

#[test]
fn relay_nodes_are_enrolled_listed_and_revoked() {
    let mut place = Place::new();
    place.write("old.key", &"c3".repeat(32));
    place.write("skytale.toml", CONFIG);
    let mut api = Running::start(place.command(["--json", "api"]), &place.path("api.log"));
    place.set("SKYTALE_API_URL", format!("http://{}", text(&api.json()["address"])));
    let ran = place.run(["relay", "fleet"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("SKYTALE_ADMIN_SECRET"), "{}", ran.stderr);
    place.set("SKYTALE_ADMIN_SECRET", "a7".repeat(16));

    let endpoint = "07".repeat(32);
    let made = place.json(&["relay", "enrol", "eu-1"]);
    let named = place.json(&["relay", "enrol", "eu-2", "--endpoint", &endpoint]);
    let (id, secret) = (text(&made["enrolment"]["id"]), text(&made["secret"]));
    assert!(secret.starts_with("rk_live_"));
    assert_eq!(named["enrolment"]["endpoint"], endpoint.as_str());
    let ran = place.run(["--json", "relay", "enrol", "eu-2", "--endpoint", &endpoint]);
    assert_eq!(ran.failure()["code"], "SKY-4022", "{}", ran.stderr);
    let listed = place.json(&["relay", "enrolments"]);
    assert!(!listed.to_string().contains(&secret), "shown once");
    let labels: Vec<_> = listed["enrolments"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|enrolment| text(&enrolment["label"]))
        .collect();
    assert_eq!(labels, ["eu-1", "eu-2"]);
    assert_eq!(place.json(&["relay", "fleet"])["relays"], serde_json::json!([]));

    assert_eq!(place.json(&["relay", "revoke", &id])["revoked"], id.as_str());
    let listed = place.json(&["relay", "enrolments"]);
    assert!(listed["enrolments"][0]["revoked_s"].is_u64(), "{listed}");
    let ran = place.run(["--json", "relay", "revoke", "00000000-0000-7000-8000-000000000000"]);
    assert_eq!(
        (ran.code, ran.failure()["code"].as_str()),
        (5, Some("SKY-4004")),
        "{}",
        ran.stderr
    );
    place.set("SKYTALE_ADMIN_SECRET", "wrong");
    let ran = place.run(["--json", "relay", "enrolments"]);
    assert_eq!(
        (ran.code, ran.failure()["code"].as_str()),
        (4, Some("SKY-4015")),
        "{}",
        ran.stderr
    );
    assert_eq!(api.stop("TERM").0, 0);
}
