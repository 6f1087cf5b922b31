//! An agent of a run, as its application drives it.

use super::Stage;
use super::judge::open;
use super::payload::Head;
use super::reading::Reading;
use crate::results::Measure;
use crate::run::shared::Open;
use skytale_proto::{AgentId, ChannelId, Code};
use skytale_sdk::agent::{Agent, AgentError};
use skytale_sdk::channel::{Channel, Sent};
use skytale_workload::{Agent as Number, Frame, What};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long what was sent may take to go out when an agent goes away.
const CLOSE_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks whether an agent was added to a channel, or another one has KeyPackages.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long an agent without KeyPackages is waited for.
const KEY_PACKAGES_WITHIN: Duration = Duration::from_secs(30);

/// What an agent is given to do: an event of the plan, by its place.
pub(super) struct Job {
    pub(super) place: usize,
    pub(super) open: Arc<Open>,
}

/// What was sent.
enum Said {
    /// A message of so many bytes.
    Message(usize),
    /// A change that adds these agents, or removes them.
    Change(Vec<u32>, bool),
}

/// An agent of a run.
pub(super) struct Actor {
    stage: Arc<Stage>,
    number: u32,
    jobs: mpsc::UnboundedReceiver<Job>,
    life: Option<Life>,
    messages: u64,
}

/// An agent that is open.
struct Life {
    agent: Agent,
    leave: CancellationToken,
    reading: JoinHandle<()>,
    made: mpsc::UnboundedSender<ChannelId>,
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
        let reading = Reading {
            stage: Arc::clone(&stage),
            agent: self.number,
            since: planned,
            leave: leave.clone(),
            made: channels,
            missed: Arc::clone(&missed),
        };
        let reading = tokio::spawn(reading.run(agent.clone()));
        agent.connect().await?;
        self.life = Some(Life {
            agent: agent.clone(),
            leave,
            reading,
            made,
        });
        agent.connected().await?;
        stage.base.came_online(self.number);
        stage.present.lock().online.insert(self.number);
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
        if let Some(life) = self.life.take() {
            life.leave.cancel();
            // A panic was printed.
            let _ = life.reading.await;
            life.agent.close(CLOSE_WITHIN).await;
            self.stage.base.went_offline(self.number);
            self.stage.present.lock().online.remove(&self.number);
        }
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
        match frame {
            Frame::Create { channel, .. } => {
                let agent = self.agent()?;
                base.was_sent(open.place(), self.number, planned);
                let made = agent.create_channel(&format!("load {}", channel.0)).await?;
                if let Some(life) = &self.life {
                    // Its application has gone: it reads when it comes back.
                    let _ = life.made.send(made.id());
                }
                if let Some(room) = self.stage.rooms.get(channel.0 as usize) {
                    room.send_replace(Some(made.id()));
                }
                let number = self.number;
                tokio::spawn(async move {
                    if agent.flushed().await.is_ok() {
                        base.is_entry(open.place(), number, planned, 0, false);
                    }
                    drop(open);
                });
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
                base.was_sent(open.place(), self.number, planned);
                self.watch(planned, sent, Said::Message(length), open);
                Ok(())
            }
            // The SDK does these by itself, or does not have them.
            Frame::KeyPackage { .. } | Frame::Claim(_) | Frame::Trim { .. } => Ok(()),
            Frame::Proposal(_) | Frame::Rejoin(_) | Frame::Raw(_) => {
                base.impossible(open.place(), self.number);
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
        let base = Arc::clone(&self.stage.base);
        let handle = self.channel(channel).await?;
        if adds.is_empty() && removes.is_empty() {
            base.was_sent(open.place(), self.number, planned);
            let sent = handle.rotate().await?;
            self.watch(planned, sent, Said::Change(Vec::new(), false), open);
            return Ok(());
        }
        for (agents, is_add) in [(removes, false), (adds, true)] {
            if agents.is_empty() {
                continue;
            }
            let mut ids: Vec<AgentId> = Vec::new();
            for agent in agents {
                ids.push(known(self.stage.ids.get(agent.0 as usize)).await?);
            }
            base.was_sent(open.place(), self.number, planned);
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
            let agents = agents.iter().map(|agent| agent.0).collect();
            self.watch(planned, sent, Said::Change(agents, is_add), Arc::clone(&open));
        }
        Ok(())
    }

    /// Waits for an append's place in the log, aside.
    fn watch(&self, planned: Duration, sent: Sent, said: Said, open: Arc<Open>) {
        let (stage, number) = (Arc::clone(&self.stage), self.number);
        let (channel, frame) = (sent.channel(), sent.frame_id());
        let author = self.life.as_ref().map(|life| life.agent.id());
        let place = open.place();
        tokio::spawn(async move {
            match sent.delivered().await {
                Ok(delivered) => {
                    let (body_bytes, is_message) = match &said {
                        Said::Message(bytes) => (*bytes, true),
                        Said::Change(..) => (0, false),
                    };
                    stage.base.is_entry(place, number, planned, body_bytes, is_message);
                    match (said, delivered.offset(), author) {
                        (Said::Message(_), Some(offset), Some(author)) => {
                            stage.judge.acknowledged(channel, author, frame, offset);
                            stage.is_entry(number, channel, offset.get());
                        }
                        (Said::Change(agents, is_add), ..) => {
                            let mut present = stage.present.lock();
                            for agent in agents {
                                if is_add {
                                    present.added.insert((agent, channel));
                                } else {
                                    present.added.remove(&(agent, channel));
                                }
                            }
                        }
                        _ => {}
                    }
                }
                // It goes out when the agent comes back.
                Err(AgentError::Closed) => {}
                Err(error) => {
                    stage.base.refused(number, error.code());
                    stage.base.was_given_up(place, number, planned);
                }
            }
            drop(open);
        });
    }
}

async fn known<V: Clone>(value: Option<&watch::Sender<Option<V>>>) -> Result<V, AgentError> {
    let mut value = value.ok_or(AgentError::Closed)?.subscribe();
    // The sender lives as long as the run.
    let known = value.wait_for(Option::is_some).await;
    known.ok().and_then(|known| known.clone()).ok_or(AgentError::Closed)
}
