//! An API for tests, over HTTP from a real server: keys, revocations and the relay directory, as far as a relay node asks.

use crate::client::{Agent, Client, soon};
use crate::fixture::{Fixture, now_s};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use data_encoding::HEXLOWER;
use parking_lot::Mutex;
use skytale_log_store::{LogStore, MemoryStore};
use skytale_proto::rest::{
    self, AgentRevocation, Heartbeat, HeartbeatTaken, Jwks, Problem, Relay, Revocation, Revocations, Twin,
};
use skytale_proto::token::TokenSigner;
use skytale_proto::{AgentId, Code, EndpointId, EnrolmentId, KeyId};
use skytale_relay_node::{RelayConfig, RelaySecret, TrustSource};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

const SECRET: &str = "relay secret of the test";

/// State of the test's API.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) signers: Mutex<Vec<TokenSigner>>,
    pub(crate) revocations: Mutex<Vec<Revocation>>,
    pub(crate) ended: Mutex<Vec<AgentRevocation>>,
    /// Nodes that registered with the shared secret.
    pub(crate) relays: Mutex<HashMap<EndpointId, Relay>>,
    /// Messages of enrolled nodes, in order.
    pub(crate) said: Mutex<Vec<Said>>,
    /// Refuses heartbeats and revocations of enrolled nodes with this.
    pub(crate) refusing: Mutex<Option<(StatusCode, Code)>>,
    /// Interval in the answer to a heartbeat.
    pub(crate) next_ms: AtomicU64,
    /// Whether another process has the place of every node.
    pub(crate) taken_by: Mutex<bool>,
    /// Its report on another process with a node's key.
    pub(crate) twin: Mutex<Option<Twin>>,
    pub(crate) heartbeats_asked: AtomicUsize,
    pub(crate) down: AtomicBool,
    pub(crate) oversize: AtomicBool,
    /// Distance of its clock, in seconds, as its answers show it, positive if it is ahead.
    pub(crate) ahead_s: AtomicI64,
    /// Its answers come out of a cache.
    pub(crate) cached: AtomicBool,
    pub(crate) keys_asked: AtomicUsize,
    pub(crate) revocations_asked: AtomicUsize,
}

/// Message of an enrolled node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Said {
    /// It is there.
    Heartbeat(EndpointId, Box<Heartbeat>),
    /// It is gone.
    Removed(EndpointId),
}

pub(crate) struct TestApi {
    pub(crate) url: String,
    pub(crate) known: Arc<Known>,
}

impl TestApi {
    pub(crate) async fn start() -> Self {
        let known = Arc::new(Known::default());
        known.signers.lock().push(TokenSigner::generate());
        known.next_ms.store(100, Ordering::SeqCst);
        let routes = Router::new()
            .route("/.well-known/jwks.json", get(keys))
            .route("/v1/revocations", get(revocations))
            .route("/v1/relays/{endpoint}", put(register).delete(remove))
            .route("/v1/relays/{endpoint}/heartbeat", put(heartbeat))
            .layer(axum::middleware::map_response_with_state(known.clone(), dated))
            .with_state(known.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url, known }
    }

    /// Sets its clock: so many seconds ahead of the machine's.
    pub(crate) fn set_clock(&self, ahead_s: i64) {
        self.known.ahead_s.store(ahead_s, Ordering::SeqCst);
    }

    /// Returns a source with the secret that all nodes share.
    pub(crate) fn source(&self) -> TrustSource {
        self.source_with(SECRET)
    }

    pub(crate) fn source_with(&self, secret: &str) -> TrustSource {
        TrustSource::Http {
            api_url: self.url.clone(),
            relay_secret: RelaySecret::new(secret),
        }
    }

    pub(crate) fn revoke(&self, key: KeyId) {
        let mut revocations = self.known.revocations.lock();
        let sequence = revocations.len() as u64 + 1;
        revocations.push(revocation(sequence, key));
    }

    pub(crate) fn end(&self, agent: AgentId) {
        let mut ended = self.known.ended.lock();
        let sequence = ended.len() as u64 + 1;
        ended.push(ending(sequence, agent));
    }

    /// Waits until nodes have asked for revocations so often again, so that they know what was revoked before.
    pub(crate) async fn asked_again(&self, times: usize) {
        let wanted = self.known.revocations_asked.load(Ordering::SeqCst) + times;
        soon(async {
            while self.known.revocations_asked.load(Ordering::SeqCst) < wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// A node that trusts this API, with a signer that the API has just begun to use.
    pub(crate) async fn fixture(&self, config: RelayConfig) -> Fixture {
        self.fixture_over(config, Arc::new(MemoryStore::new()), self.source())
            .await
    }

    pub(crate) async fn fixture_over(
        &self,
        config: RelayConfig,
        store: Arc<dyn LogStore>,
        source: TrustSource,
    ) -> Fixture {
        let signer = TokenSigner::from_seed(seed());
        let fixture = Fixture::trusting(config, store, signer, source).await;
        let again = TokenSigner::from_seed(seed());
        let mut signers = self.known.signers.lock();
        if signers.iter().all(|signer| signer.jwk() != again.jwk()) {
            signers.push(again);
        }
        drop(signers);
        fixture
    }

    /// Waits until what enrolled nodes have said so far is as wanted.
    pub(crate) async fn hears<T>(&self, wanted: impl Fn(&[Said]) -> Option<T>) -> T {
        soon(async {
            loop {
                if let Some(found) = wanted(&self.known.said.lock()) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    /// Waits for a heartbeat after the first `skip`.
    pub(crate) async fn heartbeat(&self, skip: usize, wanted: impl Fn(&Heartbeat) -> bool) -> Heartbeat {
        self.hears(|said| {
            said.iter().skip(skip).find_map(|said| match said {
                Said::Heartbeat(_, heartbeat) if wanted(heartbeat) => Some(Heartbeat::clone(heartbeat)),
                _ => None,
            })
        })
        .await
    }
}

pub(crate) fn revocation(sequence: u64, key: KeyId) -> Revocation {
    let revoked_s = now_s();
    Revocation {
        sequence,
        key,
        revoked_s,
    }
}

pub(crate) fn ending(sequence: u64, agent: AgentId) -> AgentRevocation {
    let ended_s = now_s();
    AgentRevocation {
        sequence,
        agent,
        ended_s,
    }
}

/// The key of the enrolment with this number.
pub(crate) fn enrolment_key(number: u8) -> String {
    let id = EnrolmentId::from_bytes([number; 16]);
    format!(
        "{}{}_SECRET",
        rest::ENROLMENT_KEY_PREFIX,
        HEXLOWER.encode(id.as_bytes())
    )
}

/// One key for the test API and the fixture, which each need a signer of their own.
pub(crate) fn seed() -> zeroize::Zeroizing<[u8; 32]> {
    zeroize::Zeroizing::new([42; 32])
}

/// An answer with the time of the test's API.
async fn dated(State(known): State<Arc<Known>>, mut response: Response) -> Response {
    let now_s = now_s().saturating_add_signed(known.ahead_s.load(Ordering::SeqCst));
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(now_s));
    let headers = response.headers_mut();
    headers.insert(header::DATE, date.parse().expect("a header"));
    if known.cached.load(Ordering::SeqCst) {
        headers.insert(header::AGE, HeaderValue::from_static("3600"));
    }
    response
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

fn bearer(headers: &HeaderMap) -> &str {
    let value = headers.get("authorization").and_then(|value| value.to_str().ok());
    value.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or("")
}

fn problem(status: StatusCode, code: Code) -> Box<Response> {
    let problem = Problem::new(code, status.as_u16(), "the test's API refuses");
    Box::new((status, Json(problem)).into_response())
}

/// The enrolment that asks, or why it may not.
fn enrolled(known: &Known, headers: &HeaderMap) -> Result<EnrolmentId, Box<Response>> {
    let Some(enrolment) = rest::enrolment_of(bearer(headers)) else {
        return Err(problem(StatusCode::UNAUTHORIZED, Code::EnrolmentUnknown));
    };
    match *known.refusing.lock() {
        Some((status, code)) => Err(problem(status, code)),
        None => Ok(enrolment),
    }
}

async fn revocations(
    State(known): State<Arc<Known>>,
    Query(query): Query<HashMap<String, u64>>,
    headers: HeaderMap,
) -> Response {
    if known.down.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if bearer(&headers) != SECRET
        && let Err(refusal) = enrolled(&known, &headers)
    {
        return *refusal;
    }
    known.revocations_asked.fetch_add(1, Ordering::SeqCst);
    let keys = page(&known.revocations.lock(), |one| one.sequence, query["after"]);
    let agents = page(&known.ended.lock(), |one| one.sequence, query["agents_after"]);
    let page = Revocations {
        revocations: keys.0,
        next: keys.1,
        start_over: keys.2,
        agents: agents.0,
        agents_next: agents.1,
        agents_start_over: agents.2,
    };
    Json(page).into_response()
}

/// A page of two, so that there is more than one; where to ask on; and whether the feed starts over.
fn page<T: Clone>(all: &[T], sequence: impl Fn(&T) -> u64, after: u64) -> (Vec<T>, u64, bool) {
    let start_over = after > all.last().map_or(0, &sequence);
    let after = if start_over { 0 } else { after };
    let page: Vec<T> = all
        .iter()
        .filter(|one| sequence(one) > after)
        .take(2)
        .cloned()
        .collect();
    let next = page.last().map_or(after, sequence);
    (page, next, start_over)
}

async fn register(
    State(known): State<Arc<Known>>,
    Path(endpoint): Path<EndpointId>,
    headers: HeaderMap,
    Json(relay): Json<Relay>,
) -> StatusCode {
    if bearer(&headers) != SECRET || relay.endpoint != endpoint {
        return StatusCode::FORBIDDEN;
    }
    known.relays.lock().insert(endpoint, relay);
    StatusCode::NO_CONTENT
}

async fn heartbeat(
    State(known): State<Arc<Known>>,
    Path(endpoint): Path<EndpointId>,
    headers: HeaderMap,
    Json(heartbeat): Json<Heartbeat>,
) -> Response {
    known.heartbeats_asked.fetch_add(1, Ordering::SeqCst);
    if known.down.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let enrolment = match enrolled(&known, &headers) {
        Ok(enrolment) => enrolment,
        Err(refusal) => return *refusal,
    };
    let proof = HEXLOWER.decode(heartbeat.proof.as_bytes()).unwrap_or_default();
    let message = rest::registration_message(&enrolment, &endpoint);
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, endpoint.as_bytes());
    if key.verify(&message, &proof).is_err() {
        return StatusCode::FORBIDDEN.into_response();
    }
    if *known.taken_by.lock() {
        return *problem(StatusCode::CONFLICT, Code::RelayTwin);
    }
    known.said.lock().push(Said::Heartbeat(endpoint, Box::new(heartbeat)));
    let next_ms = known.next_ms.load(Ordering::SeqCst);
    let expires_ms = next_ms * 3;
    let taken = HeartbeatTaken {
        next_ms,
        expires_ms,
        twin: known.twin.lock().clone(),
    };
    Json(taken).into_response()
}

async fn remove(State(known): State<Arc<Known>>, Path(endpoint): Path<EndpointId>, headers: HeaderMap) -> Response {
    match enrolled(&known, &headers) {
        Ok(_) => {
            known.said.lock().push(Said::Removed(endpoint));
            StatusCode::NO_CONTENT.into_response()
        }
        Err(refusal) => *refusal,
    }
}

/// A session, once the node has heard from the API.
pub(crate) async fn eventually(fixture: &Fixture, agent: &Agent) -> Client {
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
