//! Members that were ensured before messages were sent.

use super::world::{World, event, soon, texts, transcript};
use skytale_proto::{AccountId, AgentId, Code};
use skytale_sdk::Agent;
use skytale_sdk::Channel;
use skytale_sdk::{Event, Events};
use std::time::Duration;

const FOREIGN: AccountId = AccountId::from_bytes([0xf0; 16]);

async fn joined(agent: &Agent, events: &mut Events) -> Channel {
    let joined = event(events, "joined", |event| matches!(event, Event::Joined { .. })).await;
    let channel = joined.channel().expect("of a channel");
    agent.channel(channel).await.expect("in the vault")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_offline_after_members_were_ensured_is_read_by_them() {
    let world = World::new().await;
    let bob = world.agent("bob").await;
    let late = world.open("late").await;
    let (mut to_bob, mut to_late) = (bob.events(), late.events());
    let alice = world.open("alice").await;
    let channel = alice.create_channel("tasks").await.expect("made");
    let id = channel.id();
    channel.ensure_members(&[bob.id()]).await.expect("kept");
    channel.send("for bob").await.expect("in the outbox");
    channel
        .ensure_members(&[bob.id(), late.id(), alice.id()])
        .await
        .expect("kept");
    channel.send("for both").await.expect("in the outbox");
    alice.close(Duration::from_secs(1)).await;

    let alice = world.agent("alice").await;
    let at_bob = joined(&bob, &mut to_bob).await;
    let mut messages = at_bob.messages();
    let first = soon("the first", messages.next()).await.expect("a message");
    assert_eq!(first.payload, "for bob");
    // The other one was never online. What is for both waits for it, also when this agent begins again.
    let channel = alice.channel(id).await.expect("in the vault");
    let waits = channel.deferred_adds().await.expect("listed");
    assert_eq!(
        waits.iter().map(|add| (add.agent, add.holds)).collect::<Vec<_>>(),
        [(late.id(), true)]
    );
    alice.close(Duration::from_secs(1)).await;
    let alice = world.agent("alice").await;
    let channel = alice.channel(id).await.expect("in the vault");
    channel.ensure_members(&[late.id()]).await.expect("kept");
    channel.send("for both, too").await.expect("in the outbox");

    late.connect().await.expect("a socket");
    let at_late = joined(&late, &mut to_late).await;
    soon("all out", alice.flushed()).await.expect("flushed");
    let mut messages = at_late.messages();
    for expected in ["for both", "for both, too"] {
        let message = soon("a message", messages.next()).await.expect("a message");
        assert_eq!(message.payload, expected);
    }
    soon("bob current", at_bob.caught_up()).await.expect("current");
    super::world::reach(&at_bob, channel.cursor().await.expect("known")).await;
    assert_eq!(
        texts(&transcript(&at_bob).await),
        ["for bob", "for both", "for both, too"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_refuse_or_do_not_exist_hold_back_nothing_for_ever() {
    let world = World::new().await;
    let bob = world.agent("bob").await;
    let mut to_bob = bob.events();
    let foreign = world.agent_of("foreign", FOREIGN).await;
    let unknown = AgentId::from_bytes([0xcd; 32]);
    let mut config = world.config("alice");
    config.driver.member_wait = Duration::ZERO;
    let alice = Agent::open(config).await.expect("opened");
    let mut events = alice.events();
    let channel = alice.create_channel("tasks").await.expect("made");
    channel
        .ensure_members(&[unknown, foreign.id(), bob.id()])
        .await
        .expect("kept");
    channel.send("hello").await.expect("in the outbox");
    alice.connect().await.expect("a socket");
    let mut refused = Vec::new();
    for _ in 0..2 {
        let told = event(&mut events, "not added", |event| {
            matches!(event, Event::MemberNotAdded { .. })
        })
        .await;
        if let Event::MemberNotAdded { agent, code, .. } = told {
            refused.push((agent, code));
        }
    }
    refused.sort_unstable_by_key(|(_, code)| code.number());
    assert_eq!(
        refused,
        [
            (unknown, Code::KeyPackagesExhausted),
            (foreign.id(), Code::ClaimNotAllowed)
        ]
    );
    let at_bob = joined(&bob, &mut to_bob).await;
    let message = soon("a message", at_bob.messages().next()).await.expect("a message");
    assert_eq!(message.payload, "hello");
    soon("all out", alice.flushed()).await.expect("nothing waits");
    assert_eq!(channel.deferred_adds().await.expect("listed").len(), 2);
}
