//! Relay nodes over a store on disk or a fleet's, and bridges, each in a runtime of its own: it ends as a process does that is killed.

use parking_lot::Mutex;
use skytale_bridge::stored::{Cursors, Log};
use skytale_bridge::wire::component_hash;
use skytale_bridge::{AuthConfig, Bridge, BridgeConfig, TlsConfig};
use skytale_log_store::cluster::{Account, Cluster};
use skytale_log_store::{FleetStore, LocalConfig, LocalStore, LogStore};
use skytale_proto::rest::Jwks;
use skytale_proto::token::{Action, Claims, Confirmation, Scope, TokenSigner};
use skytale_proto::{AccountId, FrameId, KeyId, Offset};
use skytale_relay_node::{RelayConfig, RelayNode, TrustSource};
use skytale_sdk::internals::raw::{RawClient, RawConfig, RawItem};
use skytale_sdk::{Relay, RelaySource, Token, TokenFn, TokenSource, TokenSubject};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

const ISSUER: &str = "https://api.test";
const AUDIENCE: &str = "relays.test";

/// Fails a test that hangs.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(Duration::from_secs(120), future).await {
        Ok(output) => output,
        Err(_) => panic!("not within 120 s: {what}"),
    }
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Shows what happens, where `RUST_LOG` asks for it.
fn watch() {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        // Another test may have begun it.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_test_writer()
            .try_init();
    }
}

/// Ports that no system gives to a request for any port.
const PORTS: Range<u16> = 10_000..32_000;

/// A loopback address that nothing uses, by TCP or UDP, and that no other test of this process gets: a server may leave it and come back.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: Mutex<Option<u16>> = Mutex::new(None);
    let mut next = NEXT.lock();
    loop {
        let port = next.unwrap_or_else(|| {
            let mut random = [0; 2];
            getrandom::fill(&mut random).expect("random bytes");
            PORTS.start + u16::from_le_bytes(random) % (PORTS.end - PORTS.start)
        });
        *next = Some(if port + 1 < PORTS.end { port + 1 } else { PORTS.start });
        let any = (Ipv4Addr::UNSPECIFIED, port);
        if TcpListener::bind(any).is_ok() && UdpSocket::bind(any).is_ok() {
            return (Ipv4Addr::LOCALHOST, port).into();
        }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

pub(crate) struct World {
    pub(crate) dir: TempDir,
    signer: Arc<TokenSigner>,
    relays: Vec<RelayNodeAt>,
    /// The servers of a fleet, which end with it.
    _cluster: Option<Cluster>,
}

/// A relay node with its address, identity and data, whether it runs or not.
struct RelayNodeAt {
    config: RelayConfig,
    store: StoreAt,
    relay: Relay,
    running: Mutex<Option<Node>>,
}

/// Place of a relay node's log.
#[derive(Clone)]
enum StoreAt {
    Local(PathBuf),
    Fleet(Account, PathBuf),
}

impl StoreAt {
    async fn open(self) -> Option<Arc<dyn LogStore>> {
        match self {
            Self::Local(folder) => {
                let store = LocalStore::open(LocalConfig::new(folder)).await.ok()?;
                Some(Arc::new(store))
            }
            Self::Fleet(account, folder) => {
                let store = FleetStore::open(account.settings(&folder)).await.ok()?;
                store.ready().await.ok()?;
                Some(Arc::new(store))
            }
        }
    }
}

struct Node {
    runtime: Option<Runtime>,
    node: Arc<RelayNode>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let store = StoreAt::Local(dir.path().join("log"));
        Self::over(dir, vec![store], None).await
    }

    /// Two relay nodes over one log that three NATS servers hold.
    pub(crate) async fn fleet() -> Self {
        let cluster = Cluster::start().await;
        let account = cluster.account();
        let dir = tempfile::tempdir().expect("a folder");
        let store = |number: u8| StoreAt::Fleet(account.clone(), dir.path().join(format!("replica-{number}")));
        let stores = vec![store(0), store(1)];
        Self::over(dir, stores, Some(cluster)).await
    }

    async fn over(dir: TempDir, stores: Vec<StoreAt>, cluster: Option<Cluster>) -> Self {
        watch();
        let signer = Arc::new(TokenSigner::from_seed(Zeroizing::new([42; 32])));
        let mut relays = Vec::new();
        for (number, store) in stores.into_iter().enumerate() {
            let mut config = RelayConfig::for_tests(ISSUER, AUDIENCE);
            // It stays this node's while the node is down.
            config.listen = vec![free_address()];
            config.secret_key_file = Some(dir.path().join(format!("relay-{number}.key")));
            config.admin.enabled = false;
            if cluster.is_some() {
                // A client notices soon that a node is gone for good.
                config.session.keepalive_ms = 1_000;
            }
            let running = try_start_node(&config, &store, &signer).await.expect("a relay node");
            relays.push(RelayNodeAt {
                config,
                store,
                relay: Relay::new(running.node.endpoint_id(), running.node.bound_addresses()),
                running: Mutex::new(Some(running)),
            });
        }
        Self {
            dir,
            signer,
            relays,
            _cluster: cluster,
        }
    }

    /// Ends the relay node all at once, without a word.
    pub(crate) fn kill_relay(&self) {
        self.kill_relay_number(0);
    }

    pub(crate) fn kill_relay_number(&self, number: usize) {
        drop(self.relays[number].running.lock().take().expect("it runs"));
    }

    /// Sessions of each relay node.
    pub(crate) fn sessions(&self) -> Vec<usize> {
        let sessions = |at: &RelayNodeAt| at.running.lock().as_ref().map_or(0, |running| running.node.sessions());
        self.relays.iter().map(sessions).collect()
    }

    /// Starts it again: same identity, address and data.
    pub(crate) async fn start_relay(&self) {
        let at = &self.relays[0];
        // A killed node lets go of its folder and socket when its last task is gone.
        let node = soon("the relay node again", async {
            loop {
                let started = tokio::time::timeout(
                    Duration::from_secs(20),
                    try_start_node(&at.config, &at.store, &self.signer),
                );
                if let Ok(Some(node)) = started.await {
                    return node;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
        *at.running.lock() = Some(node);
    }

    /// A client of raw logs with an identity of its own.
    pub(crate) async fn client(&self, number: u8) -> RawClient {
        RawClient::open(self.client_config(number, 0)).await.expect("a client")
    }

    /// Of a client that has the relay node `first` as its nearest.
    fn client_config(&self, number: u8, first: usize) -> RawConfig {
        let signer = Arc::clone(&self.signer);
        let tokens = TokenFn::new(move |subject: TokenSubject| {
            let token = token(&signer, &subject);
            async move { Ok(token) }
        });
        let mut relays: Vec<Relay> = self.relays.iter().map(|at| at.relay.clone()).collect();
        relays.rotate_left(first);
        RawConfig {
            identity: Zeroizing::new([number; 32]),
            endpoint: Zeroizing::new([number ^ 0xff; 32]),
            tokens: TokenSource::new(tokens),
            relays: RelaySource::Fixed(relays),
            region: None,
            network: Default::default(),
        }
    }

    /// Waits until each of so many members of `org/ns/room` is known to have everything in its log.
    pub(crate) async fn all_received(&self, members: usize) {
        let client = self.client(200).await;
        let prefix = ["org", "ns", "room"].map(component_hash);
        let [frames, cursors] = [Log::Frames(prefix), Log::Cursors(prefix)].map(|log| log.channel("test", 0));
        soon("all cursors at the head", async {
            loop {
                let status = client.status(frames).await.expect("a status");
                let head = status.map_or(0, |status| status.head.get());
                let mut folded = Cursors::default();
                let mut reader = client.reader(cursors, Offset::ZERO).up_to_head(None);
                while let Some(item) = reader.next().await.expect("read") {
                    if let RawItem::Entries(entries) = item {
                        for entry in entries {
                            let _ = folded.fold(entry.offset.get(), entry.body);
                        }
                    }
                }
                if folded.iter().filter(|(_, cursor)| cursor.offset >= head).count() >= members {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        client.close().await;
    }

    /// Whether the relay has a log, or cursors, for names `org/ns/{service}`.
    pub(crate) async fn has_log(&self, service: &str) -> bool {
        let client = self.client(201).await;
        let prefix = ["org", "ns", service].map(component_hash);
        let mut found = false;
        for log in [Log::Frames(prefix), Log::Cursors(prefix)] {
            let status = client.status(log.channel("test", 0)).await.expect("a status");
            found |= status.is_some();
        }
        client.close().await;
        found
    }

    /// A bridge that lets everyone in.
    pub(crate) async fn bridge(&self, number: u8) -> TestBridge {
        self.bridge_with(number, |_| {}).await
    }

    /// The same, where another one was.
    pub(crate) async fn bridge_at(&self, number: u8, address: SocketAddr) -> TestBridge {
        // A killed bridge lets go of its socket when its last task is gone. Listening there to find out would take in
        // clients that come back, and give them up again.
        until("the address free", || std::net::TcpStream::connect(address).is_err()).await;
        self.bridge_with(number, |config| config.listen = address).await
    }

    pub(crate) async fn bridge_with(&self, number: u8, change: impl FnOnce(&mut BridgeConfig)) -> TestBridge {
        let mut config = BridgeConfig::new(free_address());
        config.domain = Some("test".into());
        change(&mut config);
        TestBridge::start(config, everyone(), None, number, self).await
    }

    /// A bridge of several, that works with the relay node `relay` while that is there.
    pub(crate) async fn bridge_near(&self, relay: usize, number: u8) -> TestBridge {
        let mut config = BridgeConfig::new(free_address());
        config.domain = Some("test".into());
        config.exchange = true;
        let client = self.client_config(number, relay);
        let bridge = TestBridge::over(config, everyone(), None, client).await;
        bridge.exchanges().await;
        bridge
    }
}

fn everyone() -> AuthConfig {
    AuthConfig {
        everyone: true,
        ..AuthConfig::default()
    }
}

/// Returns a token as the API gives it out.
fn token(signer: &TokenSigner, subject: &TokenSubject) -> Token {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let scopes: Vec<Scope> = Action::ALL.into_iter().map(Scope::everywhere).collect();
    let claims = Claims {
        iss: ISSUER.into(),
        aud: AUDIENCE.into(),
        sub: subject.agent,
        acct: AccountId::from_bytes([1; 16]),
        key: KeyId::from_bytes([2; 16]),
        scope: Claims::join_scopes(&scopes),
        cnf: Confirmation { eid: subject.endpoint },
        exp: now + 600,
        iat: now,
        jti: FrameId::generate().to_string(),
    };
    Token::new(signer.sign(&claims), now + 600)
}

async fn try_start_node(config: &RelayConfig, store: &StoreAt, signer: &TokenSigner) -> Option<Node> {
    let runtime = runtime();
    let (config, store) = (config.clone(), store.clone());
    let trust = TrustSource::Static(Jwks {
        keys: vec![signer.jwk()],
    });
    let started = runtime.spawn(async move {
        let node = RelayNode::start(config, store.open().await?, trust, None).await;
        node.ok().map(Arc::new)
    });
    match started.await.ok().flatten() {
        Some(node) => Some(Node {
            runtime: Some(runtime),
            node,
        }),
        None => {
            runtime.shutdown_background();
            None
        }
    }
}

pub(crate) struct TestBridge {
    runtime: Option<Runtime>,
    bridge: Option<Bridge>,
    pub(crate) address: SocketAddr,
}

impl TestBridge {
    pub(crate) async fn start(
        config: BridgeConfig,
        auth: AuthConfig,
        tls: Option<TlsConfig>,
        number: u8,
        world: &World,
    ) -> Self {
        Self::over(config, auth, tls, world.client_config(number, 0)).await
    }

    async fn over(config: BridgeConfig, auth: AuthConfig, tls: Option<TlsConfig>, client: RawConfig) -> Self {
        let runtime = runtime();
        // The client's tasks belong to the bridge's runtime.
        let client = in_runtime(&runtime, RawClient::open(client)).await.expect("a client");
        let bridge = in_runtime(&runtime, async move {
            Bridge::start(
                config,
                auth,
                tls,
                client,
                Some(skytale_bridge::RenderMetrics::new(|| "some_metric 1\n".into())),
            )
            .await
        })
        .await;
        let bridge = bridge.expect("a bridge");
        Self {
            address: bridge.local_addr(),
            runtime: Some(runtime),
            bridge: Some(bridge),
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until so many links are up.
    pub(crate) async fn links(&self, count: usize) {
        let bridge = self.bridge.as_ref().expect("it runs");
        until("links", || bridge.links() == count).await;
    }

    /// Returns the address of its admin HTTP.
    pub(crate) fn admin(&self) -> SocketAddr {
        let bridge = self.bridge.as_ref().expect("it runs");
        bridge.admin_addr().expect("it listens")
    }

    /// Waits until it follows the exchange with other bridges.
    pub(crate) async fn exchanges(&self) {
        let bridge = self.bridge.as_ref().expect("it runs");
        until("the exchange", || bridge.is_exchanging()).await;
    }

    /// As a process that is killed: it says nothing, and its sockets are closed when this returns. A process closes its
    /// listener first, which is the older one.
    pub(crate) async fn kill(mut self) {
        if let (Some(bridge), Some(runtime)) = (self.bridge.take(), self.runtime.take()) {
            in_runtime(&runtime, async move { bridge.stop_listening().await }).await;
            let ended = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(60)));
            ended.join().expect("ended");
        }
    }

    pub(crate) async fn stop(mut self) {
        if let (Some(bridge), Some(runtime)) = (self.bridge.take(), self.runtime.as_ref()) {
            in_runtime(runtime, bridge.shutdown()).await;
        }
    }
}

impl Drop for TestBridge {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn in_runtime<T: Send + 'static>(runtime: &Runtime, work: impl Future<Output = T> + Send + 'static) -> T {
    runtime.spawn(work).await.expect("no panic")
}
