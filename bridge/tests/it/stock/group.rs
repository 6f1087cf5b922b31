//! Group sessions with MLS.

use super::agent::Agent;
use crate::world::World;
use serde_json::json;

/// A group with its moderator and the others, all in it.
pub(super) async fn group(endpoint: &str, dir: &std::path::Path, others: &[&str]) -> (Agent, Vec<Agent>) {
    group_of(endpoint, dir, others, json!({"do": "create", "to": "org/ns/room"})).await
}

/// The same, created in another way.
pub(super) async fn group_of(
    endpoint: &str,
    dir: &std::path::Path,
    others: &[&str],
    create: serde_json::Value,
) -> (Agent, Vec<Agent>) {
    group_over(endpoint, endpoint, dir, others, create).await
}

/// The same, with the others somewhere else than the moderator.
pub(super) async fn group_over(
    endpoint: &str,
    elsewhere: &str,
    dir: &std::path::Path,
    others: &[&str],
    create: serde_json::Value,
) -> (Agent, Vec<Agent>) {
    let state = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let mut moderator = Agent::start(endpoint, "moderator", Some(&state("moderator"))).await;
    let mut members = Vec::new();
    for name in others {
        let mut member = Agent::start(elsewhere, name, Some(&state(name))).await;
        member.done(json!({"do": "listen"}), "listening").await;
        members.push(member);
    }
    moderator.done(create, "created").await;
    for (name, member) in others.iter().zip(&members) {
        let who = format!("org/ns/{name}");
        moderator.done(json!({"do": "invite", "who": who}), "invited").await;
        member.wait("session").await;
    }
    (moderator, members)
}

pub(super) fn numbered(text: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{text}{number}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_talks_through_the_bridge() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let (mut moderator, mut members) = group(&bridge.endpoint(), world.dir.path(), &["alice", "bob"]).await;
    moderator
        .done(json!({"do": "send", "count": 3, "text": "moderator-"}), "sent")
        .await;
    members[0]
        .done(json!({"do": "send", "count": 3, "text": "alice-"}), "sent")
        .await;
    let mut bob = members[1].received(6).await;
    bob.sort_unstable();
    assert_eq!(bob, [numbered("alice-", 3), numbered("moderator-", 3)].concat());
    assert_eq!(moderator.received(3).await, numbered("alice-", 3));
    bridge.stop().await;
}

/// A member comes back from what it kept.
pub(super) async fn back(endpoint: &str, dir: &std::path::Path, name: &str) -> Agent {
    let state = dir.join(name).to_string_lossy().into_owned();
    let mut member = Agent::start(endpoint, name, Some(&state)).await;
    member.done(json!({"do": "restore"}), "restored").await;
    member
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_killed_gets_what_it_missed_in_order_and_then_what_comes() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let (mut moderator, mut members) = group(&bridge.endpoint(), world.dir.path(), &["alice"]).await;
    moderator
        .done(json!({"do": "send", "count": 1, "text": "before-"}), "sent")
        .await;
    let alice = members.remove(0);
    assert_eq!(alice.received(1).await, ["before-0"]);
    world.all_received(2).await;
    alice.kill();
    moderator
        .done(json!({"do": "send", "count": 1000, "text": "missed-"}), "sent")
        .await;
    let alice = back(&bridge.endpoint(), world.dir.path(), "alice").await;
    assert_eq!(alice.received(1_000).await, numbered("missed-", 1_000));
    moderator
        .done(json!({"do": "send", "count": 3, "text": "live-"}), "sent")
        .await;
    let all = alice.received(1_003).await;
    assert_eq!(all[1_000..], numbered("live-", 3));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_with_the_bridge_killed_meanwhile() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let address = bridge.address;
    let (mut moderator, mut members) = group(&bridge.endpoint(), world.dir.path(), &["alice", "bob"]).await;
    moderator
        .done(json!({"do": "send", "count": 5, "text": "before-"}), "sent")
        .await;
    let alice = members.remove(0);
    let bob = members.remove(0);
    alice.received(5).await;
    bob.received(5).await;
    world.all_received(3).await;
    alice.kill();
    moderator
        .done(json!({"do": "send", "count": 500, "text": "missed-"}), "sent")
        .await;
    // Bob has them: they are in the log.
    assert_eq!(bob.received(505).await[5..], numbered("missed-", 500));
    bridge.kill().await;
    // Another bridge process with another identity and nothing but the relay's logs.
    let bridge = world.bridge_at(2, address).await;
    let mut alice = back(&bridge.endpoint(), world.dir.path(), "alice").await;
    assert_eq!(alice.received(500).await, numbered("missed-", 500));
    // Those who were there come back by themselves, and have nothing twice.
    bridge.links(3).await;
    alice
        .done(json!({"do": "send", "count": 3, "text": "alice-"}), "sent")
        .await;
    let bobs = bob.received(508).await;
    assert_eq!(bobs[505..], numbered("alice-", 3));
    assert_eq!(bobs.len(), 508);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_with_the_relay_killed_meanwhile() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let (mut moderator, mut members) = group(&bridge.endpoint(), world.dir.path(), &["alice", "bob"]).await;
    let alice = members.remove(0);
    let bob = members.remove(0);
    moderator
        .done(json!({"do": "send", "count": 1, "text": "before-"}), "sent")
        .await;
    alice.received(1).await;
    bob.received(1).await;
    world.all_received(3).await;
    alice.kill();
    moderator
        .done(json!({"do": "send", "count": 100, "text": "early-"}), "sent")
        .await;
    bob.received(101).await;
    world.kill_relay();
    // Nobody gets what is not in the log.
    moderator
        .done(json!({"do": "send", "count": 100, "text": "late-"}), "sent")
        .await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(bob.messages().len(), 101);
    world.start_relay().await;
    assert_eq!(bob.received(201).await[101..], numbered("late-", 100));
    let alice = back(&bridge.endpoint(), world.dir.path(), "alice").await;
    let missed = [numbered("early-", 100), numbered("late-", 100)].concat();
    assert_eq!(alice.received(200).await, missed);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_away_at_different_times_get_what_each_missed() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let names = ["alice", "bob", "carol"];
    let (mut moderator, mut members) = group(&bridge.endpoint(), world.dir.path(), &names).await;
    for (round, name) in names.into_iter().enumerate() {
        let away = members.remove(0);
        world.all_received(4).await;
        away.kill();
        let text = format!("{round}-");
        moderator
            .done(json!({"do": "send", "count": 50, "text": text}), "sent")
            .await;
        let back = back(&bridge.endpoint(), world.dir.path(), name).await;
        assert_eq!(back.received(50).await, numbered(&text, 50), "{name}");
        members.push(back);
    }
    moderator
        .done(json!({"do": "send", "count": 2, "text": "end-"}), "sent")
        .await;
    for (member, had) in members.iter().zip([150, 100, 50]) {
        let all = member.received(had + 2).await;
        assert_eq!(all[had..], numbered("end-", 2));
    }
    bridge.stop().await;
}
