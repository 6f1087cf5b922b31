//! The SDK against a node: its examples, run as they are, and what it says where the API refuses.

use super::node::Node;
use skytale_proto::Code;
use skytale_sdk::{Agent, AgentConfig, ApiClient, ApiKey, Error, NetworkConfig, VaultKey};
use std::process::Command;
use std::time::Duration;

#[allow(dead_code, unreachable_pub)]
#[path = "../../../../sdk/examples/first_message.rs"]
mod first_message;
#[allow(dead_code, unreachable_pub)]
#[path = "../../../../sdk/examples/task_queue.rs"]
mod task_queue;

/// Which example a process of this test runs.
const EXAMPLE: &str = "SKYTALE_TEST_EXAMPLE";
/// Waiting for longer is hanging.
const HANGING: Duration = Duration::from_secs(120);

#[test]
fn child() {
    let Some(example) = std::env::var_os(EXAMPLE) else {
        return;
    };
    let done = match example.to_str() {
        Some("first_message") => first_message::main(),
        Some("task_queue") => task_queue::main(),
        _ => panic!("no such example"),
    };
    done.expect("it goes well");
}

/// Runs an example in the node's folder, with the variables that `skytale dev` prints. Gives what it says.
fn run(node: &Node, example: &str) -> Vec<String> {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", "sdk::child", "--nocapture"])
        .current_dir(node.place.path(""))
        .envs(node.place.variables().iter().cloned())
        .env_remove("SKYTALE_VAULT_PASSPHRASE")
        .env(EXAMPLE, example);
    let output = command.output().expect("runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{example}: {told}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    told.lines().map(str::to_owned).collect()
}

#[test]
fn a_first_message_is_answered_and_so_is_one_after_a_restart() {
    let node = Node::start("off");
    for _ in 0..2 {
        let told = run(&node, "first_message");
        for line in ["bob: are you there?", "alice: yes"] {
            assert_eq!(told.iter().filter(|told| *told == line).count(), 1, "{told:?}");
        }
    }
}

#[test]
fn each_task_of_a_queue_is_done_once_over_restarts_of_all_that_work_on_it() {
    let node = Node::start("off");
    let results = |told: Vec<String>| -> Vec<String> {
        let result = |line: &String| line.starts_with("task ") && line.contains(" by ");
        told.into_iter().filter(result).collect()
    };
    let first = results(run(&node, "task_queue"));
    let expected: Vec<String> = (0..12_u32)
        .map(|number| {
            format!(
                "task {number:02}: {} by {}",
                number * number,
                ["ada", "ben"][number as usize % 2]
            )
        })
        .collect();
    assert_eq!(first, expected);
    // Started again, it finds all of them done.
    assert_eq!(results(run(&node, "task_queue")), expected);
}

fn code<T>(result: Result<T, Error>) -> Option<Code> {
    result.err().map(|error| error.code())
}

#[test]
fn waits_for_a_session_end_with_the_reason_where_the_api_does_not_know_the_key() {
    let node = Node::start("off");
    let url = node.told["api_url"].as_str().expect("a URL");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let api = ApiClient::new(url, ApiKey::new("sk_live_of_nobody").expect("its form is right")).expect("a client");
        let any = "127.0.0.1:0".parse().expect("an address");
        let config = AgentConfig::new(node.place.path("agent.vault"), VaultKey::raw([7; 32]), api)
            .with_network(NetworkConfig::bound_to(any));
        let agent = Agent::open(config).await.expect("opened");
        agent.connect().await.expect("begun");
        let channel = agent.create_channel("plans").await.expect("made offline");
        let sent = channel.send("hello").await.expect("in the outbox");
        let waits = async {
            let error = agent.connected().await.expect_err("no session");
            assert_eq!(error.code(), Code::KeyUnknown);
            assert!(!error.is_retryable());
            assert_eq!(error.help(), Code::KeyUnknown.help());
            assert_eq!(code(agent.caught_up().await), Some(Code::KeyUnknown));
            assert_eq!(code(agent.flushed().await), Some(Code::KeyUnknown));
            assert_eq!(code(sent.delivered().await), Some(Code::KeyUnknown));
        };
        tokio::time::timeout(HANGING, waits).await.expect("at once");
        agent.close(Duration::ZERO).await;
    });
}
