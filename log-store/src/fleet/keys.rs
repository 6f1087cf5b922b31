//! NKeys that are read again from their files, so that a key can be changed while the node runs.
//!
//! ```text
//!   the file has another key ──> try it at each server ── one refuses it ──> go on with the key before, say so, try again
//!                                       └── all that answer take it ──> use it for every connection, and reconnect
//! ```
//!
//! The connection is ended and made again, rather than a second one made beside it: subscriptions, consumers and
//! requests under way belong to one client, and the publisher and the follower already go on over a lost connection
//! without losing an append. The trial already shows that the servers take the key, as a second connection would. So a
//! change costs a few milliseconds, and a wrong key nothing.

use super::config::{FleetConfig, NatsAuth, NatsConfig, Secret, SyncProof};
use super::connect::connect_once;
use super::error::OpenError;
use super::metrics;
use super::node::Node;
use async_nats::connection::State;
use async_nats::{Auth, AuthError, Client};
use nkeys::KeyPair;
use parking_lot::Mutex;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Interval between looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The largest file that can be a seed, in bytes.
const FILE_BYTES_MAX: u64 = 4 * 1024;

/// The seed of an NKey in a file. Clones share the contents that were read.
#[derive(Clone)]
pub struct KeyFile(Arc<Shared>);

struct Shared {
    path: PathBuf,
    state: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Secret for connections.
    current: Option<Secret>,
    /// Reason why the file's key is not used.
    problem: Option<String>,
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyFile").field(&self.0.path).finish()
    }
}

impl KeyFile {
    /// A file that holds the seed of an NKey. It is not read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let shared = Shared {
            path: path.into(),
            state: Mutex::default(),
        };
        Self(Arc::new(shared))
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Reads the file, and uses its contents from now on.
    pub(super) async fn load(&self) -> Result<(), OpenError> {
        let seed = self.read().await.map_err(|error| OpenError::Credentials {
            path: self.0.path.clone(),
            error,
        })?;
        self.0.state.lock().current = Some(seed);
        Ok(())
    }

    async fn read(&self) -> Result<Secret, String> {
        let path = &self.0.path;
        let size = tokio::fs::metadata(path)
            .await
            .map_err(|error| error.to_string())?
            .len();
        if size > FILE_BYTES_MAX {
            return Err(format!("it has {size} bytes, and is no seed of an NKey"));
        }
        let text = tokio::fs::read_to_string(path).await.map(Zeroizing::new);
        let text = text.map_err(|error| error.to_string())?;
        let seed = text.trim();
        KeyPair::from_seed(seed).map_err(|_| "it holds no seed of an NKey".to_owned())?;
        Ok(Secret::new(seed))
    }

    /// Shows a server that this is the holder of the key.
    pub(super) fn sign(&self, nonce: &[u8]) -> Result<Auth, AuthError> {
        let seed = self
            .0
            .state
            .lock()
            .current
            .as_ref()
            .map(|seed| Zeroizing::new(seed.reveal()));
        let seed = seed.ok_or_else(|| AuthError::new("the key was not read"))?;
        let pair = KeyPair::from_seed(&seed).map_err(AuthError::new)?;
        let mut auth = Auth::new();
        auth.nkey = Some(pair.public_key());
        auth.signature = Some(pair.sign(nonce).map_err(AuthError::new)?);
        Ok(auth)
    }

    /// Takes up another key, if the file holds one and the servers take it.
    async fn look(&self, config: &NatsConfig, client: &Client, within: Duration) {
        let connected = client.connection_state() == State::Connected;
        let problem = match self.read().await {
            Ok(seed) if connected && self.is_current(&seed) => None,
            Ok(seed) => match tried(config, &seed, within).await {
                Tried::Nobody => return,
                Tried::Refused { by, taken } if connected || !taken => Some(format!(
                    "NATS servers refuse it, so they must be given it and reloaded: {}",
                    by.join(", ")
                )),
                Tried::Taken | Tried::Refused { .. } => {
                    self.take(seed, client, connected).await;
                    None
                }
            },
            Err(error) => Some(error),
        };
        self.tell(problem);
    }

    fn is_current(&self, seed: &Secret) -> bool {
        let state = self.0.state.lock();
        state
            .current
            .as_ref()
            .is_some_and(|current| current.reveal() == seed.reveal())
    }

    async fn take(&self, seed: Secret, client: &Client, connected: bool) {
        if self.is_current(&seed) {
            return;
        }
        self.0.state.lock().current = Some(seed);
        metrics::key_switched();
        tracing::info!(file = %self.0.path.display(), "another NATS key is used from now on");
        // A client that is not connected takes the key at its next attempt.
        if connected && let Err(error) = client.force_reconnect().await {
            tracing::warn!(%error, "the connection to NATS is closed");
        }
    }

    fn tell(&self, problem: Option<String>) {
        let mut state = self.0.state.lock();
        if let (Some(problem), false) = (&problem, state.problem == problem) {
            tracing::warn!(file = %self.0.path.display(), %problem, "the NATS key in the file is not used");
        }
        state.problem = problem;
    }

    fn problem(&self) -> Option<String> {
        let problem = self.0.state.lock().problem.clone()?;
        Some(format!(
            "the NATS key in {} is not used: {problem}",
            self.0.path.display()
        ))
    }
}

/// Answer of the servers to a key.
enum Tried {
    /// All that answer take it.
    Taken,
    /// Some refuse it. Others may have taken it.
    Refused { by: Vec<String>, taken: bool },
    /// None answers.
    Nobody,
}

/// Tries a key at each server: while servers are given a new key one after the other, some refuse it still.
async fn tried(config: &NatsConfig, seed: &Secret, within: Duration) -> Tried {
    let auth = NatsAuth::NKey(seed.clone());
    let tries = config.servers.iter().map(|server| {
        let (auth, servers) = (&auth, std::slice::from_ref(server));
        async move { (server, connect_once(config, servers, auth, within).await) }
    });
    let (mut by, mut taken) = (Vec::new(), false);
    for (server, outcome) in futures_util::future::join_all(tries).await {
        match outcome {
            Ok(_) => taken = true,
            Err(OpenError::Denied { .. }) => by.push(server.clone()),
            Err(_) => {}
        }
    }
    match (by.is_empty(), taken) {
        (false, taken) => Tried::Refused { by, taken },
        (true, true) => Tried::Taken,
        (true, false) => Tried::Nobody,
    }
}

/// The key files of a node's connections: as a writer of the log, and as one that checks whether servers sync.
fn files(config: &FleetConfig) -> (Option<&KeyFile>, Option<&KeyFile>) {
    let sync = match &config.sync {
        SyncProof::System(auth) => file(auth),
        SyncProof::Stated { .. } => None,
    };
    (file(&config.nats.auth), sync)
}

fn file(auth: &NatsAuth) -> Option<&KeyFile> {
    match auth {
        NatsAuth::NKeyFile(file) => Some(file),
        _ => None,
    }
}

/// Takes up the keys of a node's connections when their files change.
pub(super) async fn follow(node: Arc<Node>) {
    let (nats, within) = (&node.config.nats, node.config.request_timeout);
    let (log, sync) = files(&node.config);
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = node.ended.cancelled() => return,
        }
        let looking = async {
            if let Some(file) = log {
                file.look(nats, &node.client, within).await;
            }
            if let (Some(file), Some(client)) = (sync, node.prober.client()) {
                file.look(nats, client, within).await;
            }
        };
        tokio::select! {
            () = looking => {}
            () = node.ended.cancelled() => return,
        }
        metrics::key_problems(problems(&node.config).len());
    }
}

/// Reasons why keys in files are not used, for `/readyz`.
pub(super) fn problems(config: &FleetConfig) -> Vec<String> {
    let (log, sync) = files(config);
    let files = log.into_iter().chain(sync);
    files.filter_map(KeyFile::problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_holds_no_seed_is_no_key_and_says_so() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = KeyFile::new(dir.path().join("relay.nk"));
        assert!(file.load().await.is_err(), "there is no file");
        for odd in ["", "SUNOTASEED", "UABC"] {
            std::fs::write(file.path(), odd).expect("written");
            let error = file.load().await.expect_err("no seed").to_string();
            assert!(error.contains("relay.nk") && error.contains("no seed"), "{error}");
        }
        assert!(file.sign(b"nonce").is_err());
        let pair = KeyPair::new_user();
        std::fs::write(file.path(), format!("{}\n", pair.seed().expect("a seed"))).expect("written");
        file.load().await.expect("a seed");
        let auth = file.sign(b"nonce").expect("signed");
        assert_eq!(auth.nkey, Some(pair.public_key()));
        pair.verify(b"nonce", &auth.signature.expect("a signature"))
            .expect("its own");
        assert!(!format!("{file:?}").contains(&pair.seed().expect("a seed")));
    }
}
