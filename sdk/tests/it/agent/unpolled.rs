//! Unpolled and dropped futures: they hold nothing that others need.

use super::world::{World, channel_of, numbered, soon};
use futures_util::future::{join_all, select_all};
use futures_util::stream::{SelectAll, iter};
use futures_util::{FutureExt, StreamExt};
use skytale_proto::{FrameId, Offset};
use skytale_sdk::{Agent, Channel, Keep};
use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

type Begun = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Polls a future once and never again. `None` if it was ready at once.
fn begin<F: Future<Output: Send> + Send + 'static>(future: F) -> Option<Begun> {
    let mut begun: Begun = Box::pin(future.map(drop));
    match (&mut begun).now_or_never() {
        Some(()) => None,
        None => Some(begun),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_channels_in_one_select_leave_the_agent_alive() {
    let world = World::new().await;
    let alice = world.agent("alice").await;
    let made = join_all((0..1_000).map(|number| {
        let alice = alice.clone();
        async move { alice.create_channel(&number.to_string()).await }
    }));
    let made = soon("channels made", made).await;
    let channels: Vec<Channel> = made.into_iter().map(|channel| channel.expect("made")).collect();
    // Each waits for a message; none of them is polled again.
    let waiting: Vec<_> = channels
        .iter()
        .map(|channel| {
            let mut messages = channel.messages();
            begin(async move { messages.next().await })
        })
        .collect();

    let mut sending: Vec<_> = channels
        .iter()
        .map(|channel| channel.send("one of a thousand").boxed())
        .collect();
    let mut sent = Vec::new();
    while !sending.is_empty() {
        let (first, _, rest) = soon("one sent", select_all(sending)).await;
        let first = first.expect("sent");
        // The others are not polled while this one is dealt with.
        let of = alice.channel(first.channel()).await.expect("in the vault");
        soon("acknowledged", of.ack(Offset::ZERO)).await.expect("acknowledged");
        sent.push(first);
        sending = rest;
    }
    assert_eq!(sent.len(), 1_000);
    soon("all out", alice.flushed()).await.expect("flushed");
    drop(waiting);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_may_use_the_agent_while_many_sends_are_under_way() {
    let world = World::new().await;
    let alice = world.agent("alice").await;
    let channel = alice.create_channel("test").await.expect("made");
    let sends = iter(0..400).map(|number| channel.send(number.to_string()));
    let mut sends = sends.buffer_unordered(200);
    let mut count = 0;
    while let Some(sent) = soon("one sent", sends.next()).await {
        let sent = sent.expect("sent").frame_id();
        let found = soon("looked up", channel.sent(sent)).await.expect("asked");
        assert!(found.is_some());
        count += 1;
    }
    assert_eq!(count, 400);
    soon("all out", alice.flushed()).await.expect("flushed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_may_acknowledge_between_the_messages_of_many_channels() {
    const CHANNELS: usize = 140;
    const EACH: usize = 3;
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let mut made = Vec::new();
    for number in 0..CHANNELS {
        made.push(alice.create_channel(&number.to_string()).await.expect("made"));
    }
    let add = |channel: Channel| {
        let bob = bob.id();
        async move {
            let added = channel.add(&[bob]).await.expect("claimed");
            added.delivered().await.expect("delivered");
            channel.send_many(numbered("m", 0..EACH)).await.expect("sent");
        }
    };
    soon("bob added", join_all(made.iter().cloned().map(add))).await;
    soon("all out", alice.flushed()).await.expect("flushed");
    let mut streams = SelectAll::new();
    for channel in &made {
        let theirs = async {
            loop {
                match bob.channel(channel.id()).await {
                    Ok(channel) => return channel,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let messages = soon("joined", theirs).await.messages();
        streams.push(messages.into_stream().boxed());
    }
    let mut counts = HashMap::new();
    while counts.values().sum::<usize>() < CHANNELS * EACH {
        let message = soon("a message", streams.next()).await.expect("no end");
        let message = message.expect("a message");
        // No other stream is polled meanwhile.
        soon("acknowledged", message.ack()).await.expect("acknowledged");
        *counts.entry(message.channel()).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), CHANNELS);
    assert!(counts.values().all(|count| *count == EACH), "each once");
}

/// Returns a started future of each call.
fn one_of_each(agent: &Agent, channel: &Channel, to_add: &Agent) -> Vec<Begun> {
    macro_rules! begin {
        ($($on:ident => $call:expr;)*) => {
            [$({
                let $on = $on.clone();
                begin(async move { $call.await })
            },)*]
        };
    }
    let stranger = to_add.id();
    let begun = begin! {
        agent => agent.connect();
        agent => agent.connected();
        agent => agent.caught_up();
        agent => agent.create_channel("dropped");
        agent => agent.channels();
        agent => agent.outbox();
        agent => agent.flushed();
        channel => agent_of(channel);
        channel => channel.send("maybe");
        channel => channel.send_many(numbered("maybe", 0..3));
        channel => channel.outbox();
        channel => channel.sent(FrameId::generate());
        channel => channel.failed();
        channel => channel.dismiss(FrameId::generate());
        channel => channel.add(&[stranger]);
        channel => channel.remove(&[stranger]);
        channel => channel.rotate();
        channel => channel.members();
        channel => channel.ack(Offset::ZERO);
        channel => channel.history(Offset::ZERO, 10);
        channel => channel.purge(Keep::Newest(10));
        channel => channel.unreadable(Offset::ZERO, 10);
        channel => channel.divergences();
        channel => channel.info();
        channel => channel.cursor();
        channel => channel.digest();
        channel => channel.epoch();
        channel => channel.relabel("another");
        channel => channel.caught_up();
        channel => next(channel);
        channel => delivered(channel);
    };
    begun.into_iter().flatten().collect()
}

async fn agent_of(channel: Channel) {
    let _ = channel.info().await;
    let _ = channel.cursor().await;
}

async fn next(channel: Channel) {
    let _ = channel.messages().next().await;
}

async fn delivered(channel: Channel) {
    if let Ok(sent) = channel.send("waited for").await {
        let _ = sent.delivered().await;
    }
}

/// Runs typical calls of an application.
async fn day(alice: &Agent, channels: &[Channel], word: &str) {
    let sent = soon("sent", channels[0].send(word.to_owned())).await.expect("sent");
    soon("delivered", sent.delivered()).await.expect("delivered");
    let mut messages = channels[1].messages();
    loop {
        let message = soon("a message", messages.next()).await.expect("a message");
        soon("acknowledged", message.ack()).await.expect("acknowledged");
        if message.payload == word {
            break;
        }
    }
    soon("flushed", alice.flushed()).await.expect("flushed");
    soon("current", alice.caught_up()).await.expect("current");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn futures_of_every_call_that_are_not_polled_hold_up_nobody() {
    let world = World::new().await;
    let (alice, bob, carol) = (
        world.agent("alice").await,
        world.agent("bob").await,
        world.agent("carol").await,
    );
    let channels = channel_of(&[&alice, &bob]).await;
    let mut held = Vec::new();
    for round in 0..40 {
        held.extend(one_of_each(&alice, &channels[0], &carol));
        held.extend(one_of_each(&bob, &channels[1], &carol));
        if round % 10 == 0 {
            day(&alice, &channels, &format!("round {round}")).await;
        }
    }
    // A change that nobody waits for is still made, and does not block the next one.
    for _ in 0..5 {
        let agent = alice.clone();
        held.extend(begin(async move { agent.disconnect().await }));
        let agent = alice.clone();
        held.extend(begin(async move { agent.connect().await }));
    }
    soon("disconnected", alice.disconnect()).await;
    assert!(!alice.is_connected());
    soon("connected", alice.connect()).await.expect("a socket");
    day(&alice, &channels, "connected again").await;
    soon("closed", alice.close(Duration::from_secs(5))).await;
    drop(held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_are_made_in_the_order_in_which_they_were_started() {
    let world = World::new().await;
    let alice = world.agent("alice").await;
    let mut held = Vec::new();
    for round in 0..30 {
        let agent = alice.clone();
        held.extend(begin(async move { agent.connect().await }));
        soon("disconnected", alice.disconnect()).await;
        assert!(!alice.is_connected(), "round {round}: the connect before it came after");
        // Nothing that was started is left to connect it again.
        tokio::task::yield_now().await;
        assert!(!alice.is_connected(), "round {round}");
        soon("connected", alice.connect()).await.expect("a socket");
        let agent = alice.clone();
        held.extend(begin(async move { agent.disconnect().await }));
        soon("connected", alice.connect()).await.expect("a socket");
        soon("a session", alice.connected()).await.expect("a session");
    }
    soon("closed", alice.close(Duration::from_secs(5))).await;
    drop(held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_in_a_runtime_that_nobody_runs_holds_up_no_later_one() {
    let world = World::new().await;
    let alice = world.agent("alice").await;
    alice.disconnect().await;
    let agent = alice.clone();
    let connecting = std::thread::spawn(move || {
        let idle = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let idle = idle.expect("a runtime");
        idle.block_on(agent.connect()).expect("a socket");
        idle
    });
    let idle = connecting.join().expect("no panic");
    alice.disconnect().await;
    assert!(!alice.is_connected());
    soon("connected", alice.connect()).await.expect("a socket");
    soon("a session", alice.connected()).await.expect("a session");
    soon("closed", alice.close(Duration::from_secs(5))).await;
    idle.shutdown_background();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn futures_of_every_call_may_be_dropped() {
    let world = World::new().await;
    let (alice, bob, carol) = (
        world.agent("alice").await,
        world.agent("bob").await,
        world.agent("carol").await,
    );
    let channels = channel_of(&[&alice, &bob]).await;
    for round in 0..40 {
        drop(one_of_each(&alice, &channels[0], &carol));
        drop(one_of_each(&bob, &channels[1], &carol));
        if round % 10 == 0 {
            day(&alice, &channels, &format!("round {round}")).await;
        }
    }
    day(&alice, &channels, "the last").await;
    soon("closed", alice.close(Duration::from_secs(5))).await;
    soon("closed", bob.close(Duration::from_secs(5))).await;
}
