//! An agent of a run, as its application drives it.

#[cfg(test)]
mod tests;

use super::Stage;
use super::judge::open;
use super::payload::Head;
use super::reading::{Ears, Reading};
use super::settle::{Append, Part, Wait, created, wait};
use crate::results::Measure;
use crate::run::shared::Open;
use skytale_proto::{AgentId, ChannelId, Code, Offset, Policy};
use skytale_sdk::{Agent, AgentError, Channel, Sent};
use skytale_workload::{Agent as Number, Frame, What};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Maximum time for sent messages to go out when an agent goes away.
const CLOSE_WITHIN: Duration = Duration::from_secs(30);
/// Interval between checks whether an agent was added to a channel, or another one has KeyPackages.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Maximum time to wait for an agent without KeyPackages.
const KEY_PACKAGES_WITHIN: Duration = Duration::from_secs(30);

/// Job of an agent: an event of the plan, by its place.
pub(super) struct Job {
    pub(super) place: usize,
    pub(super) open: Arc<Open>,
}

/// An agent of a run.
pub(super) struct Actor {
    stage: Arc<Stage>,
    number: u32,
    jobs: mpsc::UnboundedReceiver<Job>,
    life: Option<Life>,
    messages: u64,
    /// Appends that wait for their places in the log. They end when the agent is closed.
    waiting: JoinSet<Option<Append>>,
    /// Appends that had no place in the log when the agent went away.
    left: Vec<Append>,
}

/// An agent that is open.
struct Life {
    agent: Agent,
    leave: CancellationToken,
    reading: JoinHandle<()>,
    made: mpsc::UnboundedSender<ChannelId>,
    /// Cancelled when the application has acknowledged all that it was given.
    read: CancellationToken,
    is_online: Arc<AtomicBool>,
}

impl Actor {
    pub(super) fn new(stage: Arc<Stage>, number: u32) -> (Self, mpsc::UnboundedSender<Job>) {
        let (sender, jobs) = mpsc::unbounded_channel();
        let actor = Self {
            stage,
            number,
            jobs,
            life: None,
            messages: 0,
            waiting: JoinSet::new(),
            left: Vec::new(),
        };
        (actor, sender)
    }

    /// Runs until the run is over.
    pub(super) async fn run(mut self) {
        let finish = self.stage.base.finish.clone();
        tokio::select! {
            biased;
            () = finish.cancelled() => {}
            () = self.act() => {}
        }
        self.go_away().await;
    }

    async fn act(&mut self) {
        while let Some(job) = self.jobs.recv().await {
            let stage = Arc::clone(&self.stage);
            let Some(event) = stage.base.plan.events.get(job.place) else {
                continue;
            };
            if let Some(order) = &stage.base.order {
                order.turn(job.place).await;
            }
            if let Err(error) = self.event(event.at, &event.what, job.open).await {
                stage.base.refused(self.number, error.code());
                if matches!(event.what, What::Append { .. }) {
                    stage.base.was_given_up(job.place, self.number, event.at);
                }
                tracing::debug!(agent = self.number, %error, kind = event.what.kind(), "given up");
            }
        }
        // Senders live as long as the run.
        std::future::pending().await
    }

    async fn event(&mut self, planned: Duration, what: &What, open: Arc<Open>) -> Result<(), AgentError> {
        match what {
            What::Connect(_) => self.come(planned, &open).await,
            What::Disconnect(_) => {
                self.go_away().await;
                Ok(())
            }
            What::Append { body_bytes, frame, .. } => self.append(planned, *body_bytes, frame, open).await,
            // The SDK does these by itself.
            What::Subscribe { .. } | What::Token(_) | What::Refused { .. } => Ok(()),
        }
    }

    async fn come(&mut self, planned: Duration, open_event: &Arc<Open>) -> Result<(), AgentError> {
        if self.life.is_some() {
            return Ok(());
        }
        let stage = Arc::clone(&self.stage);
        let agent = open(&stage, self.number).await?;
        if let Some(id) = stage.ids.get(self.number as usize) {
            id.send_replace(Some(agent.id()));
        }
        let (made, channels) = mpsc::unbounded_channel();
        let (leave, missed) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let read = CancellationToken::new();
        let is_online = Arc::new(AtomicBool::new(false));
        let reading = Reading {
            stage: Arc::clone(&stage),
            agent: self.number,
            since: planned,
            leave: leave.clone(),
            missed: Arc::clone(&missed),
            is_online: Arc::clone(&is_online),
        };
        // From before it connects: nothing that happens is missed.
        let ears = Ears {
            events: agent.events(),
            made: channels,
            read: read.clone().drop_guard(),
        };
        self.life = Some(Life {
            agent: agent.clone(),
            leave,
            reading: tokio::spawn(reading.run(agent.clone(), ears)),
            made,
            read,
            is_online,
        });
        self.take_up(&agent, open_event).await;
        if let Err(error) = agent.connect().await {
            self.go_away().await;
            return Err(error);
        }
        agent.connected().await?;
        stage
            .base
            .recorder
            .of(self.number)
            .latency(Measure::Connected, stage.base.late(planned));
        let (number, open_event) = (self.number, Arc::clone(open_event));
        tokio::spawn(async move {
            if agent.caught_up().await.is_ok() {
                stage.base.caught_up(number, planned, missed.load(Ordering::Relaxed));
            }
            drop(open_event);
        });
        Ok(())
    }

    async fn go_away(&mut self) {
        // The end of the run may stop this, and does it again.
        let Some(life) = &mut self.life else { return };
        life.leave.cancel();
        life.read.cancelled().await;
        life.agent.close(CLOSE_WITHIN).await;
        if !life.reading.is_finished() {
            // A panic was printed.
            let _ = (&mut life.reading).await;
        }
        if life.is_online.swap(false, Ordering::Relaxed) {
            self.stage.base.went_offline(self.number);
        }
        self.stage.present.lock().online.remove(&self.number);
        while let Some(settled) = self.waiting.join_next().await {
            self.left.extend(settled.ok().flatten());
        }
        self.life = None;
    }

    /// Waits again for messages that had no place in the log when the agent went away. Its coming is not done before
    /// that.
    async fn take_up(&mut self, agent: &Agent, open: &Arc<Open>) {
        let stage = Arc::clone(&self.stage);
        for append in std::mem::take(&mut self.left) {
            let mut waits = Vec::new();
            for part in &append.parts {
                waits.push(part.take_up(&stage, self.number, agent).await);
            }
            self.settle(append, waits, Arc::clone(open));
        }
    }

    /// Waits for an append's places in the log, aside.
    fn settle(&mut self, append: Append, waits: Vec<Wait>, open: Arc<Open>) {
        while let Some(settled) = self.waiting.try_join_next() {
            self.left.extend(settled.ok().flatten());
        }
        let settled = append.settle(Arc::clone(&self.stage), self.number, waits);
        self.waiting.spawn(async move {
            let left = settled.await;
            drop(open);
            left
        });
    }

    fn agent(&self) -> Result<Agent, AgentError> {
        self.life
            .as_ref()
            .map(|life| life.agent.clone())
            .ok_or(AgentError::Closed)
    }

    /// The channel, once this agent has joined it.
    async fn channel(&self, number: u32) -> Result<Channel, AgentError> {
        let agent = self.agent()?;
        let id: ChannelId = known(self.stage.rooms.get(number as usize)).await?;
        loop {
            match agent.channel(id).await {
                Err(error) if error.code() == Code::ChannelUnknown => tokio::time::sleep(LOOK_EVERY).await,
                found => return found,
            }
        }
    }

    async fn append(
        &mut self,
        planned: Duration,
        body_bytes: u32,
        frame: &Frame,
        open: Arc<Open>,
    ) -> Result<(), AgentError> {
        let base = Arc::clone(&self.stage.base);
        let place = open.place();
        match frame {
            Frame::Create { channel, .. } => {
                let agent = self.agent()?;
                base.was_sent(place, self.number, planned);
                // A workload does not say who its admins are: everybody may do everything.
                let policy = Policy::open(agent.id());
                let label = format!("load {}", channel.0);
                let made = agent.create_channel_with(&label, None, &policy).await?;
                // It is a member from the beginning: no event says so.
                let gauge = self.stage.gauge(self.number, made.id());
                gauge.stays.lock().joined(Offset::FIRST);
                self.stage.changed(self.number, made.id(), Offset::FIRST, true);
                if let Some(life) = &self.life {
                    // Its application has gone: it reads when it comes back.
                    let _ = life.made.send(made.id());
                }
                if let Some(room) = self.stage.rooms.get(channel.0 as usize) {
                    room.send_replace(Some(made.id()));
                }
                let append = Append {
                    place,
                    planned,
                    author: agent.id(),
                    message: None,
                    parts: vec![Part::Create],
                    is_counted: true,
                };
                self.settle(append, vec![created(agent)], open);
                Ok(())
            }
            Frame::Commit {
                channel, adds, removes, ..
            } => self.commit(planned, channel.0, adds, removes, open).await,
            Frame::Message(channel) => {
                let handle = self.channel(channel.0).await?;
                self.messages += 1;
                let head = Head {
                    planned,
                    agent: self.number,
                    number: self.messages,
                };
                let payload = head.payload(body_bytes, &base.bodies);
                let length = payload.len();
                let sent = loop {
                    match handle.send(payload.clone()).await {
                        Err(error) if error.code() == Code::OutboxFull => tokio::time::sleep(LOOK_EVERY).await,
                        sent => break sent?,
                    }
                };
                base.was_sent(place, self.number, planned);
                let append = Append {
                    place,
                    planned,
                    author: self.agent()?.id(),
                    message: Some(length),
                    parts: vec![Part::Message(sent.channel(), sent.frame_id())],
                    is_counted: true,
                };
                self.settle(append, vec![wait(sent)], open);
                Ok(())
            }
            // The SDK does these by itself, or does not have them.
            Frame::KeyPackage { .. } | Frame::Claim(_) | Frame::Trim { .. } => Ok(()),
            Frame::Proposal(_) | Frame::Rejoin(_) | Frame::Raw(_) => {
                base.impossible(place, self.number);
                Ok(())
            }
        }
    }

    async fn commit(
        &mut self,
        planned: Duration,
        channel: u32,
        adds: &[Number],
        removes: &[Number],
        open: Arc<Open>,
    ) -> Result<(), AgentError> {
        let place = open.place();
        let handle = self.channel(channel).await?;
        let (mut parts, mut waits) = (Vec::new(), Vec::new());
        let changed = self.change(place, &handle, adds, removes, &mut parts, &mut waits).await;
        if !parts.is_empty() {
            let append = Append {
                place,
                planned,
                author: self.agent()?.id(),
                message: None,
                parts,
                // Otherwise the whole commit is given up, although a part of it was sent.
                is_counted: changed.is_ok(),
            };
            self.settle(append, waits, open);
        }
        changed
    }

    /// Sends what a commit does. The SDK adds and removes one after the other.
    async fn change(
        &self,
        place: usize,
        handle: &Channel,
        adds: &[Number],
        removes: &[Number],
        parts: &mut Vec<Part>,
        waits: &mut Vec<Wait>,
    ) -> Result<(), AgentError> {
        let base = &self.stage.base;
        let planned = base.plan.events.get(place).map_or(Duration::ZERO, |event| event.at);
        let mut push = |sent: Sent, agents: &[Number], is_add| {
            let agents = agents.iter().map(|agent| agent.0).collect();
            parts.push(Part::Change(sent.channel(), sent.frame_id(), agents, is_add));
            waits.push(wait(sent));
        };
        if adds.is_empty() && removes.is_empty() {
            base.was_sent(place, self.number, planned);
            push(handle.rotate().await?, &[], false);
            return Ok(());
        }
        let mut is_sent = false;
        for (agents, is_add) in [(removes, false), (adds, true)] {
            if agents.is_empty() {
                continue;
            }
            let mut ids: Vec<AgentId> = Vec::new();
            for agent in agents {
                ids.push(known(self.stage.ids.get(agent.0 as usize)).await?);
            }
            if !std::mem::replace(&mut is_sent, true) {
                base.was_sent(place, self.number, planned);
            }
            let begun = tokio::time::Instant::now();
            let sent = loop {
                let done = if is_add {
                    handle.add(&ids).await
                } else {
                    handle.remove(&ids).await
                };
                match done {
                    Err(error)
                        if error.code() == Code::KeyPackagesExhausted && begun.elapsed() < KEY_PACKAGES_WITHIN =>
                    {
                        tokio::time::sleep(LOOK_EVERY * 5).await;
                    }
                    done => break done?,
                }
            };
            push(sent, agents, is_add);
        }
        Ok(())
    }
}

async fn known<V: Clone>(value: Option<&watch::Sender<Option<V>>>) -> Result<V, AgentError> {
    let mut value = value.ok_or(AgentError::Closed)?.subscribe();
    // The sender lives as long as the run.
    let known = value.wait_for(Option::is_some).await;
    known.ok().and_then(|known| known.clone()).ok_or(AgentError::Closed)
}
