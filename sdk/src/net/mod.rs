//! The network: the API over HTTP, relay nodes over QUIC.
//!
//! - [`token`]: what a token is here, and who gives them out ([`TokenProvider`]).
//! - [`api`]: the API's client, which is a [`TokenProvider`].
//! - [`relay`]: a session with a relay node: append, subscribe, key packages.
//!
//! Nothing here knows MLS or the vault: frames and records go in and out as they are. Everything that a server answers is
//! bounded before it is kept.

pub mod api;
pub mod relay;
pub mod token;

pub use api::{ApiClient, ApiError, ApiKey, Method};
pub use relay::{Relay, RelayError, Session};
pub use token::{ProofSigner, Token, TokenError, TokenFn, TokenProvider, TokenSource, TokenSubject};
