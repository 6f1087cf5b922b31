//! Attaching to the process that has the vault open.

use super::bus::Bus;
use super::core::Core;
use super::link::Link;
use super::{Agent, AgentConfig, AgentError, Inner};
use crate::engine::EngineError;
use crate::share::{Knock, Octets, Owner, Share, knock, pause};
use crate::vault::{BackupInfo, BackupKey, VaultError};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Retry time for an open vault whose owner is known: the owner opens its socket after it has opened the vault, and
/// needs some time to close the vault.
const OWNER_WITHIN: Duration = Duration::from_secs(20);
/// Retry time if the owner has no socket: it may have just started, or may not share.
const SILENT_WITHIN: Duration = Duration::from_secs(10);
/// Retry time if the owner is unknown: it may run a version that does not share.
const STRANGER_WITHIN: Duration = Duration::from_secs(2);
/// Delay between two attempts.
const RETRY: Duration = Duration::from_millis(25);

impl Agent {
    /// Like [`Agent::open`], but attaches to another process of this user if that one has the vault open.
    ///
    /// The owner then does all the work, with its own settings: tokens, relay nodes, limits, history.
    /// [`Agent::connect`] makes the owner connect. [`Agent::disconnect`] does nothing, and [`Agent::close`] only
    /// detaches: the owner goes on. When the owner closes the vault, calls fail with [`AgentError::OwnerGone`]: open
    /// the vault again to continue.
    pub async fn open_or_attach(config: AgentConfig) -> Result<Self, AgentError> {
        let begun = Instant::now();
        let mut key = None;
        loop {
            let in_use = match Self::open(config.clone()).await {
                Err(AgentError::Engine(EngineError::Vault(error @ VaultError::InUse { .. }))) => error,
                opened => return opened,
            };
            let bus = Arc::new(Bus::new(config.driver.events_max));
            let (patience, why) = match knock(&config.vault, &config.key, &mut key, &bus).await? {
                Knock::In(owner, agent, ended) => {
                    return Ok(Self::attached(config, Core::attached(*owner, bus, ended, agent)));
                }
                Knock::Later(why) => (OWNER_WITHIN, Some(why)),
                Knock::Nobody => match in_use {
                    VaultError::InUse { process: Some(_), .. } => (SILENT_WITHIN, None),
                    _ => (STRANGER_WITHIN, None),
                },
            };
            if begun.elapsed() >= patience {
                return Err(match why {
                    Some(why) => AgentError::Owner {
                        code: in_use.code(),
                        reason: format!("{in_use}: {why}"),
                        retryable: true,
                    },
                    None => EngineError::from(in_use).into(),
                });
            }
            pause(RETRY).await;
        }
    }

    /// Whether this agent is attached: another process has the vault open and executes its calls.
    pub fn is_attached(&self) -> bool {
        self.inner.core.owner().is_some()
    }

    fn attached(config: AgentConfig, core: Core) -> Self {
        let core = Arc::new(core);
        // This starts nothing.
        let link = Link {
            core: Arc::clone(&core),
            tokens: config.tokens,
            relays: config.relays,
            region: config.region,
            network: config.network,
            config: config.driver,
            secret: Zeroizing::default(),
            state: Default::default(),
            changing: Default::default(),
        };
        let agent = Self {
            hold: None,
            inner: Arc::new(Inner {
                core,
                link: Arc::new(link),
            }),
        };
        agent.held(None)
    }

    /// Opens the vault's socket for other processes.
    pub(super) async fn share(&self, vault: PathBuf) -> Result<Option<Share>, AgentError> {
        let core = &self.inner.core;
        let key = core.call(|actor| actor.engine.share_key()).await?;
        let inner = Arc::downgrade(&self.inner);
        let agents = Box::new(move || Weak::upgrade(&inner).map(|inner| Self { hold: None, inner }));
        Ok(Share::start(vault, key, self.endpoint_id()?, self.id(), &core.bus, agents).await)
    }
}

/// A backup that the owner makes, at a path as this process sees it.
pub(super) async fn backup(owner: &Owner, path: PathBuf, replace: bool) -> Result<BackupInfo, AgentError> {
    let absolute = std::path::absolute(&path).map_err(|error| AgentError::Environment {
        reason: format!("{}: {error}", path.display()),
    })?;
    let made = owner.backup(Octets::of_path(&absolute), replace).await?;
    let key = match made.key {
        BackupKey::Passphrase { parameters } => BackupKey::Passphrase {
            // It is beside the backup, as the caller named that.
            parameters: match parameters.file_name() {
                Some(name) => path.with_file_name(name),
                None => parameters,
            },
        },
        key => key,
    };
    Ok(BackupInfo { path, key, ..made })
}

#[cfg(test)]
impl Agent {
    /// Keeps the engine's thread busy until the other end is gone. Returns when it is.
    pub(crate) async fn occupy(&self, until: std::sync::mpsc::Receiver<()>) {
        let (begun, beginning) = tokio::sync::oneshot::channel();
        let core = Arc::clone(&self.inner.core);
        tokio::spawn(async move {
            let busy = core.call(move |_| {
                let _ = begun.send(());
                let _ = until.recv();
            });
            let _ = busy.await;
        });
        beginning.await.expect("begun");
    }

    /// Number of attached processes and of their requests in progress.
    pub(crate) fn shared_calls(&self) -> usize {
        self.shared().map_or(0, Share::calls)
    }
}
