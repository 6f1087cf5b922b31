//! Frames to append: channels with authors, and frames of an exact length.

use anyhow::Context as _;
use bytes::Bytes;
use skytale_log_store::{Accepted, LogStore};
use skytale_proto::{AgentId, ChannelId, ChannelMode, Detail, Frame, FrameId, Header, LogId, Offset};

/// A channel's log, with what its next message must say.
#[derive(Clone, Copy, Debug)]
pub struct Channel {
    /// Its log.
    pub log: LogId,
    /// Author of the frame.
    pub author: AgentId,
    /// The handshake head.
    pub parent: Offset,
}

impl Channel {
    /// Appends the Create of a new channel, and a commit that adds `members`, if there are any.
    pub async fn create(store: &dyn LogStore, author: AgentId, members: &[AgentId]) -> anyhow::Result<Self> {
        let (mut channel, create) = Self::begin(author)?;
        channel.parent = append(store, create).await?;
        if !members.is_empty() {
            let commit = Detail::Commit {
                adds: members.to_vec(),
                removes: Vec::new(),
                recipients: members.to_vec(),
                roster: None,
                policy: None,
            };
            channel.parent = append(store, channel.frame(commit, Bytes::from_static(b"commit"))?).await?;
        }
        Ok(channel)
    }

    /// A new channel and its Create, which is to be appended: its offset is the channel's parent.
    pub fn begin(author: AgentId) -> anyhow::Result<(Self, Frame)> {
        let channel = Self {
            log: ChannelId::generate().log(),
            author,
            parent: Offset::ZERO,
        };
        let create = Detail::Create {
            mode: ChannelMode::Mls,
            account: None,
            policy: None,
        };
        let create = channel.frame(create, Bytes::from_static(b"create"))?;
        Ok((channel, create))
    }

    /// A message whose encoded frame is `frame_bytes` long, or a few bytes more where that leaves no room for a body.
    pub fn message(&self, frame_bytes: usize) -> anyhow::Result<Frame> {
        let empty = self.frame(Detail::Message, Bytes::from(vec![0x5a; 1]))?.encoded().len();
        let mut body = frame_bytes.saturating_sub(empty).max(1);
        let frame = self.frame(Detail::Message, Bytes::from(vec![0x5a; body]))?;
        // A longer body takes a longer length before it.
        body -= frame.encoded().len().saturating_sub(frame_bytes).min(body - 1);
        self.frame(Detail::Message, Bytes::from(vec![0x5a; body]))
    }

    /// Makes so many messages of `frame_bytes` each, over all of `channels` in turn.
    pub fn messages(channels: &[Self], count: usize, frame_bytes: usize) -> anyhow::Result<Vec<Frame>> {
        let turns = channels.iter().cycle().take(count);
        turns.map(|channel| channel.message(frame_bytes)).collect()
    }

    fn frame(&self, detail: Detail, body: Bytes) -> anyhow::Result<Frame> {
        let header = Header {
            log: self.log,
            id: FrameId::generate(),
            author: self.author,
            parent: self.parent,
            detail,
        };
        Ok(Frame::new(header, body)?)
    }
}

/// An agent that nobody has the key of.
pub fn nobody(number: u32) -> AgentId {
    let mut bytes = [0x11; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    AgentId::from_bytes(bytes)
}

/// Appends one frame and waits for it.
pub async fn append(store: &dyn LogStore, frame: Frame) -> anyhow::Result<Offset> {
    Ok(accept(store, frame).await?.offset)
}

/// Appends one frame, and gives all that the store says of it.
pub async fn accept(store: &dyn LogStore, frame: Frame) -> anyhow::Result<Accepted> {
    Ok(store.append(frame).await?.verdict().await?)
}

/// Appends frames with at most `window` of them unanswered: when one is answered, the next one goes.
pub async fn append_windowed(
    store: &dyn LogStore,
    frames: impl IntoIterator<Item = Frame>,
    window: usize,
) -> anyhow::Result<()> {
    let mut waiting = std::collections::VecDeque::with_capacity(window);
    for frame in frames {
        if waiting.len() >= window {
            let oldest: skytale_log_store::PendingAppend = waiting.pop_front().context("a window of at least one")?;
            oldest.verdict().await?;
        }
        waiting.push_back(store.append(frame).await?);
    }
    for pending in waiting {
        pending.verdict().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use skytale_log_store::MemoryStore;

    #[tokio::test]
    async fn messages_are_as_long_as_asked_for_and_the_log_takes_them() {
        let store = MemoryStore::new();
        let channel = Channel::create(&store, nobody(1), &[nobody(2)]).await.unwrap();
        for bytes in [300, 1_024, 20_000] {
            let message = channel.message(bytes).unwrap();
            assert!(
                message.encoded().len().abs_diff(bytes) <= 1,
                "{}",
                message.encoded().len()
            );
            append(&store, message).await.unwrap();
        }
        append_windowed(&store, Channel::messages(&[channel], 100, 400).unwrap(), 7)
            .await
            .unwrap();
        assert_eq!(*store.watch_head(channel.log).await.unwrap().borrow(), Offset::new(105));
    }
}
