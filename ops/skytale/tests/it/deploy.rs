//! ops/compose and ops/systemd, as their documents say. Where Docker or systemd does not run, their scripts say so and run the
//! commands in namespaces; where those are not allowed either, they say that.

use crate::fleet::nats_server;
use std::path::Path;
use std::process::Command;

fn runs(script: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new("python3")
        .arg(root.join("ops/test").join(script))
        .arg(env!("CARGO_BIN_EXE_skytale"))
        .env("SKYTALE_NATS_SERVER", nats_server())
        .output()
        .expect("python3 runs");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    eprintln!("{stdout}");
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(
        stdout
            .lines()
            .any(|line| line.starts_with("ok:") || line.starts_with("skipped:")),
        "{stdout}\n{stderr}"
    );
}

#[test]
fn the_fleet_of_compose_runs_with_what_prepare_makes_and_agents_talk_over_it() {
    runs("compose");
}

#[test]
fn the_units_run_with_what_their_document_says_to_make() {
    runs("systemd");
}
