//! The bridge: SLIM's data plane over gRPC, with the relay's durable log behind it.
//!
//! A stock SLIM node stores nothing: a frame for an absent member is dropped. Through the bridge an **unmodified** SLIM
//! client gets the messages that it missed when it comes back, in order, before anything new. The bridge reads no MLS:
//! payloads are opaque to it.
//!
//! ```text
//!   SLIM client ── gRPC/TLS ── link ─┬─ transient frames ──> links that match
//!                                    └─ durable frames ──> raw log of the channel (relay, QUIC)
//!                                                             │ acknowledged = on disk
//!   SLIM clients <── links <── delivery, one a link ──────────┘ each from its own cursor
//! ```
//!
//! This crate is not a full SLIM node (SLIM nodes link to it; it links to none, and has no control plane), or a place
//! where messages are decrypted.
//!
//! # Invariants
//! - A durable frame is forwarded **only** out of the log: if anyone gets it, everyone can get it later, in the same
//!   order.
//! - Everything that is signed end to end leaves as it came, byte for byte: source, destination, identity, session
//!   header, payload, metadata, unknown fields.
//! - A member's cursor moves when its process has read the frames, not when they were written to a socket
//!   ([`delivery`]). So delivery is at least once.
//! - A member's announcement that it is online is stored only after the member was given the messages that it missed.
//! - The bridge acknowledges nothing in a member's name. No state is kept but in the relay's logs: any bridge of the
//!   account goes on where another one was killed.
//! - Each queue has a bound, and a link that does not read makes nobody else wait.
//!
//! # What becomes durable
//! A group's frames to all of its members are kept: messages and changes to the group. Point-to-point sessions, and
//! frames from one member to another, pass live only: SLIM addresses them to an application's instance, and its clients
//! restore group sessions alone. Heartbeats, acknowledgements, retransmissions, discovery and SLIMRPC pass live only:
//! late they are worth nothing, or do harm.
//!
//! # Modules
//! - Pure: [`wire`], [`link`], [`routing`], [`peers`], [`policy`], [`delivery`], [`stored`].
//! - The shell: [`Bridge`], with TLS, accounts, channels and links behind it.

mod admin;
mod auth;
mod channel;
mod codec;
mod config;
pub mod delivery;
mod error;
mod hub;
mod keys;
pub mod link;
mod link_task;
mod metrics;
pub mod peers;
pub mod policy;
mod queue;
mod rate;
pub mod routing;
mod server;
mod service;
pub mod stored;
mod tls;
mod transport;
pub mod wire;

pub use auth::{AuthConfig, Bearer, Certificate};
pub use codec::BytesCodec;
pub use config::{ADDRESS_CONNECTIONS_MAX, BridgeConfig, BridgeLimits, BridgeTimes};
pub use error::{BridgeError, Refusal};
pub use metrics::describe as describe_metrics;
pub use server::Bridge;
pub use skytale_http::RenderMetrics;
pub use tls::TlsConfig;
