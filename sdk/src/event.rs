//! Events that an application can watch.

mod receiver;

pub use receiver::Events;

use crate::engine::{LostReason, UnreadableCause};
use serde::{Deserialize, Serialize};
use skytale_proto::{AccountId, AgentId, ChannelId, Code, Digest, EndpointId, FrameId, Offset, Policy};
use std::time::Duration;

/// An event of an agent. Events are for monitoring: state that matters after a crash (messages, failed sends,
/// unreadable entries, divergences) is in the vault and can be read from there.
///
/// Events from [`Event::Joined`] to [`Event::PolicyChanged`] report changes in the vault: each is emitted once, with
/// the transaction that made the change. The others are about the session of the [`Agent`](crate::Agent). Variants may
/// gain fields: match them with `..`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Event {
    /// A session with a relay node has started.
    Connected {
        /// The relay node.
        relay: EndpointId,
        /// Whether HTTPS carries it because nothing answered over UDP.
        over_https: bool,
    },
    /// The session has ended. The agent reconnects, unless the application disconnected it.
    Disconnected {
        /// The reason.
        code: Code,
        /// The reason, in words.
        reason: String,
    },
    /// The agent has moved to another relay node. Follows [`Event::Connected`]. If the previous session was given up
    /// and not lost, there was no [`Event::Disconnected`] and no time without a session.
    Moved {
        /// The previous relay node.
        from: EndpointId,
        /// The current relay node.
        to: EndpointId,
        /// The reason for leaving the previous node: [`Code::Draining`], [`Code::KeepaliveLost`], [`Code::Unanswered`],
        /// [`Code::ClockWrong`], or the code of its refusal.
        code: Code,
        /// The reason, in words.
        reason: String,
    },
    /// A relay node was unreachable, or started no session. Others are tried; if there are none, an
    /// [`Event::ConnectFailed`] follows.
    RelayFailed {
        /// The relay node.
        relay: EndpointId,
        /// The reason.
        code: Code,
        /// The reason, in words.
        reason: String,
        /// Time after which it may be retried.
        retry_in: Duration,
    },
    /// The relay node is reachable, but has owed an answer (a verdict, a part of a replay) for longer than a healthy
    /// node takes. The agent looks for another one; if it finds one to try, an [`Event::Moved`] follows.
    RelaySilent {
        /// The relay node.
        relay: EndpointId,
        /// [`Code::Unanswered`].
        code: Code,
        /// The overdue answer, in words.
        reason: String,
    },
    /// No session could be started.
    ConnectFailed {
        /// The reason.
        code: Code,
        /// The reason, in words.
        reason: String,
        /// Delay before the next attempt.
        retry_in: Duration,
    },
    /// Nothing listens at the addresses of the relay nodes or the API: the connections were refused. The attempt goes
    /// on; if it fails, an [`Event::ConnectFailed`] follows, and the agent retries.
    NobodyListens {
        /// The address, in words.
        reason: String,
    },
    /// A channel was replayed to its head; later messages are live.
    CaughtUp {
        /// The channel.
        channel: ChannelId,
        /// Its head at that time.
        head: Offset,
        /// Whether the replay includes everything that any relay node had acknowledged before. While the channel's home
        /// region does not answer, the relay node cannot confirm this: recent messages sent through other nodes may be
        /// missing, and arrive when the region answers.
        is_confirmed: bool,
    },
    /// A channel has paused, since the limit of unacknowledged messages is reached: it resumes when the application
    /// acknowledges half of them. Or its log went back, as its operator has confirmed: it resumes on the present log when
    /// the application has acknowledged all of them, stops reading, or sends something there, and after a minute in any
    /// case.
    Paused {
        /// The channel.
        channel: ChannelId,
        /// Number of unacknowledged messages.
        unacked: u64,
    },
    /// The relay refuses to serve a channel's log (`None`: the agent's own). The agent retries later.
    Refused {
        /// The channel.
        channel: Option<ChannelId>,
        /// The reason.
        code: Code,
        /// The reason, in words.
        reason: String,
        /// The offset that the code is about: with [`Code::Trimmed`], the first available one.
        offset: Offset,
    },
    /// The relay node does not accept messages, for a reason of its own: it cannot reach the log's home region, for
    /// example. All messages stay in the outbox, in order, and are retried; after a few attempts, at another relay
    /// node.
    SendHeld {
        /// The channel.
        channel: ChannelId,
        /// The reason.
        code: Code,
        /// The reason, in words.
        reason: String,
        /// Longest delay before the next attempt in this session.
        retry_in: Duration,
    },
    /// An entry is missing in the log that the relay sent. The session ends; another relay node may have the entry.
    Gap {
        /// The channel; `None` is the agent's own log.
        channel: Option<ChannelId>,
        /// The offset of the missing entry.
        expected: Offset,
        /// The offset received instead.
        found: Offset,
    },
    /// The vault refused a background operation, which is retried.
    VaultFailed {
        /// The reason.
        code: Code,
        /// The reason, in words.
        reason: String,
    },
    /// The agent was added to a channel and has joined its group.
    Joined {
        /// The channel.
        channel: ChannelId,
        /// The offset of the bundle that added it.
        offset: Offset,
        /// The agent that added it.
        by: AgentId,
    },
    /// An untrusted agent added this one to a channel: the addition waits to be accepted. See
    /// [`Agent::requests`](crate::agent::Agent::requests).
    Requested {
        /// The channel.
        channel: ChannelId,
        /// The offset of the bundle that added it.
        offset: Offset,
        /// The agent that added it; `None` if the log no longer has the bundle.
        by: Option<AgentId>,
        /// The account of that agent, according to the relay node.
        account: Option<AccountId>,
    },
    /// There are entries that this agent will never read. They are recorded: see
    /// [`Channel::lost`](crate::channel::Channel::lost).
    EntriesLost {
        /// The channel; `None` is the agent's own log.
        channel: Option<ChannelId>,
        /// The first one.
        first: Offset,
        /// The last one.
        last: Offset,
        /// The reason.
        reason: LostReason,
    },
    /// This agent cannot follow the group: it holds its messages, and has asked to be added again.
    OutOfSync {
        /// The channel.
        channel: ChannelId,
        /// The first entry that it cannot apply.
        since: Offset,
        /// The reason, in words.
        reason: String,
    },
    /// This agent is in the group again.
    Rejoined {
        /// The channel.
        channel: ChannelId,
        /// The commit that added this agent.
        offset: Offset,
        /// The author of the commit.
        by: AgentId,
        /// Number of messages received meanwhile that it will never read.
        missed: u64,
    },
    /// This vault is an older copy of another one: its messages wait until it has taken new keys.
    Renewing {
        /// The channel.
        channel: ChannelId,
        /// The entry that revealed it.
        offset: Offset,
        /// The reason, in words.
        reason: String,
    },
    /// This agent has taken new keys and sends again.
    Renewed {
        /// The channel.
        channel: ChannelId,
        /// The commit.
        offset: Offset,
    },
    /// Another copy of this vault is in use and has taken new keys: this copy no longer sends or reads.
    Superseded {
        /// The channel.
        channel: ChannelId,
        /// The entry that revealed it.
        offset: Offset,
    },
    /// Another member cannot follow the group and has asked to be added again.
    MemberOutOfSync {
        /// The channel.
        channel: ChannelId,
        /// The request.
        offset: Offset,
        /// The agent that asked.
        agent: AgentId,
    },
    /// A member was removed and added again in one commit, or has taken new keys itself.
    MemberRejoined {
        /// The channel.
        channel: ChannelId,
        /// The commit.
        offset: Offset,
        /// The member.
        agent: AgentId,
        /// The author of the commit.
        by: AgentId,
    },
    /// The group was recreated.
    Rebooted {
        /// The channel.
        channel: ChannelId,
        /// The bundle.
        offset: Offset,
        /// The author of the bundle.
        by: AgentId,
    },
    /// An agent was added to a channel.
    MemberAdded {
        /// The channel.
        channel: ChannelId,
        /// The offset of the commit.
        offset: Offset,
        /// The new member.
        agent: AgentId,
        /// The author of the commit.
        by: AgentId,
    },
    /// An agent was removed from a channel or has left it.
    MemberRemoved {
        /// The channel.
        channel: ChannelId,
        /// The offset of the commit.
        offset: Offset,
        /// The former member.
        agent: AgentId,
        /// The author of the commit.
        by: AgentId,
        /// Whether the agent had asked to leave.
        left: bool,
    },
    /// An agent that [`Channel::ensure_members`](crate::channel::Channel::ensure_members) is to add is not a member
    /// yet, and later messages no longer wait for it: the agent cannot read them. The addition is still retried until
    /// it succeeds or is cancelled.
    MemberNotAdded {
        /// The channel.
        channel: ChannelId,
        /// The agent that is not added.
        agent: AgentId,
        /// The reason.
        code: Code,
    },
    /// This agent is no longer in a channel. Its history stays readable; the group's secrets are gone.
    Left {
        /// The channel.
        channel: ChannelId,
        /// The offset of the commit that removed it; the cursor if it was the only member.
        offset: Offset,
        /// The agent that removed it; this agent itself if it was the only member.
        by: AgentId,
    },
    /// A message from another agent is in the inbox.
    Message {
        /// The channel.
        channel: ChannelId,
        /// Its offset.
        offset: Offset,
        /// The sender.
        author: AgentId,
    },
    /// A message or change to the group that this agent sent is in the log; the agent has seen it there.
    Delivered {
        /// The channel.
        channel: ChannelId,
        /// Its frame id.
        frame_id: FrameId,
        /// Its offset.
        offset: Offset,
    },
    /// A change to the group needs no entry: others have made it meanwhile, or the only member left.
    Unneeded {
        /// The channel.
        channel: ChannelId,
        /// Its frame id.
        frame_id: FrameId,
    },
    /// A message or change that this agent sent will not be delivered. It is kept: see
    /// [`Channel::failed`](crate::channel::Channel::failed).
    SendFailed {
        /// The channel.
        channel: ChannelId,
        /// Its frame id.
        frame_id: FrameId,
        /// The reason.
        code: Code,
    },
    /// A commit moved a group to another epoch.
    EpochChanged {
        /// The channel.
        channel: ChannelId,
        /// The offset of the commit.
        offset: Offset,
        /// The new epoch.
        epoch: u64,
    },
    /// The relay showed this agent and another one different logs ([`Code::Divergence`]). Messages and commits carry a
    /// digest of the log that their authors have seen. An entry under the author's name is the evidence. If this agent
    /// could not decrypt it, the relay may have forged it, which is no better.
    Divergence {
        /// The channel.
        channel: ChannelId,
        /// The offset at which the digests differ.
        offset: Offset,
        /// The author of the entry with the other digest.
        author: AgentId,
        /// This agent's digest; `None` if it has received nothing at that offset yet.
        ours: Option<Digest>,
        /// The author's digest; `None` if its entry builds on a change to the group that this agent was not shown.
        theirs: Option<Digest>,
    },
    /// The log went back: it no longer has entries that this agent was shown ([`Code::CursorBeyondHead`]). It is
    /// recorded: see [`Channel::problems`](crate::channel::Channel::problems).
    RolledBack {
        /// The channel; `None` is the agent's own log.
        channel: Option<ChannelId>,
        /// The last entry that the log is known to have kept.
        kept: Offset,
        /// The last entry that this agent had seen.
        cursor: Offset,
    },
    /// The relay's operator has accepted that the log went back, and this agent continues with it: offsets after `kept`
    /// name other entries than before. Own messages that the log no longer has are sent again.
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
        /// Its offset.
        offset: Offset,
        /// Its frame id, if it contained a frame.
        frame_id: Option<FrameId>,
        /// The cause.
        #[serde(default)]
        cause: UnreadableCause,
        /// The reason, in words.
        reason: String,
    },
    /// An entry's header contradicts its content, or its author lacks the right for it. No member has applied it; an
    /// [`Event::EntryUnreadable`] accompanies this one. Members correct its effect on the log's roster, and remove its
    /// author.
    HeaderLied {
        /// The channel.
        channel: ChannelId,
        /// Its offset.
        offset: Offset,
        /// The agent that appended it, according to the header.
        author: AgentId,
        /// The contradiction, in words.
        problem: String,
    },
    /// A lying header removed this agent from the log's roster: it can neither read on nor send until another member
    /// corrects the roster. Its messages wait.
    LockedOut {
        /// The channel.
        channel: ChannelId,
        /// The entry.
        offset: Offset,
        /// The agent that appended it, according to the header.
        by: AgentId,
    },
    /// The log's roster differed from the group's membership, and matches it again.
    RosterCorrected {
        /// The channel.
        channel: ChannelId,
        /// The commit.
        offset: Offset,
        /// The author of the commit.
        by: AgentId,
    },
    /// A member has become an admin of a channel, or is no longer one.
    RoleChanged {
        /// The channel.
        channel: ChannelId,
        /// The commit.
        offset: Offset,
        /// The member.
        agent: AgentId,
        /// The author of the commit.
        by: AgentId,
        /// Whether it is an admin now.
        is_admin: bool,
    },
    /// A channel's policy has changed.
    PolicyChanged {
        /// The channel.
        channel: ChannelId,
        /// The commit.
        offset: Offset,
        /// The author of the commit.
        by: AgentId,
        /// The new policy.
        policy: Policy,
    },
    /// This receiver lagged: it has missed events. Their content can be read from the vault.
    Lagged {
        /// Number of missed events.
        missed: u64,
    },
}

impl Event {
    /// Returns the channel of the event, if it concerns one.
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
