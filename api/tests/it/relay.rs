//! A relay node, as far as the API sees one: an endpoint's key, and an enrolment's.

use crate::agent::random;
use crate::harness::{ADMIN, Answer, Client};
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::json;
use skytale_proto::EndpointId;
use skytale_proto::rest::{
    CreatedEnrolment, Fleet, FleetRelay, Heartbeat, RelayLoad, Relays, enrolment_of, registration_message,
};

/// The secret key of an endpoint.
pub(crate) struct TestEndpoint(SigningKey);

impl TestEndpoint {
    pub(crate) fn new() -> Self {
        Self(SigningKey::from_bytes(&random()))
    }

    pub(crate) fn id(&self) -> EndpointId {
        EndpointId::from_bytes(self.0.verifying_key().to_bytes())
    }

    /// The endpoint's proof towards the enrolment that the key is of.
    pub(crate) fn proof(&self, key: &str) -> String {
        let message = registration_message(&enrolment_of(key).unwrap(), &self.id());
        HEXLOWER.encode(&self.0.sign(&message).to_bytes())
    }
}

/// An enrolled relay node.
pub(crate) struct TestRelay {
    pub endpoint: TestEndpoint,
    pub made: CreatedEnrolment,
    pub heartbeat: Heartbeat,
}

impl TestRelay {
    /// One that has sent no heartbeat yet.
    pub(crate) async fn enrol(client: &Client, label: &str) -> Self {
        let made: CreatedEnrolment = client
            .post("/v1/enrolments", ADMIN, &json!({ "label": label }))
            .await
            .ok();
        let endpoint = TestEndpoint::new();
        let heartbeat = Heartbeat {
            proof: endpoint.proof(&made.secret),
            addresses: vec!["192.0.2.1:7601".to_owned()],
            https_url: Some("https://relay.example.org".to_owned()),
            region: 0,
            version: "0.1.0".to_owned(),
            draining: false,
            load: RelayLoad {
                agents: 0,
                agents_max: 1_000,
                appends_per_second: 0,
                reads_per_second: 0,
                lag: Vec::new(),
            },
            instance: None,
        };
        Self {
            endpoint,
            made,
            heartbeat,
        }
    }

    /// One that has.
    pub(crate) async fn start(client: &Client, label: &str, change: impl FnOnce(&mut Heartbeat)) -> Self {
        let mut relay = Self::enrol(client, label).await;
        change(&mut relay.heartbeat);
        relay.beat(client).await.ok::<skytale_proto::rest::HeartbeatTaken>();
        relay
    }

    pub(crate) fn id(&self) -> EndpointId {
        self.endpoint.id()
    }

    pub(crate) fn key(&self) -> &str {
        &self.made.secret
    }

    pub(crate) fn path(&self) -> String {
        format!("/v1/relays/{}/heartbeat", self.id())
    }

    pub(crate) async fn beat(&self, client: &Client) -> Answer {
        client.put(&self.path(), self.key(), &self.heartbeat).await
    }
}

impl Client {
    /// The directory, as an account sees it.
    pub(crate) async fn listed(&self, key: &str, query: &str) -> Vec<EndpointId> {
        let relays: Relays = self.get(&format!("/v1/relays{query}"), key).await.ok();
        relays.relays.iter().map(|relay| relay.endpoint).collect()
    }

    /// The fleet, as the operator sees it, whole.
    pub(crate) async fn fleet(&self) -> Vec<FleetRelay> {
        let fleet: Fleet = self.get("/v1/fleet?limit=200", ADMIN).await.ok();
        fleet.relays
    }
}
