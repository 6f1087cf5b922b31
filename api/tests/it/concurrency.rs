//! Promises under many requests at once, of several processes.

use crate::agent::TestAgent;
use crate::database::{Backend, Database};
use crate::harness::{ADMIN, Answer, Client, TestApi, config, on_both};
use reqwest::StatusCode;
use serde_json::json;
use skytale_api::Api;
use skytale_proto::rest::{Agents, Channel, Keys};
use skytale_proto::{ChannelId, Code};
use std::sync::Arc;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

/// Sends all requests at once; gives the answers.
async fn at_once<F>(requests: Vec<F>) -> Vec<Answer>
where
    F: Future<Output = Answer> + Send + 'static,
{
    let start = Arc::new(Barrier::new(requests.len()));
    let mut tasks = JoinSet::new();
    for request in requests {
        let start = Arc::clone(&start);
        tasks.spawn(async move {
            start.wait().await;
            request.await
        });
    }
    tasks.join_all().await
}

fn good_and_bad(answers: Vec<Answer>) -> (Vec<Answer>, Vec<Answer>) {
    answers.into_iter().partition(|answer| answer.status.is_success())
}

/// Two processes, to be asked by turns.
fn turns(one: &TestApi, other: &TestApi) -> impl Iterator<Item = Client> + use<> {
    [one.client.clone(), other.client.clone()].into_iter().cycle()
}

on_both! {
    async fn a_nonce_is_used_once(backend: Backend) {
        let api = TestApi::start(backend).await;
        let other = api.another().await;
        let key = api.account("acme").await.key.secret;
        for _ in 0..5 {
            let agent = TestAgent::new();
            let request = agent.request(&api.nonce(&key, &agent).await);
            let ask = |client: Client| {
                let (key, request) = (key.clone(), request.clone());
                async move { client.post("/v1/token", &key, &request).await }
            };
            let answers = at_once(turns(&api, &other).take(16).map(ask).collect()).await;
            let (good, bad) = good_and_bad(answers);
            assert_eq!(good.len(), 1);
            for answer in bad {
                answer.refused(Code::NonceInvalid);
            }
        }
        other.stop().await;
        api.stop().await;
    }

    async fn a_name_is_given_once(backend: Backend) {
        let api = TestApi::start(backend).await;
        let other = api.another().await;
        let key = api.account("acme").await.key.secret;
        let ask = |client: Client| {
            let key = key.clone();
            let body = json!({ "name": "acme/a/b", "channel": ChannelId::generate() });
            async move { client.post("/v1/channels", &key, &body).await }
        };
        let answers = at_once(turns(&api, &other).take(24).map(ask).collect()).await;
        let (good, bad) = good_and_bad(answers);
        assert_eq!(good.len(), 1);
        let winner: Channel = good.into_iter().next().unwrap().ok();
        for answer in bad {
            answer.refused(Code::Conflict);
        }
        assert_eq!(api.get("/v1/channels/acme/a/b", &key).await.ok::<Channel>(), winner);
        other.stop().await;
        api.stop().await;
    }

    async fn an_org_is_given_once(backend: Backend) {
        let api = TestApi::start(backend).await;
        let other = api.another().await;
        let ask = |client: Client| async move { client.post("/v1/accounts", ADMIN, &json!({ "org": "acme" })).await };
        let answers = at_once(turns(&api, &other).take(8).map(ask).collect()).await;
        let statuses: Vec<StatusCode> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses.iter().filter(|status| status.is_success()).count(), 1, "{statuses:?}");
        assert!(statuses.iter().all(|status| status.is_success() || *status == StatusCode::CONFLICT), "{statuses:?}");
        other.stop().await;
        api.stop().await;
    }

    async fn an_agent_is_bound_to_one_account(backend: Backend) {
        let api = TestApi::start(backend).await;
        let other = api.another().await;
        let keys = [api.account("one").await.key.secret, api.account("two").await.key.secret];
        for _ in 0..5 {
            let agent = TestAgent::new();
            let mut requests = Vec::new();
            for (client, key) in turns(&api, &other).take(2).zip(keys.clone()) {
                let request = agent.request(&client.nonce(&key, &agent).await);
                requests.push(async move { client.post("/v1/token", &key, &request).await });
            }
            let answers = at_once(requests).await;
            let (good, bad) = good_and_bad(answers);
            assert_eq!((good.len(), bad.len()), (1, 1));
            for answer in bad {
                answer.refused(Code::AgentTaken);
            }
        }
        let mut bound = 0;
        for key in &keys {
            bound += api.get("/v1/agents", key).await.ok::<Agents>().agents.len();
        }
        assert_eq!(bound, 5);
        other.stop().await;
        api.stop().await;
    }

    async fn a_quota_holds(backend: Backend) {
        let api = TestApi::start_with(backend, |config| config.limits.keys_max = 5).await;
        let other = api.another_with(|config| config.limits.keys_max = 5).await;
        let key = api.account("acme").await.key.secret;
        let ask = |client: Client| {
            let key = key.clone();
            async move { client.create_key(&key, &["relay:append"], None).await }
        };
        let answers = at_once(turns(&api, &other).take(12).map(ask).collect()).await;
        let (good, bad) = good_and_bad(answers);
        assert_eq!(good.len(), 4);
        for answer in bad {
            answer.refused(Code::KeyQuota);
        }
        assert_eq!(api.get("/v1/keys", &key).await.ok::<Keys>().keys.len(), 5);
        other.stop().await;
        api.stop().await;
    }

    async fn revocations_are_dense_and_in_order_for_who_follows(backend: Backend) {
        const KEYS: u64 = 24;
        let api = TestApi::start(backend).await;
        let other = api.another().await;
        let key = api.account("acme").await.key.secret;
        let mut ids = Vec::new();
        for _ in 0..KEYS {
            ids.push(api.key(&key, &["relay:append"]).await.key.id);
        }
        let follower = tokio::spawn({
            let client = api.client.clone();
            async move {
                let mut seen: Vec<u64> = Vec::new();
                while seen.len() < KEYS as usize {
                    let after = seen.last().copied().unwrap_or(0);
                    let page = client.revocations(&format!("?after={after}&limit=7")).await;
                    assert_eq!(page.next, page.revocations.last().map_or(after, |last| last.sequence));
                    seen.extend(page.revocations.iter().map(|revocation| revocation.sequence));
                }
                seen
            }
        });
        let revoke = |(client, id): (Client, _)| {
            let key = key.clone();
            async move { client.delete(&format!("/v1/keys/{id}"), &key).await }
        };
        // Each is revoked twice: the feed has it once.
        let requests = turns(&api, &other).zip(ids.iter().chain(&ids).copied()).map(revoke).collect();
        for answer in at_once(requests).await {
            answer.done();
        }
        assert_eq!(follower.await.unwrap(), (1..=KEYS).collect::<Vec<u64>>());
        let all = api.revocations("").await;
        let mut revoked: Vec<_> = all.revocations.iter().map(|revocation| revocation.key).collect();
        revoked.sort();
        ids.sort();
        assert_eq!(revoked, ids);
        other.stop().await;
        api.stop().await;
    }

    async fn processes_that_start_at_once_agree_on_one_signing_key(backend: Backend) {
        let database = Database::new(backend).await;
        let mut tasks = JoinSet::new();
        for _ in 0..4 {
            tasks.spawn(Api::start(config(&database)));
        }
        let apis: Vec<Api> = tasks.join_all().await.into_iter().map(|api| api.expect("the API starts")).collect();
        let mut sets = Vec::new();
        for api in &apis {
            sets.push(Client::new(format!("http://{}", api.local_addr())).jwks().await);
        }
        assert!(sets.iter().all(|set| *set == sets[0] && set.keys.len() == 1));
        for api in apis {
            api.shutdown().await;
        }
    }

    async fn rotations_at_once_leave_one_key_that_signs(backend: Backend) {
        let api = TestApi::start(backend).await;
        let other = api.another().await;
        let ask = |client: Client| async move { client.post("/v1/signing-keys", ADMIN, &json!({})).await };
        let answers = at_once(turns(&api, &other).take(4).map(ask).collect()).await;
        let rotated = answers.iter().filter(|answer| answer.status.is_success()).count();
        assert!(rotated >= 1);
        for answer in answers.into_iter().filter(|answer| !answer.status.is_success()) {
            answer.refused(Code::Conflict);
        }
        let fresh = api.another().await;
        assert_eq!(fresh.jwks().await.keys.len(), rotated + 1);
        fresh.stop().await;
        other.stop().await;
        api.stop().await;
    }
}
