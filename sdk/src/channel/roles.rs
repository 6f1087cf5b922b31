//! Who may do what in a channel.

use super::{Channel, Sent, attached};
use crate::agent::AgentError;
use crate::engine::PolicyChange;
use skytale_proto::{AgentId, Holders, Policy, Right};

impl Channel {
    /// The channel's policy: which rights only admins have, and whom it lists as admins. `None` where all members may do
    /// everything (a channel of an older version), and for a channel that was left.
    pub async fn policy(&self) -> Result<Option<Policy>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.policy(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.policy(channel)).await
    }

    /// The members that are admins, by id: all members, where the policy lists none of them. Empty for a channel without a
    /// policy.
    pub async fn admins(&self) -> Result<Vec<AgentId>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.admins(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.admins(channel)).await
    }

    /// Changes who has rights, and who is an admin, in one commit. Only admins may, unless the policy says otherwise. Ends as
    /// [`Delivered::Unneeded`](super::Delivered::Unneeded) where it is so already.
    pub async fn change_policy(&self, change: PolicyChange) -> Result<Sent, AgentError> {
        if let Some(owner) = self.core.owner() {
            return attached::first(owner.change_policy(self.id, change).await);
        }
        let channel = self.id;
        self.queue(move |actor| actor.engine.change_policy(channel, &change))
            .await
    }

    /// Gives rights to admins alone, or to all members. See [`Channel::change_policy`].
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

    /// Makes admins members like others. At least one admin stays. See [`Channel::change_policy`].
    pub async fn demote(&self, agents: &[AgentId]) -> Result<Sent, AgentError> {
        let demote = agents.to_vec();
        self.change_policy(PolicyChange {
            demote,
            ..PolicyChange::default()
        })
        .await
    }
}
