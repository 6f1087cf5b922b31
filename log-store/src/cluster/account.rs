//! An account of a cluster, and a node of it.

use crate::LocalConfig;
use crate::fleet::{FleetConfig, NatsAuth, NatsConfig, NatsTls, RegionConfig, Secret, SyncProof};
use async_nats::jetstream;
use skytale_proto::Region;
use std::path::Path;
use std::time::Duration;

/// An account of a cluster.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its user.
    pub user: String,
    /// Addresses of all servers.
    pub servers: Vec<String>,
}

/// Addresses on 127.0.0.1.
pub(super) fn addresses(ports: &[u16]) -> Vec<String> {
    ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect()
}

impl Account {
    /// The same account, reached by other ports: of links to the servers.
    #[must_use]
    pub fn through(&self, ports: &[u16]) -> Self {
        Self {
            user: self.user.clone(),
            servers: addresses(ports),
        }
    }

    /// JetStream, as this account.
    pub async fn context(&self) -> Result<jetstream::Context, String> {
        Ok(jetstream::new(connect(&self.user, &self.servers).await?))
    }

    /// Settings of a node of this account's fleet in a test, with its replica in a folder: few shards, short times.
    pub fn settings(&self, dir: &Path) -> FleetConfig {
        let nats = NatsConfig {
            servers: self.servers.clone(),
            auth: password(&self.user),
            tls: NatsTls::default(),
            name: dir.display().to_string(),
            inbox_prefix: None,
        };
        FleetConfig {
            regions: vec![RegionConfig {
                region: Region(0),
                shards: 2,
                cluster: None,
                tags: Vec::new(),
            }],
            verify_every: Duration::from_millis(500),
            alarm_after: Duration::from_secs(2),
            welcome_grace: Duration::from_secs(1),
            ..FleetConfig::new(nats, SyncProof::System(password("sys")), LocalConfig::new(dir))
        }
    }
}

pub(super) fn password(user: &str) -> NatsAuth {
    NatsAuth::Password {
        user: user.to_owned(),
        password: Secret::new("secret"),
    }
}

pub(super) async fn connect(user: &str, servers: &[String]) -> Result<async_nats::Client, String> {
    let options = async_nats::ConnectOptions::with_user_and_password(user.to_owned(), "secret".into());
    options.connect(servers).await.map_err(|error| error.to_string())
}
