//! The inbox of a channel as a stream.

use super::Sent;
use super::once::send_message;
use crate::agent::AgentError;
use crate::agent::core::{Actor, Core};
use crate::engine::{ChannelState, EngineError, Message, Outgoing};
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use skytale_proto::{ChannelId, FrameId, Offset};
use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;
use tokio::sync::watch;

/// Messages read from the vault at once.
const READ_MAX: u32 = 128;

/// Messages of other agents, in the order of the log: first those that were not acknowledged, then new ones.
///
/// Ends with an error once this agent is no longer in the channel, after all that it may read.
///
/// Each comes once from one `Messages`; one that was not acknowledged comes again from the next, also after a restart.
#[derive(Debug)]
pub struct Messages {
    core: Arc<Core>,
    channel: ChannelId,
    from: From,
    /// [`ChannelInfo::settlements`](crate::engine::ChannelInfo::settlements) of what was read so far.
    settlements: Option<u64>,
    read: VecDeque<Message>,
    inbox: watch::Receiver<u64>,
    /// Kept by who is given what is to be acknowledged.
    _reader: Option<watch::Receiver<()>>,
}

/// What is read next.
#[derive(Clone, Copy, Debug)]
enum From {
    /// What was not acknowledged, after an offset.
    Unacked(Offset),
    /// All that is after an offset.
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

/// A message, and a way to acknowledge it.
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

    /// The channel that it came in.
    pub const fn channel(&self) -> ChannelId {
        self.channel
    }

    /// The message.
    pub fn into_message(self) -> Message {
        self.message
    }

    /// Answers this message in its channel, and acknowledges it and all before it, in one transaction of the vault: after a
    /// crash either both are done or none, so that no request is answered twice or not at all.
    pub async fn reply(&self, payload: impl Into<Bytes>) -> Result<Sent, AgentError> {
        self.reply_with(Outgoing::new(payload)).await
    }

    /// As [`Received::reply`], with what can be said of the answer.
    pub async fn reply_with(&self, answer: Outgoing) -> Result<Sent, AgentError> {
        let answer = answer
            .reply_to(self.message.frame_id)
            .acknowledging(self.message.offset, self.message.frame_id);
        send_message(&self.core, self.channel, answer).await
    }

    /// The application has dealt with this message and all before it in its channel.
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
        Self {
            core,
            channel,
            from,
            settlements: None,
            read: VecDeque::new(),
            inbox,
            _reader: matches!(from, From::Unacked(_)).then(|| signals.readers.subscribe()),
        }
    }

    /// The channel.
    pub const fn channel(&self) -> ChannelId {
        self.channel
    }

    /// The next message, when there is one. Cancel-safe.
    ///
    /// Where none can come any more this is the reason, as in other [waits](crate::agent::Agent#waits): with
    /// [`Code::ChannelLeft`](skytale_proto::Code::ChannelLeft) this agent has left the channel or was removed from it, and
    /// all that it may read was given. After it was added again, messages go on.
    pub async fn next(&mut self) -> Result<Received, AgentError> {
        loop {
            if let Some(message) = self.read.pop_front() {
                self.from = match self.from {
                    From::Unacked(_) => From::Unacked(message.offset),
                    From::Any(_) => From::Any(message.offset),
                };
                return Ok(Received {
                    core: Arc::clone(&self.core),
                    channel: self.channel,
                    message,
                });
            }
            // Marked before the read: what comes during it wakes.
            self.inbox.mark_unchanged();
            self.read = self.read_on().await?.into();
            if self.read.is_empty() {
                let changed = self.core.bus.wait(self.inbox.changed()).await?;
                changed.map_err(|_| AgentError::Closed)?;
            }
        }
    }

    /// What comes after the last message read. Where the log went back and that was settled, offsets mean other entries than
    /// before: then it is what was not acknowledged, since all that had been read was.
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
        (self.from, self.settlements) = (from, Some(settlements));
        Ok(read)
    }

    /// As a [`Stream`]. Ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Received, AgentError>> + Send + 'static {
        unfold(Some(self), |messages| async {
            let mut messages = messages?;
            match messages.next().await {
                Ok(message) => Some((Ok(message), Some(messages))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

/// What was not acknowledged; an error where nothing is left and nothing more comes.
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

/// The same, acknowledged or not.
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

/// Whether nothing more comes in a channel: this agent is not in it, and is not about to join it again.
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
        // A paused worker may go on.
        actor.bus.signals(channel).work.notify_one();
        Ok(())
    });
    acked.await
}
