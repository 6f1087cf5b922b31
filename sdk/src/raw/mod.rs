//! Raw logs: append and follow logs of kind `raw`, without MLS, vault or engine.
//!
//! A raw log has no handshake rule and no members: every agent of the account that created it appends and reads. This is
//! for an edge of the system that carries other people's ciphertext, such as the bridge. What is appended here is **not**
//! encrypted by the SDK.
//!
//! ```text
//!   RawClient ── driver: one session with a relay node, found again whenever it is lost
//!             ├─ RawWriter (one a log)   bodies in, receipts out, in order, each an entry once
//!             └─ RawReader (one a log)   entries after a cursor, dense, across sessions
//! ```
//!
//! # Invariants
//! - A receipt means that the entry is durable. A body without one is appended again, under the same frame id, until the
//!   relay gives a verdict: it becomes one entry.
//! - The bodies of one writer become entries in the order of the calls to [`RawWriter::append`].
//! - A reader misses no entry. Where the log has given entries up, it says so with [`RawItem::Trimmed`].

mod client;
mod error;
mod link;
mod reader;
mod writer;

pub use client::{RawClient, RawConfig};
pub use error::RawError;
pub use reader::{RawEntry, RawItem, RawReader};
pub use writer::{RawPending, RawWriter};
