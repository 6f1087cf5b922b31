//! An account of a cluster, and a node of it.

use crate::LocalConfig;
use crate::fleet::{FleetConfig, KnownNodes, NatsAuth, NatsConfig, NatsTls, RegionConfig, Secret, Signer, SyncProof};
use async_nats::jetstream;
use nkeys::{KeyPair, KeyPairType};
use skytale_proto::Region;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Maximum time for a server to take a connection, and for a stream's leader to answer: an election on a busy machine
/// takes longer than a client waits for one answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(120);
/// The pause before a question is repeated.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// An account of a cluster.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its user.
    pub user: String,
    /// Addresses of all servers.
    pub servers: Vec<String>,
    /// The file that names the nodes of its fleet: each is added when its settings are made.
    pub nodes_file: PathBuf,
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
            nodes_file: self.nodes_file.clone(),
        }
    }

    /// Returns the signer of the node with its replica in a folder: known to the others from now on.
    pub fn signer(&self, dir: &Path) -> Signer {
        let name = dir.display().to_string();
        let signer = stranger(&name);
        let line = format!("{} {}\n", name.replace(char::is_whitespace, "_"), signer.public());
        let known = std::fs::read_to_string(&self.nodes_file).unwrap_or_default();
        if !known.contains(&line) {
            let mut file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.nodes_file)
                .expect("opened");
            file.write_all(line.as_bytes()).expect("written");
        }
        signer
    }

    /// Names a node, of which only the key is there.
    pub fn knows(&self, name: &str, signer: &Signer) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.nodes_file)
            .expect("opened");
        file.write_all(format!("{name} {}\n", signer.public()).as_bytes())
            .expect("written");
    }

    /// JetStream, as this account. Retries until a server takes the connection.
    pub async fn context(&self) -> Result<jetstream::Context, String> {
        let begun = Instant::now();
        loop {
            match Box::pin(self.try_context()).await {
                Err(_) if begun.elapsed() < ANSWERS_WITHIN => tokio::time::sleep(AGAIN_AFTER).await,
                connected => return connected,
            }
        }
    }

    /// JetStream, as this account, if a server takes the connection at once.
    pub(super) async fn try_context(&self) -> Result<jetstream::Context, String> {
        Ok(jetstream::new(connect(&self.user, &self.servers).await?))
    }

    /// A stream that exists, with its state and settings. Retries until its leader answers.
    pub async fn stream(&self, name: &str) -> jetstream::stream::Stream {
        let begun = Instant::now();
        loop {
            match Box::pin(self.try_stream(name)).await {
                Ok(stream) => return stream,
                Err(error) => assert!(begun.elapsed() < ANSWERS_WITHIN, "stream {name}: {error}"),
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn try_stream(&self, name: &str) -> Result<jetstream::stream::Stream, String> {
        let context = self.try_context().await?;
        context.get_stream(name).await.map_err(|error| error.to_string())
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
            signer: Some(self.signer(dir)),
            known_nodes: KnownNodes::File(self.nodes_file.clone()),
            // Most tests have one node.
            witnesses: 1,
            ..FleetConfig::new(nats, SyncProof::System(password("sys")), LocalConfig::new(dir))
        }
    }
}

/// A signing key that is always the same for a name, and that no file of nodes names.
pub fn stranger(name: &str) -> Signer {
    let seed = *blake3::hash(name.as_bytes()).as_bytes();
    let pair = KeyPair::new_from_raw(KeyPairType::User, seed).expect("a key");
    Signer::new(&pair.seed().expect("a seed")).expect("a signer")
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
