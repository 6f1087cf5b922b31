//! NATS servers for tests: a real cluster of three, on free loopback ports, in a temporary folder; ended with the test.
//!
//! `SKYTALE_NATS_SERVER` names the program. A server is the child of a shell that kills it when its input ends, so that none
//! outlives this process, however that ends. Everything here panics where it cannot do what it is for.

use crate::LocalConfig;
use crate::fleet::{FleetConfig, NatsAuth, NatsConfig, NatsTls, RegionConfig, Secret, SyncProof};
use async_nats::jetstream;
use skytale_proto::Region;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Accounts of a cluster: each test has one of its own, and so streams of its own.
const ACCOUNTS: usize = 128;
/// How long servers may take to form a cluster.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// How long servers of several regions may take, before all of it is tried again.
const REGIONS_START_WITHIN: Duration = Duration::from_secs(15);

/// Whether servers sync before they acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// They do.
    Always,
    /// They do every two minutes.
    Sometimes,
}

/// A cluster of servers.
#[derive(Debug)]
pub struct Cluster {
    dir: TempDir,
    /// Where each server listens for clients, on 127.0.0.1.
    pub ports: Vec<u16>,
    routes: Vec<u16>,
    /// Of each server, where every one is a region of its own.
    gateways: Vec<u16>,
    sync: Sync,
    servers: Mutex<Vec<Option<Server>>>,
    accounts: AtomicUsize,
}

#[derive(Debug)]
struct Server {
    shell: Child,
    /// Its end is the server's.
    input: Option<ChildStdin>,
    pid: u32,
}

/// An account of a cluster.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its user.
    pub user: String,
    /// Addresses of all servers.
    pub servers: Vec<String>,
}

fn program() -> PathBuf {
    let named = std::env::var_os("SKYTALE_NATS_SERVER").map(PathBuf::from);
    let named = named.or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|dir| dir.join("nats-server"))
            .find(|program| program.is_file())
    });
    let cached = std::env::var_os("HOME")
        .map(|home| PathBuf::from(home).join(".cache/skytale-test/nats-server-2.15.1/nats-server"))
        .filter(|program| program.is_file());
    named.or(cached).expect(
        "these tests start real NATS servers: run them with `ops/test/run test`, which installs nats-server 2.15.1, or \
         set SKYTALE_NATS_SERVER to the program",
    )
}

fn free_ports(count: usize) -> Vec<u16> {
    // Held together, so that no two are the same.
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
        .collect();
    held.iter()
        .map(|listener| listener.local_addr().expect("an address").port())
        .collect()
}

impl Cluster {
    /// Starts three servers that sync before they acknowledge.
    pub async fn start() -> Self {
        Self::start_with(3, Sync::Always).await
    }

    /// Starts some servers.
    pub async fn start_with(count: usize, sync: Sync) -> Self {
        Self::start_as(count, sync, false).await
    }

    /// Starts three servers, each a region of its own: the clusters `r0`, `r1` and `r2`, joined by gateways.
    pub async fn start_regions() -> Self {
        Self::start_as(3, Sync::Always, true).await
    }

    async fn start_as(count: usize, sync: Sync, regions: bool) -> Self {
        let ports = free_ports(3 * count);
        let cluster = Self {
            dir: TempDir::new().expect("a folder"),
            ports: ports[..count].to_vec(),
            routes: ports[count..2 * count].to_vec(),
            gateways: if regions {
                ports[2 * count..].to_vec()
            } else {
                Vec::new()
            },
            sync,
            servers: Mutex::new((0..count).map(|_| None).collect()),
            accounts: AtomicUsize::new(0),
        };
        for attempt in 0.. {
            for server in 0..count {
                cluster.run(server);
            }
            let within = if regions { REGIONS_START_WITHIN } else { STARTS_WITHIN };
            match cluster.settle(within).await {
                Ok(()) => break,
                // Servers of one-server clusters that all start at once for the first time do not always elect a leader.
                Err(error) => assert!(regions && attempt < 4, "{error}"),
            }
            for server in 0..count {
                cluster.kill(server);
                fs::remove_dir_all(cluster.folder(server)).expect("removed");
            }
        }
        cluster
    }

    /// The cluster that tests share which harm no server.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        static STARTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _one = STARTING.lock().await;
        if let Some(cluster) = SHARED.get() {
            return cluster;
        }
        let cluster = Self::start().await;
        SHARED.get_or_init(|| cluster)
    }

    /// An account that no other test has.
    pub fn account(&self) -> Account {
        let number = self.accounts.fetch_add(1, Ordering::Relaxed);
        assert!(number < ACCOUNTS, "more accounts are needed");
        Account {
            user: format!("relay{number}"),
            servers: self
                .ports
                .iter()
                .map(|port| format!("nats://127.0.0.1:{port}"))
                .collect(),
        }
    }

    fn folder(&self, server: usize) -> PathBuf {
        self.dir.path().join(format!("n{server}"))
    }

    fn configuration(&self, server: usize) -> String {
        let routes: Vec<String> = self
            .routes
            .iter()
            .map(|port| format!("nats://127.0.0.1:{port}"))
            .collect();
        let cluster = if self.ports.len() == 1 {
            String::new()
        } else if !self.gateways.is_empty() {
            let remotes: Vec<String> = self
                .gateways
                .iter()
                .enumerate()
                .map(|(number, port)| format!("{{ name: r{number}, url: \"nats://127.0.0.1:{port}\" }}"))
                .collect();
            format!(
                "cluster {{ name: r{server}, listen: \"127.0.0.1:{}\", routes: [\"nats://127.0.0.1:{}\"] }}\n\
                 gateway {{ name: r{server}, listen: \"127.0.0.1:{}\", gateways: [ {} ] }}\n",
                self.routes[server],
                self.routes[server],
                self.gateways[server],
                remotes.join(", ")
            )
        } else {
            format!(
                "cluster {{ name: test, listen: \"127.0.0.1:{}\", routes: {routes:?} }}\n",
                self.routes[server]
            )
        };
        let accounts: String = (0..ACCOUNTS)
            .map(|number| {
                format!("  A{number} {{ jetstream: enabled, users: [{{ user: relay{number}, password: secret }}] }}\n")
            })
            .collect();
        let sync = match self.sync {
            Sync::Always => "always",
            Sync::Sometimes => "2m",
        };
        format!(
            "server_name: n{server}\nlisten: \"127.0.0.1:{}\"\nmax_payload: 2MB\npid_file: {:?}\nlog_file: {:?}\n\
             jetstream {{ store_dir: {:?}, max_mem: 256MB, max_file: 20GB, sync_interval: {sync} }}\n{cluster}\
             accounts {{\n  SYS {{ users: [{{ user: sys, password: secret }}] }}\n{accounts}}}\nsystem_account: SYS\n",
            self.ports[server],
            self.folder(server).join("pid"),
            self.folder(server).join("log"),
            self.folder(server).join("data"),
        )
    }

    /// Starts a server, again where it ran before: with its data.
    pub fn run(&self, server: usize) {
        let folder = self.folder(server);
        fs::create_dir_all(&folder).expect("a folder");
        let config = folder.join("nats.conf");
        fs::write(&config, self.configuration(server)).expect("written");
        let script =
            "\"$0\" -c \"$1\" >/dev/null 2>&1 & server=$!; echo $server; read -r _; kill -9 $server; wait $server";
        let mut shell = Command::new("sh")
            .args(["-c", script])
            .arg(program())
            .arg(&config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let mut line = String::new();
        let output = shell.stdout.take().expect("its output");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).expect("the server's id");
        let running = Server {
            input: shell.stdin.take(),
            shell,
            pid: line.trim().parse().expect("the server's id"),
        };
        self.servers.lock().expect("nobody panicked")[server] = Some(running);
    }

    /// Kills a server, as a crash of its process would.
    pub fn kill(&self, server: usize) {
        let running = self.servers.lock().expect("nobody panicked")[server].take();
        if let Some(running) = running {
            running.end();
        }
    }

    /// Stops a server where it stands, and lets it go on: `STOP` or `CONT`.
    pub fn signal(&self, server: usize, signal: &str) {
        if let Some(running) = &self.servers.lock().expect("nobody panicked")[server] {
            let status = Command::new("kill")
                .args([format!("-{signal}"), running.pid.to_string()])
                .status()
                .expect("kill");
            assert!(status.success());
        }
    }

    /// The folder that holds a server's data.
    pub fn data(&self, server: usize) -> PathBuf {
        self.folder(server).join("data")
    }

    /// Waits until all servers have found each other and JetStream answers.
    pub async fn settled(&self) {
        if let Err(error) = self.settle(STARTS_WITHIN).await {
            panic!("{error}");
        }
    }

    async fn settle(&self, within: Duration) -> Result<(), String> {
        let begun = Instant::now();
        let account = Account {
            user: format!("relay{}", ACCOUNTS - 1),
            servers: self
                .ports
                .iter()
                .map(|port| format!("nats://127.0.0.1:{port}"))
                .collect(),
        };
        loop {
            match self.try_settled(&account).await {
                Ok(()) => return Ok(()),
                Err(error) if begun.elapsed() > within => {
                    return Err(format!("the servers do not become a cluster: {error}\n{}", self.logs()));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn try_settled(&self, account: &Account) -> Result<(), String> {
        let context = account.context().await?;
        let config = jetstream::stream::Config {
            name: "SETTLED".into(),
            subjects: vec!["settled".into()],
            num_replicas: if self.gateways.is_empty() { self.ports.len() } else { 1 },
            ..Default::default()
        };
        let mut stream = context
            .get_or_create_stream(config)
            .await
            .map_err(|error| error.to_string())?;
        let info = stream.info().await.map_err(|error| error.to_string())?;
        let whole = self.ports.len() == 1
            || info.cluster.as_ref().is_some_and(|cluster| {
                cluster.leader.is_some() && cluster.replicas.iter().all(|peer| peer.current && !peer.offline)
            });
        let acked = context
            .publish("settled", "".into())
            .await
            .map_err(|error| error.to_string())?;
        acked.await.map_err(|error| error.to_string())?;
        if whole {
            Ok(())
        } else {
            Err("not all are current".into())
        }
    }

    fn logs(&self) -> String {
        let tail = |path: &Path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(15).collect();
            lines.into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        (0..self.ports.len())
            .map(|server| format!("-- n{server}\n{}\n", tail(&self.folder(server).join("log"))))
            .collect()
    }
}

impl Account {
    /// JetStream, as this account.
    pub async fn context(&self) -> Result<jetstream::Context, String> {
        let options = async_nats::ConnectOptions::with_user_and_password(self.user.clone(), "secret".into());
        let client = options
            .connect(&self.servers[..])
            .await
            .map_err(|error| error.to_string())?;
        Ok(jetstream::new(client))
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

fn password(user: &str) -> NatsAuth {
    NatsAuth::Password {
        user: user.to_owned(),
        password: Secret::new("secret"),
    }
}

impl Server {
    fn end(mut self) {
        drop(self.input.take());
        self.shell.wait().expect("the shell ends");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in 0..self.ports.len() {
            self.kill(server);
        }
    }
}
