//! Meaning of an acknowledgement of JetStream: the number of copies, and whether each was synced first.
//!
//! `sync_interval: always` is a setting of a server, and no client of an ordinary account learns it. The system account
//! is: every server answers `$SYS.REQ.SERVER.PING.JSZ` with its JetStream settings.
//!
//! A server that does not answer, or whose JetStream is off because its disk is full, says nothing about its setting. That is
//! no reason to stop: what a stream acknowledges rests on a majority of its copies, so it is enough that a majority is known
//! to sync. Those that cannot be read are named, and asked once more soon. A server that says that it does not sync is another
//! matter: a majority may rest on it.

use super::config::{FleetConfig, SyncProof};
use super::connect::{connect, connect_later};
use super::error::OpenError;
use super::guard::Contradiction;
use super::health::Phase;
use super::metrics;
use super::node::Node;
use super::streams::{self, Found};
use async_nats::jetstream::stream::Info;
use futures_util::StreamExt as _;
use serde::Deserialize;
use skytale_proto::session::Durability;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Maximum time until a question is sent.
const SENT_WITHIN: Duration = Duration::from_secs(2);
/// Time to wait for a further server to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(700);
/// Time after which the question is repeated if a server could not be read.
const UNREAD_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Asks servers whether they sync.
pub(super) enum Prober {
    System(async_nats::Client),
    Stated(bool),
}

/// Behaviour of the streams' servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) durability: Durability,
    /// Reason why it is less than a synced quorum.
    pub(super) problem: Option<String>,
    /// Servers that hold copies and whose setting could not be read; a majority of each stream's is known.
    pub(super) unread: Vec<String>,
}

/// Report of a server about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// It syncs before it acknowledges.
    Always,
    /// It acknowledges first.
    Weaker,
    /// Its JetStream is off: it keeps nothing now.
    Off,
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

    /// Returns the meaning of an acknowledgement of these streams. If the meaning is unknown, the error names the
    /// servers that could not be asked.
    pub(super) async fn meaning(&self, streams: &[Info]) -> Result<Meaning, String> {
        let fewest = streams.iter().map(|info| info.config.num_replicas).min().unwrap_or(0);
        let mut unread = Vec::new();
        let unsynced = match self {
            Self::Stated(true) => None,
            Self::Stated(false) => Some("the servers are said not to sync before they acknowledge".to_owned()),
            Self::System(client) => {
                let said = ask(client).await.ok_or_else(|| {
                    "no server of the system account says whether sync_interval is `always`".to_owned()
                })?;
                let copies: Vec<Copies> = streams.iter().map(Copies::of).collect();
                unread = unread_of(&copies, &said)?;
                let weaker = names(servers(&copies, &said).filter(|server| said.get(*server) == Some(&Said::Weaker)));
                (!weaker.is_empty()).then(|| format!("sync_interval is not `always` on {weaker}"))
            }
        };
        let (durability, problem) = match (unsynced, fewest) {
            (Some(problem), _) => (Durability::Unsynced, Some(problem)),
            (None, 0..=2) => (Durability::NodeSynced, Some("a stream has one copy only".to_owned())),
            (None, _) => (Durability::QuorumSynced, None),
        };
        Ok(Meaning {
            durability,
            problem,
            unread,
        })
    }
}

/// The servers that hold a stream, by name.
#[derive(Debug)]
struct Copies {
    /// None where a server alone names no cluster: it is the one that answers.
    servers: Vec<Server>,
    /// Copies that are to be.
    wanted: usize,
}

#[derive(Debug)]
struct Server {
    name: String,
    /// Its leader has heard from it, as far as that knows: a server that is away syncs nothing, and acknowledges
    /// nothing.
    is_up: bool,
}

impl Copies {
    fn of(info: &Info) -> Self {
        let mut servers = Vec::new();
        if let Some(cluster) = &info.cluster {
            servers.extend(cluster.leader.iter().map(|name| Server {
                name: name.clone(),
                is_up: true,
            }));
            servers.extend(cluster.replicas.iter().map(|peer| Server {
                name: peer.name.clone(),
                is_up: !peer.offline,
            }));
        }
        Self {
            servers,
            wanted: info.config.num_replicas.max(1),
        }
    }

    const fn majority(&self) -> usize {
        self.wanted / 2 + 1
    }
}

/// The servers that hold any of these and are up.
fn servers<'a>(copies: &'a [Copies], said: &'a BTreeMap<String, Said>) -> impl Iterator<Item = &'a str> {
    let alone = copies.iter().all(|copies| copies.servers.is_empty());
    let named = copies.iter().flat_map(|copies| &copies.servers);
    let up = named.filter(|server| server.is_up).map(|server| server.name.as_str());
    let found: BTreeSet<&str> = up.chain(said.keys().filter(|_| alone).map(String::as_str)).collect();
    found.into_iter()
}

/// The servers whose setting is not known. An error, where that leaves a stream without a majority that is known: nobody can say.
fn unread_of(copies: &[Copies], said: &BTreeMap<String, Said>) -> Result<Vec<String>, String> {
    let told = |server: &str| matches!(said.get(server), Some(Said::Always | Said::Weaker));
    let unread: Vec<&str> = servers(copies, said).filter(|server| !told(server)).collect();
    let short = copies.iter().any(|copies| {
        let known = copies.servers.iter().filter(|server| told(&server.name)).count();
        !copies.servers.is_empty() && known < copies.majority()
    });
    if short || (copies.iter().any(|copies| copies.servers.is_empty()) && !unread.is_empty()) {
        return Err(format!(
            "sync_interval is not known to be `always` on {}",
            names(unread.into_iter())
        ));
    }
    let why = |server: &str| match said.get(server) {
        Some(Said::Off) => format!("{server} (its JetStream is off: is its disk full?)"),
        _ => format!("{server} (it does not answer)"),
    };
    Ok(unread.into_iter().map(why).collect())
}

fn names<'a>(servers: impl Iterator<Item = &'a str>) -> String {
    servers.collect::<Vec<&str>>().join(", ")
}

/// Asks from time to time what an acknowledgement means, and whenever a shard was checked.
pub(super) async fn ask_again(node: Arc<Node>) {
    let mut pause = node.config.ask_sync_every;
    loop {
        if !node.unread.lock().is_empty() {
            pause = pause.min(UNREAD_AGAIN_AFTER);
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = node.ask_sync.notified() => {}
            () = node.ended.cancelled() => return,
        }
        pause = node.config.ask_sync_every;
        let mut infos = Vec::new();
        for shard in node.handles.values() {
            // While servers are away nobody can say, and nothing is acknowledged by those.
            if shard.health.lock().phase != Phase::Unreachable
                && let Ok(Found::There(info)) = streams::find(&node.context, &shard.id.stream()).await
                && info.cluster.as_ref().is_none_or(|cluster| cluster.leader.is_some())
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
                tracing::warn!(%problem, "it is asked once more later");
                continue;
            }
        };
        node.cannot_read(&meaning.unread);
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

impl Node {
    /// Notes which servers' settings could not be read, for the node's health.
    pub(super) fn cannot_read(&self, unread: &[String]) {
        let before = std::mem::replace(&mut *self.unread.lock(), unread.to_vec());
        metrics::servers_unread(unread.len());
        if before != unread && !unread.is_empty() {
            tracing::warn!(servers = %unread.join(", "), "whether these servers sync is not known; a majority of each stream's do");
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    server: Name,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    disabled: bool,
    config: Option<Config>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    sync_always: bool,
}

impl Data {
    /// `None` where it says nothing of its setting.
    fn said(&self) -> Option<Said> {
        match &self.config {
            _ if self.disabled => Some(Said::Off),
            None => None,
            Some(config) if config.sync_always => Some(Said::Always),
            Some(_) => Some(Said::Weaker),
        }
    }
}

/// Asks all servers, and gives by name what each says. `None` where none answers.
async fn ask(client: &async_nats::Client) -> Option<BTreeMap<String, Said>> {
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
        if let Ok(answer) = serde_json::from_slice::<Answer>(&message.payload)
            && let Some(said) = answer.data.and_then(|data| data.said())
        {
            found.insert(answer.server.name, said);
        }
    }
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copies(servers: &[(&str, bool)]) -> Copies {
        let server = |(name, is_up): &(&str, bool)| Server {
            name: (*name).to_owned(),
            is_up: *is_up,
        };
        Copies {
            servers: servers.iter().map(server).collect(),
            wanted: 3,
        }
    }

    fn said(servers: &[(&str, Said)]) -> BTreeMap<String, Said> {
        servers.iter().map(|(name, said)| ((*name).to_owned(), *said)).collect()
    }

    #[test]
    fn a_majority_that_is_known_is_enough_and_the_rest_is_named() {
        let streams = [copies(&[("n0", true), ("n1", true), ("n2", true)])];
        let all = [("n0", Said::Always), ("n1", Said::Always), ("n2", Said::Always)];
        assert_eq!(unread_of(&streams, &said(&all)), Ok(Vec::new()));
        let silent = unread_of(&streams, &said(&all[..2])).expect("two of three");
        assert_eq!(silent, ["n2 (it does not answer)"]);
        let off = [all[0], all[1], ("n2", Said::Off)];
        let off = unread_of(&streams, &said(&off)).expect("two of three");
        assert!(off[0].starts_with("n2 (its JetStream is off"), "{off:?}");
        let one = unread_of(&streams, &said(&all[..1])).expect_err("one of three");
        assert!(one.ends_with("on n1, n2"), "{one}");
        // A copy that is away is not asked, and does not count either.
        let away = [copies(&[("n0", true), ("n1", true), ("n2", false)])];
        assert_eq!(unread_of(&away, &said(&all[..2])), Ok(Vec::new()));
        assert!(unread_of(&away, &said(&all[..1])).is_err());
    }

    #[test]
    fn each_stream_needs_a_majority_of_its_own() {
        let streams = [
            copies(&[("n0", true), ("n1", true), ("n2", true)]),
            copies(&[("m0", true), ("m1", true), ("m2", true)]),
        ];
        let some = [
            ("n0", Said::Always),
            ("n1", Said::Always),
            ("n2", Said::Always),
            ("m0", Said::Always),
        ];
        assert!(unread_of(&streams, &said(&some)).is_err());
    }

    #[test]
    fn a_server_alone_is_the_one_that_answers() {
        let alone = [Copies {
            servers: Vec::new(),
            wanted: 1,
        }];
        assert_eq!(unread_of(&alone, &said(&[("n0", Said::Always)])), Ok(Vec::new()));
        assert!(unread_of(&alone, &said(&[("n0", Said::Off)])).is_err());
    }

    #[test]
    fn jetstream_that_is_off_is_no_setting() {
        let read = |text| {
            serde_json::from_str::<Answer>(text)
                .expect("an answer")
                .data
                .and_then(|data| data.said())
        };
        let always = r#"{"server":{"name":"n0"},"data":{"config":{"max_memory":1,"sync_always":true}}}"#;
        assert_eq!(read(always), Some(Said::Always));
        let weaker = r#"{"server":{"name":"n0"},"data":{"config":{"max_memory":1,"sync_interval":120000000000}}}"#;
        assert_eq!(read(weaker), Some(Said::Weaker));
        let off = r#"{"server":{"name":"n0"},"data":{"disabled":true,"config":{"max_memory":0}}}"#;
        assert_eq!(read(off), Some(Said::Off));
        assert_eq!(read(r#"{"server":{"name":"n0"},"error":{"code":503}}"#), None);
    }
}
