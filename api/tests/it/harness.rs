//! An API to ask, and how to ask it.

use crate::agent::TestAgent;
use crate::database::{Backend, Database};
use futures_util::future::join_all;
use reqwest::{Method, StatusCode, header};
use secrecy::SecretString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use skytale_api::config::Rate;
use skytale_api::{Api, ApiConfig, Clock, KeyEncryptionKey, Limits, Mode};
use skytale_proto::rest::{
    CreateKey, CreatedAccount, CreatedKey, Jwks, NonceRequest, NonceResponse, Problem, TokenResponse,
};
use skytale_proto::token::TokenVerifier;
use skytale_proto::{Code, rest};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use zeroize::Zeroizing;

pub(crate) const ADMIN: &str = "operator-secret-marker-0123456789abcdef";
pub(crate) const RELAY: &str = "relay-secret-marker-0123456789abcdefghij";
pub(crate) const URL: &str = "http://127.0.0.1:7600";
pub(crate) const AUDIENCE: &str = "test-fleet";
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(300);
pub(crate) const KEK: [u8; 32] = [0xa7; 32];

/// Runs one promise on both databases.
macro_rules! on_both {
    ($($(#[$doc:meta])* async fn $name:ident($backend:ident: Backend) $body:block)*) => {$(
        mod $name {
            use super::*;

            async fn promise($backend: Backend) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                $crate::harness::in_time(promise(Backend::Sqlite)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                $crate::harness::in_time(promise(Backend::Postgres)).await;
            }
        }
    )*};
}
pub(crate) use on_both;

/// Against hanging alone.
pub(crate) async fn in_time(promise: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(300), promise)
        .await
        .expect("it does not hang");
}

/// A production configuration whose rates are out of the way, and whose relay nodes are not missed while a test works.
pub(crate) fn config(database: &Database) -> ApiConfig {
    let plenty = Rate {
        per_second: 100_000,
        burst: 100_000,
    };
    ApiConfig {
        mode: Mode::Production,
        url: URL.to_owned(),
        audience: AUDIENCE.to_owned(),
        admin_secret: Some(SecretString::from(ADMIN)),
        relay_secret: Some(SecretString::from(RELAY)),
        key_encryption_key: Some(KeyEncryptionKey::from_bytes(Zeroizing::new(KEK))),
        relay_heartbeat: HEARTBEAT,
        limits: Limits {
            address_rate: plenty,
            key_rate: plenty,
            account_rate: plenty,
            relay_rate: plenty,
            attempt_rate: plenty,
            hashes_waiting_max: 512,
            ..Limits::default()
        },
        ..ApiConfig::dev(database.url.clone())
    }
}

/// An API on a database, with a clock that a test can move.
pub(crate) struct TestApi {
    pub database: Arc<Database>,
    pub client: Client,
    api: Api,
    offset_s: Arc<AtomicU64>,
}

impl TestApi {
    pub(crate) async fn start(backend: Backend) -> Self {
        Self::start_with(backend, |_| {}).await
    }

    pub(crate) async fn start_with(backend: Backend, change: impl FnOnce(&mut ApiConfig)) -> Self {
        let database = Arc::new(Database::new(backend).await);
        Self::on(database, Arc::default(), change).await
    }

    /// On a database that is there.
    pub(crate) async fn at(database: Database) -> Self {
        Self::on(Arc::new(database), Arc::default(), |_| {}).await
    }

    /// One more process on the same database, with the same clock.
    pub(crate) async fn another(&self) -> Self {
        self.another_with(|_| {}).await
    }

    pub(crate) async fn another_with(&self, change: impl FnOnce(&mut ApiConfig)) -> Self {
        Self::on(Arc::clone(&self.database), Arc::clone(&self.offset_s), change).await
    }

    async fn on(database: Arc<Database>, offset_s: Arc<AtomicU64>, change: impl FnOnce(&mut ApiConfig)) -> Self {
        let mut config = config(&database);
        let offset = Arc::clone(&offset_s);
        config.clock = Clock::from_fn(move || Clock::system().now_s() + offset.load(Ordering::Relaxed));
        change(&mut config);
        let api = Api::start(config).await.expect("the API starts");
        Self {
            client: Client::new(format!("http://{}", api.local_addr())),
            database,
            api,
            offset_s,
        }
    }

    /// Lets time pass.
    pub(crate) fn advance(&self, by: Duration) {
        self.offset_s.fetch_add(by.as_secs(), Ordering::Relaxed);
    }

    pub(crate) fn now_s(&self) -> u64 {
        Clock::system().now_s() + self.offset_s.load(Ordering::Relaxed)
    }

    pub(crate) async fn stop(self) -> Arc<Database> {
        self.api.shutdown().await;
        self.database
    }
}

impl std::ops::Deref for TestApi {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

/// Asks an API.
#[derive(Clone)]
pub(crate) struct Client {
    pub base: String,
    pub http: reqwest::Client,
}

/// Answer of the API.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: header::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok<T: DeserializeOwned>(self) -> T {
        assert!(self.status.is_success(), "{}", String::from_utf8_lossy(&self.body));
        serde_json::from_slice(&self.body).unwrap()
    }

    /// A success without a body.
    #[track_caller]
    pub(crate) fn done(self) {
        assert!(self.status.is_success(), "{}", String::from_utf8_lossy(&self.body));
        assert!(self.body.is_empty());
    }

    /// A refusal, which is a whole problem.
    #[track_caller]
    pub(crate) fn refused(self, code: Code) -> Self {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        assert!(!self.status.is_success(), "{text}");
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{text}");
        assert!(self.headers.contains_key("x-request-id"));
        let problem: Problem = serde_json::from_str(&text).unwrap();
        assert_eq!(problem.known_code(), Some(code), "{text}");
        assert_eq!(problem.status, self.status.as_u16());
        assert!(!problem.detail.is_empty() && !problem.help.is_empty());
        self
    }

    /// Returns the time to wait, in seconds.
    pub(crate) fn retry_after_s(&self) -> Option<u64> {
        self.headers.get(header::RETRY_AFTER)?.to_str().unwrap().parse().ok()
    }
}

/// Nothing to send.
pub(crate) const NOTHING: Option<&()> = None;

impl Client {
    pub(crate) fn new(base: String) -> Self {
        Self {
            base,
            http: http_client(),
        }
    }

    pub(crate) async fn try_call(
        &self,
        method: Method,
        path: &str,
        bearer: Option<&str>,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        Ok(Answer {
            status: response.status(),
            headers: response.headers().clone(),
            body: response.bytes().await?.to_vec(),
        })
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        bearer: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Answer {
        self.try_call(method, path, Some(bearer), body)
            .await
            .expect("an answer")
    }

    pub(crate) async fn get(&self, path: &str, bearer: &str) -> Answer {
        self.call(Method::GET, path, bearer, NOTHING).await
    }

    /// A refusal for asking too often, with many requests at once: one after the other, on a busy machine, they may come slowly enough.
    pub(crate) async fn too_many(&self, path: &str, bearer: &str) -> Answer {
        for _ in 0..10 {
            let answers = join_all((0..50).map(|_| self.get(path, bearer))).await;
            let refused = answers
                .into_iter()
                .find(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS);
            if let Some(refused) = refused {
                return refused;
            }
        }
        panic!("never refused");
    }

    pub(crate) async fn post(&self, path: &str, bearer: &str, body: &(impl Serialize + Sync)) -> Answer {
        self.call(Method::POST, path, bearer, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, bearer: &str, body: &(impl Serialize + Sync)) -> Answer {
        self.call(Method::PUT, path, bearer, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str, bearer: &str) -> Answer {
        self.call(Method::DELETE, path, bearer, NOTHING).await
    }

    /// A new account.
    pub(crate) async fn account(&self, org: &str) -> CreatedAccount {
        let body = serde_json::json!({ "org": org });
        self.post("/v1/accounts", ADMIN, &body).await.ok()
    }

    pub(crate) async fn create_key(&self, bearer: &str, scopes: &[&str], expires_s: Option<u64>) -> Answer {
        let request = CreateKey {
            label: "test".to_owned(),
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            expires_s,
        };
        self.post("/v1/keys", bearer, &request).await
    }

    /// A new key.
    pub(crate) async fn key(&self, bearer: &str, scopes: &[&str]) -> CreatedKey {
        self.create_key(bearer, scopes, None).await.ok()
    }

    pub(crate) async fn nonce(&self, bearer: &str, agent: &TestAgent) -> String {
        let request = NonceRequest { agent: agent.id() };
        let nonce: NonceResponse = self.post("/v1/nonce", bearer, &request).await.ok();
        nonce.nonce
    }

    pub(crate) async fn ask_token(&self, bearer: &str, agent: &TestAgent) -> Answer {
        let nonce = self.nonce(bearer, agent).await;
        self.post("/v1/token", bearer, &agent.request(&nonce)).await
    }

    /// A token.
    pub(crate) async fn token(&self, bearer: &str, agent: &TestAgent) -> TokenResponse {
        self.ask_token(bearer, agent).await.ok()
    }

    /// Returns the verifier with which relay nodes check tokens.
    pub(crate) async fn verifier(&self) -> TokenVerifier {
        TokenVerifier::new(&self.jwks().await, URL, AUDIENCE).unwrap()
    }

    pub(crate) async fn jwks(&self) -> Jwks {
        let answer = self.try_call(Method::GET, "/.well-known/jwks.json", None, NOTHING);
        answer.await.unwrap().ok()
    }

    pub(crate) async fn revocations(&self, query: &str) -> rest::Revocations {
        self.get(&format!("/v1/revocations{query}"), RELAY).await.ok()
    }

    pub(crate) async fn audit(&self, bearer: &str) -> Vec<rest::AuditEvent> {
        let page: rest::AuditPage = self.get("/v1/audit?limit=200", bearer).await.ok();
        page.events
    }
}

/// A client for loopback. Built beside other packages reqwest has TLS and wants a provider installed, though none is used.
fn http_client() -> reqwest::Client {
    // Only the first one of the process is installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}
