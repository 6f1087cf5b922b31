//! A2A agents over PyPI's `slima2a`.

use super::agent::{Agent, Script};
use crate::world::World;
use serde_json::json;

async fn agent(endpoint: &str, name: &str) -> Agent {
    let mut agent = Agent::spawn_script(Script::A2a, name);
    let secret = super::agent::SECRET;
    let connect = json!({"do": "connect", "endpoint": endpoint, "own": format!("org/ns/{name}"), "secret": secret});
    agent.done(connect, "started").await;
    agent
}

#[tokio::test(flavor = "multi_thread")]
async fn an_a2a_agent_answers_with_and_without_a_stream() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let mut echo = agent(&bridge.endpoint(), "echo").await;
    echo.done(json!({"do": "echo"}), "serving").await;
    let mut asker = agent(&bridge.endpoint(), "asker").await;
    for (text, stream) in [("one", false), ("two", true)] {
        asker
            .done(
                json!({"do": "ask", "who": "org/ns/echo", "text": text, "stream": stream}),
                "answer",
            )
            .await;
    }
    assert_eq!(asker.texts("answer", "text"), ["echo one", "echo two"]);
    assert_eq!(echo.texts("called", "text"), ["one", "two"]);
    for name in ["echo", "asker"] {
        assert!(!world.has_log(name).await, "{name}");
    }
    bridge.stop().await;
}
