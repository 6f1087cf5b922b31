//! SIGKILL of an agent's process, at random times, while it receives and while it sends.
//!
//! The test runs its own binary again as the agent's process. For each unacknowledged message, that process sends an
//! echo, then acknowledges. It also sends numbered messages of its own, and continues where its vault's history and
//! outbox end.

use super::world::{Mint, SEED, World, agent_config, assert_same, channel_of, numbered, soon, texts};
use skytale_proto::{ChannelId, EndpointId};
use skytale_sdk::{Agent, Relay};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::ChildStdout;
use tokio_util::sync::CancellationToken;

const VAULT: &str = "SKYTALE_CRASH_VAULT";
const CHANNEL: &str = "SKYTALE_CRASH_CHANNEL";
const RELAY: &str = "SKYTALE_CRASH_RELAY";
/// The process says so after each acknowledgement, on a line of its own.
const ACKED: &str = "acked";
const KILLS: usize = 12;
/// Alice sends at least so many messages, and goes on while there are kills.
const FROM_ALICE_MIN: usize = 600;

/// The agent's process. Runs until it is killed.
pub(crate) fn child() {
    let Some(vault) = std::env::var_os(VAULT) else { return };
    let channel: ChannelId = std::env::var(CHANNEL)
        .expect("a channel")
        .parse()
        .expect("a channel id");
    let relay = std::env::var(RELAY).expect("a relay");
    let (endpoint, address) = relay.split_once('@').expect("id@address");
    let relay = Relay::new(
        endpoint.parse::<EndpointId>().expect("an endpoint id"),
        vec![address.parse().expect("an address")],
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run(PathBuf::from(vault), channel, relay));
}

async fn run(vault: PathBuf, channel: ChannelId, relay: Relay) {
    let agent = Agent::open(agent_config(vault, Mint::new(SEED).provider(), relay))
        .await
        .expect("opened");
    agent.connect().await.expect("a socket");
    let channel = agent.channel(channel).await.expect("in the vault");
    let mut messages = channel.messages();
    loop {
        let message = messages.next().await.expect("a message");
        let text = String::from_utf8(message.payload.to_vec()).expect("text");
        if let Some(number) = text.strip_prefix("alice ") {
            // Dealing with a message, then acknowledging it: what is dealt with twice is so because of a kill in between.
            channel.send(format!("echo {number}")).await.expect("sent");
        }
        message.ack().await.expect("acked");
        let mut stdout = std::io::stdout();
        write!(stdout, "\n{ACKED}\n")
            .and_then(|()| stdout.flush())
            .expect("said");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_while_it_processes_and_sends_loses_and_doubles_nothing() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    let (channel, id) = (channels[0].clone(), channels[0].id());
    drop(channels);
    bob.close(Duration::from_secs(5)).await;

    let over = CancellationToken::new();
    let feeder = tokio::spawn({
        let (channel, over) = (channel.clone(), over.clone());
        async move {
            let mut fed = 0;
            while fed < FROM_ALICE_MIN || !over.is_cancelled() {
                channel.send_many(numbered("alice", fed..fed + 5)).await.expect("sent");
                if fed % 100 == 50 {
                    channel.rotate().await.expect("queued");
                }
                fed += 5;
                // Later ones are for the processes to come: each has something to do, however long it takes to start.
                let pause_ms = if fed < FROM_ALICE_MIN { 25 } else { 100 };
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
            fed
        }
    });
    for kill in 0..KILLS {
        let (mut child, mut lines) = spawn_child(&world, id);
        // Most are in the middle of their work; every third one may be starting.
        if kill % 3 != 2 {
            soon("a process at work", acknowledged(&mut lines, 2)).await;
        }
        let life = Duration::from_millis(u64::from(rand::random::<u16>() % 900));
        tokio::time::sleep(life).await;
        child.start_kill().expect("killed");
        let status = child.wait().await.expect("ended");
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9),
            "it ended by the kill: {status}"
        );
    }
    over.cancel();
    let fed = soon("all fed", feeder).await.expect("all sent");

    // Once more, in this process, to the end.
    soon("all out", alice.flushed()).await.expect("flushed");
    let bob = world.open("bob").await;
    let theirs = bob.channel(id).await.expect("in the vault");
    bob.connect().await.expect("a socket");
    let caught_up = async {
        bob.caught_up().await.expect("current");
        bob.flushed().await.expect("flushed");
    };
    soon("bob current", caught_up).await;
    let messages = assert_same(&[channel.clone(), theirs.clone()]).await;

    // Of Alice's messages: each once, in order, in both vaults (the transcripts are the same).
    let texts = texts(&messages);
    let from_alice: Vec<&String> = texts.iter().filter(|text| text.starts_with("alice ")).collect();
    let expected: Vec<String> = (0..fed).map(|number| format!("alice {number}")).collect();
    assert_eq!(from_alice, expected.iter().collect::<Vec<_>>());
    // Of Bob's echoes: those whose message was acknowledged are there, in order; one is there twice only where a kill came
    // between its sending and the acknowledgement, so at most once for each kill.
    let echoes: Vec<usize> = texts
        .iter()
        .filter_map(|text| text.strip_prefix("echo ")?.parse().ok())
        .collect();
    let mut unique = echoes.clone();
    unique.dedup();
    assert!(
        unique.is_sorted() && unique.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "{unique:?}"
    );
    assert!(
        echoes.len() - unique.len() <= KILLS,
        "{} doubled",
        echoes.len() - unique.len()
    );
    assert!(
        unique.len() > KILLS,
        "the children did their work: {} echoes",
        unique.len()
    );
    // No frame is in the log twice.
    let mut ids: Vec<_> = messages.iter().map(|message| message.frame_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), messages.len());
    // What is left unacknowledged begins right behind the last echo.
    let acked = unique.len();
    let mut rest = theirs.messages();
    if acked < fed {
        let next = soon("the next message", rest.next()).await.expect("a message");
        let text = String::from_utf8(next.payload.to_vec()).expect("text");
        let next: usize = text.strip_prefix("alice ").expect("alice's").parse().expect("a number");
        assert!(next == acked || next + 1 == acked, "after {acked} echoes comes {next}");
    }
    assert!(
        theirs
            .unreadable(skytale_proto::Offset::ZERO, 10)
            .await
            .expect("a list")
            .is_empty()
    );
    alice.close(Duration::from_secs(5)).await;
    bob.close(Duration::from_secs(5)).await;
}

/// Waits until the process has acknowledged so many messages.
async fn acknowledged(lines: &mut Lines<BufReader<ChildStdout>>, mut count: usize) {
    while count > 0 {
        let line = lines.next_line().await.expect("text").expect("it runs");
        count -= usize::from(line == ACKED);
    }
}

/// Starts the process. Its output must stay open as long as it runs: it says more.
fn spawn_child(world: &World, channel: ChannelId) -> (tokio::process::Child, Lines<BufReader<ChildStdout>>) {
    let mut child = tokio::process::Command::new(std::env::current_exe().expect("this binary"))
        .args(["crash_child", "--exact", "--test-threads=1", "--nocapture"])
        .env(VAULT, world.vault("bob"))
        .env(CHANNEL, channel.to_string())
        .env(RELAY, format!("{}@{}", world.relay.endpoint, world.relay.addresses[0]))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("a process");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    (child, lines)
}
