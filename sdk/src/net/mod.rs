//! The network: the API over HTTP, relay nodes over QUIC.
//!
//! - [`token`]: tokens and their providers ([`TokenProvider`]).
//! - [`api`]: the API's client, which is a [`TokenProvider`].
//! - [`relay`]: a session with a relay node: append, subscribe, key packages.
//!
//! Nothing here knows MLS or the vault: frames and records pass unchanged. Every answer of a server is bounded before
//! it is stored.

pub mod api;
pub mod relay;
pub mod token;

pub use api::{ApiClient, ApiError, ApiKey, Method};
pub use relay::{Relay, RelayError, Session};
pub use token::{ProofSigner, Token, TokenError, TokenFn, TokenProvider, TokenSource, TokenSubject};
