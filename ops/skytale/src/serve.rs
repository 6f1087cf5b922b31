//! Servers as a process runs them: started, watched, stopped in order.

use crate::config::{BridgeSetup, RelaySetup, StoreSetup};
use crate::listener;
use crate::local::close_folder;
use crate::output::{Failure, Outcome};
use crate::process_metrics;
use crate::shutdown::{DEADLINE, within_deadline};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use skytale_api::{Api, ApiConfig};
use skytale_bridge::{Bridge, BridgeError};
use skytale_log_store::LogStore;
use skytale_log_store::fleet::{self, FleetStore};
use skytale_log_store::local::LocalStore;
use skytale_proto::Code;
use skytale_relay_node::{RelayNode, RenderMetrics, describe_metrics};
use skytale_sdk::internals::raw::RawClient;
use std::sync::Arc;
use std::time::Duration;

/// Maximum time for agents to leave a relay node that drains.
const DRAIN: Duration = Duration::from_secs(10);
/// Upper bounds of the buckets of durations, in seconds.
const SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];
/// Upper bounds of the buckets of counts and sizes.
const SIZES: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
];

/// A relay node over its store.
pub(crate) struct RelayServer {
    pub node: RelayNode,
    store: Arc<dyn LogStore>,
}

impl RelayServer {
    /// Opens the store and listens.
    pub(crate) async fn start(setup: RelaySetup, metrics: Option<RenderMetrics>) -> Outcome<Self> {
        let log = match &setup.store {
            StoreSetup::Local(config) => &config.dir,
            StoreSetup::Fleet(config) => &config.local.dir,
        };
        // The data folder, and the log in it.
        for folder in [log.parent(), Some(log.as_path())].into_iter().flatten() {
            close_folder(folder)?;
        }
        let store = open(setup.store).await?;
        let mut needed: Vec<_> = setup.node.listen.iter().map(|listen| (*listen, true)).collect();
        needed.extend(setup.node.https.listen.map(|listen| (listen, false)));
        needed.extend(setup.node.admin.enabled.then_some((setup.node.admin.listen, false)));
        match RelayNode::start(setup.node, store.clone(), setup.trust, metrics).await {
            Ok(node) => Ok(Self { node, store }),
            Err(error) => {
                // The first failure is the one to tell.
                let _ = store.close().await;
                let failure = Failure::new(error.code(), "cannot start the relay node").because(&error);
                Err(listener::blame(failure, &needed))
            }
        }
    }

    /// Resolves with the reason when the store takes no more appends by itself.
    pub(crate) async fn broken(&self) -> String {
        let mut stopped = self.store.stopped();
        match stopped.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the log's writer ended".into(),
        }
    }

    /// Drains, syncs, closes.
    pub(crate) async fn stop(self) -> Outcome {
        within_deadline("the relay node", async {
            self.node.drain(DRAIN).await;
            self.node.shutdown().await;
            self.store
                .close()
                .await
                .map_err(|error| Failure::new(error.code(), "cannot close the log").because(&error))
        })
        .await?
    }
}

/// A bridge over its client of the relay.
pub(crate) struct BridgeServer {
    pub bridge: Bridge,
}

impl BridgeServer {
    /// Listens, and begins to look for a relay node.
    pub(crate) async fn start(setup: BridgeSetup, metrics: Option<RenderMetrics>) -> Result<Self, BridgeError> {
        let client = RawClient::open(setup.client).await?;
        let bridge = Bridge::start(setup.config, setup.auth, setup.tls, client, metrics).await?;
        Ok(Self { bridge })
    }

    /// Tells links, writes the frames that they have received, closes.
    pub(crate) async fn stop(self) -> Outcome {
        within_deadline("the bridge", self.bridge.shutdown()).await
    }
}

/// Opens the log.
async fn open(setup: StoreSetup) -> Outcome<Arc<dyn LogStore>> {
    match setup {
        StoreSetup::Local(config) => {
            let dir = config.dir.clone();
            let store = LocalStore::open(config).await.map_err(|error| {
                Failure::new(error.code(), format!("cannot open the log in {}", dir.display())).because(&error)
            })?;
            Ok(Arc::new(store))
        }
        StoreSetup::Fleet(config) => {
            let store = FleetStore::open(*config).await.map_err(|error| fleet_failure(&error))?;
            Ok(Arc::new(store))
        }
    }
}

/// Returns the reason why a node of a fleet does not start: what its operator does is not what an agent does.
fn fleet_failure(error: &fleet::OpenError) -> Failure {
    let failure = Failure::new(error.code(), "cannot open the fleet's log").because(error);
    match error {
        fleet::OpenError::Unreachable { .. } => failure.help(
            "Start the NATS servers, or correct `relay.fleet.nats`: a node without a replica needs one of them at its start. \
             `skytale config check relay --connect` tries each; `skytale fleet doctor` says what they lack.",
        ),
        fleet::OpenError::Denied { .. } => failure.help(
            "Give the servers this node's key: `skytale fleet nats` writes their accounts.conf, and each server is to be reloaded \
             (docs/operating-a-fleet.md).",
        ),
        fleet::OpenError::JetStream { .. } | fleet::OpenError::Stream { .. } | fleet::OpenError::Weaker { .. } => {
            failure.help("`skytale fleet doctor` says what the servers and streams lack, and what mends it.")
        }
        _ => failure,
    }
}

/// Starts the API.
pub(crate) async fn start_api(config: ApiConfig) -> Outcome<Api> {
    let listen = config.listen;
    Api::start(config).await.map_err(|error| {
        let failure = Failure::new(error.code(), format!("cannot start the API on {listen}")).because(&error);
        listener::blame(failure, &[(listen, false)])
    })
}

/// Stops the API: requests that run are answered.
pub(crate) async fn stop_api(api: Api) -> Outcome {
    within_deadline("the API", api.shutdown()).await
}

/// Installs the process's metrics recorder, and keeps it tidy for as long as the runtime lives.
pub(crate) fn metrics() -> Outcome<RenderMetrics> {
    let failing = |error: &dyn std::fmt::Display| {
        Failure::new(Code::Environment, "cannot start collecting metrics").since(error.to_string())
    };
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS)
        .and_then(|builder| builder.set_buckets(SIZES))
        .map_err(|error| failing(&error))?
        .install_recorder()
        .map_err(|error| failing(&error))?;
    describe_metrics();
    skytale_api::describe_metrics();
    process_metrics::describe();
    skytale_bridge::describe_metrics();
    let upkeep = handle.clone();
    // Holds nothing that needs closing: the runtime aborts it.
    tokio::spawn(async move {
        let mut turns = tokio::time::interval(DEADLINE);
        loop {
            turns.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(RenderMetrics::new(move || {
        process_metrics::record();
        handle.render()
    }))
}
