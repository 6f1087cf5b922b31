//! Names of other agents, for applications.

use super::{Agent, AgentError};
use crate::engine::Contact;
use skytale_proto::AgentId;

impl Agent {
    /// Lists the names that this agent gives to other agents, ordered by name. They stay in the vault.
    pub async fn contacts(&self) -> Result<Vec<Contact>, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.contacts().await;
        }
        self.inner.core.try_call(|actor| actor.engine.contacts()).await
    }

    /// Gives an agent a name: letters, digits, `-`, `_`, `.`, `@`, at most
    /// [`CONTACT_BYTES_MAX`](crate::engine::CONTACT_BYTES_MAX) bytes, and nothing that reads as an id. The previous
    /// holder of the name loses it, and the agent loses its previous name.
    pub async fn set_contact(&self, name: &str, agent: AgentId) -> Result<(), AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.set_contact(name.to_owned(), agent).await;
        }
        let name = name.to_owned();
        self.inner
            .core
            .try_call(move |actor| actor.engine.set_contact(&name, agent))
            .await
    }

    /// Removes a name. Returns the agent that had it.
    pub async fn remove_contact(&self, name: &str) -> Result<Option<AgentId>, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.remove_contact(name.to_owned()).await;
        }
        let name = name.to_owned();
        self.inner
            .core
            .try_call(move |actor| actor.engine.remove_contact(&name))
            .await
    }
}
