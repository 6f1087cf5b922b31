//! Channels that other agents have added this one to.

use super::{Agent, AgentError};
use crate::channel::Channel;
use crate::engine::Invited;
use crate::event::{Event, Events};
use futures_core::Stream;
use skytale_proto::{AgentId, ChannelId, Offset};
use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio_util::sync::ReusableBoxFuture;

/// A channel that another agent has added this one to. This agent is already a member; to reject the invitation,
/// [leave](Channel::leave) the channel. Additions by untrusted agents first wait among the [requests](Agent::requests).
#[derive(Clone, Debug)]
pub struct Invitation {
    agent: Agent,
    invited: Invited,
}

impl Invitation {
    /// The channel.
    pub const fn channel(&self) -> ChannelId {
        self.invited.channel
    }

    /// The offset of the bundle that added this agent.
    pub const fn offset(&self) -> Offset {
        self.invited.offset
    }

    /// The agent that made the addition, proven by a signature; `None` if an older version of this crate did not store
    /// it.
    pub const fn by(&self) -> Option<AgentId> {
        self.invited.by
    }

    /// Time at which this agent joined, unix milliseconds by this machine's clock.
    pub const fn since_ms(&self) -> u64 {
        self.invited.since_ms
    }

    /// Accepts the invitation and returns the channel. The invitation is not listed again. Repeated calls are harmless.
    pub async fn accept(&self) -> Result<Channel, AgentError> {
        self.agent.accept_invitation(self.channel()).await?;
        self.agent.channel(self.channel()).await
    }
}

/// Stream of invitations: first the pending ones, then new ones. One `Invitations` yields each invitation once. The
/// next `Invitations` yields those not accepted again, even after a restart. As a [`Stream`] it ends after an error.
pub struct Invitations {
    agent: Agent,
    /// `None` while it looks.
    lookout: Option<Lookout>,
    looking: Option<ReusableBoxFuture<'static, Looked>>,
    found: VecDeque<Invited>,
    ended: bool,
}

type Looked = (Lookout, Result<Vec<Invited>, AgentError>);

/// Looks out for invitations.
struct Lookout {
    agent: Agent,
    events: Events,
    given: HashSet<(ChannelId, Offset)>,
    /// Whether the list may have changed since it was read.
    stale: bool,
}

impl fmt::Debug for Invitations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitations")
            .field("found", &self.found.len())
            .finish_non_exhaustive()
    }
}

impl Agent {
    /// Streams the channels that this agent was added to: first all pending invitations, then new ones. An invitation
    /// is pending until it is accepted ([`Invitation::accept`]), the channel gets a label ([`Agent::join`] gives one),
    /// or this agent leaves.
    pub fn invitations(&self) -> Invitations {
        let lookout = Lookout {
            agent: self.clone(),
            // Subscribe before the first look, so that nothing is missed meanwhile.
            events: self.events(),
            given: HashSet::new(),
            stale: true,
        };
        Invitations {
            agent: self.clone(),
            lookout: Some(lookout),
            looking: None,
            found: VecDeque::new(),
            ended: false,
        }
    }

    /// Lists the pending invitations of [`Agent::invitations`], oldest first.
    pub async fn pending_invitations(&self) -> Result<Vec<Invitation>, AgentError> {
        let pending = self.invited().await?.into_iter();
        let named = |invited| Invitation {
            agent: self.clone(),
            invited,
        };
        Ok(pending.map(named).collect())
    }

    pub(crate) async fn invited(&self) -> Result<Vec<Invited>, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.invited().await;
        }
        self.inner.core.try_call(|actor| actor.engine.invitations()).await
    }

    pub(crate) async fn accept_invitation(&self, channel: ChannelId) -> Result<bool, AgentError> {
        if let Some(owner) = self.inner.core.owner() {
            return owner.accept_invitation(channel).await;
        }
        self.inner
            .core
            .try_call(move |actor| actor.engine.accept_invitation(channel))
            .await
    }
}

impl Invitations {
    /// Waits for the next invitation. Cancel-safe. Fails with the reason if no more invitations can arrive: see
    /// [waits](Agent#waits).
    pub async fn next(&mut self) -> Result<Invitation, AgentError> {
        poll_fn(|cx| self.poll_invitation(cx)).await
    }

    fn poll_invitation(&mut self, cx: &mut Context<'_>) -> Poll<Result<Invitation, AgentError>> {
        loop {
            if let Some(invited) = self.found.pop_front() {
                return Poll::Ready(Ok(Invitation {
                    agent: self.agent.clone(),
                    invited,
                }));
            }
            if let Some(lookout) = self.lookout.take() {
                match &mut self.looking {
                    Some(looking) => looking.set(lookout.look()),
                    None => self.looking = Some(ReusableBoxFuture::new(lookout.look())),
                }
            }
            let Some(looking) = &mut self.looking else {
                return Poll::Ready(Err(AgentError::Closed));
            };
            let (lookout, found) = ready!(looking.poll(cx));
            self.lookout = Some(lookout);
            self.found = found?.into();
        }
    }
}

/// Ends after an error.
impl Stream for Invitations {
    type Item = Result<Invitation, AgentError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_invitation(cx));
        self.ended = next.is_err();
        Poll::Ready(Some(next))
    }
}

impl Lookout {
    /// Waits until there are invitations that were not yielded yet.
    async fn look(mut self) -> Looked {
        let found = self.find().await;
        (self, found)
    }

    async fn find(&mut self) -> Result<Vec<Invited>, AgentError> {
        loop {
            if self.stale {
                let pending = self.agent.invited().await?;
                self.stale = false;
                let all: HashSet<_> = pending
                    .iter()
                    .map(|invited| (invited.channel, invited.offset))
                    .collect();
                let mut fresh = pending;
                fresh.retain(|invited| !self.given.contains(&(invited.channel, invited.offset)));
                // Those that are over are not kept in mind.
                self.given = all;
                if !fresh.is_empty() {
                    return Ok(fresh);
                }
            }
            match self.agent.inner.core.bus.wait(self.events.next()).await? {
                Some(Event::Joined { .. } | Event::Lagged { .. }) => self.stale = true,
                Some(_) => {}
                None => return Err(AgentError::Closed),
            }
        }
    }
}
