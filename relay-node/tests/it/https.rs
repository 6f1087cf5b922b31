//! The way in without UDP: sessions through it, and what it lets nobody do.

use crate::api::{TestApi, eventually};
use crate::client::{Agent, Client, PATIENCE, id_of, soon};
use crate::fixture::{ALL_SCOPES, Fixture, config, message};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use iroh::dns::DnsResolver;
use iroh::{EndpointAddr, RelayUrl, SecretKey};
use iroh_relay::client::{Client as RelayClient, ClientBuilder};
use iroh_relay::protos::relay::{ClientToRelayMsg, Datagrams, RelayToClientMsg};
use iroh_relay::tls::{CaTlsConfig, default_provider};
use rustls::pki_types::CertificateDer;
use skytale_proto::token::Claims;
use skytale_proto::{EndpointId, Offset};
use skytale_relay_node::RelayConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn with_https() -> RelayConfig {
    let mut config = config();
    config.https.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    config
}

/// An agent before it has connected.
struct Stranger {
    identity: SecretKey,
    secret: SecretKey,
}

impl Stranger {
    fn new() -> Self {
        Self {
            identity: SecretKey::generate(),
            secret: SecretKey::generate(),
        }
    }

    fn claims(&self, fixture: &Fixture) -> Claims {
        let endpoint = EndpointId::from_bytes(*self.secret.public().as_bytes());
        let now = crate::fixture::now_s();
        Claims {
            iss: crate::fixture::ISSUER.into(),
            aud: crate::fixture::AUDIENCE.into(),
            sub: id_of(&self.identity),
            acct: fixture.account,
            key: fixture.key,
            scope: ALL_SCOPES.into(),
            cnf: skytale_proto::token::Confirmation { eid: endpoint },
            exp: now + 600,
            iat: now,
            jti: skytale_proto::FrameId::generate().to_string(),
        }
    }

    fn token(&self, fixture: &Fixture) -> String {
        fixture.signer.sign(&self.claims(fixture))
    }

    /// Connects to the HTTPS port by itself, without QUIC in it.
    async fn bare(&self, url: &RelayUrl, token: Option<&str>) -> Result<RelayClient, String> {
        let tls = CaTlsConfig::default().client_config(default_provider()).expect("TLS");
        let mut client =
            ClientBuilder::new(url.clone(), self.secret.clone(), DnsResolver::new()).tls_client_config(tls);
        if let Some(token) = token {
            client = client.auth_token(token);
        }
        soon(Box::pin(client.connect()))
            .await
            .map_err(|error| format!("{error:#}"))
    }

    async fn agent(&self, fixture: &Fixture) -> Agent {
        let token = self.token(fixture);
        Agent::over_https(self.identity.clone(), self.secret.clone(), &url(fixture), &token).await
    }
}

fn url(fixture: &Fixture) -> RelayUrl {
    fixture.node.https_url().expect("HTTPS").parse().expect("a URL")
}

fn address(fixture: &Fixture) -> SocketAddr {
    let url = fixture.node.https_url().expect("HTTPS");
    url.strip_prefix("http://").expect("plain").parse().expect("an address")
}

fn relay(fixture: &Fixture) -> EndpointAddr {
    EndpointAddr::new(fixture.relay().id).with_relay_url(url(fixture))
}

/// Asks for something over plain HTTP; everything that is answered.
async fn ask(fixture: &Fixture, request: &str) -> String {
    let mut stream = TcpStream::connect(address(fixture)).await.expect("connected");
    // The server may have ended it already.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("an end");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_without_udp_and_one_with_it_share_a_channel() {
    let fixture = Fixture::with(with_https()).await;
    let (direct, first) = fixture.agent().await;
    let stranger = Stranger::new();
    let agent = stranger.agent(&fixture).await;
    let token = stranger.token(&fixture);
    let second = Client::start(&agent, &relay(&fixture), &token)
        .await
        .expect("a session");
    let channel = fixture.channel(&direct, &first).await;
    let adds = crate::fixture::commit(channel, direct.id, 1, &[agent.id], &[]);
    first.append(&adds).await.expect("added");
    let body = Bytes::from(vec![7; 40_000]);
    second
        .append(&message(channel, agent.id, 2, body.clone()))
        .await
        .expect("appended");
    first
        .append(&message(channel, direct.id, 2, body))
        .await
        .expect("appended");
    for client in [&first, &second] {
        assert_eq!(client.replay(channel.log(), Offset::new(2)).await.offsets(), [3, 4]);
    }
    let paths = second.connection.paths();
    assert!(paths.iter().all(|path| path.is_relay()), "no UDP");
    drop(paths);
    fixture.node.shutdown().await;
}

/// A certificate of its own for `relay.test`: as PEM with its key, and in DER.
fn certificate() -> (String, String, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["relay.test".into()]).expect("made");
    (
        made.cert.pem(),
        made.signing_key.serialize_pem(),
        made.cert.der().clone(),
    )
}

/// Whether a client that trusts one certificate connects.
async fn takes(address: SocketAddr, trusted: &CertificateDer<'static>) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).expect("added");
    let config = rustls::ClientConfig::builder_with_provider(default_provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(address).await.expect("connected");
    soon(connector.connect("relay.test".try_into().expect("a name"), stream))
        .await
        .is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_taken_up_without_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate_file, key_file) = (folder.path().join("relay.pem"), folder.path().join("relay.key.pem"));
    let write = |(certificate, key, der): (String, String, CertificateDer<'static>)| {
        std::fs::write(&certificate_file, certificate).expect("written");
        std::fs::write(&key_file, key).expect("written");
        der
    };
    let first = write(certificate());
    let mut config = with_https();
    config.https.certificate_file = Some(certificate_file.clone());
    config.https.key_file = Some(key_file.clone());
    config.https.url = Some("https://relay.test".into());
    let fixture = Fixture::with(config).await;
    let address = fixture.node.https_address().expect("a port");
    assert!(takes(address, &first).await);
    let second = write(certificate());
    soon(async {
        while !takes(address, &second).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert!(!takes(address, &first).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_token_that_holds_nobody_is_let_in() {
    let fixture = Fixture::with(with_https()).await;
    let (url, stranger, other) = (url(&fixture), Stranger::new(), Stranger::new());
    let mut expired = stranger.claims(&fixture);
    (expired.iat, expired.exp) = (expired.iat - 1_000, expired.iat - 400);
    let forged = skytale_proto::token::TokenSigner::generate().sign(&stranger.claims(&fixture));
    for token in [
        None,
        Some("no token"),
        Some(&*fixture.signer.sign(&expired)),
        Some(&*forged),
        // Of another endpoint: a token that was stolen.
        Some(&*other.token(&fixture)),
        Some(&*"x".repeat(20_000)),
    ] {
        let refused = stranger.bare(&url, token).await;
        assert!(refused.is_err(), "{token:?}");
    }
    stranger
        .bare(&url, Some(&stranger.token(&fixture)))
        .await
        .expect("let in");
    fixture.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_brings_nobody_anywhere_but_to_this_node() {
    let fixture = Fixture::with(with_https()).await;
    let (url, sender, receiver) = (url(&fixture), Stranger::new(), Stranger::new());
    let mut from = sender.bare(&url, Some(&sender.token(&fixture))).await.expect("let in");
    let mut to = receiver
        .bare(&url, Some(&receiver.token(&fixture)))
        .await
        .expect("let in");
    let datagram = ClientToRelayMsg::Datagrams {
        dst_endpoint_id: receiver.secret.public(),
        datagrams: Datagrams::from(b"psst"),
    };
    from.send(datagram).await.expect("sent");
    from.flush().await.expect("sent");
    // The client that asked for it is cut off.
    soon(async { while let Some(Ok(_)) = from.next().await {} }).await;
    // The other is there, and has heard nothing.
    to.send(ClientToRelayMsg::Ping([7; 8])).await.expect("sent");
    to.flush().await.expect("sent");
    let heard = soon(to.next()).await.expect("an answer").expect("an answer");
    assert_eq!(heard, RelayToClientMsg::Pong([7; 8]));
    // And what is no QUIC goes to the node, which drops it.
    let datagram = ClientToRelayMsg::Datagrams {
        dst_endpoint_id: fixture.relay().id,
        datagrams: Datagrams::from(b"psst"),
    };
    to.send(datagram).await.expect("sent");
    to.send(ClientToRelayMsg::Ping([8; 8])).await.expect("sent");
    to.flush().await.expect("sent");
    let heard = soon(to.next()).await.expect("an answer").expect("an answer");
    assert_eq!(heard, RelayToClientMsg::Pong([8; 8]));
    let (agent, client) = fixture.agent().await;
    fixture.channel(&agent, &client).await;
    crate::fixture::nothing_panicked();
    fixture.node.shutdown().await;
}

/// Lifetimes of a token, in seconds. A busy machine may need a longer one for what must be done within it.
const LIFETIMES_S: [u64; 5] = [3, 6, 12, 24, 48];

/// A session over HTTPS under a token that ends soon, and that token's claims.
async fn short_lived(fixture: &Fixture) -> (Agent, Client, Claims) {
    for lifetime_s in LIFETIMES_S {
        let lasting = Stranger::new();
        let mut claims = lasting.claims(fixture);
        claims.exp = claims.iat + lifetime_s;
        claims.key = skytale_proto::KeyId::generate();
        let short = fixture.signer.sign(&claims);
        let agent = Agent::over_https(lasting.identity.clone(), lasting.secret.clone(), &url(fixture), &short).await;
        let Ok(connection) = agent.connect(&relay(fixture)).await else {
            continue;
        };
        let hello = agent.hello(&connection, &short);
        if let Ok(session) = Client::start_on(&agent, connection, hello).await {
            return (agent, session, claims);
        }
    }
    panic!("no session, whatever the lifetime of its token")
}

/// A bare connection under a token that ends soon.
async fn short_lived_bare(fixture: &Fixture) -> RelayClient {
    for lifetime_s in LIFETIMES_S {
        let idle = Stranger::new();
        let mut claims = idle.claims(fixture);
        claims.exp = claims.iat + lifetime_s;
        if let Ok(connection) = idle.bare(&url(fixture), Some(&fixture.signer.sign(&claims))).await {
            return connection;
        }
    }
    panic!("not let in, whatever the lifetime of its token")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_and_a_token_that_ended_end_the_connection_but_not_that_of_a_session() {
    let api = TestApi::start().await;
    let fixture = api.fixture(with_https()).await;
    let waits = Agent::new().await;
    eventually(&fixture, &waits).await.leave();
    // A session carries its connection on: it shows new tokens.
    let (agent, mut session, mut claims) = Box::pin(short_lived(&fixture)).await;
    let ends_s = claims.exp;
    claims.exp += 600;
    session.refresh(fixture.signer.sign(&claims)).await.expect("sent");

    let mut idle = Box::pin(short_lived_bare(&fixture)).await;
    soon(async { while let Some(Ok(_)) = idle.next().await {} }).await;

    let doomed = Stranger::new();
    let token = doomed.token(&fixture);
    let mut doomed = doomed.bare(&url(&fixture), Some(&token)).await.expect("let in");
    api.revoke(fixture.key);
    soon(async { while let Some(Ok(_)) = doomed.next().await {} }).await;

    // Past the end of the token that it was let in with, and past the next look at who may stay.
    soon(async {
        while crate::fixture::now_s() < ends_s + 3 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    fixture.channel(&agent, &session).await;
    fixture.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_agent_is_answered_and_costs_little() {
    let fixture = Fixture::with(with_https()).await;
    let head = |request: &str| format!("{request} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n");
    let status = |answer: &str| answer.split(' ').nth(1).unwrap_or_default().to_owned();
    for (request, expected) in [
        ("GET /ping", "200"),
        ("GET /", "404"),
        ("POST /relay", "404"),
        ("GET /relay", "426"),
    ] {
        let answer = ask(&fixture, &(head(request) + "\r\n")).await;
        assert_eq!(status(&answer), expected, "{request}: {answer}");
        let is_problem =
            answer.contains("content-type: application/problem+json\r\n") && answer.contains("\"code\":\"SKY-");
        assert_eq!(is_problem, expected != "200", "{request}: {answer}");
    }
    let hostless = "GET /ping HTTP/1.1\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&ask(&fixture, hostless).await), "400");
    let upgrade = head("GET /relay")
        + "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: iroh-relay-v2\r\n\r\n";
    let answer = ask(&fixture, &upgrade).await;
    assert!(answer.contains("401") && answer.contains("SKY-3001"), "{answer}");
    let many: String = (0..200).map(|number| format!("X-{number}: y\r\n")).collect();
    assert_eq!(
        status(&ask(&fixture, &(head("GET /ping") + &many + "\r\n")).await),
        "431"
    );
    let long = format!("X: {}\r\n", "y".repeat(1 << 20));
    assert_eq!(
        status(&ask(&fixture, &(head("GET /ping") + &long + "\r\n")).await),
        "431"
    );
    assert_eq!(status(&ask(&fixture, "\0\0\0\0 nonsense\r\n\r\n").await), "400");
    crate::fixture::nothing_panicked();
    fixture.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_all_places_taken_a_connection_is_closed_and_a_free_place_is_given_again() {
    let mut config = with_https();
    config.https.connections_max = 1;
    let fixture = Fixture::with(config).await;
    let (url, first, second) = (url(&fixture), Stranger::new(), Stranger::new());
    let held = first.bare(&url, Some(&first.token(&fixture))).await.expect("let in");
    let token = second.token(&fixture);
    assert!(second.bare(&url, Some(&token)).await.is_err(), "no place");
    drop(held);
    soon(async {
        while second.bare(&url, Some(&token)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // Over UDP there are places as before.
    let (agent, client) = fixture.agent().await;
    fixture.channel(&agent, &client).await;
    fixture.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_an_address_that_show_no_token_are_bounded() {
    let mut config = with_https();
    config.limits.address_connections_max = Some(2);
    let fixture = Fixture::with(config).await;
    let at = fixture.node.https_address().expect("served");
    let mut idle = Vec::new();
    for _ in 0..2 {
        idle.push(TcpStream::connect(at).await.expect("connected"));
    }
    // Accepted in order: the third one is closed without a word, and those before it are not.
    let mut over = TcpStream::connect(at).await.expect("connected");
    let mut nothing = Vec::new();
    let read = soon(over.read_to_end(&mut nothing)).await;
    assert!(read.is_err() || nothing.is_empty(), "{nothing:?}");
    idle[0]
        .write_all(b"GET /nothing HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n")
        .await
        .expect("sent");
    let mut answer = Vec::new();
    soon(idle[0].read_to_end(&mut answer)).await.expect("answered");
    assert!(
        answer.starts_with(b"HTTP/1.1 404"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    // Its place is free, and a client that shows a token waits there no more.
    let (url, one, other) = (url(&fixture), Stranger::new(), Stranger::new());
    let mut held = Vec::new();
    for stranger in [one, other] {
        let token = stranger.token(&fixture);
        held.push(
            soon(async {
                loop {
                    match stranger.bare(&url, Some(&token)).await {
                        Ok(connection) => return connection,
                        Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                }
            })
            .await,
        );
    }
    drop((held, idle));
    fixture.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgraded_connections_that_prove_no_key_wait_at_their_address() {
    let mut config = with_https();
    config.limits.address_connections_max = Some(2);
    let fixture = Fixture::with(config).await;
    let at = fixture.node.https_address().expect("served");
    let stranger = Stranger::new();
    let upgrade = "GET /relay HTTP/1.1\r\nHost: relay\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: iroh-relay-v2\r\n";
    let upgrade = format!("{upgrade}Authorization: Bearer {}\r\n\r\n", stranger.token(&fixture));
    // On a machine that stalls for ten seconds those that wait are let go: then once more.
    let mut answers = Vec::new();
    while !answers.last().is_some_and(Vec::is_empty) {
        assert!(answers.len() < 4, "a third one is served: {answers:?}");
        let mut waiting = Vec::new();
        while waiting.len() < 2 {
            let mut stream = TcpStream::connect(at).await.expect("connected");
            let _ = stream.write_all(upgrade.as_bytes()).await;
            let mut begin = [0; 12];
            if soon(stream.read_exact(&mut begin)).await.is_ok() {
                assert_eq!(&begin, b"HTTP/1.1 101", "{}", String::from_utf8_lossy(&begin));
                waiting.push(stream);
            }
        }
        let mut over = TcpStream::connect(at).await.expect("connected");
        let asks = b"GET /nothing HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n";
        let _ = over.write_all(asks).await;
        let mut answer = Vec::new();
        let _ = soon(over.read_to_end(&mut answer)).await;
        answers.push(answer);
    }
    // Their places are free when they are gone, and who proves its key waits there no more.
    let (url, token) = (url(&fixture), stranger.token(&fixture));
    soon(async {
        while stranger.bare(&url, Some(&token)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    fixture.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_has_so_many_connections_over_https_and_others_have_theirs() {
    let mut config = with_https();
    config.limits.account_connections_max = Some(1);
    let fixture = Fixture::with(config).await;
    let (url, first, second) = (url(&fixture), Stranger::new(), Stranger::new());
    let held = first.bare(&url, Some(&first.token(&fixture))).await.expect("let in");
    assert!(
        second.bare(&url, Some(&second.token(&fixture))).await.is_err(),
        "its account has one"
    );
    drop(held);
    let token = second.token(&fixture);
    soon(async {
        while second.bare(&url, Some(&token)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    fixture.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_https_has_no_such_port() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.node.https_url(), None);
    fixture.node.shutdown().await;
}
