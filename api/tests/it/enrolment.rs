//! Enrolment of relay nodes in a fleet, and refusals of those that are not enrolled.

use crate::agent::random;
use crate::database::Backend;
use crate::harness::{ADMIN, NOTHING, RELAY, TestApi, on_both};
use crate::relay::{TestEndpoint, TestRelay};
use data_encoding::HEXLOWER;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use skytale_api::config::Rate;
use skytale_proto::rest::{CreatedEnrolment, Enrolments, Heartbeat, HeartbeatTaken, Relay, Revocations, ShardLag};
use skytale_proto::{Code, EnrolmentId};
use tokio::task::JoinSet;

on_both! {
    async fn a_revoked_enrolment_is_of_no_use_at_once_on_every_process(backend: Backend) {
        let api = TestApi::start(backend).await;
        let other = api.another().await;
        let key = api.account("acme").await.key.secret;
        let node = TestRelay::start(&api, "eu-1", |_| {}).await;
        let stays = TestRelay::start(&other, "eu-2", |_| {}).await;
        // Both processes have its key in memory as verified.
        node.beat(&other).await.ok::<HeartbeatTaken>();
        assert_eq!(api.listed(&key, "").await.len(), 2);
        let path = format!("/v1/enrolments/{}", node.made.enrolment.id);
        api.delete(&path, ADMIN).await.done();
        for process in [&api, &other] {
            let answer = node.beat(process).await.refused(Code::EnrolmentRevoked);
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
            process.get("/v1/revocations", node.key()).await.refused(Code::EnrolmentRevoked);
            process.delete(&format!("/v1/relays/{}", node.id()), node.key()).await.refused(Code::EnrolmentRevoked);
            assert_eq!(process.listed(&key, "").await, [stays.id()]);
        }
        // Again is no error, and the node comes back with another enrolment alone.
        other.delete(&path, ADMIN).await.done();
        let page: Enrolments = api.get("/v1/enrolments", ADMIN).await.ok();
        assert!(page.enrolments.iter().any(|shown| shown.id == node.made.enrolment.id && shown.revoked_s.is_some()));
        let again: CreatedEnrolment = api.post("/v1/enrolments", ADMIN, &json!({ "label": "eu-1" })).await.ok();
        let heartbeat = Heartbeat { proof: node.endpoint.proof(&again.secret), ..node.heartbeat.clone() };
        api.put(&node.path(), &again.secret, &heartbeat).await.ok::<HeartbeatTaken>();
        assert_eq!(other.listed(&key, "").await.len(), 2);
        for missing in [&*EnrolmentId::generate().to_string(), "x"] {
            api.delete(&format!("/v1/enrolments/{missing}"), ADMIN).await.refused(Code::NotFound);
        }
        other.stop().await;
        api.stop().await;
    }

    async fn a_wrong_key_gets_nowhere(backend: Backend) {
        let api = TestApi::start(backend).await;
        let key = api.account("acme").await.key.secret;
        let node = TestRelay::start(&api, "eu-1", |_| {}).await;
        let other = TestRelay::enrol(&api, "eu-2").await;
        let (id, secret) = node.key().strip_prefix("rk_live_").unwrap().split_once('_').unwrap();
        let other_secret = other.key().rsplit('_').next().unwrap();
        for wrong in [
            String::new(),
            "rk_live_".to_owned(),
            node.key().to_lowercase(),
            format!("{}A", node.key()),
            node.key()[..node.key().len() - 1].to_owned(),
            format!("rk_live_{id}_{}", "A".repeat(52)),
            format!("rk_live_{id}_{other_secret}"),
            format!("rk_live_{}_{secret}", HEXLOWER.encode(&random::<16>())),
            format!("sk_live_{id}_{secret}"),
            ADMIN.to_owned(),
            RELAY.to_owned(),
            key.clone(),
        ] {
            let answer = api.put(&node.path(), &wrong, &node.heartbeat).await.refused(Code::EnrolmentUnknown);
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
            if wrong.starts_with("rk_live_") {
                api.get("/v1/revocations", &wrong).await.refused(Code::EnrolmentUnknown);
            }
        }
        api.try_call(Method::PUT, &node.path(), None, NOTHING).await.unwrap().refused(Code::EnrolmentUnknown);
        // A node's key is good for what a node does, and the operator's secret alone for the fleet.
        for path in ["/v1/keys", "/v1/relays"] {
            api.get(path, node.key()).await.refused(Code::KeyUnknown);
        }
        for wrong in [node.key(), RELAY, &key, ""] {
            api.post("/v1/enrolments", wrong, &json!({ "label": "x" })).await.refused(Code::AdminUnauthorized);
            api.get("/v1/enrolments", wrong).await.refused(Code::AdminUnauthorized);
            api.get("/v1/fleet", wrong).await.refused(Code::AdminUnauthorized);
            let path = format!("/v1/enrolments/{}", node.made.enrolment.id);
            api.delete(&path, wrong).await.refused(Code::AdminUnauthorized);
        }
        let relay = Relay { endpoint: node.id(), addresses: vec!["192.0.2.1:1".to_owned()], region: 0, https_url: None };
        api.put(&format!("/v1/relays/{}", node.id()), node.key(), &relay).await.refused(Code::RelayUnauthorized);
        assert!(api.get("/v1/revocations", node.key()).await.ok::<Revocations>().revocations.is_empty());
        api.stop().await;
    }

    async fn an_enrolment_is_one_endpoint_s_for_good(backend: Backend) {
        let api = TestApi::start(backend).await;
        let key = api.account("acme").await.key.secret;
        let node = TestRelay::start(&api, "eu-1", |_| {}).await;
        let thief = TestEndpoint::new();
        let beat = async |endpoint: &TestEndpoint, proof: String, bearer: &str| {
            let heartbeat = Heartbeat { proof, ..node.heartbeat.clone() };
            api.put(&format!("/v1/relays/{}/heartbeat", endpoint.id()), bearer, &heartbeat).await
        };
        // With the key of another: an endpoint of its own.
        let answer = beat(&thief, thief.proof(node.key()), node.key()).await.refused(Code::EnrolmentTaken);
        assert_eq!(answer.status, StatusCode::CONFLICT);
        // With a key of its own: another's endpoint, without and with its proof.
        let own = TestRelay::enrol(&api, "eu-2").await;
        let forged = Heartbeat { proof: thief.proof(own.key()), ..node.heartbeat.clone() };
        let answer = api.put(&node.path(), own.key(), &forged).await.refused(Code::RegistrationProof);
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        api.put(&node.path(), own.key(), &node.heartbeat).await.refused(Code::RegistrationProof);
        beat(&node.endpoint, node.endpoint.proof(own.key()), own.key()).await.refused(Code::EnrolmentTaken);
        for proof in ["", "zz", "00", &"0".repeat(126)] {
            beat(&own.endpoint, proof.to_owned(), own.key()).await.refused(Code::BadRequest);
        }
        beat(&own.endpoint, "00".repeat(64), own.key()).await.refused(Code::RegistrationProof);
        // None of it bound the second enrolment or moved the first node.
        assert_eq!(api.listed(&key, "").await, [node.id()]);
        own.beat(&api).await.ok::<HeartbeatTaken>();

        // Named when it was made.
        let named = TestEndpoint::new();
        let request = json!({ "label": "eu-3", "endpoint": named.id() });
        let made: CreatedEnrolment = api.post("/v1/enrolments", ADMIN, &request).await.ok();
        assert_eq!(made.enrolment.endpoint, Some(named.id()));
        api.post("/v1/enrolments", ADMIN, &request).await.refused(Code::EnrolmentTaken);
        beat(&thief, thief.proof(&made.secret), &made.secret).await.refused(Code::EnrolmentTaken);
        beat(&named, named.proof(&made.secret), &made.secret).await.ok::<HeartbeatTaken>();
        let refused = b"relay.refuse";
        assert!(api.database.dump().windows(refused.len()).any(|window| window == refused), "and it is told");
        api.stop().await;
    }

    async fn of_two_endpoints_that_use_a_key_first_one_has_it(backend: Backend) {
        let api = TestApi::start(backend).await;
        let other = api.another().await;
        for _ in 0..5 {
            let node = TestRelay::enrol(&api, "eu-1").await;
            let mut asking = JoinSet::new();
            for process in [&api, &other, &api, &other] {
                let endpoint = TestEndpoint::new();
                let heartbeat = Heartbeat { proof: endpoint.proof(node.key()), ..node.heartbeat.clone() };
                let path = format!("/v1/relays/{}/heartbeat", endpoint.id());
                let (client, key) = (process.client.clone(), node.key().to_owned());
                asking.spawn(async move { client.put(&path, &key, &heartbeat).await });
            }
            let answers = asking.join_all().await;
            let taken = answers.iter().filter(|answer| answer.status.is_success()).count();
            assert_eq!(taken, 1);
            for answer in answers.into_iter().filter(|answer| !answer.status.is_success()) {
                answer.refused(Code::EnrolmentTaken);
            }
        }
        assert_eq!(api.fleet().await.len(), 5);
        other.stop().await;
        api.stop().await;
    }

    async fn a_heartbeat_that_races_with_a_revocation_brings_no_node_back(backend: Backend) {
        let api = TestApi::start(backend).await;
        let other = api.another().await;
        let key = api.account("acme").await.key.secret;
        for _ in 0..5 {
            let node = TestRelay::start(&api, "eu-1", |_| {}).await;
            let mut asking = JoinSet::new();
            for process in [&api, &other, &api, &other, &api, &other] {
                let (client, path) = (process.client.clone(), node.path());
                let (key, heartbeat) = (node.key().to_owned(), node.heartbeat.clone());
                asking.spawn(async move { client.put(&path, &key, &heartbeat).await });
            }
            api.delete(&format!("/v1/enrolments/{}", node.made.enrolment.id), ADMIN).await.done();
            for answer in asking.join_all().await {
                if !answer.status.is_success() {
                    answer.refused(Code::EnrolmentRevoked);
                }
            }
            assert!(other.listed(&key, "").await.is_empty());
        }
        other.stop().await;
        api.stop().await;
    }

    async fn what_is_no_heartbeat_or_too_much_of_one_is_refused(backend: Backend) {
        let api = TestApi::start(backend).await;
        let key = api.account("acme").await.key.secret;
        let node = TestRelay::enrol(&api, "eu-1").await;
        let refused = async |change: &dyn Fn(&mut Heartbeat)| {
            let mut heartbeat = node.heartbeat.clone();
            change(&mut heartbeat);
            api.put(&node.path(), node.key(), &heartbeat).await.refused(Code::BadRequest);
        };
        for addresses in [
            vec![],
            vec!["192.0.2.1:7601".to_owned(); 17],
            vec!["relay.example:7601".to_owned()],
            vec!["192.0.2.1".to_owned()],
            vec!["192.0.2.1:0".to_owned()],
            vec!["0.0.0.0:7601".to_owned()],
            vec!["[::]:7601".to_owned()],
            vec!["224.0.0.1:7601".to_owned()],
            vec!["1".repeat(5_000)],
        ] {
            refused(&|heartbeat| heartbeat.addresses.clone_from(&addresses)).await;
        }
        for version in ["", "a b", "ü", "a\nb", "\u{0}", &"1".repeat(65)] {
            refused(&|heartbeat| heartbeat.version = version.to_owned()).await;
        }
        let lag = |shard| ShardLag { region: 0, shard, messages: 1 };
        refused(&|heartbeat| heartbeat.load.lag = (0..129).map(lag).collect()).await;
        refused(&|heartbeat| heartbeat.load.lag = vec![lag(1), lag(1)]).await;
        let good = serde_json::to_value(&node.heartbeat).unwrap();
        for (pointer, value) in [
            ("/region", json!(256)),
            ("/region", json!(-1)),
            ("/draining", json!("yes")),
            ("/load/agents", json!(4_294_967_296_u64)),
            ("/load/lag", json!([{ "region": 0, "shard": 65_536, "messages": 0 }])),
            ("/load", Value::Null),
            ("/proof", json!(1)),
        ] {
            let mut wrong = good.clone();
            match wrong.pointer_mut(pointer) {
                Some(place) => *place = value,
                None => wrong["load"]["lag"] = value,
            }
            api.put(&node.path(), node.key(), &wrong).await.refused(Code::BadRequest);
        }
        let mut more = good.clone();
        more["admin"] = true.into();
        api.put(&node.path(), node.key(), &more).await.refused(Code::BadRequest);
        let mut giant = good.clone();
        giant["version"] = "1".repeat(20_000).into();
        api.put(&node.path(), node.key(), &giant).await.refused(Code::BodyTooLarge);
        api.put("/v1/relays/x/heartbeat", node.key(), &good).await.refused(Code::BadRequest);
        for label in ["", "a\nb", &"a".repeat(65)] {
            api.post("/v1/enrolments", ADMIN, &json!({ "label": label })).await.refused(Code::BadRequest);
        }
        for query in ["?region=256", "?region=-1", "?limit=0", "?limit=65", "?near=1"] {
            api.get(&format!("/v1/relays{query}"), &key).await.refused(Code::BadRequest);
        }
        assert!(api.listed(&key, "").await.is_empty() && api.fleet().await.is_empty());

        // As much as there may be.
        let mut whole = node.heartbeat.clone();
        whole.addresses = vec!["[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535".to_owned(); 16];
        whole.version = "1".repeat(64);
        whole.load.lag = (0..128).map(|shard| ShardLag { messages: u64::MAX, ..lag(shard) }).collect();
        whole.load.agents = u32::MAX;
        api.put(&node.path(), node.key(), &whole).await.ok::<HeartbeatTaken>();
        assert_eq!(api.fleet().await[0].load, whole.load);
        api.stop().await;
    }

    async fn a_node_that_beats_too_often_waits_and_others_do_not(backend: Backend) {
        let api = TestApi::start_with(backend, |config| config.limits.relay_rate = Rate { per_second: 1, burst: 5 }).await;
        let busy = TestRelay::start(&api, "busy", |_| {}).await;
        let calm = TestRelay::start(&api, "calm", |_| {}).await;
        let answer = loop {
            let answer = busy.beat(&api).await;
            if !answer.status.is_success() {
                break answer;
            }
        };
        assert_eq!(answer.refused(Code::ApiRateLimited).retry_after_s(), Some(1));
        calm.beat(&api).await.ok::<HeartbeatTaken>();
        api.stop().await;
    }

    async fn a_flood_of_api_keys_keeps_no_node_from_its_heartbeat(backend: Backend) {
        let api = TestApi::start(backend).await;
        let key = api.account("acme").await.key.secret;
        let node = TestRelay::start(&api, "eu-1", |_| {}).await;
        // A process that has verified no key yet.
        let flooded = api.another_with(|config| {
            config.limits.hashes_max = 1;
            config.limits.hashes_waiting_max = 2;
        })
        .await;
        let mut flood = JoinSet::new();
        for _ in 0..100 {
            let (client, guess) = (flooded.client.clone(), format!("{}{}", &key[..41], "A".repeat(52)));
            flood.spawn(async move { client.get("/v1/agents", &guess).await });
        }
        node.beat(&flooded).await.ok::<HeartbeatTaken>();
        let answers = flood.join_all().await;
        assert!(answers.iter().any(|answer| answer.status == StatusCode::SERVICE_UNAVAILABLE));
        flooded.stop().await;
        api.stop().await;
    }

    async fn enrolments_are_bounded_and_one_that_is_revoked_makes_room(backend: Backend) {
        let api = TestApi::start_with(backend, |config| config.limits.enrolments_max = 2).await;
        let first = TestRelay::enrol(&api, "one").await;
        TestRelay::enrol(&api, "two").await;
        let more = json!({ "label": "three" });
        api.post("/v1/enrolments", ADMIN, &more).await.refused(Code::QuotaExceeded);
        api.delete(&format!("/v1/enrolments/{}", first.made.enrolment.id), ADMIN).await.done();
        api.post("/v1/enrolments", ADMIN, &more).await.ok::<CreatedEnrolment>();
        let page: Enrolments = api.get("/v1/enrolments?limit=2", ADMIN).await.ok();
        assert_eq!(page.enrolments.len(), 2);
        let rest: Enrolments = api.get(&format!("/v1/enrolments?after={}", page.next.unwrap()), ADMIN).await.ok();
        assert_eq!((rest.enrolments.len(), rest.next), (1, None));
        api.stop().await;
    }
}
