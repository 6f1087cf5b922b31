//! Admin HTTP: alive, ready or why not, metrics.

use crate::client::soon;
use crate::fixture::{AUDIENCE, Fixture, ISSUER, config, message};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::Value;
use skytale_log_store::faulty::{FaultyStore, Way};
use skytale_log_store::{MemoryStore, Readiness, StoreError};
use skytale_proto::rest::Jwks;
use skytale_proto::token::TokenSigner;
use skytale_proto::{Code, Offset};
use skytale_relay_node::{RelayNode, RenderMetrics, StartError, TrustSource, describe_metrics};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A GET on the admin port: the status, and the body where it is JSON.
pub(crate) async fn get(fixture: &Fixture, path: &str) -> (u16, Value) {
    let (status, body) = get_text(fixture.node.admin_address().expect("served"), path).await;
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

async fn get_text(address: SocketAddr, path: &str) -> (u16, String) {
    soon(async {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        (status, body.to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_can_work_is_ready_and_one_that_cannot_says_why() {
    let store = Arc::new(MemoryStore::new());
    let mut config = config();
    config.data_dir = Some(std::env::temp_dir());
    let fixture = Fixture::over(config, store.clone()).await;
    assert_eq!(get(&fixture, "/livez").await.0, 200);
    let (status, body) = get(&fixture, "/readyz").await;
    assert_eq!((status, &body["ready"]), (200, &Value::Bool(true)));
    assert!(body["disk_free_bytes"].as_u64().expect("watched") > 0);

    store.stop("the disk failed");
    let (status, body) = get(&fixture, "/readyz").await;
    assert_eq!((status, &body["reasons"][0]["check"]), (503, &Value::from("store")));
    assert!(
        body["reasons"][0]["detail"]
            .as_str()
            .expect("text")
            .contains("the disk failed")
    );
    assert_eq!(get(&fixture, "/livez").await.0, 200);

    let (alice, a) = fixture.agent().await;
    let refused = a
        .append(&crate::fixture::create(skytale_proto::ChannelId::generate(), alice.id))
        .await;
    let refusal = refused.expect_err("refused");
    assert_eq!(
        (refusal.known_code(), refusal.retryable),
        (Some(Code::StoreStopped), true)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_before_it_is_full() {
    let mut config = config();
    config.data_dir = Some(std::env::temp_dir());
    config.disk_free_bytes_min = u64::MAX;
    let fixture = Fixture::with(config).await;
    let (status, body) = get(&fixture, "/readyz").await;
    assert_eq!((status, &body["reasons"][0]["check"]), (503, &Value::from("disk")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_room_refuses_appends_with_its_code_and_serves_readers() {
    let store = FaultyStore::new();
    let fixture = Fixture::over(config(), store.clone()).await;
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    a.append(&message(channel, alice.id, 1, "one")).await.expect("appended");
    let reason = "write to /srv/log/segments/1.seg: no room".to_owned();
    store.appends(Way::Refused(StoreError::Full { reason: reason.clone() }));
    store.stands(Readiness {
        problems: vec![reason],
        ..Readiness::default()
    });
    let refused = a.append(&message(channel, alice.id, 1, "two")).await;
    let refusal = refused.expect_err("refused");
    assert_eq!((refusal.known_code(), refusal.retryable), (Some(Code::StoreFull), true));
    assert!(refusal.retry_after_ms > 0, "{refusal:?}");
    // The paths of its files are none of an agent's business.
    assert!(!refusal.message.contains("/srv"), "{}", refusal.message);
    let (status, body) = get(&fixture, "/readyz").await;
    assert_eq!((status, &body["reasons"][0]["check"]), (503, &Value::from("store")));
    let mut reader = a.subscribe(channel.log(), Offset::ZERO, false).await;
    reader.caught_up().await;

    store.appends(Way::Through);
    a.append(&message(channel, alice.id, 1, "two")).await.expect("appended");
}

/// The process' recorder: there is one, for all tests.
pub(crate) fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| {
        let handle = PrometheusBuilder::new().install_recorder().expect("the only recorder");
        describe_metrics();
        handle
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_tell_what_was_done() {
    let handle = recorder();
    let signer = TokenSigner::generate();
    let keys = TrustSource::Static(Jwks {
        keys: vec![signer.jwk()],
    });
    let store = Arc::new(MemoryStore::new());
    let render = RenderMetrics::new(|| handle.render());
    let node = RelayNode::start(config(), store, keys, Some(render))
        .await
        .expect("started");
    let fixture = Fixture {
        node,
        signer,
        account: skytale_proto::AccountId::generate(),
        key: skytale_proto::KeyId::generate(),
    };
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    a.append(&message(channel, alice.id, 1, "one")).await.expect("appended");
    a.append(&message(channel, alice.id, 9, "stale"))
        .await
        .expect_err("stale");
    let mut follow = a.subscribe(channel.log(), Offset::ZERO, true).await;
    follow.caught_up().await;

    let (status, text) = get_text(fixture.node.admin_address().expect("served"), "/metrics").await;
    assert_eq!(status, 200);
    for part in [
        "# HELP skytale_relay_append_requests_total",
        r#"skytale_relay_verdicts_total{kind="message",verdict="appended"}"#,
        r#"skytale_relay_verdicts_total{kind="message",verdict="SKY-1006"}"#,
        r#"skytale_relay_refusals_total{code="SKY-1006"}"#,
        "skytale_relay_append_seconds",
        "skytale_relay_replay_bytes_total",
        "skytale_relay_subscriptions 1",
        "skytale_relay_sessions 1",
        "skytale_relay_connections 1",
        "skytale_relay_reader_lag_entries_max 0",
    ] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    assert!(!text.contains(&alice.id.to_string()), "metrics name no agent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_recorder_there_are_no_metrics() {
    let fixture = Fixture::new().await;
    assert_eq!(get(&fixture, "/metrics").await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_start_says_what_is_wrong() {
    let keys = || {
        TrustSource::Static(Jwks {
            keys: vec![TokenSigner::generate().jwk()],
        })
    };
    let start = async |config, trust| RelayNode::start(config, Arc::new(MemoryStore::new()), trust, None).await;
    let mut no_issuer = config();
    no_issuer.issuer.clear();
    let error = start(no_issuer, keys()).await.expect_err("refused");
    assert_eq!(
        (error.code(), error.to_string()),
        (Code::Config, "issuer: must be the API's URL".into())
    );

    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
    let mut busy = config();
    busy.listen = vec![taken.local_addr().expect("an address")];
    let error = start(busy, keys()).await.expect_err("refused");
    assert!(matches!(error, StartError::Bind(_)), "{error}");

    let bad_url = TrustSource::Http {
        api_url: "ftp://api.test".into(),
        relay_secret: skytale_relay_node::RelaySecret::new("secret"),
    };
    let error = start(skytale_relay_node::RelayConfig::for_tests(ISSUER, AUDIENCE), bad_url)
        .await
        .expect_err("refused");
    assert!(matches!(error, StartError::ApiUrl(_)), "{error}");
}
