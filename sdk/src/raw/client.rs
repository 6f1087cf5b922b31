//! The client: one identity, one endpoint, one session at a time.

use super::error::RawError;
use super::link::{Driver, Live};
use super::reader::RawReader;
use super::writer::RawWriter;
use crate::agent::RelaySource;
use crate::net::relay::{Endpoint, LogStatus, NetworkConfig, log_status};
use crate::net::token::is_proof;
use crate::net::{ProofSigner, RelayError, TokenError, TokenSource, TokenSubject};
use ed25519_dalek::{Signer as _, SigningKey};
use futures_util::future::BoxFuture;
use skytale_proto::{AccountId, AgentId, ChannelId, Code, Offset, Region};
use std::fmt;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

/// Configuration of a client.
pub struct RawConfig {
    /// The secret of the agent's identity: an Ed25519 seed (RFC 8032), 32 bytes.
    pub identity: Zeroizing<[u8; 32]>,
    /// The secret of its endpoint, 32 bytes.
    pub endpoint: Zeroizing<[u8; 32]>,
    /// Provider of tokens.
    pub tokens: TokenSource,
    /// Source of the list of relay nodes.
    pub relays: RelaySource,
    /// The region that the client is in or nearest to.
    pub region: Option<Region>,
    /// Network settings for connections to relay nodes.
    pub network: NetworkConfig,
}

impl fmt::Debug for RawConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawConfig")
            .field("relays", &self.relays)
            .field("region", &self.region)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

/// A client of raw logs. Clones share the same client.
#[derive(Clone)]
pub struct RawClient {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) agent: AgentId,
    pub(super) live: watch::Receiver<Option<Live>>,
    pub(super) cancel: CancellationToken,
    pub(super) tasks: TaskTracker,
    endpoint: Endpoint,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl fmt::Debug for RawClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawClient")
            .field("agent", &self.inner.agent)
            .field("connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

impl RawClient {
    /// Binds the endpoint and starts to look for a relay node. Does not wait for one.
    pub async fn open(config: RawConfig) -> Result<Self, RawError> {
        let signer = Arc::new(Identity(SigningKey::from_bytes(&config.identity)));
        let agent = AgentId::from_bytes(signer.0.verifying_key().to_bytes());
        let endpoint = Endpoint::bind(&config.endpoint, config.network).await?;
        let subject = TokenSubject::new(agent, endpoint.id(), signer).with_region(config.region);
        let (publish, live) = watch::channel(None);
        let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
        let driver = Driver::new(endpoint.clone(), subject, config.tokens, config.relays, publish);
        let cancelled = cancel.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = driver.run() => {}
            }
        });
        Ok(Self {
            inner: Arc::new(Inner {
                agent,
                live,
                cancel,
                tasks,
                endpoint,
            }),
        })
    }

    /// The agent.
    pub fn agent(&self) -> AgentId {
        self.inner.agent
    }

    /// Whether there is a session with a relay node now.
    pub fn is_connected(&self) -> bool {
        self.inner.live.borrow().is_some()
    }

    /// Waits for a session with a relay node.
    pub async fn connected(&self) -> Result<(), RawError> {
        self.live().await.map(|_| ())
    }

    /// Returns a writer to the raw log of `channel`. The log is created if it does not exist.
    pub fn writer(&self, channel: ChannelId) -> RawWriter {
        RawWriter::start(self, channel)
    }

    /// Returns a reader of the raw log of `channel` after a cursor. If the log does not exist, it waits until it does.
    pub fn reader(&self, channel: ChannelId, after: Offset) -> RawReader {
        RawReader::new(self.clone(), channel, after)
    }

    /// Creates the raw log of `channel` if it does not exist. Waits for a session.
    pub async fn create(&self, channel: ChannelId) -> Result<(), RawError> {
        loop {
            let live = self.live().await?;
            match super::writer::create(&live.appender, self.agent(), live.account, channel).await {
                Ok(()) => return Ok(()),
                Err(RelayError::Refused(refused)) if !refused.retryable => {
                    return Err(RelayError::Refused(refused).into());
                }
                Err(error) => self.pause(&error).await?,
            }
        }
    }

    /// Returns the account that the client's token names. Waits for a session.
    pub async fn account(&self) -> Result<AccountId, RawError> {
        Ok(self.live().await?.account)
    }

    /// Returns the status of a raw log; `None` if there is no such log. Waits for a session.
    pub async fn status(&self, channel: ChannelId) -> Result<Option<LogStatus>, RawError> {
        loop {
            let live = self.live().await?;
            match log_status(&live.session, channel.log()).await {
                Ok(status) => return Ok(Some(status)),
                Err(error) if error.code() == Code::UnknownLog => return Ok(None),
                Err(RelayError::Refused(refused)) if !refused.retryable => {
                    return Err(RelayError::Refused(refused).into());
                }
                Err(error) => self.pause(&error).await?,
            }
        }
    }

    /// Ends the session and all writers and readers.
    pub async fn close(&self) {
        self.inner.cancel.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        let live = self.inner.live.borrow().clone();
        if let Some(live) = live {
            live.session.close().await;
        }
        self.inner.endpoint.close().await;
    }

    /// Returns the session; waits for one.
    pub(super) async fn live(&self) -> Result<Live, RawError> {
        let mut live = self.inner.live.clone();
        let found = tokio::select! {
            () = self.inner.cancel.cancelled() => return Err(RawError::Closed),
            found = live.wait_for(Option::is_some) => found.ok().and_then(|found| found.clone()),
        };
        found.ok_or(RawError::Closed)
    }

    /// Waits before another attempt.
    pub(super) async fn pause(&self, error: &RelayError) -> Result<(), RawError> {
        let wait = error.retry_after().unwrap_or(super::link::PAUSE);
        tokio::select! {
            () = self.inner.cancel.cancelled() => Err(RawError::Closed),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }
}

/// Signs proofs for tokens and nothing else.
struct Identity(SigningKey);

impl ProofSigner for Identity {
    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<[u8; 64], TokenError>> {
        Box::pin(async move {
            if !is_proof(message) {
                return Err(TokenError::new(Code::BadRequest, "not a proof that this agent signs"));
            }
            Ok(self.0.sign(message).to_bytes())
        })
    }
}
