//! What one part of an agent tells the others: events, wake-ups, who waits for a delivery.

use super::AgentError;
use crate::event::Event;
use crate::net::Session;
use parking_lot::Mutex;
use skytale_proto::{ChannelId, Code, FrameId, Offset};
use std::collections::HashMap;
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
    /// The worker has something to look at: the outbox grew, or the inbox shrank.
    pub(crate) work: Notify,
    /// How far the channel is followed, in the session there is.
    pub(crate) followed: watch::Sender<Followed>,
}

/// How far a channel is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    /// There is more to replay, or nobody to replay it from.
    Behind,
    /// The application has not kept up; replay waits for it.
    Paused,
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
}

#[derive(Debug)]
pub(crate) struct Bus {
    // `None` once the agent is closed: receivers then come to an end.
    events: Mutex<Option<broadcast::Sender<Event>>>,
    channels: Mutex<HashMap<ChannelId, Arc<Signals>>>,
    waiters: Mutex<HashMap<FrameId, Vec<oneshot::Sender<Delivery>>>>,
    /// Why there is no session, as it was told last.
    missed: Mutex<Option<Event>>,
    /// The channels to be followed have changed.
    pub(crate) channels_changed: Notify,
    /// Bundles may be there to be fetched.
    pub(crate) joins_pending: Notify,
    /// The stock of KeyPackages may have shrunk.
    pub(crate) stock_changed: Notify,
    /// Moves whenever something left an outbox.
    pub(crate) settled: watch::Sender<u64>,
    pub(crate) session: watch::Sender<Option<Session>>,
    pub(crate) readiness: watch::Sender<Readiness>,
}

impl Bus {
    pub(crate) fn new(events_max: usize) -> Self {
        Self {
            events: Mutex::new(Some(broadcast::Sender::new(events_max.max(1)))),
            channels: Mutex::default(),
            waiters: Mutex::default(),
            missed: Mutex::default(),
            channels_changed: Notify::new(),
            joins_pending: Notify::new(),
            stock_changed: Notify::new(),
            settled: watch::Sender::new(0),
            session: watch::Sender::new(None),
            readiness: watch::Sender::default(),
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
            Event::Connected { .. } => *self.missed.lock() = None,
            Event::ConnectFailed { .. } => *self.missed.lock() = Some(event.clone()),
            _ => {}
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

    fn act(&self, event: &Event) {
        match event {
            Event::Message { channel, .. } => self.bump_inbox(*channel),
            Event::Delivered { frame_id, offset, .. } => self.settle(*frame_id, Delivery::Delivered(*offset)),
            Event::Unneeded { frame_id, .. } => self.settle(*frame_id, Delivery::Unneeded),
            Event::SendFailed { frame_id, code, .. } => self.settle(*frame_id, Delivery::Failed(*code)),
            Event::Joined { .. } => self.channels_changed.notify_one(),
            Event::Left { channel, .. } => {
                self.bump_inbox(*channel);
                self.joins_pending.notify_one();
            }
            _ => {}
        }
    }

    fn bump_inbox(&self, channel: ChannelId) {
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

    /// The last [`Event::ConnectFailed`], where no session came after it: for who begins to watch now.
    pub(crate) fn missed(&self) -> Option<Event> {
        self.missed.lock().clone()
    }

    /// The agent is closed: nobody gets an answer any more, and events end.
    pub(crate) fn close(&self) {
        self.waiters.lock().clear();
        self.events.lock().take();
    }

    /// The process that tells what happens is gone: nobody gets an answer from it any more, and events end.
    pub(crate) fn detach(&self) {
        let waiters = std::mem::take(&mut *self.waiters.lock());
        for waiter in waiters.into_values().flatten() {
            let _ = waiter.send(Delivery::Detached);
        }
        self.close();
    }

    /// Something may have come into any inbox.
    pub(crate) fn wake_inboxes(&self) {
        for signals in self.channels.lock().values() {
            signals.inbox.send_modify(|version| *version += 1);
        }
    }

    /// Waits until a channel is followed as far as `enough` says.
    pub(crate) async fn followed(
        &self,
        channel: ChannelId,
        enough: impl Fn(Followed) -> bool,
    ) -> Result<(), AgentError> {
        // The sender lives as long as the bus.
        let mut followed = self.signals(channel).followed.subscribe();
        let waited = followed.wait_for(|followed| enough(*followed)).await;
        waited.map(drop).map_err(|_| AgentError::Closed)
    }

    pub(crate) fn signals(&self, channel: ChannelId) -> Arc<Signals> {
        let mut channels = self.channels.lock();
        let signals = channels.entry(channel).or_insert_with(|| {
            Arc::new(Signals {
                inbox: watch::Sender::new(0),
                work: Notify::new(),
                followed: watch::Sender::new(Followed::Behind),
            })
        });
        Arc::clone(signals)
    }
}
