//! Configuration, as the whole command reads it.

use crate::process::Place;

#[test]
fn what_is_in_force_is_shown_with_its_source() {
    let mut place = Place::new();
    place.write(
        "skytale.toml",
        "api_url = 'http://from-file:1'\n[relay]\nretention_s = 1\n",
    );
    place.set("SKYTALE_RELAY__RETENTION_S", "2");
    place.set("SKYTALE_API_KEY", "sk_live_marker_of_a_key");
    let printed = place.json(&["config", "print", "--set", "relay.region=3"]);
    let config = &printed["config"];
    assert_eq!(config["api_url"]["value"], "http://from-file:1");
    assert!(
        config["api_url"]["source"]
            .as_str()
            .is_some_and(|source| source.ends_with("skytale.toml"))
    );
    assert_eq!(config["relay"]["retention_s"]["value"], 2);
    assert_eq!(
        config["relay"]["retention_s"]["source"],
        "environment variable SKYTALE_RELAY__RETENTION_S"
    );
    assert_eq!(config["relay"]["region"]["value"], 3);
    assert_eq!(config["relay"]["region"]["source"], "flag --set");
    assert_eq!(config["api_key"]["value"], "[redacted]");
    let human = place.run(["config", "print"]);
    assert!(
        human.stdout.contains("api_url = \"http://from-file:1\""),
        "{}",
        human.stdout
    );
    assert!(!human.stdout.contains("marker"), "{}", human.stdout);
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one_and_exit_code_3() {
    let place = Place::new();
    let file = place.write("other.toml", "[relay]\nlisten_addres = '127.0.0.1:1'\n");
    let file = file.to_string_lossy();
    let ran = place.run(["config", "check", "--config", &file]);
    assert_eq!(ran.code, 3);
    assert!(ran.stdout.is_empty());
    assert!(
        ran.stderr.contains("`relay.listen_addres`") && ran.stderr.contains("`relay.listen`"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains(&*file) && ran.stderr.contains("SKY-6001"),
        "{}",
        ran.stderr
    );

    let ran = place.run(["--json", "config", "check", "--set", "relays.listen=1"]);
    assert_eq!(ran.code, 3);
    let failure = ran.failure();
    assert_eq!(failure["code"], "SKY-6001");
    assert_eq!(failure["exit"], 3);
    assert_eq!(failure["retryable"], false);
    assert!(
        failure["help"]
            .as_str()
            .is_some_and(|help| help.contains("relay.listen")),
        "{failure}"
    );
}

/// Kubernetes tells each container of the Services beside it, and a variable may be there for another program.
#[test]
fn variables_of_others_stop_no_command_and_a_slip_of_the_finger_is_named() {
    let mut place = Place::new();
    for (name, value) in [
        ("SKYTALE_SERVICE_HOST", "10.96.0.7"),
        ("SKYTALE_PORT", "tcp://10.96.0.7:7600"),
        ("SKYTALE_PORT_7600_TCP_ADDR", "10.96.0.7"),
    ] {
        place.set(name, value);
    }
    let ran = place.run(["config", "check"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    place.set("SKYTALE_API_ULR", "http://x");
    let ran = place.run(["config", "check"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("SKYTALE_API_URL").count(), 1, "{}", ran.stderr);
    assert_eq!(place.run(["--quiet", "config", "check"]).stderr, "");
}

/// A setting without effect must not look as if it had one.
#[test]
fn settings_that_a_command_does_not_use_are_refused_by_name() {
    let place = Place::new();
    for (command, key) in [
        (&["dev"][..], "relay.listen=127.0.0.1:1"),
        (&["dev"], "api.listen=127.0.0.1:1"),
        (&["demo"], "relay.retention_s=3"),
        (&["fleet", "up"], "relay.retention_s=3"),
        (&["fleet", "demo"], "bridge.listen=127.0.0.1:1"),
    ] {
        let ran = place.run([command, &["--set", key]].concat());
        let name = key.split('=').next().expect("a key");
        assert_eq!(ran.code, 2, "{command:?}: {}", ran.stderr);
        assert!(
            ran.stderr
                .contains(&format!("does not use the configuration key `{name}`")),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn a_level_with_a_slip_of_the_finger_is_refused_with_the_nearest_one() {
    let mut place = Place::new();
    place.set("SKYTALE_LOG", "debg");
    let ran = place.run(["log", "verify", "nowhere"]);
    assert_eq!(ran.code, 3);
    assert!(ran.stderr.contains("did you mean `debug`?"), "{}", ran.stderr);
}

#[test]
fn init_writes_to_standard_output_what_it_would_write_to_a_file() {
    let place = Place::new();
    let ran = place.run(["config", "init", "--stdout"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(!place.path("skytale.toml").exists());
    place.json(&["config", "init"]);
    let written = std::fs::read_to_string(place.path("skytale.toml")).expect("written");
    assert_eq!(ran.stdout, written);
}

#[test]
fn the_file_that_init_writes_is_private_passes_check_and_is_never_written_over() {
    let place = Place::new();
    assert_eq!(place.json(&["config", "init"])["written"], "skytale.toml");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(place.path("skytale.toml"))
            .expect("there")
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let checked = place.json(&["config", "check"]);
    assert_eq!(checked["ok"], true);
    assert_eq!(checked["file"], "skytale.toml");

    place.write("skytale.toml", "# mine\n");
    let ran = place.run(["config", "init"]);
    assert_eq!(ran.code, 3);
    assert!(ran.stderr.contains("not written over"), "{}", ran.stderr);
    assert_eq!(
        std::fs::read_to_string(place.path("skytale.toml")).expect("there"),
        "# mine\n"
    );
}

#[test]
fn servers_do_not_start_without_what_must_be_set() {
    let place = Place::new();
    for (command, keys) in [
        ("api", ["api.database", "api.url"]),
        ("relay", ["relay.data_dir", "relay.api_url"]),
    ] {
        let ran = place.run([command]);
        assert_eq!(ran.code, 3, "{}", ran.stderr);
        assert!(keys.iter().any(|key| ran.stderr.contains(key)), "{}", ran.stderr);
        assert!(
            ran.stderr.contains("SKYTALE_") && ran.stderr.contains("do:"),
            "{}",
            ran.stderr
        );
    }
    // Everything is there, but the secrets are those of a beginner.
    let ran = place.run([
        "api",
        "--url",
        "http://127.0.0.1:7600",
        "--set",
        "api.database=sqlite:api.db",
        "--set",
        "api.admin_secret=short",
        "--set",
        "api.relay_secret=shorter",
    ]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("`api.admin_secret`") && ran.stderr.contains("openssl rand"),
        "{}",
        ran.stderr
    );
    assert!(!place.path("api.db").exists(), "nothing was begun");
}

#[test]
fn a_log_filter_that_is_none_is_refused() {
    let ran = Place::new().run(["key", "list", "--log", "skytale=loud"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("`skytale=loud`"), "{}", ran.stderr);
}

#[test]
fn a_node_of_a_fleet_stands_in_one_of_its_regions() {
    let place = Place::new();
    place.write(
        "skytale.toml",
        "[relay]\nregion = 7\ndata_dir = 'relay'\napi_url = 'http://127.0.0.1:7600'\n\
         relay_secret = 'rk_live_any'\n[relay.fleet]\nnats = ['nats://127.0.0.1:4222']\n\
         sync_is_always = true\nregions = ['1=8@eu', '2=8@us']\n",
    );
    let ran = place.run(["relay"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    for word in ["`relay.region`", "skytale.toml", "7", "1, 2"] {
        assert!(ran.stderr.contains(word), "no {word}: {}", ran.stderr);
    }
    assert!(!place.path("relay/log").exists(), "nothing was begun");
}
