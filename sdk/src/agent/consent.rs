//! Who may claim an agent's KeyPackages, who may add it without asking, and what waits for its word.

use super::{Agent, AgentError};
use crate::engine::{Consent, ConsentStatus, JoinRequest, Trust};
use skytale_proto::ChannelId;

impl Agent {
    /// Who may claim this agent's KeyPackages, and so add it to channels. Its own account's agents always may.
    pub async fn consent(&self) -> Result<ConsentStatus, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.consent().await;
        }
        self.inner.core.try_call(|actor| actor.engine.consent()).await
    }

    /// Says who may claim this agent's KeyPackages from now on. Durable when this returns; the relay node refuses others once
    /// the agent's log says so, which [`Agent::caught_up`] waits for. What others have claimed before is void, where they may not claim any more.
    pub async fn set_consent(&self, consent: Consent) -> Result<(), AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.set_consent(consent).await;
        }
        let set = self.inner.core.try_call(move |actor| {
            actor.engine.set_consent(&consent)?;
            let pending = !actor.engine.consent()?.in_force;
            // On the engine's thread: whoever appends it says that it is done after this.
            actor.bus.readiness.send_modify(|ready| ready.stock &= !pending);
            actor.bus.stock_changed.notify_one();
            Ok(())
        });
        set.await
    }

    /// Who may add this agent to a channel without asking it. Others who hold a KeyPackage of it may ask: see
    /// [`Agent::requests`].
    pub async fn trust(&self) -> Result<Trust, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.trust().await;
        }
        self.inner.core.try_call(|actor| actor.engine.trust()).await
    }

    /// Says who may add this agent without asking, from now on.
    pub async fn set_trust(&self, trust: Trust) -> Result<(), AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.set_trust(trust).await;
        }
        self.inner
            .core
            .try_call(move |actor| actor.engine.set_trust(&trust))
            .await
    }

    /// Additions that wait to be accepted, oldest first. Nothing of those channels is read, listed or shown.
    pub async fn requests(&self) -> Result<Vec<JoinRequest>, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.requests().await;
        }
        self.inner.core.try_call(|actor| actor.engine.requests()).await
    }

    /// Accepts an addition. Durable when this returns; the channel is there once this agent has fetched what added it, which
    /// [`Agent::caught_up`] waits for.
    pub async fn accept(&self, channel: ChannelId) -> Result<(), AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.accept_request(channel).await;
        }
        let accepted = self.inner.core.try_call(move |actor| {
            actor.engine.accept_request(channel)?;
            actor.joins_pending().map(drop)
        });
        accepted.await
    }

    /// Declines an addition: this agent leaves the group, as soon as it is online and a member commits it. The channel is never
    /// listed, and nothing of it is shown. Durable when this returns.
    pub async fn decline(&self, channel: ChannelId) -> Result<(), AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.decline_request(channel).await;
        }
        let declined = self.inner.core.try_call(move |actor| {
            actor.engine.decline_request(channel)?;
            actor.joins_pending().map(drop)
        });
        declined.await
    }
}
