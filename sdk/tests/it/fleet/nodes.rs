//! Relay nodes, each like a separate process, and the directory that lists them.

use crate::agent::world::{AUDIENCE, ISSUER, Mint, SEED, agent_config, soon, watch};
use parking_lot::Mutex;
use skytale_log_store::faulty::FaultyStore;
use skytale_log_store::{LogStore, MemoryStore};
use skytale_proto::rest::{self, Jwks};
use skytale_proto::{Code, EndpointId, Region};
use skytale_relay_node::{Clock, ClockSource, ClockSpan, RelayConfig, RelayNode, TrustSource};
use skytale_sdk::{Agent, AgentConfig, Relay, RelaySource, TokenError, TokenFn, TokenSource, TokenSubject};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Relay nodes over one log.
pub(crate) struct Fleet {
    pub(crate) dir: TempDir,
    pub(crate) log: Arc<dyn LogStore>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) nodes: Vec<Node>,
    /// Timeout of agents that are created from now on.
    pub(crate) answer_timeout: Duration,
}

pub(crate) struct Node {
    config: RelayConfig,
    pub(crate) store: Arc<FaultyStore>,
    jwks: Jwks,
    running: Mutex<Option<Running>>,
    pub(crate) relay: Relay,
}

struct Running {
    /// Its own runtime, so that it can end like a killed process: all at once, without notice.
    runtime: Runtime,
    node: Arc<RelayNode>,
}

/// The API: issues tokens, and lists relay nodes.
pub(crate) struct Directory {
    mint: Arc<Mint>,
    named: Mutex<Vec<Relay>>,
    /// Whether it refuses all requests.
    pub(crate) away: AtomicBool,
    /// Whether it accepts all requests without answering.
    pub(crate) hangs: AtomicBool,
    pub(crate) regions: Mutex<Vec<Option<Region>>>,
    pub(crate) life_s: Mutex<u64>,
}

impl Directory {
    pub(crate) fn names(&self, relays: &[&Relay]) {
        *self.named.lock() = relays.iter().copied().cloned().collect();
    }

    /// For an agent for which the one at `first` is the nearest.
    fn provider(self: &Arc<Self>, first: usize) -> TokenSource {
        self.ordering(move |named| {
            if !named.is_empty() {
                let first = first % named.len();
                named.rotate_left(first);
            }
        })
    }

    /// For an agent that has an order of its own among relay nodes that are alike: with its number, all orders come in turn.
    pub(crate) fn spread(self: &Arc<Self>, number: usize) -> TokenSource {
        self.ordering(move |named| {
            let mut number = number;
            for place in 0..named.len() {
                let left = named.len() - place;
                named[place..].rotate_left(number % left);
                number /= left;
            }
        })
    }

    fn ordering(
        self: &Arc<Self>,
        order: impl Fn(&mut Vec<rest::Relay>) + Clone + Send + Sync + 'static,
    ) -> TokenSource {
        let directory = Arc::clone(self);
        TokenSource::new(TokenFn::new(move |subject: TokenSubject| {
            let (directory, order) = (Arc::clone(&directory), order.clone());
            async move {
                if directory.away.load(Ordering::SeqCst) {
                    return Err(TokenError::new(Code::ApiBusy, "the API is away"));
                }
                if directory.hangs.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                directory.mint.life_s.store(*directory.life_s.lock(), Ordering::Relaxed);
                let mut named: Vec<rest::Relay> = directory.named.lock().iter().map(entry).collect();
                order(&mut named);
                // Last: whoever sees it knows which list this answer has.
                directory.regions.lock().push(subject.region);
                Ok(directory.mint.token(&subject).with_relays(named))
            }
        }))
    }
}

fn entry(relay: &Relay) -> rest::Relay {
    rest::Relay {
        endpoint: relay.endpoint,
        addresses: relay.addresses.iter().map(ToString::to_string).collect(),
        region: 0,
        https_url: relay.https_url.clone(),
    }
}

impl Fleet {
    pub(crate) async fn new(count: usize, keepalive_ms: u64) -> Self {
        let log: Arc<dyn LogStore> = Arc::new(MemoryStore::new());
        Self::over(vec![log; count], keepalive_ms).await
    }

    /// A relay node over each of these stores, which show one log.
    pub(crate) async fn over(stores: Vec<Arc<dyn LogStore>>, keepalive_ms: u64) -> Self {
        watch();
        let dir = tempfile::tempdir().expect("a folder");
        let mint = Mint::new(SEED);
        let log = Arc::clone(stores.first().expect("a store"));
        let mut nodes = Vec::new();
        for (number, store) in stores.into_iter().enumerate() {
            let mut config = RelayConfig::for_tests(ISSUER, AUDIENCE);
            config.secret_key_file = Some(dir.path().join(format!("relay-{number}.key")));
            config.admin.enabled = false;
            config.session.keepalive_ms = keepalive_ms;
            let jwks = Jwks {
                keys: vec![mint.signer.jwk()],
            };
            nodes.push(Node::new(config, FaultyStore::over(store), jwks).await);
        }
        let directory = Arc::new(Directory {
            mint,
            named: Mutex::new(nodes.iter().map(|node| node.relay.clone()).collect()),
            away: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            regions: Mutex::default(),
            life_s: Mutex::new(600),
        });
        Self {
            dir,
            log,
            directory,
            nodes,
            answer_timeout: Duration::from_secs(30),
        }
    }

    pub(crate) fn endpoint(&self, number: usize) -> EndpointId {
        self.nodes[number].relay.endpoint
    }

    /// The node that an agent works with.
    pub(crate) fn node_of(&self, agent: &Agent) -> Option<usize> {
        let relay = agent.relay()?;
        self.nodes.iter().position(|node| node.relay.endpoint == relay)
    }

    /// The same, of one that is connected.
    pub(crate) async fn node_with(&self, agent: &Agent) -> usize {
        soon("connected", agent.connected()).await.expect("a session");
        self.node_of(agent).expect("one of these")
    }

    /// An agent's settings; the directory names the node `first` as its nearest.
    pub(crate) fn config(&self, name: &str, first: usize) -> AgentConfig {
        let vault = self.dir.path().join(format!("{name}.vault"));
        let mut config = agent_config(vault, self.directory.provider(first), self.nodes[0].relay.clone());
        config.relays = RelaySource::Directory;
        config.driver.answer_timeout = self.answer_timeout;
        config
    }

    /// Settings of an agent that knows no other node than one.
    pub(crate) fn config_at(&self, name: &str, node: usize) -> AgentConfig {
        let mut config = self.config(name, node);
        config.relays = RelaySource::Fixed(vec![self.nodes[node].relay.clone()]);
        config
    }

    /// An agent that is current.
    pub(crate) async fn agent(&self, name: &str, first: usize) -> Agent {
        let agent = Agent::open(self.config(name, first)).await.expect("opened");
        agent.connect().await.expect("a socket");
        soon("an agent current", agent.caught_up()).await.expect("current");
        agent
    }

    /// A few agents, each of which has another node as its nearest.
    pub(crate) async fn agents(&self, count: usize) -> Vec<Agent> {
        let mut agents = Vec::new();
        for number in 0..count {
            agents.push(self.agent(&format!("agent-{number}"), number).await);
        }
        agents
    }

    pub(crate) async fn end(self) {
        for node in &self.nodes {
            node.stop().await;
        }
    }
}

impl Node {
    async fn new(mut config: RelayConfig, store: Arc<FaultyStore>, jwks: Jwks) -> Self {
        let running = start(&config, &store, &jwks).await;
        // The port that was free stays this node's.
        config.listen = running.node.bound_addresses();
        let relay = Relay::new(running.node.endpoint_id(), running.node.bound_addresses());
        Self {
            config,
            store,
            jwks,
            running: Mutex::new(Some(running)),
            relay,
        }
    }

    /// Ends it like `SIGKILL`: its tasks are gone, its socket is closed, and nobody is notified.
    pub(crate) fn kill(&self) {
        if let Some(Running { runtime, node }) = self.running.lock().take() {
            runtime.shutdown_background();
            drop(node);
        }
    }

    /// Makes it stall like a stopped process: data that arrives meanwhile waits in its socket.
    pub(crate) fn stand_still(&self, time: Duration) {
        if let Some(running) = &*self.running.lock() {
            // Its only thread.
            running.runtime.spawn(async move { std::thread::sleep(time) });
        }
    }

    /// Tells its agents to move and returns when none is left, or the time is over. It keeps running.
    pub(crate) async fn drain(&self, within: Duration) {
        let node = self.running.lock().as_ref().map(|running| Arc::clone(&running.node));
        if let Some(node) = node {
            soon("drained", node.drain(within)).await;
        }
    }

    /// Tells it that its reference clock is this far behind its own; returns its conclusion.
    pub(crate) fn is_ahead_by(&self, time: Duration) -> bool {
        let running = self.running.lock();
        let clock = running.as_ref().expect("it runs").node.clock();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let time_ms = u64::try_from((since - time).as_millis()).expect("a time");
        let asked_ms = Clock::running_ms();
        let span = ClockSpan::told(time_ms, Duration::ZERO, asked_ms, asked_ms);
        clock.tell(ClockSource::Fleet, span);
        clock.is_wrong()
    }

    /// Sessions that run on it.
    pub(crate) fn sessions(&self) -> usize {
        self.running
            .lock()
            .as_ref()
            .map_or(0, |running| running.node.sessions())
    }

    /// Stops it, and notifies its sessions.
    pub(crate) async fn stop(&self) {
        let running = self.running.lock().take();
        if let Some(Running { runtime, node }) = running {
            if let Some(node) = Arc::into_inner(node) {
                soon("stopped", node.shutdown()).await;
            }
            runtime.shutdown_background();
        }
    }

    /// Starts it again: same identity, same address.
    pub(crate) async fn start(&self) {
        let running = start(&self.config, &self.store, &self.jwks).await;
        assert_eq!(running.node.endpoint_id(), self.relay.endpoint);
        *self.running.lock() = Some(running);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn start(config: &RelayConfig, store: &Arc<FaultyStore>, jwks: &Jwks) -> Running {
    let starting = async {
        loop {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .expect("a runtime");
            let (config, store, jwks) = (config.clone(), Arc::clone(store), jwks.clone());
            let started = runtime
                .spawn(async move { RelayNode::start(config, store, TrustSource::Static(jwks), None).await })
                .await
                .expect("no panic");
            match started {
                Ok(node) => {
                    let node = Arc::new(node);
                    return Running { runtime, node };
                }
                // The one before has not let go of its port yet.
                Err(_) => {
                    runtime.shutdown_background();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    };
    soon("a relay node", starting).await
}
