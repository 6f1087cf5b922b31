//! The inbox of a channel as a stream.

use super::Sent;
use super::once::send_message;
use crate::agent::AgentError;
use crate::agent::core::{Actor, Core};
use crate::engine::{ChannelState, EngineError, Message, Outgoing};
use bytes::Bytes;
use futures_core::Stream;
use skytale_proto::{ChannelId, FrameId, Offset};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::watch;
use tokio_util::sync::ReusableBoxFuture;

/// Messages read from the vault at once.
const READ_MAX: u32 = 128;

/// Stream of messages from other agents, in the order of the log: first the unacknowledged ones, then new ones.
///
/// Once this agent is no longer in the channel, the stream fails after the last message that the agent may read. As a
/// [`Stream`] it yields that error and then ends.
///
/// One `Messages` yields each message once. Unacknowledged messages come again from the next `Messages`, even after a
/// restart.
pub struct Messages {
    core: Arc<Core>,
    channel: ChannelId,
    /// `None` while a read is in progress.
    reader: Option<Reader>,
    reading: Option<ReusableBoxFuture<'static, Read>>,
    read: VecDeque<Message>,
    /// Whether the stream has ended.
    ended: bool,
}

type Read = (Reader, Result<Vec<Message>, AgentError>);

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages")
            .field("channel", &self.channel)
            .field("read", &self.read.len())
            .finish_non_exhaustive()
    }
}

/// Reads what is in the inbox.
struct Reader {
    core: Arc<Core>,
    channel: ChannelId,
    from: From,
    /// Value of [`ChannelInfo::settlements`](crate::engine::ChannelInfo::settlements) for the messages read so far.
    settlements: Option<u64>,
    inbox: watch::Receiver<u64>,
    /// Held by readers whose messages are to be acknowledged.
    _reader: Option<watch::Receiver<()>>,
}

/// Position of the next read.
#[derive(Clone, Copy, Debug)]
enum From {
    /// Unacknowledged messages after an offset.
    Unacked(Offset),
    /// All messages after an offset.
    Any(Offset),
}

impl From {
    fn since(self, before: Option<u64>, settlements: u64) -> Self {
        match before.is_some_and(|before| before != settlements) {
            true => Self::Unacked(Offset::ZERO),
            false => self,
        }
    }
}

/// A received message, with methods to acknowledge and answer it.
#[derive(Clone, Debug)]
pub struct Received {
    core: Arc<Core>,
    channel: ChannelId,
    message: Message,
}

impl Deref for Received {
    type Target = Message;
    fn deref(&self) -> &Message {
        &self.message
    }
}

impl Received {
    pub(super) fn new(core: &Arc<Core>, channel: ChannelId, message: Message) -> Self {
        Self {
            core: Arc::clone(core),
            channel,
            message,
        }
    }

    /// Returns the channel of the message.
    pub const fn channel(&self) -> ChannelId {
        self.channel
    }

    /// Returns the message.
    pub fn into_message(self) -> Message {
        self.message
    }

    /// Answers this message in its channel, and acknowledges it and all earlier ones, in one transaction of the vault.
    /// After a crash both have taken effect or neither, so each request is answered exactly once.
    pub async fn reply(&self, payload: impl Into<Bytes>) -> Result<Sent, AgentError> {
        self.reply_with(Outgoing::new(payload)).await
    }

    /// Like [`Received::reply`], with properties for the answer.
    pub async fn reply_with(&self, answer: Outgoing) -> Result<Sent, AgentError> {
        let answer = answer
            .reply_to(self.message.frame_id)
            .acknowledging(self.message.offset, self.message.frame_id);
        send_message(&self.core, self.channel, answer).await
    }

    /// Acknowledges this message and all earlier ones in its channel.
    pub async fn ack(&self) -> Result<(), AgentError> {
        let (offset, frame_id) = (self.message.offset, Some(self.message.frame_id));
        ack(&self.core, self.channel, offset, frame_id).await
    }
}

impl Messages {
    pub(super) fn new(core: Arc<Core>, channel: ChannelId) -> Self {
        Self::starting(core, channel, From::Unacked(Offset::ZERO))
    }

    pub(super) fn watching(core: Arc<Core>, channel: ChannelId, after: Offset) -> Self {
        Self::starting(core, channel, From::Any(after))
    }

    fn starting(core: Arc<Core>, channel: ChannelId, from: From) -> Self {
        let signals = core.bus.signals(channel);
        let inbox = signals.inbox.subscribe();
        let reader = Reader {
            core: Arc::clone(&core),
            channel,
            from,
            settlements: None,
            inbox,
            _reader: matches!(from, From::Unacked(_)).then(|| signals.readers.subscribe()),
        };
        Self {
            core,
            channel,
            reader: Some(reader),
            reading: None,
            read: VecDeque::new(),
            ended: false,
        }
    }

    /// Returns the channel.
    pub const fn channel(&self) -> ChannelId {
        self.channel
    }

    /// Waits for the next message. Cancel-safe.
    ///
    /// Fails with the reason if no more messages can arrive, as other [waits](crate::agent::Agent#waits) do.
    /// [`Code::ChannelLeft`](skytale_proto::Code::ChannelLeft) means that this agent has left the channel or was
    /// removed from it, and that it got all messages that it may read. If it is added again, messages resume.
    pub async fn next(&mut self) -> Result<Received, AgentError> {
        poll_fn(|cx| self.poll_received(cx)).await
    }

    pub(crate) fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, AgentError>> {
        loop {
            if let Some(message) = self.read.pop_front() {
                return Poll::Ready(Ok(Received::new(&self.core, self.channel, message)));
            }
            if let Some(reader) = self.reader.take() {
                // Kept here, so that a dropped call loses nothing that was read for it.
                match &mut self.reading {
                    Some(reading) => reading.set(reader.read()),
                    None => self.reading = Some(ReusableBoxFuture::new(reader.read())),
                }
            }
            let Some(reading) = &mut self.reading else {
                return Poll::Ready(Err(AgentError::Closed));
            };
            let (reader, read) = ready!(reading.poll(cx));
            self.reader = Some(reader);
            self.read = read?.into();
        }
    }

    /// Converts into an opaque [`Stream`]; `Messages` is a stream itself, too.
    pub fn into_stream(self) -> impl Stream<Item = Result<Received, AgentError>> + Send + Unpin + 'static {
        self
    }
}

/// Ends after an error.
impl Stream for Messages {
    type Item = Result<Received, AgentError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_received(cx));
        self.ended = next.is_err();
        Poll::Ready(Some(next))
    }
}

impl Reader {
    /// Waits for the next messages.
    async fn read(mut self) -> Read {
        loop {
            // Mark before the read, so that messages that arrive during it wake the reader.
            self.inbox.mark_unchanged();
            match self.read_on().await {
                Ok(read) if read.is_empty() => {}
                read => return (self, read),
            }
            let changed = self.core.bus.wait(self.inbox.changed()).await;
            if let Err(error) = changed.and_then(|changed| changed.map_err(|_| AgentError::Closed)) {
                return (self, Err(error));
            }
        }
    }

    /// Reads on after the last message read. After a settled rollback, offsets name other entries than before: then it
    /// reads the unacknowledged messages, since all earlier ones were acknowledged.
    async fn read_on(&mut self) -> Result<Vec<Message>, AgentError> {
        let (channel, from, before) = (self.channel, self.from, self.settlements);
        let (from, settlements, read) = if let Some(owner) = self.core.owner() {
            let settlements = owner.info(channel).await?.settlements;
            let from = from.since(before, settlements);
            let read = match from {
                From::Unacked(after) => owner.unacked(channel, after, READ_MAX).await?,
                From::Any(after) => owner.received(channel, after, READ_MAX).await?,
            };
            (from, settlements, read)
        } else {
            let read = self.core.try_call(move |actor| {
                let settlements = actor.engine.settlements(channel)?;
                let from = from.since(before, settlements);
                let read = match from {
                    From::Unacked(after) => actor.engine.inbox(channel, after, READ_MAX)?,
                    From::Any(after) => actor.engine.received(channel, after, READ_MAX)?,
                };
                Ok((from, settlements, unless_over(actor, channel, read)?))
            });
            read.await?
        };
        let from = match (from, read.last()) {
            (from, None) => from,
            (From::Unacked(_), Some(last)) => From::Unacked(last.offset),
            (From::Any(_), Some(last)) => From::Any(last.offset),
        };
        (self.from, self.settlements) = (from, Some(settlements));
        Ok(read)
    }
}

/// Reads unacknowledged messages; fails if none are left and no more can arrive.
pub(super) async fn unacked(
    core: &Core,
    channel: ChannelId,
    after: Offset,
    limit: u32,
) -> Result<Vec<Message>, AgentError> {
    if let Some(owner) = core.owner() {
        return owner.unacked(channel, after, limit).await;
    }
    core.try_call(move |actor| {
        let read = actor.engine.inbox(channel, after, limit)?;
        unless_over(actor, channel, read)
    })
    .await
}

/// Reads messages, acknowledged or not; fails as [`unacked`] does.
pub(super) async fn received(
    core: &Core,
    channel: ChannelId,
    after: Offset,
    limit: u32,
) -> Result<Vec<Message>, AgentError> {
    if let Some(owner) = core.owner() {
        return owner.received(channel, after, limit).await;
    }
    core.try_call(move |actor| {
        let read = actor.engine.received(channel, after, limit)?;
        unless_over(actor, channel, read)
    })
    .await
}

fn unless_over(actor: &mut Actor, channel: ChannelId, read: Vec<Message>) -> Result<Vec<Message>, EngineError> {
    if read.is_empty() && is_over(actor, channel)? {
        return Err(EngineError::ChannelLeft { channel });
    }
    Ok(read)
}

/// Whether no more messages can arrive in a channel: this agent is not in it, and is not about to rejoin.
pub(super) fn is_over(actor: &mut Actor, channel: ChannelId) -> Result<bool, EngineError> {
    Ok(actor.engine.channel(channel)?.state == ChannelState::Left
        && !actor.engine.pending_joins()?.iter().any(|join| join.channel == channel))
}

pub(super) async fn ack(
    core: &Core,
    channel: ChannelId,
    offset: Offset,
    frame_id: Option<FrameId>,
) -> Result<(), AgentError> {
    if let Some(owner) = core.owner() {
        return owner.ack(channel, offset, frame_id).await;
    }
    let acked = core.try_call(move |actor| {
        match frame_id {
            Some(frame_id) => actor.engine.ack_message(channel, offset, frame_id)?,
            None => actor.engine.ack(channel, offset)?,
        }
        // A paused worker may resume.
        actor.bus.signals(channel).work.notify_one();
        Ok(())
    });
    acked.await
}
