//! Channels that an agent was added to while its program was not reading.

use super::world::{World, channel_of, event, soon};
use skytale_sdk::Agent;
use skytale_sdk::Channel;
use skytale_sdk::Event;
use std::time::Duration;

async fn adds(alice: &Agent, label: &str, bob: &Agent) -> Channel {
    let channel = alice.create_channel(label).await.expect("made");
    let mut events = bob.events();
    let added = soon("claimed", channel.add(&[bob.id()])).await.expect("claimed");
    soon("added", added.delivered()).await.expect("delivered");
    event(&mut events, "joined", |event| matches!(event, Event::Joined { .. })).await;
    channel
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invitation_comes_until_it_is_accepted_also_after_a_restart_and_not_again() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let first = adds(&alice, "first", &bob).await;
    let second = adds(&alice, "second", &bob).await;
    bob.close(Duration::from_secs(5)).await;

    // Offline: it is in the vault.
    let bob = world.open("bob").await;
    let mut invitations = bob.invitations();
    for channel in [&first, &second] {
        let invitation = soon("an invitation", invitations.next()).await.expect("one");
        assert_eq!(
            (invitation.channel(), invitation.by()),
            (channel.id(), Some(alice.id()))
        );
        assert!(invitation.offset().get() > 1);
    }
    let pending = bob.pending_invitations().await.expect("listed");
    let accepted = pending[0].accept().await.expect("accepted");
    assert_eq!(accepted.id(), first.id());
    pending[0].accept().await.expect("it may be accepted again");
    // Its own channels are no invitations.
    bob.create_channel("").await.expect("made");
    bob.close(Duration::from_secs(5)).await;

    let bob = world.agent("bob").await;
    let mut invitations = bob.invitations();
    let invitation = soon("an invitation", invitations.next()).await.expect("one");
    assert_eq!(invitation.channel(), second.id());
    // A new one comes while somebody waits, through a wait that was dropped before.
    assert!(
        tokio::time::timeout(Duration::from_millis(10), invitations.next())
            .await
            .is_err()
    );
    let third = adds(&alice, "third", &bob).await;
    let invitation = soon("an invitation", invitations.next()).await.expect("one");
    assert_eq!(invitation.channel(), third.id());
    // One that this agent was removed from is over.
    let mut events = bob.events();
    let removed = third.remove(&[bob.id()]).await.expect("queued");
    soon("removed", removed.delivered()).await.expect("delivered");
    event(&mut events, "left", |event| matches!(event, Event::Left { .. })).await;
    let pending = bob.pending_invitations().await.expect("listed");
    let pending: Vec<_> = pending.iter().map(|invitation| invitation.channel()).collect();
    assert_eq!(pending, [second.id()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_joins_by_the_oldest_invitation_and_finds_its_channel_again() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    let later = adds(&alice, "later", &bob).await;
    bob.close(Duration::from_secs(5)).await;
    for _ in 0..2 {
        let bob = world.open("bob").await;
        let tasks = soon("joined", bob.join("tasks")).await.expect("a channel");
        assert_eq!(tasks.id(), channels[0].id());
        let pending = bob.pending_invitations().await.expect("listed");
        assert_eq!(pending.len(), 1);
        assert_eq!(pending[0].channel(), later.id());
        bob.close(Duration::from_secs(5)).await;
    }
    let bob = world.open("bob").await;
    let accepted = bob.pending_invitations().await.expect("listed");
    accepted[0].accept().await.expect("accepted");
    // What was accepted is the application's: no other name finds it.
    assert!(bob.try_join("others").await.expect("asked").is_none());
}
