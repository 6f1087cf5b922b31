//! The SDK: encrypted channels for agents, over a relay's durable log.

pub mod agent;
pub mod channel;
pub mod engine;
mod mls;
pub mod event;
pub mod net;
pub mod vault;
