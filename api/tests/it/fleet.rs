//! The relay directory of a fleet: its members, and their order for agents.

use crate::agent::TestAgent;
use crate::database::Backend;
use crate::harness::{ADMIN, HEARTBEAT, RELAY, TestApi, on_both};
use crate::relay::TestRelay;
use skytale_proto::EndpointId;
use skytale_proto::rest::{
    Enrolments, Fleet, HeartbeatTaken, Relay, RelayState, Relays, ShardLag, TokenRequest, TokenResponse,
};
use std::time::Duration;

/// The relay nodes that an agent learns of, with its token.
async fn told(api: &TestApi, key: &str, region: Option<u8>) -> Vec<EndpointId> {
    let agent = TestAgent::new();
    let nonce = api.nonce(key, &agent).await;
    let request = TokenRequest {
        region,
        ..agent.request(&nonce)
    };
    let answer: TokenResponse = api.post("/v1/token", key, &request).await.ok();
    answer.relays.iter().map(|relay| relay.endpoint).collect()
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

on_both! {
    async fn a_node_is_told_of_until_it_misses_three_heartbeats(backend: Backend) {
        let api = TestApi::start(backend).await;
        let other = api.another().await;
        let key = api.account("acme").await.key.secret;
        let mut node = TestRelay::start(&api, "eu-1", |_| {}).await;
        node.heartbeat.addresses.push("[2001:db8::1]:7601".to_owned());
        let taken: HeartbeatTaken = node.beat(&other).await.ok();
        assert_eq!((taken.next_ms, taken.expires_ms), (300_000, 900_000));
        let relays: Relays = api.get("/v1/relays", &key).await.ok();
        let relay = Relay { endpoint: node.id(), addresses: node.heartbeat.addresses.clone(), region: 0, https_url: node.heartbeat.https_url.clone() };
        assert_eq!(relays.relays, [relay]);
        assert_eq!(told(&other, &key, None).await, [node.id()]);

        // The clock of the API alone decides, on every process.
        api.advance(2 * HEARTBEAT);
        assert_eq!(other.listed(&key, "").await, [node.id()]);
        node.beat(&api).await.ok::<HeartbeatTaken>();
        api.advance(2 * HEARTBEAT);
        assert_eq!(other.listed(&key, "").await, [node.id()]);
        api.advance(HEARTBEAT + Duration::from_secs(2));
        assert!(other.listed(&key, "").await.is_empty());
        assert!(told(&api, &key, None).await.is_empty());
        assert_eq!(api.fleet().await[0].state, RelayState::Missing);
        node.beat(&api).await.ok::<HeartbeatTaken>();
        assert_eq!(told(&other, &key, None).await, [node.id()]);

        // One that goes says so, and is gone at once; its enrolment stays.
        let path = format!("/v1/relays/{}", node.id());
        api.delete(&path, node.key()).await.done();
        assert!(other.listed(&key, "").await.is_empty() && api.fleet().await.is_empty());
        node.beat(&api).await.ok::<HeartbeatTaken>();
        assert_eq!(other.listed(&key, "").await, [node.id()]);
        other.stop().await;
        api.stop().await;
    }

    async fn a_heartbeat_is_every_five_seconds_where_the_operator_says_nothing(backend: Backend) {
        let own = skytale_api::ApiConfig::dev("").relay_heartbeat;
        let api = TestApi::start_with(backend, |config| config.relay_heartbeat = own).await;
        let key = api.account("acme").await.key.secret;
        let node = TestRelay::start(&api, "eu-1", |_| {}).await;
        let taken: HeartbeatTaken = node.beat(&api).await.ok();
        assert_eq!((taken.next_ms, taken.expires_ms), (5_000, 15_000));
        api.advance(Duration::from_secs(17));
        assert!(api.listed(&key, "").await.is_empty());
        api.stop().await;
    }

    async fn the_nearest_are_told_first_then_those_with_less_to_do(backend: Backend) {
        let api = TestApi::start_with(backend, |config| {
            config.region = 1;
            config.region_distances = vec!["1-2=80".to_owned(), "1-3=20".to_owned(), "2-3=90".to_owned()];
        })
        .await;
        let key = api.account("acme").await.key.secret;
        let node = async |region: u8, agents: u32| {
            TestRelay::start(&api, "node", |heartbeat| {
                heartbeat.region = region;
                heartbeat.load.agents = agents;
            })
            .await
        };
        let mut calm = node(1, 100).await;
        let busy = node(1, 900).await;
        let (near, far) = (node(3, 0).await, node(2, 0).await);
        let own = [calm.id(), busy.id(), near.id(), far.id()];
        assert_eq!(told(&api, &key, None).await, own);
        assert_eq!(told(&api, &key, Some(1)).await, own);
        assert_eq!(api.listed(&key, "").await, own);
        let from_afar = [far.id(), calm.id(), busy.id(), near.id()];
        assert_eq!(told(&api, &key, Some(2)).await, from_afar);
        assert_eq!(api.listed(&key, "?region=2").await, from_afar);
        assert_eq!(told(&api, &key, Some(200)).await, own, "of a region that nobody knows: from the API's own");
        assert_eq!(api.listed(&key, "?region=2&limit=2").await, from_afar[..2]);

        // Its load changes, and with it the order.
        calm.heartbeat.load.agents = 1_000;
        calm.beat(&api).await.ok::<HeartbeatTaken>();
        assert_eq!(told(&api, &key, None).await[..2], [busy.id(), calm.id()]);
        api.stop().await;
    }

    async fn who_is_behind_comes_late_and_who_drains_last(backend: Backend) {
        let api = TestApi::start(backend).await;
        let key = api.account("acme").await.key.secret;
        let mut first = TestRelay::start(&api, "first", |_| {}).await;
        let second = TestRelay::start(&api, "second", |heartbeat| heartbeat.load.agents = 999).await;
        let elsewhere = TestRelay::start(&api, "elsewhere", |heartbeat| heartbeat.region = 7).await;
        assert_eq!(told(&api, &key, None).await, [first.id(), second.id(), elsewhere.id()]);

        let lag = |messages| vec![
            ShardLag { region: 0, shard: 0, messages: 0 },
            ShardLag { region: 0, shard: 1, messages },
        ];
        first.heartbeat.load.lag = lag(u64::MAX);
        first.beat(&api).await.ok::<HeartbeatTaken>();
        assert_eq!(told(&api, &key, None).await, [second.id(), elsewhere.id(), first.id()]);
        first.heartbeat.load.lag = lag(3);
        first.beat(&api).await.ok::<HeartbeatTaken>();
        assert_eq!(told(&api, &key, None).await, [first.id(), second.id(), elsewhere.id()]);

        first.heartbeat.draining = true;
        first.beat(&api).await.ok::<HeartbeatTaken>();
        assert_eq!(told(&api, &key, None).await, [second.id(), elsewhere.id(), first.id()]);
        assert_eq!(api.listed(&key, "?limit=2").await, [second.id(), elsewhere.id()]);
        let states: Vec<_> = api.fleet().await.iter().map(|relay| (relay.label.clone(), relay.state)).collect();
        assert!(states.contains(&("first".to_owned(), RelayState::Draining)), "{states:?}");
        assert!(states.contains(&("second".to_owned(), RelayState::Live)), "{states:?}");
        first.heartbeat.draining = false;
        first.beat(&api).await.ok::<HeartbeatTaken>();
        assert_eq!(told(&api, &key, None).await[0], first.id());
        api.stop().await;
    }

    async fn the_answer_is_bounded_and_names_another_region_too(backend: Backend) {
        let api = TestApi::start(backend).await;
        let key = api.account("acme").await.key.secret;
        let elsewhere = TestRelay::start(&api, "elsewhere", |heartbeat| heartbeat.region = 9).await;
        for n in 0..11 {
            TestRelay::start(&api, &format!("here-{n}"), |_| {}).await;
        }
        let relays = told(&api, &key, None).await;
        assert_eq!((relays.len(), relays.last()), (8, Some(&elsewhere.id())));
        assert_eq!(api.listed(&key, "").await.len(), 8);
        assert_eq!(api.listed(&key, "?limit=64").await.len(), 12);
        // The operator sees all of them, in pages.
        let (mut after, mut seen) = (String::new(), Vec::new());
        loop {
            let page: Fleet = api.get(&format!("/v1/fleet?limit=5{after}"), ADMIN).await.ok();
            assert!(page.relays.len() <= 5);
            seen.extend(page.relays.iter().map(|relay| relay.endpoint));
            let Some(next) = page.next else { break };
            after = format!("&after={next}");
        }
        assert_eq!((seen.len(), seen.is_sorted_by(|a, b| a < b)), (12, true));
        api.stop().await;
    }

    async fn nodes_without_heartbeats_stay_as_they_are(backend: Backend) {
        let api = TestApi::start(backend).await;
        let key = api.account("acme").await.key.secret;
        let plain = |n: u8| Relay {
            endpoint: EndpointId::from_bytes([n; 32]),
            addresses: vec![format!("192.0.2.{n}:7601")],
            region: 0,
            https_url: None,
        };
        let put = async |relay: &Relay| api.put(&format!("/v1/relays/{}", relay.endpoint), RELAY, relay).await;
        put(&plain(1)).await.done();
        api.advance(Duration::from_secs(3_600));
        assert_eq!(told(&api, &key, None).await, [plain(1).endpoint]);
        put(&plain(2)).await.done();
        let both = [plain(2).endpoint, plain(1).endpoint];
        assert_eq!(told(&api, &key, None).await, both, "the one heard of last is first");

        // One of them is enrolled: from now on its heartbeats alone say whether it is there.
        let mut node = TestRelay::enrol(&api, "was plain").await;
        let registered = Relay { endpoint: node.id(), ..plain(3) };
        api.advance(Duration::from_secs(1));
        put(&registered).await.done();
        assert_eq!(told(&api, &key, None).await[0], node.id());
        node.heartbeat.addresses = vec!["192.0.2.30:7601".to_owned()];
        node.beat(&api).await.ok::<HeartbeatTaken>();
        put(&registered).await.refused(skytale_proto::Code::EnrolmentTaken);
        let relays: Relays = api.get("/v1/relays", &key).await.ok();
        assert_eq!(relays.relays[0].addresses, node.heartbeat.addresses, "known to be there: it comes first");
        assert_eq!(relays.relays.len(), 3);
        api.advance(3 * HEARTBEAT + Duration::from_secs(2));
        assert_eq!(told(&api, &key, None).await, both);
        // The secret that relay nodes share takes out none that has a key of its own.
        node.beat(&api).await.ok::<HeartbeatTaken>();
        let path = format!("/v1/relays/{}", node.id());
        api.delete(&path, RELAY).await.refused(skytale_proto::Code::NotFound);
        api.delete(&format!("/v1/relays/{}", plain(1).endpoint), node.key()).await
            .refused(skytale_proto::Code::NotFound);
        assert_eq!(told(&api, &key, None).await.len(), 3);
        api.stop().await;
    }

    async fn the_operator_sees_what_the_nodes_tell(backend: Backend) {
        let api = TestApi::start(backend).await;
        let mut node = TestRelay::start(&api, "eu-1", |heartbeat| {
            heartbeat.region = 2;
            heartbeat.version = "1.2.3+build".to_owned();
            heartbeat.load.appends_per_second = 1_234;
            heartbeat.load.reads_per_second = 56_789;
            heartbeat.load.lag = vec![ShardLag { region: 2, shard: 7, messages: 5 }];
        })
        .await;
        let fleet = api.fleet().await;
        assert_eq!(fleet.len(), 1);
        let shown = &fleet[0];
        assert_eq!((shown.endpoint, shown.enrolment), (node.id(), node.made.enrolment.id));
        assert_eq!((&*shown.label, &*shown.version, shown.region), ("eu-1", "1.2.3+build", 2));
        assert_eq!((shown.state, &shown.load), (RelayState::Live, &node.heartbeat.load));
        assert!(shown.seen_s <= api.now_s() && shown.seen_s + 300 > api.now_s());
        let page: Enrolments = api.get("/v1/enrolments", ADMIN).await.ok();
        assert_eq!(page.enrolments.len(), 1);
        assert_eq!((page.enrolments[0].endpoint, page.next), (Some(node.id()), None));

        // News is in the audit; a heartbeat without news is not.
        node.beat(&api).await.ok::<HeartbeatTaken>();
        node.heartbeat.load.agents = 17;
        node.beat(&api).await.ok::<HeartbeatTaken>();
        assert!(!contains(&api.database.dump(), "relay.change"));
        node.heartbeat.draining = true;
        node.beat(&api).await.ok::<HeartbeatTaken>();
        api.delete(&format!("/v1/relays/{}", node.id()), node.key()).await.done();
        api.delete(&format!("/v1/enrolments/{}", node.made.enrolment.id), ADMIN).await.done();
        let dump = api.database.dump();
        let actor = format!("enrolment:{}", node.made.enrolment.id);
        for text in ["enrolment.create", "relay.register", "relay.change", "relay.remove", "enrolment.revoke", &actor] {
            assert!(contains(&dump, text), "{text}");
        }
        api.stop().await;
    }

    async fn a_node_that_was_long_gone_is_forgotten(backend: Backend) {
        let api = TestApi::start(backend).await;
        let node = TestRelay::start(&api, "eu-1", |_| {}).await;
        api.advance(Duration::from_secs(7 * 24 * 3_600 + 2));
        assert_eq!(api.fleet().await.len(), 1);
        // Its upkeep begins as it starts.
        let next = api.another().await;
        while !next.fleet().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        node.beat(&next).await.ok::<HeartbeatTaken>();
        assert_eq!(next.fleet().await.len(), 1);
        next.stop().await;
        api.stop().await;
    }
}
