//! Any input to any route gets a refusal and not a failure, and others are served.

use crate::agent::TestAgent;
use crate::database::Backend;
use crate::harness::{ADMIN, RELAY, TestApi, on_both};
use crate::relay::TestRelay;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use reqwest::{Method, header};
use serde_json::{Map, Value};
use skytale_proto::rest::Problem;

/// Any JSON, with the field names that routes look for and values that they nearly take.
fn json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "\\PC{0,40}",
        "[0-9a-f]{32}",
        "[0-9a-f]{64}",
        "[0-9a-f]{128}",
        Just("acme/a/b".to_owned()),
        Just("relay:append".to_owned()),
        Just("\u{0}".to_owned()),
        Just("'; DROP TABLE accounts; --".to_owned()),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    let field = prop_oneof![
        Just("org"),
        Just("label"),
        Just("scopes"),
        Just("expires_s"),
        Just("agent"),
        Just("endpoint"),
        Just("nonce"),
        Just("signature"),
        Just("name"),
        Just("channel"),
        Just("addresses"),
        Just("region"),
        Just("proof"),
        Just("version"),
        Just("draining"),
        Just("load"),
        Just("x"),
    ];
    leaf.prop_recursive(3, 24, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(field.clone().prop_map(str::to_owned), inner, 0..8)
                .prop_map(|fields| Value::from(fields.into_iter().collect::<Map<String, Value>>())),
        ]
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => json().prop_map(|json| json.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

on_both! {
    async fn any_body_on_any_route_is_refused_or_served(backend: Backend) {
        let api = TestApi::start(backend).await;
        let key = api.account("acme").await.key.secret;
        let node = TestRelay::enrol(&api, "node").await;
        let id = "0".repeat(64);
        let routes = [
            (Method::POST, "/v1/accounts".to_owned(), ADMIN),
            (Method::POST, "/v1/keys".to_owned(), &key),
            (Method::POST, "/v1/nonce".to_owned(), &key),
            (Method::POST, "/v1/token".to_owned(), &key),
            (Method::POST, "/v1/channels".to_owned(), &key),
            (Method::PUT, format!("/v1/relays/{id}"), RELAY),
            (Method::POST, "/v1/enrolments".to_owned(), ADMIN),
            (Method::PUT, node.path(), node.key()),
        ];
        let mut runner = TestRunner::deterministic();
        for (method, path, bearer) in routes {
            for _ in 0..60 {
                let body = body().new_tree(&mut runner).unwrap().current();
                let request = api.http.request(method.clone(), format!("{}{path}", api.base)).bearer_auth(bearer);
                let request = request.header(header::CONTENT_TYPE, "application/json").body(body.clone());
                let response = request.send().await.unwrap();
                let status = response.status();
                let text = response.text().await.unwrap();
                let sent = String::from_utf8_lossy(&body);
                assert!(status.as_u16() < 500, "{method} {path} with {sent}: {text}");
                if !status.is_success() {
                    let problem: Problem = serde_json::from_str(&text).unwrap();
                    assert!(problem.known_code().is_some() && problem.detail.chars().count() <= 300, "{text}");
                }
            }
        }
        api.token(&key, &TestAgent::new()).await;
        api.stop().await;
    }

    async fn any_path_and_query_is_refused_or_served(backend: Backend) {
        let api = TestApi::start(backend).await;
        let key = api.account("acme").await.key.secret;
        let mut runner = TestRunner::deterministic();
        let piece = "[a-zA-Z0-9%/._~:@!$&'()*+,;=-]{0,30}";
        for route in [
            "/v1/keys/",
            "/v1/agents/",
            "/v1/channels/",
            "/v1/channels/acme/a/",
            "/v1/keys?after=",
            "/v1/agents?after=",
            "/v1/channels?after=",
            "/v1/relays?region=",
            "/v1/relays/",
            "/v1/enrolments/",
            "/v1/audit?before=",
            "/v1/audit?limit=",
            "/docs/",
            "/",
        ] {
            for _ in 0..25 {
                let piece = piece.new_tree(&mut runner).unwrap().current();
                for method in [Method::GET, Method::DELETE] {
                    let answer = api.call(method, &format!("{route}{piece}"), &key, crate::harness::NOTHING).await;
                    let text = String::from_utf8_lossy(&answer.body);
                    assert!(answer.status.as_u16() < 500, "{route}{piece}: {text}");
                }
            }
        }
        api.token(&key, &TestAgent::new()).await;
        api.stop().await;
    }
}
