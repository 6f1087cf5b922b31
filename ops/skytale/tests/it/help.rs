//! A newcomer's first questions.

use crate::process::Place;

/// Every command there is, as its words.
const COMMANDS: &[&str] = &[
    "demo",
    "dev",
    "api",
    "api rewrap-keys",
    "relay",
    "relay enrol",
    "relay enrolments",
    "relay revoke",
    "relay fleet",
    "bridge",
    "fleet",
    "fleet up",
    "fleet demo",
    "fleet nats",
    "fleet keeper",
    "fleet restore",
    "fleet doctor",
    "init",
    "whoami",
    "channel",
    "send",
    "read",
    "tail",
    "chat",
    "pipe",
    "contact",
    "contact add",
    "contact list",
    "contact remove",
    "consent",
    "agents",
    "agents list",
    "agents end",
    "audit",
    "login",
    "logout",
    "profiles",
    "channel create",
    "channel forget",
    "channel chat",
    "channel pipe",
    "channel list",
    "channel label",
    "channel add",
    "channel remove",
    "channel leave",
    "channel requests",
    "channel accept",
    "channel decline",
    "channel members",
    "channel policy",
    "channel promote",
    "channel demote",
    "channel send",
    "channel read",
    "channel tail",
    "channel outbox",
    "channel outbox drop",
    "channel outbox retry",
    "channel problems",
    "channel reboot",
    "channel purge",
    "channel rotate",
    "vault",
    "vault backup",
    "vault restore",
    "vault takeover",
    "key",
    "key create",
    "key list",
    "key revoke",
    "account",
    "account create",
    "log",
    "log verify",
    "log dump",
    "log export",
    "bench",
    "bench capture",
    "bench synth",
    "bench inspect",
    "bench merge",
    "bench compare",
    "config",
    "config init",
    "config check",
    "config print",
    "completions",
    "exit-codes",
];

#[test]
fn every_command_explains_itself() {
    let place = Place::new();
    for command in COMMANDS {
        let ran = place.run(command.split(' ').chain(["--help"]));
        assert_eq!(ran.code, 0, "{command}: {}", ran.stderr);
        assert!(
            ran.stdout.contains(&format!("Usage: skytale {command}")),
            "{command}: {}",
            ran.stdout
        );
        assert!(ran.stderr.is_empty(), "{command}: {}", ran.stderr);
    }
}

#[test]
fn the_list_of_commands_in_this_test_is_whole() {
    let help = Place::new().run(["--help"]).stdout;
    let listed = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // Descriptions that need a second line are further in.
        .filter(|line| !line.starts_with("   "));
    for name in listed
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
    {
        assert!(COMMANDS.contains(&name), "`{name}` is not in the list");
    }
}

#[test]
fn exit_codes_are_documented_where_one_looks_for_them() {
    let place = Place::new();
    for line in [vec!["--help"], vec!["help", "exit-codes"], vec!["exit-codes"]] {
        let ran = place.run(&line);
        assert_eq!(ran.code, 0);
        assert!(
            ran.stdout.contains("Exit codes:") && ran.stdout.contains("130"),
            "{line:?}: {}",
            ran.stdout
        );
    }
}

#[test]
fn a_wrong_line_is_told_on_stderr_with_the_nearest_right_one() {
    let ran = Place::new().run(["chanel", "list"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stdout.is_empty());
    assert!(ran.stderr.contains("channel"), "{}", ran.stderr);

    let ran = Place::new().run(["--json", "chanel"]);
    assert_eq!(ran.code, 2);
    assert_eq!(ran.failure()["code"], "SKY-6004");
}

#[test]
fn completions_are_scripts_that_know_the_commands() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = place.run(["completions", shell]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(
            ran.stdout.contains("whoami") && ran.stdout.contains("rotate"),
            "{shell}"
        );
    }
}

#[test]
fn the_version_is_the_crate_s() {
    assert_eq!(
        Place::new().run(["--version"]).stdout,
        format!("skytale {}\n", env!("CARGO_PKG_VERSION"))
    );
}
