//! Our relay nodes as a target: the SDK's sessions, without MLS and vaults.
//!
//! Agents share a few endpoints, so that ten thousand of them fit one process; each has its own identity, token and session.

mod session;

pub use session::{RelayPending, RelayReading, RelaySession};

use crate::target::{Failed, Target};
use ed25519_dalek::{Signer as _, SigningKey};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use skytale_proto::{AccountId, AgentId, Offset, Region};
use skytale_sdk::internals::net::relay::Endpoint;
use skytale_sdk::internals::net::{ProofSigner, Session};
use skytale_sdk::{
    ApiClient, NetworkConfig, Relay, RelayError, Token, TokenError, TokenProvider, TokenSource, TokenSubject,
};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use zeroize::Zeroizing;

/// Agents that share an endpoint.
const AGENTS_PER_ENDPOINT: u32 = 500;
/// Endpoints of one process, at most.
const ENDPOINTS_MAX: u32 = 16;
/// A token that is kept for a session must live this long.
const TOKEN_LEFT_MIN: Duration = Duration::from_secs(60);

/// Relay nodes, with what gives tokens for them.
pub struct RelayTarget {
    tokens: TokenSource,
    agents: Vec<LoadAgent>,
    endpoints: Vec<Endpoint>,
    account: OnceLock<AccountId>,
}

/// An agent of a run.
struct LoadAgent {
    id: AgentId,
    signer: Arc<Identity>,
    /// Got for its next session.
    token: Mutex<Option<Token>>,
    /// Sessions so far: each one begins at another relay node.
    sessions: AtomicUsize,
}

struct Identity(SigningKey);

impl ProofSigner for Identity {
    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<[u8; 64], TokenError>> {
        Box::pin(std::future::ready(Ok(self.0.sign(message).to_bytes())))
    }
}

impl std::fmt::Debug for RelayTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayTarget")
            .field("agents", &self.agents.len())
            .field("endpoints", &self.endpoints.len())
            .finish_non_exhaustive()
    }
}

impl RelayTarget {
    /// Fresh agents, whose tokens come from the API.
    pub async fn new(api: ApiClient, agents: u32, network: NetworkConfig) -> Result<Self, RelayError> {
        Self::with_tokens(TokenSource::new(api), agents, network).await
    }

    /// Fresh agents, whose tokens come from elsewhere. Each token names the relay nodes that it is for.
    pub async fn with_tokens(tokens: TokenSource, agents: u32, network: NetworkConfig) -> Result<Self, RelayError> {
        let random = || {
            let mut bytes = Zeroizing::new([0; 32]);
            getrandom::fill(&mut *bytes).map_err(|error| RelayError::Local {
                code: skytale_proto::Code::Environment,
                reason: format!("no random bytes: {error}"),
            })?;
            Ok::<_, RelayError>(bytes)
        };
        let mut endpoints = Vec::new();
        for _ in 0..agents.div_ceil(AGENTS_PER_ENDPOINT).clamp(1, ENDPOINTS_MAX) {
            endpoints.push(Endpoint::bind(&random()?, network.clone()).await?);
        }
        let agent = |_| {
            let key = SigningKey::from_bytes(&*random()?);
            Ok::<_, RelayError>(LoadAgent {
                id: AgentId::from_bytes(key.verifying_key().to_bytes()),
                signer: Arc::new(Identity(key)),
                token: Mutex::default(),
                sessions: AtomicUsize::default(),
            })
        };
        Ok(Self {
            tokens,
            agents: (0..agents).map(agent).collect::<Result<_, _>>()?,
            endpoints,
            account: OnceLock::new(),
        })
    }

    fn agent(&self, agent: u32) -> Result<(&LoadAgent, &Endpoint), Failed> {
        let unknown = || Failed::lost(format!("there is no agent {agent}"));
        let known = self.agents.get(agent as usize).ok_or_else(unknown)?;
        let endpoint = self
            .endpoints
            .get(agent as usize % self.endpoints.len().max(1))
            .ok_or_else(unknown)?;
        Ok((known, endpoint))
    }

    fn subject(agent: &LoadAgent, endpoint: &Endpoint) -> TokenSubject {
        TokenSubject::new(agent.id, endpoint.id(), agent.signer.clone())
    }

    async fn fresh_token(&self, agent: &LoadAgent, endpoint: &Endpoint) -> Result<Token, Failed> {
        let subject = Self::subject(agent, endpoint);
        let token = self.tokens.token(&subject).await;
        let token = token.map_err(|error| session::failed(&RelayError::from(error)))?;
        if let Some(account) = token.account() {
            let _ = self.account.set(account);
        }
        Ok(token)
    }

    /// Closes what the agents shared.
    pub async fn close(&self) {
        for endpoint in &self.endpoints {
            endpoint.close().await;
        }
    }
}

impl Target for RelayTarget {
    type Session = RelaySession;

    fn name(&self) -> &'static str {
        "relay"
    }

    fn agent_id(&self, agent: u32) -> AgentId {
        self.agents
            .get(agent as usize)
            .map_or(AgentId::from_bytes([0; 32]), |agent| agent.id)
    }

    fn account(&self) -> Option<AccountId> {
        self.account.get().copied()
    }

    fn home(&self, agent: u32) -> Region {
        let region = self.agents.get(agent as usize).and_then(|agent| {
            let token = agent.token.lock();
            token
                .as_ref()
                .and_then(|token| token.relays().first().map(|relay| relay.region))
        });
        Region(region.unwrap_or_default())
    }

    async fn token(&self, agent: u32) -> Result<(), Failed> {
        let (agent, endpoint) = self.agent(agent)?;
        let token = self.fresh_token(agent, endpoint).await?;
        *agent.token.lock() = Some(token);
        Ok(())
    }

    async fn connect(&self, agent: u32) -> Result<RelaySession, Failed> {
        let (agent, endpoint) = self.agent(agent)?;
        let kept = agent
            .token
            .lock()
            .clone()
            .filter(|token| token.remaining() > TOKEN_LEFT_MIN);
        let token = match kept {
            Some(token) => token,
            None => {
                let token = self.fresh_token(agent, endpoint).await?;
                *agent.token.lock() = Some(token.clone());
                token
            }
        };
        let relays = token.relays();
        let number = agent.sessions.fetch_add(1, Ordering::Relaxed);
        // Agents begin evenly over the relay nodes, and each goes on to the next one.
        let first = usize::from(agent.id.as_bytes()[0]) + number;
        let relay = relays
            .get(first % relays.len().max(1))
            .ok_or_else(|| Failed::lost("no relay node is known"))?;
        let relay = Relay::from_directory(relay).map_err(|error| session::failed(&error))?;
        let tokens = self.tokens.clone();
        let connecting = Session::connect(endpoint, &relay, Self::subject(agent, endpoint), token, tokens);
        let session = match Box::pin(connecting).await {
            Ok(session) => session,
            Err(error) => {
                // The nodes that it names may be gone.
                *agent.token.lock() = None;
                return Err(session::failed(&error));
            }
        };
        RelaySession::begin(session)
            .await
            .map_err(|error| session::failed(&error))
    }
}

/// The first available offset, or the handshake head, that a refusal names.
fn offset_of(error: &RelayError) -> Offset {
    error.refused().map_or(Offset::ZERO, |refused| refused.offset)
}
