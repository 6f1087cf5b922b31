//! Agents that are online.

use super::world::{Mint, SEED, World, assert_same, channel_of, event, numbered, reach, soon, texts};
use skytale_proto::Code;
use skytale_sdk::{Agent, ChannelState, Delivered, Event};
use std::sync::atomic::Ordering;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_agents_talk() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    let (mut to_alice, mut to_bob) = (channels[0].messages(), channels[1].messages());
    for round in 0..20 {
        let sent = channels[0].send(format!("question {round}")).await.expect("sent");
        let question = soon("a question", to_bob.next()).await.expect("a message");
        assert_eq!(question.payload, format!("question {round}"));
        assert_eq!(question.author, alice.id());
        question.ack().await.expect("acked");
        let delivered = soon("delivered", sent.delivered()).await.expect("delivered");
        assert_eq!(delivered, Delivered::At(question.offset));
        channels[1]
            .send(format!("answer {round}"))
            .await
            .expect("sent")
            .delivered()
            .await
            .expect("delivered");
        let answer = soon("an answer", to_alice.next()).await.expect("a message");
        assert_eq!(
            (answer.payload.as_ref(), answer.author),
            (format!("answer {round}").as_bytes(), bob.id())
        );
        answer.ack().await.expect("acked");
    }
    let messages = assert_same(&channels).await;
    assert_eq!(messages.len(), 40);
    alice.close(Duration::from_secs(5)).await;
    bob.close(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_at_once_keep_their_order() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    let from_alice = channels[0].send_many(numbered("alice", 0..500)).await.expect("sent");
    let from_bob = channels[1].send_many(numbered("bob", 0..500)).await.expect("sent");
    for sent in from_alice.into_iter().chain(from_bob) {
        soon("delivered", sent.delivered()).await.expect("delivered");
    }
    let messages = assert_same(&channels).await;
    let of = |name: &str| {
        texts(&messages)
            .into_iter()
            .filter(|text| text.starts_with(name))
            .collect::<Vec<_>>()
    };
    for name in ["alice", "bob"] {
        let expected: Vec<String> = (0..500).map(|number| format!("{name} {number}")).collect();
        assert_eq!(of(name), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_agent_reads_no_further_and_is_told() {
    let world = World::new().await;
    let (alice, bob, carol) = (
        world.agent("alice").await,
        world.agent("bob").await,
        world.agent("carol").await,
    );
    let channels = channel_of(&[&alice, &bob, &carol]).await;
    channels[0]
        .send("for three")
        .await
        .expect("sent")
        .delivered()
        .await
        .expect("delivered");
    let mut to_carol = carol.events();
    let removed = channels[0].remove(&[carol.id()]).await.expect("queued");
    soon("removed", removed.delivered()).await.expect("delivered");
    channels[0]
        .send("for two")
        .await
        .expect("sent")
        .delivered()
        .await
        .expect("delivered");
    event(&mut to_carol, "carol told", |event| matches!(event, Event::Left { .. })).await;
    assert_eq!(channels[2].info().await.expect("info").state, ChannelState::Left);
    let error = channels[2].send("still here?").await.expect_err("not a member");
    assert_eq!(error.code(), Code::ChannelLeft);
    assert_same(&channels[..2]).await;
    let seen = texts(&super::world::transcript(&channels[2]).await);
    assert_eq!(seen, ["for three"]);

    // And back again, without what was said meanwhile.
    let mut joined = carol.events();
    let added = soon("added", channels[1].add(&[carol.id()])).await.expect("claimed");
    soon("delivered", added.delivered()).await.expect("delivered");
    event(&mut joined, "carol back", |event| matches!(event, Event::Joined { .. })).await;
    let sent = channels[1].send("welcome back").await.expect("sent");
    let at = soon("delivered", sent.delivered())
        .await
        .expect("delivered")
        .offset()
        .expect("an offset");
    reach(&channels[2], at).await;
    let seen = texts(&super::world::transcript(&channels[2]).await);
    assert_eq!(seen, ["for three", "welcome back"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_leaves_is_let_go() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    let (mut to_alice, mut to_bob) = (alice.events(), bob.events());
    channels[1].leave().await.expect("queued");
    event(&mut to_bob, "bob gone", |event| matches!(event, Event::Left { .. })).await;
    let gone = event(&mut to_alice, "alice told", |event| {
        matches!(event, Event::MemberRemoved { .. })
    })
    .await;
    assert!(
        matches!(gone, Event::MemberRemoved { agent, left: true, .. } if agent == bob.id()),
        "{gone:?}"
    );
    assert_eq!(channels[0].members().await.expect("members"), [alice.id()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_leaves_is_let_go_also_when_those_in_turn_are_away() {
    let world = World::new().await;
    let mut agents = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        agents.push(world.agent(name).await);
    }
    let channels = channel_of(&agents.iter().collect::<Vec<_>>()).await;
    // Of those who are there none is the first: that is who made the channel.
    agents[0].disconnect().await;
    let mut to_last = agents[4].events();
    let mut leaver = agents[3].events();
    channels[3].leave().await.expect("queued");
    event(&mut leaver, "gone", |event| matches!(event, Event::Left { .. })).await;
    let gone = event(&mut to_last, "told", |event| {
        matches!(event, Event::MemberRemoved { .. })
    })
    .await;
    let Event::MemberRemoved { agent, by, left, .. } = gone else {
        panic!("{gone:?}");
    };
    assert!(agent == agents[3].id() && left);
    assert!(by != agents[0].id() && by != agents[3].id());
    let sent = channels[4].send("for those who stay").await.expect("sent");
    soon("delivered", sent.delivered()).await.expect("delivered");
    agents[0].connect().await.expect("a socket");
    soon("current", channels[0].caught_up()).await.expect("current");
    // What the first one still had to tell those whom it added goes out now.
    for at in [0, 1, 2, 4] {
        let waiting = soon("all out", agents[at].flushed()).await;
        waiting.expect("flushed");
    }
    assert_same(&[channels[0].clone(), channels[1].clone(), channels[4].clone()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_rotated_in_the_middle_of_traffic() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    let before = channels[0].epoch().await.expect("an epoch");
    for round in 0..10 {
        let from = &channels[round % 2];
        from.send_many(numbered("m", round * 10..round * 10 + 10))
            .await
            .expect("sent");
        from.rotate().await.expect("queued");
    }
    for agent in [&alice, &bob] {
        soon("all out", agent.flushed()).await.expect("flushed");
    }
    let messages = assert_same(&channels).await;
    assert_eq!(messages.len(), 100);
    assert!(channels[0].epoch().await.expect("an epoch") >= before + 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_refreshed_without_a_new_session() {
    let world = World::new().await;
    let bob = world.agent("bob").await;
    // A fifth of a token's life is left when it is refreshed: longer than an overloaded machine takes.
    let mint = Mint::new(SEED);
    mint.life_s.store(20, Ordering::Relaxed);
    let mut config = world.config("alice");
    config.tokens = mint.provider();
    let alice = soon("a vault opened", Agent::open(config)).await.expect("opened");
    alice.connect().await.expect("a socket");
    soon("alice current", alice.caught_up()).await.expect("current");
    let channels = channel_of(&[&alice, &bob]).await;
    let mut events = alice.events();
    let given = mint.given.load(Ordering::Relaxed);
    // Until two more tokens were given, with traffic all the time.
    let refreshed = async {
        let mut round = 0;
        while mint.given.load(Ordering::Relaxed) < given + 2 {
            let sent = channels[0].send(format!("{round}")).await.expect("sent");
            sent.delivered().await.expect("delivered");
            round += 1;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    soon("tokens were refreshed", refreshed).await;
    alice.close(Duration::from_secs(5)).await;
    let mut disconnected = 0;
    while let Some(event) = soon("events end", events.next()).await {
        match event {
            Event::Connected { .. } => panic!("a new session was needed"),
            Event::Disconnected { .. } => disconnected += 1,
            _ => {}
        }
    }
    assert_eq!(disconnected, 1, "by the close alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_without_key_packages_cannot_be_added_yet() {
    let world = World::new().await;
    let alice = world.agent("alice").await;
    let bob = world.open("bob").await;
    let channel = alice.create_channel("test").await.expect("made");
    let error = soon("refused", channel.add(&[bob.id()]))
        .await
        .expect_err("nothing to claim");
    assert_eq!(error.code(), Code::KeyPackagesExhausted);
    assert!(error.is_retryable());
    bob.connect().await.expect("a socket");
    soon("bob current", bob.caught_up()).await.expect("current");
    let added = soon("added", channel.add(&[bob.id()])).await.expect("claimed");
    soon("delivered", added.delivered()).await.expect("delivered");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_to_be_current_and_was_removed_meanwhile_does_not_wait_for_ever() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    bob.disconnect().await;
    let removed = channels[0].remove(&[bob.id()]).await.expect("queued");
    soon("removed", removed.delivered()).await.expect("delivered");

    let (of_channel, of_agent) = (channels[1].clone(), bob.clone());
    let of_channel = tokio::spawn(async move { of_channel.caught_up().await });
    let of_agent = tokio::spawn(async move { of_agent.caught_up().await });
    tokio::task::yield_now().await;
    bob.connect().await.expect("connects");
    soon("the channel", of_channel)
        .await
        .expect("no panic")
        .expect("current");
    soon("the agent", of_agent).await.expect("no panic").expect("current");
    soon("again", channels[1].caught_up()).await.expect("current");
}
