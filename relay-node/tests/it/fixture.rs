//! A relay node over a memory store, and everything that an honest agent needs.

use crate::client::{Agent, Client, soon};
use bytes::Bytes;
use iroh::EndpointAddr;
use skytale_log_store::{LogStore, MemoryStore};
use skytale_proto::rest::Jwks;
use skytale_proto::token::{Claims, Confirmation, TokenSigner};
use skytale_proto::{
    AccountId, AgentId, ChannelId, ChannelMode, ClaimRule, Detail, Frame, FrameId, Header, KeyId, LogId, Offset,
};
use skytale_relay_node::{RelayConfig, RelayNode, TrustSource};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) const ISSUER: &str = "https://api.test";
pub(crate) const AUDIENCE: &str = "relays.test";
pub(crate) const ALL_SCOPES: &str = "relay:append relay:replay channels:create keypackages:publish keypackages:claim";

/// The account of agents that are given no other.
pub(crate) const ACCOUNT: AccountId = AccountId::from_bytes([0xac; 16]);

pub(crate) struct Fixture {
    pub(crate) node: RelayNode,
    pub(crate) signer: TokenSigner,
    pub(crate) account: AccountId,
    pub(crate) key: KeyId,
}

/// Panics outside the tests themselves: a task of the node that panics takes nobody with it, and so would go unseen.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Fails where anything but a test has panicked in this process.
pub(crate) fn nothing_panicked() {
    assert_eq!(PANICS.load(Ordering::SeqCst), 0, "something panicked outside the tests");
}

fn watch_for_panics() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic
                .location()
                .is_some_and(|location| !location.file().contains("tests/it/"))
            {
                PANICS.fetch_add(1, Ordering::SeqCst);
            }
            report(panic);
        }));
    });
}

pub(crate) fn config() -> RelayConfig {
    let mut config = RelayConfig::for_tests(ISSUER, AUDIENCE);
    // The bare client answers no pings by itself: it keeps its session in a slow test too.
    config.session.keepalive_ms = 120_000;
    config
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::with(config()).await
    }

    pub(crate) async fn with(config: RelayConfig) -> Self {
        Self::over(config, Arc::new(MemoryStore::new())).await
    }

    pub(crate) async fn over(config: RelayConfig, store: Arc<dyn LogStore>) -> Self {
        let signer = TokenSigner::generate();
        let keys = Jwks {
            keys: vec![signer.jwk()],
        };
        Self::trusting(config, store, signer, TrustSource::Static(keys)).await
    }

    pub(crate) async fn trusting(
        config: RelayConfig,
        store: Arc<dyn LogStore>,
        signer: TokenSigner,
        trust: TrustSource,
    ) -> Self {
        watch_for_panics();
        let node = RelayNode::start(config, store, trust, None).await.expect("started");
        Self {
            node,
            signer,
            account: ACCOUNT,
            key: KeyId::generate(),
        }
    }

    /// Returns the address of the relay node.
    pub(crate) fn relay(&self) -> EndpointAddr {
        address(&self.node)
    }

    /// Returns the API's claims for an agent.
    pub(crate) fn claims(&self, agent: &Agent) -> Claims {
        let now = now_s();
        Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: agent.id,
            acct: self.account,
            key: self.key,
            scope: ALL_SCOPES.into(),
            cnf: Confirmation {
                eid: agent.endpoint_id(),
            },
            exp: now + 600,
            iat: now,
            jti: FrameId::generate().to_string(),
        }
    }

    pub(crate) fn token(&self, agent: &Agent) -> String {
        self.signer.sign(&self.claims(agent))
    }

    /// A new agent with a session.
    pub(crate) async fn agent(&self) -> (Agent, Client) {
        self.agent_with(|_| {}).await
    }

    /// A new agent with a session under claims of its own.
    pub(crate) async fn agent_with(&self, change: impl FnOnce(&mut Claims)) -> (Agent, Client) {
        let agent = Agent::new().await;
        let mut claims = self.claims(&agent);
        change(&mut claims);
        let client = self.session(&agent, &claims).await;
        (agent, client)
    }

    /// A new agent with a session, on a node that gives a connection little time to begin: if it was too slow, it connects again.
    pub(crate) async fn agent_patiently(&self) -> (Agent, Client) {
        let agent = Agent::new().await;
        let token = self.token(&agent);
        let client = soon(Box::pin(async {
            loop {
                let Ok(connection) = agent.connect(&self.relay()).await else {
                    continue;
                };
                let hello = agent.hello(&connection, &token);
                if let Ok(client) = Client::start_on(&agent, connection, hello).await {
                    return client;
                }
            }
        }))
        .await;
        (agent, client)
    }

    pub(crate) async fn session(&self, agent: &Agent, claims: &Claims) -> Client {
        let token = self.signer.sign(claims);
        Client::start(agent, &self.relay(), &token).await.expect("a session")
    }

    /// A new channel of this agent's.
    pub(crate) async fn channel(&self, agent: &Agent, client: &Client) -> ChannelId {
        let channel = ChannelId::generate();
        let created = client.append(&create(channel, agent.id)).await.expect("created");
        assert_eq!(created.offset, 1);
        channel
    }
}

pub(crate) fn address(node: &RelayNode) -> EndpointAddr {
    let id = iroh::EndpointId::from_bytes(node.endpoint_id().as_bytes()).expect("a key");
    let addresses = node.bound_addresses();
    addresses
        .into_iter()
        .fold(EndpointAddr::new(id), EndpointAddr::with_ip_addr)
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs()
}

pub(crate) fn frame(log: LogId, author: AgentId, parent: u64, detail: Detail, body: impl Into<Bytes>) -> Frame {
    let header = Header {
        log,
        id: FrameId::generate(),
        author,
        parent: Offset::new(parent),
        detail,
    };
    Frame::new(header, body).expect("a frame")
}

pub(crate) fn create(channel: ChannelId, author: AgentId) -> Frame {
    let detail = Detail::Create {
        mode: ChannelMode::Mls,
        account: None,
        policy: None,
    };
    frame(channel.log(), author, 0, detail, "create")
}

pub(crate) fn message(channel: ChannelId, author: AgentId, parent: u64, body: impl Into<Bytes>) -> Frame {
    frame(channel.log(), author, parent, Detail::Message, body)
}

pub(crate) fn commit(channel: ChannelId, author: AgentId, parent: u64, adds: &[AgentId], removes: &[AgentId]) -> Frame {
    let detail = Detail::Commit {
        adds: adds.to_vec(),
        removes: removes.to_vec(),
        recipients: adds.to_vec(),
        roster: None,
        policy: None,
    };
    frame(channel.log(), author, parent, detail, "bundle")
}

pub(crate) fn key_package(owner: AgentId, last_resort: bool) -> Frame {
    key_package_of(owner, ACCOUNT, last_resort)
}

pub(crate) fn key_package_of(owner: AgentId, account: AccountId, last_resort: bool) -> Frame {
    let account = Some(account);
    frame(
        owner.log(),
        owner,
        0,
        Detail::KeyPackage { last_resort, account },
        "key package",
    )
}

pub(crate) fn claim(owner: AgentId, by: AgentId) -> Frame {
    claim_as(owner, by, ACCOUNT)
}

pub(crate) fn claim_as(owner: AgentId, by: AgentId, account: AccountId) -> Frame {
    let account = Some(account);
    frame(owner.log(), by, 0, Detail::KeyPackageClaim { account }, Bytes::new())
}

pub(crate) fn policy(owner: AgentId, account: AccountId, rule: ClaimRule) -> Frame {
    frame(
        owner.log(),
        owner,
        0,
        Detail::KeyPackagePolicy { account, rule },
        Bytes::new(),
    )
}
