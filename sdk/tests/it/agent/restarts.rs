//! Relay nodes and agents that stop in the middle of traffic.

use super::world::{World, assert_same, channel_of, event, numbered, soon, texts};
use skytale_sdk::{Agent, Event, RelaySource};
use std::time::Duration;

const ROUNDS: usize = 30;
const EACH: usize = 10;

fn expect_all(texts: &[String], names: &[&str]) {
    for name in names {
        let prefix = format!("{name} ");
        let of: Vec<&String> = texts.iter().filter(|text| text.starts_with(&prefix)).collect();
        let expected: Vec<String> = (0..ROUNDS * EACH).map(|number| format!("{name} {number}")).collect();
        assert_eq!(of, expected.iter().collect::<Vec<_>>(), "each once, in order");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_the_relay_restarts() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    let mut events = alice.events();
    for round in 0..ROUNDS {
        let range = round * EACH..(round + 1) * EACH;
        channels[0]
            .send_many(numbered("alice", range.clone()))
            .await
            .expect("sent");
        channels[1].send_many(numbered("bob", range)).await.expect("sent");
        if round % 10 == 5 {
            channels[round / 10 % 2].rotate().await.expect("queued");
            for agent in [&alice, &bob] {
                soon("connected", agent.connected()).await.expect("a session");
            }
            // No pause: frames are on their way.
            world.stop_relay().await;
            event(&mut events, "disconnected", |event| {
                matches!(event, Event::Disconnected { .. })
            })
            .await;
            world.start_relay().await;
        } else {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    for agent in [&alice, &bob] {
        soon("all out", agent.flushed()).await.expect("flushed");
    }
    let messages = assert_same(&channels).await;
    assert_eq!(messages.len(), 2 * ROUNDS * EACH);
    expect_all(&texts(&messages), &["alice", "bob"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_an_agent_is_dropped() {
    let world = World::new().await;
    let (alice, mut bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    let (channel, id) = (channels[0].clone(), channels[0].id());
    drop(channels);
    let mut received = Vec::new();
    let mut theirs = bob.channel(id).await.expect("in the vault");
    for round in 0..ROUNDS {
        let range = round * EACH..(round + 1) * EACH;
        channel.send_many(numbered("alice", range.clone())).await.expect("sent");
        theirs.send_many(numbered("bob", range)).await.expect("sent");
        let mut messages = theirs.messages();
        for _ in 0..EACH / 2 {
            let message = soon("a message", messages.next()).await.expect("a message");
            message.ack().await.expect("acked");
            received.push(String::from_utf8(message.payload.to_vec()).expect("text"));
        }
        if round % 6 == 3 {
            // No close: as it is.
            drop((messages, theirs, bob));
            bob = reopen(&world, "bob").await;
            bob.connect().await.expect("a socket");
            theirs = bob.channel(id).await.expect("in the vault");
        }
    }
    for agent in [&alice, &bob] {
        soon("all out", agent.flushed()).await.expect("flushed");
    }
    let mut messages = theirs.messages();
    while received.len() < ROUNDS * EACH {
        let message = soon("a message", messages.next()).await.expect("a message");
        message.ack().await.expect("acked");
        received.push(String::from_utf8(message.payload.to_vec()).expect("text"));
    }
    expect_all(&received, &["alice"]);
    let messages = assert_same(&[channel, theirs]).await;
    expect_all(&texts(&messages), &["alice", "bob"]);
}

/// A dropped agent's vault is released when its thread has ended.
async fn reopen(world: &World, name: &str) -> Agent {
    let opened = async {
        loop {
            match Agent::open(world.config(name)).await {
                Ok(agent) => return agent,
                Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    soon("a vault reopened", opened).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_not_there_is_waited_for() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    let mut events = alice.events();
    world.stop_relay().await;
    let sent = channels[0].send("into the void").await.expect("in the outbox");
    event(&mut events, "a failed attempt", |event| {
        matches!(event, Event::ConnectFailed { .. })
    })
    .await;
    world.start_relay().await;
    soon("delivered", sent.delivered()).await.expect("delivered");
    let mut messages = channels[1].messages();
    assert_eq!(
        soon("a message", messages.next()).await.expect("a message").payload,
        "into the void"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_drains_hands_its_agents_to_the_next() {
    let world = World::new().await;
    let (second, second_relay) = world.second_relay().await;
    let bob = world.agent("bob").await;
    let mut config = world.config("alice");
    config.relays = RelaySource::Fixed(vec![second_relay.clone(), world.relay.clone()]);
    let alice = Agent::open(config).await.expect("opened");
    let mut events = alice.events();
    alice.connect().await.expect("a socket");
    let to_second = |event: &Event| matches!(event, Event::Connected { relay, .. } if *relay == second_relay.endpoint);
    event(&mut events, "at the second", to_second).await;
    let channels = channel_of(&[&alice, &bob]).await;
    let feeder = tokio::spawn({
        let channel = channels[0].clone();
        async move {
            for number in 0..ROUNDS * EACH {
                channel.send(format!("alice {number}")).await.expect("sent");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    soon("drained", second.drain(Duration::from_secs(10))).await;
    second.shutdown().await;
    let to_first = |event: &Event| matches!(event, Event::Connected { relay, .. } if *relay == world.relay.endpoint);
    event(&mut events, "at the first", to_first).await;
    soon("all fed", feeder).await.expect("all sent");
    soon("all out", alice.flushed()).await.expect("flushed");
    let messages = assert_same(&channels).await;
    expect_all(&texts(&messages), &["alice"]);
}
