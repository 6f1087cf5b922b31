//! Rates, busyness and time: refused with a code and with when to come back.

use crate::agent::TestAgent;
use crate::database::Backend;
use crate::harness::{ADMIN, Answer, NOTHING, TestApi, on_both};
use reqwest::{Method, StatusCode};
use skytale_api::config::Rate;
use skytale_proto::Code;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const SLOW: Rate = Rate {
    per_second: 1,
    burst: 5,
};

/// Asks until it is refused.
async fn until_refused(api: &TestApi, path: &str, bearer: &str) -> (usize, Answer) {
    for served in 0..100 {
        let answer = api.get(path, bearer).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            return (served, answer);
        }
    }
    panic!("never refused");
}

on_both! {
    async fn a_key_that_asks_too_often_waits_and_others_do_not(backend: Backend) {
        let api = TestApi::start_with(backend, |config| config.limits.key_rate = SLOW).await;
        let busy = api.account("busy").await.key.secret;
        let calm = api.account("calm").await.key.secret;
        let (served, answer) = until_refused(&api, "/v1/agents", &busy).await;
        assert!(served >= 5);
        let answer = answer.refused(Code::ApiRateLimited);
        assert_eq!(answer.retry_after_s(), Some(1));
        api.token(&calm, &TestAgent::new()).await;
        api.stop().await;
    }

    async fn an_account_with_many_keys_has_one_rate_and_others_do_not_wait(backend: Backend) {
        let api = TestApi::start_with(backend, |config| config.limits.account_rate = SLOW).await;
        let busy = api.account("busy").await.key.secret;
        let calm = api.account("calm").await.key.secret;
        let mut keys = Vec::new();
        for _ in 0..3 {
            keys.push(api.key(&busy, &["audit:read"]).await.secret);
        }
        // Each key alone is far from a rate of its own.
        let mut refused = None;
        'asking: for _ in 0..50 {
            for key in &keys {
                let answer = api.get("/v1/audit", key).await;
                if answer.status == StatusCode::TOO_MANY_REQUESTS {
                    refused = Some(answer);
                    break 'asking;
                }
            }
        }
        let answer = refused.expect("the account's rate is used up").refused(Code::AccountTooMany);
        assert_eq!(answer.retry_after_s(), Some(1));
        api.token(&calm, &TestAgent::new()).await;
        api.stop().await;
    }

    async fn an_address_that_asks_too_often_waits(backend: Backend) {
        let api = TestApi::start_with(backend, |config| config.limits.address_rate = SLOW).await;
        let (served, answer) = until_refused(&api, "/v1/agents", "x").await;
        assert!(served >= 5);
        assert!(answer.refused(Code::ApiRateLimited).retry_after_s().is_some());
        for _ in 0..20 {
            let alive = api.try_call(Method::GET, "/livez", None, NOTHING).await.unwrap();
            assert_eq!(alive.status, StatusCode::OK);
        }
        api.stop().await;
    }

    async fn secrets_are_not_tried_at_will_and_a_known_key_goes_on(backend: Backend) {
        let api = TestApi::start_with(backend, |config| config.limits.attempt_rate = SLOW).await;
        let key = api.account("acme").await.key.secret;
        let agent = TestAgent::new();
        api.token(&key, &agent).await;
        let guess = format!("sk_live_{}_{}", "0".repeat(32), "A".repeat(52));
        api.too_many("/v1/agents", &guess).await.refused(Code::ApiRateLimited);
        for guess in ["guess".to_owned(), format!("rk_live_{}_{}", "0".repeat(32), "A".repeat(52))] {
            api.too_many("/v1/revocations", &guess).await.refused(Code::ApiRateLimited);
        }
        api.token(&key, &agent).await;
        let body = serde_json::json!({ "org": "second" });
        assert!(api.post("/v1/accounts", ADMIN, &body).await.status.is_success());
        api.stop().await;
    }
}

/// Returns the bytes that a connection gets back for these, until the API closes it.
async fn raw(api: &TestApi, bytes: &[u8]) -> String {
    let address = api.client.base.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The API may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// The same, again while there is no answer: an API that gives its clients little time hangs up on one that was too slow.
async fn answered(api: &TestApi, bytes: &[u8]) -> String {
    for _ in 0..100 {
        let answer = raw(api, bytes).await;
        if !answer.is_empty() {
            return answer;
        }
    }
    panic!("never answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_finish_a_request_is_hung_up_on() {
    let api = TestApi::start_with(Backend::Sqlite, |config| {
        config.limits.head_timeout = Duration::from_millis(300);
        config.limits.request_timeout = Duration::from_millis(300);
    })
    .await;
    raw(&api, b"").await;
    raw(&api, b"GET /livez HT").await;
    let answer = answered(&api, b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 200"),
        "and one that asks no more is too: {answer}"
    );
    let unfinished = b"POST /v1/accounts HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
        authorization: Bearer operator-secret-marker-0123456789abcdef\r\ncontent-type: application/json\r\n\
        content-length: 100\r\n\r\n{";
    let answer = answered(&api, unfinished).await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("SKY-4012"),
        "{answer}"
    );
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_way_is_answered_when_the_api_stops() {
    let api = TestApi::start(Backend::Sqlite).await;
    let address = api.client.base.trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let body = br#"{"org":"acme"}"#;
    let head = format!(
        "POST /v1/accounts HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\n\
         content-type: application/json\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The API asks for the body: the request is under way.
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    let stopped = tokio::spawn(api.stop());
    while TcpStream::connect(&address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stream.write_all(body).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 201") && answer.contains("sk_live_"),
        "{answer}"
    );
    stopped.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_giant_heads_are_hung_up_on_and_others_are_served() {
    let api = TestApi::start(Backend::Sqlite).await;
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01".to_vec(),
        vec![0; 100_000],
        format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(1_000_000)).into_bytes(),
        format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1_000_000)).into_bytes(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_bytes().to_vec(),
    ] {
        let answer = raw(&api, &bytes).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    }
    let alive = api.try_call(Method::GET, "/readyz", None, NOTHING).await.unwrap();
    assert_eq!(alive.status, StatusCode::OK);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_bounded_and_an_idle_one_makes_room() {
    let api = TestApi::start_with(Backend::Sqlite, |config| config.limits.connections_max = 2).await;
    let address = api.client.base.trim_start_matches("http://").to_owned();
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream
            .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        open.push(stream);
    }
    // Both are idle: the one that has been open for longest gives way, the other one stays.
    let mut third = TcpStream::connect(&address).await.unwrap();
    third
        .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 12];
    third.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let mut rest = Vec::new();
    open[0].read_to_end(&mut rest).await.unwrap();
    drop((open, third));
    api.stop().await;
}
