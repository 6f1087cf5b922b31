//! Limits of accounts, links and the bridge: what is over them is refused, and others are served meanwhile.

use crate::hostile::{SECRET, assert_status, closed};
use crate::nodes::is_served_to;
use crate::wire::{Client, channel, name, open, to_group};
use crate::world::World;
use skytale_bridge::wire::proto::SessionMessageType as Kind;
use std::time::Duration;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn an_account_stores_as_much_as_it_may_and_another_goes_on() {
    let world = World::new().await;
    let bridge = closed(&world, |config| config.limits.stored_bytes_per_day = 64 * 1024).await;
    let connection = channel(&bridge.endpoint()).await;
    let room = name("room", Some(100));
    // Accounts `a` and `n` may both use the room.
    let alice = name("alice", Some(1));
    let mut a = Client::over(connection.clone(), Some(SECRET)).await.expect("a link");
    a.subscribe(&alice, &room).await.expect("subscribed");
    let (token, behind) = (format!("{SECRET}n"), name("behind", Some(2)));
    let mut reader = Client::over(connection.clone(), Some(&token)).await.expect("a link");
    reader.subscribe(&behind, &room).await.expect("subscribed");
    let other = Client::over(connection, Some(&token)).await.expect("a link");
    let large = "x".repeat(1_000);
    for number in 0..200 {
        a.send(to_group(&alice, &room, Kind::Msg, &format!("{number}:{large}")))
            .await;
    }
    // The link goes on: this is answered behind them.
    a.subscribe(&alice, &name("room", Some(101))).await.expect("subscribed");
    other
        .send(to_group(
            &name("behind", Some(3)),
            &room,
            Kind::Msg,
            "of another account",
        ))
        .await;
    let mut got = 0;
    loop {
        let text = reader.texts(1).await.remove(0);
        if text == "of another account" {
            break;
        }
        assert!(text.starts_with(&format!("{got}:")), "{text:.9}");
        got += 1;
    }
    // With their envelope they are a little over 1 kB each.
    assert!((40..64).contains(&got), "{got} of 200");
    is_served_to(&bridge.endpoint(), SECRET).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_sends_too_fast_is_read_no_faster_and_another_is_served_meanwhile() {
    const A_SECOND: u32 = 20;
    let world = World::new().await;
    let bridge = closed(&world, |config| config.limits.messages_per_second = A_SECOND).await;
    let connection = channel(&bridge.endpoint()).await;
    let (alice, bob) = (name("alice", Some(1)), name("bob", Some(2)));
    let mut a = Client::over(connection.clone(), Some(SECRET)).await.expect("a link");
    a.subscribe(&alice, &alice).await.expect("subscribed");
    let flood = Client::over(connection.clone(), Some(SECRET)).await.expect("a link");
    let began = std::time::Instant::now();
    // More than it may send in an hour.
    let (own, to) = (name("alice", Some(3)), alice.clone());
    let flooding = tokio::spawn(async move {
        for number in 0..100_000 {
            flood
                .send(to_group(&own, &to, Kind::Heartbeat, &number.to_string()))
                .await;
        }
    });
    let token = format!("{SECRET}b");
    let mut b = Client::over(connection.clone(), Some(&token)).await.expect("a link");
    b.subscribe(&bob, &bob).await.expect("subscribed");
    let sender = Client::over(connection, Some(&token)).await.expect("a link");
    sender
        .send(to_group(&name("bob", Some(4)), &bob, Kind::Heartbeat, "meanwhile"))
        .await;
    assert_eq!(b.texts(1).await, ["meanwhile"]);
    // A second's messages at once, and then so many a second. Nothing is lost.
    let got = a.texts(3 * A_SECOND as usize).await;
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    for (number, text) in got.iter().enumerate() {
        assert_eq!(*text, number.to_string());
    }
    flooding.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_of_a_link_and_links_of_the_bridge_are_bounded() {
    let world = World::new().await;
    let bridge = world
        .bridge_with(1, |config| {
            config.limits.channels_max = 2;
            config.limits.links_max = 2;
        })
        .await;
    let own = name("own", Some(1));
    let mut client = Client::connect(&bridge.endpoint()).await;
    for service in ["one", "two"] {
        client.subscribe(&own, &name(service, Some(1))).await.expect("taken");
    }
    let refused = client
        .subscribe(&own, &name("three", Some(1)))
        .await
        .expect_err("a third channel");
    assert!(refused.contains("SKY-7006"), "{refused}");
    // Its own name is no channel, and another name of the same channel is not another channel.
    client.subscribe(&own, &own).await.expect("taken");
    client.subscribe(&own, &name("one", Some(2))).await.expect("taken");
    // A channel that it left makes room.
    for (id, subscription) in [(1, 1), (2, 5)] {
        let left = client.unsubscribe(&own, &name("one", Some(id)), subscription).await;
        left.expect("unsubscribed");
    }
    client
        .subscribe(&own, &name("three", Some(1)))
        .await
        .expect("there is room");
    let second = Client::connect(&bridge.endpoint()).await;
    let status = open(channel(&bridge.endpoint()).await, None)
        .await
        .map(|_| ())
        .expect_err("a third link");
    assert_status(&status, Code::ResourceExhausted, "SKY-7005");
    drop(second);
    bridge.links(1).await;
    let _second = Client::connect(&bridge.endpoint()).await;
}
