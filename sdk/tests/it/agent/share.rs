//! One process has a vault open; others attach to it. Here they are one process, which works the same way.

mod changes;
mod end;
mod hostile;

use super::world::{World, assert_same, channel_of, event, numbered, reach, soon};
use skytale_proto::{Code, Offset};
use skytale_sdk::{Agent, AgentConfig, AgentError, ChannelState, Delivered, Event, Keep, VaultKey};
use std::path::PathBuf;
use std::time::Duration;

async fn open_or_attach(config: AgentConfig) -> Result<Agent, AgentError> {
    soon("a vault opened or attached to", Agent::open_or_attach(config)).await
}

async fn attach(world: &World, name: &str) -> Agent {
    let guest = open_or_attach(world.config(name)).await.expect("attached");
    assert!(guest.is_attached());
    guest
}

fn socket(world: &World, name: &str) -> PathBuf {
    world.dir.path().join(format!("{name}.vault.sock"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_works_through_the_process_that_has_the_vault_open() {
    let world = World::new().await;
    let (owner, bob) = (world.open("alice").await, world.agent("bob").await);
    assert!(!owner.is_attached());
    let alice = attach(&world, "alice").await;
    assert_eq!(
        (alice.id(), alice.endpoint_id().expect("known")),
        (owner.id(), owner.endpoint_id().expect("known"))
    );

    // A guest brings the owner online.
    assert!(!alice.is_connected());
    let mut events = alice.events();
    alice.connect().await.expect("connects");
    soon("connected", alice.connected()).await.expect("connected");
    soon("current", alice.caught_up()).await.expect("current");
    event(&mut events, "connected", |event| {
        matches!(event, Event::Connected { .. })
    })
    .await;
    assert!(owner.is_connected() && alice.is_connected());
    assert_eq!(alice.relay(), Some(world.relay.endpoint));

    // Channels, members, changes.
    let channels = channel_of(&[&alice, &bob]).await;
    let channel = &channels[0];
    // What the engine sends by itself is in the log, too: both see the same.
    soon("settled", owner.flushed()).await.expect("settled");
    assert_eq!(
        owner.channels().await.expect("listed"),
        alice.channels().await.expect("listed")
    );
    let mut members = vec![alice.id(), bob.id()];
    members.sort();
    assert_eq!(channel.members().await.expect("listed"), members);
    channel.relabel("plans").await.expect("labelled");
    let info = channel.info().await.expect("known");
    assert_eq!(
        (info.label.as_str(), info.epoch, info.state),
        ("plans", 1, ChannelState::Active)
    );
    let rotated = channel.rotate().await.expect("queued");
    assert!(matches!(
        soon("rotated", rotated.delivered()).await.expect("made"),
        Delivered::At(_)
    ));
    assert_eq!(channel.epoch().await.expect("known"), 2);

    // Sending: what becomes of it, by the handle and by its id.
    let sent = channel.send("one").await.expect("queued");
    let frame_id = sent.frame_id();
    let at = soon("delivered", sent.delivered()).await.expect("delivered");
    event(
        &mut events,
        "delivered",
        |event| matches!(event, Event::Delivered { frame_id: id, .. } if *id == frame_id),
    )
    .await;
    let again = channel.sent(frame_id).await.expect("known").expect("known");
    assert_eq!(again.delivered().await.expect("delivered"), at);
    for sent in channel.send_many(numbered("more", 0..300)).await.expect("queued") {
        soon("delivered", sent.delivered()).await.expect("delivered");
    }
    soon("flushed", alice.flushed()).await.expect("flushed");
    assert_eq!(alice.outbox().await.expect("listed"), []);
    assert_eq!(channel.outbox().await.expect("listed"), []);
    assert_eq!(channel.failed().await.expect("listed"), []);
    assert_eq!(channel.divergences().await.expect("listed"), []);
    assert_eq!(channel.unreadable(Offset::ZERO, 10).await.expect("listed"), []);

    // Reading: the whole history in pages, digest and cursor, the inbox, acknowledgement.
    let history = assert_same(&channels).await;
    assert_eq!(history.len(), 301);
    assert_eq!(channel.history(Offset::ZERO, 200).await.expect("read"), history[..200]);
    let large = bytes::Bytes::from(vec![7; 1_000_000]);
    for _ in 0..20 {
        channels[1].send(large.clone()).await.expect("queued");
    }
    soon("bob flushed", bob.flushed()).await.expect("flushed");
    let mut messages = channel.messages();
    for _ in 0..20 {
        let message = soon("a message", messages.next()).await.expect("a message");
        assert_eq!(message.payload, large);
    }
    assert_eq!(channel.inbox(Offset::ZERO, 100).await.expect("read").len(), 20);
    let last = channel.cursor().await.expect("known");
    channel.ack(last).await.expect("acknowledged");
    assert_eq!(
        owner
            .channel(channel.id())
            .await
            .expect("known")
            .info()
            .await
            .expect("known")
            .unacked,
        0
    );
    let purged = soon("purged", channel.purge(Keep::Newest(5))).await.expect("purged");
    assert_eq!((purged.messages, purged.more), (316, false));
    assert_eq!(channel.history(Offset::ZERO, 100).await.expect("read").len(), 5);

    // The same errors, with the same words.
    let unknown = skytale_proto::ChannelId::generate();
    let (ours, theirs) = (
        alice.channel(unknown).await.expect_err("unknown"),
        owner.channel(unknown).await.expect_err("unknown"),
    );
    assert_eq!(
        (ours.code(), ours.to_string(), ours.is_retryable()),
        (Code::ChannelUnknown, theirs.to_string(), false)
    );

    let removed = channel.remove(&[bob.id()]).await.expect("queued");
    soon("removed", removed.delivered()).await.expect("made");
    assert_eq!(channel.members().await.expect("listed"), [alice.id()]);

    // To let go changes nothing for the owner.
    alice.disconnect().await;
    alice.close(Duration::from_secs(5)).await;
    assert!(matches!(
        alice.channels().await,
        Err(AgentError::OwnerGone { unknown: false })
    ));
    soon("events end", async { while events.next().await.is_some() {} }).await;
    assert!(owner.is_connected());
    let sent = owner
        .channel(channel.id())
        .await
        .expect("known")
        .send("still here")
        .await;
    soon("delivered", sent.expect("queued").delivered())
        .await
        .expect("delivered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_readers_see_every_message_whichever_acknowledges_it() {
    let world = World::new().await;
    let (owner, bob) = (world.agent("alice").await, world.agent("bob").await);
    let guest = attach(&world, "alice").await;
    let channels = channel_of(&[&owner, &bob]).await;
    let (here, there) = (&channels[0], guest.channel(channels[0].id()).await.expect("known"));
    let mut one = here.watch(None).await.expect("known");
    let mut two = there.watch(None).await.expect("known");
    for round in 0..3 {
        channels[1]
            .send_many(numbered("m", round * 100..round * 100 + 100))
            .await
            .expect("sent");
        for number in round * 100..round * 100 + 100 {
            let expected = format!("m {number}");
            // Each acknowledges before the other one has read.
            let (first, second) = match number % 2 {
                0 => (&mut one, &mut two),
                _ => (&mut two, &mut one),
            };
            for reader in [first, second] {
                let message = soon("a message", reader.next()).await.expect("a message");
                assert_eq!(message.payload, expected);
                message.ack().await.expect("acknowledged");
            }
        }
    }
    assert_eq!(here.info().await.expect("known").unacked, 0);
    // One that begins late begins behind what was acknowledged; or where it is asked to.
    let mut late = there.watch(None).await.expect("known");
    channels[1].send("new").await.expect("sent");
    assert_eq!(soon("a message", late.next()).await.expect("a message").payload, "new");
    let mut all = there.watch(Some(Offset::ZERO)).await.expect("known");
    assert_eq!(soon("a message", all.next()).await.expect("a message").payload, "m 0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_is_refused_as_if_the_vault_were_closed() {
    let world = World::new().await;
    let with = |name: &str, key: VaultKey| {
        let mut config = world.config(name);
        config.key = key;
        config
    };
    let right = [VaultKey::raw([9; 32]), VaultKey::passphrase("correct horse")];
    let wrong = [VaultKey::raw([8; 32]), VaultKey::passphrase("battery staple")];
    for (name, (right, wrong)) in ["raw", "words"].into_iter().zip(right.into_iter().zip(wrong)) {
        let owner = Agent::open(with(name, right.clone())).await.expect("opened");
        let beside = open_or_attach(with(name, wrong.clone())).await.expect_err("refused");
        owner.close(Duration::ZERO).await;
        let alone = open_or_attach(with(name, wrong)).await.expect_err("refused");
        assert_eq!((beside.code(), alone.code()), (Code::VaultKey, Code::VaultKey));
        assert_eq!(beside.is_retryable(), alone.is_retryable());

        let owner = Agent::open(with(name, right.clone())).await.expect("opened");
        let guest = open_or_attach(with(name, right)).await.expect("attached");
        assert_eq!((guest.id(), guest.is_attached()), (owner.id(), true));
    }
    // A key file that is not there is not made.
    let _owner = world.open("alice").await;
    let missing = world.dir.path().join("no.key");
    let error = open_or_attach(with("alice", VaultKey::file(&missing))).await;
    assert_eq!(error.expect_err("refused").code(), Code::VaultKey);
    assert!(!missing.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn if_many_open_at_once_one_owns_the_vault_and_all_can_use_it() {
    let world = World::new().await;
    let opening = (0..12).map(|_| tokio::spawn(Agent::open_or_attach(world.config("alice"))));
    let opening: Vec<_> = opening.collect();
    let mut agents = Vec::new();
    for opening in opening {
        agents.push(soon("opened", opening).await.expect("no panic").expect("opened"));
    }
    assert_eq!(agents.iter().filter(|agent| !agent.is_attached()).count(), 1);
    for (number, agent) in agents.iter().enumerate() {
        let channel = agent.create_channel(&format!("channel {number}")).await.expect("made");
        channel.send("hello").await.expect("queued");
    }
    for agent in &agents {
        assert_eq!(agent.channels().await.expect("listed").len(), 12);
        // Of each channel its Create and the message.
        assert_eq!(agent.outbox().await.expect("listed").len(), 24);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unpolled_calls_and_waits_block_no_others() {
    let world = World::new().await;
    let _owner = world.open("alice").await;
    let guest = attach(&world, "alice").await;
    let channel = guest.create_channel("test").await.expect("made");
    let mut unpolled = Vec::new();
    for _ in 0..500 {
        let (guest, channel) = (guest.clone(), channel.clone());
        // Offline: none of these ends.
        let mut waiting: std::pin::Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
            let _ = channel.info().await;
            let _ = guest.caught_up().await;
        });
        assert!(futures_util::poll!(&mut waiting).is_pending());
        unpolled.push(waiting);
    }
    for number in 0..200 {
        soon("queued", channel.send(format!("m {number}")))
            .await
            .expect("queued");
    }
    for waiting in &mut unpolled {
        assert!(futures_util::poll!(waiting).is_pending());
    }
    soon("known", channel.info()).await.expect("known");
    drop(unpolled);
    soon("known", channel.info()).await.expect("known");
    assert!(soon("queued", channel.send("last")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_watcher_beside_an_agent_is_told_what_it_missed_and_misses_no_message() {
    let world = World::new().await;
    let mut config = world.config("alice");
    config.driver.events_max = 16;
    let owner = Agent::open(config.clone()).await.expect("opened");
    owner.connect().await.expect("a socket");
    let bob = world.agent("bob").await;
    let guest = open_or_attach(config).await.expect("attached");
    soon("current", guest.caught_up()).await.expect("current");
    let channels = channel_of(&[&owner, &bob]).await;
    let channel = guest.channel(channels[0].id()).await.expect("known");
    let (mut events, mut messages) = (guest.events(), channel.messages());
    channels[1].send_many(numbered("m", 0..500)).await.expect("sent");
    for number in 0..500 {
        let message = soon("a message", messages.next()).await.expect("a message");
        assert_eq!(message.payload, format!("m {number}"));
    }
    reach(&channel, channels[1].cursor().await.expect("known")).await;
    event(&mut events, "lagged", |event| matches!(event, Event::Lagged { .. })).await;
}
