//! Items for other crates of this workspace: the relay node's tests, the bridge, the command, benches and the load
//! generator.
//!
//! **Not part of the public API.** Anything here may change or go away in any version. If an application needs an item
//! of it, the root of the crate lacks something.

/// The transactional heart, without network or runtime.
pub mod engine {
    pub use crate::engine::*;
}

/// The API's client and sessions with relay nodes.
pub mod net {
    pub use crate::net::*;
}

/// Logs without MLS, for an edge of the system such as the bridge.
pub mod raw {
    pub use crate::raw::*;
}
