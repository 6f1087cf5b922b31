//! What an application can watch.

use crate::engine;
use skytale_proto::{AgentId, ChannelId, Code, Digest, EndpointId, FrameId, Offset};
use std::time::Duration;
use tokio::sync::broadcast;

/// Something that happened to an agent. Events are for watching: what matters after a crash (messages, failed sends,
/// unreadable entries) is in the vault and can be read from there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A session with a relay node has started.
    Connected {
        /// The relay node.
        relay: EndpointId,
    },
    /// The session has ended. Another one is tried, unless the agent was told to disconnect.
    Disconnected {
        /// Why.
        code: Code,
        /// Why, in words.
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
    /// A channel was replayed to its head; what comes now is live.
    CaughtUp {
        /// The channel.
        channel: ChannelId,
        /// Its head at that time.
        head: Offset,
    },
    /// A channel is no longer followed until the application acknowledges messages: as many wait as may.
    Paused {
        /// The channel.
        channel: ChannelId,
        /// Messages that wait.
        unacked: u64,
    },
    /// The relay does not give a channel's (or with `None` the agent's own) log; it is asked again later.
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
    /// The agent itself is no longer in a channel. Its history stays.
    Left {
        /// The channel.
        channel: ChannelId,
        /// The offset of the commit that removed it.
        offset: Offset,
        /// Who removed it.
        by: AgentId,
    },
    /// A message of another agent is in the inbox.
    Message {
        /// The channel.
        channel: ChannelId,
        /// Where it stands.
        offset: Offset,
        /// Who sent it.
        author: AgentId,
    },
    /// What this agent sent (a message, or a change to the group) is in the log.
    Delivered {
        /// The channel.
        channel: ChannelId,
        /// As it was sent.
        frame_id: FrameId,
        /// Where it stands.
        offset: Offset,
    },
    /// A change to the group that others have made meanwhile.
    Unneeded {
        /// The channel.
        channel: ChannelId,
        /// As it was sent.
        frame_id: FrameId,
    },
    /// What this agent sent will not be delivered. It is kept in the vault.
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
    /// The relay showed this agent and another one different logs ([`Code::Divergence`]).
    Divergence {
        /// The channel.
        channel: ChannelId,
        /// The offset at which the digests differ.
        offset: Offset,
        /// Whose message said so.
        author: AgentId,
        /// The digest of what this agent was shown.
        ours: Option<Digest>,
        /// The digest that the author had.
        theirs: Digest,
    },
    /// An entry cannot be processed and never will be ([`Code::EntryUnreadable`]). It is recorded in the vault.
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
    /// An entry's header contradicts its content.
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
    /// This receiver was too slow: so many events are gone. What they told can be read from the vault.
    Lagged {
        /// How many.
        missed: u64,
    },
}

impl From<engine::Event> for Event {
    fn from(event: engine::Event) -> Self {
        use engine::Event as E;
        match event {
            E::Joined { channel, offset, by } => Self::Joined { channel, offset, by },
            E::MemberAdded {
                channel,
                offset,
                agent,
                by,
            } => Self::MemberAdded {
                channel,
                offset,
                agent,
                by,
            },
            E::MemberRemoved {
                channel,
                offset,
                agent,
                by,
                left,
            } => Self::MemberRemoved {
                channel,
                offset,
                agent,
                by,
                left,
            },
            E::MessageReceived {
                channel,
                offset,
                author,
            } => Self::Message {
                channel,
                offset,
                author,
            },
            E::Delivered {
                channel,
                frame_id,
                offset,
            } => Self::Delivered {
                channel,
                frame_id,
                offset,
            },
            E::Unneeded { channel, frame_id } => Self::Unneeded { channel, frame_id },
            E::SendFailed {
                channel,
                frame_id,
                code,
            } => Self::SendFailed {
                channel,
                frame_id,
                code,
            },
            E::EpochChanged { channel, offset, epoch } => Self::EpochChanged { channel, offset, epoch },
            E::Divergence {
                channel,
                offset,
                author,
                ours,
                theirs,
            } => Self::Divergence {
                channel,
                offset,
                author,
                ours,
                theirs,
            },
            E::EntryUnreadable {
                channel,
                offset,
                frame_id,
                reason,
            } => Self::EntryUnreadable {
                channel,
                offset,
                frame_id,
                reason,
            },
            E::HeaderLied {
                channel,
                offset,
                author,
                problem,
            } => Self::HeaderLied {
                channel,
                offset,
                author,
                problem,
            },
            E::Left { channel, offset, by } => Self::Left { channel, offset, by },
        }
    }
}

/// Receives events. Bounded: a receiver that is too slow loses the oldest and is told how many ([`Event::Lagged`]).
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<Event>,
}

impl Events {
    pub(crate) const fn new(receiver: broadcast::Receiver<Event>) -> Self {
        Self { receiver }
    }

    /// The next event; `None` once the agent is closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        match self.receiver.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Event::Lagged { missed }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
