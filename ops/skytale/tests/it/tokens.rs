//! `docs/tokens.md`: what it says to do gives a token of a real API.

use crate::node::text;
use crate::process::{Place, Running};
use data_encoding::BASE64URL_NOPAD;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

const CONFIG: &str = "[api]\nadmin.listen = '127.0.0.1:0'\nlisten = '127.0.0.1:0'\nurl = 'http://127.0.0.1:7600'\ndatabase = 'sqlite:api.db'\n\
    admin_secret = 'a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7'\nrelay_secret = 'r5r5r5r5r5r5r5r5r5r5r5r5r5r5r5r5'\n\
    key_encryption_key = 'c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3'\n";

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tokens.md");
    std::fs::read_to_string(path).expect("the page")
}

/// The page's block in a language.
fn block(language: &str) -> String {
    let page = page();
    let (_, rest) = page.split_once(&format!("```{language}\n")).expect("a block");
    rest.split_once("```").expect("its end").0.to_owned()
}

/// Runs an example, and gives the claims of the token that it printed.
fn claims(place: &Place, program: &str, arguments: &[&str]) -> Value {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(place.path("."));
    for (name, value) in place.variables() {
        command.env(name, value);
    }
    let ran = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let told = format!(
        "{}{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
    assert!(ran.status.success(), "{told}");
    let answer: Value = serde_json::from_slice(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {told}"));
    assert!(answer["expires_s"].is_u64() && answer["relays"].is_array(), "{answer}");
    let token = text(&answer["token"]);
    let body = token.split('.').nth(1).expect("claims");
    serde_json::from_slice(&BASE64URL_NOPAD.decode(body.as_bytes()).expect("base64")).expect("JSON")
}

#[test]
fn the_examples_of_the_page_get_a_token() {
    let mut place = Place::new();
    place.write("skytale.toml", CONFIG);
    let mut api = Running::start(place.command(["--json", "api"]), &place.path("api.log"));
    place.set("SKYTALE_API_URL", format!("http://{}", text(&api.json()["address"])));
    place.set("SKYTALE_ADMIN_SECRET", "a7".repeat(16));
    let made = place.json(&["account", "create", "acme"]);
    place.set("SKYTALE_API_KEY", text(&made["key"]["secret"]));

    let shell = format!("set -euo pipefail\n{}", block("sh"));
    let first = claims(&place, "bash", &["-c", &shell]);
    let again = claims(&place, "bash", &["-c", &shell]);
    assert_eq!(
        (&first["sub"], &first["cnf"]),
        (&again["sub"], &again["cnf"]),
        "the keys are kept"
    );
    assert_ne!(first["jti"], again["jti"]);
    let python = claims(&place, &python(), &["-c", &block("python")]);
    for claims in [&first, &python] {
        assert_eq!(claims["acct"], made["account"]);
        assert_eq!(claims["key"], made["key"]["key"]["id"]);
        assert_eq!(text(&claims["cnf"]["eid"]).len(), 64);
        // The page's table names every claim.
        for claim in claims.as_object().expect("claims").keys() {
            assert!(page().contains(&format!("`{claim}")), "{claim}");
        }
    }
    assert_eq!(api.stop("TERM").0, 0);
}

/// A Python with `cryptography`: the test command's, or the system's.
fn python() -> String {
    std::env::var("SKYTALE_CRYPTOGRAPHY_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

#[test]
fn the_page_has_the_documents_test_vector() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../api/openapi.json");
    let document: Value = serde_json::from_slice(&std::fs::read(path).expect("the document")).expect("JSON");
    let described = text(&document["paths"]["/v1/token"]["post"]["description"]);
    let page = page();
    let rows = page.lines().filter(|line| {
        ["| `agent` | ", "| `endpoint` | ", "| `signature` | "]
            .iter()
            .any(|row| line.starts_with(row))
    });
    let rows: Vec<_> = rows.collect();
    assert_eq!(rows.len(), 3);
    for row in rows {
        assert!(described.contains(row), "{row}");
    }
}
