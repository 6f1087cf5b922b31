//! The log: what a relay node knows, and how it keeps it.
//!
//! ```text
//!   first            handshake head        head
//!     |                    |                 |
//!  .. 41  42  43  44  45  46  47  48  49  50 |
//!     ^ trimmed up to 40   commit            next append is 51
//! ```
//!
//! Authors append frames; the fold gives each a verdict; readers replay entries from a cursor.
//!
//! ```
//! use skytale_log_store::{LogStore as _, MemoryStore, Refused};
//! use skytale_proto::{AgentId, ChannelId, ChannelMode, Detail, Frame, FrameId, Header, Offset, Record};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let store = MemoryStore::new();
//! let log = ChannelId::generate().log();
//! let (alice, bob) = (AgentId::from_bytes([1; 32]), AgentId::from_bytes([2; 32]));
//! let frame = |author, parent, detail| {
//!     let header = Header { log, id: FrameId::generate(), author, parent: Offset::new(parent), detail };
//!     Frame::new(header, b"opaque".as_slice())
//! };
//!
//! // A queued frame, then its verdict: many may be in flight.
//! let create = frame(alice, 0, Detail::Create { mode: ChannelMode::Mls, account: None, policy: None })?;
//! let accepted = store.append(create).await?.verdict().await?;
//! assert_eq!(accepted.offset, Offset::new(1));
//!
//! // Bob is not on the roster.
//! let refused = store.append(frame(bob, 1, Detail::Message)?).await?.verdict().await;
//! assert_eq!(refused, Err(Refused::NotMember.into()));
//!
//! // Entries after a cursor, as the bytes on disk.
//! let batch = store.read(log, Offset::ZERO, 64 * 1024, 100).await?;
//! for chunk in batch.records {
//!     for record in Record::decode_batch(chunk) {
//!         let record = record?;
//!         println!("{}: {} bytes", record.offset, record.payload.len());
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What holds
//! - Offsets are dense, from 1. A frame that is refused takes none.
//! - A verdict depends on the sequence of frames before it in the same log, and on nothing else.
//! - Every message entry was made in the epoch that its position implies, and the first commit on a head wins.
//! - An acknowledged entry is as durable as the store says, and no reader sees one that is less.
//! - A frame id is accepted once for as long as its entry is kept.
//! - An accepted bundle and its Welcomes are there together.
//!
//! # Modules
//! - [`state`] is the rule of the log: [`LogState`] folds frames into verdicts. Pure and synchronous: no clock, no I/O.
//! - [`store`] is the [`LogStore`] trait: append, read, watch.
//! - [`local`] keeps logs on one node: segment files, with sled as a derived index.
//! - `fleet` (feature) keeps them in the streams of a NATS cluster, with a local replica on each node.
//! - [`inspect`] checks and lists a stopped node's data.
//! - [`memory`] keeps them in memory, for the tests of other crates.
//! - [`watch`] tells readers that a head has moved; every store has one.
//! - `cluster` (feature) runs NATS servers for tests.
//! - `conformance` (feature) is the suite that every store passes.
//! - `faulty` (feature) is a store that fails on demand, for the tests of other crates.
//!
//! This crate never sees a token or a connection: the relay node decides who may append or read *as whom*; the fold
//! decides who is on a roster.

#[cfg(feature = "cluster")]
pub mod cluster;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "faulty")]
pub mod faulty;
#[cfg(feature = "fleet")]
pub mod fleet;
pub mod inspect;
pub mod local;
pub mod memory;
mod refusals;
pub mod state;
pub mod store;
pub mod watch;

#[cfg(feature = "fleet")]
pub use fleet::{FleetConfig, FleetStore};
pub use local::{LocalConfig, LocalStore, Replica};
pub use memory::MemoryStore;
pub use state::{Effects, LogState, Refused, StateError, Verdict};
pub use store::{
    Accepted, Access, AppendError, ClaimedPackage, KeyPackageStock, Lent, LogStatus, LogStore, PendingAppend,
    ReadBatch, Readiness, StoreError,
};
pub use watch::HeadWatches;
