//! Adding agents whose KeyPackages have aged, or whose clock is wrong; agents that cannot be added.

use super::world::{World, event, soon};
use skytale_proto::{AgentId, Code};
use skytale_sdk::{Agent, AgentError, Channel, Clock, DeferredAdd, Delivered, EngineError, Event};
use std::time::Duration;

/// Opens an agent with few KeyPackages and goes online until they are on offer.
async fn online(world: &World, name: &str, change: impl FnOnce(&mut skytale_sdk::AgentConfig)) -> Agent {
    let mut config = world.config(name);
    config.engine.key_packages_low = 2;
    config.engine.key_packages_target = 4;
    change(&mut config);
    let agent = soon("a vault opened", Agent::open(config)).await.expect("opened");
    agent.connect().await.expect("a socket");
    soon("an agent current", agent.caught_up()).await.expect("current");
    agent
}

/// Creates an offline agent whose KeyPackages have all expired.
async fn expired(world: &World, name: &str) -> AgentId {
    let agent = online(world, name, |config| {
        config.engine.key_package_lifetime = Duration::ZERO
    })
    .await;
    agent.close(Duration::from_secs(5)).await;
    agent.id()
}

/// Waits until an agent has joined a channel through a concurrent action.
async fn joined(agent: &Agent, channel: &Channel, by: impl Future<Output = ()>) {
    let mut events = agent.events();
    let id = channel.id();
    by.await;
    event(
        &mut events,
        "joined",
        |event| matches!(event, Event::Joined { channel, .. } if *channel == id),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_key_packages_are_skipped_in_one_call_and_replaced_when_their_owner_comes_back() {
    let world = World::new().await;
    let alice = world.agent("alice").await;
    let bob = expired(&world, "bob").await;
    let channel = alice.create_channel("test").await.expect("made");
    let refused = soon("an answer", channel.add(&[bob])).await;
    let error = refused.expect_err("nothing of bob's is in force");
    assert_eq!(error.code(), Code::KeyPackageExpired);
    let AgentError::NotAdded { agent, source } = &error else {
        panic!("{error}");
    };
    assert_eq!(*agent, bob);
    assert!(
        matches!(**source, AgentError::Engine(EngineError::KeyPackageExpired { .. })),
        "{source}"
    );
    assert!(error.to_string().contains("come online"), "{error}");

    // Offers as many as it likes, of which the oldest have expired again.
    expired(&world, "bob").await;
    let bob = online(&world, "bob", |_| {}).await;
    let id = bob.id();
    joined(&bob, &channel, async {
        let sent = soon("an answer", channel.add(&[id])).await.expect("claimed");
        soon("added", sent.delivered()).await.expect("delivered");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_of_1970_hinder_nobody_as_long_as_the_relay_node_tells_the_time() {
    let world = World::new().await;
    let since_1970 = |config: &mut skytale_sdk::AgentConfig| config.engine.clock = Clock::new(|| 5_000);
    let (alice, bob) = (
        online(&world, "alice", since_1970).await,
        online(&world, "bob", since_1970).await,
    );
    let carol = world.agent("carol").await;
    let channel = alice.create_channel("test").await.expect("made");
    joined(&bob, &channel, async {
        let ids = [bob.id(), carol.id()];
        let sent = soon("an answer", channel.add(&ids)).await.expect("claimed");
        soon("added", sent.delivered()).await.expect("delivered");
    })
    .await;
    // Someone whose clock is right takes what bob made.
    let other = carol.create_channel("test").await.expect("made");
    joined(&bob, &other, async {
        let sent = soon("an answer", other.add(&[bob.id()])).await.expect("claimed");
        soon("added", sent.delivered()).await.expect("delivered");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_can_be_added_are_and_each_other_is_named() {
    let world = World::new().await;
    let (alice, bob, carol) = (
        world.agent("alice").await,
        world.agent("bob").await,
        world.agent("carol").await,
    );
    let stranger = AgentId::from_bytes([0xab; 32]);
    let away = expired(&world, "away").await;
    let channel = alice.create_channel("test").await.expect("made");
    let all = [stranger, bob.id(), away, carol.id()];
    // All or none.
    let refused = soon("an answer", channel.add(&all)).await.expect_err("not all");
    assert!(matches!(refused, AgentError::NotAdded { .. }), "{refused}");

    let added = soon("an answer", channel.add_available(&all)).await.expect("some");
    let mut refused: Vec<_> = added
        .refused
        .iter()
        .map(|(agent, error)| (*agent, error.code()))
        .collect();
    let mut expected = [(stranger, Code::KeyPackagesExhausted), (away, Code::KeyPackageExpired)];
    refused.sort_by_key(|(agent, _)| *agent);
    expected.sort_by_key(|(agent, _)| *agent);
    assert_eq!(refused, expected);
    let sent = added.sent.expect("a commit");
    soon("added", sent.delivered()).await.expect("delivered");
    assert_eq!(channel.members().await.expect("known").len(), 3);

    let nobody = soon("an answer", channel.add_available(&all)).await;
    let Err(AgentError::NobodyAdded { refused }) = nobody else {
        panic!("{nobody:?}");
    };
    assert_eq!(refused.len(), 2, "members are left out");
    let unneeded = channel.add_available(&[bob.id()]).await.expect("nothing to do");
    assert!(unneeded.sent.is_none() && unneeded.refused.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_member_leaves_at_once_also_offline_and_the_last_two_leave_together() {
    let world = World::new().await;
    let alone = world.open("alone").await;
    let channel = alone.create_channel("test").await.expect("made");
    let left = channel.leave().await.expect("queued");
    assert_eq!(
        soon("an end", left.delivered()).await.expect("gone"),
        Delivered::Unneeded
    );
    soon("an end", channel.caught_up()).await.expect("there is no more");

    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = super::world::channel_of(&[&alice, &bob]).await;
    let id = channels[0].id();
    let (mut of_alice, mut of_bob) = (alice.events(), bob.events());
    let (first, second) = tokio::join!(channels[0].leave(), channels[1].leave());
    for sent in [first, second] {
        soon("an end", sent.expect("queued").delivered()).await.expect("done");
    }
    for events in [&mut of_alice, &mut of_bob] {
        let left = |event: &Event| matches!(event, Event::Left { channel, .. } if *channel == id);
        event(events, "left", left).await;
    }
    for agent in [&alice, &bob] {
        assert_eq!(agent.failed().await.expect("listed"), []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_failed_is_sent_again() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = super::world::channel_of(&[&alice, &bob]).await;
    bob.disconnect().await;
    let sent = channels[1].send("kept").await.expect("queued");
    let frame_id = sent.frame_id();
    let removed = channels[0].remove(&[bob.id()]).await.expect("queued");
    soon("removed", removed.delivered()).await.expect("delivered");
    bob.connect().await.expect("a socket");
    let failed = soon("an end", sent.delivered()).await.map_err(|error| error.code());
    assert_eq!(failed, Err(Code::ChannelLeft));
    let failed = bob.failed().await.expect("listed");
    assert_eq!(failed.len(), 1);
    assert_eq!((failed[0].channel, failed[0].frame_id), (channels[1].id(), frame_id));
    joined(&bob, &channels[0], async {
        let added = soon("an answer", channels[0].add(&[bob.id()])).await.expect("claimed");
        soon("added", added.delivered()).await.expect("delivered");
    })
    .await;
    let again = channels[1].retry(frame_id).await.expect("queued").expect("known");
    let offset = soon("an end", again.delivered()).await.expect("delivered").offset();
    assert!(offset.is_some());
    assert_eq!(bob.failed().await.expect("listed"), []);
    assert!(channels[1].retry(frame_id).await.expect("asked").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_was_never_online_is_added_when_it_has_been() {
    let world = World::new().await;
    let alice = world.agent("alice").await;
    let channel = alice.create_channel("test").await.expect("made");
    let late = world.open("late").await;
    let stranger = AgentId::from_bytes([0xcd; 32]);
    channel.add_later(&[late.id(), stranger]).await.expect("kept");
    let tried = async {
        loop {
            let waiting = channel.deferred_adds().await.expect("listed");
            assert_eq!(waiting.len(), 2);
            if waiting.iter().all(|add| add.last_refusal.is_some()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("both tried", tried).await;
    let mut events = late.events();
    late.connect().await.expect("a socket");
    soon("late is current", late.caught_up()).await.expect("current");
    // Tried in each session, so also in the next one.
    alice.close(Duration::from_secs(5)).await;
    let alice = world.agent("alice").await;
    let tried = async {
        loop {
            let waiting = alice.deferred_adds().await.expect("listed");
            assert!(waiting.iter().any(|add| add.agent == stranger));
            // An attempt that takes too long is made again later.
            let refused = |add: &DeferredAdd| add.last_refusal.map(|refusal| refusal.code);
            if waiting.len() == 1 && refused(&waiting[0]) == Some(Code::KeyPackagesExhausted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("only the stranger waits", tried).await;
    let channel = alice.channel(channel.id()).await.expect("in the vault");
    assert_eq!(channel.cancel_add(&[stranger]).await.expect("forgotten"), 1);
    event(&mut events, "joined", |event| matches!(event, Event::Joined { .. })).await;
    soon("all out", alice.flushed()).await.expect("flushed");
    assert_eq!(channel.members().await.expect("known").len(), 2);
}
