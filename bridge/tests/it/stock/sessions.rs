//! Point-to-point sessions, reliable groups, changes of membership, and a stock node beside the bridge.

use super::agent::Agent;
use super::group::{back, group, numbered};
use crate::world::World;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn two_applications_talk_point_to_point() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let mut alice = Agent::start(&bridge.endpoint(), "alice", None).await;
    alice.done(json!({"do": "listen"}), "listening").await;
    let mut bob = Agent::start(&bridge.endpoint(), "bob", None).await;
    let create = json!({"do": "create", "to": "org/ns/alice", "kind": "p2p", "retries": 30});
    bob.done(create, "created").await;
    alice.wait("session").await;
    bob.done(json!({"do": "send", "count": 20, "text": "bob-", "wait": true}), "sent")
        .await;
    assert_eq!(alice.received(20).await, numbered("bob-", 20));
    alice
        .done(
            json!({"do": "send", "count": 20, "text": "alice-", "wait": true}),
            "sent",
        )
        .await;
    assert_eq!(bob.received(20).await, numbered("alice-", 20));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_member_sends_to_one_other_arrives_there_and_is_not_kept() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let (mut moderator, mut members) = group(&bridge.endpoint(), world.dir.path(), &["alice", "bob"]).await;
    let (mut alice, bob) = (members.remove(0), members.remove(0));
    moderator
        .done(json!({"do": "send", "count": 1, "text": "question-"}), "sent")
        .await;
    alice.received(1).await;
    alice.done(json!({"do": "reply", "text": "answer"}), "replied").await;
    assert_eq!(moderator.received(1).await, ["answer"]);
    alice
        .done(json!({"do": "send", "count": 1, "text": "all-"}), "sent")
        .await;
    assert_eq!(bob.received(2).await, ["question-0", "all-0"]);
    assert!(!world.has_log("moderator").await);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stock_node_loses_the_bridge_delivers() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let endpoint = bridge.endpoint();
    // The script of docs/slim.md. Its processes end when it does.
    let run = tokio::task::spawn_blocking(move || super::agent::run("side_by_side.py", &[&endpoint]));
    let output = crate::world::soon("the script", run).await.expect("no panic");
    let lines = [
        "stock node: 0 of 100 messages that a member missed",
        "bridge: 100 of 100 messages that a member missed",
    ];
    assert_eq!(output.lines().collect::<Vec<_>>(), lines);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reliable_group_goes_on_without_a_member_that_then_gets_all_of_it() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    // Enough for a busy machine, and the moderator gives up well before the test does.
    let create = json!({"do": "create", "to": "org/ns/room", "retries": 20});
    let (mut moderator, mut members) =
        super::group::group_of(&bridge.endpoint(), world.dir.path(), &["alice", "bob"], create).await;
    let (alice, bob) = (members.remove(0), members.remove(0));
    moderator
        .done(
            json!({"do": "send", "count": 3, "text": "before-", "wait": true}),
            "sent",
        )
        .await;
    alice.received(3).await;
    bob.received(3).await;
    world.all_received(3).await;
    alice.kill();
    // It is sent again, to her name, until the moderator gives up.
    moderator
        .done(
            json!({"do": "send", "count": 1, "text": "missed-", "wait": true}),
            "sent",
        )
        .await;
    moderator
        .done(
            json!({"do": "send", "first": 1, "count": 49, "text": "missed-"}),
            "sent",
        )
        .await;
    assert_eq!(bob.received(53).await[3..], numbered("missed-", 50));
    let alice = back(&bridge.endpoint(), world.dir.path(), "alice").await;
    assert_eq!(alice.received(50).await, numbered("missed-", 50));
    // Retransmissions went into no log.
    assert!(!world.has_log("alice").await);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_away_while_others_came_and_went_reads_on() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let (mut moderator, mut members) = group(&bridge.endpoint(), world.dir.path(), &["alice", "bob"]).await;
    let (alice, bob) = (members.remove(0), members.remove(0));
    moderator
        .done(json!({"do": "send", "count": 1, "text": "before-"}), "sent")
        .await;
    alice.received(1).await;
    bob.received(1).await;
    world.all_received(3).await;
    alice.kill();
    moderator
        .done(json!({"do": "send", "count": 5, "text": "first-"}), "sent")
        .await;
    // Carol is added: a commit, and new keys for all.
    let state = world.dir.path().join("carol").to_string_lossy().into_owned();
    let mut carol = Agent::start(&bridge.endpoint(), "carol", Some(&state)).await;
    carol.done(json!({"do": "listen"}), "listening").await;
    moderator
        .done(json!({"do": "invite", "who": "org/ns/carol"}), "invited")
        .await;
    carol.wait("session").await;
    moderator
        .done(json!({"do": "send", "count": 5, "text": "second-"}), "sent")
        .await;
    assert_eq!(carol.received(5).await, numbered("second-", 5));
    // Bob is removed.
    moderator
        .done(json!({"do": "remove", "who": "org/ns/bob"}), "removed")
        .await;
    moderator
        .done(json!({"do": "send", "count": 5, "text": "third-"}), "sent")
        .await;
    carol.received(10).await;
    let alice = back(&bridge.endpoint(), world.dir.path(), "alice").await;
    let all = [numbered("first-", 5), numbered("second-", 5), numbered("third-", 5)].concat();
    assert_eq!(alice.received(15).await, all);
    moderator
        .done(json!({"do": "send", "count": 3, "text": "live-"}), "sent")
        .await;
    assert_eq!(alice.received(18).await[15..], numbered("live-", 3));
    // Bob is gone, and got nothing of it.
    assert!(bob.messages().iter().all(|text| !text.starts_with("third-")));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_spans_two_bridges_and_a_member_moves_between_them() {
    let world = World::new().await;
    let one = world.bridge_with(1, |config| config.exchange = true).await;
    let two = world.bridge_with(2, |config| config.exchange = true).await;
    one.exchanges().await;
    two.exchanges().await;
    let create = json!({"do": "create", "to": "org/ns/room"});
    let dir = world.dir.path();
    let (mut moderator, mut members) =
        super::group::group_over(&one.endpoint(), &two.endpoint(), dir, &["alice"], create).await;
    let mut alice = members.remove(0);
    moderator
        .done(json!({"do": "send", "count": 3, "text": "before-"}), "sent")
        .await;
    assert_eq!(alice.received(3).await, numbered("before-", 3));
    alice
        .done(json!({"do": "send", "count": 3, "text": "alice-"}), "sent")
        .await;
    assert_eq!(moderator.received(3).await, numbered("alice-", 3));
    world.all_received(2).await;
    alice.kill();
    moderator
        .done(json!({"do": "send", "count": 200, "text": "missed-"}), "sent")
        .await;
    // Her bridge is gone for good.
    two.kill().await;
    let alice = back(&one.endpoint(), dir, "alice").await;
    assert_eq!(alice.received(200).await, numbered("missed-", 200));
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_client_comes_in_over_tls_with_a_bearer() {
    let world = World::new().await;
    let (bridge, ca) = crate::tls::with_bearer(&world, "127.0.0.1", "a-bearer-of-more-than-32-characters").await;
    let endpoint = format!("https://{}", bridge.address);
    let more = json!({"ca": ca, "token": "a-bearer-of-more-than-32-characters"});
    let mut alice = Agent::start_with(&endpoint, "alice", None, more.clone()).await;
    alice.done(json!({"do": "listen"}), "listening").await;
    let mut bob = Agent::start_with(&endpoint, "bob", None, more).await;
    let create = json!({"do": "create", "to": "org/ns/alice", "kind": "p2p", "retries": 30});
    bob.done(create, "created").await;
    bob.done(
        json!({"do": "send", "count": 1, "text": "over-tls-", "wait": true}),
        "sent",
    )
    .await;
    assert_eq!(alice.received(1).await, ["over-tls-0"]);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_killed_in_the_middle_of_a_stream_misses_nothing() {
    let world = World::new().await;
    // Nothing counts as received before she is killed, however late this test hears that she has it.
    let bridge = world.bridge_with(1, |config| config.times.confirm_ms = 600_000).await;
    let (mut moderator, mut members) = group(&bridge.endpoint(), world.dir.path(), &["alice"]).await;
    let alice = members.remove(0);
    moderator.tell(json!({"do": "send", "count": 400, "text": "m-", "pause_ms": 2}));
    alice.received(100).await;
    let before = alice.messages().len();
    alice.kill();
    moderator.wait("sent").await;
    let alice = back(&bridge.endpoint(), world.dir.path(), "alice").await;
    crate::world::until("the last message", || {
        alice.messages().last().is_some_and(|text| text == "m-399")
    })
    .await;
    // Her messages are in order and whole from the first on, and that is one that she had, or the next.
    let after = alice.messages();
    let first = 400 - after.len();
    assert_eq!(after, numbered("m-", 400)[first..]);
    assert!(first <= before, "killed after {before} messages, went on at {first}");
    bridge.stop().await;
}
