//! Peers: other systems that keep messages durably, as targets of the same workloads as our own.
//!
//! ```text
//!   a plan ── skytale_load::run ──> Target ─┬─ Ours       a relay node over a local store, through QUIC
//!                                           ├─ JetStream  nats-server, a stream a channel
//!                                           ├─ Redis      redis-server, a stream a key
//!                                           └─ Postgres   postgres, a table
//! ```
//!
//! Each is a real server on loopback with a folder of its own, which ends with this process, however that ends. All acknowledge
//! when an entry is on disk. A peer gets frames as opaque bytes, and keeps them in dense logs. It checks nothing of what a relay node
//! checks: tokens, rosters, handshake heads. Claims of KeyPackages do nothing, and succeed.

mod feed;
pub mod jetstream;
pub mod ours;
pub mod postgres;
pub mod redis;
mod server;

pub use feed::Feed;
pub use jetstream::JetStream;
pub use ours::Ours;
pub use postgres::Postgres;
pub use redis::Redis;
pub use server::{Absent, Server};

use skytale_load::target::Failed;
use skytale_proto::{AccountId, AgentId};
use std::fmt::Display;

/// Entries that a reader asks a peer for at once.
const BATCH_MAX: usize = 512;

/// The id of an agent at a peer, which knows none: all runs have the same.
fn agent_id(agent: u32) -> AgentId {
    let mut id = [0xa6; 32];
    id[..4].copy_from_slice(&agent.to_be_bytes());
    AgentId::from_bytes(id)
}

/// The account of all agents at a peer, which knows none.
fn account() -> AccountId {
    AccountId::from_bytes([0xac; 16])
}

/// It is not known whether it was done.
fn lost(what: &str, error: impl Display) -> Failed {
    Failed::lost(format!("{what}: {error}"))
}

/// A log's name where a peer wants text.
fn name(log: &[u8]) -> String {
    log.iter().map(|byte| format!("{byte:02x}")).collect()
}
