//! Clients that get no session, each with its code, while others are served.

use crate::client::{Agent, Client, Wire, closed, soon};
use crate::fixture::{Fixture, config};
use crate::forge;
use crate::witness::Witness;
use skytale_proto::session::{AppendOpen, ControlEvent, Open, Subscribe, control_event, open};
use skytale_proto::token::{Claims, TokenSigner};
use skytale_proto::{Code, limits};

/// The code that a token is answered with: on the control stream and with the connection's end.
async fn refused(fixture: &Fixture, agent: &Agent, token: &str) -> Code {
    let refused = Client::start(agent, &fixture.relay(), token)
        .await
        .err()
        .expect("no session");
    let refusal = refused.refusal.expect("a refusal");
    assert_eq!(refusal.known_code(), refused.closed);
    assert!(!refusal.message.is_empty());
    refused.closed.expect("a code")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_do_not_hold_are_refused_each_with_its_code() {
    let fixture = Fixture::new().await;
    let mut witness = Witness::start(&fixture).await;
    let agent = Agent::new().await;
    let other = Agent::new().await;
    let sign = |change: &dyn Fn(&mut Claims)| {
        let mut claims = fixture.claims(&agent);
        change(&mut claims);
        fixture.signer.sign(&claims)
    };
    let claims = fixture.claims(&agent);
    let cases = [
        (
            "another endpoint's",
            Code::TokenEndpoint,
            sign(&|claims| claims.cnf.eid = other.endpoint_id()),
        ),
        (
            "expired",
            Code::TokenExpired,
            sign(&|claims| (claims.iat, claims.exp) = (claims.iat - 3_000, claims.iat - 60)),
        ),
        (
            "of the future",
            Code::TokenNotYet,
            sign(&|claims| (claims.iat, claims.exp) = (claims.iat + 600, claims.iat + 900)),
        ),
        (
            "too long",
            Code::TokenLifetime,
            sign(&|claims| claims.exp = claims.iat + 3_601),
        ),
        (
            "of a foreign issuer",
            Code::TokenIssuer,
            sign(&|claims| claims.iss = "https://elsewhere.test".into()),
        ),
        (
            "for a foreign audience",
            Code::TokenAudience,
            sign(&|claims| claims.aud = "others".into()),
        ),
        (
            "of an unknown key",
            Code::TokenKeyUnknown,
            TokenSigner::generate().sign(&claims),
        ),
        ("unsigned", Code::TokenAlgorithm, forge::unsigned(&claims)),
        (
            "HS256 under the public key",
            Code::TokenAlgorithm,
            forge::hs256_with_public_key(&fixture.signer, &claims),
        ),
        ("empty", Code::TokenMalformed, String::new()),
        ("garbage", Code::TokenMalformed, "a.b.c".into()),
        (
            "too large",
            Code::TokenMalformed,
            "x".repeat(limits::TOKEN_BYTES_MAX + 1),
        ),
    ];
    for (what, wanted, token) in cases {
        assert_eq!(refused(&fixture, &agent, &token).await, wanted, "{what}");
        witness.is_served().await;
    }
    // The same agent with a good token is let in.
    fixture.session(&agent, &claims).await.leave();
    witness.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_says_nothing_is_sent_away() {
    let mut config = config();
    config.session.hello_timeout_ms = 1_000;
    let fixture = Fixture::with(config).await;
    let (agent, client) = fixture.agent_patiently().await;
    let mut witness = Witness::with(&fixture, agent, client).await;
    let silent = Agent::new().await;
    soon(Box::pin(async {
        loop {
            let Ok(connection) = silent.connect(&fixture.relay()).await else {
                continue;
            };
            // Without a code, the time was over before the handshake was: then once more.
            if let Some(code) = closed(&connection).await {
                return assert_eq!(code, Code::HelloTimeout);
            }
        }
    }))
    .await;
    // Half a message is as good as none. If it came too late, then once more.
    soon(Box::pin(async {
        loop {
            let Ok(connection) = silent.connect(&fixture.relay()).await else {
                continue;
            };
            let Ok(mut wire) = Wire::open(&connection).await else {
                continue;
            };
            if wire.say_bytes(&[0, 0, 0, 50, 1, 2, 3]).await.is_err() {
                continue;
            }
            match wire.hear::<ControlEvent>().await {
                Ok(ControlEvent {
                    event: Some(control_event::Event::Refusal(refusal)),
                }) => {
                    assert_eq!(refusal.known_code(), Some(Code::HelloTimeout));
                    return assert_eq!(closed(&connection).await, Some(Code::HelloTimeout));
                }
                Ok(other) => panic!("no refusal: {other:?}"),
                Err(gone) => assert!(gone.code().is_none_or(|code| code == Code::HelloTimeout), "{gone:?}"),
            }
        }
    }))
    .await;
    witness.is_served().await;
    witness.leave().await;
}

async fn refusal(wire: &mut Wire) -> Option<Code> {
    match wire.hear::<ControlEvent>().await {
        Ok(ControlEvent {
            event: Some(control_event::Event::Refusal(refusal)),
        }) => refusal.known_code(),
        other => panic!("no refusal: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_message_that_is_no_hello_is_refused() {
    let fixture = Fixture::new().await;
    let mut witness = Witness::start(&fixture).await;
    let agent = Agent::new().await;
    let subscribe = Open {
        stream: Some(open::Stream::Subscribe(Subscribe::default())),
    };
    let append = Open {
        stream: Some(open::Stream::Append(AppendOpen {})),
    };
    for open in [subscribe, append, Open { stream: None }] {
        let connection = agent.connect(&fixture.relay()).await.expect("connected");
        let mut wire = Wire::open(&connection).await.expect("a stream");
        wire.say(&open).await.expect("sent");
        assert_eq!(refusal(&mut wire).await, Some(Code::HelloExpected));
        assert_eq!(closed(&connection).await, Some(Code::HelloExpected));
    }
    let connection = agent.connect(&fixture.relay()).await.expect("connected");
    let mut wire = Wire::open(&connection).await.expect("a stream");
    wire.send.finish().expect("open");
    assert_eq!(refusal(&mut wire).await, Some(Code::HelloExpected));
    witness.is_served().await;
    witness.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_before_the_hello_are_given_back() {
    let fixture = Fixture::new().await;
    let agent = Agent::new().await;
    let connection = agent.connect(&fixture.relay()).await.expect("connected");
    let mut control = Wire::open(&connection).await.expect("a stream");
    control.say_bytes(&[0]).await.expect("sent");
    let mut early = Wire::open(&connection).await.expect("a stream");
    early
        .say(&Open {
            stream: Some(open::Stream::Append(AppendOpen {})),
        })
        .await
        .expect("sent");
    assert_eq!(early.abandoned().await, Some(Code::HelloExpected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_oversize_are_refused_before_anything_is_kept() {
    let fixture = Fixture::new().await;
    let mut witness = Witness::start(&fixture).await;
    let agent = Agent::new().await;
    let oversize = u32::try_from(limits::HELLO_BYTES_MAX + 1).expect("small").to_be_bytes();
    let cases: [(&[u8], Code); 4] = [
        (&[0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff], Code::MessageMalformed),
        (&oversize, Code::MessageTooLarge),
        (&[0xff; 64], Code::MessageTooLarge),
        (b"GET / HTTP/1.1\r\n\r\n", Code::MessageTooLarge),
    ];
    for (bytes, wanted) in cases {
        let connection = agent.connect(&fixture.relay()).await.expect("connected");
        let mut wire = Wire::open(&connection).await.expect("a stream");
        wire.say_bytes(bytes).await.expect("sent");
        assert_eq!(refusal(&mut wire).await, Some(wanted));
        assert_eq!(closed(&connection).await, Some(wanted));
        witness.is_served().await;
    }
    let connection = agent.connect(&fixture.relay()).await.expect("connected");
    let mut wire = Wire::open(&connection).await.expect("a stream");
    wire.say_bytes(&[0, 0, 0, 50, 1, 2, 3]).await.expect("sent");
    wire.send.finish().expect("open");
    assert_eq!(refusal(&mut wire).await, Some(Code::MessageMalformed));
    witness.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_says_so_and_takes_others_once_there_is_room() {
    let mut config = config();
    config.limits.connections_max = 2;
    let fixture = Fixture::with(config).await;
    let (_, first) = fixture.agent().await;
    let (_, second) = fixture.agent().await;
    let third = Agent::new().await;
    let token = fixture.token(&third);
    let refused = Client::start(&third, &fixture.relay(), &token)
        .await
        .err()
        .expect("no room");
    assert_eq!(refused.closed, Some(Code::TooManyConnections));
    first.leave();
    soon(async { while Client::start(&third, &fixture.relay(), &token).await.is_err() {} }).await;
    second.leave();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_protocol_finds_no_one() {
    let fixture = Fixture::new().await;
    let agent = Agent::new().await;
    let connected = soon(agent.endpoint.connect(fixture.relay(), b"skytale/relay/2")).await;
    assert!(connected.is_err());
}
