//! Idempotent calls for a program's start: from the second start on, their result already exists.

use super::config::AgentConfig;
use super::{Agent, AgentError};
use crate::channel::Channel;
use crate::event::Event;
use crate::net::{ApiClient, ApiKey};
use crate::vault::VaultKey;
use skytale_proto::{AgentId, Policy};
use std::path::PathBuf;

impl AgentConfig {
    /// Creates a configuration from the environment: `SKYTALE_API_URL` and `SKYTALE_API_KEY`. The vault's key comes
    /// from `SKYTALE_VAULT_PASSPHRASE`, or from the file `<vault>.key`, which is created if it does not exist.
    /// [`AgentError::Environment`] names a missing variable.
    pub fn from_env(vault: impl Into<PathBuf>) -> Result<Self, AgentError> {
        let vault = vault.into();
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let needed = |name: &str| {
            variable(name).ok_or_else(|| AgentError::Environment {
                reason: format!("the environment variable {name} is not set; `skytale dev` prints one that works"),
            })
        };
        let refused = |error: crate::net::ApiError| AgentError::Environment {
            reason: error.to_string(),
        };
        let api_key = ApiKey::new(needed("SKYTALE_API_KEY")?).map_err(refused)?;
        let api = ApiClient::new(&needed("SKYTALE_API_URL")?, api_key).map_err(refused)?;
        let key = match variable("SKYTALE_VAULT_PASSPHRASE") {
            Some(passphrase) => VaultKey::passphrase(passphrase),
            None => VaultKey::beside(&vault),
        };
        Ok(Self::new(vault, key, api))
    }
}

impl Agent {
    /// Opens an agent's vault, configured by the environment: see [`AgentConfig::from_env`]. Attaches to another
    /// process of this user if that one has the vault open.
    pub async fn from_env(vault: impl Into<PathBuf>) -> Result<Self, AgentError> {
        Self::open_or_attach(AgentConfig::from_env(vault)?).await
    }

    /// Returns the channel with a label: the oldest one that this agent is in, or a new one. So a restarted program
    /// continues in the channel that it created earlier.
    pub async fn ensure_channel(&self, label: &str) -> Result<Channel, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return Ok(self.handle(owner.ensure_channel(label.to_owned()).await?));
        }
        let label = label.to_owned();
        let home = self.inner.link.region;
        let found = self.inner.core.try_call(move |actor| {
            if let Some(channel) = actor.engine.of_label(&label)? {
                return Ok(channel);
            }
            let policy = Policy::new(actor.engine.agent_id());
            actor.create(&label, home, &policy)
        });
        Ok(self.handle(found.await?))
    }

    /// Joins a channel that another agent has created, under a label. Returns the channel with that label if there is
    /// one. Otherwise it waits for the oldest of this agent's [invitations](Agent::invitations), and gives that channel
    /// the label, which accepts the invitation. Invitations that arrive while the program is not running are not lost.
    ///
    /// Waits without a timeout, and fails with the reason if it cannot succeed: see [waits](Agent#waits). Cancel-safe.
    pub async fn join(&self, label: &str) -> Result<Channel, AgentError> {
        // Subscribe before the look, so that nothing is missed meanwhile.
        let mut events = self.events();
        loop {
            if let Some(channel) = self.try_join(label).await? {
                return Ok(channel);
            }
            loop {
                match self.inner.core.bus.wait(events.next()).await? {
                    Some(Event::Joined { .. } | Event::Lagged { .. }) => break,
                    Some(_) => {}
                    None => return Err(AgentError::Closed),
                }
            }
        }
    }

    /// Like [`Agent::join`], without waiting: returns `None` if there is no such channel now.
    pub async fn try_join(&self, label: &str) -> Result<Option<Channel>, AgentError> {
        let found = match self.inner.core.owner() {
            Some(owner) => owner.try_join(label.to_owned()).await?,
            None => {
                let label = label.to_owned();
                let found = self.inner.core.try_call(move |actor| {
                    if let Some(channel) = actor.engine.of_label(&label)? {
                        return Ok(Some(channel));
                    }
                    let Some(invited) = actor.engine.invitations()?.first().copied() else {
                        return Ok(None);
                    };
                    actor.engine.relabel(invited.channel, &label)?;
                    Ok(Some(invited.channel))
                });
                found.await?
            }
        };
        Ok(found.map(|channel| self.handle(channel)))
    }
}

impl Channel {
    /// Ensures that agents are members before any later message is sent. Each agent that is not a member is added once
    /// it has KeyPackages on offer and this agent is online. Durable when this returns, even offline. Members and this
    /// agent itself are skipped, so a program can call it at each start.
    ///
    /// Messages sent after this call wait in the outbox until the additions are in the log, and are encrypted only
    /// then, so the new members can read them. Earlier messages are not held up.
    ///
    /// An agent that refuses to be added (it gave no consent, for example) holds back no messages. An agent without
    /// KeyPackages on offer, because it was never online or does not exist, holds them back for
    /// [`DriverConfig::member_wait`](crate::agent::DriverConfig::member_wait). [`Event::MemberNotAdded`] then reports
    /// that sending goes on without it; it is added as soon as possible. [`Channel::remove`] and
    /// [`Channel::cancel_add`] cancel a deferred addition, and [`Channel::leave`] cancels all of them.
    ///
    /// Fails with [`Code::PolicyForbids`](skytale_proto::Code::PolicyForbids) if only admins may add agents and this
    /// agent is not one.
    pub async fn ensure_members(&self, agents: &[AgentId]) -> Result<(), AgentError> {
        self.add_before(agents).await
    }
}
