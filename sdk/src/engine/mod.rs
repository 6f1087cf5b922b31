//! The engine: the synchronous, transactional heart of the SDK. It knows no network and no clock but for timestamps.
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
//!   at any instruction and opened again goes on where it was.
//! - State moves by replay alone. An outcome tells the engine what to offer next; it is the entry, seen at its place in
//!   the log, that delivers a message or makes a commit the group's next epoch.
//! - What is offered for appending keeps its frame id across retries, re-encryption and restarts, so offering it
//!   twice is harmless. After a lost connection call [`Engine::connection_lost`] and offer again.
//!
//! # How a driver uses it, per channel
//! ```text
//! loop:
//!   entries arrive  -> process_entries(channel, &records)
//!   next_frames(channel, bytes) -> append each, in order, pipelined; each answer -> outcome(channel, id, answer)
//!   after a retryable refusal other than a stale one: wait, then next_frames again
//! ```
//! Whenever `process_entries`, `outcome` or a sending call returned, `next_frames` may have more to give.

mod config;
mod error;
mod event;

pub use config::EngineConfig;
pub use error::EngineError;
pub use event::Event;

use crate::vault::VaultKey;
use bytes::Bytes;
use skytale_proto::{AgentId, ChannelId, Code, Digest, Frame, FrameId, Offset, Record};
use std::path::Path;
use zeroize::Zeroizing;

/// The longest payload of a message, in bytes: a frame, less what encryption, header and envelope take.
pub const PAYLOAD_BYTES_MAX: usize = skytale_proto::limits::FRAME_BYTES_MAX - 8 * 1024;

/// One agent's state: identity, groups, inbox, outbox. Lives on one thread at a time; every call blocks on the disk
/// and may take milliseconds, so an async caller gives it a thread of its own.
#[derive(Debug)]
pub struct Engine {}

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
    /// Where the bundle stands.
    pub offset: Offset,
}

/// Where an agent stands in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// What the vault knows of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelInfo {
    /// Its id.
    pub id: ChannelId,
    /// A name that this agent gave it; never leaves the vault.
    pub label: String,
    /// Where this agent stands in it.
    pub state: ChannelState,
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
}

/// A message of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it stands in the channel.
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
    pub payload: Bytes,
    /// This agent sent it.
    pub own: bool,
}

/// A KeyPackage taken from another agent's stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedPackage {
    /// Whose stock it was taken from.
    pub agent: AgentId,
    /// The encoded KeyPackage frame, as the relay gave it.
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
        /// Where it stands.
        offset: Offset,
    },
    /// It was an entry before.
    Duplicate {
        /// Where it stands.
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
    /// Refused for another reason.
    Refused {
        /// The code.
        code: Code,
        /// As the refusal said: offer it again later; else it has failed.
        retryable: bool,
    },
}

/// Something that was sent and will not be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedSend {
    /// As [`Engine::send`] and the others gave it.
    pub frame_id: FrameId,
    /// Why.
    pub code: Code,
    /// The message; `None` where it was a change to the group.
    pub payload: Option<Bytes>,
}

/// An entry that could not be processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableEntry {
    /// Where it stands.
    pub offset: Offset,
    /// Its frame id, where there was a frame.
    pub frame_id: Option<FrameId>,
    /// Why.
    pub reason: String,
}

#[allow(unused_variables)]
impl Engine {
    /// Opens a vault, or makes one with a new identity where there is none. One process (and one engine) at a time.
    pub fn open(path: &Path, key: VaultKey, config: EngineConfig) -> Result<Self, EngineError> {
        unimplemented!("follows")
    }

    /// The agent's identity: the public key.
    pub fn agent_id(&self) -> AgentId {
        unimplemented!("follows")
    }

    /// An Ed25519 signature with the identity key, to prove possession of it. The message is signed as it is given: the
    /// caller makes sure that it is one of the project's own proofs.
    pub fn sign_proof(&self, message: &[u8]) -> [u8; 64] {
        unimplemented!("follows")
    }

    /// The secret key of the agent's iroh endpoint, made once with the vault. It is not the identity key.
    pub fn endpoint_secret(&self) -> Zeroizing<[u8; 32]> {
        unimplemented!("follows")
    }

    // ---- the agent's own log

    /// The last entry of the agent's own log that was processed.
    pub fn agent_cursor(&self) -> Offset {
        unimplemented!("follows")
    }

    /// Processes entries of the agent's own log. Entries up to the cursor are skipped.
    pub fn process_agent_entries(&mut self, records: &[Record]) -> Result<Processed, EngineError> {
        unimplemented!("follows")
    }

    /// Bundles to fetch and give to [`Engine::join`], oldest first. Durable until joined. A channel that this agent is
    /// still in as far as it knows is not listed before the entry that removed it has been processed.
    pub fn pending_joins(&self) -> Result<Vec<PendingJoin>, EngineError> {
        unimplemented!("follows")
    }

    /// Joins a channel by the bundle that stands at a pending join's offset. A Welcome that cannot be used is recorded,
    /// told as [`Event::EntryUnreadable`], and no longer pending.
    pub fn join(&mut self, channel: ChannelId, bundle: &Record) -> Result<Vec<Event>, EngineError> {
        unimplemented!("follows")
    }

    /// KeyPackage frames to append to the agent's own log, given what the relay says of its stock: none while the stock is
    /// above the low-water mark. Frames that were given before and have no outcome yet come again, the same.
    pub fn key_packages_wanted(&mut self, live: u32, last_resort: bool) -> Result<Vec<Frame>, EngineError> {
        unimplemented!("follows")
    }

    /// What the relay said of a frame of [`Engine::key_packages_wanted`].
    pub fn key_package_outcome(&mut self, frame_id: FrameId, outcome: Outcome) -> Result<(), EngineError> {
        unimplemented!("follows")
    }

    /// A frame that claims one KeyPackage of another agent. Append the very same frame again where the answer was lost.
    pub fn claim_frame(&self, agent: AgentId) -> Result<Frame, EngineError> {
        unimplemented!("follows")
    }

    // ---- channels

    /// Makes a channel with this agent as its only member. Its Create goes out with the channel's outbox.
    pub fn create_channel(&mut self, label: &str) -> Result<ChannelId, EngineError> {
        unimplemented!("follows")
    }

    /// All channels of the vault, those that were left too, in the order in which they came.
    pub fn channels(&self) -> Result<Vec<ChannelInfo>, EngineError> {
        unimplemented!("follows")
    }

    /// One channel.
    pub fn channel(&self, channel: ChannelId) -> Result<ChannelInfo, EngineError> {
        unimplemented!("follows")
    }

    /// Gives a channel another label.
    pub fn relabel(&mut self, channel: ChannelId, label: &str) -> Result<(), EngineError> {
        unimplemented!("follows")
    }

    /// The agents in a channel's group, by id. Empty for a channel that was left.
    pub fn members(&mut self, channel: ChannelId) -> Result<Vec<AgentId>, EngineError> {
        unimplemented!("follows")
    }

    /// The last entry of a channel that was processed.
    pub fn cursor(&self, channel: ChannelId) -> Result<Offset, EngineError> {
        unimplemented!("follows")
    }

    /// The channel digest at the cursor. `None` as long as no member has told this agent one since it joined.
    pub fn digest(&self, channel: ChannelId) -> Result<Option<Digest>, EngineError> {
        unimplemented!("follows")
    }

    /// The offset of the last commit (or of the Create), as far as processed; [`Offset::ZERO`] before the Create.
    pub fn handshake_head(&self, channel: ChannelId) -> Result<Offset, EngineError> {
        unimplemented!("follows")
    }

    /// The group's epoch.
    pub fn epoch(&self, channel: ChannelId) -> Result<u64, EngineError> {
        unimplemented!("follows")
    }

    /// Processes entries of a channel, in one transaction. Entries up to the cursor are skipped. An entry that can never
    /// be processed is recorded and told; it stops nothing.
    pub fn process_entries(&mut self, channel: ChannelId, records: &[Record]) -> Result<Processed, EngineError> {
        unimplemented!("follows")
    }

    /// Entries of a channel (`None`: of the agent's own log) that could not be processed, by offset, after `after`.
    pub fn unreadable(
        &self,
        channel: Option<ChannelId>,
        after: Offset,
        limit: u32,
    ) -> Result<Vec<UnreadableEntry>, EngineError> {
        unimplemented!("follows")
    }

    // ---- outbox

    /// Queues a message. It is durable when this returns, and goes out in the order of the calls.
    pub fn send(&mut self, channel: ChannelId, payload: &[u8]) -> Result<FrameId, EngineError> {
        unimplemented!("follows")
    }

    /// Queues several messages in one transaction: all of them, or none.
    pub fn send_many(&mut self, channel: ChannelId, payloads: &[Bytes]) -> Result<Vec<FrameId>, EngineError> {
        unimplemented!("follows")
    }

    /// Queues the addition of agents, each with a KeyPackage claimed from it. Agents that are members when the commit is
    /// built are left out; where none remain, [`Event::Unneeded`] tells it.
    pub fn add(&mut self, channel: ChannelId, packages: Vec<ClaimedPackage>) -> Result<FrameId, EngineError> {
        unimplemented!("follows")
    }

    /// Queues the removal of agents. Those that are no members when the commit is built are left out.
    pub fn remove(&mut self, channel: ChannelId, agents: &[AgentId]) -> Result<FrameId, EngineError> {
        unimplemented!("follows")
    }

    /// Queues an update of this agent's own keys in the group (post-compromise security, RFC 9420 section 16.6).
    pub fn update_keys(&mut self, channel: ChannelId) -> Result<FrameId, EngineError> {
        unimplemented!("follows")
    }

    /// Queues leaving: a proposal that another member commits. What is queued before goes out before. Where this agent is
    /// the only member it is gone at once, when its turn comes.
    pub fn leave(&mut self, channel: ChannelId) -> Result<FrameId, EngineError> {
        unimplemented!("follows")
    }

    /// Frames that may be appended now and were not given since [`Engine::connection_lost`], in order, at most `max_bytes`
    /// (but at least one). Append them in this order. A change to the group holds back what is behind it until it has been
    /// processed.
    pub fn next_frames(&mut self, channel: ChannelId, max_bytes: usize) -> Result<NextFrames, EngineError> {
        unimplemented!("follows")
    }

    /// What the relay said of a frame of [`Engine::next_frames`].
    pub fn outcome(
        &mut self,
        channel: ChannelId,
        frame_id: FrameId,
        outcome: Outcome,
    ) -> Result<Vec<Event>, EngineError> {
        unimplemented!("follows")
    }

    /// Frames of all channels that were given and have no outcome are offered again.
    pub fn connection_lost(&mut self) {
        unimplemented!("follows")
    }

    /// What was sent on a channel and will not be delivered.
    pub fn failed(&self, channel: ChannelId) -> Result<Vec<FailedSend>, EngineError> {
        unimplemented!("follows")
    }

    /// Forgets something that failed.
    pub fn dismiss(&mut self, channel: ChannelId, frame_id: FrameId) -> Result<(), EngineError> {
        unimplemented!("follows")
    }

    // ---- inbox

    /// Messages of others after `after` (or after what was acknowledged, whichever is later), oldest first.
    pub fn inbox(&self, channel: ChannelId, after: Offset, limit: u32) -> Result<Vec<Message>, EngineError> {
        unimplemented!("follows")
    }

    /// The application has dealt with all messages up to and with `offset`. Never goes back.
    pub fn ack(&mut self, channel: ChannelId, offset: Offset) -> Result<(), EngineError> {
        unimplemented!("follows")
    }

    /// The last offset acknowledged.
    pub fn acked(&self, channel: ChannelId) -> Result<Offset, EngineError> {
        unimplemented!("follows")
    }

    /// Messages of others that were not acknowledged.
    pub fn unacked(&self, channel: ChannelId) -> Result<u64, EngineError> {
        unimplemented!("follows")
    }

    /// Messages of the channel, own ones too, after `after`, oldest first.
    pub fn history(&self, channel: ChannelId, after: Offset, limit: u32) -> Result<Vec<Message>, EngineError> {
        unimplemented!("follows")
    }
}

/// What [`Engine::next_frames`] gives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct NextFrames {
    /// Frames to append, in this order.
    pub frames: Vec<OutboxFrame>,
    /// What building them brought to light: changes that are unneeded by now, or that cannot be made.
    pub events: Vec<Event>,
}
