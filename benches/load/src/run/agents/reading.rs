//! An agent's application: reads every channel, acknowledges the messages that it has read.

use super::payload::Head;
use super::{Gauge, Stage};
use crate::recorder::Tick;
use crate::results::Measure;
use crate::run::shared::add;
use skytale_proto::{ChannelId, Code, Offset};
use skytale_sdk::{Agent, Channel, Event, Events};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

/// An acknowledgement is a transaction: the application makes one for so many messages.
const ACK_EVERY: u64 = 64;
/// Time with nothing more to read after which all that was read is acknowledged.
const IDLE: Duration = Duration::from_millis(50);

/// One life of an agent's application.
pub(super) struct Reading {
    pub(super) stage: Arc<Stage>,
    pub(super) agent: u32,
    /// Planned time of its session. Messages planned before are those that it had missed.
    pub(super) since: Duration,
    pub(super) leave: CancellationToken,
    pub(super) missed: Arc<AtomicU64>,
    /// Whether the agent counts as online: it has a session.
    pub(super) is_online: Arc<AtomicBool>,
}

/// Channels by which an application hears of changes.
pub(super) struct Ears {
    pub(super) events: Events,
    /// Channels that the agent makes: no event tells of those.
    pub(super) made: mpsc::UnboundedReceiver<ChannelId>,
    /// Tells, when it goes, that all that was read is acknowledged: the agent may be closed.
    pub(super) read: DropGuard,
}

impl Reading {
    /// Reads until it is to leave, and then listens until the agent is closed: until then, it may be removed or added.
    pub(super) async fn run(self, agent: Agent, ears: Ears) {
        let Ears {
            mut events,
            mut made,
            read,
        } = ears;
        let this = Arc::new(self);
        let (mut readers, mut known) = (JoinSet::new(), HashSet::new());
        for info in agent.channels().await.unwrap_or_default() {
            this.begin(&agent, info.id, &mut known, &mut readers).await;
        }
        loop {
            let event = tokio::select! {
                () = this.leave.cancelled() => break,
                Some(channel) = made.recv() => {
                    this.begin(&agent, channel, &mut known, &mut readers).await;
                    continue;
                }
                event = events.next() => event,
            };
            let Some(event) = event else { break };
            match &event {
                Event::Joined { channel, .. } => this.begin(&agent, *channel, &mut known, &mut readers).await,
                // The loss may hide that it has joined, or has a session.
                Event::Lagged { .. } => {
                    for info in agent.channels().await.unwrap_or_default() {
                        this.begin(&agent, info.id, &mut known, &mut readers).await;
                    }
                    this.has_session(agent.is_connected());
                }
                _ => {}
            }
            this.session(&event);
            this.heard(&event, true);
        }
        while readers.join_next().await.is_some() {}
        drop((read, agent));
        while let Some(event) = events.next().await {
            this.heard(&event, false);
        }
    }

    /// Notes what an event says of memberships, or of a fault. `reads` says whether the application still reads.
    fn heard(&self, event: &Event, reads: bool) {
        let fault = match event {
            Event::Joined { channel, offset, .. } => {
                let gauge = self.stage.gauge(self.agent, *channel);
                // Before the join is known: until it has read, it is short.
                gauge.reads.fetch_or(reads, Ordering::Relaxed);
                gauge.stays.lock().joined(*offset);
                gauge.joins.send_modify(|joins| *joins += 1);
                return;
            }
            Event::Rejoined { channel, offset, .. } => {
                let gauge = self.stage.gauge(self.agent, *channel);
                return gauge.stays.lock().rejoined(*offset);
            }
            Event::Left { channel, offset, .. } => {
                let gauge = self.stage.gauge(self.agent, *channel);
                return gauge.stays.lock().left(*offset);
            }
            Event::Lagged { missed } => {
                tracing::warn!(agent = self.agent, missed, "events were lost");
                let gauges = self.stage.gauges.lock();
                for gauge in gauges.iter().filter(|gauge| gauge.agent == self.agent) {
                    gauge.stays.lock().lost();
                    gauge.joins.send_modify(|joins| *joins += 1);
                }
                return;
            }
            Event::Divergence { offset, .. } => format!("was shown another log at offset {offset}"),
            Event::Gap { expected, found, .. } => format!("the log has a gap: {found} came after {expected}"),
            Event::EntryUnreadable { offset, reason, .. } => format!("entry {offset} is unreadable: {reason}"),
            Event::HeaderLied { offset, problem, .. } => format!("the header of entry {offset} lied: {problem}"),
            _ => return,
        };
        self.stage.judge.fault(format!("agent {}: {fault}", self.agent));
    }

    /// Counts sessions, and those lost. A session that replaces another one without a loss counts too.
    fn session(&self, event: &Event) {
        let tallies = &self.stage.base.tallies;
        let is_connected = matches!(event, Event::Connected { .. });
        if is_connected && !self.has_session(true) {
            add(&tallies.sessions, 1);
        }
        if matches!(event, Event::Disconnected { .. }) {
            add(&tallies.sessions_lost, 1);
            self.has_session(false);
        }
    }

    /// Whether the agent has a session now. Returns whether that is new.
    fn has_session(&self, is_online: bool) -> bool {
        let base = &self.stage.base;
        let is_new = self.is_online.swap(is_online, Ordering::Relaxed) != is_online;
        if is_new && is_online {
            // This counts a session.
            base.came_online(self.agent);
            self.stage.present.lock().online.insert(self.agent);
        } else if is_new {
            base.went_offline(self.agent);
        }
        is_new
    }

    async fn begin(
        self: &Arc<Self>,
        agent: &Agent,
        channel: ChannelId,
        known: &mut HashSet<ChannelId>,
        readers: &mut JoinSet<()>,
    ) {
        if known.contains(&channel) {
            return;
        }
        match agent.channel(channel).await {
            Ok(handle) => {
                known.insert(channel);
                let gauge = self.stage.gauge(self.agent, channel);
                gauge.reads.store(true, Ordering::Relaxed);
                readers.spawn(Arc::clone(self).read(handle, gauge));
            }
            Err(error) => self.stage.judge.fault(format!(
                "agent {}: its application cannot open {channel}: {error}",
                self.agent
            )),
        }
    }

    async fn read(self: Arc<Self>, channel: Channel, gauge: Arc<Gauge>) {
        let mut joins = gauge.joins.subscribe();
        let mut unacknowledged = None;
        loop {
            gauge.reads.store(true, Ordering::Relaxed);
            let has_left = self.read_on(&channel, &gauge, &mut unacknowledged).await;
            acknowledge(&channel, &mut unacknowledged).await;
            gauge.reads.store(false, Ordering::Relaxed);
            // An agent that was removed is given nothing more until it joins again.
            let joined = async { has_left && joins.changed().await.is_ok() };
            let goes_on = tokio::select! {
                biased;
                () = self.leave.cancelled() => false,
                joined = joined => joined,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Reads until it is to leave, or no more comes; whether that is because the agent has left the channel.
    async fn read_on(&self, channel: &Channel, gauge: &Gauge, unacknowledged: &mut Option<Offset>) -> bool {
        let mut messages = channel.messages();
        let mut count = 0;
        loop {
            let message = tokio::select! {
                biased;
                () = self.leave.cancelled() => return false,
                message = messages.next() => message,
                () = tokio::time::sleep(IDLE), if unacknowledged.is_some() => {
                    acknowledge(channel, unacknowledged).await;
                    continue;
                }
            };
            let message = match message {
                Ok(message) => message,
                Err(error) => return error.code() == Code::ChannelLeft,
            };
            let offset = message.offset;
            let before = gauge.given.fetch_max(offset.get(), Ordering::Relaxed);
            if before >= offset.get() {
                self.stage.judge.fault(format!(
                    "agent {} was given message {offset} of {} again",
                    self.agent,
                    channel.id()
                ));
            }
            gauge.count.fetch_add(1, Ordering::Relaxed);
            self.given(&message.payload);
            *unacknowledged = Some(offset);
            count += 1;
            if count % ACK_EVERY == 0 {
                acknowledge(channel, unacknowledged).await;
            }
        }
    }

    fn given(&self, payload: &[u8]) {
        let base = &self.stage.base;
        let mut records = base.recorder.of(self.agent);
        records.count(Tick::Delivered, 1);
        base.delivered(1, payload.len() as u64);
        match Head::of(payload) {
            Some(head) if head.planned >= self.since => records.latency(Measure::Delivered, base.late(head.planned)),
            _ => add(&self.missed, 1),
        }
    }
}

async fn acknowledge(channel: &Channel, unacknowledged: &mut Option<Offset>) {
    if let Some(offset) = unacknowledged.take() {
        // A message that is not acknowledged comes again, and counts as seen.
        let _ = channel.ack(offset).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ROOM, stage};
    use super::*;
    use skytale_proto::{AgentId, EndpointId};

    async fn reading(dir: &std::path::Path) -> Reading {
        Reading {
            stage: stage(dir).await,
            agent: 0,
            since: Duration::ZERO,
            leave: CancellationToken::new(),
            missed: Arc::default(),
            is_online: Arc::default(),
        }
    }

    #[tokio::test]
    async fn sessions_and_those_lost_are_counted() {
        let dir = tempfile::tempdir().expect("a folder");
        let reading = reading(dir.path()).await;
        let connected = Event::Connected {
            relay: EndpointId::from_bytes([1; 32]),
            over_https: false,
        };
        let disconnected = Event::Disconnected {
            code: Code::KeepaliveLost,
            reason: "silence".into(),
        };
        let tallies = &reading.stage.base.tallies;
        let counts =
            || [&tallies.sessions, &tallies.sessions_lost, &tallies.online].map(|tally| tally.load(Ordering::Relaxed));
        reading.session(&connected);
        assert_eq!(counts(), [1, 0, 1]);
        // It moved to another relay node.
        reading.session(&connected);
        assert_eq!(counts(), [2, 0, 1]);
        reading.session(&disconnected);
        assert_eq!(counts(), [2, 1, 0]);
        reading.session(&connected);
        assert_eq!(counts(), [3, 1, 1]);
    }

    #[tokio::test]
    async fn joins_and_removals_are_noted_and_lost_events_too() {
        let dir = tempfile::tempdir().expect("a folder");
        let reading = reading(dir.path()).await;
        let (channel, by) = (ROOM, AgentId::from_bytes([1; 32]));
        let joined = |at| Event::Joined {
            channel,
            offset: Offset::new(at),
            by,
        };
        let offset = Offset::new(10);
        reading.heard(&joined(2), true);
        reading.heard(&Event::Left { channel, offset, by }, true);
        // After the application has gone.
        let gauge = reading.stage.gauge(0, ROOM);
        gauge.reads.store(false, Ordering::Relaxed);
        reading.heard(&joined(20), false);
        assert!(!gauge.reads.load(Ordering::Relaxed));
        let stretches = [(2, 10), (20, 30)].map(|(first, last)| (Offset::new(first), Offset::new(last)));
        assert_eq!(gauge.stays.lock().stretches(Offset::new(30)), Some(stretches.to_vec()));
        reading.heard(&Event::Lagged { missed: 3 }, true);
        assert_eq!(gauge.stays.lock().stretches(Offset::new(30)), None);
    }
}
