//! A node whose clock is not the API's.

use crate::admin::get;
use crate::api::{TestApi, enrolment_key};
use crate::client::{Agent, Client, soon};
use crate::fixture::{Fixture, config, create};
use skytale_log_store::MemoryStore;
use skytale_proto::session::{control_event::Event, notice};
use skytale_proto::{ChannelId, Code};
use skytale_relay_node::RelayConfig;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const HOUR_S: i64 = 3_600;

/// A token as the API gives it out, by its clock.
fn token(fixture: &Fixture, agent: &Agent, ahead_s: i64) -> String {
    let mut claims = fixture.claims(agent);
    claims.iat = claims.iat.saturating_add_signed(ahead_s);
    claims.exp = claims.exp.saturating_add_signed(ahead_s);
    fixture.signer.sign(&claims)
}

/// A session under a token of the API's, or why there is none.
async fn start(fixture: &Fixture, ahead_s: i64, last_resort: bool) -> Result<(Agent, Client), Option<Code>> {
    let agent = Box::pin(Agent::new()).await;
    let token = token(fixture, &agent, ahead_s);
    let relay = fixture.relay();
    match Box::pin(Client::start_as(&agent, &relay, &token, last_resort)).await {
        Ok(client) => Ok((agent, client)),
        Err(refused) => Err(refused.refusal.and_then(|refusal| refusal.known_code())),
    }
}

/// The same, once the node has keys and revocations.
async fn started(fixture: &Fixture, ahead_s: i64, last_resort: bool) -> Result<(Agent, Client), Option<Code>> {
    soon(Box::pin(async {
        loop {
            match start(fixture, ahead_s, last_resort).await {
                Err(Some(Code::TrustStale)) => tokio::time::sleep(Duration::from_millis(20)).await,
                outcome => return outcome,
            }
        }
    }))
    .await
}

async fn enrolled(api: &TestApi, folder: &tempfile::TempDir) -> Fixture {
    let config = RelayConfig {
        secret_key_file: Some(folder.path().join("relay.key")),
        ..config()
    };
    let source = api.source_with(&enrolment_key(1));
    api.fixture_over(config, Arc::new(MemoryStore::new()), source).await
}

async fn is_apart(api: &TestApi, ahead_s: i64) {
    let folder = tempfile::tempdir().expect("a folder");
    api.set_clock(ahead_s);
    let fixture = enrolled(api, &folder).await;
    // Those who have another node to go to are sent there, with a code that says so; and the directory learns of it.
    let refused = started(&fixture, ahead_s, false).await.map(|_| ());
    assert_eq!(refused, Err(Some(Code::ClockWrong)));
    assert!(Code::ClockWrong.is_retryable());
    let so_far = api.known.said.lock().len();
    api.heartbeat(so_far, |heartbeat| heartbeat.draining).await;
    let (status, body) = get(&fixture, "/readyz").await;
    assert_eq!((status, body["reasons"][0]["check"].as_str()), (503, Some("clock")));
    let detail = body["reasons"][0]["detail"].as_str().expect("a text");
    let way = if ahead_s > 0 {
        "s behind the API's"
    } else {
        "s ahead of the API's"
    };
    assert!(detail.contains(way) && detail.contains("set it right"), "{detail}");

    // Those who have none are served, by the clock of whoever signed their token, and asked to look again.
    let (agent, mut client) = started(&fixture, ahead_s, true).await.expect("a session");
    let created = client.append(&create(ChannelId::generate(), agent.id)).await;
    assert_eq!(created.expect("created").offset, 1);
    let told_ms = i128::from(client.started.time_ms) - i128::from(crate::fixture::now_s()) * 1_000;
    assert!((told_ms - i128::from(ahead_s) * 1_000).abs() < 600_000, "{told_ms}");
    let Event::Notice(told) = client.event().await.expect("an event") else {
        panic!("a notice");
    };
    assert_eq!(told.kind(), notice::Kind::Elsewhere);
    // A token of another time has ended, or has not begun.
    let by_own_clock = if ahead_s > 0 {
        Code::TokenExpired
    } else {
        Code::TokenNotYet
    };
    assert_eq!(started(&fixture, 0, true).await.map(|_| ()), Err(Some(by_own_clock)));

    // The clocks agree again: the node is one like any, by itself.
    api.set_clock(0);
    let so_far = api.known.said.lock().len();
    api.heartbeat(so_far, |heartbeat| !heartbeat.draining).await;
    // The API's last report is an hour old by the clock that was set right, until it reports again.
    soon(async {
        while get(&fixture, "/readyz").await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let (_agent, _client) = started(&fixture, 0, false).await.expect("a session");
    soon(fixture.node.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_an_hour_behind_sends_agents_elsewhere_and_serves_those_with_nowhere_to_go() {
    is_apart(&TestApi::start().await, HOUR_S).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_an_hour_ahead_sends_agents_elsewhere_and_serves_those_with_nowhere_to_go() {
    is_apart(&TestApi::start().await, -HOUR_S).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_few_seconds_are_nothing_and_an_answer_out_of_a_cache_tells_no_time() {
    let api = TestApi::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    api.set_clock(12);
    let fixture = enrolled(&api, &folder).await;
    assert!(started(&fixture, 12, false).await.is_ok());
    api.known.cached.store(true, Ordering::SeqCst);
    api.set_clock(-HOUR_S);
    api.asked_again(3).await;
    assert!(started(&fixture, 12, false).await.is_ok());
    assert_eq!(get(&fixture, "/readyz").await.0, 200);
    soon(fixture.node.shutdown()).await;
}
