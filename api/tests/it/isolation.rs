//! One account, or one stranger, cannot slow the API noticeably for others.

use crate::agent::TestAgent;
use crate::database::Backend;
use crate::harness::{Client, TestApi, on_both};
use reqwest::StatusCode;
use skytale_api::config::Rate;
use skytale_proto::Code;
use skytale_proto::rest::{AuditPage, NonceRequest};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::task::JoinSet;

/// A wrong key with the id of this one.
fn guess_at(key: &str) -> String {
    format!("sk_live_{}_{}", &key[8..40], "A".repeat(52))
}

/// A client that sends requests all the time, several at once.
struct Flood {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Flood {
    fn start<F: Future<Output = ()> + Send + 'static>(
        client: &Client,
        ask: impl Fn(Client) -> F + Clone + Send + 'static,
    ) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for _ in 0..16 {
            let (client, ask, stop, rounds) = (client.clone(), ask.clone(), stop.clone(), rounds.clone());
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    ask(client.clone()).await;
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { stop, rounds, tasks }
    }

    /// Waits until it has asked so many times more.
    async fn goes_on(&self, more: usize) {
        let wanted = self.rounds.load(Ordering::Relaxed) + more;
        while self.rounds.load(Ordering::Relaxed) < wanted {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(task) = self.tasks.join_next().await {
            task.expect("no panic");
        }
    }
}

on_both! {
    async fn keys_that_are_made_and_revoked_all_the_time_leave_others_theirs(backend: Backend) {
        let api = TestApi::start_with(backend, |config| {
            config.limits.hashes_waiting_max = 8;
            config.limits.hashes_max = 1;
        })
        .await;
        let mallory = api.account("mallory").await.key.secret;
        let victim = api.account("victim").await.key.secret;
        assert!(api.get("/v1/agents", &victim).await.status.is_success());
        let flood = Flood::start(&api.client, move |client| {
            let mallory = mallory.clone();
            async move {
                let made = client.create_key(&mallory, &["audit:read"], None).await;
                if made.status.is_success() {
                    let made: skytale_proto::rest::CreatedKey = made.ok();
                    client.delete(&format!("/v1/keys/{}", made.key.id), &mallory).await.done();
                } else {
                    made.refused(Code::ApiBusy);
                }
            }
        });
        for _ in 0..100 {
            let answer = api.get("/v1/agents", &victim).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", String::from_utf8_lossy(&answer.body));
        }
        flood.goes_on(1).await;
        // And one that was not seen before has its turn at a hash.
        let fresh = api.account("fresh").await.key.secret;
        assert!(api.get("/v1/agents", &fresh).await.status.is_success());
        flood.stop().await;
        api.stop().await;
    }

    async fn who_may_make_no_more_keys_costs_no_hash(backend: Backend) {
        let api = TestApi::start_with(backend, |config| {
            config.limits.keys_max = 1;
            config.limits.hashes_max = 1;
            config.limits.hashes_waiting_max = 1;
        })
        .await;
        let mallory = api.account("mallory").await.key.secret;
        assert!(api.get("/v1/agents", &mallory).await.status.is_success());
        let flood = Flood::start(&api.client, move |client| {
            let mallory = mallory.clone();
            // With one place to wait, one that hashed would be refused: too many wait.
            async move { drop(client.create_key(&mallory, &["audit:read"], None).await.refused(Code::KeyQuota)) }
        });
        flood.goes_on(64).await;
        flood.stop().await;
        api.stop().await;
    }

    async fn wrong_keys_for_one_account_delay_no_other(backend: Backend) {
        let api = TestApi::start_with(backend, |config| config.limits.hashes_waiting_max = 8).await;
        let attacked = api.account("attacked").await.key.secret;
        let guess = guess_at(&attacked);
        let mut others = Vec::new();
        for number in 0..5 {
            others.push(api.account(&format!("other{number}")).await.key.secret);
        }
        let flood = Flood::start(&api.client, move |client| {
            let guess = guess.clone();
            async move {
                let answer = client.get("/v1/agents", &guess).await;
                assert!(matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::SERVICE_UNAVAILABLE));
            }
        });
        flood.goes_on(4).await;
        for other in &others {
            let answer = api.get("/v1/agents", other).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", String::from_utf8_lossy(&answer.body));
        }
        flood.stop().await;
        api.stop().await;
    }

    async fn a_good_key_is_let_in_from_where_wrong_ones_came(backend: Backend) {
        let slow = Rate { per_second: 1, burst: 5 };
        let api = TestApi::start_with(backend, |config| config.limits.attempt_rate = slow).await;
        let victim = api.account("victim").await.key.secret;
        let guess = format!("sk_live_{}_{}", "0".repeat(32), "A".repeat(52));
        api.too_many("/v1/agents", &guess).await;
        assert!(api.get("/v1/agents", &victim).await.status.is_success(), "its first use");
        // Guesses at a key that is there are not tried at will for that.
        let other = api.account("other").await.key.secret;
        api.too_many("/v1/agents", &guess_at(&other)).await;
        api.stop().await;
    }

    async fn refused_proofs_fill_no_database(backend: Backend) {
        const REFUSED: usize = 180;
        let api = TestApi::start(backend).await;
        let key = api.account("acme").await.key.secret;
        let agent = TestAgent::new();
        for _ in 0..REFUSED {
            let nonce = "00".repeat(32);
            api.post("/v1/token", &key, &agent.request(&nonce)).await.refused(Code::NonceInvalid);
        }
        let page: AuditPage = api.get("/v1/audit?limit=200", &key).await.ok();
        let written: Vec<_> = page.events.iter().filter(|event| event.action == "token.refuse").collect();
        // One row for each day on which the test ran, and not each of them written into it.
        assert!((1..=2).contains(&written.len()), "{written:?}");
        let counted: u64 = written.iter().map(|event| event.count).sum();
        assert!((1..REFUSED as u64).contains(&counted), "{written:?}");
        assert!(written.iter().all(|event| event.at_s <= event.last_at_s));
        // Actions that succeed are written down all the same.
        api.token(&key, &agent).await;
        let page: AuditPage = api.get("/v1/audit?limit=200", &key).await.ok();
        assert!(page.events.iter().any(|event| event.action == "token.issue"));
        api.stop().await;
    }

    async fn tokens_of_an_agent_are_one_row_a_day(backend: Backend) {
        const TOKENS: u64 = 12;
        let api = TestApi::start(backend).await;
        let key = api.account("acme").await.key.secret;
        let (agent, other) = (TestAgent::new(), TestAgent::new());
        for _ in 0..TOKENS {
            api.token(&key, &agent).await;
            api.token(&key, &other).await;
        }
        let page: AuditPage = api.get("/v1/audit?limit=200", &key).await.ok();
        for agent in [&agent, &other] {
            let target = format!("agent:{}", agent.id());
            let rows: Vec<_> =
                page.events.iter().filter(|event| event.action == "token.issue" && event.target == target).collect();
            // Two if midnight fell into the test.
            assert!((1..=2).contains(&rows.len()), "{rows:?}");
            assert_eq!(rows.iter().map(|event| event.count).sum::<u64>(), TOKENS);
        }
        api.stop().await;
    }

    async fn a_key_that_gives_no_tokens_takes_no_nonces(backend: Backend) {
        let api = TestApi::start(backend).await;
        let key = api.account("acme").await.key.secret;
        let reader = api.key(&key, &["audit:read"]).await.secret;
        let request = NonceRequest { agent: TestAgent::new().id() };
        api.post("/v1/nonce", &reader, &request).await.refused(Code::KeyScope);
        api.token(&key, &TestAgent::new()).await;
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_do_nothing_keep_nobody_out() {
    const PLACES: usize = 32;
    let api = TestApi::start_with(Backend::Sqlite, |config| {
        config.limits.connections_max = PLACES;
        // Longer than the test may take: none of them ends by itself.
        config.limits.head_timeout = std::time::Duration::from_secs(3_600);
    })
    .await;
    let address = api.client.base.trim_start_matches("http://").to_owned();
    let mut idle = Vec::new();
    for _ in 0..3 * PLACES {
        idle.push(tokio::net::TcpStream::connect(&address).await.expect("connected"));
    }
    let key = api.account("acme").await.key.secret;
    for _ in 0..10 {
        let fresh = Client::new(api.client.base.clone());
        assert!(fresh.get("/v1/agents", &key).await.status.is_success());
    }
    drop(idle);
    api.stop().await;
}
