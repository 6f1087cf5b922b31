//! The inbox of a channel as a stream.

use super::attached;
use crate::agent::AgentError;
use crate::agent::core::Core;
use crate::engine::Message;
use futures_util::Stream;
use futures_util::stream::unfold;
use skytale_proto::{ChannelId, Offset};
use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;
use tokio::sync::watch;

/// Messages read from the vault at once.
const READ_MAX: u32 = 128;

/// Messages of other agents, in the order of the log: first those that were not acknowledged, then new ones.
///
/// Each comes once from one `Messages`; one that was not acknowledged comes again from the next, also after a restart.
#[derive(Debug)]
pub struct Messages {
    core: Arc<Core>,
    channel: ChannelId,
    from: From,
    read: VecDeque<Message>,
    inbox: watch::Receiver<u64>,
}

/// What is read next.
#[derive(Clone, Copy, Debug)]
enum From {
    /// What was not acknowledged, after an offset.
    Unacked(Offset),
    /// All that is after an offset.
    Any(Offset),
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
    /// The message.
    pub fn into_message(self) -> Message {
        self.message
    }

    /// The application has dealt with this message and all before it in its channel.
    pub async fn ack(&self) -> Result<(), AgentError> {
        ack(&self.core, self.channel, self.message.offset).await
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
        let inbox = core.bus.signals(channel).inbox.subscribe();
        Self {
            core,
            channel,
            from,
            read: VecDeque::new(),
            inbox,
        }
    }

    /// The next message, when there is one. Cancel-safe.
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
            let read = match self.from {
                From::Unacked(after) => unacked(&self.core, self.channel, after, READ_MAX).await?,
                From::Any(after) => received(&self.core, self.channel, after, READ_MAX).await?,
            };
            self.read = read.into();
            if self.read.is_empty() {
                tokio::select! {
                    changed = self.inbox.changed() => changed.map_err(|_| self.core.gone())?,
                    () = self.core.closed() => return Err(self.core.gone()),
                }
            }
        }
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

pub(super) async fn unacked(
    core: &Core,
    channel: ChannelId,
    after: Offset,
    limit: u32,
) -> Result<Vec<Message>, AgentError> {
    if let Some(owner) = core.owner() {
        return attached::inbox(owner, channel, after, limit).await;
    }
    core.try_call(move |actor| actor.engine.inbox(channel, after, limit))
        .await
}

pub(super) async fn received(
    core: &Core,
    channel: ChannelId,
    after: Offset,
    limit: u32,
) -> Result<Vec<Message>, AgentError> {
    if let Some(owner) = core.owner() {
        return owner.received(channel, after, limit).await;
    }
    core.try_call(move |actor| actor.engine.received(channel, after, limit))
        .await
}

pub(super) async fn ack(core: &Core, channel: ChannelId, offset: Offset) -> Result<(), AgentError> {
    if let Some(owner) = core.owner() {
        return owner.ack(channel, offset).await;
    }
    let acked = core.try_call(move |actor| {
        actor.engine.ack(channel, offset)?;
        // A paused worker may go on.
        actor.bus.signals(channel).work.notify_one();
        Ok(())
    });
    acked.await
}
