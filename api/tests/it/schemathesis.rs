//! Schemathesis (PyPI) makes requests out of the OpenAPI document, well-formed ones and others, and finds no answer that the
//! document does not promise.

use crate::database::Backend;
use crate::harness::{ADMIN, RELAY, TestApi};
use crate::relay::TestRelay;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program: the test command installs it.
fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("SKYTALE_SCHEMATHESIS") {
        return program.into();
    }
    let home = PathBuf::from(std::env::var_os("HOME").expect("a home"));
    home.join(".cache/skytale-test/schemathesis-4.32.5/bin/schemathesis")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_answers_as_its_document_says() {
    let api = TestApi::start_with(Backend::Postgres, |config| {
        config.limits.keys_max = 100_000;
        config.limits.enrolments_max = 10_000;
    })
    .await;
    let account = api.account("acme").await;
    let node = TestRelay::enrol(&api, "node").await;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let settings = here.join("../ops/test/schemathesis");
    let folder = tempfile::tempdir().unwrap();
    let rounds: u32 = std::env::var("SKYTALE_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap());
    let program = program();
    let mut command = Command::new(&program);
    command
        .current_dir(folder.path())
        .arg("--config-file")
        .arg(settings.join("schemathesis.toml"))
        .arg("run")
        .arg(here.join("openapi.json"))
        .args([
            "--url",
            &api.base,
            "--seed",
            "1",
            "--max-examples",
            &(10 * rounds).to_string(),
        ])
        .env("SKYTALE_HOOKS", settings.join("hooks.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SKYTALE_ORG", "acme")
        .env("SKYTALE_API_KEY", &account.key.secret)
        .env("SKYTALE_API_KEY_ID", account.key.key.id.to_string())
        .env("SKYTALE_ENROLMENT_KEY", node.key())
        .env("SKYTALE_ENROLMENT_ID", node.made.enrolment.id.to_string())
        .env("SKYTALE_ADMIN_SECRET", ADMIN)
        .env("SKYTALE_RELAY_SECRET", RELAY);
    let ran = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let ran = ran.unwrap_or_else(|error| panic!("{}: {error}: `ops/test/run test` installs it", program.display()));
    let told = format!(
        "{}{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
    assert!(ran.status.success(), "{told}");
    // Every operation was asked something, and the requests were let in.
    assert!(told.contains("Tested: 28"), "{told}");
    let keys: skytale_proto::rest::Keys = api.get("/v1/keys", &account.key.secret).await.ok();
    assert!(keys.keys.len() > 5, "{} keys were made", keys.keys.len());
    api.stop().await;
}
