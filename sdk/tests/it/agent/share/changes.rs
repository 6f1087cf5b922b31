//! Failures, waits for others, and backups, through the process that has the vault open.

use super::super::world::{World, channel_of, event, soon};
use super::attach;
use skytale_proto::{AgentId, Code, Offset};
use skytale_sdk::{Agent, AgentError, Event, Outgoing, restore};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_adds_those_who_can_be_added_and_hears_of_each_other_one_why_not() {
    let world = World::new().await;
    let (owner, bob) = (world.agent("alice").await, world.agent("bob").await);
    let guest = attach(&world, "alice").await;
    let channel = guest.create_channel("test").await.expect("made");
    let here = owner.channel(channel.id()).await.expect("known");
    let stranger = AgentId::from_bytes([0xab; 32]);
    let all = [stranger, bob.id()];
    let refused = soon("an answer", channel.add(&all)).await.expect_err("not all");
    assert_eq!(refused.code(), Code::KeyPackagesExhausted);
    assert!(refused.to_string().contains(&stranger.to_string()), "{refused}");

    let added = soon("an answer", channel.add_available(&all)).await.expect("some");
    assert_eq!(added.refused.len(), 1);
    assert_eq!(
        (added.refused[0].0, added.refused[0].1.code()),
        (stranger, Code::KeyPackagesExhausted)
    );
    let sent = added.sent.expect("a commit");
    soon("added", sent.delivered()).await.expect("delivered");
    assert_eq!(here.members().await.expect("known").len(), 2);
    let nobody = soon("an answer", channel.add_available(&all)).await;
    let Err(AgentError::NobodyAdded { refused }) = nobody else {
        panic!("{nobody:?}");
    };
    assert_eq!(refused.len(), 1, "members are left out");

    // What waits for its agent.
    channel.add_later(&[stranger]).await.expect("kept");
    let waiting = here.deferred_adds().await.expect("listed");
    assert_eq!((waiting.len(), waiting[0].agent), (1, stranger));
    let of_guest = channel.deferred_adds().await.expect("listed");
    assert_eq!((of_guest.len(), of_guest[0].agent), (1, stranger));
    assert_eq!(guest.deferred_adds().await.expect("listed").len(), 1);
    assert_eq!(channel.cancel_add(&[stranger]).await.expect("forgotten"), 1);
    assert_eq!(channel.cancel_add(&[stranger]).await.expect("forgotten"), 0);
    assert_eq!(owner.deferred_adds().await.expect("listed"), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_sees_sends_again_and_forgets_what_failed_and_its_readers_end() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    let guest = attach(&world, "bob").await;
    let channel = guest.channel(channels[1].id()).await.expect("known");
    let mut messages = channel.messages();
    let mut watch = channel.watch(None).await.expect("known");
    let last = channels[0].send("the last").await.expect("queued");
    soon("delivered", last.delivered()).await.expect("delivered");
    for reader in [&mut messages, &mut watch] {
        let message = soon("a message", reader.next()).await.expect("a message");
        assert_eq!(message.payload, "the last");
    }

    bob.disconnect().await;
    let mut sent = Vec::new();
    for text in ["one", "two"] {
        sent.push(channel.send(text).await.expect("queued"));
    }
    let ids: Vec<_> = sent.iter().map(|sent| sent.frame_id()).collect();
    let removed = channels[0].remove(&[bob.id()]).await.expect("queued");
    soon("removed", removed.delivered()).await.expect("delivered");
    let ended = tokio::spawn(async move { (messages.next().await.map(drop), watch.next().await.map(drop)) });
    guest.connect().await.expect("a socket");
    for sent in sent {
        let error = soon("an end", sent.delivered()).await.expect_err("failed");
        assert!(matches!(error, AgentError::SendFailed { .. }), "{error:?}");
        assert_eq!(error.code(), Code::ChannelLeft);
    }
    let (messages, watch) = soon("readers end", ended).await.expect("no panic");
    for ended in [messages, watch] {
        assert_eq!(ended.map_err(|error| error.code()), Err(Code::ChannelLeft));
    }
    assert_eq!(channel.inbox(Offset::ZERO, 10).await.expect("read").len(), 1);
    let failed = guest.failed().await.expect("listed");
    assert_eq!(failed, bob.failed().await.expect("listed"));
    assert_eq!(failed, channel.failed().await.expect("listed"));
    assert_eq!(failed.len(), 2);
    assert_eq!(channel.info().await.expect("known").failed, 2);
    assert_eq!(channel.lost().await.expect("listed"), []);

    let error = channel.retry(ids[0]).await.expect_err("not in the channel");
    assert_eq!(error.code(), Code::ChannelLeft);
    let mut events = guest.events();
    let added = soon("an answer", channels[0].add(&[bob.id()])).await.expect("claimed");
    soon("added", added.delivered()).await.expect("delivered");
    event(&mut events, "joined", |event| matches!(event, Event::Joined { .. })).await;
    let again = channel.retry(ids[0]).await.expect("queued").expect("known");
    assert!(
        soon("an end", again.delivered())
            .await
            .expect("delivered")
            .offset()
            .is_some()
    );
    assert!(channel.retry(ids[0]).await.expect("asked").is_none());
    assert!(channel.dismiss(ids[1]).await.expect("forgotten"));
    assert!(!channel.dismiss(ids[1]).await.expect("asked"));
    assert_eq!(bob.failed().await.expect("listed"), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_backs_the_vault_up_and_the_backup_can_be_restored() {
    let world = World::new().await;
    let owner = world.open("alice").await;
    let channel = owner.create_channel("kept").await.expect("made").id();
    let guest = attach(&world, "alice").await;
    let file = world.dir.path().join("backup");
    let made = guest.backup(&file, false).await.expect("made");
    assert_eq!(made.path, file);
    assert_eq!(made.bytes, std::fs::metadata(&file).expect("there").len());
    let error = guest.backup(&file, false).await.expect_err("there already");
    assert!(error.to_string().contains("exists"), "{error}");
    guest.backup(&file, true).await.expect("replaced");

    let config = world.config("restored");
    restore(&file, &config.vault, &config.key, false).expect("restored");
    let restored = Agent::open(config).await.expect("opened");
    assert_eq!(restored.id(), owner.id());
    restored.channel(channel).await.expect("known");
    restored.close(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_asks_waits_for_room_and_ensures_members_as_the_owner_does() {
    let world = World::new().await;
    let (owner, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&owner, &bob]).await;
    let guest = attach(&world, "alice").await;
    let channel = guest.channel(channels[0].id()).await.expect("known");
    soon("all out", owner.flushed()).await.expect("flushed");
    owner.disconnect().await;
    let stranger = AgentId::from_bytes([0xab; 32]);
    channel.ensure_members(&[bob.id(), stranger]).await.expect("kept");
    let request = || Outgoing::new(vec![b'?'; 100_000]).once("question");
    let ended = channel.request(request(), Duration::from_millis(1)).await;
    assert!(
        matches!(ended, Err(AgentError::NoReply { delivered: false, .. })),
        "{ended:?}"
    );
    let outbox = channel.outbox().await.expect("listed");
    assert_eq!(outbox, channels[0].outbox().await.expect("listed"));
    assert_eq!(outbox, guest.outbox().await.expect("listed"));
    let sizes: Vec<_> = outbox
        .iter()
        .map(|queued| queued.payload.as_ref().map(|payload| payload.len()))
        .collect();
    assert_eq!(sizes, [None, Some(100_000)]);
    assert_eq!(channel.cancel_add(&[stranger]).await.expect("cancelled"), 1);

    owner.connect().await.expect("a socket");
    let mut messages = channels[1].messages();
    let question = soon("a question", messages.next()).await.expect("a question");
    question.reply("this").await.expect("sent");
    let asking = channel.request(request(), Duration::from_secs(60));
    let reply = soon("an answer", asking).await.expect("an answer");
    assert_eq!(reply.payload, "this");
    reply.ack().await.expect("acknowledged");
    assert_eq!(channels[0].info().await.expect("known").unacked, 0);
    let sent = channel.send_when_room(Outgoing::new("thanks")).await.expect("sent");
    soon("delivered", sent.delivered()).await.expect("delivered");
}
