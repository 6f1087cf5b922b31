//! Outcome of an append.

use super::Stage;
use futures_util::future::{BoxFuture, FutureExt as _, ready};
use skytale_proto::{AgentId, ChannelId, Code, FrameId, Offset};
use skytale_sdk::{Agent, AgentError, Delivered, Sent};
use std::sync::Arc;
use std::time::Duration;

/// An append of the plan, until all its parts are in the log. It counts once.
#[derive(Debug)]
pub(super) struct Append {
    /// The place of its event in the plan.
    pub(super) place: usize,
    pub(super) planned: Duration,
    pub(super) author: AgentId,
    /// The bytes of a message.
    pub(super) message: Option<usize>,
    pub(super) parts: Vec<Part>,
    /// Whether it is to be counted; not if it was given up.
    pub(super) is_counted: bool,
}

/// A frame of an append: a commit that adds and removes is two.
#[derive(Clone, Debug)]
pub(super) enum Part {
    /// The first entry of a channel, whose frame is not told.
    Create,
    /// A message.
    Message(ChannelId, FrameId),
    /// A change that adds these agents, or removes them.
    Change(ChannelId, FrameId, Vec<u32>, bool),
}

/// Ends with a part's place in the log, where it has one that is known.
pub(super) type Wait = BoxFuture<'static, Result<Option<Offset>, AgentError>>;

/// Waits for a part that was just sent.
pub(super) fn wait(sent: Sent) -> Wait {
    async move { sent.delivered().await.map(Delivered::offset) }.boxed()
}

impl Part {
    /// Takes up again what an agent sent before it went away.
    pub(super) async fn take_up(&self, stage: &Stage, number: u32, agent: &Agent) -> Wait {
        let (Self::Message(channel, frame) | Self::Change(channel, frame, ..)) = *self else {
            return created(agent.clone());
        };
        let sent = match agent.channel(channel).await {
            Ok(channel) => channel.sent(frame).await,
            Err(error) => Err(error),
        };
        let ended = match sent {
            Ok(Some(sent)) => return wait(sent),
            // A vault does not keep changes that were made or not needed.
            Ok(None) if matches!(self, Self::Change(..)) => Ok(None),
            Ok(None) => {
                let fault = format!("agent {number}: its vault has lost message {frame}, which it sent in {channel}");
                stage.judge.fault(fault);
                Err(AgentError::SendFailed {
                    frame_id: frame,
                    code: Code::NotFound,
                })
            }
            Err(error) => Err(error),
        };
        ready(ended).boxed()
    }

    /// The part is in the log.
    fn is_entry(&self, stage: &Stage, number: u32, author: AgentId, offset: Option<Offset>) {
        let Some(offset) = offset else { return };
        match self {
            Self::Create => {}
            Self::Message(channel, frame) => {
                stage.judge.acknowledged(*channel, author, *frame, offset);
                stage.is_entry(number, *channel, offset.get());
            }
            Self::Change(channel, _, agents, is_add) => {
                for agent in agents {
                    stage.changed(*agent, *channel, offset, *is_add);
                }
            }
        }
    }
}

/// Waits until the Create of a channel is in the log.
pub(super) fn created(agent: Agent) -> Wait {
    async move { agent.flushed().await.map(|()| None) }.boxed()
}

impl Append {
    /// Waits for all parts. Returns the rest if the agent goes away before that: it goes out when the agent comes back.
    pub(super) async fn settle(mut self, stage: Arc<Stage>, number: u32, waits: Vec<Wait>) -> Option<Self> {
        let mut left = Vec::new();
        for (part, wait) in std::mem::take(&mut self.parts).into_iter().zip(waits) {
            match wait.await {
                Ok(offset) => part.is_entry(&stage, number, self.author, offset),
                Err(AgentError::Closed) => left.push(part),
                Err(error) => {
                    stage.base.refused(number, error.code());
                    if std::mem::take(&mut self.is_counted) {
                        stage.base.was_given_up(self.place, number, self.planned);
                    }
                }
            }
        }
        if !left.is_empty() {
            return Some(Self { parts: left, ..self });
        }
        if self.is_counted {
            let body_bytes = self.message.unwrap_or(0);
            let is_message = self.message.is_some();
            stage
                .base
                .is_entry(self.place, number, self.planned, body_bytes, is_message);
        }
        None
    }
}
