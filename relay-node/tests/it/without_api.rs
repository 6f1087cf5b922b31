//! The API is away: what a relay node does then, for how long, and what it knows after a restart.

use crate::admin;
use crate::api::{TestApi, eventually};
use crate::client::{Agent, Client, closed, soon};
use crate::fixture::{Fixture, config, create};
use axum::http::StatusCode;
use skytale_log_store::MemoryStore;
use skytale_proto::session::control_event::Event;
use skytale_proto::token::TokenSigner;
use skytale_proto::{ChannelId, Code, KeyId};
use skytale_relay_node::{RelayConfig, TrustConfig};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tempfile::TempDir;

/// Waits until `/readyz` has this status and its body is as wanted.
async fn ready(fixture: &Fixture, status: u16, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    soon(async {
        loop {
            let (now, body) = admin::get(fixture, "/readyz").await;
            if now == status && wanted(&body) {
                return body;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

fn kept_in(folder: &Path, config: RelayConfig) -> RelayConfig {
    RelayConfig {
        data_dir: Some(folder.to_owned()),
        secret_key_file: Some(folder.join("relay.key")),
        ..config
    }
}

/// A node whose memory of the API lies in a folder, once it has something to remember.
async fn remembering(api: &TestApi, config: RelayConfig) -> (Fixture, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let fixture = api.fixture(kept_in(folder.path(), config)).await;
    eventually(&fixture, &Agent::new().await).await.leave();
    let knows = || {
        let kept = std::fs::read_to_string(folder.path().join("trust"));
        kept.is_ok_and(|text| text.contains(fixture.signer.kid()))
    };
    soon(async {
        while !knows() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    (fixture, folder)
}

/// The same node again, while the API is away.
async fn again(api: &TestApi, before: Fixture, folder: &Path, config: RelayConfig) -> Fixture {
    api.known.down.store(true, Ordering::SeqCst);
    let (key, account) = (before.key, before.account);
    soon(before.node.shutdown()).await;
    let mut fixture = api.fixture(kept_in(folder, config)).await;
    (fixture.key, fixture.account) = (key, account);
    fixture
}

async fn refused(fixture: &Fixture, agent: &Agent) -> Option<Code> {
    let started = Client::start(agent, &fixture.relay(), &fixture.token(agent)).await;
    started.err().expect("refused").closed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_is_away_stops_nobody_where_the_operator_says_so() {
    let api = TestApi::start().await;
    let mut config = config();
    config.trust.revocations_stale_after_ms = 300;
    // As long as a token from before can be in force: an hour, and what clocks differ by.
    config.trust.serve_without_api_ms = 3_660_000;
    let fixture = api.fixture(config).await;
    let (agent, other) = (Agent::new().await, Agent::new().await);
    let mut client = eventually(&fixture, &agent).await;
    let chosen = |body: &serde_json::Value| {
        let detail = body["remarks"][0]["detail"].as_str().unwrap_or_default();
        detail.contains("serve_without_api_ms is 3660000") && body["remarks"].as_array().map(Vec::len) == Some(1)
    };
    ready(&fixture, 200, chosen).await;

    api.known.down.store(true, Ordering::SeqCst);
    let body = ready(&fixture, 200, |body| {
        body["remarks"].as_array().map(Vec::len) == Some(2)
    })
    .await;
    assert_eq!(body["remarks"][0]["check"], "trust", "{body}");
    let detail = body["remarks"][0]["detail"].as_str().expect("text");
    assert!(detail.starts_with("the API has not told revocations for "), "{detail}");
    fixture.channel(&agent, &client).await;
    let late = Client::start(&other, &fixture.relay(), &fixture.token(&other)).await;
    fixture.channel(&other, &late.expect("a session")).await;
    client.refresh(fixture.token(&agent)).await.expect("sent");
    assert!(matches!(
        client.event().await.expect("an event"),
        Event::TokenAccepted(_)
    ));

    api.known.down.store(false, Ordering::SeqCst);
    ready(&fixture, 200, chosen).await;
}

#[test]
fn by_default_a_revoked_key_is_out_within_30_s_and_the_choice_is_bounded() {
    let default = TrustConfig::default();
    assert_eq!(default.serve_without_api_ms, 30_000);
    assert!(
        default.revocations_stale_after_ms < default.serve_without_api_ms,
        "the operator reads of it before"
    );
    let longer = |ms| {
        let mut config = config();
        config.trust.serve_without_api_ms = ms;
        config.check()
    };
    assert!(longer(3_660_000).is_ok());
    assert!(longer(3_660_001).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_may_not_serve_without_the_api_ends_its_sessions_and_starts_none() {
    let api = TestApi::start().await;
    let mut config = config();
    config.trust.serve_without_api_ms = 500;
    let fixture = api.fixture(config).await;
    let agent = Agent::new().await;
    let mut client = eventually(&fixture, &agent).await;
    api.known.down.store(true, Ordering::SeqCst);
    assert_eq!(client.refused().await, Some(Code::TrustStale));
    assert_eq!(closed(&client.connection).await, Some(Code::TrustStale));
    assert_eq!(refused(&fixture, &agent).await, Some(Code::TrustStale));
    let body = ready(&fixture, 503, |_| true).await;
    assert_eq!(body["reasons"][0]["check"], "trust", "{body}");
    api.known.down.store(false, Ordering::SeqCst);
    soon(Box::pin(async {
        loop {
            let client = eventually(&fixture, &agent).await;
            match client.try_append(&create(ChannelId::generate(), agent.id)).await {
                Ok(created) => return assert_eq!(created.expect("created").offset, 1),
                // The node heard from the API too late once more, on a busy machine.
                Err(gone) => assert_eq!(closed(&client.connection).await, Some(Code::TrustStale), "{gone:?}"),
            }
        }
    }))
    .await;
    ready(&fixture, 200, |_| true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_restarts_while_the_api_is_away_knows_keys_and_revocations() {
    let api = TestApi::start().await;
    let (fixture, folder) = remembering(&api, config()).await;
    let (agent, doomed) = (Agent::new().await, Agent::new().await);
    let key = KeyId::generate();
    let mut claims = fixture.claims(&doomed);
    claims.key = key;
    let mut revoked = fixture.session(&doomed, &claims).await;
    api.revoke(key);
    assert_eq!(revoked.refused().await, Some(Code::TokenRevoked));
    // Two more rounds: what the first of them told is kept.
    api.asked_again(3).await;

    let fixture = again(&api, fixture, folder.path(), config()).await;
    let client = Client::start(&agent, &fixture.relay(), &fixture.token(&agent)).await;
    fixture.channel(&agent, &client.expect("a session")).await;
    let token = fixture.signer.sign(&claims);
    let refused = Client::start(&doomed, &fixture.relay(), &token).await.err();
    assert_eq!(refused.expect("refused").closed, Some(Code::TokenRevoked));
    ready(&fixture, 200, |_| true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_is_worth_nothing_when_it_is_changed_or_too_old() {
    let api = TestApi::start().await;
    let (fixture, folder) = remembering(&api, config()).await;
    let agent = Agent::new().await;
    let file = folder.path().join("trust");
    let good = std::fs::read(&file).expect("the file");

    // A key of somebody who can write the folder, in the place of the API's.
    let forger = TokenSigner::generate();
    let text = String::from_utf8(good.clone()).expect("text");
    let forged = text.replace(&fixture.signer.jwk().x, &forger.jwk().x);
    let forged = forged.replace(fixture.signer.kid(), forger.kid());
    assert_ne!(forged, text);
    api.known.down.store(true, Ordering::SeqCst);
    let (key, account) = (fixture.key, fixture.account);
    soon(fixture.node.shutdown()).await;
    std::fs::write(&file, forged).expect("written");
    let mut fixture = api.fixture(kept_in(folder.path(), config())).await;
    (fixture.key, fixture.account) = (key, account);
    let token = forger.sign(&fixture.claims(&agent));
    let forged = Client::start(&agent, &fixture.relay(), &token).await.err();
    assert_eq!(forged.expect("refused").closed, Some(Code::TrustStale));
    assert_eq!(refused(&fixture, &agent).await, Some(Code::TrustStale));
    ready(&fixture, 503, |_| true).await;

    // An older one is worth what it would be to a node that has run all the time.
    soon(fixture.node.shutdown()).await;
    std::fs::write(&file, good).expect("written");
    let mut config = config();
    config.trust.serve_without_api_ms = 200;
    let mut fixture = api.fixture(kept_in(folder.path(), config)).await;
    (fixture.key, fixture.account) = (key, account);
    soon(async {
        loop {
            match Client::start(&agent, &fixture.relay(), &fixture.token(&agent)).await {
                Ok(client) => client.leave(),
                Err(refused) => return assert_eq!(refused.closed, Some(Code::TrustStale)),
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_node_does_not_come_back_by_a_restart_while_the_api_is_away() {
    let api = TestApi::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let source = || api.source_with(&crate::api::enrolment_key(1));
    let config = || kept_in(folder.path(), config());
    let fixture = api.fixture_over(config(), Arc::new(MemoryStore::new()), source()).await;
    let agent = Agent::new().await;
    let mut client = eventually(&fixture, &agent).await;
    *api.known.refusing.lock() = Some((StatusCode::UNAUTHORIZED, Code::EnrolmentRevoked));
    assert_eq!(client.refused().await, Some(Code::RelayBarred));
    api.known.down.store(true, Ordering::SeqCst);
    soon(fixture.node.shutdown()).await;
    let fixture = api.fixture_over(config(), Arc::new(MemoryStore::new()), source()).await;
    assert_eq!(refused(&fixture, &agent).await, Some(Code::TrustStale));
}
