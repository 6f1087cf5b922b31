//! What one part of an agent tells the others: events, wake-ups, who waits for a delivery.

use super::AgentError;
use crate::engine::PendingJoin;
use crate::event::Event;
use crate::net::{RelayError, Session};
use parking_lot::Mutex;
use skytale_proto::{ChannelId, Code, FrameId, Offset};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::{Notify, broadcast, oneshot, watch};

/// What became of something that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Delivered(Offset),
    Unneeded,
    Failed(Code),
    /// Nobody knows yet: the process that has the vault open is gone.
    Detached,
}

/// What became of something is known already.
pub(crate) fn settled(delivery: Delivery) -> oneshot::Receiver<Delivery> {
    let (sender, receiver) = oneshot::channel();
    // The receiver is here.
    let _ = sender.send(delivery);
    receiver
}

/// Wake-ups of one channel.
#[derive(Debug)]
pub(crate) struct Signals {
    /// Moves when a message comes into the inbox, or the channel is left.
    pub(crate) inbox: watch::Sender<u64>,
    /// Each who reads the inbox as a stream has a receiver: what it was given it may acknowledge later.
    pub(crate) readers: watch::Sender<()>,
    /// The worker has something to look at: the outbox grew, or the inbox shrank.
    pub(crate) work: Notify,
    /// How far the channel is followed, in the session there is.
    pub(crate) followed: watch::Sender<Followed>,
}

impl Signals {
    /// The channel is not followed, or not live yet; one that was left stays so.
    pub(crate) fn fall_behind(&self) {
        self.follow(Followed::Behind);
    }

    /// The channel is followed so far; one that was left stays so, until it is joined again.
    pub(crate) fn follow(&self, far: Followed) {
        self.followed.send_if_modified(|followed| {
            let changes = *followed != Followed::Left;
            if changes {
                *followed = far;
            }
            changes
        });
    }
}

/// How far a channel is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    /// There is more to replay, or nobody to replay it from.
    Behind,
    /// The application has not kept up; replay waits for it.
    Paused,
    /// It cannot be followed as things are, and that will last: the log or the vault said so again and again.
    Refused(Code),
    /// Replayed to its head, and live.
    Live,
    /// The agent has left, or was removed: there is nothing more to come.
    Left,
}

/// How far the agent's own log has come in the session there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    /// The agent's log was replayed to its head.
    pub(crate) log: bool,
    /// No bundle waits to be fetched.
    pub(crate) joins: bool,
    /// KeyPackages were counted and offered.
    pub(crate) stock: bool,
    /// Additions that wait for their agents were tried.
    pub(crate) deferred: bool,
}

impl Readiness {
    /// All of it.
    pub(crate) const fn is_complete(&self) -> bool {
        self.log && self.joins && self.stock && self.deferred
    }
}

/// Whether a wait that needs a session can still end well.
#[derive(Clone, Debug)]
pub(crate) enum Outlook {
    /// It can: the agent is open, and no permanent failure is known.
    Open,
    /// There is no session, and retrying does not help: the API key was revoked, say.
    Failed(RelayError),
    /// The same, as the process says that has the vault open.
    OwnerFailed {
        code: Code,
        reason: String,
        retryable: bool,
    },
    /// The process that had the vault open is gone, or was let go.
    Detached,
    /// The agent is closed.
    Closed,
}

impl Outlook {
    /// Nothing changes it any more.
    const fn is_final(&self) -> bool {
        matches!(self, Self::Detached | Self::Closed)
    }

    /// Why waits end, where they do.
    pub(crate) fn reason(&self) -> Option<AgentError> {
        match self {
            Self::Open => None,
            Self::Failed(error) => Some(error.clone().into()),
            Self::OwnerFailed {
                code,
                reason,
                retryable,
            } => Some(AgentError::Owner {
                code: *code,
                reason: reason.clone(),
                retryable: *retryable,
            }),
            Self::Detached => Some(AgentError::OwnerGone { unknown: false }),
            Self::Closed => Some(AgentError::Closed),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Bus {
    // `None` once the agent is closed: receivers then come to an end.
    events: Mutex<Option<broadcast::Sender<Event>>>,
    channels: Mutex<HashMap<ChannelId, Arc<Signals>>>,
    waiters: Mutex<HashMap<FrameId, Vec<oneshot::Sender<Delivery>>>>,
    /// Why there is no session, as it was reported last.
    missed: Mutex<Option<Event>>,
    /// That nothing listens, as the last round of attempts reported it.
    nobody: Mutex<Option<Event>>,
    /// The channels to be followed have changed.
    pub(crate) channels_changed: Notify,
    /// Bundles may be there to be fetched.
    pub(crate) joins_pending: Notify,
    /// The stock of KeyPackages may have shrunk.
    pub(crate) stock_changed: Notify,
    /// Additions may be there that wait for their agents.
    pub(crate) deferred_changed: Notify,
    /// Bundles that the relay node refuses, which will last in this session: nobody waits for them.
    pub(crate) unfetched: Mutex<HashSet<(ChannelId, Offset)>>,
    /// Channels that were declined.
    hidden: Mutex<BTreeSet<ChannelId>>,
    /// Moves whenever something left an outbox.
    pub(crate) settled: watch::Sender<u64>,
    pub(crate) session: watch::Sender<Option<Session>>,
    /// Another copy of the vault has taken this one's place: no session is to be had.
    pub(crate) superseded: watch::Sender<bool>,
    pub(crate) readiness: watch::Sender<Readiness>,
    outlook: watch::Sender<Outlook>,
}

impl Bus {
    pub(crate) fn new(events_max: usize) -> Self {
        Self {
            events: Mutex::new(Some(broadcast::Sender::new(events_max.max(1)))),
            channels: Mutex::default(),
            waiters: Mutex::default(),
            missed: Mutex::default(),
            nobody: Mutex::default(),
            channels_changed: Notify::new(),
            joins_pending: Notify::new(),
            stock_changed: Notify::new(),
            deferred_changed: Notify::new(),
            unfetched: Mutex::default(),
            hidden: Mutex::default(),
            settled: watch::Sender::new(0),
            session: watch::Sender::new(None),
            superseded: watch::Sender::new(false),
            readiness: watch::Sender::default(),
            outlook: watch::Sender::new(Outlook::Open),
        }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        match &*self.events.lock() {
            Some(events) => events.subscribe(),
            None => broadcast::channel(1).1,
        }
    }

    pub(crate) fn tell(&self, event: Event) {
        tracing::debug!(?event);
        match event {
            Event::Connected { .. } => {
                *self.missed.lock() = None;
                self.attempt();
            }
            Event::NobodyListens { .. } => *self.nobody.lock() = Some(event.clone()),
            Event::ConnectFailed { .. } => *self.missed.lock() = Some(event.clone()),
            _ => {}
        }
        if event.channel().is_some_and(|channel| self.is_hidden(channel)) {
            return;
        }
        if let Some(events) = &*self.events.lock() {
            // Nobody need be watching.
            let _ = events.send(event);
        }
    }

    /// Tells what a call of the engine brought, once its transaction is through.
    pub(crate) fn tell_all(&self, events: Vec<Event>) {
        for event in events {
            self.act(&event);
            self.tell(event);
        }
    }

    /// Whether a channel was declined: it is followed until it is left, and nothing of it is reported.
    pub(crate) fn is_hidden(&self, channel: ChannelId) -> bool {
        self.hidden.lock().contains(&channel)
    }

    /// The channels that were declined, as the vault has them.
    pub(crate) fn hide(&self, declined: BTreeSet<ChannelId>) {
        *self.hidden.lock() = declined;
    }

    fn act(&self, event: &Event) {
        match event {
            Event::Message { channel, .. } | Event::Settled { channel, .. } => self.bump_inbox(*channel),
            Event::Delivered { frame_id, offset, .. } => self.settle(*frame_id, Delivery::Delivered(*offset)),
            Event::Unneeded { frame_id, .. } => self.settle(*frame_id, Delivery::Unneeded),
            Event::SendFailed { frame_id, code, .. } => self.settle(*frame_id, Delivery::Failed(*code)),
            Event::Joined { channel, .. } => {
                self.bump_inbox(*channel);
                // The channel may have been left before, and its old worker may not know that yet.
                self.signals(*channel).followed.send_replace(Followed::Behind);
                self.channels_changed.notify_one();
            }
            Event::OutOfSync { .. } => self.channels_changed.notify_one(),
            Event::Superseded { channel, .. } => {
                self.superseded.send_replace(true);
                self.bump_inbox(*channel);
            }
            Event::Left { channel, .. } => {
                self.signals(*channel).followed.send_replace(Followed::Left);
                self.bump_inbox(*channel);
                self.joins_pending.notify_one();
            }
            _ => {}
        }
    }

    /// Wakes readers of a channel's inbox.
    pub(crate) fn bump_inbox(&self, channel: ChannelId) {
        self.signals(channel).inbox.send_modify(|version| *version += 1);
    }

    pub(crate) fn settle(&self, frame_id: FrameId, delivery: Delivery) {
        let waiters = self.waiters.lock().remove(&frame_id).unwrap_or_default();
        for waiter in waiters {
            // Whoever sent it may not want to know.
            let _ = waiter.send(delivery);
        }
        self.settled.send_modify(|version| *version += 1);
    }

    /// Waits for what becomes of a frame. Called on the engine's thread, in the call that queues the frame, so that
    /// nothing can become of it before.
    pub(crate) fn wait_for(&self, frame_id: FrameId) -> oneshot::Receiver<Delivery> {
        let (sender, receiver) = oneshot::channel();
        self.waiters.lock().entry(frame_id).or_default().push(sender);
        receiver
    }

    /// The last [`Event::ConnectFailed`], where no session came after it, and the [`Event::NobodyListens`] of the last round
    /// of attempts: for who begins to watch now.
    pub(crate) fn missed(&self) -> Vec<Event> {
        let missed = self.missed.lock().clone();
        missed.into_iter().chain(self.nobody.lock().clone()).collect()
    }

    /// A round of attempts begins: whether something listens is not known.
    pub(crate) fn attempt(&self) {
        *self.nobody.lock() = None;
    }

    /// The agent is closed: nobody gets an answer any more, and events end.
    pub(crate) fn close(&self) {
        self.waiters.lock().clear();
        self.events.lock().take();
        self.set_outlook(Outlook::Closed);
    }

    /// The process that tells what happens is gone: nobody gets an answer from it any more, and events end.
    pub(crate) fn detach(&self) {
        let waiters = std::mem::take(&mut *self.waiters.lock());
        for waiter in waiters.into_values().flatten() {
            let _ = waiter.send(Delivery::Detached);
        }
        self.set_outlook(Outlook::Detached);
        self.close();
    }

    /// Something may have come into any inbox.
    pub(crate) fn wake_inboxes(&self) {
        for signals in self.channels.lock().values() {
            signals.inbox.send_modify(|version| *version += 1);
        }
    }

    /// Forgets the session, and everything that was known through it.
    pub(crate) fn offline(&self) {
        self.session.send_replace(None);
        self.readiness.send_replace(Readiness::default());
        self.unfetched.lock().clear();
        for signals in self.channels.lock().values() {
            signals.fall_behind();
        }
    }

    /// The state of waits, and whatever changes.
    pub(crate) fn outlook(&self) -> watch::Receiver<Outlook> {
        self.outlook.subscribe()
    }

    /// Whether there are bundles that are worth waiting for.
    pub(crate) fn waits_for(&self, pending: &[PendingJoin]) -> bool {
        let unfetched = self.unfetched.lock();
        let is_hopeless = |join: &PendingJoin| unfetched.contains(&(join.channel, join.offset));
        pending.iter().any(|join| !is_hopeless(join))
    }

    /// No session can be had, and retrying does not help: ends all waits that need one with this error.
    pub(crate) fn fail_waits(&self, error: RelayError) {
        self.set_outlook(Outlook::Failed(error));
    }

    /// There is a session, or it is worth waiting for one again.
    pub(crate) fn allow_waits(&self) {
        self.set_outlook(Outlook::Open);
    }

    /// What the process says that has the vault open.
    pub(crate) fn set_outlook(&self, next: Outlook) {
        self.outlook.send_if_modified(|outlook| {
            let changes = !outlook.is_final();
            if changes {
                *outlook = next;
            }
            changes
        });
    }

    /// Waits for something that needs a session. Fails with the reason if it cannot end well; a result that is ready
    /// wins over that.
    pub(crate) async fn wait<T>(&self, waited: impl Future<Output = T>) -> Result<T, AgentError> {
        let mut outlook = self.outlook.subscribe();
        let reason = async {
            match outlook.wait_for(|outlook| !matches!(outlook, Outlook::Open)).await {
                Ok(outlook) => outlook.reason().unwrap_or(AgentError::Closed),
                Err(_) => AgentError::Closed,
            }
        };
        tokio::select! {
            biased;
            done = waited => Ok(done),
            error = reason => Err(error),
        }
    }

    /// Waits until a channel is followed as far as `enough` says, and gives how far that is.
    pub(crate) async fn followed(
        &self,
        channel: ChannelId,
        enough: impl Fn(Followed) -> bool,
    ) -> Result<Followed, AgentError> {
        // The sender lives as long as the bus.
        let mut followed = self.signals(channel).followed.subscribe();
        let waited = async { followed.wait_for(|followed| enough(*followed)).await.map(|at| *at) };
        self.wait(waited).await?.map_err(|_| AgentError::Closed)
    }

    pub(crate) fn signals(&self, channel: ChannelId) -> Arc<Signals> {
        let mut channels = self.channels.lock();
        let signals = channels.entry(channel).or_insert_with(|| {
            Arc::new(Signals {
                inbox: watch::Sender::new(0),
                readers: watch::Sender::new(()),
                work: Notify::new(),
                followed: watch::Sender::new(Followed::Behind),
            })
        });
        Arc::clone(signals)
    }
}
