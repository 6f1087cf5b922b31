//! What a program asks for each time it begins, and that is there from the second time on.

use super::config::AgentConfig;
use super::{Agent, AgentError};
use crate::channel::Channel;
use crate::engine::{ChannelInfo, ChannelState};
use crate::event::Event;
use crate::net::{ApiClient, ApiKey};
use crate::vault::VaultKey;
use skytale_proto::{AgentId, ChannelId, Policy};
use std::path::PathBuf;

impl AgentConfig {
    /// From the environment: `SKYTALE_API_URL`, `SKYTALE_API_KEY`; the vault's key from `SKYTALE_VAULT_PASSPHRASE`, or from the
    /// file `<vault>.key`, which is made where there is none. [`AgentError::Environment`] names what is missing.
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
    /// Opens the vault of an agent with what the environment says: see [`AgentConfig::from_env`]. Where another process of this
    /// user has it open, works through that one.
    pub async fn from_env(vault: impl Into<PathBuf>) -> Result<Self, AgentError> {
        Self::open_or_attach(AgentConfig::from_env(vault)?).await
    }

    /// The channel of a label: the oldest that this agent is in, or one that is made now. So a program that begins again goes on
    /// in the channel that it made before.
    pub async fn ensure_channel(&self, label: &str) -> Result<Channel, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return Ok(self.handle(owner.ensure_channel(label.to_owned()).await?));
        }
        let label = label.to_owned();
        let home = self.inner.link.region;
        let found = self.inner.core.try_call(move |actor| {
            if let Some(channel) = of_label(&actor.engine.channels()?, &label) {
                return Ok(channel);
            }
            let policy = Policy::new(actor.engine.agent_id());
            actor.create(&label, home, &policy)
        });
        Ok(self.handle(found.await?))
    }

    /// The channel of a label, which another agent has made and adds this one to: at once where it is there, else as soon as this
    /// agent is added to a channel that has no label yet; that one gets it. Waits as long as it takes, and for the reason
    /// why it cannot be: see [waits](Agent#waits). Cancel-safe.
    pub async fn join(&self, label: &str) -> Result<Channel, AgentError> {
        // Before the look: what comes during it is seen.
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

    /// As [`Agent::join`], without a wait: `None` where there is no such channel now.
    pub async fn try_join(&self, label: &str) -> Result<Option<Channel>, AgentError> {
        let found = match self.inner.core.owner() {
            Some(owner) => owner.try_join(label.to_owned()).await?,
            None => {
                let label = label.to_owned();
                let found = self.inner.core.try_call(move |actor| {
                    let channels = actor.engine.channels()?;
                    if let Some(channel) = of_label(&channels, &label) {
                        return Ok(Some(channel));
                    }
                    let Some(channel) = of_label(&channels, "") else {
                        return Ok(None);
                    };
                    actor.engine.relabel(channel, &label)?;
                    Ok(Some(channel))
                });
                found.await?
            }
        };
        Ok(found.map(|channel| self.handle(channel)))
    }
}

impl Channel {
    /// Sees to it that agents are members: those that are not yet are added once they have KeyPackages on offer and this agent is
    /// online ([`Channel::add_later`]). Members, this agent itself and those that wait already are left out; it is no
    /// error where nobody is left. Durable when this returns.
    pub async fn ensure_members(&self, agents: &[AgentId]) -> Result<(), AgentError> {
        let members = self.members().await?;
        let missing: Vec<AgentId> = (agents.iter().copied())
            .filter(|agent| !members.contains(agent))
            .collect();
        match missing.is_empty() {
            true => Ok(()),
            false => self.add_later(&missing).await,
        }
    }
}

/// The oldest channel of a label that the agent has not left.
fn of_label(channels: &[ChannelInfo], label: &str) -> Option<ChannelId> {
    let found = channels
        .iter()
        .find(|channel| channel.state != ChannelState::Left && channel.label == label);
    found.map(|channel| channel.id)
}
