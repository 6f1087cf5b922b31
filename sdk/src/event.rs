//! What an application can watch.

mod receiver;

pub use receiver::Events;

use crate::engine::{LostReason, UnreadableCause};
use serde::{Deserialize, Serialize};
use skytale_proto::{AccountId, AgentId, ChannelId, Code, Digest, EndpointId, FrameId, Offset, Policy};
use std::time::Duration;

/// Something that happened to an agent. Events are for watching: what matters after a crash (messages, failed sends,
/// unreadable entries, divergences) is in the vault and can be read from there.
///
/// Those from [`Event::Joined`] to [`Event::PolicyChanged`] are about what was processed in the vault: each comes once, with the
/// transaction that made it so. The others are about the session of the [`Agent`](crate::Agent). Variants may gain fields:
/// match them with `..`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Event {
    /// A session with a relay node has started.
    Connected {
        /// The relay node.
        relay: EndpointId,
        /// Whether HTTPS carries it: nothing answered over UDP.
        over_https: bool,
    },
    /// The session has ended. Another one is tried, unless the agent was asked to disconnect.
    Disconnected {
        /// Why.
        code: Code,
        /// Why, in words.
        reason: String,
    },
    /// The agent works with another relay node than before. It follows [`Event::Connected`]; where the session before was
    /// given up for it, and not lost, there was no [`Event::Disconnected`] and no time without a session.
    Moved {
        /// The relay node before.
        from: EndpointId,
        /// The relay node now.
        to: EndpointId,
        /// Why the one before was left: [`Code::Draining`], [`Code::KeepaliveLost`], [`Code::Unanswered`],
        /// [`Code::ClockWrong`], or what it refused.
        code: Code,
        /// Why, in words.
        reason: String,
    },
    /// A relay node was not reached, or started no session. Others are tried; an [`Event::ConnectFailed`] follows where
    /// there are none.
    RelayFailed {
        /// The relay node.
        relay: EndpointId,
        /// Why.
        code: Code,
        /// Why, in words.
        reason: String,
        /// After what time it may be tried again.
        retry_in: Duration,
    },
    /// The relay node is there, and owes an answer (a verdict, a part of a replay) for longer than a sound one takes. Another
    /// one is looked for: an [`Event::Moved`] follows where there is one that may be tried.
    RelaySilent {
        /// The relay node.
        relay: EndpointId,
        /// [`Code::Unanswered`].
        code: Code,
        /// What it owes, in words.
        reason: String,
    },
    /// No session could be started.
    ConnectFailed {
        /// Why.
        code: Code,
        /// Why, in words.
        reason: String,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// Nothing listens where the relay nodes, or the API, are said to be: the connections were refused. The attempt goes on,
    /// and others follow; an [`Event::ConnectFailed`] follows where it fails.
    NobodyListens {
        /// Where, in words.
        reason: String,
    },
    /// A channel was replayed to its head; what comes now is live.
    CaughtUp {
        /// The channel.
        channel: ChannelId,
        /// Its head at that time.
        head: Offset,
        /// All that was acknowledged anywhere before is here. Where the channel's home region does not answer, the relay node
        /// cannot say so: what was sent lately through others may be missing, and comes when the region answers.
        is_confirmed: bool,
    },
    /// A channel is no longer followed until the application acknowledges messages: as many wait as may.
    Paused {
        /// The channel.
        channel: ChannelId,
        /// Messages that wait.
        unacked: u64,
    },
    /// The relay does not give a channel's (or with `None` the agent's own) log; it is asked once more later.
    Refused {
        /// The channel.
        channel: Option<ChannelId>,
        /// Why.
        code: Code,
        /// Why, in words.
        reason: String,
        /// The offset that the code is about: with [`Code::Trimmed`] the first that is still there.
        offset: Offset,
    },
    /// The relay node does not take what is to be sent, for a reason of its own (it cannot reach the log's home region, say).
    /// All of it waits in the outbox, in its order, and is tried again, after a few times at another relay node.
    SendHeld {
        /// The channel.
        channel: ChannelId,
        /// Why.
        code: Code,
        /// Why, in words.
        reason: String,
        /// When it is tried again, at the latest as long as this session lasts.
        retry_in: Duration,
    },
    /// An entry is missing in what the relay sent. The session is ended; another relay node may have it.
    Gap {
        /// The channel; `None` is the agent's own log.
        channel: Option<ChannelId>,
        /// The offset that had to come.
        expected: Offset,
        /// The offset that came.
        found: Offset,
    },
    /// The vault refused an operation in the background; it is tried again.
    VaultFailed {
        /// Why.
        code: Code,
        /// Why, in words.
        reason: String,
    },
    /// The agent was added to a channel, and is in its group now.
    Joined {
        /// The channel.
        channel: ChannelId,
        /// The offset of the bundle that added it.
        offset: Offset,
        /// Who added it.
        by: AgentId,
    },
    /// The agent was added to a channel by an agent that may not do so without asking: the addition waits. See
    /// [`Agent::requests`](crate::agent::Agent::requests).
    Requested {
        /// The channel.
        channel: ChannelId,
        /// The offset of the bundle that added it.
        offset: Offset,
        /// Who added it; `None` where the log no longer tells.
        by: Option<AgentId>,
        /// The account of who added it, as the relay node says.
        account: Option<AccountId>,
    },
    /// Entries that this agent will never read. They are recorded: see
    /// [`Channel::lost`](crate::channel::Channel::lost).
    EntriesLost {
        /// The channel; `None` is the agent's own log.
        channel: Option<ChannelId>,
        /// The first one.
        first: Offset,
        /// The last one.
        last: Offset,
        /// Why.
        reason: LostReason,
    },
    /// This agent cannot follow the group: it holds what it sends, and has asked to be added again.
    OutOfSync {
        /// The channel.
        channel: ChannelId,
        /// The first entry that it cannot apply.
        since: Offset,
        /// Why.
        reason: String,
    },
    /// This agent is in the group again.
    Rejoined {
        /// The channel.
        channel: ChannelId,
        /// The commit that added it.
        offset: Offset,
        /// Whose commit it was.
        by: AgentId,
        /// Messages that it was shown meanwhile and will never read.
        missed: u64,
    },
    /// This vault is an older copy of another: what it sends waits until it has taken new keys.
    Renewing {
        /// The channel.
        channel: ChannelId,
        /// The entry that showed it.
        offset: Offset,
        /// Why.
        reason: String,
    },
    /// This agent has taken new keys, and sends again.
    Renewed {
        /// The channel.
        channel: ChannelId,
        /// The commit.
        offset: Offset,
    },
    /// Another copy of this vault is in use and has taken new keys: this one sends and reads no more.
    Superseded {
        /// The channel.
        channel: ChannelId,
        /// The entry that showed it.
        offset: Offset,
    },
    /// Another member cannot follow the group and has asked to be added again.
    MemberOutOfSync {
        /// The channel.
        channel: ChannelId,
        /// The request.
        offset: Offset,
        /// Who asked.
        agent: AgentId,
    },
    /// A member was removed and added again in one commit, or took new keys for itself.
    MemberRejoined {
        /// The channel.
        channel: ChannelId,
        /// The commit.
        offset: Offset,
        /// Who is back.
        agent: AgentId,
        /// Whose commit it was.
        by: AgentId,
    },
    /// The group began again.
    Rebooted {
        /// The channel.
        channel: ChannelId,
        /// The bundle.
        offset: Offset,
        /// Whose bundle it was.
        by: AgentId,
    },
    /// An agent came into a channel.
    MemberAdded {
        /// The channel.
        channel: ChannelId,
        /// The offset of the commit.
        offset: Offset,
        /// Who came.
        agent: AgentId,
        /// Whose commit it was.
        by: AgentId,
    },
    /// An agent is no longer in a channel.
    MemberRemoved {
        /// The channel.
        channel: ChannelId,
        /// The offset of the commit.
        offset: Offset,
        /// Who is gone.
        agent: AgentId,
        /// Whose commit it was.
        by: AgentId,
        /// The agent had asked for it.
        left: bool,
    },
    /// An agent that [`Channel::ensure_members`](crate::channel::Channel::ensure_members) was to add is not a member yet, and
    /// what was sent after that waits for it no longer: the agent cannot read it. The addition is tried again all the
    /// same, until it succeeds or is cancelled.
    MemberNotAdded {
        /// The channel.
        channel: ChannelId,
        /// Who is not added.
        agent: AgentId,
        /// Why.
        code: Code,
    },
    /// The agent itself is no longer in a channel. Its history stays readable; the group's secrets are gone.
    Left {
        /// The channel.
        channel: ChannelId,
        /// The offset of the commit that removed it; the cursor where it was alone and just went.
        offset: Offset,
        /// Who removed it; itself where it was alone.
        by: AgentId,
    },
    /// A message of another agent is in the inbox.
    Message {
        /// The channel.
        channel: ChannelId,
        /// Where it is.
        offset: Offset,
        /// Who sent it.
        author: AgentId,
    },
    /// What this agent sent (a message, or a change to the group) is in the log, seen at its place.
    Delivered {
        /// The channel.
        channel: ChannelId,
        /// As it was sent.
        frame_id: FrameId,
        /// Where it is.
        offset: Offset,
    },
    /// A change to the group that needs no entry: others have made it meanwhile, or the only member left.
    Unneeded {
        /// The channel.
        channel: ChannelId,
        /// As it was sent.
        frame_id: FrameId,
    },
    /// What this agent sent will not be delivered. It is kept: see [`Channel::failed`](crate::channel::Channel::failed).
    SendFailed {
        /// The channel.
        channel: ChannelId,
        /// As it was sent.
        frame_id: FrameId,
        /// Why.
        code: Code,
    },
    /// A commit moved a group to another epoch.
    EpochChanged {
        /// The channel.
        channel: ChannelId,
        /// The offset of the commit.
        offset: Offset,
        /// The epoch now.
        epoch: u64,
    },
    /// The relay showed this agent and another one different logs ([`Code::Divergence`]). Messages and commits say what their
    /// authors have seen. An entry under the author's name says so here: where this agent could not decrypt it, the relay
    /// may have made it up, which is no better.
    Divergence {
        /// The channel.
        channel: ChannelId,
        /// The offset at which the digests differ.
        offset: Offset,
        /// Whose entry said so.
        author: AgentId,
        /// The digest of what this agent was shown; `None` where it was shown nothing at that offset yet.
        ours: Option<Digest>,
        /// The digest that the author had; `None` where its entry rests on a change to the group that this agent was not
        /// shown.
        theirs: Option<Digest>,
    },
    /// The log went back: it no longer has what this agent was shown ([`Code::CursorBeyondHead`]). Recorded: see
    /// [`Channel::problems`](crate::channel::Channel::problems).
    RolledBack {
        /// The channel; `None` is the agent's own log.
        channel: Option<ChannelId>,
        /// The last entry that the log is known to have kept.
        kept: Offset,
        /// The last entry that this agent had seen.
        cursor: Offset,
    },
    /// The relay's operator has accepted that the log went back, and this agent goes on with it: offsets after `kept` mean
    /// other entries than before. Own messages that the log no longer has are sent again.
    Settled {
        /// The channel.
        channel: ChannelId,
        /// The last entry that the log had kept.
        kept: Offset,
        /// The last entry that this agent had seen before.
        cursor: Offset,
    },
    /// An entry cannot be processed and never will be ([`Code::EntryUnreadable`]). It is recorded: see
    /// [`Channel::unreadable`](crate::channel::Channel::unreadable).
    EntryUnreadable {
        /// The channel; `None` is the agent's own log.
        channel: Option<ChannelId>,
        /// Where it is.
        offset: Offset,
        /// Its frame id, where there was a frame.
        frame_id: Option<FrameId>,
        /// Why.
        #[serde(default)]
        cause: UnreadableCause,
        /// Why, in words.
        reason: String,
    },
    /// An entry's header contradicts its content, or its author may not do what it does. It was not applied, by any member; an
    /// [`Event::EntryUnreadable`] goes with it. Members correct what it did to the log's roster, and remove its author.
    HeaderLied {
        /// The channel.
        channel: ChannelId,
        /// Where it is.
        offset: Offset,
        /// Who appended it, as the header says.
        author: AgentId,
        /// What does not fit.
        problem: String,
    },
    /// A header that lied took this agent off the log's roster: it can neither read on nor send, until another member corrects
    /// that. What it sends waits.
    LockedOut {
        /// The channel.
        channel: ChannelId,
        /// The entry.
        offset: Offset,
        /// Who appended it, as the header says.
        by: AgentId,
    },
    /// The log's roster was another than the group's membership, and is the same again.
    RosterCorrected {
        /// The channel.
        channel: ChannelId,
        /// The commit.
        offset: Offset,
        /// Whose commit it was.
        by: AgentId,
    },
    /// A member became an admin of a channel, or is none from now on.
    RoleChanged {
        /// The channel.
        channel: ChannelId,
        /// The commit.
        offset: Offset,
        /// Who.
        agent: AgentId,
        /// Whose commit it was.
        by: AgentId,
        /// It is an admin now.
        is_admin: bool,
    },
    /// A channel's policy changed: who may do what.
    PolicyChanged {
        /// The channel.
        channel: ChannelId,
        /// The commit.
        offset: Offset,
        /// Whose commit it was.
        by: AgentId,
        /// The policy now.
        policy: Policy,
    },
    /// This receiver was too slow: so many events are gone. What they told can be read from the vault.
    Lagged {
        /// How many.
        missed: u64,
    },
}

impl Event {
    /// The channel that it is about, if it is about one.
    pub const fn channel(&self) -> Option<ChannelId> {
        match self {
            Self::CaughtUp { channel, .. }
            | Self::Paused { channel, .. }
            | Self::SendHeld { channel, .. }
            | Self::Joined { channel, .. }
            | Self::Requested { channel, .. }
            | Self::OutOfSync { channel, .. }
            | Self::Rejoined { channel, .. }
            | Self::Renewing { channel, .. }
            | Self::Renewed { channel, .. }
            | Self::Superseded { channel, .. }
            | Self::MemberOutOfSync { channel, .. }
            | Self::MemberRejoined { channel, .. }
            | Self::Rebooted { channel, .. }
            | Self::MemberAdded { channel, .. }
            | Self::MemberRemoved { channel, .. }
            | Self::MemberNotAdded { channel, .. }
            | Self::Left { channel, .. }
            | Self::Message { channel, .. }
            | Self::Delivered { channel, .. }
            | Self::Unneeded { channel, .. }
            | Self::SendFailed { channel, .. }
            | Self::EpochChanged { channel, .. }
            | Self::Divergence { channel, .. }
            | Self::Settled { channel, .. }
            | Self::LockedOut { channel, .. }
            | Self::RosterCorrected { channel, .. }
            | Self::RoleChanged { channel, .. }
            | Self::PolicyChanged { channel, .. }
            | Self::HeaderLied { channel, .. } => Some(*channel),
            Self::Refused { channel, .. }
            | Self::Gap { channel, .. }
            | Self::EntriesLost { channel, .. }
            | Self::RolledBack { channel, .. }
            | Self::EntryUnreadable { channel, .. } => *channel,
            Self::Connected { .. }
            | Self::Disconnected { .. }
            | Self::Moved { .. }
            | Self::RelayFailed { .. }
            | Self::RelaySilent { .. }
            | Self::ConnectFailed { .. }
            | Self::NobodyListens { .. }
            | Self::VaultFailed { .. }
            | Self::Lagged { .. } => None,
        }
    }
}
