//! Starts a fleet, and ends it.

use crate::local::{LocalApi, private_folder, write_private};
use crate::nats::{NatsServers, NodeUsers, free_port};
use crate::output::{Context as _, Failure, Outcome};
use crate::stage::{RelayProcess, settings};
use skytale_log_store::LocalConfig;
use skytale_log_store::fleet::{
    FleetConfig, Keeper, KeyFile, KnownNodes, NatsAuth, NatsConfig, NatsTls, RegionConfig, SyncProof,
};
use skytale_proto::{Code, Region};
use skytale_wire::{Cut, Link};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use toml::Value;
use zeroize::Zeroizing;

/// Names of regions, in the order in which they are taken.
const REGIONS: [&str; 3] = ["eu", "us", "ap"];
/// The name of a single region.
const ALONE: &str = "local";
/// Keepalive interval of relay nodes and agents, in milliseconds: a node that was killed is noticed by its silence,
/// within twice this.
const KEEPALIVE_MS: i64 = 500;
/// Messages of a shard from one checkpoint to the next: few, so that a short run sees some.
const CHECKPOINT_EVERY: i64 = 1_000;
/// The file that names the relay nodes and their signing keys.
const NODES_FILE: &str = "fleet-nodes";
/// Interval at which the keeper looks for messages to purge.
const KEEPER_EVERY: Duration = Duration::from_secs(600);
/// Retention of entries, in seconds: for longer than any demonstration, and for less than a wrong clock is ahead.
const RETENTION_S: i64 = 30 * 24 * 3_600;
/// Interval between heartbeats of relay nodes to the API.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Counts the keys that a node has taken up.
const KEY_SWITCHED: &str = "skytale_fleet_key_switched_total";
/// Maximum time for a node to follow the messages that it has missed.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Parts of a fleet.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub nats_server: PathBuf,
    /// Number of regions, between 1 and 3.
    pub regions: usize,
    /// At least 1.
    pub nodes: usize,
    /// The API's address.
    pub api_listen: SocketAddr,
    /// Links between relay nodes and NATS servers, and between regions: connections that are to be cut go through them.
    pub links: bool,
    /// Intervals of checkpoints and of retention, if not the usual ones.
    pub upkeep: Option<Upkeep>,
}

/// Time for which the nodes of a demonstration serve without the API, in milliseconds: as long as may be set.
const SERVE_WITHOUT_API_MS: i64 = 3_660_000;

/// Recurring work of a fleet that runs for a long time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upkeep {
    /// Messages of a shard from one checkpoint to the next.
    pub checkpoint_every: u32,
    /// Interval at which nodes look for entries that are older than 30 days, in seconds.
    pub retention_check_s: u32,
}

/// A fleet that runs.
#[derive(Debug)]
pub(crate) struct Machine {
    pub api: LocalApi,
    pub nats: NatsServers,
    pub nodes: Vec<Node>,
    keeper: RunningKeeper,
}

/// The keeper, in this process: a relay node's process never has its key.
#[derive(Debug)]
struct RunningKeeper {
    ended: CancellationToken,
    task: JoinHandle<()>,
}

/// A relay node.
#[derive(Debug)]
pub(crate) struct Node {
    pub name: String,
    /// Its region's place in the list.
    pub region: usize,
    pub region_name: String,
    pub relay: RelayProcess,
    /// It was reported that it has ended.
    is_told: bool,
    /// Links to the NATS servers of its region.
    links: Vec<Link>,
}

impl Layout {
    /// Returns the number of nodes that must vouch for a checkpoint.
    fn witnesses(&self) -> i64 {
        if self.nodes > 1 { 2 } else { 1 }
    }

    fn region_names(&self) -> &'static [&'static str] {
        if self.regions == 1 {
            &[ALONE]
        } else {
            REGIONS.get(..self.regions).unwrap_or(&REGIONS)
        }
    }
}

fn node_name(number: usize) -> String {
    format!("relay-{}", number + 1)
}

impl Machine {
    /// Starts all of it with its data in `dir`, and waits until every node is ready. `say` hears how far it is.
    pub(crate) async fn start(dir: &Path, layout: &Layout, say: impl Fn(String)) -> Outcome<Self> {
        private_folder(dir)?;
        let names = layout.region_names();
        let nodes: Vec<String> = (0..layout.nodes).map(node_name).collect();
        let (folder, program) = (dir.join("nats"), layout.nats_server.clone());
        let nats = NatsServers::start(&folder, program, names, &nodes, layout.links).await?;
        let (servers, regions) = (nats.servers().len(), nats.regions.len());
        say(match regions {
            1 => format!("{servers} NATS servers have found each other"),
            regions => format!("{servers} NATS servers in {regions} regions have found each other"),
        });
        // Over a folder of an earlier fleet, nodes are known already, and each has its key.
        let known = dir.join("api.db").is_file();
        let mut listen = layout.api_listen;
        if listen.port() == 0 {
            // It must be free again when the API is started again, so it is none that the system gives to anybody.
            listen.set_port(free_port()?);
        }
        let api = LocalApi::start_for(dir, listen, HEARTBEAT).await?;
        let nodes_file = dir.join(NODES_FILE);
        write_private(&nodes_file, nats.users.known_nodes().as_bytes())?;
        let keeper = RunningKeeper::start(&nats, &nodes_file, layout);
        let mut machine = Self {
            api,
            nats,
            nodes: Vec::new(),
            keeper,
        };
        for number in 0..layout.nodes {
            let node = machine.node(dir, number, known, layout).await?;
            machine.nodes.push(node);
        }
        machine.ready().await?;
        say(format!("{} relay nodes follow one log", machine.nodes.len()));
        Ok(machine)
    }

    async fn node(&self, dir: &Path, number: usize, known: bool, layout: &Layout) -> Outcome<Node> {
        let region = number % self.nats.regions.len();
        let name = node_name(number);
        let mut servers = self.nats.addresses(region);
        let mut links = Vec::new();
        if layout.links {
            for server in &mut servers {
                let link = Link::open(*server).failing(Code::Environment, || "cannot open a link".into())?;
                *server = link.address();
                links.push(link);
            }
        }
        let nodes_file = dir.join(NODES_FILE);
        let dir = dir.join(&name);
        private_folder(&dir)?;
        let users = &self.nats.users.nodes[number];
        let keys = hand_over(&dir, users)?;
        let mut settings = self.settings(region, &servers, &keys, layout.upkeep);
        let checkpoint_key = dir.join("checkpoint.nk");
        copy_key(&users.checkpoint.seed_file, &checkpoint_key)?;
        let signing = [
            (
                "checkpoint_key",
                Value::String(format!("file:{}", checkpoint_key.display())),
            ),
            ("nodes_file", Value::String(nodes_file.display().to_string())),
            ("witnesses", Value::Integer(layout.witnesses())),
        ];
        if let Some(Value::Table(fleet)) = settings.get_mut("fleet") {
            fleet.extend(signing.map(|(key, value)| (key.to_owned(), value)));
        }
        let file = dir.join("enrolment.key");
        if !(known && file.is_file()) {
            write_private(&file, self.api.enrol(&name).await?.as_bytes())?;
        }
        settings.insert("relay_secret".into(), Value::String(format!("file:{}", file.display())));
        let relay = RelayProcess::start(&dir, settings).await?;
        Ok(Node {
            name,
            region,
            region_name: self.nats.regions[region].name.clone(),
            relay,
            is_told: false,
            links,
        })
    }

    fn settings(
        &self,
        region: usize,
        servers: &[SocketAddr],
        keys: &[PathBuf; 2],
        upkeep: Option<Upkeep>,
    ) -> toml::Table {
        let mut settings = settings(&self.api);
        let text = |text: String| Value::String(text);
        let several = self.nats.regions.len() > 1;
        let regions = self.nats.regions.iter().map(|region| {
            let cluster = if several {
                format!("@{}", region.name)
            } else {
                String::new()
            };
            text(format!("{}={}{cluster}", region.number, region.shards))
        });
        let [relay_key, sync_key] = keys;
        let seed = |file: &Path| text(format!("file:{}", file.display()));
        let fleet = [
            (
                "nats",
                Value::Array(servers.iter().map(|server| text(format!("nats://{server}"))).collect()),
            ),
            ("nats_key", seed(relay_key)),
            ("sync_key", seed(sync_key)),
            ("regions", Value::Array(regions.collect())),
            (
                "checkpoint_every",
                Value::Integer(upkeep.map_or(CHECKPOINT_EVERY, |upkeep| i64::from(upkeep.checkpoint_every))),
            ),
        ];
        let mut put = |section: &str, values: Vec<(&str, Value)>| {
            let table = settings
                .entry(section)
                .or_insert_with(|| Value::Table(toml::Table::new()));
            if let Value::Table(table) = table {
                table.extend(values.into_iter().map(|(key, value)| (key.to_owned(), value)));
            }
        };
        put("fleet", fleet.into());
        if let Some(upkeep) = upkeep {
            let every = i64::from(upkeep.retention_check_s);
            put("fleet", vec![("retention_check_s", Value::Integer(every))]);
            // Agents go on while the API is away and a node is killed, also on a slow machine.
            put(
                "trust",
                vec![("serve_without_api_ms", Value::Integer(SERVE_WITHOUT_API_MS))],
            );
        }
        put(
            "admin",
            vec![
                ("enabled", Value::Boolean(true)),
                ("listen", text("127.0.0.1:0".into())),
            ],
        );
        put("session", vec![("keepalive_ms", Value::Integer(KEEPALIVE_MS))]);
        settings.insert("retention_s".into(), Value::Integer(RETENTION_S));
        settings.insert(
            "region".into(),
            Value::Integer(i64::from(self.nats.regions[region].number)),
        );
        settings
    }

    /// Waits until every node says that it is ready.
    pub(crate) async fn ready(&self) -> Outcome {
        for node in &self.nodes {
            node.ready().await?;
        }
        Ok(())
    }

    /// Waits until a node has noticed that a stream differs from its replica.
    pub(crate) async fn halted(&self) -> Outcome {
        let begun = Instant::now();
        loop {
            for node in &self.nodes {
                let Some(admin) = node.relay.admin() else { continue };
                if let Ok((_, body)) = crate::http::get(admin, "/readyz").await
                    && body.contains("takes no appends, and is served as far as it was followed")
                {
                    return Ok(());
                }
            }
            if begun.elapsed() > READY_WITHIN {
                return Err(Failure::new(
                    Code::Mismatch,
                    "no relay node notices that streams went back",
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Changes a relay node's NATS keys while it runs, as docs/operating-a-fleet.md says.
    pub(crate) async fn rotate_nats_keys(&mut self, node: usize) -> Outcome {
        let name = self.nodes[node].name.clone();
        self.nats.rotate_keys(&name).await?;
        let node = &self.nodes[node];
        let before = node.metric(KEY_SWITCHED).await.unwrap_or_default();
        let keys = self.nats.users.nodes.iter().find(|keys| keys.name == name);
        let keys = keys.ok_or_else(|| Failure::new(Code::Environment, format!("{name} has no NATS keys")))?;
        let files = hand_over(node.relay.dir(), keys)?;
        let begun = Instant::now();
        while node.metric(KEY_SWITCHED).await.unwrap_or_default() < before + files.len() as f64 {
            if begun.elapsed() > READY_WITHIN {
                return Err(Failure::new(
                    Code::Mismatch,
                    format!("{name} does not use its new NATS keys"),
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.nats.retire_keys(&name).await
    }

    /// Puts back into the streams what the stopped nodes' replicas hold, as an operator does.
    pub(crate) async fn restore(&self) -> Outcome {
        let restoring = || "cannot put back what replicas hold".to_owned();
        let program = std::env::current_exe().failing(Code::Environment, restoring)?;
        let Some(first) = self.nodes.first() else { return Ok(()) };
        let mut command = tokio::process::Command::new(program);
        command
            .arg("--config")
            .arg(first.relay.dir().join("relay.toml"))
            .args(["fleet", "restore"])
            .args(self.nodes.iter().map(|node| node.relay.dir()))
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        let output = command.output().await.failing(Code::Environment, restoring)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(Failure::new(Code::Mismatch, restoring()).since(said))
    }

    /// Returns the failures of nodes that ended by themselves: each once, as soon as it is noticed.
    pub(crate) fn fallen(&mut self) -> Vec<(String, Failure)> {
        let nodes = self.nodes.iter_mut().filter(|node| !node.is_told);
        nodes
            .filter_map(|node| {
                let ended = node.relay.ended()?;
                node.is_told = true;
                Some((node.name.clone(), ended))
            })
            .collect()
    }

    /// Ends all of it, in order.
    pub(crate) async fn stop(self) -> Outcome {
        let mut first = Ok(());
        for node in self.nodes {
            first = first.and(node.relay.stop().await);
        }
        self.keeper.stop().await;
        first = first.and(self.api.stop().await);
        first.and(self.nats.stop().await)
    }
}

/// Gives a relay node its keys: written beside and renamed, so that it never reads half a file. Says where they are.
fn hand_over(dir: &Path, keys: &NodeUsers) -> Outcome<[PathBuf; 2]> {
    let files = [("relay.nk", &keys.relay), ("relay-sync.nk", &keys.sync)];
    let files = files.map(|(name, key)| {
        let file = dir.join(name);
        copy_key(&key.now.seed_file, &file)?;
        Ok(file)
    });
    let [relay, sync] = files;
    Ok([relay?, sync?])
}

fn copy_key(made: &Path, file: &Path) -> Outcome {
    let copying = || format!("cannot copy {} to {}", made.display(), file.display());
    let seed = std::fs::read(made)
        .map(Zeroizing::new)
        .failing(Code::Environment, copying)?;
    let beside = file.with_extension("new");
    write_private(&beside, &seed)?;
    std::fs::rename(&beside, file).failing(Code::Environment, copying)
}

impl RunningKeeper {
    fn start(nats: &NatsServers, nodes_file: &Path, layout: &Layout) -> Self {
        let several = nats.regions.len() > 1;
        let regions = nats.regions.iter().map(|region| RegionConfig {
            region: Region(region.number),
            shards: region.shards,
            cluster: several.then(|| region.name.clone()),
            tags: Vec::new(),
        });
        let servers = (0..nats.regions.len()).flat_map(|region| nats.addresses(region));
        let connection = NatsConfig {
            servers: servers.map(|server| format!("nats://{server}")).collect(),
            auth: NatsAuth::NKeyFile(KeyFile::new(&nats.users.keeper.now.seed_file)),
            tls: NatsTls::default(),
            name: "skytale keeper".into(),
            inbox_prefix: None,
        };
        let keeper = Keeper::new(FleetConfig {
            regions: regions.collect(),
            known_nodes: KnownNodes::File(nodes_file.to_owned()),
            witnesses: usize::try_from(layout.witnesses()).unwrap_or(1),
            retention: Some(Duration::from_secs(RETENTION_S.unsigned_abs())),
            // It connects for each round, and a server that is just reloaded refuses whoever does: seldom enough.
            retention_every: KEEPER_EVERY,
            ..FleetConfig::new(connection, SyncProof::Stated { always: true }, LocalConfig::new(""))
        });
        let ended = CancellationToken::new();
        let token = ended.clone();
        let task = tokio::spawn(async move {
            // Failed work is retried, and logged.
            keeper.run(&token, |_| {}).await;
        });
        Self { ended, task }
    }

    async fn stop(self) {
        self.ended.cancel();
        // It has nothing to put in order.
        let _ = self.task.await;
    }
}

impl Node {
    /// A metric without labels, if the node answers and has it.
    async fn metric(&self, name: &str) -> Option<f64> {
        let (_, page) = crate::http::get(self.relay.admin()?, "/metrics").await.ok()?;
        let mut lines = page.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Agents in session.
    pub(crate) async fn agents(&self) -> Option<u64> {
        self.metric("skytale_relay_sessions").await.map(|agents| agents as u64)
    }

    /// Waits until it says this of itself, ready or not.
    pub(crate) async fn says(&self, ready: bool, what: &[&str]) -> Outcome {
        let begun = Instant::now();
        loop {
            let said = self.readiness().await;
            if said
                .as_ref()
                .is_ok_and(|(is, body)| *is == ready && what.iter().any(|what| body.contains(what)))
            {
                return Ok(());
            }
            if begun.elapsed() > READY_WITHIN {
                let state = if ready { "ready" } else { "not ready" };
                let wanted = format!(
                    "{} does not say that it is {state} and that {}",
                    self.name,
                    what.join(" or ")
                );
                let said = said.map_or_else(|error| error.to_string(), |(_, body)| body);
                return Err(Failure::new(Code::Mismatch, wanted).since(said));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Whether it is ready, and all that it says of that.
    async fn readiness(&self) -> std::io::Result<(bool, String)> {
        let Some(admin) = self.relay.admin() else {
            return Ok((true, String::new()));
        };
        let (status, body) = crate::http::get(admin, "/readyz").await?;
        Ok((status == 200, body))
    }

    /// Cuts it off from all NATS servers.
    pub(crate) fn cut_off(&self, how: Cut) {
        self.links.iter().for_each(|link| link.cut(how));
    }

    /// And mends that.
    pub(crate) fn join_again(&self) {
        self.links.iter().for_each(Link::mend);
    }

    /// Returns the folder of its replica.
    pub(crate) fn log(&self) -> PathBuf {
        self.relay.dir().join("log")
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn ready(&self) -> Outcome {
        let begun = Instant::now();
        loop {
            let said = match self.readiness().await {
                Ok((true, _)) => return Ok(()),
                Ok((_, body)) => body,
                Err(error) => error.to_string(),
            };
            if begun.elapsed() > READY_WITHIN {
                let what = format!("{} does not get ready", self.name);
                return Err(Failure::new(Code::Environment, what).since(said));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
