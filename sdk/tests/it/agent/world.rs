//! One relay node over a store on disk, tokens for every agent, and agents with vaults in their own folder.

use bytes::Bytes;
use parking_lot::Mutex;
use skytale_log_store::{LocalConfig, LocalStore, LogStore};
use skytale_proto::rest::Jwks;
use skytale_proto::token::{Action, Claims, Confirmation, Scope, TokenSigner};
use skytale_proto::{AccountId, AgentId, Detail, Frame, FrameId, Header, KeyId, LogId, Offset, Policy};
use skytale_relay_node::{AcceptedRollback, HttpsError, RelayConfig, RelayNode, StartError, TrustSource};
use skytale_sdk::{
    Agent, AgentConfig, Channel, Event, Events, Message, NetworkConfig, Relay, Token, TokenFn, TokenSource,
    TokenSubject, VaultKey,
};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use zeroize::Zeroizing;

pub(crate) const ISSUER: &str = "https://api.test";
pub(crate) const AUDIENCE: &str = "relays.test";

/// Fails a test that hangs.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(Duration::from_secs(90), future).await {
        Ok(output) => output,
        Err(_) => panic!("not within 90 s: {what}"),
    }
}

/// Enables logging if `RUST_LOG` is set.
pub(crate) fn watch() {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        // Another test may have enabled it.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_test_writer()
            .try_init();
    }
}

pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) mint: Arc<Mint>,
    config: RelayConfig,
    running: Mutex<Option<Running>>,
    pub(crate) relay: Relay,
}

struct Running {
    node: RelayNode,
    store: Arc<LocalStore>,
}

/// Issues tokens like the API, without its checks.
pub(crate) struct Mint {
    pub(crate) signer: TokenSigner,
    account: AccountId,
    key: KeyId,
    /// Lifetime of a token, in seconds.
    pub(crate) life_s: AtomicU64,
    pub(crate) given: AtomicU64,
}

impl Mint {
    pub(crate) fn new(seed: [u8; 32]) -> Arc<Self> {
        Arc::new(Self {
            signer: TokenSigner::from_seed(Zeroizing::new(seed)),
            account: AccountId::from_bytes([1; 16]),
            key: KeyId::from_bytes([2; 16]),
            life_s: AtomicU64::new(600),
            given: AtomicU64::new(0),
        })
    }

    pub(crate) fn token(&self, subject: &TokenSubject) -> Token {
        self.token_of(subject, self.account)
    }

    fn token_of(&self, subject: &TokenSubject, account: AccountId) -> Token {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
        let expires_s = now + self.life_s.load(Ordering::Relaxed);
        self.given.fetch_add(1, Ordering::Relaxed);
        let scopes: Vec<Scope> = Action::ALL.into_iter().map(Scope::everywhere).collect();
        let claims = Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: subject.agent,
            acct: account,
            key: self.key,
            scope: Claims::join_scopes(&scopes),
            cnf: Confirmation { eid: subject.endpoint },
            exp: expires_s,
            iat: now,
            jti: FrameId::generate().to_string(),
        };
        Token::new(self.signer.sign(&claims), expires_s)
    }

    pub(crate) fn provider(self: &Arc<Self>) -> TokenSource {
        self.provider_of(self.account)
    }

    /// Returns a provider for agents of an account.
    pub(crate) fn provider_of(self: &Arc<Self>, account: AccountId) -> TokenSource {
        let mint = Arc::clone(self);
        TokenSource::new(TokenFn::new(move |subject: TokenSubject| {
            let token = mint.token_of(&subject, account);
            async move { Ok(token) }
        }))
    }
}

pub(crate) const SEED: [u8; 32] = [42; 32];

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut RelayConfig)) -> Self {
        watch();
        let dir = tempfile::tempdir().expect("a folder");
        let mint = Mint::new(SEED);
        let mut config = RelayConfig::for_tests(ISSUER, AUDIENCE);
        config.secret_key_file = Some(dir.path().join("relay.key"));
        config.admin.enabled = false;
        config.data_dir = Some(dir.path().to_owned());
        config.disk_free_bytes_min = 0;
        change(&mut config);
        let running = start(&config, dir.path(), &mint).await;
        // The port that was free stays this node's.
        config.listen = running.node.bound_addresses();
        if let Some(address) = running.node.https_url().and_then(|url| url.strip_prefix("http://")) {
            config.https.listen = Some(address.parse().expect("an address"));
        }
        let mut relay = Relay::new(running.node.endpoint_id(), running.node.bound_addresses());
        relay.https_url = running.node.https_url().map(str::to_owned);
        Self {
            dir,
            mint,
            config,
            running: Mutex::new(Some(running)),
            relay,
        }
    }

    /// Stops the relay node at once: no drain, sessions are cut.
    pub(crate) async fn stop_relay(&self) {
        let running = self.running.lock().take();
        if let Some(Running { node, store }) = running {
            node.shutdown().await;
            store.close().await.expect("closed");
        }
    }

    /// Starts it again: same identity, address and data.
    pub(crate) async fn start_relay(&self) {
        let running = start(&self.config, self.dir.path(), &self.mint).await;
        assert_eq!(running.node.endpoint_id(), self.relay.endpoint);
        *self.running.lock() = Some(running);
    }

    /// Accepts the rollback of a stopped node like an operator.
    pub(crate) fn accept_rollback(&self) {
        let report = skytale_log_store::inspect::verify(&self.dir.path().join("log")).expect("a log");
        let heads = report.logs.iter().map(|(log, report)| (*log, report.head)).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = u64::try_from(now.expect("a time").as_millis()).expect("in range");
        let word = AcceptedRollback::new(now_ms, heads);
        word.write(self.dir.path()).expect("written");
    }

    /// Trims everything in a log, like retention.
    pub(crate) async fn trim(&self, log: LogId) {
        let store = self.running.lock().as_ref().map(|running| Arc::clone(&running.store));
        let store = store.expect("a store");
        let up_to = *store.watch_head(log).await.expect("known").borrow();
        let header = Header {
            log,
            id: FrameId::generate(),
            author: AgentId::from_bytes([0; 32]),
            parent: Offset::ZERO,
            detail: Detail::Trim { up_to },
        };
        let pending = store.append(Frame::new(header, Bytes::new()).expect("a frame")).await;
        pending.expect("taken").verdict().await.expect("trimmed");
    }

    /// Copies a vault's files while no agent has them open.
    pub(crate) fn copy_vault(&self, name: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let files = self.vault_files(name).into_iter();
        files
            .map(|path| (path.clone(), std::fs::read(path).expect("read")))
            .collect()
    }

    /// Replaces a vault's files by copied ones.
    pub(crate) fn put_vault_back(&self, name: &str, copy: &[(PathBuf, Vec<u8>)]) {
        for path in self.vault_files(name) {
            std::fs::remove_file(path).expect("removed");
        }
        for (path, bytes) in copy {
            std::fs::write(path, bytes).expect("written");
        }
    }

    fn vault_files(&self, name: &str) -> Vec<PathBuf> {
        let prefix = format!("{name}.vault");
        let files = std::fs::read_dir(self.dir.path()).expect("listed");
        let paths = files.map(|file| file.expect("a file").path());
        let of_vault = |path: &PathBuf| {
            let name = path.file_name().expect("a name").to_string_lossy();
            path.is_file() && name.starts_with(&prefix)
        };
        paths.filter(of_vault).collect()
    }

    /// Starts another relay node over the same log.
    pub(crate) async fn second_relay(&self) -> (RelayNode, Relay) {
        let store = self.running.lock().as_ref().map(|running| Arc::clone(&running.store));
        self.relay_over(store.expect("a store")).await
    }

    /// Starts a relay node over any store, which accepts the same tokens.
    pub(crate) async fn relay_over(&self, store: Arc<dyn LogStore>) -> (RelayNode, Relay) {
        let mut config = RelayConfig::for_tests(ISSUER, AUDIENCE);
        config.admin.enabled = false;
        let node = serve(&config, store, &self.mint).await;
        let relay = Relay::new(node.endpoint_id(), node.bound_addresses());
        (node, relay)
    }

    pub(crate) fn vault(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.vault"))
    }

    pub(crate) fn config(&self, name: &str) -> AgentConfig {
        agent_config(self.vault(name), self.mint.provider(), self.relay.clone())
    }

    /// Opens an agent's vault, without connecting.
    pub(crate) async fn open(&self, name: &str) -> Agent {
        soon("a vault opened", Agent::open(self.config(name)))
            .await
            .expect("opened")
    }

    /// Opens an agent and waits until it is current and can be added.
    pub(crate) async fn agent(&self, name: &str) -> Agent {
        self.current(self.open(name).await).await
    }

    /// Like [`World::agent`], in another account.
    pub(crate) async fn agent_of(&self, name: &str, account: AccountId) -> Agent {
        let mut config = self.config(name);
        config.tokens = self.mint.provider_of(account);
        let agent = soon("a vault opened", Agent::open(config)).await.expect("opened");
        self.current(agent).await
    }

    async fn current(&self, agent: Agent) -> Agent {
        agent.connect().await.expect("a socket");
        soon("an agent current", agent.caught_up()).await.expect("current");
        agent
    }
}

async fn start(config: &RelayConfig, dir: &Path, mint: &Mint) -> Running {
    let store = Arc::new(
        LocalStore::open(LocalConfig::new(dir.join("log")))
            .await
            .expect("a store"),
    );
    let node = serve(config, store.clone(), mint).await;
    Running { node, store }
}

async fn serve(config: &RelayConfig, store: Arc<dyn LogStore>, mint: &Mint) -> RelayNode {
    let began = Instant::now();
    loop {
        let trust = TrustSource::Static(Jwks {
            keys: vec![mint.signer.jwk()],
        });
        match RelayNode::start(config.clone(), Arc::clone(&store), trust, None).await {
            Ok(node) => return node,
            // The node before has not let go of its port yet, or another test has it for a while.
            Err(StartError::Bind(_) | StartError::Https(HttpsError::Bind { .. }))
                if began.elapsed() < Duration::from_secs(90) =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("a relay node: {error}"),
        }
    }
}

pub(crate) fn agent_config(vault: PathBuf, tokens: TokenSource, relay: Relay) -> AgentConfig {
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let mut config = AgentConfig::new(vault, VaultKey::raw([9; 32]), tokens).with_relays(vec![relay]);
    config.network = NetworkConfig::bound_to(any);
    config.driver.backoff_min = Duration::from_millis(50);
    config.driver.backoff_max = Duration::from_secs(1);
    config
}

/// Waits for the first event that fits.
pub(crate) async fn event(events: &mut Events, what: &str, mut fits: impl FnMut(&Event) -> bool) -> Event {
    let waiting = async {
        loop {
            let event = events.next().await.expect("the agent is open");
            if fits(&event) {
                return event;
            }
        }
    };
    soon(what, waiting).await
}

/// Creates a channel by the first agent, and adds the others. Returns the handle of each, in the same order.
pub(crate) async fn channel_of(agents: &[&Agent]) -> Vec<Channel> {
    let (first, others) = agents.split_first().expect("an agent");
    // Everybody may do everything: roles have tests of their own.
    let policy = Policy::open(first.id());
    let channel = first.create_channel_with("test", None, &policy).await.expect("made");
    let mut joined: Vec<Events> = others.iter().map(|agent| agent.events()).collect();
    let ids: Vec<AgentId> = others.iter().map(|agent| agent.id()).collect();
    if !ids.is_empty() {
        let added = soon("agents added", channel.add(&ids)).await.expect("claimed");
        soon("the commit delivered", added.delivered())
            .await
            .expect("delivered");
    }
    let id = channel.id();
    let mut channels = vec![channel];
    for (agent, events) in others.iter().zip(&mut joined) {
        event(
            events,
            "joined",
            |event| matches!(event, Event::Joined { channel, .. } if *channel == id),
        )
        .await;
        channels.push(agent.channel(id).await.expect("in the vault"));
    }
    channels
}

/// Returns a channel's whole history.
pub(crate) async fn transcript(channel: &Channel) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    loop {
        let after = messages.last().map_or(Offset::ZERO, |message| message.offset);
        let more = channel.history(after, 500).await.expect("history");
        if more.is_empty() {
            return messages;
        }
        messages.extend(more);
    }
}

pub(crate) fn texts(messages: &[Message]) -> Vec<String> {
    messages
        .iter()
        .map(|message| String::from_utf8(message.payload.to_vec()).expect("text"))
        .collect()
}

/// Waits until all of them have the same cursor, at or after the delivery of `settled`, and checks that they saw the
/// same.
pub(crate) async fn assert_same(channels: &[Channel]) -> Vec<Message> {
    let mut last = Offset::ZERO;
    for channel in channels {
        last = last.max(channel.cursor().await.expect("a cursor"));
    }
    for channel in channels {
        reach(channel, last).await;
    }
    let (at, digest) = channels[0].digest().await.expect("a digest");
    let first = transcript(&channels[0]).await;
    let seen = |message: &Message| {
        (
            message.offset,
            message.frame_id,
            message.author,
            message.payload.clone(),
        )
    };
    for channel in &channels[1..] {
        let (other_at, other) = channel.digest().await.expect("a digest");
        assert_eq!((other_at, other.or(digest)), (at, digest), "digests differ");
        // A later member sees what came after it joined.
        let theirs: Vec<_> = transcript(channel).await.iter().map(seen).collect();
        let from = theirs.first().map_or(Offset::MAX, |message| message.0);
        let ours: Vec<_> = first.iter().map(seen).filter(|message| message.0 >= from).collect();
        assert_eq!(theirs, ours, "transcripts differ");
    }
    first
}

/// Waits until a channel's cursor is at an offset, or past it.
pub(crate) async fn reach(channel: &Channel, offset: Offset) {
    let reached = async {
        while channel.cursor().await.expect("a cursor") < offset {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("a cursor reached", reached).await;
}

pub(crate) fn numbered(name: &str, range: std::ops::Range<usize>) -> Vec<Bytes> {
    range.map(|number| Bytes::from(format!("{name} {number}"))).collect()
}
