//! Group sessions with MLS.

use super::agent::Agent;
use crate::world::World;
use serde_json::json;

/// A group with its moderator and the others, all in it.
pub(super) async fn group(endpoint: &str, dir: &std::path::Path, others: &[&str]) -> (Agent, Vec<Agent>) {
    let state = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let mut moderator = Agent::start(endpoint, "moderator", Some(&state("moderator"))).await;
    let mut members = Vec::new();
    for name in others {
        let mut member = Agent::start(endpoint, name, Some(&state(name))).await;
        member.done(json!({"do": "listen"}), "listening").await;
        members.push(member);
    }
    moderator
        .done(json!({"do": "create", "to": "org/ns/room"}), "created")
        .await;
    for (name, member) in others.iter().zip(&members) {
        let who = format!("org/ns/{name}");
        moderator.done(json!({"do": "invite", "who": who}), "invited").await;
        member.wait("session").await;
    }
    (moderator, members)
}

fn numbered(text: &str, count: usize) -> Vec<String> {
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
    // Her bridge learns that she has it.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    alice.kill();
    moderator
        .done(json!({"do": "send", "count": 1000, "text": "missed-"}), "sent")
        .await;
    let state = world.dir.path().join("alice").to_string_lossy().into_owned();
    let mut alice = Agent::start(&bridge.endpoint(), "alice", Some(&state)).await;
    alice.done(json!({"do": "restore"}), "restored").await;
    assert_eq!(alice.received(1_000).await, numbered("missed-", 1_000));
    moderator
        .done(json!({"do": "send", "count": 3, "text": "live-"}), "sent")
        .await;
    let all = alice.received(1_003).await;
    assert_eq!(all[1_000..], numbered("live-", 3));
    bridge.stop().await;
}
