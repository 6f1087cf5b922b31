//! A stock SLIM node with a peer link to the bridge, and clients on both.

use super::agent::Agent;
use super::group::{back, numbered};
use crate::world::{World, free_address};
use serde_json::json;
use std::time::Duration;

/// Number of times that a stock node is started, and the maximum time for each.
const STARTS: usize = 5;
const SERVES_WITHIN: Duration = Duration::from_secs(60);

/// A stock node that is linked to a bridge as a peer, and where its clients connect.
async fn node(bridge: &str, world: &World) -> (Agent, String) {
    node_by("peer", bridge, world).await
}

/// A stock node sometimes starts and never serves, once in some hundred starts: then another one is started.
async fn node_by(kind: &str, bridge: &str, world: &World) -> (Agent, String) {
    let config = world.dir.path().join("node.yaml");
    for _ in 0..STARTS {
        let address = free_address().to_string();
        let mut node = Agent::spawn("node");
        let serve = json!({"do": "node", "endpoint": address, "link": bridge, "kind": kind, "config": config});
        if node.done_within(serve, "serving", SERVES_WITHIN).await {
            return (node, format!("http://{address}"));
        }
    }
    panic!("no stock node serves within {SERVES_WITHIN:?}, {STARTS} times");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_a_stock_node_talks_to_a_client_of_the_bridge() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let (_node, node) = node(&bridge.endpoint(), &world).await;
    // Each asks the other: one name was there before the other's link, one came later.
    for (number, (from, to)) in [(node.clone(), bridge.endpoint()), (bridge.endpoint(), node)]
        .into_iter()
        .enumerate()
    {
        let (alice, bob) = (format!("alice-{number}"), format!("bob-{number}"));
        let mut asked = Agent::start(&to, &alice, None).await;
        asked.done(json!({"do": "listen"}), "listening").await;
        let mut asks = Agent::start(&from, &bob, None).await;
        let create = json!({"do": "create", "to": format!("org/ns/{alice}"), "kind": "p2p", "retries": 30});
        asks.done(create, "created").await;
        asked.wait("session").await;
        for (agent, text) in [(&mut asks, "asks-"), (&mut asked, "asked-")] {
            let send = json!({"do": "send", "count": 20, "text": text, "wait": true});
            agent.done(send, "sent").await;
        }
        assert_eq!(asked.received(20).await, numbered("asks-", 20));
        assert_eq!(asks.received(20).await, numbered("asked-", 20));
        assert!(!world.has_log(&alice).await && !world.has_log(&bob).await);
    }
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_on_the_bridge_gets_what_it_missed_from_members_behind_a_node() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let (_node, node) = node(&bridge.endpoint(), &world).await;
    let dir = world.dir.path();
    let create = json!({"do": "create", "to": "org/ns/room"});
    // The moderator and Bob are behind the node, Alice is on the bridge.
    let (mut moderator, mut members) =
        super::group::group_over(&node, &bridge.endpoint(), dir, &["alice"], create).await;
    let alice = members.remove(0);
    let mut bob = Agent::start(&node, "bob", None).await;
    bob.done(json!({"do": "listen"}), "listening").await;
    moderator
        .done(json!({"do": "invite", "who": "org/ns/bob"}), "invited")
        .await;
    bob.wait("session").await;
    moderator
        .done(json!({"do": "send", "count": 5, "text": "moderator-"}), "sent")
        .await;
    assert_eq!(alice.received(5).await, numbered("moderator-", 5));
    assert_eq!(bob.received(5).await, numbered("moderator-", 5));
    world.all_received(1).await;
    alice.kill();
    bridge.links(1).await;
    moderator
        .done(json!({"do": "send", "count": 200, "text": "missed-"}), "sent")
        .await;
    assert_eq!(bob.received(205).await[5..], numbered("missed-", 200));
    let mut alice = back(&bridge.endpoint(), dir, "alice").await;
    assert_eq!(alice.received(200).await, numbered("missed-", 200));
    alice
        .done(json!({"do": "send", "count": 3, "text": "alice-"}), "sent")
        .await;
    assert_eq!(bob.received(208).await[205..], numbered("alice-", 3));
    assert_eq!(moderator.received(3).await, numbered("alice-", 3));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_links_again_when_the_bridge_was_killed() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let address = bridge.address;
    let (_node, node) = node(&bridge.endpoint(), &world).await;
    let mut alice = Agent::start(&bridge.endpoint(), "alice", None).await;
    alice.done(json!({"do": "listen"}), "listening").await;
    bridge.links(2).await;
    bridge.kill().await;
    let bridge = world.bridge_at(2, address).await;
    bridge.links(2).await;
    let mut bob = Agent::start(&node, "bob", None).await;
    let create = json!({"do": "create", "to": "org/ns/alice", "kind": "p2p", "retries": 20});
    bob.done(create, "created").await;
    let send = json!({"do": "send", "count": 5, "text": "bob-", "wait": true});
    bob.done(send, "sent").await;
    assert_eq!(alice.received(5).await, numbered("bob-", 5));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_passes_nothing_of_its_clients_over_a_link_that_is_not_a_peers() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let (_node, node) = node_by("edge", &bridge.endpoint(), &world).await;
    let mut alice = Agent::start(&bridge.endpoint(), "alice", None).await;
    alice.done(json!({"do": "listen"}), "listening").await;
    let mut bob = Agent::start(&node, "bob", None).await;
    bob.tell(json!({"do": "create", "to": "org/ns/alice", "kind": "p2p", "retries": 2, "interval_ms": 300}));
    bob.wait("error").await;
    assert_eq!(alice.texts("session", "destination"), Vec::<String>::new());
    bridge.stop().await;
}
