//! Agents whose network blocks UDP, and agents with both transports.

use super::world::{World, assert_same, channel_of, event, numbered, soon};
use skytale_proto::Code;
use skytale_relay_node::RelayConfig;
use skytale_sdk::{Agent, AgentConfig, Event, Events, RelaySource, Transport};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

fn with_https(config: &mut RelayConfig) {
    config.https.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
}

/// An agent that is current, and whether it is so over HTTPS.
async fn enter(config: AgentConfig) -> (Agent, bool) {
    let agent = Agent::open(config).await.expect("opened");
    let mut events = agent.events();
    agent.connect().await.expect("a socket");
    let over_https = connected(&mut events).await;
    soon("an agent current", agent.caught_up()).await.expect("current");
    (agent, over_https)
}

async fn connected(events: &mut Events) -> bool {
    let is = |told: &Event| matches!(told, Event::Connected { .. });
    match event(events, "a session", is).await {
        Event::Connected { over_https, .. } => over_https,
        other => panic!("{other:?}"),
    }
}

/// Returns a UDP address that nobody answers while the socket is kept.
fn nobody() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_on_both_ways_share_a_channel_and_one_without_udp_catches_up() {
    let world = World::with(with_https).await;
    let mut config = world.config("alice");
    config.network.transport = Transport::Udp;
    let (alice, over_https) = enter(config).await;
    assert!(!over_https);
    let mut config = world.config("bob");
    config.network.transport = Transport::Https;
    let (bob, over_https) = enter(config.clone()).await;
    assert!(over_https);
    let channels = channel_of(&[&alice, &bob]).await;
    let from_bob = channels[1].send_many(numbered("bob", 0..50)).await.expect("sent");
    for sent in from_bob {
        soon("delivered", sent.delivered()).await.expect("delivered");
    }
    let id = channels[1].id();
    bob.close(Duration::from_secs(5)).await;
    // Large ones: more than a window of the way.
    let large = (0..200).map(|number| format!("{number} {}", "x".repeat(30_000)).into());
    let missed = channels[0].send_many(large.collect::<Vec<_>>()).await.expect("sent");
    for sent in missed {
        soon("delivered", sent.delivered()).await.expect("delivered");
    }
    let (bob, over_https) = enter(config).await;
    assert!(over_https);
    let back = bob.channel(id).await.expect("the channel");
    let messages = assert_same(&[channels[0].clone(), back]).await;
    assert_eq!(messages.len(), 250);
    alice.close(Duration::from_secs(5)).await;
    bob.close(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_udp_leads_nowhere_https_is_taken_each_time() {
    let world = World::with(with_https).await;
    let mut config = world.config("alice");
    // No packet of this socket reaches the node's.
    config.network.bind = Some("[::1]:0".parse().expect("an address"));
    let (alice, over_https) = enter(config).await;
    assert!(over_https && alice.is_over_https());
    let mut events = alice.events();
    world.stop_relay().await;
    let gone = |told: &Event| matches!(told, Event::Disconnected { .. });
    event(&mut events, "no session", gone).await;
    assert!(!alice.is_over_https());
    world.start_relay().await;
    assert!(connected(&mut events).await);
    alice.close(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_began_over_https_goes_on_over_udp_once_that_leads_there() {
    let world = World::with(with_https).await;
    let (silent, address) = nobody();
    let mut config = world.config("alice");
    let mut relay = world.relay.clone();
    relay.addresses = vec![address];
    config.relays = RelaySource::Fixed(vec![relay]);
    // Over UDP nobody answers at the address that the agent has; over HTTPS the two endpoints find a way.
    let (alice, _) = enter(config).await;
    let mut events = alice.events();
    let moved = async {
        while alice.is_over_https() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("a way over UDP", moved).await;
    let bob = world.agent("bob").await;
    let channels = channel_of(&[&alice, &bob]).await;
    let sent = channels[0].send("over UDP").await.expect("sent");
    soon("delivered", sent.delivered()).await.expect("delivered");
    assert!(alice.relay().is_some() && !alice.is_over_https());
    let lost = tokio::time::timeout(
        Duration::ZERO,
        event(&mut events, "an end", |told| matches!(told, Event::Disconnected { .. })),
    );
    assert!(lost.await.is_err(), "the session went on");
    drop(silent);
    alice.close(Duration::from_secs(5)).await;
    bob.close(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_neither_way_leads_anywhere_both_are_named() {
    let world = World::with(with_https).await;
    let (_silent, address) = nobody();
    let mut config = world.config("alice");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", closed.local_addr().expect("an address"));
    let mut relay = world.relay.clone().with_https_url(url.clone());
    relay.addresses = vec![address];
    config.relays = RelaySource::Fixed(vec![relay]);
    drop(closed);
    let alice = Agent::open(config).await.expect("opened");
    let mut events = alice.events();
    alice.connect().await.expect("a socket");
    let failed = |told: &Event| matches!(told, Event::ConnectFailed { .. });
    let Event::ConnectFailed { code, reason, .. } = event(&mut events, "a failure", failed).await else {
        panic!("another event");
    };
    assert_eq!(code, Code::Offline);
    assert!(reason.contains("over UDP") && reason.contains(&url), "{reason}");
    alice.close(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_alone_needs_a_node_that_serves_it() {
    let world = World::new().await;
    let mut config = world.config("alice");
    config.network.transport = Transport::Https;
    let alice = Agent::open(config).await.expect("opened");
    let mut events = alice.events();
    alice.connect().await.expect("a socket");
    let failed = |told: &Event| matches!(told, Event::ConnectFailed { .. });
    let Event::ConnectFailed { reason, .. } = event(&mut events, "a failure", failed).await else {
        panic!("another event");
    };
    assert!(reason.contains("serves no HTTPS"), "{reason}");
    alice.close(Duration::from_secs(5)).await;
}

/// Creates a certificate for `localhost`, with its key in a file beside it, and the root that a client must trust.
fn certificate(dir: &Path) -> (std::path::PathBuf, std::path::PathBuf, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let (certificate, key) = (dir.join("relay.pem"), dir.join("relay.key.pem"));
    std::fs::write(&certificate, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    (certificate, key, made.cert.der().to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_must_lead_to_a_root_that_is_trusted() {
    let dir = tempfile::tempdir().expect("a folder");
    let (certificate, key, root) = certificate(dir.path());
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let listen = port.local_addr().expect("an address");
    drop(port);
    let url = format!("https://localhost:{}", listen.port());
    let world = World::with(|config| {
        config.https.listen = Some(listen);
        config.https.url = Some(url.clone());
        config.https.certificate_file = Some(certificate);
        config.https.key_file = Some(key);
    })
    .await;
    assert_eq!(world.relay.https_url.as_deref(), Some(&*url));
    let mut config = world.config("alice");
    config.network.transport = Transport::Https;
    let alice = Agent::open(config.clone()).await.expect("opened");
    let mut events = alice.events();
    alice.connect().await.expect("a socket");
    let failed = |told: &Event| matches!(told, Event::ConnectFailed { .. });
    event(&mut events, "a failure", failed).await;
    alice.close(Duration::from_secs(5)).await;

    config.network.roots = vec![root];
    let (alice, over_https) = enter(config).await;
    assert!(over_https);
    alice.close(Duration::from_secs(5)).await;
}
