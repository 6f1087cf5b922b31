//! A session's life: pings, refreshes, and each of its ends.

use crate::client::{Agent, Appends, Client, Gone, Subscription, Wire, closed, soon};
use crate::fixture::{Fixture, config, create, message, now_s};
use crate::witness::Witness;
use skytale_log_store::faulty::{FaultyStore, Way};
use skytale_proto::session::{AppendOpen, Open, Subscribe, control_event::Event, frame_message, notice, open};
use skytale_proto::{ChannelId, Code, Offset, limits};
use std::sync::Arc;
use std::time::Duration;

/// Times for which a token is in force, in seconds. A busy machine may need a longer one for what must be done within it.
const MARGINS_S: [u64; 5] = [3, 6, 12, 24, 48];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_are_answered_and_sent() {
    let fixture = Fixture::new().await;
    let (_, mut client) = fixture.agent().await;
    client.ping(42).await.expect("sent");
    let pong = loop {
        match client.event().await.expect("an event") {
            Event::Pong(pong) => break pong,
            Event::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(pong.nonce, 42);

    // An agent that answers pings stays, far past twice the keepalive.
    let mut config = config();
    config.session.keepalive_ms = 500;
    let fixture = Fixture::with(config).await;
    soon(Box::pin(async {
        loop {
            let (_, mut client) = fixture.agent().await;
            match answers_pings(&mut client).await {
                Ok(()) => return,
                // This agent was late, on a busy machine: then once more.
                Err(code) => assert_eq!(code, Some(Code::KeepaliveLost)),
            }
        }
    }))
    .await;
}

/// Answers each ping with one of its own, until five of those are answered; or gives the code that the session ends with.
async fn answers_pings(client: &mut Client) -> Result<(), Option<Code>> {
    let mut pongs = 0;
    while pongs < 5 {
        match client.event().await {
            Ok(Event::Ping(_)) => {
                // If the session has ended, the next event says so.
                let _ = client.ping(1).await;
            }
            Ok(Event::Pong(_)) => pongs += 1,
            Ok(Event::Refusal(refusal)) => return Err(refusal.known_code()),
            Ok(other) => panic!("{other:?}"),
            Err(gone) => return Err(gone.code()),
        }
    }
    Ok(())
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

/// A new agent with a session whose token is in force for so long, and the end that the token names. `None` if the token ended
/// before the session began.
async fn agent_for(fixture: &Fixture, margin_s: u64) -> Option<(Agent, Client, u64)> {
    let agent = Agent::new().await;
    let mut claims = fixture.claims(&agent);
    // The clock's skew is forgiven.
    let ending = now_s() + margin_s - limits::CLOCK_SKEW_MAX.as_secs();
    (claims.iat, claims.exp) = (ending - 60, ending);
    let token = fixture.signer.sign(&claims);
    match Client::start(&agent, &fixture.relay(), &token).await {
        Ok(client) => Some((agent, client, ending)),
        Err(refused) => {
            assert_eq!(refused.closed, Some(Code::TokenExpired));
            None
        }
    }
}

/// Makes a channel, follows it, and reads a message that it appends.
async fn in_use(alice: &Agent, a: &Client) -> Result<(Appends, Subscription), Gone> {
    let channel = ChannelId::generate();
    let mut appends = Appends(a.try_open(open::Stream::Append(AppendOpen {})).await?);
    appends.send(&create(channel, alice.id)).await?;
    assert_eq!(appends.answer().await?.expect("created").offset, 1);
    let subscribe = Subscribe {
        log: channel.log().to_bytes().into(),
        after: 0,
        follow: true,
        limit: 0,
    };
    let mut follow = Subscription::new(a.try_open(open::Stream::Subscribe(subscribe)).await?);
    appends.send(&message(channel, alice.id, 1, "before")).await?;
    assert_eq!(appends.answer().await?.expect("appended").offset, 2);
    for offset in [1, 2] {
        assert_eq!(follow.entry().await?.offset, Offset::new(offset));
    }
    Ok((appends, follow))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_with_its_token_and_so_do_its_streams() {
    let fixture = Fixture::new().await;
    let mut witness = Witness::start(&fixture).await;
    let mut margins_s = MARGINS_S.into_iter();
    let (mut a, _appends, follow) = loop {
        let margin_s = margins_s.next().expect("its streams are in use before the token ends");
        let Some((alice, a, _)) = agent_for(&fixture, margin_s).await else {
            continue;
        };
        match in_use(&alice, &a).await {
            Ok((appends, follow)) => break (a, appends, follow),
            Err(gone) => assert_eq!(closed(&a.connection).await, Some(Code::TokenExpired), "{gone:?}"),
        }
    };
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
    let mut margins_s = MARGINS_S.into_iter();
    let (alice, a, ending) = loop {
        let margin_s = margins_s.next().expect("refreshed before the token ends");
        let Some((alice, mut a, ending)) = agent_for(&fixture, margin_s).await else {
            continue;
        };
        let mut claims = fixture.claims(&alice);
        claims.scope = "relay:replay channels:create".into();
        match refreshed(&mut a, fixture.signer.sign(&claims)).await {
            Ok(expires_s) => {
                assert_eq!(expires_s, claims.exp);
                break (alice, a, ending);
            }
            Err(code) => assert_eq!(code, Some(Code::TokenExpired)),
        }
    };
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

/// Refreshes a session's token. Gives the end of the new one, or the code that the session ends with.
async fn refreshed(client: &mut Client, token: String) -> Result<u64, Option<Code>> {
    // If the session has ended, the next event says so.
    let _ = client.refresh(token).await;
    loop {
        match client.event().await {
            Ok(Event::TokenAccepted(accepted)) => return Ok(accepted.token_expires_s),
            Ok(Event::Notice(_) | Event::Ping(_)) => {}
            Ok(Event::Refusal(refusal)) => return Err(refusal.known_code()),
            Ok(other) => panic!("{other:?}"),
            Err(gone) => return Err(gone.code()),
        }
    }
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

async fn fixture_offset(store: &FaultyStore, channel: ChannelId) -> u64 {
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
