//! The relay node: one iroh endpoint in front of a log.
//!
//! Agents connect over QUIC (ALPN `skytale/relay/1`), show a token, append frames and read entries back from any
//! offset. The node decides who may do what *as whom*; what a frame means to a log is the store's business
//! ([`skytale_log_store::LogState`]). It reads no body and keeps no key but its own.
//!
//! ```no_run
//! use skytale_relay_node::{RelayConfig, RelayNode, TrustSource};
//! # async fn run(store: std::sync::Arc<dyn skytale_log_store::LogStore>, api: TrustSource) -> Result<(), Box<dyn std::error::Error>> {
//! let config = RelayConfig {
//!     issuer: "http://127.0.0.1:8080".into(),
//!     audience: "relays".into(),
//!     ..RelayConfig::default()
//! };
//! let node = RelayNode::start(config, store, api, None).await?;
//! println!("{} at {:?}", node.endpoint_id(), node.bound_addresses());
//! node.drain(std::time::Duration::from_secs(20)).await;
//! node.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! # Invariants
//! - A subscription is a loop: read after the cursor, send, at the head wait for the head to move. Nothing is dropped
//!   for a slow reader, and it costs one batch of memory.
//! - Nothing past what the roster allowed at an entry's position is sent, however the roster changes meanwhile.
//! - An append is answered when the store says that it is durable; answers come in the order of the requests.
//! - A session ends when its token does, when the token's API key is revoked, or when the agent connects again.
//! - Everything that a peer can make the node keep is bounded; a bound that is hit has a code and a metric.
//! - The tap never holds a session up, and its files lead back to no id.
//!
//! # How a refusal arrives
//! A stream whose kind is known gets a `Refusal` message. A stream refused before that (too many streams, before the
//! Hello, an `Open` that cannot be read) is reset and stopped with the code's number. A session that ends gets a
//! `Refusal` on its control stream, then the connection is closed with the code's number and a reason.
//!
//! # Modules
//! `authorize`, `rate`, `turns`, `addresses`, `usage`, `deframe`, `session::state`, `clock::skew`, `https::frame` and
//! `directory::pause` are pure; `node`, `session`, `https`, `trust` and `directory` drive them; `tap` records their
//! actions; [`config`] is what an operator sets, `metrics` what an operator sees.

mod accounts;
mod admin;
mod authorize;
mod clock;
pub mod config;
mod deframe;
mod directory;
mod drain;
mod endpoint;
mod https;
mod incoming;
mod limited;
mod load;
mod metrics;
mod node;
mod pace;
mod rate;
mod readers;
mod refusal;
mod rollback;
mod secret_key;
mod session;
mod stream;
mod tap;
mod trust;
mod turns;
mod usage;

pub use clock::{Clock, Source as ClockSource, Span as ClockSpan};
pub use config::{
    AdminConfig, ConfigError, HttpsConfig, LimitsConfig, RelayConfig, SessionConfig, TapConfig, TrustConfig,
};
pub use endpoint::BindError;
pub use https::HttpsError;
pub use metrics::describe as describe_metrics;
pub use node::{RelayNode, StartError};
pub use rollback::AcceptedRollback;
pub use secret_key::{SecretKeyError, check_secret_key_file};
pub use skytale_http::RenderMetrics;
pub use trust::{ApiUrlError, EnrolmentKeyError, ReachError, RelaySecret, TrustSource, reach_api};
