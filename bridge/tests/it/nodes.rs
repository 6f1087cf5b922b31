//! Nodes on peer links, by hand: what they may say, and which names they learn.

use crate::hostile::{SECRET, assert_status, closed, is_served};
use crate::wire::{Client, channel, name, to_group};
use crate::world::World;
use prost::Message as _;
use skytale_bridge::wire::proto::{self, SessionMessageType as Kind};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_speaks_for_names_of_its_account_and_hears_of_no_others() {
    let world = World::new().await;
    let bridge = closed(&world, |_| {}).await;
    let connection = channel(&bridge.endpoint()).await;
    let token = |account: &str| format!("{SECRET}{account}");
    // An account without that right links no node, and a stock node does not come back by itself.
    let status = Client::node(connection.clone(), Some(SECRET))
        .await
        .map(|_| ())
        .expect_err("refused");
    assert_status(&status, Code::PermissionDenied, "SKY-7003");

    let mut node = Client::node(connection.clone(), Some(&token("n")))
        .await
        .expect("a link");
    let mut other = Client::over(connection.clone(), Some(&token("s")))
        .await
        .expect("a link");
    let (shared, secret) = (name("shared", Some(1)), name("secret", Some(2)));
    for own in [&secret, &shared] {
        other.subscribe(own, own).await.expect("its own");
    }
    // A name whose text is another's.
    let mut forged = name("secret", Some(3));
    forged.str_name = shared.str_name.clone();
    other.subscribe(&forged, &forged).await.expect_err("forged");
    assert_eq!(node.announced().await, ("shared".into(), true));
    // It speaks for its account's names, without a MAC, and for no others.
    let behind = name("behind", Some(4));
    node.subscribe(&behind, &behind).await.expect("its account's");
    let refused = node.subscribe(&secret, &secret).await.expect_err("another's");
    assert!(refused.contains("SKY-7003"), "{refused}");
    let frame = |from: &proto::Name, text: &str| to_group(from, &shared, Kind::Heartbeat, text);
    node.send_bytes(frame(&secret, "forged source").encode_to_vec().into())
        .await;
    node.send_bytes(
        to_group(&behind, &secret, Kind::Heartbeat, "not allowed")
            .encode_to_vec()
            .into(),
    )
    .await;
    node.send_bytes(frame(&behind, "from behind").encode_to_vec().into())
        .await;
    assert_eq!(other.texts(1).await, ["from behind"]);
    // It hears when the name is gone, and nothing of its own names or of those that it may not send to.
    drop(other);
    assert_eq!(node.announced().await, ("shared".into(), false));
    is_served_to(&bridge.endpoint(), SECRET).await;
}

/// The same as `is_served`, for account `a`.
pub(crate) async fn is_served_to(endpoint: &str, token: &str) {
    let connection = channel(endpoint).await;
    let own = name("alice", Some(1));
    let mut honest = Client::over(connection.clone(), Some(token)).await.expect("a link");
    honest.subscribe(&own, &own).await.expect("subscribed");
    let sender = Client::over(connection, Some(token)).await.expect("a link");
    sender
        .send(to_group(&name("alice", Some(2)), &own, Kind::Heartbeat, "hello"))
        .await;
    assert_eq!(honest.texts(1).await, ["hello"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_reads_nothing_delays_nobody() {
    let world = World::new().await;
    let bridge = world
        .bridge_with(1, |config| config.limits.subscriptions_max = 4_000)
        .await;
    let connection = channel(&bridge.endpoint()).await;
    let node = Client::node(connection, None).await.expect("a link");
    node.reads.send_replace(false);
    // More announcements than its queue and HTTP/2's windows hold.
    let mut client = Client::connect(&bridge.endpoint()).await;
    let long = "x".repeat(500);
    for id in 0..3_000 {
        let own = name(&long, Some(id));
        client.subscribe(&own, &own).await.expect("subscribed");
    }
    is_served(&bridge.endpoint()).await;
    // Once it reads, it hears of each once.
    node.reads.send_replace(true);
    let mut node = node;
    for _ in 0..3_000 {
        assert_eq!(node.announced().await, (long.clone(), true));
    }
    drop(client);
    for _ in 0..3_000 {
        assert_eq!(node.announced().await, (long.clone(), false));
    }
}
