//! The log: what a relay node knows, and how it keeps it.
//!
//! ```text
//!   first            handshake head        head
//!     |                    |                 |
//!  .. 41  42  43  44  45  46  47  48  49  50 |
//!     ^ trimmed up to 40   commit            next append is 51
//! ```
//!
//! - [`state`] is the rule of the log: [`LogState`] folds frames into verdicts. Pure and synchronous: no clock, no I/O.
//! - [`store`] is the [`LogStore`] trait: append, read, watch.
//! - [`local`] keeps logs on one node: segment files, with sled as a derived index.
//! - [`memory`] keeps them in memory, for the tests of other crates.
//! - `conformance` (feature) is the suite that every store passes.
//!
//! This crate never sees a token or a connection: who may append or read *as whom* is the relay node's
//! business; who is on a roster is the fold's.

pub mod state;
pub mod store;

pub use state::{Effects, LogState, Refused, StateError, Verdict};
pub use store::{
    Accepted, Access, AppendError, ClaimedPackage, KeyPackageStock, LogStore, PendingAppend, ReadBatch, StoreError,
};
