//! Signing keys are encrypted under another key encryption key, and no token stops working for it.

use crate::agent::{TestAgent, random};
use crate::database::{Backend, Database};
use crate::harness::{ADMIN, KEK, NOTHING, TestApi, config, on_both};
use reqwest::Method;
use secrecy::SecretString;
use serde_json::json;
use skytale_api::{Api, KeyEncryptionKey, RewrapError, Rewrapped, rewrap_signing_keys};
use skytale_proto::Code;
use skytale_proto::rest::Jwks;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;
use zeroize::Zeroizing;

const DATABASE: &str = "SKYTALE_TEST_REWRAP_DATABASE";
const REWRAPPED: &str = "REWRAPPED";
const OTHER: [u8; 32] = [0x5b; 32];

fn key(bytes: [u8; 32]) -> KeyEncryptionKey {
    KeyEncryptionKey::from_bytes(Zeroizing::new(bytes))
}

async fn rewrap(database: &Database, old: [u8; 32], new: [u8; 32]) -> Result<Rewrapped, RewrapError> {
    rewrap_signing_keys(&SecretString::from(database.url.as_str()), &key(old), &key(new)).await
}

/// The ids of the keys that an API gives out which is started with this key encryption key; nothing where it does not
/// start.
async fn kids(database: &Database, bytes: [u8; 32]) -> Option<Vec<String>> {
    let mut config = config(database);
    config.key_encryption_key = Some(key(bytes));
    match Api::start(config).await {
        Ok(api) => {
            let client = crate::harness::Client::new(format!("http://{}", api.local_addr()));
            let kids = client.jwks().await.keys.into_iter().map(|key| key.kid).collect();
            api.shutdown().await;
            Some(kids)
        }
        Err(error) => {
            assert_eq!(error.code(), Code::Config, "{error}");
            None
        }
    }
}

on_both! {
    async fn signing_keys_go_under_another_key_while_tokens_are_given(backend: Backend) {
        let api = TestApi::start(backend).await;
        let account = api.account("acme").await.key.secret;
        let agent = TestAgent::new();
        let before = api.token(&account, &agent).await;
        let rotated: Jwks = api.post("/v1/signing-keys", ADMIN, &json!({})).await.ok();

        let one = Rewrapped { rewrapped: 1, already: 0 };
        assert_eq!(rewrap(&api.database, KEK, OTHER).await.unwrap(), one);
        assert_eq!(rewrap(&api.database, KEK, OTHER).await.unwrap(), Rewrapped { rewrapped: 0, already: 1 });

        // This process still has the old key: it gives tokens, also when it has looked again, and rotates no more.
        api.token(&account, &agent).await;
        api.post("/v1/signing-keys", ADMIN, &json!({})).await.refused(Code::Conflict);
        let during = api.token(&account, &agent).await;
        assert_eq!(api.jwks().await, rotated);
        assert_eq!(kids(&api.database, KEK).await, None, "a process with the old key does not start");

        let next = api.another_with(|config| config.key_encryption_key = Some(key(OTHER))).await;
        assert_eq!(next.jwks().await, rotated);
        for token in [&before, &during, &next.token(&account, &agent).await] {
            assert!(next.verifier().await.verify(&token.token, next.now_s()).is_ok());
        }
        let again: Jwks = next.post("/v1/signing-keys", ADMIN, &json!({})).await.ok();
        assert_eq!(again.keys.len(), 3);
        // The process with the old key cannot read what signs now. It gives no token by a key that has been retired.
        let is_ready = async || api.try_call(Method::GET, "/readyz", None, NOTHING).await.unwrap().status.is_success();
        while is_ready().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        api.ask_token(&account, &agent).await.refused(Code::ApiInternal);
        next.token(&account, &agent).await;
        next.stop().await;
        api.stop().await;
    }

    async fn a_wrong_key_changes_nothing(backend: Backend) {
        let api = TestApi::start(backend).await;
        let kid = api.jwks().await.keys[0].kid.clone();
        let database = api.stop().await;
        let error = rewrap(&database, [1; 32], OTHER).await.unwrap_err();
        assert!(matches!(&error, RewrapError::WrongKey { kid: named } if *named == kid), "{error}");
        assert_eq!(error.code(), Code::Config);
        let error = rewrap(&database, KEK, KEK).await.unwrap_err();
        assert!(matches!(error, RewrapError::SameKey));
        assert_eq!(kids(&database, KEK).await, Some(vec![kid]));
        assert_eq!(kids(&database, OTHER).await, None);
    }

    async fn it_is_one_or_the_other_when_it_is_killed(backend: Backend) {
        let api = TestApi::start(backend).await;
        let kid = api.jwks().await.keys[0].kid.clone();
        let database = api.stop().await;
        for _ in 0..4 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "rewrap::rewraps_without_end", "--nocapture", "--test-threads=1"])
                .env(DATABASE, &database.url)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            tokio::task::spawn_blocking(move || {
                let rewrapped = lines.by_ref().map_while(Result::ok).filter(|line| line.contains(REWRAPPED));
                assert_eq!(rewrapped.take(3).count(), 3, "it rewraps");
                // Later lines are read too: a full pipe would stop the process.
                std::thread::spawn(move || lines.for_each(drop));
            })
            .await
            .unwrap();
            tokio::time::sleep(Duration::from_micros(u64::from(random::<1>()[0]) * 100)).await;
            child.kill().unwrap();
            child.wait().unwrap();
            database.until_idle().await;
            let (one, other) = (kids(&database, KEK).await, kids(&database, OTHER).await);
            assert_ne!(one.is_some(), other.is_some(), "under exactly one of the two");
            assert_eq!(one.or(other), Some(vec![kid.clone()]));
        }
    }
}

/// Work of the child. Among the tests of the parent it has nothing to do.
#[test]
fn rewraps_without_end() {
    let Ok(url) = std::env::var(DATABASE) else { return };
    let database = Database::at(url);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        loop {
            // One of the two is not needed, the first time.
            for (old, new) in [(KEK, OTHER), (OTHER, KEK)] {
                rewrap(&database, old, new).await.unwrap();
                println!("{REWRAPPED}");
            }
        }
    });
}

#[tokio::test]
async fn where_there_is_no_database_none_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing.db");
    let database = Database::at(format!("sqlite:{}", path.display()));
    let error = rewrap(&database, KEK, OTHER).await.unwrap_err();
    assert_eq!(error.code(), Code::Environment);
    assert!(!path.exists());
    let error = rewrap(&Database::at("mysql://h/n".to_owned()), KEK, OTHER)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Config);
}
