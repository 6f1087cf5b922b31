//! The bridge.
#![forbid(unsafe_code)]
pub mod link;
pub mod wire;
