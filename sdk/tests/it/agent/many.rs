//! An agent in more channels than a session has streams for.

use super::world::{World, event, soon};
use skytale_proto::{ChannelId, Code};
use skytale_sdk::{Agent, Channel, ChannelState, Event};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Streams of a session, of which subscriptions get a few.
const STREAMS: u32 = 16;
const CHANNELS: usize = 100;

/// Creates channels, and adds another agent to each.
async fn shared(alice: &Agent, bob: &Agent) -> BTreeMap<ChannelId, (Channel, Channel)> {
    let mut made = Vec::new();
    for number in 0..CHANNELS {
        let channel = alice.create_channel(&format!("channel {number}")).await.expect("made");
        channel.add(&[bob.id()]).await.expect("queued");
        made.push(channel);
    }
    soon("all in the logs", alice.flushed()).await.expect("flushed");
    let mut both = BTreeMap::new();
    for channel in made {
        assert_eq!(channel.info().await.expect("known").state, ChannelState::Active);
        let id = channel.id();
        let theirs = soon("joined", async {
            loop {
                match bob.channel(id).await {
                    Ok(channel) => return channel,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        });
        both.insert(id, (channel, theirs.await));
    }
    both
}

async fn says(from: &Channel, to: &Channel, text: &str) {
    from.send(text.to_owned()).await.expect("sent");
    let message = soon("a message", to.messages().next()).await.expect("a message");
    assert_eq!(message.payload, text);
    message.ack().await.expect("acked");
}

async fn talk(channels: &BTreeMap<ChannelId, (Channel, Channel)>, round: &str) {
    for (alices, bobs) in channels.values() {
        says(alices, bobs, round).await;
        says(bobs, alices, round).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_current_in_many_more_channels_than_it_has_streams() {
    let world = World::with(|config| config.limits.streams_max = STREAMS).await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let mut events = bob.events();
    let channels = shared(&alice, &bob).await;
    soon("current", bob.caught_up()).await.expect("current");
    talk(&channels, "hello").await;
    // Messages to all of them at once.
    for (alices, _) in channels.values() {
        alices.send("to all").await.expect("sent");
    }
    for (_, bobs) in channels.values() {
        let message = soon("a message", bobs.messages().next()).await.expect("a message");
        message.ack().await.expect("acked");
    }
    // And one more channel.
    let more = bob.create_channel("one more").await.expect("made");
    soon("in the log", bob.flushed()).await.expect("flushed");
    assert_eq!(more.info().await.expect("known").state, ChannelState::Active);

    // In the next session they are all current again.
    soon("away", bob.disconnect()).await;
    for (alices, _) in channels.values() {
        alices.send("meanwhile").await.expect("sent");
    }
    soon("all out", alice.flushed()).await.expect("flushed");
    bob.connect().await.expect("connects");
    soon("current", bob.caught_up()).await.expect("current");
    for (_, bobs) in channels.values() {
        assert_eq!(bobs.info().await.expect("known").unacked, 1);
    }
    bob.close(Duration::from_secs(5)).await;
    while let Some(event) = events.next().await {
        assert!(
            !matches!(
                event,
                Event::Refused { .. } | Event::SendHeld { .. } | Event::Gap { .. }
            ),
            "{event:?}"
        );
    }
    alice.close(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_that_the_relay_node_does_not_watch_are_read_in_turns_and_the_agent_is_told() {
    let world = World::with(|config| {
        config.limits.streams_max = STREAMS;
        config.limits.watched_max = 20;
    })
    .await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let mut events = bob.events();
    let channels = shared(&alice, &bob).await;
    soon("current", bob.caught_up()).await.expect("current");
    let told = event(&mut events, "told", |event| matches!(event, Event::Refused { .. })).await;
    let Event::Refused { code, reason, .. } = told else {
        panic!("{told:?}")
    };
    assert_eq!(code, Code::TooManyWatched);
    assert!(reason.contains("at most 20 channels"), "{reason}");
    for (alices, _) in channels.values() {
        alices.send("to all").await.expect("sent");
    }
    for (_, bobs) in channels.values() {
        let message = soon("a message", bobs.messages().next()).await.expect("a message");
        message.ack().await.expect("acked");
    }
    alice.close(Duration::from_secs(5)).await;
    bob.close(Duration::from_secs(5)).await;
}

/// `SKYTALE_CHANNELS=20000` runs this with that many channels and the limits of a node by default, and prints what it
/// took: see docs/benchmarks.md.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_in_an_idle_channel_comes_at_once_however_many_there_are() {
    let asked = std::env::var("SKYTALE_CHANNELS")
        .ok()
        .and_then(|count| count.parse().ok());
    let count: usize = asked.unwrap_or(60);
    let world = World::with(|config| {
        if asked.is_none() {
            config.limits.streams_max = STREAMS;
        }
    })
    .await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let began = Instant::now();
    let mut channels = Vec::new();
    for number in 0..count {
        channels.push(alice.create_channel(&format!("channel {number}")).await.expect("made"));
        // The node takes so many frames a second.
        if number % 1_000 == 999 {
            alice.flushed().await.expect("flushed");
        }
    }
    alice.flushed().await.expect("flushed");
    let made = began.elapsed();
    // Some of them are another agent's, too: the first ones, which have been idle for longest.
    let shared = &channels[..20];
    for channel in shared {
        let added = channel.add(&[bob.id()]).await.expect("queued");
        soon("added", added.delivered()).await.expect("added");
    }
    soon("current", bob.caught_up()).await.expect("current");

    // Another session.
    alice.close(Duration::from_secs(5)).await;
    let began = Instant::now();
    let alice = world.open("alice").await;
    let opened = began.elapsed();
    alice.connect().await.expect("connects");
    alice.caught_up().await.expect("current");
    let current = began.elapsed();
    let mut waits = Vec::new();
    for channel in shared {
        let (to, from) = (
            alice.channel(channel.id()).await.expect("known"),
            bob.channel(channel.id()).await.expect("joined"),
        );
        let began = Instant::now();
        says(&from, &to, "still there?").await;
        waits.push(began.elapsed());
    }
    waits.sort();
    eprintln!(
        "{count} channels: made in {made:?}; vault opened in {opened:?}, current after {current:?}; \
         a message in an idle channel read after {:?} (median), {:?} (longest)",
        waits[waits.len() / 2],
        waits[waits.len() - 1]
    );
    alice.close(Duration::from_secs(5)).await;
    bob.close(Duration::from_secs(5)).await;
}
