//! The API is killed under load. Its earlier answers hold.

use crate::agent::{TestAgent, random};
use crate::child::Process;
use crate::database::{Backend, Database};
use crate::harness::{Client, on_both};
use serde_json::json;
use skytale_proto::rest::{Channel, CreatedKey};
use skytale_proto::{ChannelId, Code, KeyId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// Changes that were answered with success.
#[derive(Default)]
struct Acknowledged {
    channels: Vec<(String, ChannelId)>,
    keys: Vec<String>,
    revoked: Vec<(KeyId, String)>,
    /// Agents, with the proof that got them a token.
    tokens: Vec<(TestAgent, skytale_proto::rest::TokenRequest)>,
}

/// Works until the API is gone.
async fn work(client: Client, key: String, worker: usize, acknowledged: Arc<Mutex<Acknowledged>>) {
    for round in 0.. {
        let nonce: [u8; 4] = random();
        let name = format!("acme/w{worker}/r{round}-{}", data_encoding::HEXLOWER.encode(&nonce));
        let channel = ChannelId::generate();
        let body = json!({ "name": name, "channel": channel });
        let Ok(answer) = client
            .try_call(reqwest::Method::POST, "/v1/channels", Some(&key), Some(&body))
            .await
        else {
            return;
        };
        if answer.status.is_success() {
            acknowledged.lock().await.channels.push((name, channel));
        }

        let agent = TestAgent::new();
        let body = json!({ "agent": agent.id() });
        let Ok(answer) = client
            .try_call(reqwest::Method::POST, "/v1/nonce", Some(&key), Some(&body))
            .await
        else {
            return;
        };
        let nonce: skytale_proto::rest::NonceResponse = answer.ok();
        let request = agent.request(&nonce.nonce);
        let Ok(answer) = client
            .try_call(reqwest::Method::POST, "/v1/token", Some(&key), Some(&request))
            .await
        else {
            return;
        };
        if answer.status.is_success() {
            acknowledged.lock().await.tokens.push((agent, request));
        }

        if round % 3 != worker % 3 {
            continue;
        }
        let body = json!({ "label": "crash", "scopes": ["relay:append"] });
        let Ok(answer) = client
            .try_call(reqwest::Method::POST, "/v1/keys", Some(&key), Some(&body))
            .await
        else {
            return;
        };
        let made: CreatedKey = answer.ok();
        if round % 2 == 0 {
            acknowledged.lock().await.keys.push(made.secret);
            continue;
        }
        let path = format!("/v1/keys/{}", made.key.id);
        let nothing = crate::harness::NOTHING;
        let Ok(answer) = client
            .try_call(reqwest::Method::DELETE, &path, Some(&key), nothing)
            .await
        else {
            return;
        };
        if answer.status.is_success() {
            acknowledged.lock().await.revoked.push((made.key.id, made.secret));
        }
    }
}

async fn check(client: &Client, key: &str, acknowledged: &Acknowledged) {
    for (name, channel) in &acknowledged.channels {
        let there: Channel = client.get(&format!("/v1/channels/{name}"), key).await.ok();
        assert_eq!(there.channel, *channel);
    }
    for secret in &acknowledged.keys {
        assert!(client.get("/v1/agents", secret).await.status.is_success());
    }
    let feed = client.revocations("").await.revocations;
    let sequences: Vec<u64> = feed.iter().map(|revocation| revocation.sequence).collect();
    assert_eq!(sequences, (1..=feed.len() as u64).collect::<Vec<u64>>(), "dense");
    for (id, secret) in &acknowledged.revoked {
        client.get("/v1/agents", secret).await.refused(Code::KeyRevoked);
        assert_eq!(feed.iter().filter(|revocation| revocation.key == *id).count(), 1);
    }
    for (_, request) in &acknowledged.tokens {
        client.post("/v1/token", key, request).await.refused(Code::NonceInvalid);
    }
}

on_both! {
    async fn nothing_acknowledged_is_lost_when_it_is_killed(backend: Backend) {
        let database = Database::new(backend).await;
        let mut process = Process::start(&database, 64).await;
        let key = process.client.account("acme").await.key.secret;
        let acknowledged: Arc<Mutex<Acknowledged>> = Arc::default();
        for _ in 0..3 {
            let before = acknowledged.lock().await.channels.len();
            let mut workers = JoinSet::new();
            for worker in 0..6 {
                workers.spawn(work(process.client.clone(), key.clone(), worker, Arc::clone(&acknowledged)));
            }
            // Some work is done; then, at any moment, the end.
            while acknowledged.lock().await.channels.len() < before + 20 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_millis(u64::from(random::<1>()[0]) * 2)).await;
            process.kill();
            workers.join_all().await;
            process = Process::start(&database, 64).await;
            check(&process.client, &key, &*acknowledged.lock().await).await;
        }
        let acknowledged = acknowledged.lock().await;
        assert!(!acknowledged.keys.is_empty() && !acknowledged.revoked.is_empty() && !acknowledged.tokens.is_empty());
        process.stop();
    }
}
