//! Rights and admins of a channel.

use super::{Channel, Sent, attached};
use crate::agent::AgentError;
use crate::engine::PolicyChange;
use skytale_proto::{AgentId, Holders, Policy, Right};

impl Channel {
    /// Returns the channel's policy: the rights that only admins have, and the list of admins. `None` if all members
    /// may do everything (a channel of an older version), and for a channel that was left.
    pub async fn policy(&self) -> Result<Option<Policy>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.policy(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.policy(channel)).await
    }

    /// Lists the members that are admins, by id. If the policy lists none of them, all members are admins. Empty for a
    /// channel without a policy.
    pub async fn admins(&self) -> Result<Vec<AgentId>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.admins(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.admins(channel)).await
    }

    /// Changes rights and admins in one commit. Only admins may do so, unless the policy says otherwise. Resolves as
    /// [`Delivered::Unneeded`](super::Delivered::Unneeded) if nothing changes.
    pub async fn change_policy(&self, change: PolicyChange) -> Result<Sent, AgentError> {
        if let Some(owner) = self.core.owner() {
            return attached::first(owner.change_policy(self.id, change).await);
        }
        let channel = self.id;
        self.queue(move |actor| actor.engine.change_policy(channel, &change))
            .await
    }

    /// Restricts rights to admins, or gives them to all members. See [`Channel::change_policy`].
    pub async fn set_policy(&self, set: &[(Right, Holders)]) -> Result<Sent, AgentError> {
        let set = set.to_vec();
        self.change_policy(PolicyChange {
            set,
            ..PolicyChange::default()
        })
        .await
    }

    /// Makes members admins. See [`Channel::change_policy`].
    pub async fn promote(&self, agents: &[AgentId]) -> Result<Sent, AgentError> {
        let promote = agents.to_vec();
        self.change_policy(PolicyChange {
            promote,
            ..PolicyChange::default()
        })
        .await
    }

    /// Makes admins ordinary members. At least one admin must stay. See [`Channel::change_policy`].
    pub async fn demote(&self, agents: &[AgentId]) -> Result<Sent, AgentError> {
        let demote = agents.to_vec();
        self.change_policy(PolicyChange {
            demote,
            ..PolicyChange::default()
        })
        .await
    }
}
