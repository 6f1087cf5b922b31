//! What an engine tells.

use skytale_proto::{AgentId, ChannelId, Code, Digest, FrameId, Offset};

/// Something that happened in the vault. Each is told once, by the call whose transaction made it so; what matters
/// after a crash (messages, unreadable entries, failed sends, divergences) can be read from the vault again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The agent was added to a channel, and is in its group now.
    Joined {
        /// The channel.
        channel: ChannelId,
        /// The offset of the bundle that added it.
        offset: Offset,
        /// Who added it.
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
    /// A message from another agent is in the inbox.
    MessageReceived {
        /// The channel.
        channel: ChannelId,
        /// Where it stands.
        offset: Offset,
        /// Who sent it.
        author: AgentId,
    },
    /// What this agent sent (a message, or a change to the group) is in the log, seen at its place.
    Delivered {
        /// The channel.
        channel: ChannelId,
        /// As [`send`](super::Engine::send) and the others gave it.
        frame_id: FrameId,
        /// Where it stands.
        offset: Offset,
    },
    /// What this agent wanted to change has been done by others meanwhile.
    Unneeded {
        /// The channel.
        channel: ChannelId,
        /// As [`add`](super::Engine::add) and the others gave it.
        frame_id: FrameId,
    },
    /// What this agent sent will not be delivered. It is kept: see [`failed`](super::Engine::failed).
    SendFailed {
        /// The channel.
        channel: ChannelId,
        /// As [`send`](super::Engine::send) and the others gave it.
        frame_id: FrameId,
        /// Why.
        code: Code,
    },
    /// A commit moved the group to another epoch.
    EpochChanged {
        /// The channel.
        channel: ChannelId,
        /// The offset of the commit.
        offset: Offset,
        /// The epoch now.
        epoch: u64,
    },
    /// The relay showed this agent and another one different logs ([`Code::Divergence`]).
    Divergence {
        /// The channel.
        channel: ChannelId,
        /// The offset at which the digests differ.
        offset: Offset,
        /// Whose message said so.
        author: AgentId,
        /// The digest of what this agent was shown; `None` where it was shown nothing at that offset yet.
        ours: Option<Digest>,
        /// The digest that the author had.
        theirs: Digest,
    },
    /// An entry cannot be processed and never will be ([`Code::EntryUnreadable`]). It is recorded:
    /// see [`unreadable`](super::Engine::unreadable).
    EntryUnreadable {
        /// The channel; `None` is the agent's own log.
        channel: Option<ChannelId>,
        /// Where it stands.
        offset: Offset,
        /// Its frame id, where there was a frame.
        frame_id: Option<FrameId>,
        /// Why.
        reason: String,
    },
    /// An entry's header contradicts its content. It was not applied, by any member; an
    /// [`EntryUnreadable`](Event::EntryUnreadable) goes with it.
    HeaderLied {
        /// The channel.
        channel: ChannelId,
        /// Where it stands.
        offset: Offset,
        /// Who appended it, as the header says.
        author: AgentId,
        /// What does not fit.
        problem: String,
    },
    /// The agent is no longer in a channel. Its history stays readable; the group's secrets are gone.
    Left {
        /// The channel.
        channel: ChannelId,
        /// The offset of the commit that removed it; the cursor where it was alone and just went.
        offset: Offset,
        /// Who removed it; itself where it was alone.
        by: AgentId,
    },
}
