//! What an acknowledgement of JetStream means: how many copies, and whether each was synced first.
//!
//! `sync_interval: always` is a setting of a server, and no client of an ordinary account is told it. The system account
//! is: every server answers `$SYS.REQ.SERVER.PING.JSZ` with its JetStream settings. A server that does not answer is not
//! known to sync.

use super::config::{FleetConfig, SyncProof};
use super::connect::connect;
use super::error::OpenError;
use async_nats::jetstream::stream::Info;
use futures_util::StreamExt as _;
use serde::Deserialize;
use skytale_proto::session::Durability;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long to wait for a further server to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(700);

/// Asks servers whether they sync.
pub(super) enum Prober {
    System(async_nats::Client),
    Stated(bool),
}

/// What the servers of the streams do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) durability: Durability,
    /// Why it is less than a synced quorum.
    pub(super) problem: Option<String>,
}

impl Prober {
    pub(super) async fn new(config: &FleetConfig) -> Result<Self, OpenError> {
        Ok(match &config.sync {
            SyncProof::Stated { always } => Self::Stated(*always),
            SyncProof::System(auth) => {
                Self::System(connect(&config.nats, auth, config.request_timeout, config.open_timeout).await?)
            }
        })
    }

    /// What an acknowledgement of these streams means. `None` where nobody could say.
    pub(super) async fn meaning(&self, streams: &[Info]) -> Option<Meaning> {
        let fewest = streams.iter().map(|info| info.config.num_replicas).min().unwrap_or(0);
        let unsynced = match self {
            Self::Stated(true) => None,
            Self::Stated(false) => Some("the servers are said not to sync before they acknowledge".to_owned()),
            Self::System(client) => {
                let answers = ask(client).await?;
                let mut servers: BTreeSet<&str> = streams.iter().flat_map(servers_of).collect();
                if servers.is_empty() {
                    // A server alone names no cluster: it is the one that answers.
                    servers.extend(answers.keys().map(String::as_str));
                }
                let without: Vec<&str> = servers
                    .into_iter()
                    .filter(|server| answers.get(*server) != Some(&true))
                    .collect();
                (!without.is_empty())
                    .then(|| format!("sync_interval is not known to be `always` on {}", without.join(", ")))
            }
        };
        Some(match (unsynced, fewest) {
            (Some(problem), _) => Meaning {
                durability: Durability::Unsynced,
                problem: Some(problem),
            },
            (None, 0..=2) => Meaning {
                durability: Durability::NodeSynced,
                problem: Some("a stream has one copy only".into()),
            },
            (None, _) => Meaning {
                durability: Durability::QuorumSynced,
                problem: None,
            },
        })
    }
}

/// The servers that hold a stream.
fn servers_of(info: &Info) -> impl Iterator<Item = &str> {
    let cluster = info.cluster.iter();
    cluster.flat_map(|cluster| {
        let replicas = cluster.replicas.iter().map(|peer| peer.name.as_str());
        cluster.leader.as_deref().into_iter().chain(replicas)
    })
}

#[derive(Deserialize)]
struct Answer {
    server: Server,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Server {
    name: String,
}

#[derive(Deserialize)]
struct Data {
    config: Option<Config>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    sync_always: bool,
}

/// Asks all servers, and gives by name whether each syncs always. `None` where none answers.
async fn ask(client: &async_nats::Client) -> Option<BTreeMap<String, bool>> {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.ok()?;
    let question = client.publish_with_reply("$SYS.REQ.SERVER.PING.JSZ", inbox, "{}".into());
    question.await.ok()?;
    let mut found = BTreeMap::new();
    while let Ok(Some(message)) = tokio::time::timeout(ANSWER_WITHIN, answers.next()).await {
        if let Ok(answer) = serde_json::from_slice::<Answer>(&message.payload) {
            let always = answer
                .data
                .and_then(|data| data.config)
                .is_some_and(|config| config.sync_always);
            found.insert(answer.server.name, always);
        }
    }
    (!found.is_empty()).then_some(found)
}
