//! Contradictions in a history.

use serde::Serialize;
use skytale_proto::{AgentId, ChannelId, FrameId, Offset};

/// A contradiction between what agents saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// An acknowledged frame was not shown to an agent that read there.
    #[error("{channel}: {agent} read past {offset} and was not shown {frame}, which was acknowledged there")]
    Missing {
        /// The channel.
        channel: ChannelId,
        /// The reader that was not shown it; its author, if another frame was shown there before the acknowledgement.
        agent: AgentId,
        /// The frame.
        frame: FrameId,
        /// Its offset.
        offset: Offset,
    },
    /// An agent was shown one frame twice, or a frame is at two offsets.
    #[error("{channel}: {frame} is at {first} and at {second}")]
    Twice {
        /// The channel.
        channel: ChannelId,
        /// The frame.
        frame: FrameId,
        /// One offset.
        first: Offset,
        /// The other offset; the same, if an agent was shown it twice.
        second: Offset,
    },
    /// Two entries at one offset.
    #[error("{channel}: {first} and {second} are both at {offset}, or their bytes differ")]
    Fork {
        /// The channel.
        channel: ChannelId,
        /// The offset.
        offset: Offset,
        /// One.
        first: FrameId,
        /// The other; the same, where only its bytes differ.
        second: FrameId,
    },
    /// An agent was shown an offset that is not the one after the last.
    #[error("{channel}: {agent} was shown {found} where {expected} was due")]
    Gap {
        /// The channel.
        channel: ChannelId,
        /// The reader.
        agent: AgentId,
        /// The offset due.
        expected: Offset,
        /// The offset shown.
        found: Offset,
    },
    /// An agent finished at a place where it had not read.
    #[error("{channel}: {agent} finished at {at}, but was shown entries up to {last} alone")]
    ShortRead {
        /// The channel.
        channel: ChannelId,
        /// The reader.
        agent: AgentId,
        /// Its cursor when it finished.
        at: Offset,
        /// The last entry that it was shown.
        last: Offset,
    },
    /// An author's frames are in another order than they were sent.
    #[error("{channel}: {agent} sent {earlier} before {later}, which comes before it")]
    Order {
        /// The channel.
        channel: ChannelId,
        /// The author.
        agent: AgentId,
        /// Sent first.
        earlier: FrameId,
        /// Sent after it.
        later: FrameId,
    },
    /// An entry names another handshake head than the one before it.
    #[error("{channel}: {frame} at {offset} names the head {named}, and the head is {head}")]
    Epoch {
        /// The channel.
        channel: ChannelId,
        /// The frame.
        frame: FrameId,
        /// Its offset.
        offset: Offset,
        /// The head that it names.
        named: Offset,
        /// The last commit before it.
        head: Offset,
    },
    /// A frame was refused for good, and is in the log.
    #[error("{channel}: {frame} is at {offset}, and its author learned that it never will")]
    RefusedButThere {
        /// The channel.
        channel: ChannelId,
        /// The frame.
        frame: FrameId,
        /// Its offset.
        offset: Offset,
    },
    /// A message is in the log under an author's name, and that author, who wrote down its sends, did not send it.
    #[error("{channel}: {frame} at {offset} is no frame that {agent} sent")]
    Invented {
        /// The channel.
        channel: ChannelId,
        /// The author whose name it has.
        agent: AgentId,
        /// The frame.
        frame: FrameId,
        /// Its offset.
        offset: Offset,
    },
}
