//! NATS servers for tests: a real cluster of three, on free loopback ports, in a temporary folder; ended with the test.
//!
//! `SKYTALE_NATS_SERVER` names the program. A server is the child of a shell that kills it when its input ends, so that
//! none outlives this process, however that ends. Everything here panics if it cannot do its work.

mod account;
mod server;
mod settle;

pub use account::{Account, stranger};

use account::addresses;
use server::{Configuration, Server};
use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;
use tempfile::TempDir;

/// Accounts of a cluster: each test has one of its own, and so streams of its own.
const ACCOUNTS: usize = 128;
/// Maximum time for servers to form a cluster.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// Maximum time for servers of several regions to form one, before all of it is tried again.
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
    /// Ports on 127.0.0.1 on which the servers listen for clients.
    pub ports: Vec<u16>,
    routes: Vec<u16>,
    /// Gateway ports of the servers, if every one is a region of its own.
    gateways: Vec<u16>,
    /// Ports by which each server reaches each, itself too: of routes or of gateways.
    peers: Vec<Vec<u16>>,
    /// Whether something is between the servers.
    linked: bool,
    sync: Mutex<Sync>,
    servers: Mutex<Vec<Option<Server>>>,
    accounts: AtomicUsize,
}

/// Ports that no system gives to a request for any port: so nothing takes them between here and a server's start.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// Ports that this process has tried or given out. A server that is planned or killed listens on none, and needs its own
/// again: so no other cluster gets them.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// [`PORTS`], or this process's part of them: `TEST_PORTS=START-END`. Others that run beside it have other parts.
fn ports() -> std::ops::Range<u16> {
    let part = std::env::var("TEST_PORTS").ok();
    let part = part.as_deref().and_then(|part| part.split_once('-'));
    let part = part.and_then(|(start, end)| Some(start.parse().ok()?..end.parse().ok()?));
    part.filter(|part: &std::ops::Range<u16>| !part.is_empty())
        .unwrap_or(PORTS)
}

/// Ports that are free, each held until its listener is dropped, and that this process gives out only once.
fn free_ports(count: usize) -> Vec<TcpListener> {
    let mut given = GIVEN.lock().expect("nobody panicked");
    let ports = ports();
    let mut held = Vec::new();
    while held.len() < count {
        let mut random = [0; 2];
        getrandom::fill(&mut random).expect("random bytes");
        let port = ports.start + u16::from_le_bytes(random) % (ports.end - ports.start);
        if given.insert(port) {
            held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
        }
    }
    held
}

impl Cluster {
    /// Starts three servers that sync before they acknowledge.
    pub async fn start() -> Self {
        Self::start_with(3, Sync::Always).await
    }

    /// Starts some servers.
    pub async fn start_with(count: usize, sync: Sync) -> Self {
        Self::plan(count, sync, false).begin().await
    }

    /// Starts three servers, each a region of its own: the clusters `r0`, `r1` and `r2`, joined by gateways.
    pub async fn start_regions() -> Self {
        Self::plan(3, Sync::Always, true).begin().await
    }

    /// Starts three servers that reach each other only by the given ports: `between` is called for each server that
    /// dials and each that is dialled, with the address of the latter, for the port to dial.
    pub async fn start_through(between: impl FnMut(usize, usize, SocketAddr) -> u16) -> Self {
        Self::plan(3, Sync::Always, false).through(between).begin().await
    }

    /// Like [`Cluster::start_through`], of three regions: what is given is between their gateways.
    pub async fn start_regions_through(between: impl FnMut(usize, usize, SocketAddr) -> u16) -> Self {
        Self::plan(3, Sync::Always, true).through(between).begin().await
    }

    fn plan(count: usize, sync: Sync, regions: bool) -> Self {
        let held = free_ports(3 * count);
        let port = |listener: &TcpListener| listener.local_addr().expect("an address").port();
        let ports: Vec<u16> = held.iter().map(port).collect();
        let (routes, gateways) = (ports[count..2 * count].to_vec(), ports[2 * count..].to_vec());
        let direct = if regions { &gateways } else { &routes };
        Self {
            dir: TempDir::new().expect("a folder"),
            peers: vec![direct.clone(); count],
            linked: false,
            ports: ports[..count].to_vec(),
            routes,
            gateways: if regions { gateways } else { Vec::new() },
            sync: Mutex::new(sync),
            servers: Mutex::new((0..count).map(|_| None).collect()),
            accounts: AtomicUsize::new(0),
        }
    }

    fn through(mut self, mut between: impl FnMut(usize, usize, SocketAddr) -> u16) -> Self {
        for (from, peers) in self.peers.iter_mut().enumerate() {
            for (to, port) in peers.iter_mut().enumerate().filter(|(to, _)| *to != from) {
                *port = between(from, to, SocketAddr::from((Ipv4Addr::LOCALHOST, *port)));
            }
        }
        self.linked = true;
        self
    }

    async fn begin(self) -> Self {
        let (count, regions) = (self.ports.len(), !self.gateways.is_empty());
        let cluster = self;
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
            servers: addresses(&self.ports),
            nodes_file: self.dir.path().join(format!("nodes-{number}")),
        }
    }

    fn folder(&self, server: usize) -> PathBuf {
        self.dir.path().join(format!("n{server}"))
    }

    /// Whether servers that are started from now on sync before they acknowledge.
    pub fn syncs(&self, sync: Sync) {
        *self.sync.lock().expect("nobody panicked") = sync;
    }

    /// Starts a server, again where it ran before: with its data.
    pub fn run(&self, server: usize) {
        let folder = self.folder(server);
        let configuration = Configuration {
            number: server,
            folder: &folder,
            sync: *self.sync.lock().expect("nobody panicked"),
            port: self.ports[server],
            route: self.routes[server],
            gateway: self.gateways.get(server).copied(),
            peers: &self.peers[server],
            only: self.linked,
        };
        let running = Server::start(&folder, &configuration.text());
        self.servers.lock().expect("nobody panicked")[server] = Some(running);
    }

    /// Kills a server, as a crash of its process would.
    pub fn kill(&self, server: usize) {
        let running = self.servers.lock().expect("nobody panicked")[server].take();
        if let Some(running) = running {
            running.end();
        }
    }

    /// Stops a server where it is, and lets it go on: `STOP` or `CONT`.
    pub fn signal(&self, server: usize, signal: &str) {
        if let Some(running) = &self.servers.lock().expect("nobody panicked")[server] {
            running.signal(signal);
        }
    }

    /// The folder that holds a server's data.
    pub fn data(&self, server: usize) -> PathBuf {
        self.folder(server).join("data")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in 0..self.ports.len() {
            self.kill(server);
        }
    }
}
