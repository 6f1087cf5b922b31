//! The bridge.
#![forbid(unsafe_code)]
pub mod link;
pub mod policy;
pub mod routing;
pub mod stored;
pub mod wire;
