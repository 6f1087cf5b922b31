//! Tokens: their claims, and their verification. EdDSA (RFC 8037, RFC 7519) and nothing else.
//!
//! The API signs with a [`TokenSigner`]; relay nodes check with a [`TokenVerifier`] made from the
//! API's key set. Neither knows a clock: the time is given.
//!
//! ```
//! use skytale_proto::{AccountId, AgentId, ChannelId, EndpointId, KeyId};
//! use skytale_proto::rest::Jwks;
//! use skytale_proto::token::{Action, Claims, Confirmation, TokenSigner, TokenVerifier};
//!
//! let signer = TokenSigner::generate();
//! let token = signer.sign(&Claims {
//!     iss: "https://api.example".into(),
//!     aud: "relays".into(),
//!     sub: AgentId::from_bytes([1; 32]),
//!     acct: AccountId::generate(),
//!     key: KeyId::generate(),
//!     scope: "relay:append relay:replay".into(),
//!     cnf: Confirmation { eid: EndpointId::from_bytes([2; 32]) },
//!     exp: 2_000,
//!     iat: 1_000,
//!     jti: "a".into(),
//! });
//!
//! let verifier = TokenVerifier::new(&Jwks { keys: vec![signer.jwk()] }, "https://api.example", "relays")?;
//! let claims = verifier.verify(&token, 1_500)?;
//! assert!(claims.allows(Action::Append, &ChannelId::generate().log()));
//! assert!(!claims.allows(Action::CreateChannel, &ChannelId::generate().log()));
//! # Ok::<(), skytale_proto::token::TokenError>(())
//! ```

mod claims;
mod provider;
mod scope;
mod signer;
mod verifier;

pub use claims::{Claims, Confirmation};
pub use scope::{Action, Scope, ScopeError};
pub use signer::TokenSigner;
pub use verifier::TokenVerifier;

use crate::Code;

/// Keys in one key set, at most: the one that signs and those whose tokens have not all ended.
pub const JWKS_KEYS_MAX: usize = 16;

/// Reason why a token, or a key set, is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct TokenError {
    /// The code.
    pub code: Code,
    /// Reason for the refusal, without the token.
    pub reason: String,
}

impl TokenError {
    fn new(code: Code, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }

    /// The code.
    pub const fn code(&self) -> Code {
        self.code
    }
}

#[cfg(test)]
mod tests;
