//! Two bridges at two relay nodes, over one log that three NATS servers hold.

use super::agent::Agent;
use super::group::{back, group_over, numbered};
use crate::world::{World, until};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_member_comes_back_to_another_bridge_at_another_relay_node_after_its_own_was_killed() {
    let world = World::fleet().await;
    let one = world.bridge_near(0, 1).await;
    let two = world.bridge_near(1, 2).await;
    until("a session at each relay node", || world.sessions() == [1, 1]).await;
    let dir = world.dir.path();
    let create = json!({"do": "create", "to": "org/ns/room"});
    let others = ["alice", "bob"];
    let (mut moderator, mut members) = group_over(&one.endpoint(), &two.endpoint(), dir, &others, create).await;
    let (alice, mut bob) = (members.remove(0), members.remove(0));
    let send = async |agent: &mut Agent, count: usize, text: &str| {
        agent
            .done(json!({"do": "send", "count": count, "text": text}), "sent")
            .await;
    };
    send(&mut moderator, 3, "before-").await;
    assert_eq!(alice.received(3).await, numbered("before-", 3));
    bob.received(3).await;
    world.all_received(3).await;
    alice.kill();
    send(&mut moderator, 150, "early-").await;
    assert_eq!(bob.received(153).await[3..], numbered("early-", 150));
    // Her bridge's relay node is gone, and Bob's bridge goes on at the other one.
    world.kill_relay_number(1);
    send(&mut moderator, 100, "late-").await;
    assert_eq!(bob.received(253).await[153..], numbered("late-", 100));
    let mut alice = back(&one.endpoint(), dir, "alice").await;
    let missed = [numbered("early-", 150), numbered("late-", 100)].concat();
    assert_eq!(alice.received(250).await, missed);
    // Then what comes, from either bridge, and both ways.
    send(&mut bob, 3, "bob-").await;
    assert_eq!(alice.received(253).await[250..], numbered("bob-", 3));
    send(&mut alice, 3, "alice-").await;
    assert_eq!(bob.received(256).await[253..], numbered("alice-", 3));
    assert_eq!(alice.messages().len(), 253, "each once");
    one.stop().await;
    two.stop().await;
}
