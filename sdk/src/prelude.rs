//! Common imports: `use skytale_sdk::prelude::*;`.

#[doc(no_inline)]
pub use crate::{
    Agent, AgentConfig, AgentId, Channel, ChannelId, Code, Delivered, Error, Event, FrameId, Message, Offset, Outgoing,
    Received, Region, Sent, VaultKey,
};
