//! Keys and revocations, over HTTP from a real server.

use crate::admin;
use crate::api::{TestApi, ending, enrolment_key, eventually, revocation};
use crate::client::{Agent, Client, closed, soon};
use crate::fixture::config;
use skytale_log_store::MemoryStore;
use skytale_proto::session::control_event::Event;
use skytale_proto::token::TokenSigner;
use skytale_proto::{AgentId, Code, KeyId, Offset};
use skytale_relay_node::RelayConfig;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn slow() -> RelayConfig {
    let mut config = config();
    config.trust.keys_every_ms = 3_600_000;
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_not_known_is_fetched_and_strangers_make_no_flood_of_it() {
    let api = TestApi::start().await;
    let mut config = slow();
    config.trust.keys_refetch_after_ms = 3_600_000;
    let fixture = api.fixture(config).await;
    let agent = Agent::new().await;
    // The API rotated its key after the node's first fetch, or before it: both end in a session.
    let client = eventually(&fixture, &agent).await;
    client.leave();
    let before = api.known.keys_asked.load(Ordering::SeqCst);
    for number in 0..20 {
        // Each under a key of its own, which the API does not have.
        let token = TokenSigner::generate().sign(&fixture.claims(&agent));
        let refused = Client::start(&agent, &fixture.relay(), &token).await.err();
        let refused = refused.expect("refused");
        assert_eq!(refused.closed, Some(Code::TokenKeyUnknown));
        let refusal = refused.refusal.expect("a refusal");
        assert!(refusal.retryable && refusal.retry_after_ms > 0, "{number}: {refusal:?}");
    }
    let asked = api.known.keys_asked.load(Ordering::SeqCst) - before;
    assert!((1..=8).contains(&asked), "fetched {asked} times");
    // The API's keys do not matter for tokens that are for somebody else.
    let mut elsewhere = fixture.claims(&agent);
    elsewhere.iss = "https://elsewhere.test".into();
    let token = TokenSigner::generate().sign(&elsewhere);
    let refused = Client::start(&agent, &fixture.relay(), &token).await.err();
    assert_eq!(refused.expect("refused").closed, Some(Code::TokenIssuer));
    // Those whose key is known are served as ever.
    eventually(&fixture, &agent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_change_several_times_in_a_row_keep_nobody_out() {
    let api = TestApi::start().await;
    let mut config = slow();
    config.trust.keys_refetch_after_ms = 3_600_000;
    let fixture = api.fixture(config).await;
    let agent = Agent::new().await;
    eventually(&fixture, &agent).await.leave();
    for number in 1..=4 {
        let seed = || zeroize::Zeroizing::new([number; 32]);
        api.known.signers.lock().push(TokenSigner::from_seed(seed()));
        let token = TokenSigner::from_seed(seed()).sign(&fixture.claims(&agent));
        // Not once is it refused.
        let client = Client::start(&agent, &fixture.relay(), &token).await;
        client.expect("a session").leave();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_made_up_keys_delays_a_real_new_one_and_no_more() {
    let api = TestApi::start().await;
    let mut config = slow();
    config.trust.keys_refetch_after_ms = 300;
    let fixture = api.fixture(config).await;
    let agent = Agent::new().await;
    let mut session = eventually(&fixture, &agent).await;
    let flood = Box::pin(async {
        let stranger = Agent::new().await;
        loop {
            let token = TokenSigner::generate().sign(&fixture.claims(&stranger));
            let refused = Client::start(&stranger, &fixture.relay(), &token).await.err();
            assert_eq!(refused.expect("refused").closed, Some(Code::TokenKeyUnknown));
        }
    });
    let honest = Box::pin(async {
        let seed = || zeroize::Zeroizing::new([7; 32]);
        api.known.signers.lock().push(TokenSigner::from_seed(seed()));
        let token = TokenSigner::from_seed(seed()).sign(&fixture.claims(&agent));
        loop {
            session.refresh(token.clone()).await.expect("sent");
            match session.event().await.expect("an event") {
                Event::TokenAccepted(_) => return,
                // The session goes on under the token that it has.
                Event::Refusal(refusal) => assert_eq!(refusal.known_code(), Some(Code::TokenKeyUnknown)),
                _ => {}
            }
        }
    });
    soon(async {
        tokio::select! {
            () = flood => {}
            () = honest => {}
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_ends_its_sessions_and_starts_no_other() {
    let api = TestApi::start().await;
    for _ in 0..5 {
        api.revoke(KeyId::generate());
    }
    let fixture = api.fixture(config()).await;
    let (doomed, spared) = (Agent::new().await, Agent::new().await);
    let mut first = eventually(&fixture, &doomed).await;
    let channel = fixture.channel(&doomed, &first).await;
    let follow = first.subscribe(channel.log(), Offset::ZERO, true).await;
    let mut claims = fixture.claims(&spared);
    claims.key = KeyId::generate();
    let second = fixture.session(&spared, &claims).await;

    api.revoke(fixture.key);
    assert_eq!(first.refused().await, Some(Code::TokenRevoked));
    assert_eq!(closed(&first.connection).await, Some(Code::TokenRevoked));
    assert_eq!(follow.until_end().await.gone.code(), Some(Code::TokenRevoked));
    let again = Client::start(&doomed, &fixture.relay(), &fixture.token(&doomed)).await;
    assert_eq!(again.err().expect("refused").closed, Some(Code::TokenRevoked));
    fixture.channel(&spared, &second).await;
    let mut second = second;
    let refreshed = fixture.claims(&spared);
    second.refresh(fixture.signer.sign(&refreshed)).await.expect("sent");
    assert_eq!(second.refused().await, Some(Code::TokenRevoked));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_was_ended_loses_its_session_and_gets_no_other() {
    let api = TestApi::start().await;
    let fixture = api.fixture(config()).await;
    let (doomed, spared) = (Agent::new().await, Agent::new().await);
    let mut first = eventually(&fixture, &doomed).await;
    let second = eventually(&fixture, &spared).await;
    api.end(doomed.id);
    assert_eq!(first.refused().await, Some(Code::TokenRevoked));
    assert_eq!(closed(&first.connection).await, Some(Code::TokenRevoked));
    let again = Client::start(&doomed, &fixture.relay(), &fixture.token(&doomed)).await;
    assert_eq!(again.err().expect("refused").closed, Some(Code::TokenRevoked));
    fixture.channel(&spared, &second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_api_was_reached_nothing_starts_and_the_node_is_not_ready() {
    let api = TestApi::start().await;
    api.known.down.store(true, Ordering::SeqCst);
    let fixture = api.fixture(config()).await;
    let agent = Agent::new().await;
    let refused = Client::start(&agent, &fixture.relay(), &fixture.token(&agent))
        .await
        .err();
    assert_eq!(refused.expect("refused").closed, Some(Code::TrustStale));
    let (status, body) = admin::get(&fixture, "/readyz").await;
    assert_eq!(status, 503);
    let checks: Vec<_> = body["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reason| &reason["check"])
        .collect();
    assert_eq!(checks, ["trust", "trust"]);
    api.known.down.store(false, Ordering::SeqCst);
    soon(async {
        while admin::get(&fixture, "/readyz").await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    eventually(&fixture, &agent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_end_is_no_answer() {
    let api = TestApi::start().await;
    api.known.oversize.store(true, Ordering::SeqCst);
    let fixture = api.fixture(config()).await;
    let agent = Agent::new().await;
    soon(async {
        while api.known.keys_asked.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let refused = Client::start(&agent, &fixture.relay(), &fixture.token(&agent))
        .await
        .err();
    assert_eq!(refused.expect("refused").closed, Some(Code::TrustStale));
}

/// The API's database is another one, as after a backup was put back: its feeds start over, with other entries under the
/// same numbers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_begins_anew_is_read_from_its_beginning_and_nothing_revoked_is_forgotten() {
    let api = TestApi::start().await;
    let fixture = api.fixture(config()).await;
    let (one, two, old) = (Agent::new().await, Agent::new().await, Agent::new().await);
    let mut by_key = eventually(&fixture, &one).await;
    let mut claims = fixture.claims(&two);
    claims.key = KeyId::generate();
    let mut by_agent = fixture.session(&two, &claims).await;

    let (old_key, someone) = (KeyId::generate(), || {
        AgentId::from_bytes(*KeyId::generate().as_bytes().repeat(2).first_chunk().expect("32 bytes"))
    });
    for _ in 0..6 {
        api.revoke(KeyId::generate());
        api.end(someone());
    }
    api.revoke(old_key);
    // Four pages, and one that is empty.
    api.asked_again(6).await;
    let mut before = fixture.claims(&old);
    before.key = old_key;
    let before = fixture.signer.sign(&before);
    let refused = Client::start(&old, &fixture.relay(), &before).await.err();
    assert_eq!(refused.expect("refused").closed, Some(Code::TokenRevoked));

    // All numbers are less than those that were read already, and there is more than one page.
    {
        let (mut keys, mut ended) = (api.known.revocations.lock(), api.known.ended.lock());
        *keys = (1..=2)
            .map(|sequence| revocation(sequence, KeyId::generate()))
            .collect();
        keys.push(revocation(3, fixture.key));
        *ended = (1..=2).map(|sequence| ending(sequence, someone())).collect();
        ended.push(ending(3, two.id));
    }
    assert_eq!(by_key.refused().await, Some(Code::TokenRevoked));
    assert_eq!(by_agent.refused().await, Some(Code::TokenRevoked));
    // The former database's revocations stay in force, for as long as a token can be.
    let refused = Client::start(&old, &fixture.relay(), &before).await.err();
    assert_eq!(refused.expect("refused").closed, Some(Code::TokenRevoked));

    // It is followed from there.
    let three = Agent::new().await;
    let mut claims = fixture.claims(&three);
    claims.key = KeyId::generate();
    let mut third = fixture.session(&three, &claims).await;
    api.revoke(claims.key);
    assert_eq!(third.refused().await, Some(Code::TokenRevoked));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_revocations_reach_every_node_and_a_token_holds_at_each() {
    let api = TestApi::start().await;
    let store = Arc::new(MemoryStore::new());
    let folder = tempfile::tempdir().expect("a folder");
    let mut nodes = Vec::new();
    for number in 1..=2 {
        let mut config = slow();
        config.secret_key_file = Some(folder.path().join(format!("{number}.key")));
        let source = api.source_with(&enrolment_key(number));
        nodes.push(api.fixture_over(config, store.clone(), source).await);
    }
    let (key, account) = (nodes[0].key, nodes[0].account);
    nodes[1].key = key;
    nodes[1].account = account;
    let agent = Agent::new().await;
    let mut first = eventually(&nodes[0], &agent).await;
    let mut second = eventually(&nodes[1], &agent).await;
    let channel = nodes[0].channel(&agent, &first).await;

    // The API signs with another key from now on: each node asks for it, once it sees a token of it.
    api.known
        .signers
        .lock()
        .push(TokenSigner::from_seed(zeroize::Zeroizing::new([7; 32])));
    let signer = TokenSigner::from_seed(zeroize::Zeroizing::new([7; 32]));
    // One token for all: its audience is the fleet's.
    let token = signer.sign(&nodes[0].claims(&agent));
    for client in [&mut first, &mut second] {
        soon(async {
            loop {
                client.refresh(token.clone()).await.expect("sent");
                match client.event().await.expect("an event") {
                    Event::TokenAccepted(_) => return,
                    Event::Refusal(refusal) => panic!("{refusal:?}"),
                    _ => {}
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
    assert_eq!(second.replay(channel.log(), Offset::ZERO).await.offsets(), [1]);

    api.revoke(key);
    assert_eq!(first.refused().await, Some(Code::TokenRevoked));
    assert_eq!(second.refused().await, Some(Code::TokenRevoked));
    for node in &nodes {
        let again = Client::start(&agent, &node.relay(), &token).await;
        assert_eq!(again.err().expect("refused").closed, Some(Code::TokenRevoked));
    }
}
