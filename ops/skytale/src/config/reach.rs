//! Addresses bound and connections tried, as a server does at its start. Bound addresses are given back.

use super::bridge::Checked;
use super::check::Usable;
use super::relay::{RelaySetup, StoreSetup};
use super::{Loaded, Problems};
use crate::listener;
use crate::output::Failure;
use skytale_api::{ApiConfig, reach_database};
use skytale_log_store::fleet::{self, FleetConfig, NatsAuth, NatsConfig, SyncProof};
use skytale_proto::Code;
use skytale_proto::rest::Relays;
use skytale_relay_node::{ReachError, TrustSource, reach_api};
use skytale_sdk::internals::net::Method;
use skytale_sdk::{ApiClient, ApiError};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

/// Advice if nobody answers as the API does.
const API_AWAY: &str = "Is the API running, and is this its address?";
/// Maximum time for one connection.
const WITHIN: Duration = Duration::from_secs(5);

impl Loaded {
    /// Tries what the parts need. Keys that are known to be wrong are left out.
    pub(super) async fn reach(&self, usable: Usable, problems: &mut Problems) {
        if let Some(api) = &usable.api {
            self.reach_api(api, problems).await;
        }
        if let Some(relay) = &usable.relay {
            self.reach_relay(relay, problems).await;
        }
        if let Some(bridge) = usable.bridge {
            self.reach_bridge(bridge, problems).await;
        }
        if let Some(agent) = usable.agent {
            self.reach_with_key("api_url", &self.config.api_url, &agent, problems)
                .await;
        }
    }

    async fn reach_api(&self, api: &ApiConfig, problems: &mut Problems) {
        self.bind_tcp("api.listen", api.listen, problems);
        if problems.has("api.database") {
            return;
        }
        let reached = reach_database(&api.database).await.map_err(|error| {
            let what = format!(
                "cannot reach the database (`api.database`, {})",
                self.source("api.database")
            );
            let failure = Failure::new(error.code(), what).because(&error);
            failure.help("Is the database running there, and does it know this user, password and name?")
        });
        problems.take("api.database", reached);
    }

    async fn reach_relay(&self, setup: &RelaySetup, problems: &mut Problems) {
        for listen in &setup.node.listen {
            let bound = UdpSocket::bind(listen).map(|_| ());
            self.bound("relay.listen", *listen, "UDP", bound, problems);
        }
        if setup.node.admin.enabled {
            self.bind_tcp("relay.admin.listen", setup.node.admin.listen, problems);
        }
        if let Some(listen) = setup.node.https.listen {
            self.bind_tcp("relay.https.listen", listen, problems);
        }
        if !problems.has("relay.api_url") && !problems.has("relay.relay_secret") {
            self.reach_as_relay(setup, problems).await;
        }
        if let StoreSetup::Fleet(fleet) = &setup.store {
            self.reach_nats(fleet, problems).await;
        }
    }

    async fn reach_bridge(&self, bridge: Checked, problems: &mut Problems) {
        self.bind_tcp("bridge.listen", bridge.config.listen, problems);
        if let Some(admin) = bridge.config.admin_listen {
            self.bind_tcp("bridge.admin_listen", admin, problems);
        }
        if let (Some(api), Some(url)) = (&bridge.api, &self.config.bridge.api_url) {
            self.reach_with_key("bridge.api_url", url, api, problems).await;
        }
    }

    fn bind_tcp(&self, key: &str, listen: SocketAddr, problems: &mut Problems) {
        let bound = TcpListener::bind(listen).map(|_| ());
        self.bound(key, listen, "TCP", bound, problems);
    }

    fn bound(
        &self,
        key: &str,
        listen: SocketAddr,
        transport: &str,
        bound: std::io::Result<()>,
        problems: &mut Problems,
    ) {
        let bound = bound.map_err(|error| {
            let what = format!("cannot listen on {listen} ({transport}; `{key}`, {})", self.source(key));
            let failure = Failure::new(Code::Environment, what).because(&error);
            match error.kind() {
                std::io::ErrorKind::AddrInUse => {
                    let failure = match listener::on(listen) {
                        Some(holder) => failure.since(format!("{holder} listens there")),
                        None => failure,
                    };
                    failure.help(
                        "If that is this server, which runs already, all is well: leave out `--connect`. Otherwise choose \
                         another address.",
                    )
                }
                _ => failure,
            }
        });
        problems.take(key, bound);
    }

    /// Asks the API what only relay nodes may know: so the secret is tried, too.
    async fn reach_as_relay(&self, setup: &RelaySetup, problems: &mut Problems) {
        let TrustSource::Http { api_url, relay_secret } = &setup.trust else {
            return;
        };
        let Err(error) = reach_api(api_url, relay_secret, &setup.node.trust).await else {
            return;
        };
        let (key, what) = match &error {
            ReachError::Refused(_) => ("relay.relay_secret", "refuses this relay node's secret"),
            ReachError::Url(_) | ReachError::Unreachable(_) => ("relay.api_url", "cannot be reached"),
        };
        let what = format!("the API at {api_url} {what} (`{key}`, {})", self.source(key));
        let help = match &error {
            ReachError::Refused(_) => {
                "Give what the API has as `api.relay_secret`, or all of what `skytale relay enrol` showed for this node."
            }
            ReachError::Url(_) | ReachError::Unreachable(_) => API_AWAY,
        };
        problems.add(key, Failure::new(error.code(), what).because(&error).help(help));
    }

    async fn reach_with_key(&self, key: &str, url: &str, api: &ApiClient, problems: &mut Problems) {
        let relays = api.call::<_, Relays>(Method::Get, "/v1/relays", None::<&()>);
        let source = self.source(key);
        let asked = match tokio::time::timeout(WITHIN, relays).await {
            Ok(Ok(_)) => return,
            Ok(Err(error @ (ApiError::Refused { .. } | ApiError::Config { .. }))) => {
                let what = format!("the API at {url} refuses the key (`{key}`, {source})");
                Failure::new(error.code(), what)
                    .because(&error)
                    .help("Give a key of this API that is in force: `skytale key create` makes one.")
            }
            Ok(Err(error)) => {
                let what = format!("the API at {url} cannot be reached (`{key}`, {source})");
                Failure::new(error.code(), what).because(&error).help(API_AWAY)
            }
            Err(_) => {
                let seconds = WITHIN.as_secs();
                let what = format!("the API at {url} does not answer within {seconds} s (`{key}`, {source})");
                Failure::new(Code::Offline, what).help(API_AWAY)
            }
        };
        problems.add(key, asked);
    }

    async fn reach_nats(&self, config: &FleetConfig, problems: &mut Problems) {
        let sync = match &config.sync {
            SyncProof::System(auth) => Some(auth.clone()),
            SyncProof::Stated { .. } => None,
        };
        let keys = [
            ("relay.fleet.nats_key", Some(config.nats.auth.clone())),
            ("relay.fleet.sync_key", sync),
        ];
        for (key, auth) in keys {
            let Some(auth) = auth.filter(|_| !problems.has(key) && !problems.has("relay.fleet.nats")) else {
                continue;
            };
            self.reach_as(key, config, auth, problems).await;
        }
    }

    async fn reach_as(&self, key: &str, config: &FleetConfig, auth: NatsAuth, problems: &mut Problems) {
        let nats = NatsConfig {
            auth,
            ..config.nats.clone()
        };
        let found = fleet::reach(&nats, WITHIN).await.into_iter().map(|error| {
            // A server that nobody answers at is not about the key.
            let about = match &error {
                fleet::OpenError::Unreachable { .. } => "relay.fleet.nats",
                _ => key,
            };
            let what = format!("cannot connect to a NATS server (`{about}`, {})", self.source(about));
            let help = match &error {
                fleet::OpenError::Unreachable { .. } => {
                    "Start that server, or correct its address. A relay node that has a replica starts without it, too."
                }
                _ => "Give the servers this key: `skytale fleet nats` writes their accounts.conf, and each is to be reloaded.",
            };
            (about.to_owned(), Failure::new(error.code(), what).because(&error).help(help))
        });
        problems.extend(found.collect::<Vec<_>>());
    }
}
