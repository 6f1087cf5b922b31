//! The Skytale SDK: end-to-end encrypted channels for agents, over a relay's durable log.
//!
//! An [`Agent`] has one identity and one vault. It creates channels and is added to channels; a [`Channel`] sends,
//! receives and changes its membership. Everything works offline and survives a crash. Unsent messages wait in the
//! vault, and an agent that reconnects replays what it missed, in order, each entry once.
//!
//! ```no_run
//! use skytale_sdk::prelude::*;
//!
//! # async fn run(worker: AgentId) -> Result<(), Error> {
//! // SKYTALE_API_URL and SKYTALE_API_KEY, which `skytale dev` prints.
//! let agent = Agent::from_env("coordinator.vault").await?;
//! agent.connect().await?;
//! let channel = agent.ensure_channel("tasks").await?;
//! channel.ensure_members(&[worker]).await?;
//! channel.send("task 1").await?;
//! let mut messages = channel.messages();
//! loop {
//!     let message = messages.next().await?;
//!     println!("{}", String::from_utf8_lossy(&message.payload));
//!     message.ack().await?;
//! }
//! # }
//! ```
//!
//! One process at a time has a vault open. Other processes of the same user that have its key attach to that one, with
//! the same API: see [`Agent::open_or_attach`].
//!
//! This crate is not a relay: it never serves others. It has no account of its own: it requests tokens from the API with
//! a key that the application provides.
//!
//! # The runtime
//! Calls need a tokio runtime with its I/O and time drivers (`enable_all`), of either flavor: multi-thread or current
//! thread. The background work of an agent runs in the runtime that [`Agent::connect`] was called in. If that runtime
//! ends, the work ends, and waits fail with [`Code::Environment`]; a later [`Agent::connect`] restarts it. The vault
//! has its own thread, so no call blocks the runtime on the disk.
//!
//! # Lifetime of an agent
//! Clones of an [`Agent`] share the same agent. Dropping the last one ends the background work, as [`Agent::close`]
//! does, but without waiting. A [`Channel`], [`Messages`], [`Received`] or [`Sent`] does not keep the agent alive: its
//! calls then fail with [`Error::Closed`]. [`AllMessages`] does, since it holds a clone. Unsent messages stay in the
//! vault's outbox and go out in the next run.
//!
//! # Cancel safety
//! Every future of this crate may be dropped at any time. A call that is dropped early takes effect completely or not
//! at all. [`Messages::next`], [`AllMessages::next`] and [`Events::next`] lose nothing if they are dropped, so they fit
//! into `tokio::select!`.
//!
//! # Defaults and bounds
//!
//! | limit | default | setting | when it is reached |
//! |---|---|---|---|
//! | unacknowledged messages of a channel | 10,000 | [`DriverConfig::inbox_messages_max`] | the channel pauses: [`Event::Paused`]. It resumes when half of them are acknowledged, or when something is to be sent there |
//! | messages in a channel's outbox | 100,000 | [`EngineConfig::outbox_messages_max`] | sending fails with [`Code::OutboxFull`] |
//! | bytes in a channel's outbox | 256 MiB | [`EngineConfig::outbox_bytes_max`] | sending fails with [`Code::OutboxFull`] |
//! | a message's payload | [`PAYLOAD_BYTES_MAX`] bytes | - | sending fails with [`Code::PayloadTooLarge`] |
//! | events buffered for a slow receiver | 4,096 | [`DriverConfig::events_max`] | the oldest are dropped: [`Event::Lagged`] |
//! | timeout of an operation that needs a relay node | 30 s | [`DriverConfig::online_timeout`] | it fails with [`Error::Offline`] |
//! | delay before reconnecting | 200 ms to 30 s | [`DriverConfig::backoff_min`], [`DriverConfig::backoff_max`] | [`Event::ConnectFailed`] gives the next delay |
//! | history of a channel | unlimited | [`EngineConfig::history`] | older acknowledged messages are removed |
//!
//! ```
//! use skytale_sdk::{DriverConfig, EngineConfig, Keep};
//! use std::time::Duration;
//!
//! let (driver, engine) = (DriverConfig::default(), EngineConfig::default());
//! assert_eq!(driver.inbox_messages_max, 10_000);
//! assert_eq!(driver.events_max, 4_096);
//! assert_eq!(driver.online_timeout, Duration::from_secs(30));
//! assert_eq!((driver.backoff_min, driver.backoff_max), (Duration::from_millis(200), Duration::from_secs(30)));
//! assert_eq!((engine.outbox_messages_max, engine.outbox_bytes_max), (100_000, 256 * 1024 * 1024));
//! assert_eq!(engine.history, Keep::All);
//! ```
//!
//! # Errors
//! Each error has a stable [`Code`], a help text, and a flag that says whether a retry may succeed:
//!
//! ```
//! use skytale_sdk::{Code, Error};
//!
//! let error = Error::Closed;
//! assert_eq!(error.code(), Code::Closed);
//! assert!(!error.is_retryable());
//! assert!(!error.help().is_empty());
//! ```
//!
//! Waits for a session fail at once if there cannot be one, for example with a wrong API key. While the agent is
//! offline they go on.
//!
//! # Stability
//! The documented items are the public API, and `docs/public-api/skytale-sdk.txt` lists it. Structs and enums may gain
//! fields and variants: they are `#[non_exhaustive]`. The hidden module `internals` is for the crates of this
//! workspace, and may change at any time.
//!
//! # Invariants
//! - Processing an entry (group state, message, cursor) is one transaction of one encrypted database; so is sending
//!   (plaintext, ratchet state, ciphertext). There is no state outside of it.
//! - The signature key of an agent's leaf **is** its [`AgentId`]. No server can put a key into a group under another's
//!   name.
//! - An entry that cannot be processed is recorded and reported. It blocks nothing, and does not vanish.
//! - Two members that are shown different logs detect it: messages carry a digest of the log that their author saw.

// Tests in this crate share code with the integration tests.
#[cfg(test)]
extern crate self as skytale_sdk;

mod agent;
mod channel;
mod engine;
mod event;
#[doc(hidden)]
pub mod internals;
mod line;
mod mls;
mod net;
#[cfg(doctest)]
mod pages;
pub mod prelude;
mod raw;
mod share;
mod vault;

#[doc(no_inline)]
pub use bytes::Bytes;

pub use agent::{Agent, AgentConfig, AgentError, AllMessages, DriverConfig, Invitation, Invitations, RelaySource};
pub use channel::{Added, Channel, Delivered, Messages, Received, Sent};
pub use engine::{
    CONTACT_BYTES_MAX, CONTENT_TYPE_BYTES_MAX, ChannelInfo, ChannelState, Clock, Consent, ConsentStatus, Contact,
    DeferredAdd, Divergence, EngineConfig, EngineError, FailedSend, JoinRequest, Keep, LABEL_BYTES_MAX, Lost,
    LostReason, Message, Outgoing, PAYLOAD_BYTES_MAX, PolicyChange, Problem, Properties, Purged, Queued, QueuedKind,
    Refusal, Rollback, SEND_ID_BYTES_MAX, Settled, Standing, Trust, UnreadableCause, UnreadableEntry,
};
pub use event::{Event, Events};
pub use net::relay::{NetworkConfig, Refused, Transport, TransportError};
pub use net::{
    ApiClient, ApiError, ApiKey, Relay, RelayError, Token, TokenError, TokenFn, TokenProvider, TokenSource,
    TokenSubject,
};
#[doc(inline)]
pub use skytale_proto::id::IdError;
#[doc(inline)]
pub use skytale_proto::rest::Relay as DirectoryRelay;
#[doc(inline)]
pub use skytale_proto::{
    AccountId, AgentId, ChannelId, Code, Digest, EndpointId, FrameError, FrameId, Holders, Offset, Policy, Region,
    Right,
};
pub use vault::{BackupInfo, BackupKey, RestoreInfo, VaultError, VaultKey, restore};

/// Error of an operation on an agent or a channel: [`AgentError`].
pub type Error = AgentError;
