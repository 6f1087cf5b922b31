//! Messages and events as streams, and sending with backpressure.

use super::world::{World, channel_of, numbered, soon, texts, transcript};
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use skytale_proto::Code;
use skytale_sdk::Agent;
use skytale_sdk::Event;
use skytale_sdk::{Outgoing, QueuedKind};
use std::time::Duration;

/// Returns the next item of any stream, without pinning by the caller.
async fn next<S: Stream + Unpin + Send + 'static>(stream: &mut S) -> Option<S::Item> {
    soon("an item", stream.next()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_and_events_are_streams_and_a_dropped_wait_loses_none_of_them() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    let (mut one, mut all, mut events) = (channels[1].messages(), bob.messages(), bob.events());
    for number in 0..20 {
        // Waits that begin before there is anything, and are dropped.
        assert!(one.next().now_or_never().is_none());
        assert!(Box::pin(all.next()).now_or_never().is_none());
        let _ = events.next().now_or_never();
        channels[0]
            .send_many(numbered("m", number..number + 1))
            .await
            .expect("sent");
        let expected = format!("m {number}");
        match number % 2 {
            0 => {
                let message = next(&mut one).await.expect("no end").expect("a message");
                assert_eq!(message.payload, expected);
                let message = next(&mut all).await.expect("no end").expect("a message");
                assert_eq!(message.payload, expected);
            }
            _ => {
                let message = soon("a message", one.next()).await.expect("a message");
                assert_eq!(message.payload, expected);
                let message = soon("a message", all.next()).await.expect("a message");
                assert_eq!(message.payload, expected);
            }
        }
    }
    bob.close(Duration::from_secs(5)).await;
    let codes = |item: Option<Result<_, skytale_sdk::AgentError>>| {
        item.and_then(|item: Result<skytale_sdk::Received, _>| item.err())
            .map(|error| error.code())
    };
    // After an error a stream gives nothing more.
    assert_eq!(codes(next(&mut one).await), Some(Code::Closed));
    assert!(next(&mut one).await.is_none());
    assert_eq!(codes(next(&mut all).await), Some(Code::Closed));
    assert!(next(&mut all).await.is_none());
    let told: Vec<Event> = soon("the end", events.collect()).await;
    let messages = told
        .iter()
        .filter(|event| matches!(event, Event::Message { .. }))
        .count();
    assert!(messages >= 1, "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_waits_for_room_in_the_outbox_and_sends_each_message_once() {
    const ROOM: u64 = 4;
    let world = World::new().await;
    let bob = world.agent("bob").await;
    let mut config = world.config("alice");
    config.engine.outbox_messages_max = ROOM;
    let alice = soon("opened", Agent::open(config)).await.expect("opened");
    alice.connect().await.expect("a socket");
    let channels = channel_of(&[&alice, &bob]).await;
    soon("all out", alice.flushed()).await.expect("flushed");
    alice.disconnect().await;
    let channel = &channels[0];
    for number in 0..ROOM {
        channel
            .send_when_room(Outgoing::new(format!("m {number}")))
            .await
            .expect("there is room");
    }
    let full = channel.send("no room").await.err().map(|error| error.code());
    assert_eq!(full, Some(Code::OutboxFull));
    // One that is dropped while it waits sends nothing.
    let waiting = channel.send_when_room(Outgoing::new("dropped"));
    let given_up = tokio::time::timeout(Duration::from_millis(20), waiting).await;
    assert!(given_up.is_err());
    let sending = tokio::spawn({
        let channel = channel.clone();
        async move {
            for number in ROOM..5 * ROOM {
                let message = Outgoing::new(format!("m {number}"));
                channel.send_when_room(message).await.expect("sent");
            }
        }
    });
    alice.connect().await.expect("a socket");
    soon("all sent", sending).await.expect("no panic");
    soon("all out", alice.flushed()).await.expect("flushed");
    let expected: Vec<String> = (0..5 * ROOM).map(|number| format!("m {number}")).collect();
    assert_eq!(texts(&transcript(channel).await), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_larger_than_the_outbox_is_refused_and_the_outbox_shows_what_waits() {
    let world = World::new().await;
    let mut config = world.config("alice");
    config.engine.outbox_bytes_max = 100;
    let alice = soon("opened", Agent::open(config)).await.expect("opened");
    let channel = alice.create_channel("test").await.expect("made");
    let answered = skytale_proto::FrameId::generate();
    let message = Outgoing::new("{}").reply_to(answered).content_type("application/json");
    let sent = channel.send_message(message).await.expect("in the outbox");
    channel.rotate().await.expect("in the outbox");
    let outbox = channel.outbox().await.expect("listed");
    let kinds: Vec<_> = outbox.iter().map(|queued| queued.kind).collect();
    assert_eq!(kinds, [QueuedKind::Create, QueuedKind::Message, QueuedKind::UpdateKeys]);
    let queued = &outbox[1];
    assert_eq!(
        (queued.frame_id, queued.payload.as_deref()),
        (sent.frame_id(), Some(&b"{}"[..]))
    );
    assert_eq!(queued.properties.reply_to, Some(answered));
    assert_eq!(queued.properties.content_type.as_deref(), Some("application/json"));
    assert!(outbox[0].payload.is_none() && outbox[2].payload.is_none());

    alice.connect().await.expect("a socket");
    let large = channel.send_when_room(Outgoing::new(vec![0; 101]));
    let code = soon("an answer", large).await.err().map(|error| error.code());
    assert_eq!(code, Some(Code::OutboxFull));
}
