//! Consent (claims of an agent's KeyPackages), trust (additions without a request), and requests to be accepted.

use super::{Agent, AgentError};
use crate::engine::{Consent, ConsentStatus, JoinRequest, Trust};
use skytale_proto::ChannelId;

impl Agent {
    /// Returns which agents may claim this agent's KeyPackages, and so add it to channels. Agents of its own account
    /// always may.
    pub async fn consent(&self) -> Result<ConsentStatus, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.consent().await;
        }
        self.inner.core.try_call(|actor| actor.engine.consent()).await
    }

    /// Sets which agents may claim this agent's KeyPackages. Durable when this returns. The relay node refuses others
    /// once the agent's log has the rule, which [`Agent::caught_up`] waits for. Earlier claims by agents that may no
    /// longer claim become void.
    pub async fn set_consent(&self, consent: Consent) -> Result<(), AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.set_consent(consent).await;
        }
        let set = self.inner.core.try_call(move |actor| {
            actor.engine.set_consent(&consent)?;
            let pending = !actor.engine.consent()?.in_force;
            // On the engine's thread: the task that appends it reports completion after this.
            actor.bus.readiness.send_modify(|ready| ready.stock &= !pending);
            actor.bus.stock_changed.notify_one();
            Ok(())
        });
        set.await
    }

    /// Returns which agents may add this one to a channel without a request. Others who hold one of its KeyPackages may
    /// request it: see [`Agent::requests`].
    pub async fn trust(&self) -> Result<Trust, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.trust().await;
        }
        self.inner.core.try_call(|actor| actor.engine.trust()).await
    }

    /// Sets which agents may add this one without a request, from now on.
    pub async fn set_trust(&self, trust: Trust) -> Result<(), AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.set_trust(trust).await;
        }
        self.inner
            .core
            .try_call(move |actor| actor.engine.set_trust(&trust))
            .await
    }

    /// Lists the additions that wait to be accepted, oldest first. Their channels are not read, listed or shown.
    pub async fn requests(&self) -> Result<Vec<JoinRequest>, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.requests().await;
        }
        self.inner.core.try_call(|actor| actor.engine.requests()).await
    }

    /// Accepts an addition. Durable when this returns. The channel exists once this agent has fetched the bundle that
    /// added it, which [`Agent::caught_up`] waits for.
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

    /// Declines an addition. Durable when this returns. This agent leaves the group as soon as it is online and a
    /// member commits the removal. The channel is never listed, and none of its messages is shown.
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
