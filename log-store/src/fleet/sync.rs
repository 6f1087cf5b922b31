//! What an acknowledgement of JetStream means: how many copies, and whether each was synced first.
//!
//! `sync_interval: always` is a setting of a server, and no client of an ordinary account is told it. The system account
//! is: every server answers `$SYS.REQ.SERVER.PING.JSZ` with its JetStream settings. A server that does not answer is not
//! known to sync.

use super::config::{FleetConfig, SyncProof};
use super::connect::{connect, connect_later};
use super::error::OpenError;
use super::guard::Contradiction;
use super::health::Phase;
use super::node::Node;
use super::streams::{self, Found};
use async_nats::jetstream::stream::Info;
use futures_util::StreamExt as _;
use serde::Deserialize;
use skytale_proto::session::Durability;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How long a question may wait until it is sent.
const SENT_WITHIN: Duration = Duration::from_secs(2);
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
    /// With `later`, no server has to answer now.
    pub(super) async fn new(config: &FleetConfig, later: bool) -> Result<Self, OpenError> {
        let (nats, timeout) = (&config.nats, config.request_timeout);
        Ok(match &config.sync {
            SyncProof::Stated { always } => Self::Stated(*always),
            SyncProof::System(auth) if later => Self::System(connect_later(nats, auth, timeout).await?),
            SyncProof::System(auth) => Self::System(connect(nats, auth, timeout, config.open_timeout).await?),
        })
    }

    /// Its connection, if it asks.
    pub(super) const fn client(&self) -> Option<&async_nats::Client> {
        match self {
            Self::System(client) => Some(client),
            Self::Stated(_) => None,
        }
    }

    /// What an acknowledgement of these streams means. An error is who could not be asked: nobody can say.
    pub(super) async fn meaning(&self, streams: &[Info]) -> Result<Meaning, String> {
        let fewest = streams.iter().map(|info| info.config.num_replicas).min().unwrap_or(0);
        let unsynced = match self {
            Self::Stated(true) => None,
            Self::Stated(false) => Some("the servers are said not to sync before they acknowledge".to_owned()),
            Self::System(client) => {
                let answers = ask(client).await.ok_or_else(|| {
                    "no server of the system account says whether sync_interval is `always`".to_owned()
                })?;
                let mut servers: BTreeSet<&str> = streams.iter().flat_map(servers_of).collect();
                if servers.is_empty() {
                    // A server alone names no cluster: it is the one that answers.
                    servers.extend(answers.keys().map(String::as_str));
                }
                let said = |what| {
                    let servers = servers.iter().filter(|server| answers.get(**server) == what);
                    servers.copied().collect::<Vec<&str>>().join(", ")
                };
                let (weaker, silent) = (said(Some(&false)), said(None));
                if weaker.is_empty() && !silent.is_empty() {
                    return Err(format!("sync_interval is not known to be `always` on {silent}"));
                }
                (!weaker.is_empty()).then(|| format!("sync_interval is not `always` on {weaker}"))
            }
        };
        Ok(match (unsynced, fewest) {
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

/// Asks from time to time what an acknowledgement means, and whenever a shard was checked.
pub(super) async fn ask_again(node: Arc<Node>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(node.config.ask_sync_every) => {}
            () = node.ask_sync.notified() => {}
            () = node.ended.cancelled() => return,
        }
        let mut infos = Vec::new();
        for shard in node.handles.values() {
            // While servers are away nobody can say, and nothing is acknowledged by those.
            if shard.health.lock().phase != Phase::Unreachable
                && let Ok(Found::There(info)) = streams::find(&node.context, &shard.id.stream()).await
                && is_settled(&info)
            {
                infos.push(*info);
            }
        }
        if infos.is_empty() {
            continue;
        }
        let meaning = match node.prober.meaning(&infos).await {
            Ok(meaning) => meaning,
            Err(problem) => {
                tracing::warn!(%problem, "it is asked again later");
                continue;
            }
        };
        if infos.len() == node.handles.len() {
            node.durability.send_replace(meaning.durability);
        }
        if let (Some(problem), false) = (meaning.problem, node.config.allow_weaker)
            && let Some(shard) = node.handles.values().next()
        {
            node.stop(shard, &Contradiction::Weaker { problem });
        }
    }
}

/// Whether all servers of a stream are up.
fn is_settled(info: &Info) -> bool {
    info.cluster
        .as_ref()
        .is_none_or(|cluster| cluster.leader.is_some() && cluster.replicas.iter().all(|peer| !peer.offline))
}

/// The servers that hold a stream and are up: who is away syncs nothing, and acknowledges nothing.
fn servers_of(info: &Info) -> impl Iterator<Item = &str> {
    let cluster = info.cluster.iter();
    cluster.flat_map(|cluster| {
        let replicas = cluster.replicas.iter().filter(|peer| !peer.offline);
        let replicas = replicas.map(|peer| peer.name.as_str());
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
    if client.connection_state() != async_nats::connection::State::Connected {
        return None;
    }
    let sent = async {
        let inbox = client.new_inbox();
        let answers = client.subscribe(inbox.clone()).await.ok()?;
        let question = client.publish_with_reply("$SYS.REQ.SERVER.PING.JSZ", inbox, "{}".into());
        question.await.ok()?;
        Some(answers)
    };
    let mut answers = tokio::time::timeout(SENT_WITHIN, sent).await.ok().flatten()?;
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
