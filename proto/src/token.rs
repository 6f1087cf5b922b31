//! Tokens: what they claim, and their verification. EdDSA (RFC 8037, RFC 7519) and nothing else.

use crate::{AccountId, AgentId, ChannelId, Code, EndpointId, KeyId, LogId};
use serde::{Deserialize, Serialize};

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// `relay:append`: commits, proposals, messages and raw frames.
    Append,
    /// `relay:replay`: subscriptions; to the agent's own log with or without named channels.
    Replay,
    /// `channels:create`.
    CreateChannel,
    /// `keypackages:publish`, on the agent's own log.
    PublishKeyPackages,
    /// `keypackages:claim`, on any agent's log.
    ClaimKeyPackages,
}

/// An action, on every channel or on one. Text: `relay:append` or `relay:append@<channel id>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// The action.
    pub action: Action,
    /// The only channel it is allowed on; `None` is every channel.
    pub channel: Option<ChannelId>,
}

/// The claims of a token (RFC 7519 section 4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Issuer: the API's URL.
    pub iss: String,
    /// Audience: the name of the relays that it is for.
    pub aud: String,
    /// The agent.
    pub sub: AgentId,
    /// The agent's account.
    pub acct: AccountId,
    /// The API key that the token was given out for.
    pub key: KeyId,
    /// What it allows: [`Scope`]s, separated by spaces (RFC 8693 section 4.2).
    pub scope: String,
    /// Who may present it (RFC 7800).
    pub cnf: Confirmation,
    /// When it ends, unix seconds.
    pub exp: u64,
    /// When it was made, unix seconds.
    pub iat: u64,
    /// Its own id.
    pub jti: String,
}

/// The confirmation claim: the iroh endpoint that must be the peer of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// The endpoint.
    pub eid: EndpointId,
}

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct TokenError {
    /// The code.
    pub code: Code,
    /// What was wrong, without the token.
    pub reason: String,
}

impl Claims {
    /// Whether the scopes allow an action on a log.
    pub fn allows(&self, _action: Action, _log: &LogId) -> bool {
        unreachable!("written with the verifier")
    }
}
