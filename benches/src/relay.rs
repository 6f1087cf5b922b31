//! A relay node over any store, with a trust of its own.

use crate::client::{Agent, Client};
use anyhow::Context as _;
use iroh::{EndpointAddr, RelayUrl};
use skytale_log_store::LogStore;
use skytale_proto::rest::{self, Jwks};
use skytale_proto::token::{Claims, Confirmation, TokenSigner};
use skytale_proto::{AccountId, AgentId, Code, EndpointId, FrameId, KeyId};
use skytale_relay_node::{RelayConfig, RelayNode, SessionConfig, TrustSource};
use skytale_sdk::internals::raw::{RawClient, RawConfig};
use skytale_sdk::{NetworkConfig, RelaySource, Token, TokenError, TokenFn, TokenSource, TokenSubject};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

const ISSUER: &str = "https://api.bench";
const AUDIENCE: &str = "relays.bench";
const SCOPE: &str = "relay:append relay:replay channels:create keypackages:publish keypackages:claim";
/// The benches' tokens are signed with a key that anybody may know: a relay that trusts it listens on loopback and
/// holds nothing but what a benchmark made.
const SIGNER_SEED: [u8; 32] = [0x42; 32];

/// A relay node that runs.
#[derive(Debug)]
pub struct Relay {
    node: RelayNode,
    tokens: Tokens,
    address: EndpointAddr,
}

/// Gives tokens for the relay nodes of benchmarks.
#[derive(Debug)]
pub struct Tokens {
    signer: TokenSigner,
    account: AccountId,
    key: KeyId,
}

impl Tokens {
    /// Signs with the key that every [`Relay`] trusts.
    pub fn new() -> Self {
        Self {
            signer: TokenSigner::from_seed(Zeroizing::new(SIGNER_SEED)),
            account: AccountId::generate(),
            key: KeyId::generate(),
        }
    }

    /// A token for an agent.
    pub fn token(&self, agent: &Agent) -> anyhow::Result<String> {
        self.token_of(self.account, agent)
    }

    /// A token for an agent of this account.
    pub fn token_of(&self, account: AccountId, agent: &Agent) -> anyhow::Result<String> {
        Ok(self.sign(account, agent.id, agent.endpoint_id())?.0)
    }

    /// Gives them to every caller, each with these relay nodes.
    pub fn provider(self, relays: Vec<rest::Relay>) -> TokenSource {
        TokenSource::new(TokenFn::new(move |subject: TokenSubject| {
            let token = self.sign(self.account, subject.agent, subject.endpoint);
            let relays = relays.clone();
            async move {
                let (token, expires_s) = token.map_err(|_| TokenError::new(Code::ApiBusy, "there is no clock"))?;
                Ok(Token::new(token, expires_s).with_relays(relays))
            }
        }))
    }

    /// A token and when it ends, unix seconds.
    fn sign(&self, account: AccountId, agent: AgentId, endpoint: EndpointId) -> anyhow::Result<(String, u64)> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let token = self.signer.sign(&Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: agent,
            acct: account,
            key: self.key,
            scope: SCOPE.into(),
            cnf: Confirmation { eid: endpoint },
            exp: now + 3_600,
            iat: now,
            jti: FrameId::generate().to_string(),
        });
        Ok((token, now + 3_600))
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self::new()
    }
}

impl Relay {
    /// Starts a node on a free loopback port. Its limits are the defaults, except for the rates, which would be measured
    /// instead of the node.
    pub async fn start(store: Arc<dyn LogStore>) -> anyhow::Result<Self> {
        Self::with_tap(store, None).await
    }

    /// The same with a tap into a folder.
    pub async fn with_tap(store: Arc<dyn LogStore>, dir: Option<PathBuf>) -> anyhow::Result<Self> {
        Self::with(store, |config| {
            config.limits.frames_per_second = 1_000_000;
            config.limits.bytes_per_second = 1 << 34;
            config.limits.commits_per_minute = u32::MAX;
            // All agents of a benchmark are of one account.
            config.limits.account_connections_max = Some(config.limits.connections_max);
            config.limits.account_channels_per_day = u32::MAX;
            config.tap.dir = dir;
        })
        .await
    }

    /// Starts a node on a free loopback port, with limits of its own.
    pub async fn with(store: Arc<dyn LogStore>, change: impl FnOnce(&mut RelayConfig)) -> anyhow::Result<Self> {
        let mut config = RelayConfig::for_tests(ISSUER, AUDIENCE);
        config.session = SessionConfig::default();
        config.admin.enabled = false;
        change(&mut config);
        config.https.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let tokens = Tokens::new();
        let keys = Jwks {
            keys: vec![tokens.signer.jwk()],
        };
        let node = RelayNode::start(config, store, TrustSource::Static(keys), None).await?;
        let id = iroh::EndpointId::from_bytes(node.endpoint_id().as_bytes()).context("an endpoint's id")?;
        let addresses = node.bound_addresses();
        let address = addresses
            .into_iter()
            .fold(EndpointAddr::new(id), EndpointAddr::with_ip_addr);
        Ok(Self { node, tokens, address })
    }

    /// Returns its address.
    pub const fn address(&self) -> &EndpointAddr {
        &self.address
    }

    /// A session for an agent.
    pub async fn session(&self, agent: &Agent) -> anyhow::Result<Client> {
        Client::start(agent, &self.address, self.tokens.token(agent)?).await
    }

    /// A session for an agent of this account.
    pub async fn session_of(&self, account: AccountId, agent: &Agent) -> anyhow::Result<Client> {
        Client::start(agent, &self.address, self.tokens.token_of(account, agent)?).await
    }

    /// A session over HTTPS (without TLS, on loopback) for an agent without UDP.
    pub async fn https_session(&self, agent: &Agent) -> anyhow::Result<Client> {
        let token = self.tokens.token(agent)?;
        let url: RelayUrl = self.node.https_url().context("no HTTPS")?.parse()?;
        let server = iroh::RelayConfig::new(url.clone(), None).with_auth_token(&token);
        agent.endpoint.insert_relay(url.clone(), Arc::new(server)).await;
        let address = EndpointAddr::new(self.address.id).with_relay_url(url);
        Client::start(agent, &address, token).await
    }

    /// Its address, as agents know it.
    pub fn for_agents(&self) -> skytale_sdk::Relay {
        let mut relay = skytale_sdk::Relay::new(self.node.endpoint_id(), self.node.bound_addresses());
        relay.https_url = self.node.https_url().map(str::to_owned);
        relay
    }

    /// A client of raw logs, as the bridge is one.
    pub async fn raw_client(&self, network: NetworkConfig) -> anyhow::Result<RawClient> {
        let config = RawConfig {
            identity: Zeroizing::new([1; 32]),
            endpoint: Zeroizing::new([2; 32]),
            tokens: Tokens::new().provider(Vec::new()),
            relays: RelaySource::Fixed(vec![self.for_agents()]),
            region: None,
            network,
        };
        Ok(RawClient::open(config).await?)
    }

    /// Stops it.
    pub async fn shutdown(self) {
        self.node.shutdown().await;
    }
}

fn address_of(id: &EndpointId, sockets: Vec<SocketAddr>) -> anyhow::Result<EndpointAddr> {
    let id = iroh::EndpointId::from_bytes(id.as_bytes()).context("an endpoint's id")?;
    Ok(sockets
        .into_iter()
        .fold(EndpointAddr::new(id), EndpointAddr::with_ip_addr))
}

/// A node's address on one line, for another process.
pub(crate) fn print_address(address: &EndpointAddr) -> anyhow::Result<String> {
    let socket = address.ip_addrs().next().context("an address on the network")?;
    Ok(format!("{} {socket}", EndpointId::from_bytes(*address.id.as_bytes())))
}

/// Parses the output of [`print_address`].
pub(crate) fn parse_address(line: &str) -> anyhow::Result<EndpointAddr> {
    let (id, socket) = line.split_once(' ').with_context(|| format!("no address: {line:?}"))?;
    address_of(&id.parse()?, vec![socket.parse()?])
}
