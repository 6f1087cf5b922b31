//! A node's place in the relay directory.

use crate::admin;
use crate::api::{Said, TestApi, enrolment_key, eventually};
use crate::client::{Agent, Client, closed, soon};
use crate::fixture::{Fixture, config, create, message};
use axum::http::StatusCode;
use skytale_log_store::faulty::{FaultyStore, Way};
use skytale_log_store::{LogStore, MemoryStore, Readiness, StoreError};
use skytale_proto::rest::{ShardLag, Twin};
use skytale_proto::{ChannelId, Code, Offset};
use skytale_relay_node::{RelayConfig, RelayNode, StartError};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tempfile::TempDir;

/// Interval so long that a test does not see a heartbeat that is due by time.
const NEVER_MS: u64 = 3_600_000;

async fn enrolled_over(api: &TestApi, config: RelayConfig, store: Arc<dyn LogStore>) -> (Fixture, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let config = RelayConfig {
        secret_key_file: Some(folder.path().join("relay.key")),
        ..config
    };
    let source = api.source_with(&enrolment_key(1));
    (api.fixture_over(config, store, source).await, folder)
}

async fn enrolled(api: &TestApi, config: RelayConfig) -> (Fixture, TempDir) {
    enrolled_over(api, config, Arc::new(MemoryStore::new())).await
}

/// Waits until a node has said that it is gone, which it does not wait for; what was said until then.
async fn until_removed(api: &TestApi) -> Vec<Said> {
    api.hears(|said| matches!(said.last(), Some(Said::Removed(_))).then(|| said.to_vec()))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_shared_secret_a_node_registers_and_sends_no_heartbeat() {
    let api = TestApi::start().await;
    let mut config = config();
    config.region = 3;
    config.advertise = vec!["192.0.2.7:4433".into()];
    let fixture = api.fixture(config).await;
    let id = fixture.node.endpoint_id();
    soon(async {
        while !api.known.relays.lock().contains_key(&id) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let relay = api.known.relays.lock()[&id].clone();
    assert_eq!((relay.region, relay.addresses), (3, vec!["192.0.2.7:4433".to_owned()]));
    soon(fixture.node.shutdown()).await;
    assert_eq!(api.known.heartbeats_asked.load(Ordering::SeqCst), 0);
    assert_eq!(*api.known.said.lock(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enrolled_node_tells_everything_again_and_again_and_says_when_it_goes() {
    let api = TestApi::start().await;
    let mut config = config();
    config.region = 3;
    config.advertise = vec!["192.0.2.7:4433".into(), "[2001:db8::7]:4433".into()];
    config.limits.connections_max = 77;
    let (fixture, _folder) = enrolled(&api, config).await;
    let id = fixture.node.endpoint_id();
    let first = api.heartbeat(0, |_| true).await;
    assert_eq!((first.region, first.draining), (3, false));
    assert_eq!(first.addresses, ["192.0.2.7:4433", "[2001:db8::7]:4433"]);
    assert_eq!(first.version, env!("CARGO_PKG_VERSION"));
    assert_eq!((first.load.agents, first.load.agents_max), (0, 77));
    assert_eq!(first.load.lag, []);

    // Each carries what it has to do.
    let agent = Agent::new().await;
    let client = eventually(&fixture, &agent).await;
    let channel = fixture.channel(&agent, &client).await;
    let mut appends = client.appends().await;
    let working = async {
        for n in 0u64.. {
            let frame = message(channel, agent.id, 1, format!("{n}"));
            appends.send(&frame).await.expect("sent");
            assert_eq!(appends.verdict().await, None);
            let replayed = client.replay(channel.log(), Offset::new(n)).await;
            assert_eq!(replayed.entries.len(), 2);
        }
    };
    let told = api.heartbeat(1, |heartbeat| {
        let load = &heartbeat.load;
        load.agents == 1 && load.appends_per_second > 0 && load.reads_per_second > load.appends_per_second
    });
    tokio::select! {
        _ = told => {}
        () = working => {}
    }
    client.leave();
    let so_far = api.known.said.lock().len();
    api.heartbeat(so_far, |heartbeat| {
        heartbeat.load.agents == 0 && heartbeat.load.appends_per_second == 0
    })
    .await;

    soon(fixture.node.shutdown()).await;
    let said = until_removed(&api).await;
    assert_eq!(said.last(), Some(&Said::Removed(id)));
    let of_this_node = |said: &Said| matches!(said, Said::Heartbeat(endpoint, _) if *endpoint == id);
    assert!(said[..said.len() - 1].iter().all(of_this_node), "{said:?}");
    assert!(api.known.relays.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_is_told_at_once() {
    let api = TestApi::start().await;
    api.known.next_ms.store(NEVER_MS, Ordering::SeqCst);
    let (fixture, _folder) = enrolled(&api, config()).await;
    assert!(!api.heartbeat(0, |_| true).await.draining);
    soon(fixture.node.drain(Duration::from_secs(30))).await;
    api.heartbeat(1, |heartbeat| heartbeat.draining).await;
    soon(fixture.node.shutdown()).await;
    until_removed(&api).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_stops_sends_agents_elsewhere_at_once() {
    let api = TestApi::start().await;
    api.known.next_ms.store(NEVER_MS, Ordering::SeqCst);
    let store = Arc::new(MemoryStore::new());
    let (_fixture, _folder) = enrolled_over(&api, config(), store.clone()).await;
    assert!(!api.heartbeat(0, |_| true).await.draining);
    store.stop("the disk failed");
    api.heartbeat(1, |heartbeat| heartbeat.draining).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_store_is_not_ready_comes_up_and_says_so_and_is_ready_by_itself() {
    let api = TestApi::start().await;
    let store = FaultyStore::new();
    store.stands(Readiness {
        problems: vec!["no NATS server is connected".into()],
        ..Readiness::default()
    });
    store.reads(Way::Refused(StoreError::CatchingUp { home: "0/0".into() }));
    store.appends(Way::Refused(StoreError::HomeUnreachable {
        home: "0/0".into(),
        reason: "no answer".into(),
    }));
    let (fixture, _folder) = enrolled_over(&api, config(), store.clone()).await;
    // The operator sees why, and agents are sent elsewhere from the first heartbeat on.
    assert!(api.heartbeat(0, |_| true).await.draining);
    let agent = Agent::new().await;
    let client = eventually(&fixture, &agent).await;
    let (status, body) = admin::get(&fixture, "/readyz").await;
    let reason = serde_json::json!([{ "check": "store", "detail": "no NATS server is connected" }]);
    assert_eq!((status, &body["reasons"]), (503, &reason), "{body}");
    // An agent that comes all the same learns that it may retry, and when.
    let channel = ChannelId::generate();
    let create = create(channel, agent.id);
    let refused = client.append(&create).await.expect_err("refused");
    assert_eq!(refused.known_code(), Some(Code::HomeUnreachable));
    assert!(refused.retryable && refused.retry_after_ms > 0, "{refused:?}");
    let replayed = client.replay(agent.id.log(), Offset::ZERO).await;
    assert_eq!(replayed.code(), Some(Code::CatchingUp));

    store.reads(Way::Through);
    store.appends(Way::Through);
    store.stands(Readiness::default());
    let (status, body) = admin::get(&fixture, "/readyz").await;
    assert_eq!((status, &body["reasons"]), (200, &serde_json::json!([])), "{body}");
    let so_far = api.known.said.lock().len();
    api.heartbeat(so_far, |heartbeat| !heartbeat.draining).await;
    // The same session, and nothing was done to it.
    assert_eq!(client.append(&create).await.expect("appended").offset, 1);
    assert_eq!(client.replay(channel.log(), Offset::ZERO).await.offsets(), [1]);
    soon(fixture.node.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_behind_says_how_far_to_the_directory_and_to_whoever_asks() {
    let api = TestApi::start().await;
    let store = FaultyStore::new();
    let lag = |messages| {
        let shard = |shard, messages| ShardLag {
            region: 2,
            shard,
            messages,
        };
        vec![shard(0, 1), shard(1, messages)]
    };
    let readiness = |problem: &[&str], messages| Readiness {
        problems: problem.iter().map(|text| (*text).to_owned()).collect(),
        remarks: vec!["a region does not answer".into()],
        lag: lag(messages),
    };
    store.stands(readiness(&["catching up"], 90_000));
    let (fixture, _folder) = enrolled_over(&api, config(), store.clone()).await;
    eventually(&fixture, &Agent::new().await).await.leave();
    assert_eq!(api.heartbeat(0, |_| true).await.load.lag, lag(90_000));
    let (status, body) = admin::get(&fixture, "/readyz").await;
    let checks = |body: &serde_json::Value| {
        let reasons = body["reasons"].as_array().expect("reasons");
        reasons.iter().map(|reason| reason["check"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        (status, checks(&body)),
        (503, vec!["store".into(), "store".into()]),
        "{body}"
    );
    assert_eq!(body["reasons"][0]["detail"], "catching up");
    let detail = body["reasons"][1]["detail"].as_str().expect("text");
    assert!(detail.contains("90000 messages in shard 2/1"), "{detail}");
    assert_eq!(body["lag"][1]["messages"], 90_000);

    store.stands(readiness(&[], 10_000));
    let (status, body) = admin::get(&fixture, "/readyz").await;
    assert_eq!((status, checks(&body)), (200, vec![]), "{body}");
    assert_eq!(body["remarks"][0]["detail"], "a region does not answer");
    let so_far = api.known.said.lock().len();
    api.heartbeat(so_far, |heartbeat| heartbeat.load.lag == lag(10_000))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_the_directory_does_not_hear_says_so_and_comes_back_by_itself() {
    let api = TestApi::start().await;
    // Longer than any test: what comes after a failure comes by the retry.
    api.known.next_ms.store(NEVER_MS, Ordering::SeqCst);
    api.known.down.store(true, Ordering::SeqCst);
    let (fixture, _folder) = enrolled(&api, config()).await;
    soon(async {
        while api.known.heartbeats_asked.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let (_, body) = admin::get(&fixture, "/readyz").await;
    assert_eq!(body["remarks"][0]["check"], "directory", "{body}");
    api.known.down.store(false, Ordering::SeqCst);
    api.heartbeat(0, |_| true).await;
    soon(async {
        while admin::get(&fixture, "/readyz").await.1["remarks"] != serde_json::json!([]) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_enrolment_was_revoked_serves_nobody_until_the_api_lets_it() {
    let api = TestApi::start().await;
    let (fixture, _folder) = enrolled(&api, config()).await;
    let (agent, other) = (Agent::new().await, Agent::new().await);
    let mut client = eventually(&fixture, &agent).await;
    fixture.channel(&agent, &client).await;
    *api.known.refusing.lock() = Some((StatusCode::UNAUTHORIZED, Code::EnrolmentRevoked));
    assert_eq!(client.refused().await, Some(Code::RelayBarred));
    assert_eq!(closed(&client.connection).await, Some(Code::RelayBarred));
    let refused = Client::start(&other, &fixture.relay(), &fixture.token(&other)).await;
    let refused = refused.err().expect("refused");
    assert_eq!(refused.closed, Some(Code::RelayBarred));
    // Agents know by it to go elsewhere, and to leave this one alone.
    let refusal = refused.refusal.expect("a refusal");
    assert!(refusal.retryable && refusal.retry_after_ms > 0, "{refusal:?}");
    let (status, body) = admin::get(&fixture, "/readyz").await;
    assert_eq!(
        (status, &body["reasons"][0]["check"]),
        (503, &"enrolment".into()),
        "{body}"
    );
    let detail = body["reasons"][0]["detail"].as_str().expect("text");
    assert!(
        detail.contains("SKY-4021") && detail.contains("skytale relay enrol"),
        "{detail}"
    );

    // The API's database was put back to before that, say.
    *api.known.refusing.lock() = None;
    soon(async {
        loop {
            match Client::start(&other, &fixture.relay(), &fixture.token(&other)).await {
                Ok(client) => return fixture.channel(&other, &client).await,
                Err(refused) => assert_eq!(refused.closed, Some(Code::RelayBarred)),
            }
        }
    })
    .await;
    let (status, body) = admin::get(&fixture, "/readyz").await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_key_another_process_has_serves_nobody_while_that_one_is_there() {
    let api = TestApi::start().await;
    let (fixture, _folder) = enrolled(&api, config()).await;
    let agent = Agent::new().await;
    let mut client = eventually(&fixture, &agent).await;
    *api.known.taken_by.lock() = true;
    assert_eq!(client.refused().await, Some(Code::RelayBarred));
    let refused = Client::start(&agent, &fixture.relay(), &fixture.token(&agent)).await;
    assert_eq!(refused.err().expect("refused").closed, Some(Code::RelayBarred));
    let (status, body) = admin::get(&fixture, "/readyz").await;
    assert_eq!(
        (status, &body["reasons"][0]["check"]),
        (503, &"enrolment".into()),
        "{body}"
    );
    let detail = body["reasons"][0]["detail"].as_str().expect("text");
    assert!(detail.contains("SKY-4027"), "{detail}");
    // Answers on revocations prove nothing about the other process.
    api.asked_again(2).await;
    let refused = Client::start(&agent, &fixture.relay(), &fixture.token(&agent)).await;
    assert_eq!(refused.err().expect("refused").closed, Some(Code::RelayBarred));
    *api.known.taken_by.lock() = false;
    soon(async {
        while admin::get(&fixture, "/readyz").await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    eventually(&fixture, &agent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_key_another_process_shows_serves_on_and_names_it() {
    let api = TestApi::start().await;
    *api.known.twin.lock() = Some(Twin {
        addresses: vec!["192.0.2.9:7601".into()],
        seen_s: 0,
    });
    let (fixture, _folder) = enrolled(&api, config()).await;
    let instance = api.heartbeat(0, |_| true).await.instance;
    assert_eq!(api.heartbeat(1, |_| true).await.instance, instance, "one process");
    let remarks = async || admin::get(&fixture, "/readyz").await.1["remarks"].clone();
    let named = soon(async {
        loop {
            match remarks().await.get(0) {
                Some(remark) => return remark.clone(),
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await;
    assert_eq!(named["check"], "enrolment");
    let detail = named["detail"].as_str().expect("text");
    assert!(
        detail.contains("SKY-4027") && detail.contains("192.0.2.9:7601"),
        "{detail}"
    );
    eventually(&fixture, &Agent::new().await).await;
    *api.known.twin.lock() = None;
    soon(async {
        while remarks().await != serde_json::json!([]) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_knows_no_such_enrolment_or_fails_ends_no_session() {
    let api = TestApi::start().await;
    let (fixture, _folder) = enrolled(&api, config()).await;
    let agent = Agent::new().await;
    let client = eventually(&fixture, &agent).await;
    for (status, code) in [
        (StatusCode::UNAUTHORIZED, Code::EnrolmentUnknown),
        (StatusCode::INTERNAL_SERVER_ERROR, Code::ApiInternal),
        (StatusCode::FORBIDDEN, Code::RegistrationProof),
    ] {
        *api.known.refusing.lock() = Some((status, code));
        let asked = api.known.heartbeats_asked.load(Ordering::SeqCst);
        soon(async {
            while api.known.heartbeats_asked.load(Ordering::SeqCst) < asked + 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        fixture.channel(&agent, &client).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enrolled_node_keeps_its_endpoint_and_can_be_found_or_does_not_start() {
    let api = TestApi::start().await;
    let start = async |config, secret: &str| {
        let store = Arc::new(MemoryStore::new());
        RelayNode::start(config, store, api.source_with(secret), None).await
    };
    let error = start(config(), &enrolment_key(1)).await.expect_err("refused");
    assert!(
        matches!(&error, StartError::Config(config) if config.key == "secret_key_file"),
        "{error}"
    );
    let everywhere = RelayConfig {
        listen: vec![([0, 0, 0, 0], 0).into()],
        secret_key_file: Some(std::env::temp_dir().join("never made")),
        ..config()
    };
    let error = start(everywhere, &enrolment_key(1)).await.expect_err("refused");
    assert!(
        matches!(&error, StartError::Config(config) if config.key == "advertise"),
        "{error}"
    );
    let key = enrolment_key(1);
    let cut = &key[..key.len() / 2];
    let error = start(config(), cut).await.expect_err("refused");
    assert!(matches!(error, StartError::EnrolmentKey(_)), "{error}");
    assert_eq!(error.code(), Code::Config);
    assert!(!error.to_string().contains(cut), "it does not show the key");
}
