//! Frames that are kept, frames that are not, and the order in which members get them.

use crate::wire::{Client, header, name, online, text, to_group};
use crate::world::World;
use skytale_bridge::wire::proto::{Message, Name, SessionMessageType as Kind, message::MessageType};

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

const DATA: u64 = 100;
const CONTROL: u64 = 101;

/// A member of the group `room`, on a link.
async fn member(endpoint: &str, own: &Name) -> Client {
    let mut client = Client::connect(endpoint).await;
    client.subscribe(own, own).await.expect("subscribed");
    for id in [DATA, CONTROL] {
        client
            .subscribe(own, &name("room", Some(id)))
            .await
            .expect("subscribed");
    }
    client
}

async fn say(client: &Client, own: &Name, text: &str) {
    client
        .send(to_group(own, &name("room", Some(DATA)), Kind::Msg, text))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_gets_what_it_missed_once_and_its_announcement_comes_after() {
    let world = World::new().await;
    let bridge = world
        .bridge_with(1, |config| {
            // It is the announcement that begins the replay.
            config.times.settle_ms = 60_000;
            config.limits.queue_messages_max = 8;
            config.limits.queue_bytes_max = config.limits.message_bytes_max;
        })
        .await;
    let (alice, bob) = (name("alice", Some(1)), name("bob", Some(2)));
    let mut a = member(&bridge.endpoint(), &alice).await;
    let mut b = member(&bridge.endpoint(), &bob).await;
    say(&a, &alice, "before").await;
    assert_eq!(b.texts(1).await, ["before"]);
    world.all_received(2).await;
    drop(b);
    bridge.links(1).await;
    // More than the link's queue and HTTP/2's windows hold.
    let large = "x".repeat(100_000);
    let mut witness = member(&bridge.endpoint(), &name("witness", Some(9))).await;
    for number in 0..50 {
        say(&a, &alice, &format!("{number}:{large}")).await;
    }
    // They are in the log.
    witness.texts(50).await;
    let mut b = member(&bridge.endpoint(), &bob).await;
    b.reads.send_replace(false);
    b.send(online(&bob, &name("room", Some(CONTROL)))).await;
    // Bob reads nothing: his replay is not done, and nobody hears that he is back.
    let early = tokio::time::timeout(std::time::Duration::from_millis(700), a.next()).await;
    assert!(early.is_err(), "{early:?}");
    b.reads.send_replace(true);
    let missed = b.texts(50).await;
    assert_eq!(missed.len(), 50);
    for (number, text) in missed.iter().enumerate() {
        assert!(text.starts_with(&format!("{number}:")), "{number}");
    }
    let told = a.next().await.expect("the announcement");
    assert_eq!(text(&told), None);
    say(&a, &alice, "after").await;
    assert_eq!(b.texts(1).await, ["after"], "nothing twice on one link");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_before_a_link_ended_is_stored() {
    let world = World::new().await;
    let bridge = world
        .bridge_with(1, |config| {
            config.limits.queue_messages_max = 8;
            config.limits.queue_bytes_max = config.limits.message_bytes_max;
        })
        .await;
    let (alice, bob) = (name("alice", Some(1)), name("bob", Some(2)));
    let mut a = member(&bridge.endpoint(), &alice).await;
    drop(member(&bridge.endpoint(), &bob).await);
    bridge.links(1).await;
    let large = "x".repeat(100_000);
    for _ in 0..50 {
        say(&a, &alice, &large).await;
    }
    // Bob reads nothing, so that what he says waits for the end of his replay; and then his link ends.
    let b = member(&bridge.endpoint(), &bob).await;
    b.reads.send_replace(false);
    b.send(online(&bob, &name("room", Some(CONTROL)))).await;
    for number in 0..40 {
        say(&b, &bob, &number.to_string()).await;
    }
    b.send_bytes(bytes::Bytes::from_static(&[0xff; 20])).await;
    bridge.links(1).await;
    assert_eq!(text(&a.next().await.expect("the announcement")), None);
    assert_eq!(a.texts(40).await, numbered(40));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_has_not_read_is_sent_again_and_what_it_has_is_not() {
    let world = World::new().await;
    let bridge = world.bridge_with(1, |config| config.times.settle_ms = 50).await;
    let (alice, bob) = (name("alice", Some(1)), name("bob", Some(2)));
    let a = member(&bridge.endpoint(), &alice).await;
    let mut b = member(&bridge.endpoint(), &bob).await;
    // They are read by the test, but its node never says so: it might have been the kernel's buffer.
    b.answers.store(false, std::sync::atomic::Ordering::SeqCst);
    for number in 0..5 {
        say(&a, &alice, &number.to_string()).await;
    }
    assert_eq!(b.texts(5).await, numbered(5));
    drop(b);
    bridge.links(1).await;
    let mut b = member(&bridge.endpoint(), &bob).await;
    assert_eq!(b.texts(5).await, numbered(5));
    // The barrier behind them is answered.
    world.all_received(2).await;
    drop(b);
    bridge.links(1).await;
    let mut b = member(&bridge.endpoint(), &bob).await;
    say(&a, &alice, "new").await;
    assert_eq!(b.texts(1).await, ["new"]);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_has_left_gets_nothing_of_what_was_said_then() {
    let world = World::new().await;
    let bridge = world.bridge_with(1, |config| config.times.settle_ms = 50).await;
    let (alice, bob) = (name("alice", Some(1)), name("bob", Some(2)));
    let mut a = member(&bridge.endpoint(), &alice).await;
    let mut b = member(&bridge.endpoint(), &bob).await;
    for (id, subscription) in [(DATA, 2), (CONTROL, 3)] {
        let left = b.unsubscribe(&bob, &name("room", Some(id)), subscription).await;
        left.expect("unsubscribed");
    }
    let mut witness = member(&bridge.endpoint(), &name("witness", Some(9))).await;
    say(&a, &alice, "in between").await;
    assert_eq!(witness.texts(1).await, ["in between"], "it is in the log");
    let mut c = member(&bridge.endpoint(), &name("carol", Some(3))).await;
    say(&a, &alice, "probe").await;
    let seen = c.texts(1).await;
    assert_eq!(seen, ["probe"], "a new member begins at the head");
    let mut b = member(&bridge.endpoint(), &bob).await;
    say(&a, &alice, "again").await;
    assert_eq!(b.texts(1).await, ["again"]);
    // And the sender hears nothing of its own.
    say(&b, &bob, "from bob").await;
    assert_eq!(a.texts(1).await, ["from bob"]);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transient_frames_pass_and_are_not_kept() {
    let world = World::new().await;
    let bridge = world.bridge_with(1, |config| config.times.settle_ms = 50).await;
    let (alice, bob) = (name("alice", Some(1)), name("bob", Some(2)));
    let a = member(&bridge.endpoint(), &alice).await;
    let mut b = member(&bridge.endpoint(), &bob).await;
    let transient = |kind, text: &str, rpc: bool| {
        let mut message = to_group(&alice, &name("room", Some(DATA)), kind, text);
        if rpc {
            message.metadata.insert("slimrpc-dir".into(), "request".into());
        }
        message
    };
    let all = [
        transient(Kind::Heartbeat, "beat", false),
        transient(Kind::MsgAck, "ack", false),
        transient(Kind::Msg, "rpc", true),
    ];
    for message in &all {
        a.send(message.clone()).await;
    }
    assert_eq!(b.texts(3).await, ["beat", "ack", "rpc"]);
    drop(b);
    bridge.links(1).await;
    let mut witness = member(&bridge.endpoint(), &name("witness", Some(9))).await;
    for message in all {
        a.send(message).await;
    }
    say(&a, &alice, "kept").await;
    assert!(witness.texts(4).await.contains(&"kept".into()));
    let mut b = member(&bridge.endpoint(), &bob).await;
    assert_eq!(b.texts(1).await, ["kept"]);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_routed_by_id_by_prefix_and_in_turn() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let mut links = Vec::new();
    for id in 1..=3 {
        let mut client = Client::connect(&bridge.endpoint()).await;
        let own = name("service", Some(id));
        client.subscribe(&own, &own).await.expect("subscribed");
        links.push(client);
    }
    let sender = Client::connect(&bridge.endpoint()).await;
    let send = |to: Name, fanout: u32, what: &str| {
        let mut message = to_group(&name("sender", Some(9)), &to, Kind::DiscoveryRequest, what);
        if let Some(MessageType::Publish(publish)) = &mut message.message_type {
            publish.header = Some(header(name("sender", Some(9)), to, fanout));
        }
        message
    };
    sender.send(send(name("service", Some(2)), 1, "to two")).await;
    assert_eq!(links[1].texts(1).await, ["to two"]);
    sender.send(send(name("service", None), 256, "to all")).await;
    for link in &mut links {
        assert_eq!(link.texts(1).await, ["to all"]);
    }
    // An id of all ones is no id.
    let mut any = name("service", None);
    any.name.as_mut().expect("a name").name_id = Some(skytale_bridge::wire::proto::NameId {
        id_0: u64::MAX,
        id_1: u64::MAX,
    });
    for number in 0..3 {
        sender.send(send(any.clone(), 1, &number.to_string())).await;
    }
    let mut got = Vec::new();
    for link in &mut links {
        got.extend(link.texts(1).await);
    }
    got.sort_unstable();
    assert_eq!(got, numbered(3));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_end_to_end_arrives_as_it_was_sent() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let (alice, bob) = (name("alice", Some(1)), name("bob", Some(2)));
    let a = member(&bridge.endpoint(), &alice).await;
    let mut b = member(&bridge.endpoint(), &bob).await;
    let mut sent = to_group(&alice, &name("room", Some(DATA)), Kind::GroupUpdate, "commit");
    sent.metadata.insert("slim-payload-sig".into(), "c2ln".into());
    if let Some(MessageType::Publish(publish)) = &mut sent.message_type {
        let header = publish.header.as_mut().expect("a header");
        header.e2e_header_sig = Some(vec![9; 70].into());
        header.recv_from = Some(4);
        header.forward_to = Some(5);
        header.incoming_conn = Some(6);
    }
    a.send(sent.clone()).await;
    let mut got: Message = b.next().await.expect("a frame");
    for message in [&mut sent, &mut got] {
        let Some(MessageType::Publish(publish)) = &mut message.message_type else {
            panic!("a publish");
        };
        let header = publish.header.as_mut().expect("a header");
        header.header_mac = None;
        (header.recv_from, header.forward_to, header.incoming_conn) = (None, None, None);
        header.ttl = 0;
    }
    assert_eq!(got, sent);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bridges_serve_one_channel_and_a_member_moves_between_them() {
    let world = World::new().await;
    let change = |config: &mut skytale_bridge::BridgeConfig| {
        config.times.settle_ms = 50;
        config.exchange = true;
    };
    let one = world.bridge_with(1, change).await;
    let two = world.bridge_with(2, change).await;
    let (alice, bob) = (name("alice", Some(1)), name("bob", Some(2)));
    let mut a = member(&one.endpoint(), &alice).await;
    let mut b = member(&two.endpoint(), &bob).await;
    say(&a, &alice, "hello").await;
    assert_eq!(b.texts(1).await, ["hello"]);
    say(&b, &bob, "hello too").await;
    assert_eq!(a.texts(1).await, ["hello too"]);
    // A transient frame goes over as well, to a name that only the other bridge has.
    let beat = to_group(&alice, &bob, Kind::Heartbeat, "beat");
    for _ in 0..200 {
        // The exchange begins when both bridges follow it.
        a.send(beat.clone()).await;
        let came = tokio::time::timeout(std::time::Duration::from_millis(100), b.texts(1)).await;
        if came.is_ok_and(|texts| texts == ["beat"]) {
            break;
        }
    }
    world.all_received(2).await;
    drop(b);
    two.links(0).await;
    let mut witness = member(&two.endpoint(), &name("witness", Some(9))).await;
    say(&a, &alice, "missed").await;
    assert_eq!(witness.texts(1).await, ["missed"]);
    // Bob comes back to the other one.
    let mut b = member(&one.endpoint(), &bob).await;
    assert_eq!(b.texts(1).await, ["missed"]);
    one.stop().await;
    two.stop().await;
}
