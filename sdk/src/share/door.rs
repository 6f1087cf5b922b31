//! Attaching to the process that has a vault open.

use super::client::Owner;
use super::hello::{self, Greeted};
use super::place::{Place, own_user};
use super::runtime;
use crate::agent::AgentError;
use crate::agent::bus::Bus;
use crate::engine::EngineError;
use crate::vault::{Key, VaultError, VaultKey, share_key};
use skytale_proto::{AgentId, Code};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// Time within which a live owner has answered.
const GREETED_WITHIN: Duration = Duration::from_secs(10);

/// Result of an attempt to attach.
pub(crate) enum Knock {
    /// Attached. The receiver says when the owner is gone.
    In(Box<Owner>, AgentId, watch::Receiver<bool>),
    /// Nobody listens: the owner has just started, is ending, or does not share.
    Nobody,
    /// The owner is ending, or is busy: retry later.
    Later(String),
}

/// Tries once to attach to the owner of a vault. `key` is resolved when there is a socket: a passphrase takes a moment.
pub(crate) async fn knock(
    vault: &Path,
    key: &VaultKey,
    resolved: &mut Option<Key>,
    bus: &Arc<Bus>,
) -> Result<Knock, AgentError> {
    let Some(runtime) = runtime() else {
        return Ok(Knock::Nobody);
    };
    let Some(place) = Place::beside(vault).ok().filter(Place::exists) else {
        return Ok(Knock::Nobody);
    };
    if resolved.is_none() {
        let (vault, key) = (vault.to_owned(), key.clone());
        let resolving = runtime.spawn_blocking(move || key.resolve(&vault, true));
        let key = resolving.await.map_err(|error| AgentError::Environment {
            reason: format!("the vault's key was not derived: {error}"),
        })?;
        *resolved = Some(share_key(&key.map_err(EngineError::from)?));
    }
    let Some(key) = resolved.clone() else {
        return Ok(Knock::Nobody);
    };
    let (vault, bus) = (vault.to_owned(), Arc::clone(bus));
    let knocking = runtime.spawn(async move {
        match timeout(GREETED_WITHIN, greet(&place, &vault, &key, &bus)).await {
            Ok(knock) => knock,
            Err(_) => Ok(Knock::Later("the process does not answer".into())),
        }
    });
    knocking.await.map_err(|error| AgentError::Environment {
        reason: format!("the vault's socket: {error}"),
    })?
}

async fn greet(place: &Place, vault: &Path, key: &Key, bus: &Arc<Bus>) -> Result<Knock, AgentError> {
    let mut stream = match place.connect().await {
        Ok(stream) => stream,
        Err(error) => {
            return match error.kind() {
                // Left behind by a killed process, or about to be removed.
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => Ok(Knock::Nobody),
                ErrorKind::PermissionDenied => Err(in_use(vault, "the vault is open in a process of another user")),
                // More guests connect at once than it accepts.
                _ => Ok(Knock::Later(error.to_string())),
            };
        }
    };
    match same_user(&stream) {
        Ok(true) => {}
        Ok(false) => return Err(in_use(vault, "the vault is open in a process of another user")),
        Err(error) => return Ok(Knock::Later(error.to_string())),
    }
    let welcome = match hello::introduce(&mut stream, key).await {
        Ok(Greeted::In(welcome)) => welcome,
        Ok(Greeted::Refused(refused)) => {
            return match refused.code() {
                Code::VaultOwnerGone => Ok(Knock::Later(refused.reason)),
                Code::VaultInUse => Ok(Knock::Later(refused.reason)),
                Code::VaultKey => Err(AgentError::Engine(EngineError::Vault(VaultError::Key {
                    path: vault.to_owned(),
                    problem: refused.reason,
                }))),
                code => Err(AgentError::Owner {
                    code,
                    reason: refused.reason,
                    retryable: code.is_retryable(),
                }),
            };
        }
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            return Err(AgentError::Owner {
                code: Code::VaultOwnerVersion,
                reason: format!(
                    "{} is not the socket of a vault's owner: {error}",
                    place.path().display()
                ),
                retryable: false,
            });
        }
        // It ended during the greeting.
        Err(error) => return Ok(Knock::Later(error.to_string())),
    };
    let agent = welcome.agent;
    Ok(match Owner::new(stream, &welcome, bus) {
        Some((owner, ended)) => Knock::In(Box::new(owner), agent, ended),
        None => Knock::Nobody,
    })
}

fn same_user(stream: &tokio::net::UnixStream) -> io::Result<bool> {
    Ok(stream.peer_cred()?.uid() == own_user()?)
}

fn in_use(vault: &Path, why: &str) -> AgentError {
    let vault: PathBuf = vault.to_owned();
    AgentError::Owner {
        code: Code::VaultInUse,
        reason: format!("{}: {why}", vault.display()),
        retryable: true,
    }
}
