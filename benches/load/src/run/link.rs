//! An agent's session, with the frames in flight on it.

use super::flight::{Flight, Meaning, Verdict};
use super::shared::{Shared, add};
use crate::target::{Failed, Session, Target};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Pauses between two tries to connect: doubled from the first to the last, with a part of it drawn.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Maximum number of times that a message is built again because a commit came first.
const TRIES_MAX: u32 = 50;

type Pending<T> = <<T as Target>::Session as Session>::Pending;

/// An agent's session.
pub(super) struct Link<T: Target> {
    pub(super) began: Instant,
    pub(super) session: T::Session,
    flights: mpsc::UnboundedSender<(Flight, Pending<T>)>,
    unsettled: Arc<Unsettled>,
    /// A verdict says that the session is to be left.
    broken: CancellationToken,
    reason: Arc<Mutex<Option<Failed>>>,
    verdicts: JoinHandle<Vec<Flight>>,
    /// Frames that came too late to be put among those in flight.
    late: Mutex<Vec<Flight>>,
    /// Frames that were built again, and were in flight when the session ended.
    orphans: Arc<Mutex<Vec<Flight>>>,
    /// Held from when a frame is noted as sent until the target has it: its author's frames must come in that order.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// Counts the frames in flight.
#[derive(Debug, Default)]
struct Unsettled {
    count: AtomicU64,
    none: Notify,
}

impl Unsettled {
    fn add(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn sub(&self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.none.notify_waiters();
        }
    }

    /// Resolves when there is nothing.
    async fn none(&self) {
        loop {
            let mut notified = std::pin::pin!(self.none.notified());
            // From here on it hears of the last one.
            notified.as_mut().enable();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// A pause between tries.
#[derive(Debug, Default)]
pub(super) struct Pause(u32);

impl Pause {
    pub(super) async fn wait(&mut self, after: Option<Duration>) {
        let longest = (PAUSE_MIN * 2u32.saturating_pow(self.0)).min(PAUSE_MAX);
        self.0 = (self.0 + 1).min(10);
        let mut drawn = [0];
        // Without a drawn part all would come back at once.
        let _ = getrandom::fill(&mut drawn);
        let pause = longest.mul_f64(0.5 + f64::from(drawn[0]) / 512.0);
        tokio::time::sleep(after.unwrap_or_default().max(pause)).await;
    }
}

/// Connects, however long it takes.
pub(super) async fn connect<T: Target>(shared: &Arc<Shared<T>>, agent: u32) -> Link<T> {
    let mut pause = Pause::default();
    let session = loop {
        match shared.target.connect(agent).await {
            Ok(session) => break session,
            Err(failed) => {
                if failed.is_refusal {
                    shared.refused(agent, failed.code);
                }
                tracing::debug!(agent, %failed, "no session");
                pause.wait(failed.retry_after).await;
            }
        }
    };
    let (flights, receiver) = mpsc::unbounded_channel();
    let (broken, reason) = (CancellationToken::new(), Arc::default());
    let unsettled = Arc::new(Unsettled::default());
    let (turn, orphans) = (Arc::default(), Arc::default());
    let verdicts = Verdicts {
        shared: Arc::clone(shared),
        session: session.clone(),
        flights: receiver,
        unsettled: Arc::clone(&unsettled),
        broken: broken.clone(),
        reason: Arc::clone(&reason),
        orphans: Arc::clone(&orphans),
        turn: Arc::clone(&turn),
    };
    Link {
        began: Instant::now(),
        session,
        flights,
        unsettled,
        broken,
        reason,
        verdicts: tokio::spawn(verdicts.run()),
        late: Mutex::default(),
        orphans,
        turn,
    }
}

impl<T: Target> Link<T> {
    /// Resolves when the session is over, or must be left.
    pub(super) async fn lost(&self) -> Failed {
        tokio::select! {
            biased;
            () = self.broken.cancelled() => self.reason.lock().clone().unwrap_or_else(|| Failed::lost("the session is over")),
            failed = self.session.ended() => failed,
        }
    }

    /// Resolves when nothing is in flight.
    pub(super) async fn settled(&self) {
        self.unsettled.none().await;
    }

    /// Gives an append to the target. Gives it back where the session is over.
    pub(super) async fn send(&self, shared: &Shared<T>, mut flight: Flight) -> Result<(), Flight> {
        let turn = self.turn.lock().await;
        let is_first = !std::mem::replace(&mut flight.was_sent, true);
        if is_first {
            flight.goes_out(shared.next_number());
        } else {
            add(&shared.tallies.again, 1);
        }
        let pending = match self.session.append(&flight.frame).await {
            Ok(pending) => pending,
            Err(failed) if failed.is_for_later() => return Err(flight),
            Err(failed) => {
                shared.given_up(flight, &failed);
                return Ok(());
            }
        };
        drop(turn);
        shared.was_sent(flight.place(), flight.agent, flight.planned);
        self.unsettled.add();
        if let Err(mpsc::error::SendError((flight, _))) = self.flights.send((flight, pending)) {
            self.unsettled.sub();
            // It may be in the log, and comes after those that are given back.
            self.late.lock().push(flight);
        }
        Ok(())
    }

    /// Ends it, and returns the frames that were in flight, in order.
    pub(super) async fn end(self) -> Vec<Flight> {
        self.session.close().await;
        drop(self.flights);
        let mut left = self.verdicts.await.unwrap_or_default();
        // Frames that are being built again end with the session, too.
        self.unsettled.none().await;
        left.append(&mut self.late.lock());
        left.append(&mut self.orphans.lock());
        left.sort_by_key(|flight| flight.stamp);
        left
    }
}

/// Takes the verdicts of one session.
struct Verdicts<T: Target> {
    shared: Arc<Shared<T>>,
    session: T::Session,
    flights: mpsc::UnboundedReceiver<(Flight, Pending<T>)>,
    unsettled: Arc<Unsettled>,
    broken: CancellationToken,
    reason: Arc<Mutex<Option<Failed>>>,
    orphans: Arc<Mutex<Vec<Flight>>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl<T: Target> Verdicts<T> {
    /// Runs until the session is over. Returns the frames without a verdict, in order.
    async fn run(mut self) -> Vec<Flight> {
        let mut left = Vec::new();
        while let Some((flight, pending)) = self.flights.recv().await {
            match pending.await {
                Ok(appended) => {
                    self.shared.acknowledged(flight, appended);
                }
                Err(failed) if failed.is_for_later() => {
                    if failed.is_refusal {
                        self.shared.refused(flight.agent, failed.code);
                    }
                    left.push(flight);
                    self.flights.close();
                    self.reason.lock().get_or_insert(failed);
                    self.broken.cancel();
                }
                Err(failed) if failed.is_stale() => self.stale(flight, &failed),
                Err(failed) => self.shared.given_up(flight, &failed),
            }
            self.unsettled.sub();
        }
        left
    }

    /// The channel's handshake head has moved: the same again, on the new one.
    fn stale(&self, mut flight: Flight, failed: &Failed) {
        let shared = Arc::clone(&self.shared);
        shared.refused(flight.agent, failed.code);
        let Some(room) = flight.channel.and_then(|channel| shared.room(channel)) else {
            return;
        };
        room.moved(failed.offset);
        if matches!(flight.meaning, Meaning::Commit(_)) {
            // Its agent waits, and builds another one.
            let refused = flight.frame.header().id;
            if let Some(watched) = &flight.watched {
                watched.refused(refused);
            }
            if let Some(verdict) = flight.verdict.take() {
                let _ = verdict.send(Verdict::Stale(failed.offset));
            }
            return;
        }
        add(&shared.tallies.messages_outrun, 1);
        let retry = Retry {
            shared,
            session: self.session.clone(),
            orphans: Arc::clone(&self.orphans),
            turn: Arc::clone(&self.turn),
            broken: self.broken.clone(),
            reason: Arc::clone(&self.reason),
        };
        self.unsettled.add();
        let unsettled = Arc::clone(&self.unsettled);
        tokio::spawn(async move {
            retry.run(flight).await;
            unsettled.sub();
        });
    }
}

/// Builds a message again, on the handshake head that has moved.
struct Retry<T: Target> {
    shared: Arc<Shared<T>>,
    session: T::Session,
    orphans: Arc<Mutex<Vec<Flight>>>,
    turn: Arc<tokio::sync::Mutex<()>>,
    broken: CancellationToken,
    reason: Arc<Mutex<Option<Failed>>>,
}

impl<T: Target> Retry<T> {
    async fn run(self, mut flight: Flight) {
        let shared = &self.shared;
        for _ in 0..TRIES_MAX {
            let head = flight
                .channel
                .map_or(skytale_proto::Offset::ZERO, |channel| shared.head(channel));
            if let Err(error) = flight.rebuilt(shared, head) {
                tracing::warn!(%error, "a frame cannot be built again");
                return shared.impossible(flight.place(), flight.agent);
            }
            flight.was_sent = true;
            add(&shared.tallies.again, 1);
            let given = {
                let _turn = self.turn.lock().await;
                flight.goes_out(shared.next_number());
                self.session.append(&flight.frame).await
            };
            let outcome = match given {
                Ok(pending) => pending.await,
                Err(failed) => Err(failed),
            };
            match outcome {
                Ok(appended) => return shared.acknowledged(flight, appended),
                Err(failed) if failed.is_stale() => {
                    shared.refused(flight.agent, failed.code);
                    add(&shared.tallies.messages_outrun, 1);
                    if let Some(room) = flight.channel.and_then(|channel| shared.room(channel)) {
                        room.moved(failed.offset);
                    }
                }
                Err(failed) if failed.is_for_later() => {
                    // Its agent sends it again on its next session, in its place.
                    self.orphans.lock().push(flight);
                    self.reason.lock().get_or_insert(failed);
                    self.broken.cancel();
                    return;
                }
                Err(failed) => return shared.given_up(flight, &failed),
            }
        }
        let failed = Failed {
            is_refusal: true,
            code: skytale_proto::Code::StaleEpoch,
            ..Failed::lost("the handshake head moved each time")
        };
        shared.given_up(flight, &failed);
    }
}
