//! The inbox: explicit acknowledgement, redelivery, backpressure.

use super::world::{World, assert_same, channel_of, event, numbered, reach, soon, transcript};
use skytale_proto::Offset;
use skytale_sdk::{Agent, Event, Keep};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_acknowledged_comes_again_after_a_restart() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    let id = channels[0].id();
    channels[0].send_many(numbered("m", 0..10)).await.expect("sent");
    let mut messages = channels[1].messages();
    for number in 0..10 {
        let message = soon("a message", messages.next()).await.expect("a message");
        assert_eq!(message.payload, format!("m {number}"));
        if number == 3 {
            message.ack().await.expect("acked");
        }
    }
    bob.close(Duration::from_secs(1)).await;
    assert!(messages.next().await.is_err(), "a closed agent has no messages");

    let bob = world.open("bob").await;
    let channel = bob.channel(id).await.expect("in the vault");
    let mut messages = channel.messages();
    for number in 4..10 {
        let message = soon("a message", messages.next()).await.expect("a message");
        assert_eq!(message.payload, format!("m {number}"));
        message.ack().await.expect("acked");
    }
    bob.connect().await.expect("a socket");
    channels[0].send("new").await.expect("sent");
    assert_eq!(
        soon("a message", messages.next()).await.expect("a message").payload,
        "new"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_application_stops_its_channel_and_no_other() {
    let world = World::new().await;
    let alice = world.agent("alice").await;
    let mut config = world.config("bob");
    config.driver.inbox_messages_max = 50;
    let bob = Agent::open(config).await.expect("opened");
    bob.connect().await.expect("a socket");
    soon("bob current", bob.caught_up()).await.expect("current");
    let (slow, quick) = (channel_of(&[&alice, &bob]).await, channel_of(&[&alice, &bob]).await);
    let mut events = bob.events();
    // Batch by batch, so that the pause comes in the middle and not behind one large batch.
    let mut last = None;
    for round in 0..20 {
        slow[0]
            .send_many(numbered("slow", round * 20..round * 20 + 20))
            .await
            .expect("sent");
        soon("all out", alice.flushed()).await.expect("flushed");
        let head = slow[0].cursor().await.expect("a cursor");
        last = Some(head);
        match round {
            0 | 1 => reach(&slow[1], head).await,
            2 => {
                // More than he takes on.
                event(&mut events, "paused", |event| matches!(event, Event::Paused { .. })).await;
            }
            _ => {}
        }
    }
    let last = last.expect("rounds");

    // The other channel goes on, in both directions, and the slow one can still be written to.
    let sent = quick[0].send("quick").await.expect("sent");
    let mut messages = quick[1].messages();
    assert_eq!(
        soon("a quick message", messages.next())
            .await
            .expect("a message")
            .payload,
        "quick"
    );
    soon("delivered", sent.delivered()).await.expect("delivered");
    let unacked = slow[1].info().await.expect("info").unacked;
    assert!(unacked < 400, "{unacked} messages were taken on");
    let sent = slow[1].send("from the slow one").await.expect("sent");
    soon("delivered", sent.delivered()).await.expect("delivered");

    // And when the application comes, everything comes, once and in order.
    let mut messages = slow[1].messages();
    for number in 0..400 {
        let message = soon("a slow message", messages.next()).await.expect("a message");
        assert_eq!(message.payload, format!("slow {number}"));
        message.ack().await.expect("acked");
    }
    reach(&slow[1], last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_watcher_is_told_what_it_missed() {
    let world = World::new().await;
    let mut config = world.config("alice");
    config.driver.events_max = 16;
    let alice = Agent::open(config).await.expect("opened");
    alice.connect().await.expect("a socket");
    let channel = alice.create_channel("test").await.expect("made");
    let mut events = alice.events();
    for sent in channel.send_many(numbered("m", 0..100)).await.expect("sent") {
        soon("delivered", sent.delivered()).await.expect("delivered");
    }
    let first = events.next().await.expect("an event");
    assert!(matches!(first, Event::Lagged { missed } if missed >= 84), "{first:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_is_purged_by_hand_and_kept_short_by_setting_while_messages_come() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    let id = channels[0].id();
    let mut messages = channels[1].messages();
    for round in 0..2 {
        let range = round * 300..(round + 1) * 300;
        channels[0].send_many(numbered("m", range.clone())).await.expect("sent");
        let mut last = Offset::ZERO;
        for number in range {
            let message = soon("a message", messages.next()).await.expect("a message");
            assert_eq!(
                message.payload,
                format!("m {number}"),
                "each comes, whatever is purged meanwhile"
            );
            last = message.offset;
            if number % 100 == 50 {
                message.ack().await.expect("acked");
                let purged = channels[1].purge(Keep::Newest(0)).await.expect("purged");
                assert!(purged.messages > 0 && !purged.more);
                let left = transcript(&channels[1]).await;
                assert!(left.first().is_none_or(|first| first.offset > last));
            }
        }
        channels[1].ack(last).await.expect("acked");
    }
    assert_eq!(transcript(&channels[0]).await.len(), 600, "others keep theirs");
    drop(messages);
    bob.close(Duration::from_secs(1)).await;

    let mut config = world.config("bob");
    config.engine.history = Keep::Newest(10);
    let bob = Agent::open(config).await.expect("opened");
    let channel = bob.channel(id).await.expect("in the vault");
    let short = async {
        while transcript(&channel).await.len() > 10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("kept short", short).await;
    bob.connect().await.expect("a socket");
    channels[0].send("new").await.expect("sent");
    let mut messages = channel.messages();
    assert_eq!(
        soon("a message", messages.next()).await.expect("a message").payload,
        "new"
    );
    assert_same(&[channels[0].clone(), channel.clone()]).await;
}
