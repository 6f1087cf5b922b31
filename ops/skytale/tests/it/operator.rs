//! What an operator does with a fleet's API.

use crate::process::{Place, Running};

const CONFIG: &str = "[api]\nlisten = '127.0.0.1:0'\nurl = 'http://127.0.0.1:7600'\ndatabase = 'sqlite:api.db'\n\
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
