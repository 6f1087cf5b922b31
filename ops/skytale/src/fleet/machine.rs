//! Starts a fleet, and ends it.

use crate::local::{LocalApi, private_folder, write_private};
use crate::nats::NatsServers;
use crate::output::{Context as _, Failure, Outcome};
use crate::serve::stop_api;
use crate::stage::{RelayProcess, settings};
use skytale_proto::Code;
use skytale_wire::{Cut, Link};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use toml::Value;

/// Names of regions, in the order in which they are taken.
const REGIONS: [&str; 3] = ["eu", "us", "ap"];
/// The name of a single region.
const ALONE: &str = "local";
/// How often relay nodes and agents say that they are there, in milliseconds: a node that was killed is noticed by its
/// silence, within twice this.
const KEEPALIVE_MS: i64 = 500;
/// Messages of a shard from one checkpoint to the next: few, so that a short run sees some.
const CHECKPOINT_EVERY: i64 = 1_000;
/// How often relay nodes tell the API that they are there.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long a node may take to follow what it has missed.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// What a fleet is made of.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub nats_server: PathBuf,
    /// Between 1 and 3.
    pub regions: usize,
    /// At least 1.
    pub nodes: usize,
    /// The API's address.
    pub api_listen: SocketAddr,
    /// Links between relay nodes and NATS servers, and between regions: what is to be cut goes through them.
    pub links: bool,
}

/// A fleet that runs.
#[derive(Debug)]
pub(crate) struct Machine {
    pub api: LocalApi,
    pub nats: NatsServers,
    pub nodes: Vec<Node>,
}

/// A relay node.
#[derive(Debug)]
pub(crate) struct Node {
    pub name: String,
    /// Its region's place in the list.
    pub region: usize,
    pub region_name: String,
    pub relay: RelayProcess,
    /// What it reaches the NATS servers of its region by.
    links: Vec<Link>,
}

impl Layout {
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
    /// Starts all of it with its data in `dir`, and waits until every node is ready. `say` is told how far it is.
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
        let api = LocalApi::start_for(dir, layout.api_listen, HEARTBEAT).await?;
        let mut machine = Self {
            api,
            nats,
            nodes: Vec::new(),
        };
        for number in 0..layout.nodes {
            let node = machine.node(dir, number, known, layout.links).await?;
            machine.nodes.push(node);
        }
        machine.ready().await?;
        say(format!("{} relay nodes follow one log", machine.nodes.len()));
        Ok(machine)
    }

    async fn node(&self, dir: &Path, number: usize, known: bool, linked: bool) -> Outcome<Node> {
        let region = number % self.nats.regions.len();
        let name = node_name(number);
        let mut servers = self.nats.addresses(region);
        let mut links = Vec::new();
        if linked {
            for server in &mut servers {
                let link = Link::open(*server).failing(Code::Environment, || "cannot open a link".into())?;
                *server = link.address();
                links.push(link);
            }
        }
        let mut settings = self.settings(number, region, &servers);
        let dir = dir.join(&name);
        let file = dir.join("enrolment.key");
        if !(known && file.is_file()) {
            private_folder(&dir)?;
            write_private(&file, self.api.enrol(&name).await?.as_bytes())?;
        }
        settings.insert("relay_secret".into(), Value::String(format!("file:{}", file.display())));
        let relay = RelayProcess::start(&dir, settings).await?;
        Ok(Node {
            name,
            region,
            region_name: self.nats.regions[region].name.clone(),
            relay,
            links,
        })
    }

    fn settings(&self, number: usize, region: usize, servers: &[SocketAddr]) -> toml::Table {
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
        let keys = &self.nats.users.nodes[number];
        let seed = |file: &Path| text(format!("file:{}", file.display()));
        let fleet = [
            (
                "nats",
                Value::Array(servers.iter().map(|server| text(format!("nats://{server}"))).collect()),
            ),
            ("nats_key", seed(&keys.relay.now.seed_file)),
            ("sync_key", seed(&keys.sync.now.seed_file)),
            ("regions", Value::Array(regions.collect())),
            ("checkpoint_every", Value::Integer(CHECKPOINT_EVERY)),
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
        put(
            "admin",
            vec![
                ("enabled", Value::Boolean(true)),
                ("listen", text("127.0.0.1:0".into())),
            ],
        );
        put("session", vec![("keepalive_ms", Value::Integer(KEEPALIVE_MS))]);
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

    /// Waits until a node has noticed that a stream is not what it followed.
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

    /// Ends all of it, in order.
    pub(crate) async fn stop(self) -> Outcome {
        let mut first = Ok(());
        for node in self.nodes {
            first = first.and(node.relay.stop().await);
        }
        first = first.and(stop_api(self.api.api).await);
        first.and(self.nats.stop().await)
    }
}

impl Node {
    /// Cuts it off from all NATS servers.
    pub(crate) fn cut_off(&self, how: Cut) {
        self.links.iter().for_each(|link| link.cut(how));
    }

    /// And mends that.
    pub(crate) fn join_again(&self) {
        self.links.iter().for_each(Link::mend);
    }

    /// Where its replica is.
    pub(crate) fn log(&self) -> PathBuf {
        self.relay.dir().join("log")
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn ready(&self) -> Outcome {
        let begun = Instant::now();
        loop {
            let page = match self.relay.admin() {
                Some(admin) => crate::http::get(admin, "/readyz").await,
                None => return Ok(()),
            };
            let said = match page {
                Ok((200, _)) => return Ok(()),
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
