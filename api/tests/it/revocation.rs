//! A revoked key and an ended agent are of no use any more, anywhere.

use crate::agent::TestAgent;
use crate::database::Backend;
use crate::harness::{ADMIN, TestApi, on_both};
use reqwest::StatusCode;
use skytale_proto::Code;
use skytale_proto::rest::{Agents, CreatedKey, Key, Keys};

on_both! {
    async fn a_revoked_key_is_refused_at_once_by_every_process(backend: Backend) {
        let api = TestApi::start(backend).await;
        let other = api.another().await;
        let account = api.account("acme").await;
        let first = &account.key.secret;
        let second = api.key(first, &["relay:append", "keys:write"]).await;
        let agent = TestAgent::new();
        // Both have it in memory as verified.
        api.token(&second.secret, &agent).await;
        other.token(&second.secret, &agent).await;
        let nonce = other.nonce(&second.secret, &agent).await;

        api.delete(&format!("/v1/keys/{}", second.key.id), first).await.done();
        for process in [&api, &other] {
            let answer = process.get("/v1/keys", &second.secret).await.refused(Code::KeyRevoked);
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
            process.post("/v1/token", &second.secret, &agent.request(&nonce)).await.refused(Code::KeyRevoked);
        }
        let feed = other.revocations("").await;
        assert_eq!((feed.revocations.len(), feed.next), (1, 1));
        let revocation = &feed.revocations[0];
        assert_eq!((revocation.sequence, revocation.key), (1, second.key.id));
        assert!(revocation.revoked_s <= api.now_s());

        // Again is no error, and no second entry.
        other.delete(&format!("/v1/keys/{}", second.key.id), first).await.done();
        let feed = api.revocations("?after=1").await;
        assert!(feed.revocations.is_empty());
        assert_eq!(feed.next, 1);
        let keys: Keys = api.get("/v1/keys", first).await.ok();
        let shown: &Key = keys.keys.iter().find(|key| key.id == second.key.id).unwrap();
        assert_eq!(shown.revoked_s, Some(revocation.revoked_s));
        api.token(first, &agent).await;
        other.stop().await;
        api.stop().await;
    }

    async fn a_key_can_revoke_itself(backend: Backend) {
        let api = TestApi::start(backend).await;
        let account = api.account("acme").await;
        let key = &account.key.secret;
        api.delete(&format!("/v1/keys/{}", account.key.key.id), key).await.done();
        api.get("/v1/keys", key).await.refused(Code::KeyRevoked);
        assert_eq!(api.revocations("").await.revocations.len(), 1);
        api.stop().await;
    }

    async fn an_account_without_keys_gets_one_from_the_operator(backend: Backend) {
        let api = TestApi::start(backend).await;
        let account = api.account("acme").await;
        let key = &account.key.secret;
        let path = format!("/v1/accounts/{}/keys", account.account);
        api.post(&path, key, &serde_json::json!({})).await.refused(Code::AdminUnauthorized);
        api.delete(&format!("/v1/keys/{}", account.key.key.id), key).await.done();
        let made: CreatedKey = api.post(&path, ADMIN, &serde_json::json!({})).await.ok();
        assert_eq!(made.key.scopes, account.key.key.scopes);
        api.token(&made.secret, &TestAgent::new()).await;
        let told = api.audit(&made.secret).await;
        let target = format!("key:{}", made.key.id);
        assert!(told.iter().any(|event| event.actor == "operator" && event.target == target));
        let nobody = format!("/v1/accounts/{}/keys", skytale_proto::AccountId::generate());
        for path in [&*nobody, "/v1/accounts/x/keys"] {
            api.post(path, ADMIN, &serde_json::json!({})).await.refused(Code::NotFound);
        }
        api.stop().await;
    }

    async fn only_who_may_revoke_does(backend: Backend) {
        let api = TestApi::start(backend).await;
        let account = api.account("acme").await;
        let agent = TestAgent::new();
        let small = api.key(&account.key.secret, &["relay:append"]).await;
        api.token(&small.secret, &agent).await;
        api.delete(&format!("/v1/keys/{}", account.key.key.id), &small.secret).await.refused(Code::KeyScope);
        api.delete(&format!("/v1/agents/{}", agent.id()), &small.secret).await.refused(Code::KeyScope);
        api.get("/v1/keys", &small.secret).await.refused(Code::KeyScope);
        assert!(api.revocations("").await.revocations.is_empty());
        api.stop().await;
    }

    async fn an_ended_agent_does_not_come_back(backend: Backend) {
        let api = TestApi::start(backend).await;
        let account = api.account("acme").await;
        let foreign = api.account("other").await.key.secret;
        let key = &account.key.secret;
        let (agent, other) = (TestAgent::new(), TestAgent::new());
        api.token(key, &agent).await;
        api.token(key, &other).await;
        let nonce = api.nonce(key, &agent).await;
        api.delete(&format!("/v1/agents/{}", agent.id()), key).await.done();
        api.delete(&format!("/v1/agents/{}", agent.id()), key).await.done();
        api.post("/v1/token", key, &agent.request(&nonce)).await.refused(Code::AgentEnded);
        api.ask_token(&foreign, &agent).await.refused(Code::AgentTaken);
        api.token(key, &other).await;
        let agents: Agents = api.get("/v1/agents", key).await.ok();
        let ended = agents.agents.iter().find(|shown| shown.id == agent.id()).unwrap();
        let feed = api.revocations("").await;
        assert!(feed.revocations.is_empty());
        assert_eq!((feed.agents.len(), feed.agents_next), (1, 1));
        assert_eq!(feed.agents[0].agent, agent.id());
        assert_eq!(ended.ended_s, Some(feed.agents[0].ended_s));
        assert!(api.revocations("?agents_after=1").await.agents.is_empty());
        let unknown = TestAgent::new().id();
        api.delete(&format!("/v1/agents/{unknown}"), key).await.refused(Code::NotFound);
        api.stop().await;
    }
}
