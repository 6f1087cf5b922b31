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
//!   at any instruction and reopened continues where it was. Calls that only replay a log reach the disk with the next
//!   call that does more, or a moment later: after a power cut they are replayed again.
//! - State changes only by replay. An outcome tells the engine what to offer next. A message is delivered, or a commit
//!   starts the group's next epoch, when its entry is seen in the log.
//! - A frame keeps its id across retries, re-encryption and restarts, so offering it twice is harmless. After a lost
//!   connection call [`Engine::connection_lost`], read to the head, and offer again.
//! - A change to the group is a barrier: nothing behind it is offered before the log has shown it. Messages before it
//!   may be in flight together with it.
//!
//! # Use by a driver, per channel
//! ```text
//! loop:
//!   entries arrive  -> process_entries(channel, &records)
//!   next_frames(channel, bytes) -> append each, in order, pipelined; each answer -> outcome(channel, id, answer)
//!   after a retryable refusal other than a stale one: take the answers that are still due, wait, then next_frames again
//!   where next_frames gives a turn: wait the longer the more are before, and if it gives one still, take_turn
//! ```
//! Whenever `process_entries`, `outcome` or a sending call has returned, `next_frames` may have more frames.

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
#[cfg(test)]
mod costs;
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
mod refresh;
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
#[cfg(test)]
mod valid_for_some;
mod waiting;
mod window;

pub use crate::event::Event;
pub use crate::mls::SignatureCounts;
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
pub use settle::{Acceptance, RollbackWord, Settled};
pub use standing::Standing;
pub use unreadable::UnreadableCause;
pub use waiting::{Fate, Queued, QueuedKind, Refusal};
pub use window::Fork;

use crate::mls::{Crypto, Identity};
use crate::vault::{Restored, Vault};
use bytes::Bytes;
use channel::Channel;
use clock::Clocks;
use history::Retained;
use serde::{Deserialize, Serialize};
use skytale_proto::{AgentId, ChannelId, Code, Digest, Frame, FrameId, Offset};
use std::collections::{HashMap, HashSet};
use std::fmt;
use zeroize::Zeroizing;

/// The longest payload of a message, in bytes: a frame less encryption, header and envelope.
pub const PAYLOAD_BYTES_MAX: usize = skytale_proto::limits::FRAME_BYTES_MAX - 8 * 1024;

/// The longest label of a channel, in bytes.
pub const LABEL_BYTES_MAX: usize = 256;

/// State of one agent: identity, groups, inbox, outbox. Lives on one thread at a time. Every call blocks on the disk
/// and may take milliseconds, so an async caller gives it a thread of its own.
pub struct Engine {
    vault: Vault,
    crypto: Crypto,
    identity: Identity,
    endpoint_secret: Zeroizing<[u8; 32]>,
    config: EngineConfig,
    clocks: Clocks,
    agent_cursor: Offset,
    /// Channels in memory, consistent with the vault.
    loaded: HashMap<ChannelId, Channel>,
    /// Channels that were replayed to their head in this session: their queued frames may be offered.
    reached: HashSet<ChannelId>,
    retained: Retained,
    /// Set if the vault was restored and some channels have not handled it yet.
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

/// Result of a call that processes entries.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Processed {
    /// Events, in the order of the log.
    pub events: Vec<Event>,
    /// The new cursor.
    pub cursor: Offset,
    /// Set if an entry is missing: entries before it were processed, entries after it were not.
    pub gap: Option<Gap>,
}

/// A reader saw an offset that does not follow the one before it ([`Code::Gap`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log has a gap: entry {expected} is missing, {found} came instead")]
pub struct Gap {
    /// The expected offset.
    pub expected: Offset,
    /// The offset found instead.
    pub found: Offset,
}

/// A bundle that holds a Welcome for this agent, to be fetched from the channel's log and passed to [`Engine::join`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingJoin {
    /// The channel.
    pub channel: ChannelId,
    /// The bundle's offset.
    pub offset: Offset,
}

/// State of an agent's membership in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ChannelState {
    /// Created here; its Create is not in the log yet. Messages wait in the outbox.
    Creating,
    /// A member.
    Active,
    /// Asked to leave; still a member until another agent commits the removal. Sends nothing.
    Leaving,
    /// No longer a member. The history stays.
    Left,
}

impl ChannelState {
    /// Returns a short, stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Active => "active",
            Self::Leaving => "leaving",
            Self::Left => "left",
        }
    }
}

/// State of a channel in the vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChannelInfo {
    /// Its id.
    pub id: ChannelId,
    /// This agent's label for the channel; never leaves the vault. Empty in a channel that the agent was added to,
    /// until it sets one.
    pub label: String,
    /// State of this agent's membership.
    pub state: ChannelState,
    /// This agent's standing with the group.
    pub standing: Standing,
    /// The last entry processed.
    pub cursor: Offset,
    /// The last commit (or the Create) in the log, as far as processed.
    pub handshake_head: Offset,
    /// The group's epoch.
    pub epoch: u64,
    /// Messages in the inbox that the application has not acknowledged.
    pub unacked: u64,
    /// Number of items in the outbox.
    pub outbox: u64,
    /// Number of failed sends that were not dismissed.
    pub failed: u64,
    /// Number of rollbacks of the log that this agent has settled. Each may change which entries earlier offsets name.
    pub settlements: u64,
}

/// A message of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Message {
    /// Its offset in the channel.
    pub offset: Offset,
    /// Its frame id, chosen by its author.
    pub frame_id: FrameId,
    /// The sender, proven by its signature.
    pub author: AgentId,
    /// Time at which the author sent it, unix milliseconds by the author's clock.
    pub sent_ms: u64,
    /// Time at which the log accepted it, unix milliseconds by the relay node's clock.
    pub time_ms: u64,
    /// The payload.
    #[serde(with = "crate::share::octets")]
    pub payload: Bytes,
    /// Properties besides the payload.
    pub properties: Properties,
    /// Whether this agent sent it.
    pub own: bool,
}

impl ChannelInfo {
    /// Creates the state of a channel in which nothing has happened, for tests of applications.
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
    /// Creates a message of another agent with only a payload, for tests of applications.
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
    /// Creates a divergence as a member's entry reports it.
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
    /// The agent whose stock it was taken from.
    pub agent: AgentId,
    /// The encoded KeyPackage frame, as received from the relay.
    #[serde(with = "crate::share::octets")]
    pub frame: Bytes,
}

/// A frame that may be appended now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxFrame {
    /// The frame.
    pub frame: Frame,
}

/// A relay node's answer to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The frame is an entry now.
    Appended {
        /// Its offset.
        offset: Offset,
    },
    /// The frame already was an entry.
    Duplicate {
        /// Its offset.
        offset: Offset,
    },
    /// A message of a past epoch. It is encrypted again once the head is reached.
    StaleEpoch {
        /// The handshake head.
        head: Offset,
    },
    /// A commit or proposal on a head that has moved. It is rebuilt once the head is reached.
    StaleHandshake {
        /// The handshake head.
        head: Offset,
    },
    /// A commit whose header contradicts the log's roster. It is rebuilt if the engine can find the cause.
    RosterChange {
        /// The agent for which the header is wrong.
        agent: AgentId,
    },
    /// Refused for another reason.
    Refused {
        /// The code.
        code: Code,
        /// Whether to offer it again later, according to the refusal; if not, it has failed.
        retryable: bool,
    },
}

/// Proof, for this agent, that the relay showed it and another agent different logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Divergence {
    /// The offset at which the digests differ.
    pub offset: Offset,
    /// The author of the entry with the other digest. That agent is not to blame: see [`Event::Divergence`].
    pub author: AgentId,
    /// This agent's digest; `None` if it has received nothing at that offset yet.
    pub ours: Option<Digest>,
    /// The author's digest; `None` if its entry builds on a change to the group that this agent was not shown.
    pub theirs: Option<Digest>,
}

/// An entry that could not be processed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UnreadableEntry {
    /// Its offset.
    pub offset: Offset,
    /// Its frame id, if it contained a frame.
    pub frame_id: Option<FrameId>,
    /// The cause.
    #[serde(default)]
    pub cause: UnreadableCause,
    /// The reason, in words.
    pub reason: String,
}

/// Result of [`Engine::next_frames`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct NextFrames {
    /// Frames to append, in this order.
    pub frames: Vec<OutboxFrame>,
    /// Events found while building the frames: changes that are no longer needed, or that cannot be made.
    pub events: Vec<Event>,
    /// Number of members that come before this one to commit the removal of members that asked to leave. If nobody
    /// commits it within a time that grows with the number, call [`Engine::take_turn`].
    pub turn: Option<u32>,
}
