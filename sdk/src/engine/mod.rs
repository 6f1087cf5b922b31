//! The engine: the synchronous, transactional heart of the SDK. It knows no network and no clock except for timestamps.
//!
//! ```text
//!            agent log                      channel log
//!                |                               |
//!   process_agent_entries      join       process_entries          inbox, ack, history
//!                |               |               |                        ^
//!                v               v               v                        |
//!          +---------------------------------------------------------------------+
//!          |                 one vault, one transaction a call                    |
//!          +---------------------------------------------------------------------+
//!                ^               ^                                        |
//!                |               |                                        v
//!      key_packages_wanted     send, add, remove, ...           next_frames, outcome
//! ```
//!
//! # Rules
//! - Every call is one transaction: all of it is in the vault when it returns, or nothing is. An engine that is dropped
//!   at any instruction and opened again goes on where it was. Calls that only replay a log reach the disk with the
//!   next call that does more, or a moment later: after a power cut they are replayed again.
//! - State moves by replay alone. An outcome tells the engine what to offer next; it is the entry, seen at its place in
//!   the log, that delivers a message or makes a commit the group's next epoch.
//! - What is offered for appending keeps its frame id across retries, re-encryption and restarts, so offering it
//!   twice is harmless. After a lost connection call [`Engine::connection_lost`], read to the head, and offer again.
//! - A change to the group is a barrier: nothing behind it is offered before the log has shown it. Messages before it may
//!   be on their way together with it.
//!
//! # How a driver uses it, per channel
//! ```text
//! loop:
//!   entries arrive  -> process_entries(channel, &records)
//!   next_frames(channel, bytes) -> append each, in order, pipelined; each answer -> outcome(channel, id, answer)
//!   after a retryable refusal other than a stale one: take the answers that are still due, wait, then next_frames again
//!   where next_frames gives a turn: wait the longer the more are before, and if it gives one still, take_turn
//! ```
//! Whenever `process_entries`, `outcome` or a sending call returned, `next_frames` may have more to give.

mod agent_log;
mod apart;
mod backup;
mod channel;
mod channels;
mod clock;
mod config;
mod consent;
mod contacts;
#[cfg(test)]
mod copies;
mod deferred;
mod drift;
mod error;
mod evidence;
mod failed;
#[cfg(test)]
pub(crate) mod faults;
mod forget;
mod history;
mod inbox;
mod invitations;
mod leaving;
mod lost;
mod offer;
mod once;
mod other_copy;
mod outbox;
mod problems;
mod properties;
mod reboot;
mod rejoin;
mod replaced;
mod replay;
mod replies;
mod requests;
mod roles;
mod rollback;
mod settle;
mod standing;
mod stock;
mod transact;
mod undone;
mod unreadable;
mod waiting;
mod window;

pub use crate::event::Event;
pub use clock::Clock;
pub use config::EngineConfig;
pub use consent::{Consent, ConsentStatus};
pub use contacts::{CONTACT_BYTES_MAX, Contact};
pub use deferred::DeferredAdd;
pub use error::EngineError;
pub use failed::FailedSend;
pub use history::{Keep, Purged};
pub use invitations::Invited;
pub use lost::{LogStatus, Lost, LostReason};
pub use once::SEND_ID_BYTES_MAX;
pub use problems::Problem;
pub use properties::{CONTENT_TYPE_BYTES_MAX, Outgoing, Properties};
pub use replies::{Requested, Searched};
pub use requests::{JoinRequest, Trust};
pub use roles::PolicyChange;
pub use rollback::Rollback;
pub use settle::{RollbackWord, Settled};
pub use standing::Standing;
pub use unreadable::UnreadableCause;
pub use waiting::{Fate, Queued, QueuedKind, Refusal};
pub use window::Fork;

use crate::mls::Identity;
use crate::vault::{Restored, Vault};
use bytes::Bytes;
use channel::Channel;
use clock::Clocks;
use history::Retained;
use openmls_rust_crypto::RustCrypto;
use serde::{Deserialize, Serialize};
use skytale_proto::{AgentId, ChannelId, Code, Digest, Frame, FrameId, Offset};
use std::collections::{HashMap, HashSet};
use std::fmt;
use zeroize::Zeroizing;

/// The longest payload of a message, in bytes: a frame, less what encryption, header and envelope take.
pub const PAYLOAD_BYTES_MAX: usize = skytale_proto::limits::FRAME_BYTES_MAX - 8 * 1024;

/// The longest label of a channel, in bytes.
pub const LABEL_BYTES_MAX: usize = 256;

/// One agent's state: identity, groups, inbox, outbox. Lives on one thread at a time; every call blocks on the disk
/// and may take milliseconds, so an async caller gives it a thread of its own.
pub struct Engine {
    vault: Vault,
    crypto: RustCrypto,
    identity: Identity,
    endpoint_secret: Zeroizing<[u8; 32]>,
    config: EngineConfig,
    clocks: Clocks,
    agent_cursor: Offset,
    /// Channels in memory. What is here agrees with the vault.
    loaded: HashMap<ChannelId, Channel>,
    /// Channels that were replayed to their head in this session: what waits in them may be offered.
    reached: HashSet<ChannelId>,
    retained: Retained,
    /// The vault was restored, and not every channel knows it yet.
    restored: Option<Restored>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("agent_id", &self.agent_id())
            .field("agent_cursor", &self.agent_cursor)
            .finish_non_exhaustive()
    }
}

/// What a call that processes entries did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Processed {
    /// What happened, in the order of the log.
    pub events: Vec<Event>,
    /// The cursor now.
    pub cursor: Offset,
    /// An entry is missing: what is before it was processed, what is after it was not.
    pub gap: Option<Gap>,
}

/// A reader saw an offset that does not follow the one before it ([`Code::Gap`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log has a gap: entry {expected} is missing, {found} came instead")]
pub struct Gap {
    /// The entry that should have come.
    pub expected: Offset,
    /// The one that came.
    pub found: Offset,
}

/// A bundle that holds a Welcome to this agent, to be fetched from the channel's log and given to [`Engine::join`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingJoin {
    /// The channel.
    pub channel: ChannelId,
    /// Where the bundle is.
    pub offset: Offset,
}

/// Where an agent is in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ChannelState {
    /// Made here; its Create is not in the log yet. What is sent waits in the outbox.
    Creating,
    /// A member.
    Active,
    /// Asked to leave; still a member until another agent commits it. Sends nothing.
    Leaving,
    /// No longer a member. The history stays.
    Left,
}

impl ChannelState {
    /// A short name. Stable.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Active => "active",
            Self::Leaving => "leaving",
            Self::Left => "left",
        }
    }
}

/// What the vault knows of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChannelInfo {
    /// Its id.
    pub id: ChannelId,
    /// What this agent calls it; never leaves the vault. Empty in a channel that it was added to, until it gives one.
    pub label: String,
    /// Where this agent is in it.
    pub state: ChannelState,
    /// Its standing with its group.
    pub standing: Standing,
    /// The last entry processed.
    pub cursor: Offset,
    /// The last commit (or the Create) in the log, as far as processed.
    pub handshake_head: Offset,
    /// The group's epoch.
    pub epoch: u64,
    /// Messages in the inbox that the application has not acknowledged.
    pub unacked: u64,
    /// Intents that wait in the outbox.
    pub outbox: u64,
    /// What was sent and will not be delivered, and was not dismissed.
    pub failed: u64,
    /// How often this agent has settled on a log that had gone back. Offsets of before may mean other entries since.
    pub settlements: u64,
}

/// A message of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Message {
    /// Where it is in the channel.
    pub offset: Offset,
    /// Its frame's id, made by its author.
    pub frame_id: FrameId,
    /// Who sent it, proven by its signature.
    pub author: AgentId,
    /// When the author sent it, unix milliseconds by the author's clock.
    pub sent_ms: u64,
    /// When the log accepted it, unix milliseconds by the relay node's clock.
    pub time_ms: u64,
    /// What was sent.
    #[serde(with = "crate::share::octets")]
    pub payload: Bytes,
    /// What it says besides.
    pub properties: Properties,
    /// This agent sent it.
    pub own: bool,
}

impl ChannelInfo {
    /// Of a channel in which nothing has happened, for tests of what an application does with it.
    pub fn new(id: ChannelId, label: impl Into<String>, state: ChannelState) -> Self {
        Self {
            id,
            label: label.into(),
            state,
            standing: Standing::Current,
            cursor: Offset::ZERO,
            handshake_head: Offset::ZERO,
            epoch: 0,
            unacked: 0,
            outbox: 0,
            failed: 0,
            settlements: 0,
        }
    }
}

impl Message {
    /// A message of another agent that says nothing besides its payload, for tests of what an application does with it.
    pub fn new(offset: Offset, frame_id: FrameId, author: AgentId, payload: impl Into<Bytes>) -> Self {
        Self {
            offset,
            frame_id,
            author,
            sent_ms: 0,
            time_ms: 0,
            payload: payload.into(),
            properties: Properties::default(),
            own: false,
        }
    }
}

impl Divergence {
    /// As a member's entry says it.
    pub const fn new(offset: Offset, author: AgentId, ours: Option<Digest>, theirs: Option<Digest>) -> Self {
        Self {
            offset,
            author,
            ours,
            theirs,
        }
    }
}

/// A KeyPackage taken from another agent's stock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedPackage {
    /// Whose stock it was taken from.
    pub agent: AgentId,
    /// The encoded KeyPackage frame, as the relay gave it.
    #[serde(with = "crate::share::octets")]
    pub frame: Bytes,
}

/// A frame that may be appended now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxFrame {
    /// The frame.
    pub frame: Frame,
}

/// What a relay node said of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is an entry now.
    Appended {
        /// Where it is.
        offset: Offset,
    },
    /// It was an entry before.
    Duplicate {
        /// Where it is.
        offset: Offset,
    },
    /// A message of a passed epoch. It is encrypted again once the head is reached.
    StaleEpoch {
        /// The handshake head.
        head: Offset,
    },
    /// A commit or proposal on a head that has moved. It is built again once the head is reached.
    StaleHandshake {
        /// The handshake head.
        head: Offset,
    },
    /// A commit whose header contradicts the log's roster. It is built again where the engine can tell why.
    RosterChange {
        /// The agent that it is wrong about.
        agent: AgentId,
    },
    /// Refused for another reason.
    Refused {
        /// The code.
        code: Code,
        /// As the refusal said: offer it again later; else it has failed.
        retryable: bool,
    },
}

/// Proof, to this agent, that the relay showed it and another one different logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Divergence {
    /// The offset at which the digests differ.
    pub offset: Offset,
    /// Whose entry said so. That agent is not to blame: see [`Event::Divergence`].
    pub author: AgentId,
    /// The digest of what this agent was shown; `None` where it was shown nothing at that offset yet.
    pub ours: Option<Digest>,
    /// The digest that the author had; `None` where its entry rests on a change to the group that this agent was not shown.
    pub theirs: Option<Digest>,
}

/// An entry that could not be processed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UnreadableEntry {
    /// Where it is.
    pub offset: Offset,
    /// Its frame id, where there was a frame.
    pub frame_id: Option<FrameId>,
    /// Why.
    #[serde(default)]
    pub cause: UnreadableCause,
    /// Why, in words.
    pub reason: String,
}

/// What [`Engine::next_frames`] gives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct NextFrames {
    /// Frames to append, in this order.
    pub frames: Vec<OutboxFrame>,
    /// What building them brought to light: changes that are unneeded by now, or that cannot be made.
    pub events: Vec<Event>,
    /// Others have asked to leave, and so many members are before this one in whose turn it is to commit that. If it is not
    /// done after a time that grows with the number, call [`Engine::take_turn`].
    pub turn: Option<u32>,
}
