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

    /// The channel of a label, which another agent has made and adds this one to: at once where it is there, else the channel of
    /// the oldest of this agent's [invitations](Agent::invitations), now or as soon as there is one; it gets the label,
    /// which accepts the invitation. An invitation that came while the program did not run is there when it begins again.
    ///
    /// Waits as long as it takes, and for the reason why it cannot be: see [waits](Agent#waits). Cancel-safe.
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
    /// Makes agents members, before anything that is sent after this call: each one that is no member is added once it has
    /// KeyPackages on offer and this agent is online. Durable when this returns, also offline; members and this agent itself
    /// are left out, so a program calls it each time it begins.
    ///
    /// What is sent after this call waits in the outbox until the additions are in the log, and is encrypted only then: those
    /// who were added read it. What was sent before is not held up.
    ///
    /// An agent that does not let itself be added (it gave no consent, say) holds back nothing. One that offers no KeyPackages,
    /// since it was never online or does not exist, does so for
    /// [`DriverConfig::member_wait`](crate::agent::DriverConfig::member_wait). [`Event::MemberNotAdded`] then says that
    /// sending goes on without it; it is added as soon as that is possible. [`Channel::remove`] and [`Channel::cancel_add`]
    /// cancel an addition that waits, and [`Channel::leave`] all of them.
    ///
    /// [`Code::PolicyForbids`](skytale_proto::Code::PolicyForbids) where only admins may add agents.
    pub async fn ensure_members(&self, agents: &[AgentId]) -> Result<(), AgentError> {
        self.add_before(agents).await
    }
}

/// The oldest channel of a label that the agent has not left.
fn of_label(channels: &[ChannelInfo], label: &str) -> Option<ChannelId> {
    let found = channels
        .iter()
        .find(|channel| channel.state != ChannelState::Left && channel.label == label);
    found.map(|channel| channel.id)
}
