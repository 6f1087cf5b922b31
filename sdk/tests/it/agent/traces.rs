//! Log lines of agents: they name their agent, and contain no secrets.

use super::world::{World, channel_of, soon};
use std::collections::BTreeSet;
use std::fs::File;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

const PLAINTEXT: &str = "marker-plaintext-of-a-message";
/// The child's output file.
const FILE: &str = "SKYTALE_TEST_TRACES";

#[test]
fn every_line_names_its_agent_and_none_has_a_payload_or_a_token() {
    let folder = tempfile::tempdir().expect("a folder");
    // A process of its own: what watches all threads watches all tests.
    let child = Command::new(std::env::current_exe().expect("this test"))
        .args(["traces_child", "--exact", "--nocapture"])
        .env(FILE, folder.path().join("log"))
        .output()
        .expect("started");
    let said = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
    let log = std::fs::read_to_string(folder.path().join("log")).expect("written");
    assert!(log.lines().count() > 20, "{log}");
}

/// Runs the child, in the child's process.
pub(crate) fn child() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let file = File::create(&path).expect("made");
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("skytale_sdk=trace"))
        .with_ansi(false)
        .with_writer(Mutex::new(file))
        .init();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let ids = runtime.block_on(Box::pin(talk()));
    let written = std::fs::read_to_string(path).expect("text");
    let mut named = BTreeSet::new();
    for line in written.lines() {
        let whose = ids.iter().find(|id| line.contains(id.as_str()));
        named.insert(whose.unwrap_or_else(|| panic!("whose line is it? {line}")));
        // Tokens begin like this.
        assert!(!line.contains(PLAINTEXT) && !line.contains("eyJ"), "{line}");
    }
    assert_eq!(named.len(), 2);
    for part in ["agent::bus", "agent::driver", "agent::worker"] {
        assert!(
            written.contains(&format!("skytale_sdk::{part}")),
            "nothing of {part} is in it"
        );
    }
}

/// Lets two agents talk and lose their sessions. Returns how their log lines name them.
async fn talk() -> [String; 2] {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    for channel in &channels {
        let sent = channel.send(PLAINTEXT).await.expect("sent");
        soon("delivered", sent.delivered()).await.expect("delivered");
    }
    let message = soon("a message", channels[1].messages().next())
        .await
        .expect("a message");
    assert_eq!(message.payload, PLAINTEXT);
    let rotated = channels[0].rotate().await.expect("queued");
    soon("rotated", rotated.delivered()).await.expect("delivered");
    world.stop_relay().await;
    world.start_relay().await;
    let sent = channels[1].send(PLAINTEXT).await.expect("sent");
    soon("delivered", sent.delivered()).await.expect("delivered");
    let ids = [alice.id(), bob.id()].map(|id| format!("agent{{agent_id={id}}}"));
    for agent in [alice, bob] {
        agent.close(Duration::from_secs(5)).await;
    }
    ids
}
