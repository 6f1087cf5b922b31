//! Events that an agent writes down.

use serde::{Deserialize, Serialize};
use skytale_proto::{AgentId, ChannelId, FrameId, Offset};
use std::io::{self, BufRead, Write};

/// One thing that an agent did, learned or was shown. Each agent's events are in the order in which they happened;
/// between agents no order is known, and none is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// It meant to send this frame: the order of these is the author's order. An agent writes this down of each of its
    /// messages, or of none.
    Sent {
        /// The author.
        agent: AgentId,
        /// The channel.
        channel: ChannelId,
        /// The frame.
        frame: FrameId,
    },
    /// It learned that its frame is in the log.
    Acknowledged {
        /// The author.
        agent: AgentId,
        /// The channel.
        channel: ChannelId,
        /// The frame.
        frame: FrameId,
        /// Its offset.
        offset: Offset,
    },
    /// It learned that its frame is not in the log, and never will be.
    Refused {
        /// The author.
        agent: AgentId,
        /// The channel.
        channel: ChannelId,
        /// The frame.
        frame: FrameId,
    },
    /// It reads a channel, from this entry on: from the beginning, after it was added, or after it was added again.
    Reads {
        /// The reader.
        agent: AgentId,
        /// The channel.
        channel: ChannelId,
        /// The first entry that it must be shown.
        from: Offset,
    },
    /// It was shown an entry.
    Delivered {
        /// The reader.
        agent: AgentId,
        /// The channel.
        channel: ChannelId,
        /// The entry.
        #[serde(flatten)]
        entry: Entry,
    },
    /// It has read a channel up to here, and reads no further: the run is over, or it was removed there.
    Finished {
        /// The reader.
        agent: AgentId,
        /// The channel.
        channel: ChannelId,
        /// Its cursor.
        at: Offset,
    },
}

/// An entry, as an agent was shown it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its offset.
    pub offset: Offset,
    /// Its frame.
    pub frame: FrameId,
    /// Its author.
    pub author: AgentId,
    /// The handshake head that its author named.
    pub parent: Offset,
    /// Its kind.
    pub kind: EntryKind,
    /// Digest of its bytes, such as their hash: tells them from any others.
    pub digest: String,
}

/// Kind of an entry, as far as the rule of the log cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// The channel's beginning.
    Create,
    /// A commit: names the handshake head, and is the next one.
    Commit,
    /// A proposal: names the handshake head.
    Proposal,
    /// A message: names the handshake head.
    Message,
    /// Names no head, such as a trim.
    Other,
}

impl EntryKind {
    /// Whether it moves the handshake head.
    pub(crate) const fn is_head(self) -> bool {
        matches!(self, Self::Create | Self::Commit)
    }

    /// Whether it must name the handshake head.
    pub(crate) const fn names_head(self) -> bool {
        matches!(self, Self::Commit | Self::Proposal | Self::Message)
    }
}

/// A history that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A line is no event.
    #[error("line {line} is no event: {source}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// The problem with it.
        source: serde_json::Error,
    },
    /// The file.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes an event as one line of JSON.
pub fn write_line(event: &Event, out: &mut impl Write) -> Result<(), HistoryError> {
    let mut line = serde_json::to_vec(event).map_err(io::Error::other)?;
    line.push(b'\n');
    Ok(out.write_all(&line)?)
}

/// Reads events, a line of JSON each. A last line without its end was cut off by a crash, and is left out.
pub fn read_lines(mut input: impl BufRead) -> Result<Vec<Event>, HistoryError> {
    let (mut events, mut text) = (Vec::new(), Vec::new());
    for line in 1.. {
        text.clear();
        input.read_until(b'\n', &mut text)?;
        if !text.ends_with(b"\n") {
            break;
        }
        let event = serde_json::from_slice(&text).map_err(|source| HistoryError::Line { line, source })?;
        events.push(event);
    }
    Ok(events)
}
