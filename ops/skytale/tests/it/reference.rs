//! The reference in the documentation is what the binary says of itself.

use crate::process::Place;
use std::path::Path;

#[test]
fn generated_pages_are_not_stale() {
    let place = Place::new();
    for (page, command) in [("cli", "cli"), ("configuration", "config")] {
        let ran = place.run(["reference", command]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../docs/reference/{page}.md"));
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == ran.stdout,
            "docs/reference/{page}.md is stale: run ops/docs/generate, and look at the difference"
        );
    }
}

#[test]
fn a_command_that_a_text_shows_and_that_does_not_exist_is_named() {
    let place = Place::new();
    let text = "$ skytale demo --messages 3\nskytale channel lst; echo skytale\n";
    let ran = place.run_with(["reference", "lines"], text.as_bytes());
    assert_eq!(ran.code, 2);
    assert_eq!(ran.stdout.lines().count(), 1, "{}", ran.stdout);
    assert!(ran.stdout.contains("`skytale channel lst`"), "{}", ran.stdout);
    let mentioned = place.run_with(["reference", "lines", "--mentioned"], b"skytale channel\n");
    assert_eq!((mentioned.code, mentioned.stdout.as_str()), (0, ""));
}

#[test]
fn the_reference_is_not_in_the_help() {
    assert!(!Place::new().run(["--help"]).stdout.contains("reference"));
}
