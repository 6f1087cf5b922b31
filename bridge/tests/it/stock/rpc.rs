//! SLIMRPC: live, and never stored.

use super::agent::{Agent, Script};
use super::group::numbered;
use crate::world::World;
use serde_json::json;

async fn agent(endpoint: &str, name: &str, state: Option<&str>) -> Agent {
    Agent::start_script(Script::Rpc, endpoint, name, state, json!({})).await
}

async fn server(endpoint: &str, name: &str, state: Option<&str>) -> Agent {
    let mut server = agent(endpoint, name, state).await;
    server.done(json!({"do": "serve"}), "serving").await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_calls_servers_and_reads_a_stream() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let _one = server(&bridge.endpoint(), "one", None).await;
    let _two = server(&bridge.endpoint(), "two", None).await;
    let mut client = agent(&bridge.endpoint(), "client", None).await;
    client
        .done(
            json!({"do": "call", "to": "org/ns/one", "text": "hello", "timeout_ms": 60_000}),
            "answer",
        )
        .await;
    assert_eq!(client.texts("answer", "text"), ["echo hello"]);
    client
        .done(
            json!({"do": "count", "to": "org/ns/two", "count": 100, "timeout_ms": 60_000}),
            "counted",
        )
        .await;
    assert_eq!(client.texts("item", "text"), numbered("", 100));
    for name in ["one", "two", "client"] {
        assert!(!world.has_log(name).await, "{name}");
    }
    // Both servers at once: a group session.
    let both = json!(["org/ns/one", "org/ns/two"]);
    client
        .done(
            json!({"do": "call_all", "to": both, "text": "all", "timeout_ms": 60_000}),
            "counted",
        )
        .await;
    assert_eq!(client.texts("item", "text")[100..], ["echo all", "echo all"]);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_an_absent_server_ends_with_its_deadline_and_is_not_made_later() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let state = world.dir.path().join("server").to_string_lossy().into_owned();
    let call = |text: &str, timeout_ms: u32, new: bool| json!({"do": "call", "to": "org/ns/server", "text": text, "timeout_ms": timeout_ms, "new": new});
    let first = server(&bridge.endpoint(), "server", Some(&state)).await;
    let mut client = agent(&bridge.endpoint(), "client", None).await;
    client.done(call("before", 60_000, false), "answer").await;
    first.kill();
    bridge.links(1).await;
    // In the session that stood, and in a new one.
    for (number, new) in [(1, false), (2, true)] {
        client.done(call("absent", 1_500, new), "failed").await;
        let failed = client.wait_nth("failed", number).await;
        assert_eq!(failed["code"], "DEADLINE_EXCEEDED", "{failed}");
    }
    // The same name with the same id comes back. Its first call is the one made then.
    let again = server(&bridge.endpoint(), "server", Some(&state)).await;
    client.done(call("after", 60_000, true), "answer").await;
    assert_eq!(again.texts("called", "text"), ["after"]);
    for name in ["server", "client"] {
        assert!(!world.has_log(name).await, "{name}");
    }
    bridge.stop().await;
}
