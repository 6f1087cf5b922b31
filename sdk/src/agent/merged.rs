//! Messages of several channels as one sequence.

use super::{Agent, AgentError};
use crate::channel::{Messages, Received};
use crate::engine::{ChannelInfo, ChannelState};
use crate::event::{Event, Events};
use futures_core::Stream;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use skytale_proto::{ChannelId, Code};
use std::collections::BTreeSet;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio_util::sync::ReusableBoxFuture;

/// Messages of several channels as they arrive. Messages of one channel come in the order of its log; there is no order
/// across channels.
///
/// Each channel takes about a kilobyte. A channel that this agent has left yields nothing more; it resumes if the agent
/// is added again.
///
/// As a [`Stream`] it ends after an error.
pub struct AllMessages {
    agent: Agent,
    /// `None` means all channels, including later ones.
    only: Option<BTreeSet<ChannelId>>,
    /// Channels that have a future below.
    watched: BTreeSet<ChannelId>,
    next: FuturesUnordered<Next>,
    events: Events,
    /// Channels that may be new since they were listed.
    stale: Stale,
    /// A list of them in progress.
    listing: Option<ReusableBoxFuture<'static, Result<Vec<ChannelInfo>, AgentError>>>,
    /// Whether the stream has ended.
    ended: bool,
}

/// Channels to look at.
#[derive(Debug, Default)]
enum Stale {
    #[default]
    None,
    These(BTreeSet<ChannelId>),
    All,
}

impl Stale {
    fn add(&mut self, channel: ChannelId) {
        match self {
            Self::None => *self = Self::These(BTreeSet::from([channel])),
            Self::These(channels) => {
                channels.insert(channel);
            }
            Self::All => {}
        }
    }
}

/// Returns the state of those of the channels that there are.
async fn list(agent: Agent, channels: BTreeSet<ChannelId>) -> Result<Vec<ChannelInfo>, AgentError> {
    let mut listed = Vec::with_capacity(channels.len());
    for channel in channels {
        let info = match agent.channel(channel).await {
            Ok(channel) => channel.info().await,
            Err(error) => Err(error),
        };
        match info {
            Ok(info) => listed.push(info),
            Err(error) if error.code() == Code::ChannelUnknown => {}
            Err(error) => return Err(error),
        }
    }
    Ok(listed)
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
    /// Streams messages of other agents in all channels: first the unacknowledged ones, then new ones as they arrive.
    /// Includes channels that this agent creates or joins later. See
    /// [`Channel::messages`](crate::channel::Channel::messages).
    pub fn messages(&self) -> AllMessages {
        AllMessages::new(self.clone(), None)
    }

    /// Like [`Agent::messages`], for the given channels only. Ends with [`Code::ChannelLeft`] when this agent is in
    /// none of them.
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
            stale: Stale::All,
            listing: None,
            ended: false,
        }
    }

    /// Waits for the next message of any of the channels. Cancel-safe. Fails with the reason if no more messages can
    /// arrive: see [waits](Agent#waits).
    pub async fn next(&mut self) -> Result<Received, AgentError> {
        poll_fn(|cx| self.poll_received(cx)).await
    }

    fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, AgentError>> {
        loop {
            let agent = || self.agent.clone();
            match std::mem::take(&mut self.stale) {
                Stale::None => {}
                Stale::These(channels) => self.listing = Some(ReusableBoxFuture::new(list(agent(), channels))),
                Stale::All => {
                    let agent = agent();
                    self.listing = Some(ReusableBoxFuture::new(async move { agent.channels().await }));
                }
            }
            if let Some(listing) = &mut self.listing {
                let listed = ready!(listing.poll(cx));
                self.listing = None;
                match listed {
                    Ok(channels) => self.watch(channels),
                    Err(error) => {
                        self.stale = Stale::All;
                        return Poll::Ready(Err(error));
                    }
                }
            }
            while let Poll::Ready(Some((messages, next))) = self.next.poll_next_unpin(cx) {
                match next {
                    Ok(received) => {
                        self.next.push(Next(Some(messages)));
                        return Poll::Ready(Ok(received));
                    }
                    // It may be added again: then it is watched again.
                    Err(error) if error.code() == Code::ChannelLeft => {
                        self.watched.remove(&messages.channel());
                        if self.only.is_some() && self.next.is_empty() {
                            return Poll::Ready(Err(error));
                        }
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            if self.only.is_some() && self.next.is_empty() {
                return Poll::Ready(Err(AgentError::Closed));
            }
            match ready!(self.events.poll_event(cx)) {
                Some(Event::Joined { channel, .. } | Event::MemberAdded { channel, .. })
                    if !self.watched.contains(&channel) =>
                {
                    self.stale.add(channel);
                }
                Some(Event::Lagged { .. }) => self.stale = Stale::All,
                Some(_) => {}
                None => return Poll::Ready(Err(AgentError::Closed)),
            }
        }
    }

    fn watch(&mut self, channels: Vec<ChannelInfo>) {
        for channel in channels {
            let wanted = self.only.as_ref().is_none_or(|only| only.contains(&channel.id));
            // A channel that was left earlier may still have unread messages.
            let may_have = channel.state != ChannelState::Left || channel.unacked > 0;
            if wanted && may_have && self.watched.insert(channel.id) {
                self.next.push(Next(Some(self.agent.handle(channel.id).messages())));
            }
        }
    }
}

/// Ends after an error.
impl Stream for AllMessages {
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

/// The next message of one channel, with the reader of the later ones.
struct Next(Option<Messages>);

impl Future for Next {
    type Output = (Messages, Result<Received, AgentError>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(messages) = &mut self.0 else {
            return Poll::Pending;
        };
        let next = ready!(messages.poll_received(cx));
        match self.0.take() {
            Some(messages) => Poll::Ready((messages, next)),
            None => Poll::Pending,
        }
    }
}
