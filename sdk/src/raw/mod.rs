//! Raw logs: append and follow logs of kind `raw`, without MLS, vault or engine.
//!
//! A raw log has no handshake rule and no members: every agent of the account that created it appends and reads. It is
//! for components at the edge of the system that carry ciphertext of others, such as the bridge. The SDK does **not**
//! encrypt data appended here.
//!
//! ```text
//!   RawClient ── driver: one session with a relay node, found again whenever it is lost
//!             ├─ RawWriter (one a log)   bodies in, receipts out, in order, each an entry once
//!             └─ RawReader (one a log)   entries after a cursor, dense, across sessions
//! ```
//!
//! # Invariants
//! - A receipt means that the entry is durable. A body without a receipt is appended again, under the same frame id,
//!   until the relay gives a verdict: it becomes one entry.
//! - The bodies of one writer become entries in the order of the calls to [`RawWriter::append`].
//! - A reader misses no entry. If the log has trimmed entries, it reports them with [`RawItem::Trimmed`].

mod client;
mod error;
mod link;
mod reader;
mod writer;

pub use client::{RawClient, RawConfig};
pub use error::RawError;
pub use reader::{RawEntry, RawItem, RawReader};
pub use writer::{RawPending, RawWriter};
