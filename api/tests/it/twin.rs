//! One relay node's key in two processes: one has the place, both learn of it, and a restart waits no longer than it must.

use crate::database::Backend;
use crate::harness::{HEARTBEAT, TestApi, on_both};
use crate::relay::TestRelay;
use reqwest::StatusCode;
use skytale_proto::rest::{Heartbeat, HeartbeatTaken, Problem, Relays};
use skytale_proto::{Code, InstanceId};
use std::time::Duration;

const HERE: &str = "192.0.2.1:7601";
const THERE: &str = "192.0.2.2:7601";

/// A process of the relay node, at an address.
fn process(node: &TestRelay, address: &str) -> Heartbeat {
    Heartbeat {
        addresses: vec![address.to_owned()],
        instance: Some(InstanceId::generate()),
        ..node.heartbeat.clone()
    }
}

async fn taken(api: &TestApi, node: &TestRelay, heartbeat: &Heartbeat) -> HeartbeatTaken {
    api.put(&node.path(), node.key(), heartbeat).await.ok()
}

async fn refused(api: &TestApi, node: &TestRelay, heartbeat: &Heartbeat) -> Problem {
    let answer = api
        .put(&node.path(), node.key(), heartbeat)
        .await
        .refused(Code::RelayTwin);
    assert_eq!(answer.status, StatusCode::CONFLICT);
    serde_json::from_slice(&answer.body).unwrap()
}

/// Returns the addresses to which agents are sent.
async fn addresses(api: &TestApi, key: &str) -> Vec<String> {
    let relays: Relays = api.get("/v1/relays", key).await.ok();
    relays.relays.into_iter().flat_map(|relay| relay.addresses).collect()
}

async fn leave(api: &TestApi, node: &TestRelay, heartbeat: &Heartbeat) -> StatusCode {
    let instance = heartbeat.instance.unwrap();
    let path = format!("/v1/relays/{}?instance={instance}", node.id());
    api.delete(&path, node.key()).await.status
}

on_both! {
    async fn a_second_machine_is_refused_while_the_first_is_there_and_both_are_told(backend: Backend) {
        let api = TestApi::start(backend).await;
        let key = api.account("acme").await.key.secret;
        let node = TestRelay::enrol(&api, "eu-1").await;
        let (first, second) = (process(&node, HERE), process(&node, THERE));
        assert_eq!(taken(&api, &node, &first).await.twin, None);
        for _ in 0..3 {
            let problem = refused(&api, &node, &second).await;
            assert!(problem.retryable && problem.detail.contains(HERE), "{problem:?}");
            let told = taken(&api, &node, &first).await.twin.unwrap();
            assert_eq!(told.addresses, [THERE]);
            // The directory does not move.
            assert_eq!(addresses(&api, &key).await, [HERE]);
        }
        let fleet = api.fleet().await;
        assert_eq!(fleet[0].twin.as_ref().unwrap().addresses, [THERE]);
        // The second one's end is not the first one's.
        assert_eq!(leave(&api, &node, &second).await, StatusCode::NOT_FOUND);
        assert_eq!(addresses(&api, &key).await, [HERE]);
        // A twin that is gone is forgotten.
        api.advance(2 * HEARTBEAT);
        taken(&api, &node, &first).await;
        api.advance(2 * HEARTBEAT);
        assert_eq!(taken(&api, &node, &first).await.twin, None);
        assert_eq!(api.fleet().await[0].twin, None);
        api.stop().await;
    }

    async fn the_place_is_free_when_the_first_leaves_or_is_missed(backend: Backend) {
        let api = TestApi::start(backend).await;
        let key = api.account("acme").await.key.secret;
        let node = TestRelay::enrol(&api, "eu-1").await;
        let (first, second, third) = (process(&node, HERE), process(&node, THERE), process(&node, HERE));
        taken(&api, &node, &first).await;
        // A restart with another address: the process before it said that it goes.
        assert_eq!(leave(&api, &node, &first).await, StatusCode::NO_CONTENT);
        taken(&api, &node, &second).await;
        assert_eq!(addresses(&api, &key).await, [THERE]);
        // And one that was killed: it waits until the earlier one is missed.
        refused(&api, &node, &third).await;
        api.advance(3 * HEARTBEAT + Duration::from_secs(2));
        assert_eq!(taken(&api, &node, &third).await.twin, None);
        assert_eq!(addresses(&api, &key).await, [HERE]);
        // The one that was missed is the later one now.
        refused(&api, &node, &second).await;
        api.stop().await;
    }

    async fn a_restart_in_place_waits_for_nothing_and_a_copy_does_not_pass_for_one(backend: Backend) {
        let api = TestApi::start(backend).await;
        let node = TestRelay::enrol(&api, "eu-1").await;
        let (first, again, copy) = (process(&node, HERE), process(&node, HERE), process(&node, HERE));
        taken(&api, &node, &first).await;
        assert_eq!(taken(&api, &node, &again).await.twin, None);
        assert_eq!(taken(&api, &node, &again).await.twin, None);
        // Two machines that say the same of themselves: the earlier one is heard again.
        taken(&api, &node, &copy).await;
        assert_eq!(taken(&api, &node, &again).await.twin.unwrap().addresses, [HERE]);
        for _ in 0..2 {
            refused(&api, &node, &copy).await;
            assert!(taken(&api, &node, &again).await.twin.is_some());
        }
        api.stop().await;
    }

    async fn a_node_that_does_not_tell_its_process_works_as_before(backend: Backend) {
        let api = TestApi::start(backend).await;
        let key = api.account("acme").await.key.secret;
        let mut node = TestRelay::start(&api, "eu-1", |_| {}).await;
        node.heartbeat.addresses = vec![THERE.to_owned()];
        node.beat(&api).await.ok::<HeartbeatTaken>();
        assert_eq!(addresses(&api, &key).await, [THERE]);
        // Its restart with a version that does.
        taken(&api, &node, &process(&node, THERE)).await;
        node.beat(&api).await.ok::<HeartbeatTaken>();
        api.stop().await;
    }
}
