//! Skytale's API: accounts, API keys, tokens and the keys that verify them, agents, channel names, and the
//! directory of relay nodes.
//!
//! Agents ask it for tokens; relay nodes ask it which keys verify those and which API keys were revoked. It
//! never sees a frame, a group's state or a message, and it cannot make a member: a token says who may talk
//! to a relay node, the channel's members alone say who belongs to it.
//!
//! ```no_run
//! # async fn run() -> Result<(), skytale_api::StartError> {
//! use skytale_api::{Api, ApiConfig};
//!
//! let config = ApiConfig::dev("sqlite:/var/lib/skytale/api.db");
//! let api = Api::start(config).await?;
//! println!("listening on {}", api.local_addr());
//! api.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants
//! - An API key and a token are shown once, to the caller. Stored are a hash (Argon2id) of the one and nothing of the
//!   other. The seeds of signing keys are stored encrypted.
//! - A token is given out for an API key *and* a proof that the agent holds its identity key, over a nonce that
//!   is good once. An agent belongs to the account that first proved it.
//! - A change that was answered with success is durable. A revocation is in the feed by the transaction that revokes.
//! - Every refusal is `application/problem+json` with a code ([`skytale_proto::Code`]).
//! - Everything that a request can cost is bounded: body, time, hashing memory, rate, pages, connections.
//! - Outside `dev` nothing has a default that opens: see [`ApiConfig::check`].
//!
//! # Modules
//! [`config`]: what it needs to start. [`service`]: what it does, as an [`axum::Router`]. [`server`]: the same
//! behind a listener. [`reach`]: whether its database answers. [`rewrap`]: another key encryption key for what is stored.

pub mod clock;
pub mod config;
pub mod reach;
pub mod rewrap;
pub mod server;
pub mod service;

mod admin;
mod asker;
mod audit;
mod auth;
mod directory;
mod health;
mod metrics;
mod openapi;
mod places;
mod problem;
mod rate;
mod request;
mod routes;
mod seal;
mod signing;
mod store;

pub use clock::Clock;
pub use config::{AdminConfig, ApiConfig, ConfigError, KeyEncryptionKey, Limits, Mode, Rate};
pub use metrics::describe as describe_metrics;
pub use openapi::document as openapi_document;
pub use reach::{ReachError, reach_database};
pub use rewrap::{RewrapError, Rewrapped, rewrap_signing_keys};
pub use server::Api;
pub use service::{Service, StartError};
pub use skytale_http::RenderMetrics;
