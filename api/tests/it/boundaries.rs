//! The OpenAPI document says what the code does: values at the edges of every schema get the verdict that the schema gives.

use crate::agent::{TestAgent, random};
use crate::database::Backend;
use crate::harness::{ADMIN, Answer, NOTHING, RELAY, TestApi};
use crate::relay::{TestEndpoint, TestRelay};
use crate::schema::Schemas;
use proptest::test_runner::TestRunner;
use reqwest::Method;
use serde_json::{Value, json};
use skytale_proto::rest::Problem;
use skytale_proto::{ChannelId, Code};
use std::net::SocketAddr;

/// Whether the answer says that the request's form is wrong. Other refusals (a scope that the key lacks, a signature that
/// does not verify, a name that is taken) are about what a well-formed request asks for.
fn is_malformed(answer: &Answer) -> bool {
    assert!(
        answer.status.as_u16() < 500,
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
    if answer.status.is_success() {
        return false;
    }
    let problem: Problem = serde_json::from_slice(&answer.body).unwrap();
    problem.known_code() == Some(Code::BadRequest)
}

/// An operation with a body: how it is asked, a body that is good, and what the code wants beyond the schema. A schema
/// cannot compare a value with the clock, with the path, with another field or with the account; each such rule is in the
/// field's description.
struct Asked {
    operation: &'static str,
    bearer: String,
    path: String,
    good: Value,
    rule: Box<dyn Fn(&Value) -> bool>,
}

fn any(_: &Value) -> bool {
    true
}

/// No agent can reach a node at port 0, nowhere in particular, or at a group.
fn reachable(body: &Value) -> bool {
    let addresses = body["addresses"].as_array().unwrap().iter();
    let mut parsed = addresses.map(|address| address.as_str().unwrap().parse::<SocketAddr>().unwrap());
    parsed.all(|address| address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast())
}

/// Each shard is there once.
fn distinct(body: &Value) -> bool {
    let Some(lag) = body["load"]["lag"].as_array() else {
        return true;
    };
    let mut shards: Vec<_> = lag
        .iter()
        .map(|lag| (lag["region"].as_u64(), lag["shard"].as_u64()))
        .collect();
    shards.sort_unstable();
    shards.dedup();
    shards.len() == lag.len()
}

async fn asked(api: &TestApi) -> Vec<Asked> {
    let key = api.account("acme").await.key.secret;
    let agent = TestAgent::new();
    let nonce = api.nonce(&key, &agent).await;
    let node = TestRelay::enrol(api, "node").await;
    let endpoint = TestEndpoint::new().id().to_string();
    let now_s = api.now_s();
    let url = "https://relay.example.org";
    let mut token = serde_json::to_value(agent.request(&nonce)).unwrap();
    token["scopes"] = json!(["relay:append"]);
    token["region"] = json!(1);
    let mut heartbeat = serde_json::to_value(&node.heartbeat).unwrap();
    heartbeat["load"]["lag"] = json!([{ "region": 1, "shard": 2, "messages": 3 }]);
    heartbeat["instance"] = json!("07".repeat(16));
    heartbeat["draining"] = json!(false);
    let ask = |operation, bearer: &str, path: &str, good, rule: Box<dyn Fn(&Value) -> bool>| Asked {
        operation,
        bearer: bearer.to_owned(),
        path: path.to_owned(),
        good,
        rule,
    };
    let channel = ChannelId::generate().to_string();
    let labelled = json!({ "label": "a", "scopes": ["relay:append"], "expires_s": now_s + 10_000 });
    let relay = json!({ "endpoint": &endpoint, "addresses": ["192.0.2.1:7601"], "region": 1, "https_url": url });
    let in_time = move |body: &Value| {
        body["expires_s"]
            .as_u64()
            .is_none_or(|expires_s| expires_s > now_s + 1_000)
    };
    let of_path = move |body: &Value| {
        body["endpoint"]
            .as_str()
            .is_some_and(|text| text.eq_ignore_ascii_case(&endpoint))
    };
    let of_org = |body: &Value| body["name"].as_str().is_some_and(|name| name.starts_with("acme/"));
    let path = format!("/v1/relays/{}", relay["endpoint"].as_str().unwrap());
    vec![
        ask(
            "create_account",
            ADMIN,
            "/v1/accounts",
            json!({ "org": "other" }),
            Box::new(any),
        ),
        ask("create_key", &key, "/v1/keys", labelled, Box::new(in_time)),
        ask(
            "create_nonce",
            &key,
            "/v1/nonce",
            json!({ "agent": agent.id() }),
            Box::new(any),
        ),
        ask("create_token", &key, "/v1/token", token, Box::new(any)),
        ask(
            "name_channel",
            &key,
            "/v1/channels",
            json!({ "name": "acme/a/b", "channel": channel }),
            Box::new(of_org),
        ),
        ask("put_relay", RELAY, &path, relay, Box::new(of_path)),
        ask(
            "put_heartbeat",
            node.key(),
            &node.path(),
            heartbeat,
            Box::new(|body| reachable(body) && distinct(body)),
        ),
        ask(
            "create_enrolment",
            ADMIN,
            "/v1/enrolments",
            json!({ "label": "b", "endpoint": TestEndpoint::new().id() }),
            Box::new(any),
        ),
    ]
}

fn operations(document: &Value) -> Vec<(Method, String, Value)> {
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations.push((method.to_uppercase().parse().unwrap(), path.clone(), operation.clone()));
        }
    }
    operations
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_at_the_edge_of_its_schema_gets_the_schemas_verdict() {
    let document = serde_json::to_value(skytale_api::openapi_document()).unwrap();
    let schemas = Schemas::new(document.clone());
    let api = TestApi::start(Backend::Sqlite).await;
    let mut runner = TestRunner::deterministic();
    let mut asked = asked(&api).await;
    for (method, path, operation) in operations(&document) {
        let Some(body) = operation.get("requestBody") else {
            continue;
        };
        let schema = &body["content"]["application/json"]["schema"];
        let id = operation["operationId"].as_str().unwrap();
        let at = asked.iter().position(|asked| asked.operation == id);
        let asked = asked.swap_remove(at.unwrap_or_else(|| panic!("{method} {path} ({id}) has no example here")));
        assert!(schemas.fits(schema, &asked.good), "{id}: {}", asked.good);
        let (mut taken, mut refused) = (0, 0);
        for edge in schemas.edges(schema, &asked.good, &mut runner) {
            let answer = api.call(method.clone(), &asked.path, &asked.bearer, Some(&edge)).await;
            let expected = schemas.fits(schema, &edge) && (asked.rule)(&edge);
            assert_eq!(
                !is_malformed(&answer),
                expected,
                "{id}: {edge}: {}",
                String::from_utf8_lossy(&answer.body)
            );
            if expected { taken += 1 } else { refused += 1 }
        }
        assert!(taken > 0 && refused > 8, "{id}: {taken} taken, {refused} refused");
    }
    assert!(asked.is_empty());
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parameter_at_the_edge_of_its_schema_gets_the_schemas_verdict() {
    let document = serde_json::to_value(skytale_api::openapi_document()).unwrap();
    let schemas = Schemas::new(document.clone());
    let api = TestApi::start(Backend::Sqlite).await;
    let key = api.account("acme").await.key.secret;
    let node = TestRelay::enrol(&api, "node").await;
    let mut runner = TestRunner::deterministic();
    let mut tried = 0;
    for (method, path, operation) in operations(&document) {
        let Some(security) = operation["security"][0].as_object() else {
            continue;
        };
        let bearer = match security.keys().next().unwrap().as_str() {
            "api_key" => key.as_str(),
            "operator" => ADMIN,
            "relay" => RELAY,
            _ => node.key(),
        };
        let id = operation["operationId"].as_str().unwrap();
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let (name, schema) = (parameter["name"].as_str().unwrap(), &parameter["schema"]);
            for edge in schemas.edges(schema, &Value::Null, &mut runner) {
                let text = match &edge {
                    Value::String(text) => text.clone(),
                    Value::Number(number) => number.to_string(),
                    // A text already.
                    _ => continue,
                };
                // In a URL every value is a text; one with digits alone is also a number.
                let number = text.parse::<u64>().ok().filter(|number| number.to_string() == text);
                let fits = schemas.fits(schema, &json!(text))
                    || number.is_some_and(|number| schemas.fits(schema, &json!(number)));
                let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
                if parameter["in"] == "path" {
                    // A text without the form of an id is an id that nobody has.
                    if fits || text.is_empty() || method == Method::PUT {
                        continue;
                    }
                    let path = replace(&path, name, &encoded);
                    let answer = api.call(method.clone(), &path, bearer, NOTHING).await;
                    assert_eq!(answer.status, 404, "{id}: {name}={text:?}");
                } else {
                    let path = replace(&path, "", &"0".repeat(64));
                    let answer = api
                        .call(method.clone(), &format!("{path}?{name}={encoded}"), bearer, NOTHING)
                        .await;
                    assert_eq!(
                        !is_malformed(&answer),
                        fits,
                        "{id}: {name}={text:?}: {}",
                        String::from_utf8_lossy(&answer.body)
                    );
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 300, "{tried}");
    api.stop().await;
}

/// A path with this text for one of its parameters, and something of the right form for the others.
fn replace(path: &str, name: &str, text: &str) -> String {
    let parts = path.split('/').map(
        |part| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(parameter) if parameter == name || name.is_empty() => text.to_owned(),
            Some(_) => "acme".to_owned(),
            None => part.to_owned(),
        },
    );
    parts.collect::<Vec<_>>().join("/")
}

#[test]
fn the_example_of_an_edge_is_judged_as_the_code_judges() {
    // The judge itself, on the pattern that is hardest to write down: what std takes for a socket address.
    let document = serde_json::to_value(skytale_api::openapi_document()).unwrap();
    let schemas = Schemas::new(document);
    let schema = json!({ "$ref": "#/components/schemas/SocketAddressText" });
    let octets: [u8; 16] = random();
    let host = std::net::Ipv6Addr::from(octets);
    for text in [
        "0.0.0.0:0".to_owned(),
        "255.255.255.255:65535".to_owned(),
        "256.0.0.1:1".to_owned(),
        "01.0.0.1:1".to_owned(),
        "1.2.3:1".to_owned(),
        "1.2.3.4:65536".to_owned(),
        "1.2.3.4:00080".to_owned(),
        "1.2.3.4:".to_owned(),
        "1.2.3.4".to_owned(),
        "[::]:1".to_owned(),
        "[::1]:1".to_owned(),
        "[1::]:1".to_owned(),
        "[1:2:3:4:5:6:7:8]:1".to_owned(),
        "[1:2:3:4:5:6:7::]:1".to_owned(),
        "[::2:3:4:5:6:7:8]:1".to_owned(),
        "[1::3:4:5:6:7:8]:1".to_owned(),
        "[1:2::4:5:6:7:8]:1".to_owned(),
        "[1:2:3:4:5:6::8]:1".to_owned(),
        "[1:2:3:4:5:6:7:8:9]:1".to_owned(),
        "[1::2::3]:1".to_owned(),
        "[12345::]:1".to_owned(),
        "[::ffff:192.0.2.1]:1".to_owned(),
        "[::192.0.2.1]:1".to_owned(),
        "[1:2:3:4:5:6:1.2.3.4]:1".to_owned(),
        "[1:2:3:4:5:6:7:1.2.3.4]:1".to_owned(),
        "::1:1".to_owned(),
        format!("[{host}]:7601"),
    ] {
        assert_eq!(
            schemas.fits(&schema, &json!(text)),
            text.parse::<SocketAddr>().is_ok(),
            "{text}"
        );
    }
}
