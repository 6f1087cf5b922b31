//! Asks the servers and streams.

use super::clock::Clock;
use super::commands::Commands;
use crate::fleet::bucket::Bucket;
use crate::fleet::config::{FleetConfig, NatsAuth, SyncProof};
use crate::fleet::connect::connect_once;
use crate::fleet::error::OpenError;
use crate::fleet::shards::{ShardId, Shards};
use crate::fleet::streams::stream_id;
use crate::fleet::vouch::Judged;
use crate::fleet::{bucket, mirror, rights};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::stream::Info;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::Value;
use skytale_proto::Region;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// Maximum time for a server, or a stream, to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
/// Time to wait for a further server to answer.
const FURTHER_WITHIN: Duration = Duration::from_millis(1_000);
/// Servers that answer, at most.
const SERVERS_MAX: usize = 1_000;
/// Streams that are asked for at once.
const STREAMS_AT_ONCE: usize = 32;
/// Number of times that a silent server or stream is asked.
const ROUNDS: usize = 2;

/// All that was answered.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) addresses: Vec<Address>,
    pub(super) servers: Servers,
    pub(super) streams: Vec<Looked>,
    /// Problems in the rights of the node's key; `None` if no server takes it.
    pub(super) rights: Option<Result<Vec<String>, String>>,
    /// Statements of nodes on each shard.
    pub(super) checkpoints: Vec<(ShardId, Result<Judged, String>)>,
}

/// A server's address in the configuration, and who answered there.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) url: String,
    pub(super) greeting: Result<Greeting, Silence>,
}

#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) max_payload: u64,
}

/// Reason why there is no greeting.
#[derive(Debug)]
pub(super) enum Silence {
    /// The server refuses the relay node's key.
    Denied(String),
    /// Nobody answers.
    Nobody(String),
}

/// Statements of servers about themselves.
#[derive(Debug)]
pub(super) enum Servers {
    /// Those that answered.
    Known(Vec<Server>),
    /// Nobody is to be asked: the configuration says so.
    NotAsked,
    /// They could not be asked.
    Unknown(String),
}

impl Facts {
    /// The servers that answered.
    pub(super) fn answering(&self) -> &[Server] {
        match &self.servers {
            Servers::Known(servers) => servers,
            _ => &[],
        }
    }

    /// A server's name, where one server knows it only by its id and others by its name.
    pub(super) fn name_of(&self, name: &str) -> String {
        let id = Commands::peer(name);
        let ids = self.streams.iter().flat_map(|looked| &looked.ids);
        let mut named = ids.filter(|(known, _)| known == id).map(|(_, name)| name);
        let named = named.find(|name| Commands::peer(name) == *name);
        named.map_or_else(|| name.to_owned(), Clone::clone)
    }
}

#[derive(Debug, Default)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) cluster: Option<String>,
    pub(super) version: String,
    pub(super) max_payload: Option<u64>,
    /// `None` where it is disabled.
    pub(super) jetstream: Option<JetStream>,
    pub(super) clock: Option<Clock>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct JetStream {
    pub(super) sync_always: bool,
    pub(super) stored: u64,
    /// `None` where there is no limit.
    pub(super) stored_max: Option<u64>,
    /// Leader of the meta group, as far as this server knows.
    pub(super) meta_leader: Option<String>,
    /// The other servers of the meta group, as this server knows: only the leader's list is whole.
    pub(super) meta_peers: Vec<String>,
    pub(super) meta_size: usize,
}

/// Purpose of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Log(ShardId),
    Mirror(ShardId, Region),
    Checkpoints(Region),
}

/// A stream that should be there.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) role: Role,
    pub(super) name: String,
    pub(super) found: Found,
    /// Ids of the servers of its copies, with their names where these are known.
    pub(super) ids: Vec<(String, String)>,
}

#[derive(Debug)]
pub(super) enum Found {
    There(Box<Info>, Option<Clock>),
    Missing,
    Silent(String),
}

/// Asks all of it.
pub(super) async fn gather(config: &FleetConfig, shards: &Shards) -> Facts {
    let addresses = join_all(config.nats.servers.iter().map(|url| greet(config, url)));
    let (addresses, servers, streams, rights) = tokio::join!(
        addresses,
        servers(config),
        streams(config, shards),
        rights(config, shards)
    );
    let checkpoints = checkpoints(config, &streams).await;
    Facts {
        addresses,
        servers,
        streams,
        rights,
        checkpoints,
    }
}

/// Returns the problems in the rights of the node's key. An operator's key is not judged.
async fn rights(config: &FleetConfig, shards: &Shards) -> Option<Result<Vec<String>, String>> {
    let shard = shards.all().first()?;
    let client = connect(config, &config.nats.servers, &config.nats.auth).await.ok()?;
    let mut problems = match rights::ask(&client, ANSWERS_WITHIN).await {
        Ok(rights) => rights::of_node(&rights, *shard),
        Err(problem) => return Some(Err(problem)),
    };
    if let SyncProof::System(auth) = &config.sync
        && let Ok(client) = connect(config, &config.nats.servers, auth).await
    {
        match rights::ask(&client, ANSWERS_WITHIN).await {
            Ok(rights) => problems.extend(rights::of_sync(&rights)),
            Err(problem) => return Some(Err(problem)),
        }
    }
    Some(Ok(problems))
}

/// Returns the statements of nodes on each shard whose stream and checkpoints exist.
async fn checkpoints(config: &FleetConfig, streams: &[Looked]) -> Vec<(ShardId, Result<Judged, String>)> {
    let Ok(client) = connect(config, &config.nats.servers, &config.nats.auth).await else {
        return Vec::new();
    };
    let context = ContextBuilder::new().timeout(ANSWERS_WITHIN).build(client);
    let is_there = |home: Region| {
        let mut buckets = streams.iter();
        buckets.any(|looked| looked.role == Role::Checkpoints(home) && matches!(looked.found, Found::There(..)))
    };
    let logs = streams.iter().filter_map(|looked| match (&looked.role, &looked.found) {
        (Role::Log(shard), Found::There(info, _)) if is_there(shard.region) => Some((*shard, stream_id(info))),
        _ => None,
    });
    let context = &context;
    let asked = logs.map(|(shard, stream)| async move {
        let judged = match Bucket::there(context, config, shard.region) {
            Ok(bucket) => bucket.judged(shard, stream).await,
            Err(problem) => Err(problem),
        };
        (shard, judged)
    });
    let asked: Vec<_> = asked.collect();
    futures_util::stream::iter(asked)
        .buffered(STREAMS_AT_ONCE)
        .collect()
        .await
}

async fn connect(config: &FleetConfig, servers: &[String], auth: &NatsAuth) -> Result<async_nats::Client, OpenError> {
    // Servers that are gone are tried one after the other.
    let tries = u32::try_from(servers.len()).unwrap_or(u32::MAX);
    let connecting = connect_once(&config.nats, servers, auth, ANSWERS_WITHIN);
    let connected = tokio::time::timeout(ANSWERS_WITHIN * (tries + 1), connecting).await;
    connected.unwrap_or_else(|_| {
        Err(OpenError::Unreachable {
            servers: servers.join(", "),
            error: "no answer".into(),
        })
    })
}

async fn greet(config: &FleetConfig, url: &str) -> Address {
    let greeting = match connect(config, &[url.to_owned()], &config.nats.auth).await {
        Ok(client) => {
            let info = client.server_info();
            Ok(Greeting {
                name: info.server_name,
                version: info.version,
                max_payload: info.max_payload as u64,
            })
        }
        Err(OpenError::Denied { error, .. }) => Err(Silence::Denied(error)),
        Err(OpenError::Unreachable { error, .. }) => Err(Silence::Nobody(error)),
        Err(error) => Err(Silence::Nobody(error.to_string())),
    };
    Address {
        url: url.to_owned(),
        greeting,
    }
}

async fn servers(config: &FleetConfig) -> Servers {
    let SyncProof::System(auth) = &config.sync else {
        return Servers::NotAsked;
    };
    let client = match connect(config, &config.nats.servers, auth).await {
        Ok(client) => client,
        Err(error) => return Servers::Unknown(error.to_string()),
    };
    let mut found = BTreeMap::new();
    for _ in 0..ROUNDS {
        if let Err(error) = ask_servers(&client, &mut found).await {
            return Servers::Unknown(error);
        }
        let known = found
            .values()
            .map(|server: &Server| server.jetstream.as_ref().map_or(0, |there| there.meta_size));
        if found.len() >= known.max().unwrap_or(0).max(1) {
            break;
        }
    }
    if found.is_empty() {
        return Servers::Unknown("no server answers the system account".into());
    }
    Servers::Known(found.into_values().collect())
}

async fn ask_servers(client: &async_nats::Client, found: &mut BTreeMap<String, Server>) -> Result<(), String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| told(&error))?;
    let asked = SystemTime::now();
    let question = client.publish_with_reply("$SYS.REQ.SERVER.PING.VARZ", inbox, "{}".into());
    question.await.map_err(|error| told(&error))?;
    for _ in 0..SERVERS_MAX {
        let Ok(Some(answer)) = tokio::time::timeout(FURTHER_WITHIN, answers.next()).await else {
            break;
        };
        if let Some(server) = read_server(&answer.payload, asked, SystemTime::now()) {
            found.insert(server.name.clone(), server);
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Answer {
    server: Who,
    data: Option<Varz>,
}

#[derive(Deserialize)]
struct Who {
    name: String,
    cluster: Option<String>,
    #[serde(default)]
    ver: String,
    #[serde(default)]
    time: String,
}

#[derive(Deserialize)]
struct Varz {
    max_payload: Option<u64>,
    #[serde(default)]
    jetstream: Jsz,
}

#[derive(Default, Deserialize)]
struct Jsz {
    config: Option<Config>,
    stats: Option<Stats>,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    sync_always: bool,
    #[serde(default)]
    max_storage: i64,
}

#[derive(Deserialize)]
struct Stats {
    #[serde(default)]
    storage: u64,
}

#[derive(Default, Deserialize)]
struct Meta {
    leader: Option<String>,
    #[serde(default)]
    replicas: Vec<Peer>,
    #[serde(default)]
    cluster_size: usize,
}

#[derive(Deserialize)]
struct Peer {
    name: String,
}

fn read_server(answer: &[u8], asked: SystemTime, answered: SystemTime) -> Option<Server> {
    let answer: Answer = serde_json::from_slice(answer).ok()?;
    let (max_payload, jetstream) = match answer.data {
        Some(data) => (data.max_payload, data.jetstream),
        None => (None, Jsz::default()),
    };
    let stats = jetstream.stats;
    let meta = jetstream.meta.unwrap_or_default();
    let jetstream = jetstream.config.map(|config| JetStream {
        sync_always: config.sync_always,
        stored: stats.map_or(0, |stats| stats.storage),
        stored_max: u64::try_from(config.max_storage).ok().filter(|bytes| *bytes > 0),
        meta_leader: meta.leader.filter(|leader| !leader.is_empty()),
        meta_peers: meta.replicas.into_iter().map(|peer| peer.name).collect(),
        meta_size: meta.cluster_size,
    });
    Some(Server {
        clock: Clock::read(&answer.server.time, asked, answered),
        name: answer.server.name,
        cluster: answer.server.cluster,
        version: answer.server.ver,
        max_payload,
        jetstream,
    })
}

/// The streams that should be there.
fn wanted(config: &FleetConfig, shards: &Shards) -> Vec<(Role, String)> {
    let mut wanted = Vec::new();
    for &shard in shards.all() {
        wanted.push((Role::Log(shard), shard.stream()));
        let others = config.regions.iter().map(|region| region.region);
        // A node that follows every stream itself makes no mirrors.
        let others = others.filter(|region| config.here.is_some() && *region != shard.region);
        wanted.extend(others.map(|region| (Role::Mirror(shard, region), mirror::name(shard, region))));
    }
    let buckets = config.regions.iter().map(|region| region.region);
    wanted.extend(buckets.map(|region| (Role::Checkpoints(region), bucket::stream(region))));
    wanted
}

async fn streams(config: &FleetConfig, shards: &Shards) -> Vec<Looked> {
    let wanted = wanted(config, shards);
    let context = match connect(config, &config.nats.servers, &config.nats.auth).await {
        Ok(client) => ContextBuilder::new().timeout(ANSWERS_WITHIN).build(client),
        Err(error) => {
            let silent = |(role, name)| Looked {
                role,
                name,
                found: Found::Silent(error.to_string()),
                ids: Vec::new(),
            };
            return wanted.into_iter().map(silent).collect();
        }
    };
    let context = &context;
    let asked = wanted.into_iter().map(|(role, name)| async move {
        let (mut found, mut ids) = look(context, &name).await;
        for _ in 1..ROUNDS {
            if matches!(found, Found::Silent(_)) {
                (found, ids) = look(context, &name).await;
            }
        }
        Looked { role, name, found, ids }
    });
    futures_util::stream::iter(asked)
        .buffered(STREAMS_AT_ONCE)
        .collect()
        .await
}

async fn look(context: &async_nats::jetstream::Context, name: &str) -> (Found, Vec<(String, String)>) {
    let asked = SystemTime::now();
    let answer = context.request::<_, _, Value>(format!("STREAM.INFO.{name}"), &()).await;
    let answered = SystemTime::now();
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return (Found::Silent(error.to_string()), Vec::new()),
    };
    let replicas = answer["cluster"]["replicas"].as_array().into_iter().flatten();
    let ids = replicas.filter_map(|peer| Some((peer["peer"].as_str()?.to_owned(), peer["name"].as_str()?.to_owned())));
    let ids = ids.collect();
    (read_stream(answer, asked, answered), ids)
}

fn read_stream(answer: Value, asked: SystemTime, answered: SystemTime) -> Found {
    if let Some(error) = answer.get("error") {
        if error["err_code"] == ErrorCode::STREAM_NOT_FOUND.0 {
            return Found::Missing;
        }
        let said = error["description"]
            .as_str()
            .unwrap_or("an error without a description");
        return Found::Silent(format!("{said} ({})", error["err_code"]));
    }
    let clock = answer["ts"]
        .as_str()
        .and_then(|said| Clock::read(said, asked, answered));
    match serde_json::from_value::<Info>(answer) {
        Ok(info) => Found::There(Box::new(info), clock),
        Err(error) => Found::Silent(format!("its answer is not understood: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_tells_of_itself_and_one_without_jetstream_too() {
        let now = SystemTime::now();
        let answer = r#"{"server": {"name": "n1", "cluster": "eu", "ver": "2.15.1", "jetstream": true, "time": "2026-11-29T13:34:42Z"},
            "data": {"max_payload": 1048576, "jetstream": {
                "config": {"max_storage": 100, "sync_interval": 120000000000, "sync_always": true},
                "stats": {"storage": 7},
                "meta": {"name": "eu", "leader": "n2", "replicas": [{"name": "n2", "current": true, "active": 5}], "cluster_size": 3}}}}"#;
        let server = read_server(answer.as_bytes(), now, now).expect("a server");
        assert_eq!((server.name.as_str(), server.max_payload), ("n1", Some(1 << 20)));
        let there = server.jetstream.expect("JetStream");
        assert_eq!(
            (there.sync_always, there.stored, there.stored_max),
            (true, 7, Some(100))
        );
        assert_eq!((there.meta_leader.as_deref(), there.meta_size), (Some("n2"), 3));
        let without = r#"{"server": {"name": "n1"}, "data": {"max_payload": 5, "jetstream": {}}}"#;
        let server = read_server(without.as_bytes(), now, now).expect("a server");
        assert_eq!((server.jetstream, server.clock), (None, None));
        assert!(read_server(b"nothing", now, now).is_none());
    }
}
