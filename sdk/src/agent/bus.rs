//! Communication between the parts of an agent: events, wake-ups, waiters for deliveries.

use super::AgentError;
use crate::engine::PendingJoin;
use crate::event::Event;
use crate::net::{RelayError, Session};
use parking_lot::Mutex;
use skytale_proto::{ChannelId, Code, FrameId, Offset};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::{Notify, broadcast, oneshot, watch};

/// Outcome of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Delivered(Offset),
    Unneeded,
    Failed(Code),
    /// Unknown: the process that has the vault open is gone.
    Detached,
}

/// Returns a receiver for an outcome that is already known.
pub(crate) fn settled(delivery: Delivery) -> oneshot::Receiver<Delivery> {
    let (sender, receiver) = oneshot::channel();
    // The receiver is here.
    let _ = sender.send(delivery);
    receiver
}

/// Wake-ups of one channel.
#[derive(Debug)]
pub(crate) struct Signals {
    /// Changes when a message arrives in the inbox, or the channel is left.
    pub(crate) inbox: watch::Sender<u64>,
    /// Each reader of the inbox as a stream has a receiver: it may acknowledge its messages later.
    pub(crate) readers: watch::Sender<()>,
    /// Wakes the worker: the outbox grew, or the inbox shrank.
    pub(crate) work: Notify,
    /// Progress of following the channel in the current session.
    pub(crate) followed: watch::Sender<Followed>,
}

impl Signals {
    /// Marks the channel as not followed, or not live yet; a left channel stays left.
    pub(crate) fn fall_behind(&self) {
        self.follow(Followed::Behind);
    }

    /// Records the progress of following the channel; a left channel stays left until it is joined again.
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

/// Progress of following a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    /// There is more to replay, or no node to replay it from.
    Behind,
    /// The application lags; replay waits for it.
    Paused,
    /// It cannot be followed, permanently: the log or the vault has refused repeatedly.
    Refused(Code),
    /// Replayed to its head, and live.
    Live,
    /// The agent has left, or was removed: nothing more can arrive.
    Left,
}

/// Progress of the agent's own log in the current session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    /// Whether the agent's log was replayed to its head.
    pub(crate) log: bool,
    /// Whether no bundle waits to be fetched.
    pub(crate) joins: bool,
    /// Whether KeyPackages were counted and offered.
    pub(crate) stock: bool,
    /// Whether deferred additions were tried.
    pub(crate) deferred: bool,
}

impl Readiness {
    /// Whether all steps are complete.
    pub(crate) const fn is_complete(&self) -> bool {
        self.log && self.joins && self.stock && self.deferred
    }
}

/// Outlook of waits that need a session: whether they can still succeed.
#[derive(Clone, Debug)]
pub(crate) enum Outlook {
    /// They can: the agent is open, and no permanent failure is known.
    Open,
    /// There is no session, and retrying does not help: the API key was revoked, for example.
    Failed(RelayError),
    /// The owner process reports that there is no session, and that retrying does not help.
    OwnerFailed {
        code: Code,
        reason: String,
        retryable: bool,
    },
    /// The owner process is gone, or this one has detached.
    Detached,
    /// The agent is closed.
    Closed,
}

impl Outlook {
    /// Whether it can no longer change.
    const fn is_final(&self) -> bool {
        matches!(self, Self::Detached | Self::Closed)
    }

    /// Returns why waits fail, if they do.
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
    // `None` once the agent is closed: receivers then end.
    events: Mutex<Option<broadcast::Sender<Event>>>,
    channels: Mutex<HashMap<ChannelId, Arc<Signals>>>,
    waiters: Mutex<HashMap<FrameId, Vec<oneshot::Sender<Delivery>>>>,
    /// The last report why there is no session.
    missed: Mutex<Option<Event>>,
    /// The report of the last round of attempts that nothing listens.
    nobody: Mutex<Option<Event>>,
    /// Channels to follow that are new, and the signal that there are some.
    pub(crate) new_channels: Mutex<BTreeSet<ChannelId>>,
    pub(crate) channels_changed: Notify,
    /// Signals that there may be bundles to fetch.
    pub(crate) joins_pending: Notify,
    /// Signals that the stock of KeyPackages may have shrunk.
    pub(crate) stock_changed: Notify,
    /// Signals that there may be deferred additions.
    pub(crate) deferred_changed: Notify,
    /// Bundles that the relay node refuses for the rest of this session: nobody waits for them.
    pub(crate) unfetched: Mutex<HashSet<(ChannelId, Offset)>>,
    /// Channels that were declined.
    hidden: Mutex<BTreeSet<ChannelId>>,
    /// Changes whenever an item leaves an outbox.
    pub(crate) settled: watch::Sender<u64>,
    pub(crate) session: watch::Sender<Option<Session>>,
    /// Whether another copy of the vault has superseded this one, so no session is possible.
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
            new_channels: Mutex::default(),
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
            // There may be no receivers.
            let _ = events.send(event);
        }
    }

    /// Reports the events of a call of the engine, once its transaction is committed.
    pub(crate) fn tell_all(&self, events: Vec<Event>) {
        for event in events {
            self.act(&event);
            self.tell(event);
        }
    }

    /// Whether a channel was declined: it is followed until it is left, but not reported.
    pub(crate) fn is_hidden(&self, channel: ChannelId) -> bool {
        self.hidden.lock().contains(&channel)
    }

    /// Sets the declined channels, as stored in the vault.
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
                // The channel may have been left earlier, and its old worker may not know that yet.
                self.signals(*channel).followed.send_replace(Followed::Behind);
                self.channel_is_new(*channel);
            }
            Event::OutOfSync { channel, .. } => self.channel_is_new(*channel),
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

    /// Makes the session follow a channel, if it does not yet.
    pub(crate) fn channel_is_new(&self, channel: ChannelId) {
        self.new_channels.lock().insert(channel);
        self.channels_changed.notify_one();
    }

    /// Wakes readers of a channel's inbox.
    pub(crate) fn bump_inbox(&self, channel: ChannelId) {
        self.signals(channel).inbox.send_modify(|version| *version += 1);
    }

    pub(crate) fn settle(&self, frame_id: FrameId, delivery: Delivery) {
        let waiters = self.waiters.lock().remove(&frame_id).unwrap_or_default();
        for waiter in waiters {
            // The sender may not be waiting.
            let _ = waiter.send(delivery);
        }
        self.settled.send_modify(|version| *version += 1);
    }

    /// Returns a receiver for the outcome of a frame. Called on the engine's thread, in the call that queues the frame,
    /// so that there can be no outcome earlier.
    pub(crate) fn wait_for(&self, frame_id: FrameId) -> oneshot::Receiver<Delivery> {
        let (sender, receiver) = oneshot::channel();
        self.waiters.lock().entry(frame_id).or_default().push(sender);
        receiver
    }

    /// Returns the last [`Event::ConnectFailed`], if no session followed it, and the [`Event::NobodyListens`] of the
    /// last round of attempts: for new watchers.
    pub(crate) fn missed(&self) -> Vec<Event> {
        let missed = self.missed.lock().clone();
        missed.into_iter().chain(self.nobody.lock().clone()).collect()
    }

    /// Starts a round of attempts: it is unknown again whether something listens.
    pub(crate) fn attempt(&self) {
        *self.nobody.lock() = None;
    }

    /// Closes the bus with its agent: pending waiters get no answer, and events end.
    pub(crate) fn close(&self) {
        self.waiters.lock().clear();
        self.events.lock().take();
        self.set_outlook(Outlook::Closed);
    }

    /// Detaches from the owner process: pending waiters get no answer from it, and events end.
    pub(crate) fn detach(&self) {
        let waiters = std::mem::take(&mut *self.waiters.lock());
        for waiter in waiters.into_values().flatten() {
            let _ = waiter.send(Delivery::Detached);
        }
        self.set_outlook(Outlook::Detached);
        self.close();
    }

    /// Wakes the readers of all inboxes.
    pub(crate) fn wake_inboxes(&self) {
        for signals in self.channels.lock().values() {
            signals.inbox.send_modify(|version| *version += 1);
        }
    }

    /// Clears the session, and all state known through it.
    pub(crate) fn offline(&self) {
        self.session.send_replace(None);
        self.readiness.send_replace(Readiness::default());
        self.unfetched.lock().clear();
        for signals in self.channels.lock().values() {
            signals.fall_behind();
        }
    }

    /// Returns a receiver for the outlook of waits.
    pub(crate) fn outlook(&self) -> watch::Receiver<Outlook> {
        self.outlook.subscribe()
    }

    /// Whether there are bundles that are worth waiting for.
    pub(crate) fn waits_for(&self, pending: &[PendingJoin]) -> bool {
        let unfetched = self.unfetched.lock();
        let is_hopeless = |join: &PendingJoin| unfetched.contains(&(join.channel, join.offset));
        pending.iter().any(|join| !is_hopeless(join))
    }

    /// Fails all waits that need a session with this error: no session is possible, and retrying does not help.
    pub(crate) fn fail_waits(&self, error: RelayError) {
        self.set_outlook(Outlook::Failed(error));
    }

    /// Allows waits again: there is a session, or one is possible.
    pub(crate) fn allow_waits(&self) {
        self.set_outlook(Outlook::Open);
    }

    /// Sets the outlook reported by the owner process.
    pub(crate) fn set_outlook(&self, next: Outlook) {
        self.outlook.send_if_modified(|outlook| {
            let changes = !outlook.is_final();
            if changes {
                *outlook = next;
            }
            changes
        });
    }

    /// Waits for a future that needs a session. Fails with the reason if it cannot succeed; a ready result takes
    /// precedence.
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

    /// Waits until a channel is followed as far as `enough` requires, and returns its progress.
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
