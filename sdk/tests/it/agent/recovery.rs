//! Agents that return to a trimmed log, with an older vault, or to a group without members.

use super::world::{World, channel_of, event, numbered, reach, soon, texts, transcript};
use skytale_proto::{ChannelId, Offset};
use skytale_sdk::{Agent, Channel, Event, LostReason, Standing};
use std::time::Duration;

async fn standing(channel: &Channel) -> Standing {
    channel.info().await.expect("known").standing
}

/// Waits until a channel has the wanted standing.
async fn stands(channel: &Channel, wanted: Standing) {
    let waiting = async {
        while standing(channel).await != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("a standing", waiting).await;
}

/// Sends, and waits until the others have read it.
async fn say(from: &Channel, readers: &[&Channel], text: &'static str) {
    let sent = from.send(text).await.expect("queued");
    soon(text, sent.delivered()).await.expect("delivered");
    let offset = from.cursor().await.expect("a cursor");
    for reader in readers {
        reach(reader, offset).await;
        let read = texts(&transcript(reader).await);
        assert_eq!(read.last().map(String::as_str), Some(text));
    }
}

/// Closes an agent cleanly, so that its vault can be copied.
async fn close(agent: Agent) {
    soon("closed", agent.close(Duration::from_secs(10))).await;
}

async fn reopen(world: &World, name: &str, id: ChannelId) -> (Agent, Channel) {
    let agent = world.open(name).await;
    let channel = agent.channel(id).await.expect("in the vault");
    (agent, channel)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_overtaken_by_retention_is_told_what_is_gone_and_goes_on() {
    let world = World::new().await;
    let (alice, bob, carol) = (
        world.agent("alice").await,
        world.agent("bob").await,
        world.agent("carol").await,
    );
    let room = channel_of(&[&alice, &bob]).await;
    let quiet = channel_of(&[&alice, &bob]).await;
    say(&quiet[0], &[&quiet[1]], "early").await;
    let cursor = room[1].cursor().await.expect("a cursor");
    bob.disconnect().await;
    // Carol adds him elsewhere; nothing of it is kept, neither the bundle nor the Welcome.
    let other = carol.create_channel("other").await.expect("made");
    let added = soon("added", other.add(&[bob.id()])).await.expect("claimed");
    soon("delivered", added.delivered()).await.expect("delivered");
    room[0].send_many(numbered("gone", 0..20)).await.expect("sent");
    soon("all out", alice.flushed()).await.expect("flushed");
    let head = room[0].cursor().await.expect("a cursor");
    for log in [room[0].id().log(), other.id().log(), bob.id().log()] {
        world.trim(log).await;
    }
    for _ in 0..3 {
        world.trim(quiet[0].id().log()).await;
    }
    soon("sent", room[0].send("there").await.expect("queued").delivered())
        .await
        .expect("delivered");

    let mut events = bob.events();
    bob.connect().await.expect("a socket");
    soon("bob current", bob.caught_up()).await.expect("current");
    let room_id = room[0].id();
    let told = event(
        &mut events,
        "entries lost",
        |event| matches!(event, Event::EntriesLost { channel: Some(channel), .. } if *channel == room_id),
    )
    .await;
    let Event::EntriesLost {
        first, last, reason, ..
    } = told
    else {
        panic!("{told:?}");
    };
    assert_eq!((first, last, reason), (cursor.next(), head, LostReason::Trimmed));
    assert_eq!(texts(&transcript(&room[1]).await), ["there"]);
    // Only Trims are gone from the quiet one.
    assert_eq!(quiet[1].lost().await.expect("listed"), []);
    assert_eq!(standing(&quiet[1]).await, Standing::Current);
    say(&quiet[0], &[&quiet[1]], "still quiet").await;
    say(&quiet[1], &[&quiet[0]], "still here").await;
    // The Welcome is made good by carol.
    let theirs = bob.channel(other.id()).await.expect("known though the Welcome is gone");
    stands(&theirs, Standing::Current).await;
    say(&theirs, &[&other], "in the other one").await;
    stands(&room[1], Standing::Current).await;
    say(&room[1], &[&room[0]], "back in the room").await;
    // He can be added again: there are key packages in his log again.
    let again = channel_of(&[&carol, &bob]).await;
    say(&again[1], &[&again[0]], "added once more").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_that_was_put_back_loses_nothing_that_it_reports_delivered() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    let id = channels[0].id();
    close(alice).await;
    let copy = world.copy_vault("alice");
    let (alice, channel) = reopen(&world, "alice", id).await;
    alice.connect().await.expect("a socket");
    channel.send_many(numbered("first", 0..3)).await.expect("queued");
    soon("all out", alice.flushed()).await.expect("flushed");
    drop((channel, channels));
    close(alice).await;
    world.put_vault_back("alice", &copy);

    let (alice, channel) = reopen(&world, "alice", id).await;
    assert_eq!(
        standing(&channel).await,
        Standing::Renewing,
        "its files tell that they were put back"
    );
    let mut events = alice.events();
    let sent = channel.send_many(numbered("second", 0..5)).await.expect("queued");
    alice.connect().await.expect("a socket");
    event(&mut events, "renewed", |event| matches!(event, Event::Renewed { .. })).await;
    for sent in sent {
        soon("delivered", sent.delivered()).await.expect("delivered");
    }
    let last = channel.cursor().await.expect("a cursor");
    let theirs = bob.channel(id).await.expect("in the vault");
    reach(&theirs, last).await;
    let expected: Vec<String> = (0..3)
        .map(|number| format!("first {number}"))
        .chain((0..5).map(|number| format!("second {number}")))
        .collect();
    assert_eq!(texts(&transcript(&theirs).await), expected);
    assert_eq!(theirs.unreadable(Offset::ZERO, 10).await.expect("listed"), []);
    let lost = channel.lost().await.expect("listed");
    assert_eq!(
        lost.iter().map(|lost| lost.reason).collect::<Vec<_>>(),
        [LostReason::OtherCopy]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_live_copies_one_is_stopped_and_nothing_delivered_is_unread() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    let id = channels[0].id();
    drop(channels);
    close(alice).await;
    let copy = world.copy_vault("alice");
    let from = world.vault("alice").display().to_string();
    let to = world.vault("copy").display().to_string();
    let moved: Vec<_> = (copy.iter())
        .map(|(path, bytes)| (path.display().to_string().replace(&from, &to).into(), bytes.clone()))
        .collect();
    world.put_vault_back("copy", &moved);

    let (first, one) = reopen(&world, "alice", id).await;
    let (second, two) = reopen(&world, "copy", id).await;
    assert_eq!(first.id(), second.id());
    // A relay node has one session an agent: the copies take turns.
    let mut delivered = Vec::new();
    for round in 0..3 {
        for (agent, channel, name) in [(&first, &one, "first"), (&second, &two, "second")] {
            agent.connect().await.expect("a socket");
            let _ = tokio::time::timeout(Duration::from_secs(90), channel.caught_up()).await;
            if standing(channel).await != Standing::Superseded {
                let text = format!("{name} {round}");
                let sent = channel.send(text.clone()).await.expect("queued");
                let done = soon("an end", async {
                    tokio::select! {
                        done = sent.delivered() => done.is_ok(),
                        () = stands(channel, Standing::Superseded) => false,
                    }
                });
                if done.await {
                    delivered.push(text);
                }
            }
            agent.disconnect().await;
        }
    }
    let mut stood = [standing(&one).await, standing(&two).await];
    stood.sort_unstable_by_key(|standing| *standing as i64);
    assert_eq!(stood, [Standing::Current, Standing::Superseded]);
    assert!(delivered.len() >= 3, "one of them goes on: {delivered:?}");
    let theirs = bob.channel(id).await.expect("in the vault");
    soon("bob current", bob.caught_up()).await.expect("current");
    let read = texts(&transcript(&theirs).await);
    for text in &delivered {
        assert!(read.contains(text), "{text} was reported delivered: {read:?}");
    }
    assert_eq!(theirs.unreadable(Offset::ZERO, 10).await.expect("listed"), []);
}

/// Makes both agents miss a commit that is then lost.
async fn lose_a_commit(world: &World, channels: &[Channel], agents: &[&Agent]) {
    for agent in agents {
        agent.disconnect().await;
    }
    let rotated = channels[0].rotate().await.expect("queued");
    soon("rotated", rotated.delivered()).await.expect("delivered");
    world.trim(channels[0].id().log()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_answered_while_its_author_is_away_again_leads_back() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    lose_a_commit(&world, &channels, &[&bob]).await;
    alice.disconnect().await;
    // Bob asks while nobody is there, and goes.
    bob.connect().await.expect("a socket");
    stands(&channels[1], Standing::OutOfSync).await;
    soon("the request out", bob.flushed()).await.expect("flushed");
    soon("bob current", channels[1].caught_up()).await.expect("current");
    bob.disconnect().await;
    let asked = channels[1].cursor().await.expect("a cursor");
    let mut events = alice.events();
    alice.connect().await.expect("a socket");
    let who = bob.id();
    event(
        &mut events,
        "bob added again",
        |event| matches!(event, Event::MemberRejoined { agent, .. } if *agent == who),
    )
    .await;
    assert!(channels[0].cursor().await.expect("a cursor") > asked);
    let mut events = bob.events();
    bob.connect().await.expect("a socket");
    event(&mut events, "back", |event| matches!(event, Event::Rejoined { .. })).await;
    say(&channels[1], &[&channels[0]], "back").await;
    say(&channels[0], &[&channels[1]], "welcome").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_can_go_on_the_group_begins_again_by_itself() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    let id = channels[0].id();
    drop(channels);
    close(alice).await;
    let copy = world.copy_vault("alice");
    let (alice, channel) = reopen(&world, "alice", id).await;
    alice.connect().await.expect("a socket");
    let theirs = bob.channel(id).await.expect("in the vault");
    lose_a_commit(&world, &[channel, theirs], &[&bob]).await;
    // The only vault that has the commit is gone.
    close(alice).await;
    world.put_vault_back("alice", &copy);
    let (alice, ours) = reopen(&world, "alice", id).await;
    let theirs = bob.channel(id).await.expect("in the vault");
    let mut events = [alice.events(), bob.events()];
    for agent in [&alice, &bob] {
        agent.connect().await.expect("a socket");
    }
    for events in &mut events {
        event(events, "a new beginning", |event| {
            matches!(event, Event::Rebooted { .. })
        })
        .await;
    }
    for channel in [&ours, &theirs] {
        stands(channel, Standing::Current).await;
        assert_eq!(channel.members().await.expect("known").len(), 2);
    }
    say(&ours, &[&theirs], "begun again").await;
    say(&theirs, &[&ours], "so it is").await;
}
