//! Agents that were offline.

use super::world::{World, assert_same, channel_of, event, numbered, reach, soon, texts, transcript};
use skytale_sdk::{Channel, ChannelState, Event};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offline_agent_catches_up_over_membership_changes() {
    let world = World::new().await;
    let (alice, bob, carol) = (
        world.agent("alice").await,
        world.agent("bob").await,
        world.agent("carol").await,
    );
    let dave = world.agent("dave").await;
    let channels = channel_of(&[&alice, &bob, &carol]).await;
    carol.disconnect().await;
    for round in 0..5 {
        channels[0]
            .send_many(numbered("alice", round * 20..round * 20 + 20))
            .await
            .expect("sent");
        channels[1]
            .send_many(numbered("bob", round * 20..round * 20 + 20))
            .await
            .expect("sent");
        match round {
            1 => {
                let added = soon("dave added", channels[0].add(&[dave.id()]))
                    .await
                    .expect("claimed");
                soon("delivered", added.delivered()).await.expect("delivered");
            }
            3 => {
                let removed = channels[1].remove(&[dave.id()]).await.expect("queued");
                soon("delivered", removed.delivered()).await.expect("delivered");
            }
            _ => {
                channels[0].rotate().await.expect("queued");
            }
        }
        for agent in [&alice, &bob] {
            soon("all out", agent.flushed()).await.expect("flushed");
        }
    }
    let behind = channels[2].cursor().await.expect("a cursor");
    carol.connect().await.expect("a socket");
    soon("carol current", carol.caught_up()).await.expect("current");
    assert!(channels[2].cursor().await.expect("a cursor").get() > behind.get() + 200);
    let messages = assert_same(&channels).await;
    assert_eq!(messages.len(), 200);
    assert!(channels[2].unreadable(behind, 10).await.expect("a list").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_offline_goes_out_after_a_restart() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    let id = channels[0].id();
    alice.disconnect().await;
    channels[0]
        .send_many(numbered("offline", 0..50))
        .await
        .expect("in the outbox");
    channels[0].rotate().await.expect("in the outbox");
    channels[0].send("after the rotation").await.expect("in the outbox");
    alice.close(Duration::from_secs(1)).await;
    // Meanwhile the group moves on: everything in the outbox is stale.
    channels[1]
        .rotate()
        .await
        .expect("queued")
        .delivered()
        .await
        .expect("delivered");

    let alice = world.open("alice").await;
    let channel = alice.channel(id).await.expect("in the vault");
    assert!(channel.info().await.expect("info").outbox > 0);
    alice.connect().await.expect("a socket");
    soon("all out", alice.flushed()).await.expect("flushed");
    let messages = assert_same(&[channel, channels[1].clone()]).await;
    let mut expected: Vec<String> = (0..50).map(|number| format!("offline {number}")).collect();
    expected.push("after the rotation".into());
    assert_eq!(texts(&messages), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_added_while_it_was_away_joins_when_it_comes() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    bob.disconnect().await;
    let channel = alice.create_channel("test").await.expect("made");
    let added = soon("added", channel.add(&[bob.id()])).await.expect("claimed");
    soon("delivered", added.delivered()).await.expect("delivered");
    channel.send_many(numbered("before", 0..30)).await.expect("sent");
    soon("all out", alice.flushed()).await.expect("flushed");
    let mut events = bob.events();
    bob.connect().await.expect("a socket");
    event(&mut events, "bob joined", |event| matches!(event, Event::Joined { .. })).await;
    soon("bob current", bob.caught_up()).await.expect("current");
    let theirs = bob.channel(channel.id()).await.expect("in the vault");
    reach(&theirs, channel.cursor().await.expect("a cursor")).await;
    assert_eq!(transcript(&theirs).await.len(), 30);
    assert_same(&[channel, theirs]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_removed_and_added_again_while_it_was_away_is_current_beyond_both() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    // One channel that bob is in before, and one that he learns of only when he is back.
    let known = channel_of(&[&alice, &bob]).await.remove(0);
    let unknown = alice.create_channel("later").await.expect("made");
    bob.disconnect().await;
    let change = async |channel: &Channel, add: bool| {
        let change = if add {
            soon("added", channel.add(&[bob.id()])).await.expect("claimed")
        } else {
            channel.remove(&[bob.id()]).await.expect("queued")
        };
        soon("delivered", change.delivered()).await.expect("delivered");
    };
    change(&unknown, true).await;
    for round in 0..3 {
        for channel in [&known, &unknown] {
            channel.send(format!("before {round}")).await.expect("sent");
            change(channel, false).await;
            channel.send(format!("without {round}")).await.expect("sent");
            change(channel, true).await;
            channel.send(format!("after {round}")).await.expect("sent");
        }
    }
    soon("all out", alice.flushed()).await.expect("flushed");

    bob.connect().await.expect("a socket");
    soon("bob current", bob.caught_up()).await.expect("current");
    for channel in [&known, &unknown] {
        let theirs = bob.channel(channel.id()).await.expect("in the vault");
        assert_eq!(theirs.info().await.expect("info").state, ChannelState::Active);
        let expected: Vec<_> = (0..3)
            .flat_map(|round| [format!("before {round}"), format!("after {round}")])
            .collect();
        assert_eq!(texts(&transcript(&theirs).await), expected);
        soon("the channel current", theirs.caught_up()).await.expect("current");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_made_offline_is_there_when_its_maker_comes_online() {
    let world = World::new().await;
    let alice = world.open("alice").await;
    let channel = alice.create_channel("early").await.expect("made");
    let sent = channel.send("to nobody yet").await.expect("in the outbox");
    alice.connect().await.expect("a socket");
    soon("delivered", sent.delivered()).await.expect("delivered");
    assert_eq!(texts(&transcript(&channel).await), ["to nobody yet"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_before_a_restart_can_be_waited_for_after_it() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    let id = channels[0].id();
    // The digest that it told bob is out.
    soon("all out", alice.flushed()).await.expect("flushed");
    alice.disconnect().await;
    let mut sent = Vec::new();
    for text in ["first", "second"] {
        sent.push(channels[0].send(text).await.expect("queued").frame_id());
    }
    alice.close(Duration::from_secs(1)).await;

    let alice = world.open("alice").await;
    let channel = alice.channel(id).await.expect("in the vault");
    let waiting = channel.outbox().await.expect("listed");
    assert_eq!(waiting, alice.outbox().await.expect("listed"));
    let ids: Vec<_> = waiting.iter().map(|queued| queued.frame_id).collect();
    assert_eq!(ids, sent);
    let first = channel.sent(sent[0]).await.expect("asked").expect("known");
    let again = channel.sent(sent[0]).await.expect("asked").expect("known");
    assert_eq!((first.frame_id(), first.channel()), (sent[0], id));
    alice.connect().await.expect("a socket");
    let at = soon("delivered", first.delivered()).await.expect("delivered");
    assert_eq!(soon("delivered", again.delivered()).await.expect("delivered"), at);

    soon("all out", alice.flushed()).await.expect("flushed");
    assert!(alice.outbox().await.expect("listed").is_empty());
    // What is known already ends at once, offline, too.
    alice.disconnect().await;
    for (sent, text) in sent.iter().zip(["first", "second"]) {
        let delivered = channel.sent(*sent).await.expect("asked").expect("known");
        let offset = soon("known", delivered.delivered()).await.expect("delivered").offset();
        let history = transcript(&channel).await;
        let message = history.iter().find(|message| Some(message.offset) == offset);
        assert_eq!(message.expect("there").payload, text);
    }
    let unknown = skytale_proto::FrameId::generate();
    assert!(channel.sent(unknown).await.expect("asked").is_none());
}
