//! NATS servers as an operator runs them: by the files that `skytale fleet nats` writes; and nodes of their fleet.

use crate::fleet::{nats_server, place};
use crate::process::{Place, free_port};
use serde_json::Value;
use skytale_log_store::fleet::{
    FleetConfig, KeyFile, KnownNodes, NatsAuth, NatsConfig, NatsTls, RegionConfig, Signer, SyncProof,
};
use skytale_log_store::local::LocalConfig;
use skytale_log_store::{Accepted, AppendError, FleetStore, LogStore as _};
use skytale_proto::{AgentId, ChannelId, ChannelMode, Detail, Frame, FrameId, Header, Offset, Region};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Long enough for a slow machine; what takes longer hangs.
pub(crate) const HANGING: Duration = Duration::from_secs(120);
const SHARDS: u16 = 2;

/// One server.
pub(crate) struct Server {
    pub(crate) name: String,
    ports: [u16; 4],
    /// Folder of its streams, if it is another one than that of all.
    store: Option<PathBuf>,
    process: Option<Child>,
}

/// The servers of one region, and their users.
pub(crate) struct Servers {
    pub(crate) place: Place,
    pub(crate) servers: Vec<Server>,
    pub(crate) nodes: Vec<String>,
    max_file: &'static str,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ports: [(); 4].map(|()| free_port()),
            store: None,
            process: None,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.ports[0])
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("killed");
            process.wait().expect("ended");
        }
    }

    /// Has it take up its accounts again, as `systemctl reload skytale-nats` does.
    pub(crate) fn reload(&self) {
        let id = self.process.as_ref().expect("it runs").id().to_string();
        assert!(
            Command::new("kill")
                .args(["-HUP", &id])
                .status()
                .expect("kill")
                .success()
        );
    }
}

impl Servers {
    /// Three servers that run, and relay nodes that may connect.
    pub(crate) fn start(nodes: &[&str]) -> Self {
        Self::start_with(nodes, "1GB", None)
    }

    /// The same, with so much room each, and the last one's streams elsewhere.
    pub(crate) fn start_with(nodes: &[&str], max_file: &'static str, store_of_last: Option<PathBuf>) -> Self {
        let mut servers = Self {
            place: place(),
            servers: ["eu-1", "eu-2", "eu-3"].map(Server::new).into(),
            nodes: nodes.iter().map(|name| (*name).to_owned()).collect(),
            max_file,
        };
        servers.servers[2].store = store_of_last;
        servers.write(&[]);
        (0..3).for_each(|server| servers.run(server));
        servers
    }

    /// Has `skytale fleet nats` write the files.
    pub(crate) fn write(&self, options: &[&str]) -> Value {
        let servers = self.servers.iter().map(|server| {
            let [client, cluster, gateway, monitor] = server.ports;
            let own = || self.place.path(&format!("data/{}", server.name));
            format!(
                "{{ name = \"{}\", host = \"127.0.0.1\", ports = {{ client = {client}, cluster = {cluster}, gateway = {gateway}, \
                 monitor = {monitor} }}, store_dir = {:?} }},\n",
                server.name,
                server.store.clone().unwrap_or_else(own)
            )
        });
        let servers: String = servers.collect();
        let inventory = format!(
            "store_dir = {:?}\nmax_file = \"{}\"\n[[region]]\nname = \"eu\"\nnumber = 0\nshards = {SHARDS}\nnodes = {:?}\n\
             servers = [\n{servers}]\n",
            self.place.path("data"),
            self.max_file,
            self.nodes
        );
        self.place.write("inventory.toml", &inventory);
        let line = ["fleet", "nats", "--inventory", "inventory.toml", "--out", "conf"];
        self.place.json(&[&line, options].concat())
    }

    pub(crate) fn dir(&self, server: usize) -> PathBuf {
        self.place.path(&format!("conf/{}", self.servers[server].name))
    }

    /// Starts a server, again where it ran before: with its data.
    pub(crate) fn run(&mut self, server: usize) {
        let dir = self.dir(server);
        let log = std::fs::File::create(dir.join("nats.log")).expect("a log");
        let process = Command::new(nats_server())
            .args(["-c", "nats-server.conf"])
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.servers[server].process = Some(process.expect("starts"));
    }

    /// Puts a server that is new in the place of one.
    pub(crate) fn replace(&mut self, server: usize, name: &str) {
        self.servers[server] = Server::new(name);
        self.write(&[]);
        self.run(server);
    }

    pub(crate) fn reload(&self) {
        self.servers
            .iter()
            .filter(|server| server.process.is_some())
            .for_each(Server::reload);
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.servers.iter().map(Server::url).collect()
    }

    /// A relay node's key files, as `skytale fleet nats` made them.
    pub(crate) fn made_key(&self, node: &str, key: &str) -> PathBuf {
        self.place.path(&format!("conf/nodes/{node}/{key}.nk"))
    }

    /// The file that a node reads.
    pub(crate) fn key(&self, node: &str, key: &str) -> PathBuf {
        self.place.path(&format!("{node}/{key}.nk"))
    }

    /// Gives a node its keys: replaced in one go, as a careful operator does.
    pub(crate) fn hand_over(&self, node: &str) {
        std::fs::create_dir_all(self.place.path(node)).expect("a folder");
        for key in ["relay", "relay-sync"] {
            let (file, next) = (self.key(node, key), self.place.path(&format!("{node}/next")));
            std::fs::copy(self.made_key(node, key), &next).expect("copied");
            std::fs::rename(next, file).expect("replaced");
        }
    }

    pub(crate) fn settings(&self, node: &str) -> FleetConfig {
        let auth = |key| NatsAuth::NKeyFile(KeyFile::new(self.key(node, key)));
        let nats = NatsConfig {
            servers: self.urls(),
            auth: auth("relay"),
            tls: NatsTls::default(),
            name: node.to_owned(),
            inbox_prefix: None,
        };
        FleetConfig {
            regions: vec![RegionConfig {
                region: Region(0),
                shards: SHARDS,
                cluster: None,
                tags: Vec::new(),
            }],
            open_timeout: HANGING,
            signer: Signer::new(&std::fs::read_to_string(self.made_key(node, "checkpoint")).expect("a seed")),
            known_nodes: KnownNodes::File(self.place.path("conf/fleet-nodes")),
            witnesses: 1,
            ..FleetConfig::new(
                nats,
                SyncProof::System(auth("relay-sync")),
                LocalConfig::new(self.place.path(&format!("{node}/log"))),
            )
        }
    }

    /// A node that runs, with the keys that were made for it.
    pub(crate) async fn node(&self, node: &str) -> FleetStore {
        self.hand_over(node);
        let store = FleetStore::open(self.settings(node)).await.expect("it opens");
        store.ready().await.expect("it follows");
        store
    }

    /// A connection with a seed of a file; `None` where the server refuses it.
    pub(crate) async fn connect(&self, server: usize, seed: &std::path::Path) -> Option<async_nats::Client> {
        use async_nats::ConnectErrorKind::{AuthorizationViolation, Io, TimedOut};
        let seed = std::fs::read_to_string(seed).expect("a seed");
        let options = async_nats::ConnectOptions::with_nkey(seed.trim().to_owned());
        let begun = Instant::now();
        loop {
            match options.clone().connect(self.servers[server].url()).await {
                Ok(client) => return Some(client),
                Err(error) if error.kind() == AuthorizationViolation => return None,
                // A busy server may end the connection before it has said why, or be late.
                Err(error) if matches!(error.kind(), Io | TimedOut) && begun.elapsed() < HANGING => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// A connection as the operator of the system account, or of the fleet's.
    pub(crate) async fn operator(&self, system: bool) -> async_nats::Client {
        let key = self.place.path(if system {
            "conf/operator-system.nk"
        } else {
            "conf/operator.nk"
        });
        self.connect(0, &key).await.expect("an operator may connect")
    }

    /// Runs `skytale fleet doctor`, as from a relay node's machine; gives its exit code and what it found.
    pub(crate) fn doctor(&self, options: &[&str]) -> (i32, Value) {
        let line = ["--config", "node.toml", "--json", "fleet", "doctor"];
        let config = format!(
            "[relay]\nregion = 0\n[relay.fleet]\nnats = {:?}\nnats_key = \"file:{}\"\nsync_key = \"file:{}\"\n\
             regions = [\"0={SHARDS}@eu\"]\n",
            self.urls(),
            self.made_key(&self.nodes[0], "relay").display(),
            self.made_key(&self.nodes[0], "relay-sync").display(),
        );
        self.place.write("node.toml", &config);
        let ran = self.place.run(line.iter().chain(options));
        let found = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        (ran.code, found)
    }

    /// Runs it until these are the checks that found something, and gives what it found: servers that come and go elect leaders
    /// first.
    pub(crate) fn diagnosed(&self, expected: &[&str]) -> Value {
        let begun = Instant::now();
        loop {
            let (code, found) = self.doctor(&[]);
            assert_eq!(code, if found["ok"] == true { 0 } else { 7 }, "{found:#}");
            let findings = found["findings"].as_array().expect("a list");
            let mut checks: Vec<&str> = findings
                .iter()
                .filter_map(|finding| finding["check"].as_str())
                .collect();
            checks.sort_unstable();
            let mut expected = expected.to_vec();
            expected.sort_unstable();
            if checks == expected {
                return found;
            }
            assert!(begun.elapsed() < HANGING, "{expected:?}: {found:#}");
        }
    }
}

/// The finding of a check.
pub(crate) fn finding<'a>(found: &'a Value, check: &str) -> &'a Value {
    let mut findings = found["findings"].as_array().expect("a list").iter();
    findings
        .find(|finding| finding["check"] == check)
        .unwrap_or_else(|| panic!("{check}: {found:#}"))
}

#[test]
fn an_inventory_of_two_servers_is_written_with_a_warning_and_a_bad_one_with_the_help_that_fits() {
    let place = Place::new();
    let inventory = |servers: &[&str]| {
        let servers: Vec<String> = servers
            .iter()
            .map(|name| format!("{{ name = \"{name}\", host = \"127.0.0.1\" }}"))
            .collect();
        let text = format!(
            "store_dir = \"/data\"\nmax_file = \"1GB\"\n[[region]]\nname = \"eu\"\nnumber = 0\nshards = 1\nnodes = [\"n\"]\n\
             servers = [{}]\n",
            servers.join(", ")
        );
        place.write("inventory.toml", &text);
        place.run(["fleet", "nats", "--inventory", "inventory.toml", "--out", "conf"])
    };
    let two = inventory(&["a", "b"]);
    assert_eq!(two.code, 0, "{}", two.stderr);
    assert!(
        two.stderr.contains("warning: region eu has two NATS servers"),
        "{}",
        two.stderr
    );
    let three = inventory(&["a", "b", "c"]);
    assert!(!three.stderr.contains("warning"), "{}", three.stderr);
    let none = inventory(&[]);
    assert_eq!(none.code, 3);
    assert!(
        none.stderr.contains("ops/nats/inventory.toml") && !none.stderr.contains("config print"),
        "{}",
        none.stderr
    );
}

#[test]
fn a_relay_node_without_its_nats_servers_says_what_its_operator_can_do() {
    let place = Place::new();
    place.write(
        "skytale.toml",
        "[relay]\nlisten = '127.0.0.1:0'\ndata_dir = 'relay'\napi_url = 'http://127.0.0.1:1'\nrelay_secret = 'any'\n\
         [relay.admin]\nlisten = '127.0.0.1:0'\n[relay.fleet]\nnats = ['nats://127.0.0.1:1']\nsync_is_always = true\n",
    );
    let ran = place.run(["relay"]);
    assert_eq!(ran.code, 6, "{}", ran.stderr);
    for word in [
        "nats://127.0.0.1:1",
        "Start the NATS servers",
        "config check relay --connect",
    ] {
        assert!(ran.stderr.contains(word), "no {word}: {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("Keep the frame"), "{}", ran.stderr);
}

pub(crate) const AUTHOR: AgentId = AgentId::from_bytes([7; 32]);

pub(crate) fn frame(channel: ChannelId, detail: Detail, body: &[u8]) -> Frame {
    let parent = Offset::new(u64::from(matches!(detail, Detail::Message)));
    let header = Header {
        log: channel.log(),
        id: FrameId::generate(),
        author: AUTHOR,
        parent,
        detail,
    };
    Frame::new(header, body.to_vec()).expect("a frame")
}

pub(crate) async fn append(store: &FleetStore, frame: Frame) -> Result<Accepted, AppendError> {
    store.append(frame).await?.verdict().await
}

/// A channel that begins at a node.
pub(crate) async fn channel(store: &FleetStore) -> ChannelId {
    let channel = ChannelId::generate();
    let detail = Detail::Create {
        mode: ChannelMode::Mls,
        account: None,
        policy: None,
    };
    append(store, frame(channel, detail, b"create")).await.expect("made");
    channel
}

/// Waits until a node remarks nothing to its operator: a server may have been late with an answer.
pub(crate) async fn no_remarks(store: &FleetStore) {
    let begun = Instant::now();
    while !store.readiness().remarks.is_empty() {
        assert!(begun.elapsed() < HANGING, "{:?}", store.readiness().remarks);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
