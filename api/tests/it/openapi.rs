//! The API says what it is.

use crate::database::Backend;
use crate::harness::{NOTHING, TestApi};
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer as _, SigningKey};
use reqwest::{Method, StatusCode, header};
use serde_json::Value;
use skytale_proto::rest::{PROOF_CONTEXT, proof_message};
use skytale_proto::{AgentId, EndpointId};
use std::collections::BTreeSet;
use std::path::Path;

fn committed() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json")
}

/// With `SKYTALE_UPDATE_OPENAPI=1` it writes the document instead of comparing it.
#[test]
fn the_committed_document_is_the_one_that_the_code_gives() {
    let mut generated = skytale_api::openapi_document().to_pretty_json().unwrap();
    generated.push('\n');
    if std::env::var_os("SKYTALE_UPDATE_OPENAPI").is_some() {
        std::fs::write(committed(), &generated).unwrap();
    }
    let there = std::fs::read_to_string(committed()).unwrap_or_default();
    assert!(
        there == generated,
        "api/openapi.json is not what the code gives; run this test with SKYTALE_UPDATE_OPENAPI=1 and look at the diff"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_and_its_page_are_served_without_the_internet() {
    let api = TestApi::start(Backend::Sqlite).await;
    let get = async |path: &str| api.try_call(Method::GET, path, None, NOTHING).await.unwrap();
    let served: Value = get("/openapi.json").await.ok();
    let committed: Value = serde_json::from_slice(&std::fs::read(committed()).unwrap()).unwrap();
    assert_eq!(served, committed);

    let page = get("/docs/").await;
    assert_eq!(page.status, StatusCode::OK);
    assert_eq!(page.headers[header::CONTENT_TYPE], "text/html");
    let html = String::from_utf8(page.body).unwrap();
    assert!(html.contains("swagger-ui"));
    for file in [
        "index.html",
        "swagger-initializer.js",
        "swagger-ui.css",
        "swagger-ui-bundle.js",
        "index.css",
    ] {
        let answer = get(&format!("/docs/{file}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{file}");
        assert!(!answer.body.is_empty());
    }
    let start = get("/docs/swagger-initializer.js").await;
    for (what, text) in [("page", html), ("script", String::from_utf8(start.body).unwrap())] {
        assert!(
            !text.contains("https://") && !text.contains("//cdn"),
            "the {what} fetches nothing: {text}"
        );
    }
    api.stop().await;
}

/// The test vector that the document gives is what the code computes.
#[test]
fn the_documents_test_vector_is_the_codes() {
    let (agent, endpoint) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
    let agent_id = AgentId::from_bytes(agent.verifying_key().to_bytes());
    let endpoint_id = EndpointId::from_bytes(endpoint.verifying_key().to_bytes());
    let message = proof_message(&[3; 32], &agent_id, &endpoint_id);
    assert_eq!(message.len(), 117);
    let document: Value = serde_json::to_value(skytale_api::openapi_document()).unwrap();
    let text = document["paths"]["/v1/token"]["post"]["description"].as_str().unwrap();
    for (field, value) in [
        ("`agent`", agent_id.to_string()),
        ("`endpoint`", endpoint_id.to_string()),
        ("`nonce`", "03".repeat(32)),
        ("signed bytes", HEXLOWER.encode(PROOF_CONTEXT)),
        ("`signature`", HEXLOWER.encode(&agent.sign(&message).to_bytes())),
    ] {
        assert!(
            text.contains(&format!("| {field} | `{value}`")),
            "{field} is {value}: {text}"
        );
    }
    let tail = [HEXLOWER.encode(&[3; 32]), agent_id.to_string(), endpoint_id.to_string()].concat();
    assert_eq!(HEXLOWER.encode(&message), HEXLOWER.encode(PROOF_CONTEXT) + &tail);
}

#[test]
fn every_route_but_the_public_ones_says_whose_secret_it_needs() {
    let document: Value = serde_json::to_value(skytale_api::openapi_document()).unwrap();
    let public = ["/", "/livez", "/readyz", "/.well-known/jwks.json"];
    let mut operations = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            assert!(operations.insert(id), "{method} {path} has an id of its own");
            let secured = operation["security"].as_array().is_some_and(|needs| !needs.is_empty());
            assert_eq!(secured, !public.contains(&path.as_str()), "{method} {path}");
            assert!(operation["summary"].is_string(), "{method} {path} says what it does");
        }
    }
    assert_eq!(operations.len(), 28);
}
