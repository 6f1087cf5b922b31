//! Claims of a token.

use super::{Action, Scope};
use crate::{AccountId, AgentId, EndpointId, KeyId, LogId};
use serde::{Deserialize, Serialize};

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
    /// Granted [`Scope`]s, separated by spaces (RFC 8693 section 4.2).
    pub scope: String,
    /// Key whose holder may present it (RFC 7800).
    pub cnf: Confirmation,
    /// Expiry, unix seconds.
    pub exp: u64,
    /// Time of issue, unix seconds.
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

impl Claims {
    /// The scopes that this version knows; one that it does not know allows nothing.
    pub fn scopes(&self) -> impl Iterator<Item = Scope> + '_ {
        self.scope.split_ascii_whitespace().filter_map(|text| text.parse().ok())
    }

    /// Whether the scopes allow the token's agent an action on a log; see [`Scope::allows`].
    pub fn allows(&self, action: Action, log: &LogId) -> bool {
        self.scopes().any(|scope| scope.allows(&self.sub, action, log))
    }

    /// [`Scope`]s as the `scope` claim has them.
    pub fn join_scopes(scopes: &[Scope]) -> String {
        let texts: Vec<String> = scopes.iter().map(Scope::to_string).collect();
        texts.join(" ")
    }
}
