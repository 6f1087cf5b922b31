//! Every refusal has its code, and is a whole problem.

use crate::agent::{TestAgent, random};
use crate::database::Backend;
use crate::harness::{ADMIN, NOTHING, RELAY, TestApi, on_both};
use data_encoding::HEXLOWER;
use reqwest::{Method, StatusCode, header};
use serde_json::json;
use skytale_proto::rest::{CreatedKey, TokenRequest};
use skytale_proto::{AgentId, Code, EndpointId};
use std::time::Duration;

on_both! {
    async fn what_is_no_request_is_refused_with_a_code(backend: Backend) {
        let api = TestApi::start_with(backend, |config| config.limits.body_bytes_max = 2_000).await;
        let account = api.account("acme").await;
        let key = &account.key.secret;
        api.get("/v1/nothing", key).await.refused(Code::NotFound);
        api.get("/v1/keys/%00/../..", key).await.refused(Code::NotFound);
        let answer = api.put("/v1/keys", key, &json!({})).await.refused(Code::MethodNotAllowed);
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
        let allow = answer.headers[header::ALLOW].to_str().unwrap();
        assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
        api.get("/v1/token", key).await.refused(Code::MethodNotAllowed);

        let raw = |body: &str, kind: &str| {
            let request = api.http.post(format!("{}/v1/keys", api.base)).bearer_auth(key);
            let request = request.header(header::CONTENT_TYPE, kind).body(body.to_owned());
            async move {
                let response = request.send().await.unwrap();
                crate::harness::Answer {
                    status: response.status(),
                    headers: response.headers().clone(),
                    body: response.bytes().await.unwrap().to_vec(),
                }
            }
        };
        let unknown_field = "{\"label\":\"a\",\"scopes\":[],\"admin\":true}";
        for body in ["", "{", "null", "[]", "{\"label\":1}", "\u{0}", unknown_field] {
            raw(body, "application/json").await.refused(Code::BadRequest);
        }
        let answer = raw("label=a", "application/x-www-form-urlencoded").await.refused(Code::BadRequest);
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        let long = format!("{{\"label\":\"{}\"}}", "a".repeat(4_000));
        let answer = raw(&long, "application/json").await.refused(Code::BodyTooLarge);
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);

        for path in [
            "/v1/keys?limit=0", "/v1/keys?limit=201", "/v1/keys?limit=x", "/v1/keys?after=x", "/v1/keys?page=2",
            "/v1/agents?after=x", "/v1/channels?after=x", "/v1/audit?before=x", "/v1/audit?limit=-1",
        ] {
            api.get(path, key).await.refused(Code::BadRequest);
        }
        for query in ["?after=-1", "?after=x", "?limit=0", "?limit=1001", "?since=1"] {
            api.get(&format!("/v1/revocations{query}"), RELAY).await.refused(Code::BadRequest);
        }
        api.delete("/v1/keys/x", key).await.refused(Code::NotFound);
        api.delete("/v1/agents/x", key).await.refused(Code::NotFound);
        api.delete(&format!("/v1/keys/{}", skytale_proto::KeyId::generate()), key).await.refused(Code::NotFound);
        api.stop().await;
    }

    async fn who_shows_no_good_secret_gets_nowhere(backend: Backend) {
        let api = TestApi::start(backend).await;
        let account = api.account("acme").await;
        let key = account.key.secret.clone();
        let answer = api.try_call(Method::GET, "/v1/keys", None, NOTHING).await.unwrap().refused(Code::KeyUnknown);
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer");
        let (id, secret) = key.strip_prefix("sk_live_").unwrap().split_once('_').unwrap();
        let other_secret = api.key(&key, &["audit:read"]).await.secret.rsplit('_').next().unwrap().to_owned();
        let unknown_id = HEXLOWER.encode(&random::<16>());
        for wrong in [
            String::new(),
            "sk_live_".to_owned(),
            key.to_lowercase(),
            format!("{key}A"),
            key[..key.len() - 1].to_owned(),
            format!("sk_live_{id}_{}", "A".repeat(52)),
            format!("sk_live_{id}_{other_secret}"),
            format!("sk_live_{unknown_id}_{secret}"),
            ADMIN.to_owned(),
            RELAY.to_owned(),
        ] {
            api.get("/v1/keys", &wrong).await.refused(Code::KeyUnknown);
        }
        let basic = api.http.get(format!("{}/v1/keys", api.base)).basic_auth("user", Some(&key)).send().await.unwrap();
        assert_eq!(basic.status(), StatusCode::UNAUTHORIZED);

        let org = json!({ "org": "second" });
        for wrong in ["", "x", &key, RELAY, &ADMIN[1..], &format!("{ADMIN}x")] {
            api.post("/v1/accounts", wrong, &org).await.refused(Code::AdminUnauthorized);
            api.post("/v1/signing-keys", wrong, &org).await.refused(Code::AdminUnauthorized);
        }
        for wrong in ["", "x", &key, ADMIN] {
            api.get("/v1/revocations", wrong).await.refused(Code::RelayUnauthorized);
        }
        // The caller is settled before the question: a stranger learns nothing about the form of requests.
        api.post("/v1/accounts", "x", &json!({ "nonsense": 1 })).await.refused(Code::AdminUnauthorized);
        api.post("/v1/keys", "x", &json!({ "nonsense": 1 })).await.refused(Code::KeyUnknown);
        api.stop().await;
    }

    async fn accounts_and_keys_are_checked_before_they_are_made(backend: Backend) {
        let api = TestApi::start(backend).await;
        let key = api.account("acme").await.key.secret;
        api.post("/v1/accounts", ADMIN, &json!({ "org": "acme" })).await.refused(Code::Conflict);
        for org in ["", "Acme", "a/b", "a b", &"a".repeat(64)] {
            api.post("/v1/accounts", ADMIN, &json!({ "org": org })).await.refused(Code::BadRequest);
        }
        for body in [
            json!({ "label": "", "scopes": ["relay:append"] }),
            json!({ "label": "a".repeat(65), "scopes": ["relay:append"] }),
            json!({ "label": "a\nb", "scopes": ["relay:append"] }),
            json!({ "label": "a", "scopes": [] }),
            json!({ "label": "a", "scopes": ["everything"] }),
            json!({ "label": "a", "scopes": ["relay:append@zz"] }),
            json!({ "label": "a", "scopes": ["relay:append"], "expires_s": 1 }),
            json!({ "label": "a", "scopes": ["relay:append"], "expires_s": u64::MAX }),
            json!({ "label": "a", "scopes": ["relay:append"], "expires_s": -1 }),
        ] {
            api.post("/v1/keys", &key, &body).await.refused(Code::BadRequest);
        }
        let many: Vec<String> = (0..65).map(|n| format!("relay:append@{n:032x}")).collect();
        api.post("/v1/keys", &key, &json!({ "label": "a", "scopes": many })).await.refused(Code::BadRequest);
        let fewer: Vec<&str> = many[..64].iter().map(String::as_str).collect();
        let wide = api.key(&key, &fewer).await;
        // As many channels as a key may name fit into a token.
        let token = api.token(&wide.secret, &TestAgent::new()).await;
        assert!(api.verifier().await.verify(&token.token, api.now_s()).is_ok());
        api.stop().await;
    }

    async fn a_nonce_is_good_once_for_one_agent_and_not_for_long(backend: Backend) {
        let api = TestApi::start(backend).await;
        let (key, foreign) = (api.account("one").await.key.secret, api.account("two").await.key.secret);
        let (agent, other) = (TestAgent::new(), TestAgent::new());
        let ask = |bearer: String, request: TokenRequest| {
            let api = &api;
            async move { api.post("/v1/token", &bearer, &request).await }
        };
        let nonce = api.nonce(&key, &agent).await;
        ask(key.clone(), other.request(&nonce)).await.refused(Code::NonceInvalid);
        ask(foreign.clone(), agent.request(&nonce)).await.refused(Code::NonceInvalid);
        assert!(ask(key.clone(), agent.request(&nonce)).await.status.is_success());
        ask(key.clone(), agent.request(&nonce)).await.refused(Code::NonceInvalid);
        ask(key.clone(), agent.request(&HEXLOWER.encode(&random::<32>()))).await.refused(Code::NonceInvalid);
        let nonce = api.nonce(&key, &agent).await;
        api.advance(Duration::from_secs(61));
        ask(key.clone(), agent.request(&nonce)).await.refused(Code::NonceInvalid);
        api.stop().await;
    }

    async fn a_proof_is_by_this_agent_for_this_endpoint(backend: Backend) {
        let api = TestApi::start(backend).await;
        let key = api.account("acme").await.key.secret;
        let (agent, other) = (TestAgent::new(), TestAgent::new());
        let nonce = api.nonce(&key, &agent).await;
        let good = agent.request(&nonce);
        let mut wrong = vec![
            TokenRequest { signature: other.request(&nonce).signature, ..good.clone() },
            TokenRequest { endpoint: EndpointId::from_bytes([9; 32]), ..good.clone() },
            TokenRequest { nonce: HEXLOWER.encode(&random::<32>()), ..good.clone() },
            TokenRequest { signature: "00".repeat(64), ..good.clone() },
        ];
        // A key of small order, under which a signature of zeros fits many messages.
        let weak = AgentId::from_bytes({
            let mut bytes = [0; 32];
            bytes[0] = 1;
            bytes
        });
        let mut signature = [0; 64];
        signature[0] = 1;
        wrong.push(TokenRequest { agent: weak, signature: HEXLOWER.encode(&signature), ..good.clone() });
        for request in wrong {
            api.post("/v1/token", &key, &request).await.refused(Code::ProofInvalid);
        }
        for (field, value) in [
            ("signature", "zz"),
            ("signature", ""),
            ("nonce", "00"),
            ("nonce", ""),
            ("agent", "00"),
            ("endpoint", "x"),
        ] {
            let mut request = serde_json::to_value(&good).unwrap();
            request[field] = value.into();
            api.post("/v1/token", &key, &request).await.refused(Code::BadRequest);
        }
        let mut request = good.clone();
        request.scopes = vec!["relay:fly".to_owned()];
        api.post("/v1/token", &key, &request).await.refused(Code::BadRequest);
        request.scopes = vec!["relay:append".to_owned(); 65];
        api.post("/v1/token", &key, &request).await.refused(Code::BadRequest);
        assert!(api.post("/v1/token", &key, &good).await.status.is_success(), "none of them used the nonce up");
        api.stop().await;
    }

    async fn quotas_are_told_apart_from_rates(backend: Backend) {
        let api = TestApi::start_with(backend, |config| {
            config.limits.keys_max = 3;
            config.limits.agents_max = 2;
            config.limits.channels_max = 2;
        })
        .await;
        let key = api.account("acme").await.key.secret;
        let second = api.key(&key, &["relay:append"]).await;
        api.key(&key, &["relay:append"]).await;
        let answer = api.create_key(&key, &["relay:append"], None).await.refused(Code::KeyQuota);
        assert_eq!((answer.status, answer.retry_after_s()), (StatusCode::FORBIDDEN, None));
        api.delete(&format!("/v1/keys/{}", second.key.id), &key).await.done();
        api.create_key(&key, &["relay:append"], None).await.ok::<CreatedKey>();

        let agents = [TestAgent::new(), TestAgent::new(), TestAgent::new()];
        api.token(&key, &agents[0]).await;
        api.token(&key, &agents[1]).await;
        api.ask_token(&key, &agents[2]).await.refused(Code::AgentQuota);
        api.token(&key, &agents[0]).await;
        api.delete(&format!("/v1/agents/{}", agents[0].id()), &key).await.done();
        api.token(&key, &agents[2]).await;

        let name = |n: u8| json!({ "name": format!("acme/a/{n}"), "channel": format!("{n:032x}") });
        for n in 0..2 {
            assert_eq!(api.post("/v1/channels", &key, &name(n)).await.status, StatusCode::CREATED);
        }
        api.post("/v1/channels", &key, &name(2)).await.refused(Code::ChannelNameQuota);
        api.get("/v1/channels/acme/a/2", &key).await.refused(Code::NotFound);
        api.stop().await;
    }

    async fn what_is_made_and_ended_again_and_again_is_bounded_by_the_day(backend: Backend) {
        let api = TestApi::start_with(backend, |config| config.limits.account_creations_per_day = 6).await;
        let (key, other) = (api.account("acme").await.key.secret, api.account("other").await.key.secret);
        let agent = TestAgent::new();
        api.token(&key, &agent).await;
        let spare = api.key(&key, &["relay:append"]).await;
        let name = |org: &str| json!({ "name": format!("{org}/a/b"), "channel": format!("{:032x}", 1) });
        for _ in 0..4 {
            assert_eq!(api.post("/v1/channels", &key, &name("acme")).await.status, StatusCode::CREATED);
            api.delete("/v1/channels/acme/a/b", &key).await.done();
        }
        // Whatever it makes next, with whichever key.
        let refused = api.post("/v1/channels", &key, &name("acme")).await.refused(Code::AccountTooMany);
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.retry_after_s().is_some_and(|wait_s| wait_s > 3_600));
        api.create_key(&key, &["relay:append"], None).await.refused(Code::AccountTooMany);
        api.ask_token(&key, &TestAgent::new()).await.refused(Code::AccountTooMany);
        api.get("/v1/channels/acme/a/b", &key).await.refused(Code::NotFound);
        // What it has goes on, and can be ended; other accounts notice nothing.
        api.token(&key, &agent).await;
        api.delete(&format!("/v1/keys/{}", spare.key.id), &key).await.done();
        api.delete(&format!("/v1/agents/{}", agent.id()), &key).await.done();
        assert_eq!(api.post("/v1/channels", &other, &name("other")).await.status, StatusCode::CREATED);
        api.stop().await;
    }
}
