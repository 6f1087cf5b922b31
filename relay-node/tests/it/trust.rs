//! Keys, revocations and the relay directory, over HTTP from a real server.

use crate::admin;
use crate::client::{Agent, Client, closed, soon};
use crate::fixture::{AUDIENCE, Fixture, ISSUER, config};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use parking_lot::Mutex;
use skytale_log_store::MemoryStore;
use skytale_proto::rest::{AgentRevocation, Jwks, Relay, Revocation, Revocations};
use skytale_proto::token::TokenSigner;
use skytale_proto::{AgentId, Code, EndpointId, KeyId, Offset};
use skytale_relay_node::{RelayConfig, RelaySecret, TrustSource};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const SECRET: &str = "relay secret of the test";

/// What the API of the test knows.
#[derive(Default)]
struct Known {
    signers: Mutex<Vec<TokenSigner>>,
    revocations: Mutex<Vec<Revocation>>,
    ended: Mutex<Vec<AgentRevocation>>,
    relays: Mutex<HashMap<EndpointId, Relay>>,
    down: AtomicBool,
    oversize: AtomicBool,
    keys_asked: AtomicUsize,
}

struct TestApi {
    url: String,
    known: Arc<Known>,
}

impl TestApi {
    async fn start() -> Self {
        let known = Arc::new(Known::default());
        known.signers.lock().push(TokenSigner::generate());
        let routes = Router::new()
            .route("/.well-known/jwks.json", get(keys))
            .route("/v1/revocations", get(revocations))
            .route("/v1/relays/{endpoint}", put(register))
            .with_state(known.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url, known }
    }

    fn source(&self) -> TrustSource {
        TrustSource::Http {
            api_url: self.url.clone(),
            relay_secret: RelaySecret::new(SECRET),
        }
    }

    fn revoke(&self, key: KeyId) {
        let mut revocations = self.known.revocations.lock();
        let sequence = revocations.len() as u64 + 1;
        let revoked_s = crate::fixture::now_s();
        revocations.push(Revocation {
            sequence,
            key,
            revoked_s,
        });
    }

    fn end(&self, agent: AgentId) {
        let mut ended = self.known.ended.lock();
        let sequence = ended.len() as u64 + 1;
        let ended_s = crate::fixture::now_s();
        ended.push(AgentRevocation {
            sequence,
            agent,
            ended_s,
        });
    }

    /// A node that trusts this API, with a signer that the API has just begun to use.
    async fn fixture(&self, config: RelayConfig) -> Fixture {
        let signer = TokenSigner::generate();
        let fixture = Fixture::trusting(config, Arc::new(MemoryStore::new()), signer, self.source()).await;
        let again = TokenSigner::from_seed(seed());
        self.known.signers.lock().push(again);
        Fixture {
            signer: TokenSigner::from_seed(seed()),
            ..fixture
        }
    }
}

/// One key for the test API and the fixture, which each need a signer of their own.
fn seed() -> zeroize::Zeroizing<[u8; 32]> {
    zeroize::Zeroizing::new([42; 32])
}

async fn keys(State(known): State<Arc<Known>>) -> Response {
    known.keys_asked.fetch_add(1, Ordering::SeqCst);
    if known.down.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if known.oversize.load(Ordering::SeqCst) {
        return vec![b' '; 4 * 1024 * 1024].into_response();
    }
    let keys = known.signers.lock().iter().map(TokenSigner::jwk).collect();
    Json(Jwks { keys }).into_response()
}

fn authorized(headers: &HeaderMap) -> bool {
    headers
        .get("authorization")
        .is_some_and(|value| value == &format!("Bearer {SECRET}"))
}

async fn revocations(
    State(known): State<Arc<Known>>,
    Query(query): Query<HashMap<String, u64>>,
    headers: HeaderMap,
) -> Response {
    if known.down.load(Ordering::SeqCst) || !authorized(&headers) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let after = query["after"];
    let all = known.revocations.lock();
    // Pages of two, so that there is more than one.
    let page: Vec<_> = all.iter().filter(|one| one.sequence > after).take(2).cloned().collect();
    let next = page.last().map_or(after, |last| last.sequence);
    let agents_after = query["agents_after"];
    let ended = known.ended.lock();
    let agents: Vec<_> = ended
        .iter()
        .filter(|one| one.sequence > agents_after)
        .take(2)
        .cloned()
        .collect();
    let agents_next = agents.last().map_or(agents_after, |last| last.sequence);
    let page = Revocations {
        revocations: page,
        next,
        agents,
        agents_next,
        ..Revocations::default()
    };
    Json(page).into_response()
}

async fn register(
    State(known): State<Arc<Known>>,
    Path(endpoint): Path<EndpointId>,
    headers: HeaderMap,
    Json(relay): Json<Relay>,
) -> StatusCode {
    if !authorized(&headers) || relay.endpoint != endpoint {
        return StatusCode::FORBIDDEN;
    }
    known.relays.lock().insert(endpoint, relay);
    StatusCode::NO_CONTENT
}

/// A session, once the node has heard from the API.
async fn eventually(fixture: &Fixture, agent: &Agent) -> Client {
    soon(async {
        loop {
            match Client::start(agent, &fixture.relay(), &fixture.token(agent)).await {
                Ok(client) => return client,
                Err(refused) => assert_eq!(refused.closed, Some(Code::TrustStale)),
            }
        }
    })
    .await
}

fn slow() -> RelayConfig {
    let mut config = config();
    config.trust.keys_every_ms = 3_600_000;
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_not_known_is_asked_for_and_not_too_often() {
    let api = TestApi::start().await;
    let mut config = slow();
    config.trust.keys_refetch_after_ms = 3_600_000;
    let fixture = api.fixture(config).await;
    let agent = Agent::new().await;
    // The API rotated its key after the node's first fetch, or before it: both end in a session.
    let client = eventually(&fixture, &agent).await;
    client.leave();
    let stranger = TokenSigner::generate();
    let mut claims = fixture.claims(&agent);
    claims.iss = ISSUER.into();
    claims.aud = AUDIENCE.into();
    for _ in 0..20 {
        let refused = Client::start(&agent, &fixture.relay(), &stranger.sign(&claims))
            .await
            .err();
        assert_eq!(refused.expect("refused").closed, Some(Code::TokenSignature));
    }
    let asked = api.known.keys_asked.load(Ordering::SeqCst);
    assert!(asked <= 3, "asked {asked} times");
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
async fn without_the_api_sessions_go_on_and_none_starts() {
    let api = TestApi::start().await;
    let mut config = config();
    config.trust.refuse_after_ms = 300;
    let fixture = api.fixture(config).await;
    let agent = Agent::new().await;
    let client = eventually(&fixture, &agent).await;
    api.known.down.store(true, Ordering::SeqCst);
    let other = Agent::new().await;
    let token = fixture.token(&other);
    soon(async {
        loop {
            match Client::start(&other, &fixture.relay(), &token).await {
                Ok(client) => client.leave(),
                Err(refused) => {
                    assert_eq!(refused.closed, Some(Code::TrustStale));
                    assert!(refused.refusal.expect("a refusal").retryable);
                    break;
                }
            }
        }
    })
    .await;
    fixture.channel(&agent, &client).await;
    api.known.down.store(false, Ordering::SeqCst);
    eventually(&fixture, &other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_revocations_are_old_is_not_ready_and_says_so_before_it_refuses() {
    let api = TestApi::start().await;
    let mut config = config();
    config.trust.revocations_stale_after_ms = 1_000;
    let fixture = api.fixture(config).await;
    let ready = async |status| {
        soon(async {
            loop {
                let (now, body) = admin::get(&fixture, "/readyz").await;
                if now == status {
                    return body;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    };
    ready(200).await;
    let agent = Agent::new().await;
    let client = eventually(&fixture, &agent).await;

    api.known.down.store(true, Ordering::SeqCst);
    let body = ready(503).await;
    let reasons = body["reasons"].as_array().expect("reasons");
    assert_eq!((reasons.len(), &reasons[0]["check"]), (1, &"trust".into()), "{body}");
    let detail = reasons[0]["detail"].as_str().expect("text");
    assert!(detail.starts_with("the API has not told revocations for "), "{detail}");
    // Whoever routes agents here knows first; those who come all the same are served for a while.
    fixture.channel(&agent, &client).await;
    let other = Agent::new().await;
    let token = fixture.token(&other);
    let late = Client::start(&other, &fixture.relay(), &token).await;
    late.expect("not refused yet").leave();

    api.known.down.store(false, Ordering::SeqCst);
    let body = ready(200).await;
    assert_eq!(body["reasons"], serde_json::json!([]));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_is_in_the_relay_directory() {
    let api = TestApi::start().await;
    let mut config = config();
    config.region = 3;
    config.advertise = vec!["192.0.2.7:4433".into()];
    let fixture = api.fixture(config).await;
    let id = fixture.node.endpoint_id();
    soon(async {
        while !api.known.relays.lock().contains_key(&id) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let relay = api.known.relays.lock()[&id].clone();
    assert_eq!((relay.region, relay.addresses), (3, vec!["192.0.2.7:4433".to_owned()]));
}
