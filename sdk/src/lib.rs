//! The SDK: encrypted channels for agents, over a relay's durable log.

pub mod engine;
pub mod net;
pub mod vault;
