//! A session's life: pings, refreshes, and each of its ends.

use crate::client::{Agent, Client, Gone, Wire, closed, soon};
use crate::fixture::{Fixture, config, message, now_s};
use crate::witness::Witness;
use skytale_log_store::faulty::{FaultyStore, Way};
use skytale_proto::session::{Open, control_event::Event, frame_message, notice, open};
use skytale_proto::{Code, Offset};
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_are_answered_and_sent() {
    let mut config = config();
    config.session.keepalive_ms = 200;
    let fixture = Fixture::with(config).await;
    let (_, mut client) = fixture.agent().await;
    client.ping(42).await.expect("sent");
    let Event::Pong(pong) = client.event().await.expect("an event") else {
        panic!("a pong")
    };
    assert_eq!(pong.nonce, 42);
    // An agent that answers pings stays, far past twice the keepalive.
    for _ in 0..5 {
        let Event::Ping(_) = client.event().await.expect("an event") else {
            panic!("a ping")
        };
        client.ping(1).await.expect("sent");
        let Event::Pong(_) = client.event().await.expect("an event") else {
            panic!("a pong")
        };
    }
}

/// The QUIC library writes the frame that asks for it without a look at the packet's room, and panics where there is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_not_asked_for_fewer_acknowledgements() {
    let fixture = Fixture::new().await;
    let (_, mut client) = fixture.agent().await;
    client.ping(1).await.expect("sent");
    let Event::Pong(_) = client.event().await.expect("an event") else {
        panic!("a pong")
    };
    let stats = client.connection.stats();
    assert_eq!((stats.frame_rx.ack_frequency, stats.frame_tx.ack_frequency), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_agent_loses_its_session() {
    let mut config = config();
    config.session.keepalive_ms = 100;
    let fixture = Fixture::with(config).await;
    let (_, mut client) = fixture.agent().await;
    assert_eq!(client.refused().await, Some(Code::KeepaliveLost));
    assert_eq!(closed(&client.connection).await, Some(Code::KeepaliveLost));
    assert_eq!(fixture.node.sessions(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_with_its_token_and_so_do_its_streams() {
    let fixture = Fixture::new().await;
    let mut witness = Witness::start(&fixture).await;
    // The clock's skew is forgiven: this token is in force for some three seconds more.
    let ending = now_s() - 27;
    let (alice, mut a) = fixture
        .agent_with(|claims| (claims.iat, claims.exp) = (ending - 60, ending))
        .await;
    let channel = fixture.channel(&alice, &a).await;
    let mut follow = a.subscribe(channel.log(), Offset::ZERO, true).await;
    let mut appends = a.appends().await;
    appends
        .send(&message(channel, alice.id, 1, "before"))
        .await
        .expect("sent");
    assert_eq!(appends.verdict().await, None);
    for offset in [1, 2] {
        assert_eq!(follow.entry().await.expect("in time").offset, Offset::new(offset));
    }
    let Event::Notice(notice) = a.event().await.expect("an event") else {
        panic!("a notice")
    };
    assert_eq!(notice.kind(), notice::Kind::TokenEnding);
    assert_eq!(a.refused().await, Some(Code::TokenExpired));
    assert_eq!(closed(&a.connection).await, Some(Code::TokenExpired));
    assert_eq!(follow.until_end().await.gone.code(), Some(Code::TokenExpired));
    witness.is_served().await;
    witness.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refreshed_token_carries_the_session_on() {
    let fixture = Fixture::new().await;
    let ending = now_s() - 27;
    let (alice, mut a) = fixture
        .agent_with(|claims| (claims.iat, claims.exp) = (ending - 60, ending))
        .await;
    let mut claims = fixture.claims(&alice);
    claims.scope = "relay:replay channels:create".into();
    a.refresh(fixture.signer.sign(&claims)).await.expect("sent");
    loop {
        match a.event().await.expect("an event") {
            Event::TokenAccepted(accepted) => {
                assert_eq!(accepted.token_expires_s, claims.exp);
                break;
            }
            Event::Notice(_) => {}
            other => panic!("{other:?}"),
        }
    }
    // Past the former token's end, under the new token's scopes.
    soon(async {
        while now_s() < ending + 32 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    let channel = fixture.channel(&alice, &a).await;
    let refused = a
        .append(&message(channel, alice.id, 1, "no scope"))
        .await
        .expect_err("refused");
    assert_eq!(refused.known_code(), Some(Code::ScopeMissing));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_that_does_not_hold_is_refused_and_changes_nothing() {
    let fixture = Fixture::new().await;
    let (alice, mut a) = fixture.agent().await;
    let (bob, _b) = fixture.agent().await;
    let base = fixture.claims(&alice);
    let mut subject = base.clone();
    subject.sub = bob.id;
    let mut account = base.clone();
    account.acct = skytale_proto::AccountId::generate();
    let mut endpoint = base.clone();
    endpoint.cnf.eid = bob.endpoint_id();
    let mut expired = base.clone();
    (expired.iat, expired.exp) = (base.iat - 3_000, base.iat - 100);
    let cases = [
        (subject, Code::TokenSubject),
        (account, Code::TokenSubject),
        (endpoint, Code::TokenEndpoint),
        (expired, Code::TokenExpired),
    ];
    for (claims, wanted) in cases {
        a.refresh(fixture.signer.sign(&claims)).await.expect("sent");
        assert_eq!(a.refused().await, Some(wanted));
    }
    a.refresh("garbage".into()).await.expect("sent");
    assert_eq!(a.refused().await, Some(Code::TokenMalformed));
    fixture.channel(&alice, &a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_session_replaces_the_first() {
    let fixture = Fixture::new().await;
    let mut witness = Witness::start(&fixture).await;
    let (alice, mut first) = fixture.agent().await;
    let channel = fixture.channel(&alice, &first).await;
    let follow = first.subscribe(channel.log(), Offset::ZERO, true).await;
    let second = fixture.session(&alice, &fixture.claims(&alice)).await;
    assert_eq!(first.refused().await, Some(Code::SessionReplaced));
    assert_eq!(closed(&first.connection).await, Some(Code::SessionReplaced));
    assert_eq!(follow.until_end().await.gone.code(), Some(Code::SessionReplaced));
    second
        .append(&message(channel, alice.id, 1, "second"))
        .await
        .expect("appended");
    assert_eq!(fixture.node.sessions(), 2);
    witness.is_served().await;
    witness.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_leaves_is_forgotten() {
    let fixture = Fixture::new().await;
    let (_, client) = fixture.agent().await;
    assert_eq!(fixture.node.sessions(), 1);
    client.leave();
    soon(async {
        while fixture.node.sessions() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_tells_everyone_answers_what_is_in_flight_and_takes_nothing_new() {
    let store = FaultyStore::new();
    let fixture = Fixture::over(config(), store.clone()).await;
    let (alice, mut a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    let token = fixture.token(&alice);
    let mut appends = a.appends().await;
    store.appends(Way::Silent);
    for n in 0..10 {
        appends
            .send(&message(channel, alice.id, 1, format!("{n}")))
            .await
            .expect("sent");
    }
    let taken = store.appended_bytes();
    soon(async {
        while store.appended_bytes() < taken + 10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // All ten are with the store before the drain begins.
    soon(async {
        while fixture_offset(&store, channel).await < 11 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;

    let relay = fixture.relay();
    let fixture = Arc::new(fixture);
    let draining = tokio::spawn({
        let fixture = fixture.clone();
        async move { fixture.node.drain(Duration::from_secs(30)).await }
    });
    let Event::Notice(notice) = a.event().await.expect("an event") else {
        panic!("a notice")
    };
    assert_eq!(notice.kind(), notice::Kind::Drain);
    assert!(notice.within_ms > 1_000 && notice.within_ms <= 30_000);
    let late = Client::start(&alice, &relay, &token)
        .await
        .err()
        .expect("no new session");
    assert_eq!(late.closed, Some(Code::Draining));
    appends
        .send(&message(channel, alice.id, 1, "late"))
        .await
        .expect("sent");
    store.appends(Way::Through);
    for offset in 2..12 {
        assert_eq!(
            appends.answer().await.expect("answered").expect("appended").offset,
            offset
        );
    }
    assert_eq!(appends.verdict().await, Some(Code::Draining));
    // It reads on as long as it stays.
    assert_eq!(a.replay(channel.log(), Offset::ZERO).await.entries.len(), 11);
    a.leave();
    soon(draining).await.expect("drained");
}

async fn fixture_offset(store: &FaultyStore, channel: skytale_proto::ChannelId) -> u64 {
    use skytale_log_store::LogStore;
    store.watch_head(channel.log()).await.expect("a head").borrow().get()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_at_its_deadline_and_a_shutdown_after_it() {
    let fixture = Fixture::new().await;
    let (_, mut a) = fixture.agent().await;
    fixture.node.drain(Duration::from_millis(100)).await;
    assert_eq!(a.refused().await, Some(Code::Draining));
    assert_eq!(closed(&a.connection).await, Some(Code::Draining));
    soon(fixture.node.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_that_comes_during_a_drain_starts_nothing() {
    let fixture = Fixture::new().await;
    let agent = Agent::new().await;
    let connection = agent.connect(&fixture.relay()).await.expect("connected");
    let mut control = Wire::open(&connection).await.expect("a stream");
    // The connection is taken before the drain begins.
    control.say_bytes(&[0]).await.expect("sent");
    let token = fixture.token(&agent);
    let fixture = Arc::new(fixture);
    let draining = tokio::spawn({
        let fixture = fixture.clone();
        async move { fixture.node.drain(Duration::from_secs(30)).await }
    });
    soon(async {
        while crate::admin::get(&fixture, "/readyz").await.0 == 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let hello = agent.hello(&connection, &token);
    let hello = frame_message(&Open {
        stream: Some(open::Stream::Hello(hello)),
    });
    control.say_bytes(&hello[1..]).await.expect("sent");
    assert_eq!(closed(&connection).await, Some(Code::Draining));
    soon(draining).await.expect("drained");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_ends_sessions_with_a_code() {
    let fixture = Fixture::new().await;
    let (_, mut a) = fixture.agent().await;
    soon(fixture.node.shutdown()).await;
    assert_eq!(a.refused().await, Some(Code::Draining));
    let gone = Gone::from(soon(a.connection.closed()).await);
    assert_eq!(gone, Gone::Connection(Some(Code::Draining)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_keeps_its_id_with_its_key_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config();
    config.secret_key_file = Some(folder.path().join("relay.key"));
    let first = Fixture::with(config.clone()).await;
    let id = first.node.endpoint_id();
    soon(first.node.shutdown()).await;
    let second = Fixture::with(config).await;
    assert_eq!(second.node.endpoint_id(), id);
}
