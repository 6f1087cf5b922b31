//! What other crates of this workspace use: the relay node's tests, the bridge, the command, benches and the load generator.
//!
//! **No part of the public API.** Anything here may change or go away in any version. An application that needs something
//! of it is missing something at the root of the crate.

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
