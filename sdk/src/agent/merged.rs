//! Messages of several channels as one sequence.

use super::{Agent, AgentError};
use crate::channel::{Messages, Received};
use crate::engine::ChannelState;
use crate::event::{Event, Events};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use skytale_proto::{ChannelId, Code};
use std::collections::BTreeSet;
use std::fmt;

/// Messages of several channels as they come: those of one channel in the order of its log, those of several in any order.
///
/// Each channel takes about a kilobyte. One that this agent has left gives no more, and goes on when it is added again.
pub struct AllMessages {
    agent: Agent,
    /// `None` is all channels, those that come later too.
    only: Option<BTreeSet<ChannelId>>,
    /// Channels that a future below is for.
    watched: BTreeSet<ChannelId>,
    next: FuturesUnordered<BoxFuture<'static, (Messages, Result<Received, AgentError>)>>,
    events: Events,
    /// The list of channels was not read since something may have changed in it.
    stale: bool,
}

impl fmt::Debug for AllMessages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllMessages")
            .field("only", &self.only)
            .field("watched", &self.watched.len())
            .finish_non_exhaustive()
    }
}

impl Agent {
    /// Messages of other agents in all channels that were not acknowledged, then new ones as they come; also in channels that
    /// this agent makes or is added to later. See [`Channel::messages`](crate::channel::Channel::messages).
    pub fn messages(&self) -> AllMessages {
        AllMessages::new(self.clone(), None)
    }

    /// As [`Agent::messages`], in these channels alone. Ends with [`Code::ChannelLeft`] when this agent is in none of them.
    pub fn messages_of(&self, channels: impl IntoIterator<Item = ChannelId>) -> AllMessages {
        AllMessages::new(self.clone(), Some(channels.into_iter().collect()))
    }
}

impl AllMessages {
    fn new(agent: Agent, only: Option<BTreeSet<ChannelId>>) -> Self {
        let events = agent.events();
        Self {
            agent,
            only,
            watched: BTreeSet::new(),
            next: FuturesUnordered::new(),
            events,
            stale: true,
        }
    }

    /// The next message of any of the channels, when there is one. Cancel-safe. Ends with the reason where none can come any
    /// more: see [waits](Agent#waits).
    pub async fn next(&mut self) -> Result<Received, AgentError> {
        loop {
            if self.stale {
                self.watch_all().await?;
                self.stale = false;
            }
            let over = self.only.is_some() && self.next.is_empty();
            tokio::select! {
                biased;
                Some((messages, next)) = self.next.next(), if !self.next.is_empty() => match next {
                    Ok(received) => {
                        self.next.push(after(messages));
                        return Ok(received);
                    }
                    // It may be added again: then it is watched again.
                    Err(error) if error.code() == Code::ChannelLeft => {
                        self.watched.remove(&messages.channel());
                        if self.only.is_some() && self.next.is_empty() {
                            return Err(error);
                        }
                    }
                    Err(error) => return Err(error),
                },
                event = self.events.next(), if !over => match event {
                    Some(Event::Joined { .. } | Event::MemberAdded { .. } | Event::Lagged { .. }) => self.stale = true,
                    Some(_) => {}
                    None => return Err(AgentError::Closed),
                },
                else => return Err(AgentError::Closed),
            }
        }
    }

    async fn watch_all(&mut self) -> Result<(), AgentError> {
        for channel in self.agent.channels().await? {
            let wanted = self.only.as_ref().is_none_or(|only| only.contains(&channel.id));
            // What was left before this began may still have messages that nobody has read.
            let may_have = channel.state != ChannelState::Left || channel.unacked > 0;
            if wanted && may_have && self.watched.insert(channel.id) {
                self.next.push(after(self.agent.handle(channel.id).messages()));
            }
        }
        Ok(())
    }
}

fn after(mut messages: Messages) -> BoxFuture<'static, (Messages, Result<Received, AgentError>)> {
    Box::pin(async move {
        let next = messages.next().await;
        (messages, next)
    })
}
