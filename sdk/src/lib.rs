//! The SDK: encrypted channels for agents, over a relay's durable log.
//!
//! An [`Agent`](agent::Agent) has one identity and one vault. It makes channels and is added to channels; a
//! [`Channel`](channel::Channel) sends, receives and changes its membership. Everything works offline and survives a
//! crash: what is sent waits in the vault, and an agent that comes back replays what it missed, in order, each entry once.
//!
//! One process has a vault open. Others of the same user that have its key work through that one, with the same
//! [`Agent`](agent::Agent): see [`Agent::open_or_attach`](agent::Agent::open_or_attach).
//!
//! What this crate is not: a relay (it never serves others), or an account (it asks the API for tokens with a key that the
//! application gives it).
//!
//! # Invariants
//! - Processing an entry (group state, message, cursor) is one transaction of one encrypted database; so is sending
//!   (plaintext, ratchet state, ciphertext). There is no state outside of it.
//! - The signature key of an agent's leaf **is** its [`AgentId`](skytale_proto::AgentId). No server can put a key into a
//!   group under another's name.
//! - An entry that cannot be processed is recorded and told. It stops nothing, and does not vanish.
//! - Two members who are shown different logs find out: messages carry a digest of what their author saw.
//!
//! # Modules
//! - [`agent`], [`channel`], [`event`]: what an application uses.
//! - [`engine`]: the transactional heart, without network or runtime. [`vault`]: where it keeps its state.
//! - [`net`]: the API and sessions with relay nodes. [`raw`]: logs without MLS, for an edge of the system such as the bridge.

// Tests in this crate use what the integration tests have.
#[cfg(test)]
extern crate self as skytale_sdk;

pub mod agent;
pub mod channel;
pub mod engine;
pub mod event;
mod line;
mod mls;
pub mod net;
#[cfg(doctest)]
mod pages;
pub mod raw;
mod share;
pub mod vault;
