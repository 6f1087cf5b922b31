//! An agent's application: reads every channel, acknowledges what it has read.

use super::payload::Head;
use super::{Gauge, Stage};
use crate::recorder::Tick;
use crate::results::Measure;
use crate::run::shared::add;
use skytale_proto::{ChannelId, Offset};
use skytale_sdk::agent::Agent;
use skytale_sdk::channel::Channel;
use skytale_sdk::event::Event;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// An acknowledgement is a transaction: the application makes one for so many messages.
const ACK_EVERY: u64 = 64;
/// With nothing more to read for so long, all that was read is acknowledged.
const IDLE: Duration = Duration::from_millis(50);

/// One life of an agent's application.
pub(super) struct Reading {
    pub(super) stage: Arc<Stage>,
    pub(super) agent: u32,
    /// When its session was planned. What was planned before is what it had missed.
    pub(super) since: Duration,
    pub(super) leave: CancellationToken,
    /// Channels that the agent makes: of those it is told nothing.
    pub(super) made: mpsc::UnboundedReceiver<ChannelId>,
    pub(super) missed: Arc<AtomicU64>,
}

impl Reading {
    /// Reads until it is to leave.
    pub(super) async fn run(mut self, agent: Agent) {
        let (_closed, none) = mpsc::unbounded_channel();
        let mut made = std::mem::replace(&mut self.made, none);
        let this = Arc::new(self);
        let mut events = agent.events();
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
            let fault = match event {
                None => break,
                Some(Event::Joined { channel, .. }) => {
                    this.begin(&agent, channel, &mut known, &mut readers).await;
                    continue;
                }
                Some(Event::Divergence { offset, .. }) => format!("was shown another log at offset {offset}"),
                Some(Event::Gap { expected, found, .. }) => format!("the log has a gap: {found} came after {expected}"),
                Some(Event::EntryUnreadable { offset, reason, .. }) => {
                    format!("entry {offset} is unreadable: {reason}")
                }
                Some(Event::HeaderLied { offset, problem, .. }) => {
                    format!("the header of entry {offset} lied: {problem}")
                }
                Some(_) => continue,
            };
            this.stage.judge.fault(format!("agent {}: {fault}", this.agent));
        }
        while readers.join_next().await.is_some() {}
    }

    async fn begin(
        self: &Arc<Self>,
        agent: &Agent,
        channel: ChannelId,
        known: &mut HashSet<ChannelId>,
        readers: &mut JoinSet<()>,
    ) {
        if known.insert(channel)
            && let Ok(channel) = agent.channel(channel).await
        {
            readers.spawn(Arc::clone(self).read(channel));
        }
    }

    async fn read(self: Arc<Self>, channel: Channel) {
        let gauge = self.gauge(channel.id());
        gauge.reads.store(true, Ordering::Relaxed);
        let mut messages = channel.messages();
        let (mut unacknowledged, mut count) = (None, 0);
        loop {
            let message = tokio::select! {
                biased;
                () = self.leave.cancelled() => break,
                message = messages.next() => message,
                () = tokio::time::sleep(IDLE), if unacknowledged.is_some() => {
                    acknowledge(&channel, &mut unacknowledged).await;
                    continue;
                }
            };
            // An agent that was removed is given nothing more.
            let Ok(message) = message else { break };
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
            unacknowledged = Some(offset);
            count += 1;
            if count % ACK_EVERY == 0 {
                acknowledge(&channel, &mut unacknowledged).await;
            }
        }
        acknowledge(&channel, &mut unacknowledged).await;
        gauge.reads.store(false, Ordering::Relaxed);
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

    fn gauge(&self, channel: ChannelId) -> Arc<Gauge> {
        let mut gauges = self.stage.gauges.lock();
        let known = gauges
            .iter()
            .find(|gauge| gauge.agent == self.agent && gauge.channel == channel);
        if let Some(gauge) = known {
            return Arc::clone(gauge);
        }
        let gauge = Arc::new(Gauge {
            agent: self.agent,
            channel,
            given: AtomicU64::new(0),
            count: AtomicU64::new(0),
            reads: AtomicBool::new(true),
        });
        gauges.push(Arc::clone(&gauge));
        gauge
    }
}

async fn acknowledge(channel: &Channel, unacknowledged: &mut Option<Offset>) {
    if let Some(offset) = unacknowledged.take() {
        // What is not acknowledged comes again, and is seen as that.
        let _ = channel.ack(offset).await;
    }
}
