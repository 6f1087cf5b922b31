//! An agent of a run: does what the plan has for it, in order, as far as the target lets it.

mod acts;

use super::flight::{Flight, Verdict};
use super::link::{Link, Pause, connect};
use super::reader::Reader;
use super::room::{Change, Never};
use super::shared::{Gauge, Open, Shared, add};
use crate::results::Measure;
use crate::target::{Failed, Session as _, Target};
use skytale_proto::{LogId, Offset};
use skytale_workload::{Agent, Channel, Frame, Log, What};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A session that was lost after this time did last.
const LASTS: Duration = Duration::from_secs(1);

/// Maximum time for the reader of a membership that is over to end.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Job of an agent.
pub(super) enum Job {
    /// An event of the plan, by its place.
    Event(usize, Arc<Open>),
}

/// A subscription of an agent.
enum Sub {
    Runs {
        task: JoinHandle<Reader>,
        leave: CancellationToken,
    },
    Rests(Reader),
}

/// An agent of a run.
pub(super) struct Lane<T: Target> {
    shared: Arc<Shared<T>>,
    agent: u32,
    jobs: mpsc::UnboundedReceiver<Job>,
    link: Option<Link<T>>,
    subs: BTreeMap<LogId, Sub>,
    /// The first entry of the membership that it reads in.
    membership: BTreeMap<LogId, Offset>,
    /// The plan has it online.
    is_online: bool,
    /// Before its next session, where the one before did not last.
    pause: Pause,
}

impl<T: Target> Lane<T> {
    pub(super) fn new(shared: Arc<Shared<T>>, agent: u32) -> (Self, mpsc::UnboundedSender<Job>) {
        let (sender, jobs) = mpsc::unbounded_channel();
        let lane = Self {
            shared,
            agent,
            jobs,
            link: None,
            subs: BTreeMap::new(),
            membership: BTreeMap::new(),
            is_online: false,
            pause: Pause::default(),
        };
        (lane, sender)
    }

    /// Runs until the run is over.
    pub(super) async fn run(mut self) {
        let finish = self.shared.finish.clone();
        tokio::select! {
            biased;
            () = finish.cancelled() => {}
            () = self.act() => {}
        }
        for (_, sub) in std::mem::take(&mut self.subs) {
            if let Some(mut reader) = rest(sub).await
                && self.is_online
                && !reader.is_over
            {
                reader.finish();
            }
        }
        if let Some(link) = self.link.take() {
            self.shared.went_offline(self.agent);
            link.session.close().await;
        }
    }

    async fn act(&mut self) {
        loop {
            let job = match &self.link {
                Some(link) => tokio::select! {
                    biased;
                    failed = link.lost() => {
                        self.recover(&failed).await;
                        continue;
                    }
                    job = self.jobs.recv() => job,
                },
                None => self.jobs.recv().await,
            };
            match job {
                Some(Job::Event(place, open)) => self.event(place, open).await,
                // There is nothing more to do, but to read.
                None => match &self.link {
                    Some(link) => {
                        let failed = link.lost().await;
                        self.recover(&failed).await;
                    }
                    None => return,
                },
            }
        }
    }

    async fn event(&mut self, place: usize, open: Arc<Open>) {
        let shared = Arc::clone(&self.shared);
        let Some(event) = shared.plan.events.get(place) else {
            return;
        };
        let planned = event.at;
        if let Some(order) = &shared.order {
            self.meanwhile(order.turn(place)).await;
        }
        let done = match &event.what {
            What::Append {
                author: _,
                body_bytes,
                frame,
            } => self.append(planned, *body_bytes, frame, Arc::clone(&open)).await,
            What::Connect(_) => {
                self.is_online = true;
                self.come_online().await;
                shared
                    .recorder
                    .of(self.agent)
                    .latency(Measure::Connected, shared.late(planned));
                Ok(())
            }
            What::Disconnect(_) => {
                self.go_offline().await;
                Ok(())
            }
            What::Subscribe { log, follow, .. } => self.subscribe(place, planned, *log, *follow).await,
            What::Token(_) => {
                self.token(planned).await;
                Ok(())
            }
            What::Refused { .. } => Ok(()),
        };
        if done == Err(Never) {
            shared.impossible(place, self.agent);
            if let What::Append { frame, .. } = &event.what {
                self.never(frame);
            }
        }
    }

    /// Marks the effects of this frame, for which others wait, as impossible.
    fn never(&self, frame: &Frame) {
        let Some(room) = frame.channel().and_then(|channel| self.shared.room(channel.0)) else {
            return;
        };
        match frame {
            Frame::Create { .. } => room.broken(),
            Frame::Commit { adds, removes, .. } => room.not_committed(&Change {
                adds: numbers(adds),
                removes: numbers(removes),
            }),
            _ => {}
        }
    }

    async fn token(&self, planned: Duration) {
        let shared = &self.shared;
        let mut pause = Pause::default();
        loop {
            match shared.target.token(self.agent).await {
                Ok(()) => break,
                Err(failed) => {
                    if failed.is_refusal {
                        shared.refused(self.agent, failed.code);
                    }
                    tracing::debug!(agent = self.agent, %failed, "no token");
                    pause.wait(failed.retry_after).await;
                }
            }
        }
        shared
            .recorder
            .of(self.agent)
            .latency(Measure::Token, shared.late(planned));
    }

    async fn come_online(&mut self) {
        if self.link.is_none() {
            self.link = Some(connect(&self.shared, self.agent).await);
            self.shared.came_online(self.agent);
        }
    }

    /// Its session is over: another one, on which everything goes on.
    async fn recover(&mut self, failed: &Failed) {
        let Some(link) = self.link.take() else { return };
        add(&self.shared.tallies.sessions_lost, 1);
        tracing::debug!(agent = self.agent, %failed, "session lost");
        if failed.is_refusal {
            self.shared.refused(self.agent, failed.code);
        }
        let began = link.began;
        let flights = self.unlink(link).await;
        self.wait(began, failed.retry_after).await;
        self.come_online().await;
        let mut rest: std::collections::VecDeque<Flight> = flights.into();
        while let Some(flight) = rest.pop_front() {
            if let Some(link) = &self.link
                && let Err(flight) = link.send(&self.shared, flight).await
            {
                rest.push_front(flight);
                let Some(link) = self.link.take() else { continue };
                add(&self.shared.tallies.sessions_lost, 1);
                let began = link.began;
                // Frames that were sent again come before those that were not.
                let mut sent: std::collections::VecDeque<Flight> = self.unlink(link).await.into();
                sent.append(&mut rest);
                rest = sent;
                self.wait(began, None).await;
                self.come_online().await;
            }
        }
        self.go_on().await;
    }

    /// Waits for something of others. A session that is lost meanwhile is replaced: others may wait for frames that
    /// were in flight on it.
    async fn meanwhile<R>(&mut self, wait: impl Future<Output = R>) -> R {
        let mut wait = std::pin::pin!(wait);
        while let Some(link) = &self.link {
            tokio::select! {
                biased;
                done = &mut wait => return done,
                failed = link.lost() => Box::pin(self.recover(&failed)).await,
            }
        }
        wait.await
    }

    /// After a session that began then: longer each time that one did not last.
    async fn wait(&mut self, began: Instant, after: Option<Duration>) {
        if began.elapsed() > LASTS {
            self.pause = Pause::default();
            tokio::time::sleep(after.unwrap_or_default()).await;
        } else {
            self.pause.wait(after).await;
        }
    }

    /// Returns the frames that were in flight on a session that is over, in order.
    async fn unlink(&mut self, link: Link<T>) -> Vec<Flight> {
        let mut resting = BTreeMap::new();
        for (log, sub) in std::mem::take(&mut self.subs) {
            if let Some(reader) = rest(sub).await {
                resting.insert(log, Sub::Rests(reader));
            }
        }
        self.subs = resting;
        self.shared.went_offline(self.agent);
        link.end().await
    }

    /// Its readers go on where they were.
    async fn go_on(&mut self) {
        let Some(link) = &self.link else { return };
        let mut subs = BTreeMap::new();
        for (log, sub) in std::mem::take(&mut self.subs) {
            let sub = match sub {
                Sub::Rests(reader) if reader.is_to_read() => runs(&self.shared, reader, &link.session),
                sub => sub,
            };
            subs.insert(log, sub);
        }
        self.subs = subs;
    }

    async fn go_offline(&mut self) {
        self.is_online = false;
        while let Some(link) = &self.link {
            // Its messages have arrived before it goes.
            tokio::select! {
                biased;
                failed = link.lost() => self.recover(&failed).await,
                () = link.settled() => break,
            }
        }
        if let Some(link) = self.link.take() {
            let left = self.unlink(link).await;
            debug_assert!(left.is_empty(), "all was settled");
        }
        for sub in self.subs.values() {
            if let Sub::Rests(reader) = sub {
                reader.goes_away();
            }
        }
    }

    async fn send(&mut self, mut flight: Flight) {
        loop {
            let Some(link) = &self.link else {
                self.come_online().await;
                self.go_on().await;
                continue;
            };
            match link.send(&self.shared, flight).await {
                Ok(()) => return,
                Err(back) => {
                    flight = back;
                    let failed = link.lost().await;
                    self.recover(&failed).await;
                }
            }
        }
    }

    /// Sends, and waits for the verdict.
    async fn send_and_wait(&mut self, mut flight: Flight) -> Verdict {
        let (sender, mut verdict) = oneshot::channel();
        flight.verdict = Some(sender);
        self.send(flight).await;
        loop {
            let Some(link) = &self.link else {
                return verdict.await.unwrap_or(Verdict::Never);
            };
            tokio::select! {
                biased;
                verdict = &mut verdict => return verdict.unwrap_or(Verdict::Never),
                failed = link.lost() => self.recover(&failed).await,
            }
        }
    }

    async fn subscribe(&mut self, place: usize, planned: Duration, log: Log, follow: bool) -> Result<(), Never> {
        let shared = Arc::clone(&self.shared);
        let (id, agent) = (shared.target.agent_id(self.agent), self.agent);
        let (log, made) = match log {
            Log::Agent(_) => (id.log(), None),
            Log::Channel(Channel(number)) => {
                let room = shared.room(number).ok_or(Never)?;
                let ready = room.for_reader(agent, shared.needs.joins(place));
                let (made, from) = self.meanwhile(ready).await?;
                (made.id.log(), Some((number, made, from)))
            }
        };
        let from = made.as_ref().map_or(Offset::FIRST, |(.., from)| *from);
        let known = match self.subs.remove(&log) {
            Some(Sub::Runs { task, leave }) if !task.is_finished() => {
                if self.membership.get(&log) == Some(&from) {
                    self.subs.insert(log, Sub::Runs { task, leave });
                    return Ok(());
                }
                // Of an earlier membership: it ends where that ended, and the target says so.
                let ended = tokio::time::timeout(ENDS_WITHIN, task).await;
                ended.ok().and_then(Result::ok)
            }
            Some(sub) => rest(sub).await,
            None => None,
        };
        let reader = match known.filter(|reader| !reader.is_over && reader.from == from) {
            Some(reader) => reader,
            None => {
                let mut reader = Reader::new(agent, id, log, from);
                if let Some((channel, made, _)) = made {
                    let gauge = Arc::new(Gauge {
                        channel,
                        cursor: AtomicU64::new(0),
                        reads: AtomicBool::new(true),
                    });
                    shared.gauges.lock().push(Arc::clone(&gauge));
                    reader.watch = Some(made.watched.reader(id, from));
                    reader.watched = Some(made.watched);
                    reader.gauge = Some(gauge);
                }
                reader
            }
        };
        self.membership.insert(log, from);
        if self.link.is_none() {
            self.come_online().await;
        }
        let mut reader = reader;
        reader.begins(planned, follow);
        let sub = match &self.link {
            Some(link) => runs(&shared, reader, &link.session),
            None => Sub::Rests(reader),
        };
        self.subs.insert(log, sub);
        Ok(())
    }
}

fn numbers(agents: &[Agent]) -> Vec<u32> {
    agents.iter().map(|agent| agent.0).collect()
}

fn runs<T: Target>(shared: &Arc<Shared<T>>, reader: Reader, session: &T::Session) -> Sub {
    let leave = CancellationToken::new();
    let task = tokio::spawn(reader.run(Arc::clone(shared), session.clone(), leave.clone()));
    Sub::Runs { task, leave }
}

/// Stops a reader. `None` where its task has panicked, which the runtime says.
async fn rest(sub: Sub) -> Option<Reader> {
    match sub {
        Sub::Runs { task, leave } => {
            leave.cancel();
            task.await.ok()
        }
        Sub::Rests(reader) => Some(reader),
    }
}
