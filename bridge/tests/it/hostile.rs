//! Clients that break the rules. Each is refused with its status, and others are served meanwhile.

use crate::wire::{Client, channel, name, open, to_group};
use crate::world::{TestBridge, World, soon, until};
use bytes::Bytes;
use prost::Message as _;
use secrecy::SecretString;
use skytale_bridge::policy::{Policy, Rules};
use skytale_bridge::wire::proto::{Message, SessionMessageType as Kind, message::MessageType};
use skytale_bridge::{AuthConfig, Bearer, BridgeConfig};
use std::time::Duration;
use tokio_stream::StreamExt as _;
use tonic::Code;

/// Someone who keeps the rules is served.
pub(crate) async fn is_served(endpoint: &str) {
    let own = name("honest", Some(1));
    let mut honest = Client::connect(endpoint).await;
    honest.subscribe(&own, &own).await.expect("subscribed");
    let other = Client::connect(endpoint).await;
    other
        .send(to_group(&name("other", Some(2)), &own, Kind::Heartbeat, "hello"))
        .await;
    assert_eq!(honest.texts(1).await, ["hello"]);
}

pub(crate) fn assert_status(status: &tonic::Status, code: Code, sky: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(sky), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_without_negotiation_is_refused() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let impatient = world.bridge_with(2, |config| config.times.negotiation_ms = 300).await;
    // Another message first; bytes that are none; and silence.
    let publish = to_group(&name("a", Some(1)), &name("b", Some(2)), Kind::Msg, "x").encode_to_vec();
    for (bridge, first) in [
        (&bridge, Some(publish)),
        (&bridge, Some(vec![0xff; 20])),
        (&impatient, None),
    ] {
        let connection = channel(&bridge.endpoint()).await;
        let (out, mut input) = open(connection, None).await.expect("headers");
        if let Some(first) = first {
            out.send(first.into()).await.expect("open");
        }
        let ended = soon("the end", input.next()).await.expect("a status");
        assert_status(&ended.expect_err("refused"), Code::FailedPrecondition, "SKY-7001");
    }
    is_served(&bridge.endpoint()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_without_the_links_mac_end_the_link() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let frame = || to_group(&name("a", Some(1)), &name("b", Some(2)), Kind::Msg, "x");
    // None; another link's; one of another frame.
    let mut none = Client::connect(&bridge.endpoint()).await;
    none.send_bytes(frame().encode_to_vec().into()).await;
    assert_status(&none.ended().await, Code::Unauthenticated, "SKY-7002");
    let one = Client::connect(&bridge.endpoint()).await;
    let mut two = Client::connect(&bridge.endpoint()).await;
    two.send_bytes(one.seal(frame())).await;
    assert_status(&two.ended().await, Code::Unauthenticated, "SKY-7002");
    let mut three = Client::connect(&bridge.endpoint()).await;
    let sealed = Message::decode(three.seal(frame())).expect("a message");
    let mut changed = sealed;
    if let Some(MessageType::Publish(publish)) = &mut changed.message_type {
        publish.header.as_mut().expect("a header").destination = Some(name("victim", Some(3)));
    }
    three.send_bytes(changed.encode_to_vec().into()).await;
    assert_status(&three.ended().await, Code::Unauthenticated, "SKY-7002");
    is_served(&bridge.endpoint()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_too_large_or_none_end_the_link() {
    let world = World::new().await;
    let bridge = world
        .bridge_with(1, |config| config.limits.message_bytes_max = 64 * 1024)
        .await;
    let mut large = Client::connect(&bridge.endpoint()).await;
    large
        .send(to_group(
            &name("a", Some(1)),
            &name("b", Some(2)),
            Kind::Msg,
            &"x".repeat(70_000),
        ))
        .await;
    assert_status(&large.ended().await, Code::ResourceExhausted, "SKY-2004");
    let mut garbage = Client::connect(&bridge.endpoint()).await;
    garbage.send_bytes(Bytes::from_static(&[0x1a, 0xff, 0xff])).await;
    assert_status(&garbage.ended().await, Code::InvalidArgument, "SKY-7004");
    is_served(&bridge.endpoint()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_whose_ttl_has_ended_goes_nowhere() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let own = name("own", Some(1));
    let mut client = Client::connect(&bridge.endpoint()).await;
    client.subscribe(&own, &own).await.expect("subscribed");
    let sender = Client::connect(&bridge.endpoint()).await;
    for (ttl, what) in [(0, "zero"), (1, "one"), (8, "eight")] {
        let mut message = to_group(&name("a", Some(2)), &own, Kind::Heartbeat, what);
        if let Some(MessageType::Publish(publish)) = &mut message.message_type {
            publish.header.as_mut().expect("a header").ttl = ttl;
        }
        sender.send(message).await;
    }
    assert_eq!(client.texts(1).await, ["eight"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_subscriptions_on_one_link_are_not_taken() {
    let world = World::new().await;
    let bridge = world
        .bridge_with(1, |config| config.limits.subscriptions_max = 500)
        .await;
    let mut client = Client::connect(&bridge.endpoint()).await;
    let (mut taken, mut refused) = (0, 0);
    for id in 0..10_000 {
        let own = name("many", Some(id));
        match client.subscribe(&own, &own).await {
            Ok(()) => taken += 1,
            Err(error) => {
                assert!(error.contains("SKY-7006"), "{error}");
                refused += 1;
            }
        }
    }
    assert_eq!((taken, refused), (500, 9_500));
    is_served(&bridge.endpoint()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_reads_nothing_delays_nobody() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    let (alice, bob, sloth) = (name("alice", Some(1)), name("bob", Some(2)), name("sloth", Some(3)));
    let room = name("room", Some(100));
    let a = Client::connect(&bridge.endpoint()).await;
    let mut b = Client::connect(&bridge.endpoint()).await;
    b.subscribe(&bob, &room).await.expect("subscribed");
    let mut s = Client::connect(&bridge.endpoint()).await;
    s.subscribe(&sloth, &room).await.expect("subscribed");
    s.reads.send_replace(false);
    let large = "x".repeat(20_000);
    for number in 0..600 {
        // 12 MB: more than all that could be held for the link that does not read.
        a.send(to_group(&alice, &room, Kind::Msg, &format!("{number}:{large}")))
            .await;
    }
    for (number, text) in b.texts(600).await.iter().enumerate() {
        assert!(text.starts_with(&format!("{number}:")), "{number}");
    }
    // And when it reads, nothing is missing.
    s.reads.send_replace(true);
    for (number, text) in s.texts(600).await.iter().enumerate() {
        assert!(text.starts_with(&format!("{number}:")), "{number}");
    }
    is_served(&bridge.endpoint()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_joins_or_leaves_a_channel_in_anothers_name() {
    let world = World::new().await;
    let bridge = closed(&world, |config| config.times.settle_ms = 50).await;
    let other = format!("{SECRET}n");
    let link = async |token: &str| {
        let connection = channel(&bridge.endpoint()).await;
        Client::over(connection, Some(token)).await.expect("a link")
    };
    let (alice, behind, room) = (name("alice", Some(1)), name("behind", Some(2)), name("room", Some(3)));
    let mut a = link(SECRET).await;
    a.subscribe(&alice, &room).await.expect("a member");
    let mut b = link(&other).await;
    b.subscribe(&behind, &room).await.expect("a member too");
    drop(a);
    bridge.links(1).await;
    b.send(to_group(&behind, &room, Kind::Msg, "missed")).await;
    // The other account may use the room, and not Alice's name in it.
    let mut forger = link(&other).await;
    let refused = forger.subscribe(&alice, &room).await.expect_err("not its name");
    assert!(refused.contains("SKY-7003"), "{refused}");
    forger.subscribe(&behind, &room).await.expect("its name");
    let refused = forger.unsubscribe(&alice, &room, 2).await.expect_err("not its name");
    assert!(refused.contains("SKY-7003"), "{refused}");
    // Nor has one link many members.
    for id in 3..66 {
        forger
            .subscribe(&name("behind", Some(id)), &room)
            .await
            .expect("its names");
    }
    let refused = forger
        .subscribe(&name("behind", Some(66)), &room)
        .await
        .expect_err("too many");
    assert!(refused.contains("SKY-7006"), "{refused}");
    let mut a = link(SECRET).await;
    a.subscribe(&alice, &room).await.expect("a member");
    assert_eq!(a.texts(1).await, ["missed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_floods_end_their_own_connection_alone() {
    let world = World::new().await;
    let bridge = world.bridge(1).await;
    // Streams that are reset as soon as they are opened.
    let socket = tokio::net::TcpStream::connect(bridge.address).await.expect("a socket");
    let (mut send, connection) = h2::client::handshake(socket).await.expect("HTTP/2");
    let driven = tokio::spawn(connection);
    let request = || {
        http::Request::post(format!(
            "{}/dataplane.proto.v1.DataPlaneService/OpenChannel",
            bridge.endpoint()
        ))
        .header("content-type", "application/grpc")
        .body(())
        .expect("a request")
    };
    let mut opened = 0;
    while opened < 100_000 && !driven.is_finished() {
        match send.clone().ready().await {
            Ok(ready) => send = ready,
            Err(_) => break,
        }
        if let Ok((_, mut stream)) = send.send_request(request(), false) {
            opened += 1;
            stream.send_reset(h2::Reason::CANCEL);
        }
        tokio::task::yield_now().await;
    }
    let ended = soon("the end of the flood", driven).await.expect("no panic");
    assert!(ended.is_err(), "after {opened} streams: {ended:?}");
    // More streams than one connection may have: they wait, and hold no links.
    let connection = channel(&bridge.endpoint()).await;
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let connection = connection.clone();
        streams.spawn(async move { open(connection, None).await });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    streams.abort_all();
    // Headers without end.
    let mut grpc = tonic::client::Grpc::new(channel(&bridge.endpoint()).await);
    grpc.ready().await.expect("ready");
    let mut request = tonic::Request::new(tokio_stream::empty::<Bytes>());
    request
        .metadata_mut()
        .insert("x-large", "x".repeat(60_000).parse().expect("a header"));
    let path = http::uri::PathAndQuery::from_static("/dataplane.proto.v1.DataPlaneService/OpenChannel");
    if let Ok(answer) = soon("an answer", grpc.streaming(request, path, skytale_bridge::BytesCodec)).await {
        let mut stream: tonic::Streaming<Bytes> = answer.into_inner();
        let ended = soon("the end", stream.next()).await.expect("a status");
        let status = ended.expect_err("a header list over the limit");
        assert!(status.message().contains("431"), "{status:?}");
    }
    is_served(&bridge.endpoint()).await;
}

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn rules(names: &[&str]) -> Rules {
    Rules {
        names: names.iter().map(|name| name.parse().expect("a pattern")).collect(),
        destinations: vec!["org/ns/shared".parse().expect("a pattern")],
        node: names.contains(&"org/ns/behind"),
    }
}

pub(crate) async fn closed(world: &World, change: impl FnOnce(&mut BridgeConfig)) -> TestBridge {
    let mut policy = Policy::default();
    policy
        .accounts
        .insert("a".into(), rules(&["org/ns/alice", "org/ns/room"]));
    policy.accounts.insert("b".into(), rules(&["org/ns/bob"]));
    policy
        .accounts
        .insert("n".into(), rules(&["org/ns/behind", "org/ns/room"]));
    policy
        .accounts
        .insert("s".into(), rules(&["org/ns/shared", "org/ns/secret"]));
    let bearer = |account: &str, secret: String| Bearer {
        account: account.into(),
        secret: SecretString::from(secret),
    };
    let auth = AuthConfig {
        bearers: vec![
            bearer("a", SECRET.into()),
            bearer("b", format!("{SECRET}b")),
            bearer("c", format!("{SECRET}c")),
            bearer("n", format!("{SECRET}n")),
            bearer("s", format!("{SECRET}s")),
        ],
        policy,
        ..AuthConfig::default()
    };
    let mut config = BridgeConfig::new(([127, 0, 0, 1], 0).into());
    config.domain = Some("test".into());
    change(&mut config);
    TestBridge::start(config, auth, None, 1, world).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_credential_gets_no_link() {
    let world = World::new().await;
    let bridge = closed(&world, |config| config.limits.links_per_account_max = 1).await;
    let connection = channel(&bridge.endpoint()).await;
    for token in [None, Some("wrong"), Some("sk_live_not_asked_anywhere")] {
        let status = open(connection.clone(), token).await.map(|_| ()).expect_err("refused");
        assert_status(&status, Code::Unauthenticated, "SKY-7007");
        assert!(!status.message().contains("sk_live"), "{status:?}");
    }
    let first = Client::over(connection.clone(), Some(SECRET)).await.expect("a link");
    let status = open(connection.clone(), Some(SECRET))
        .await
        .map(|_| ())
        .expect_err("refused");
    assert_status(&status, Code::ResourceExhausted, "SKY-7005");
    let other = format!("{SECRET}b");
    Client::over(connection.clone(), Some(&other))
        .await
        .expect("another account's");
    drop(first);
    bridge.links(0).await;
    Client::over(connection, Some(SECRET))
        .await
        .expect("there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_without_a_link_take_no_more_than_their_networks_part() {
    let world = World::new().await;
    let bridge = closed(&world, |config| config.limits.address_connections_max = Some(4)).await;
    let mut idle = Vec::new();
    for _ in 0..4 {
        idle.push(tokio::net::TcpStream::connect(bridge.address).await.expect("a socket"));
    }
    // The next one is closed at once.
    let mut over = tokio::net::TcpStream::connect(bridge.address).await.expect("a socket");
    let mut byte = [0];
    let ended = soon("the end", tokio::io::AsyncReadExt::read(&mut over, &mut byte)).await;
    assert!(!ended.is_ok_and(|read| read > 0));
    // Connections with a link do not count: as many as the account may have.
    idle.pop();
    let mut links = Vec::new();
    let begun = std::time::Instant::now();
    for _ in 0..8 {
        let link = loop {
            let connected = tonic::transport::Endpoint::from_shared(bridge.endpoint()).expect("an address");
            if let Ok(connection) = connected.connect().await
                && let Ok(link) = Client::over(connection.clone(), Some(SECRET)).await
            {
                break (connection, link);
            }
            assert!(begun.elapsed() < Duration::from_secs(120), "no room");
            // The place of the one that is gone is not free yet.
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        links.push(link);
    }
    bridge.links(8).await;
    // Connections whose links have ended count again: those for which there is no place are closed.
    idle.push(tokio::net::TcpStream::connect(bridge.address).await.expect("a socket"));
    let ended: Vec<_> = links.into_iter().map(|(connection, _)| connection).collect();
    bridge.links(0).await;
    let mut closed = 0;
    for connection in ended {
        if open(connection, Some(SECRET)).await.is_err() {
            closed += 1;
        }
    }
    assert!(closed >= 4, "{closed} of 8");
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_uses_its_own_names_alone() {
    let world = World::new().await;
    let bridge = closed(&world, |_| {}).await;
    let connection = channel(&bridge.endpoint()).await;
    let (alice, bob) = (name("alice", Some(1)), name("bob", Some(2)));
    let mut a = Client::over(connection.clone(), Some(SECRET)).await.expect("a link");
    a.subscribe(&alice, &alice).await.expect("its own");
    let refused = a.subscribe(&alice, &bob).await.expect_err("another's");
    assert!(refused.contains("SKY-7003"), "{refused}");
    // The text of one name with the hash of another.
    let mut forged = bob.clone();
    forged.str_name = alice.str_name.clone();
    a.subscribe(&alice, &forged).await.expect_err("forged");
    // A destination that is not allowed is dropped; the link goes on.
    let mut b = Client::over(connection.clone(), Some(&format!("{SECRET}b")))
        .await
        .expect("a link");
    b.subscribe(&bob, &bob).await.expect("its own");
    a.send(to_group(&alice, &bob, Kind::Heartbeat, "not allowed")).await;
    b.subscribe(&bob, &name("room", Some(1)))
        .await
        .expect_err("another's channel");
    let mut again = Client::over(connection.clone(), Some(SECRET)).await.expect("a link");
    again.subscribe(&alice, &alice).await.expect("its own");
    a.send(to_group(&alice, &alice, Kind::Heartbeat, "allowed")).await;
    assert_eq!(again.texts(1).await, ["allowed"]);
    // A forged source ends the link, and the client does not come back by itself.
    b.send(to_group(&alice, &bob, Kind::Heartbeat, "as alice")).await;
    assert_status(&b.ended().await, Code::PermissionDenied, "SKY-7003");
    // An account without rules may do nothing.
    let mut c = Client::over(connection, Some(&format!("{SECRET}c")))
        .await
        .expect("a link");
    c.subscribe(&alice, &alice).await.expect_err("no rules");
    until("links", || true).await;
}
