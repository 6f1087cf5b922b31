//! Main flow of the API.

use crate::agent::TestAgent;
use crate::database::Backend;
use crate::harness::{RELAY, TestApi, URL, on_both};
use reqwest::StatusCode;
use skytale_proto::rest::{Agents, Channel, Channels, Keys, NameChannel, NonceRequest, Relay, Relays};
use skytale_proto::token::Action;
use skytale_proto::{ChannelId, Code, EndpointId};

on_both! {
    async fn an_account_gets_a_key_and_its_agent_a_token(backend: Backend) {
        let api = TestApi::start(backend).await;
        let account = api.account("acme").await;
        assert_eq!(account.org.as_str(), "acme");
        let key = &account.key.secret;
        let agent = TestAgent::new();
        let token = api.token(key, &agent).await;
        let claims = api.verifier().await.verify(&token.token, api.now_s()).unwrap();
        assert_eq!(claims.iss, URL);
        assert_eq!((claims.sub, claims.cnf.eid), (agent.id(), agent.endpoint));
        assert_eq!((claims.acct, claims.key), (account.account, account.key.key.id));
        assert_eq!((claims.exp, claims.exp - claims.iat), (token.expires_s, 3_600));
        for action in Action::ALL {
            let log = match action {
                Action::PublishKeyPackages | Action::ClaimKeyPackages => agent.id().log(),
                _ => ChannelId::generate().log(),
            };
            assert!(claims.allows(action, &log), "{action}");
        }
        let agents: Agents = api.get("/v1/agents", key).await.ok();
        assert_eq!(agents.agents.len(), 1);
        assert_eq!(agents.agents[0].id, agent.id());
        assert!(agents.agents[0].ended_s.is_none());
        let again = api.token(key, &agent).await;
        assert_ne!(again.token, token.token);
        api.stop().await;
    }

    async fn everything_is_there_after_a_restart(backend: Backend) {
        let api = TestApi::start(backend).await;
        let account = api.account("acme").await;
        let agent = TestAgent::new();
        let token = api.token(&account.key.secret, &agent).await;
        let again = api.another().await;
        api.stop().await;
        let third = again.another().await;
        again.stop().await;
        assert!(third.verifier().await.verify(&token.token, third.now_s()).is_ok());
        third.token(&account.key.secret, &agent).await;
        third.stop().await;
    }

    async fn a_key_gives_out_no_more_than_it_has(backend: Backend) {
        let api = TestApi::start(backend).await;
        let account = api.account("acme").await;
        let channel = ChannelId::generate();
        let (append, replay) = (format!("relay:append@{channel}"), format!("relay:replay@{channel}"));
        let narrow = api.key(&account.key.secret, &[&append, &replay]).await;
        let agent = TestAgent::new();
        let claims = |token: String| {
            let api = &api;
            async move { api.verifier().await.verify(&token, api.now_s()).unwrap() }
        };
        let all = claims(api.token(&narrow.secret, &agent).await.token).await;
        assert!(all.allows(Action::Append, &channel.log()) && all.allows(Action::Replay, &channel.log()));
        assert!(all.allows(Action::Replay, &agent.id().log()), "Welcomes come to its own log");
        assert!(!all.allows(Action::Append, &ChannelId::generate().log()));
        assert!(!all.allows(Action::ClaimKeyPackages, &agent.id().log()));

        let nonce = api.nonce(&narrow.secret, &agent).await;
        let mut request = agent.request(&nonce);
        request.scopes = vec![replay.clone(), replay];
        let less: skytale_proto::rest::TokenResponse = api.post("/v1/token", &narrow.secret, &request).await.ok();
        let less = claims(less.token).await;
        assert!(less.allows(Action::Replay, &channel.log()) && !less.allows(Action::Append, &channel.log()));
        assert_eq!(less.scopes().count(), 1);

        request.scopes = vec!["relay:append".to_owned()];
        api.post("/v1/token", &narrow.secret, &request).await.refused(Code::KeyScope);
        api.create_key(&narrow.secret, &["relay:append"], None).await.refused(Code::KeyScope);
        let manager = api.key(&account.key.secret, &["keys:write"]).await;
        api.create_key(&manager.secret, &["relay:append"], None).await.refused(Code::KeyScope);
        let request = NonceRequest { agent: agent.id() };
        api.post("/v1/nonce", &manager.secret, &request).await.refused(Code::KeyScope);
        api.post("/v1/token", &manager.secret, &agent.request(&nonce)).await.refused(Code::KeyScope);
        api.key(&manager.secret, &["keys:write"]).await;
        api.stop().await;
    }

    async fn keys_are_listed_page_by_page_without_their_text(backend: Backend) {
        let api = TestApi::start(backend).await;
        let account = api.account("acme").await;
        let first = &account.key.secret;
        let mut made = vec![account.key.key.clone()];
        for _ in 0..4 {
            made.push(api.key(first, &["relay:replay"]).await.key);
        }
        made.sort_by_key(|key| key.id);
        let mut listed = Vec::new();
        let mut path = "/v1/keys?limit=2".to_owned();
        loop {
            let answer = api.get(&path, first).await;
            assert!(!String::from_utf8_lossy(&answer.body).contains("sk_live_"));
            let page: Keys = answer.ok();
            assert!(page.keys.len() <= 2);
            listed.extend(page.keys);
            match page.next {
                Some(next) => path = format!("/v1/keys?limit=2&after={next}"),
                None => break,
            }
        }
        assert_eq!(listed, made);
        api.stop().await;
    }

    async fn a_channel_has_a_name_within_its_org(backend: Backend) {
        let api = TestApi::start(backend).await;
        let account = api.account("acme").await;
        let key = &account.key.secret;
        let channel = ChannelId::generate();
        let name = |name: &str, channel| NameChannel { name: name.parse().unwrap(), channel };
        let made = api.post("/v1/channels", key, &name("acme/support/tier-1", channel)).await;
        assert_eq!(made.status, StatusCode::CREATED);
        let made: Channel = made.ok();
        let again = api.post("/v1/channels", key, &name("acme/support/tier-1", channel)).await;
        assert_eq!(again.status, StatusCode::OK, "a request that is sent twice does no harm");
        assert_eq!(again.ok::<Channel>(), made);
        let other = name("acme/support/tier-1", ChannelId::generate());
        api.post("/v1/channels", key, &other).await.refused(Code::Conflict);
        let foreign = name("other/support/tier-1", channel);
        api.post("/v1/channels", key, &foreign).await.refused(Code::BadRequest);

        assert_eq!(api.get("/v1/channels/acme/support/tier-1", key).await.ok::<Channel>(), made);
        api.get("/v1/channels/acme/support/tier-2", key).await.refused(Code::NotFound);
        for n in ["b", "a", "c"] {
            api.post("/v1/channels", key, &name(&format!("acme/x/{n}"), channel)).await.ok::<Channel>();
        }
        let page: Channels = api.get("/v1/channels?limit=3", key).await.ok();
        let names: Vec<&str> = page.channels.iter().map(|channel| channel.name.as_str()).collect();
        assert_eq!(names, ["acme/support/tier-1", "acme/x/a", "acme/x/b"]);
        let next = page.next.unwrap();
        let page: Channels = api.get(&format!("/v1/channels?after={next}"), key).await.ok();
        assert_eq!(page.channels.len(), 1);
        assert!(page.next.is_none());

        api.delete("/v1/channels/acme/x/a", key).await.done();
        api.delete("/v1/channels/acme/x/a", key).await.refused(Code::NotFound);
        let free = name("acme/x/a", ChannelId::generate());
        assert_eq!(api.post("/v1/channels", key, &free).await.status, StatusCode::CREATED);
        let reader = api.key(key, &["relay:replay"]).await;
        api.get("/v1/channels", &reader.secret).await.ok::<Channels>();
        api.post("/v1/channels", &reader.secret, &free).await.refused(Code::KeyScope);
        api.delete("/v1/channels/acme/x/a", &reader.secret).await.refused(Code::KeyScope);
        api.stop().await;
    }

    async fn accounts_do_not_see_each_other(backend: Backend) {
        let api = TestApi::start(backend).await;
        let (one, other) = (api.account("one").await, api.account("other").await);
        let (key, foreign) = (&one.key.secret, &other.key.secret);
        let agent = TestAgent::new();
        api.token(key, &agent).await;
        let channel = NameChannel { name: "one/a/b".parse().unwrap(), channel: ChannelId::generate() };
        api.post("/v1/channels", key, &channel).await.ok::<Channel>();

        api.get("/v1/channels/one/a/b", foreign).await.refused(Code::NotFound);
        api.delete("/v1/channels/one/a/b", foreign).await.refused(Code::NotFound);
        api.delete(&format!("/v1/agents/{}", agent.id()), foreign).await.refused(Code::NotFound);
        api.delete(&format!("/v1/keys/{}", one.key.key.id), foreign).await.refused(Code::NotFound);
        assert_eq!(api.get("/v1/keys", foreign).await.ok::<Keys>().keys.len(), 1);
        assert!(api.get("/v1/agents", foreign).await.ok::<Agents>().agents.is_empty());
        assert!(api.get("/v1/channels", foreign).await.ok::<Channels>().channels.is_empty());
        assert!(api.audit(foreign).await.iter().all(|event| event.action != "token.issue"));
        api.ask_token(foreign, &agent).await.refused(Code::AgentTaken);
        api.token(key, &agent).await;
        api.stop().await;
    }

    async fn relay_nodes_are_found(backend: Backend) {
        let api = TestApi::start(backend).await;
        let account = api.account("acme").await;
        let key = &account.key.secret;
        let endpoint = EndpointId::from_bytes([5; 32]);
        let addresses = vec!["192.0.2.1:7601".to_owned(), "[2001:db8::1]:7601".to_owned()];
        let relay = Relay { endpoint, addresses, region: 3, https_url: None };
        let path = format!("/v1/relays/{endpoint}");
        api.put(&path, RELAY, &relay).await.done();
        api.put(&path, RELAY, &relay).await.done();
        assert_eq!(api.get("/v1/relays", key).await.ok::<Relays>().relays, std::slice::from_ref(&relay));
        assert_eq!(api.token(key, &TestAgent::new()).await.relays, std::slice::from_ref(&relay));
        let https_url = Some("https://relay.example.org:8443".to_owned());
        let moved = Relay { addresses: vec!["192.0.2.9:7601".to_owned()], https_url, ..relay.clone() };
        api.put(&path, RELAY, &moved).await.done();
        assert_eq!(api.get("/v1/relays", key).await.ok::<Relays>().relays, [moved]);

        for wrong in [
            Relay { addresses: vec![], ..relay.clone() },
            Relay { addresses: vec!["relay.example:7601".to_owned()], ..relay.clone() },
            Relay { addresses: vec!["192.0.2.1:1".to_owned(); 17], ..relay.clone() },
            Relay { endpoint: EndpointId::from_bytes([6; 32]), ..relay.clone() },
            Relay { https_url: Some("http://relay.example.org".to_owned()), ..relay.clone() },
            Relay { https_url: Some("https://relay.example.org/path".to_owned()), ..relay.clone() },
        ] {
            api.put(&path, RELAY, &wrong).await.refused(Code::BadRequest);
        }
        api.put(&path, key, &relay).await.refused(Code::RelayUnauthorized);
        api.delete(&path, RELAY).await.done();
        api.delete(&path, RELAY).await.refused(Code::NotFound);
        assert!(api.get("/v1/relays", key).await.ok::<Relays>().relays.is_empty());
        api.stop().await;
    }

    async fn every_action_on_keys_and_tokens_is_told_in_the_audit(backend: Backend) {
        let api = TestApi::start(backend).await;
        let account = api.account("acme").await;
        let key = &account.key.secret;
        let agent = TestAgent::new();
        let second = api.key(key, &["relay:append"]).await;
        let answer = api.ask_token(&second.secret, &agent).await;
        let request = answer.headers["x-request-id"].to_str().unwrap().to_owned();
        answer.ok::<skytale_proto::rest::TokenResponse>();
        let used = agent.request(&"0".repeat(64));
        api.post("/v1/token", &second.secret, &used).await.refused(Code::NonceInvalid);
        api.delete(&format!("/v1/agents/{}", agent.id()), key).await.done();
        api.delete(&format!("/v1/keys/{}", second.key.id), key).await.done();

        let events = api.audit(key).await;
        let told: Vec<(&str, &str, &str)> =
            events.iter().rev().map(|event| (&*event.actor, &*event.action, &*event.target)).collect();
        let (first_id, second_id) = (format!("key:{}", account.key.key.id), format!("key:{}", second.key.id));
        let (account_id, agent_id) = (format!("account:{}", account.account), format!("agent:{}", agent.id()));
        assert_eq!(told, [
            ("operator", "account.create", &*account_id),
            ("operator", "key.create", &*first_id),
            (&*first_id, "key.create", &*second_id),
            (&*second_id, "agent.bind", &*agent_id),
            (&*second_id, "token.issue", &*agent_id),
            (&*second_id, "token.refuse", &*agent_id),
            (&*first_id, "agent.end", &*agent_id),
            (&*first_id, "key.revoke", &*second_id),
        ]);
        let issue = events.iter().find(|event| event.action == "token.issue").unwrap();
        assert_eq!(issue.request, request);
        assert!(issue.at_s <= api.now_s() && issue.at_s + 600 > api.now_s());
        let refused = events.iter().find(|event| event.action == "token.refuse").unwrap();
        assert_eq!(refused.code.as_deref(), Some("SKY-4008"));

        let page: skytale_proto::rest::AuditPage = api.get("/v1/audit?limit=3", key).await.ok();
        assert_eq!(page.events, events[..3]);
        let next = page.next.unwrap();
        let page: skytale_proto::rest::AuditPage = api.get(&format!("/v1/audit?before={next}"), key).await.ok();
        assert_eq!(page.events, events[3..]);
        let blind = api.key(key, &["relay:append"]).await;
        api.get("/v1/audit", &blind.secret).await.refused(Code::KeyScope);
        api.stop().await;
    }

    async fn a_token_does_not_outlive_its_key(backend: Backend) {
        let api = TestApi::start(backend).await;
        let account = api.account("acme").await;
        let ends_s = api.now_s() + 600;
        let key: skytale_proto::rest::CreatedKey =
            api.create_key(&account.key.secret, &["relay:append", "keys:write"], Some(ends_s)).await.ok();
        assert_eq!(key.key.expires_s, Some(ends_s));
        assert_eq!(api.token(&key.secret, &TestAgent::new()).await.expires_s, ends_s);
        api.create_key(&key.secret, &["relay:append"], None).await.refused(Code::KeyScope);
        api.create_key(&key.secret, &["relay:append"], Some(ends_s + 1)).await.refused(Code::KeyScope);
        api.create_key(&key.secret, &["relay:append"], Some(ends_s)).await.ok::<skytale_proto::rest::CreatedKey>();
        api.advance(std::time::Duration::from_secs(601));
        let answer = api.get("/v1/keys", &key.secret).await.refused(Code::KeyExpired);
        let text = String::from_utf8(answer.body).unwrap();
        assert!(text.contains("the API key expired on ") && text.contains(" GMT"), "{text}");
        api.stop().await;
    }
}
