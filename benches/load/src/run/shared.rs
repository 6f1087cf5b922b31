//! State shared by all tasks of a run.

use super::flight::Flight;
use super::needs::Needs;
use super::order::Order;
use super::room::Room;
use crate::frames::Bodies;
use crate::recorder::{Recorder, Tick};
use crate::results::{CatchUp, Measure};
use crate::target::{Appended, Failed, Target};
use parking_lot::Mutex;
use skytale_history::Monitor;
use skytale_proto::{Code, Offset};
use skytale_workload::What;
use skytale_workload::plan::Plan;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

/// State shared by all tasks of a run, at any level.
pub(super) struct Base {
    pub(super) plan: Arc<Plan>,
    pub(super) start: Instant,
    pub(super) started_ms: u64,
    pub(super) part: u32,
    pub(super) recorder: Recorder,
    pub(super) bodies: Bodies,
    pub(super) tallies: Tallies,
    pub(super) refusals: Mutex<BTreeMap<u32, u64>>,
    pub(super) catch_up: Mutex<Vec<CatchUp>>,
    pub(super) sequence: AtomicU64,
    /// The order of channels, where it is kept.
    pub(super) order: Option<Order>,
    pub(super) needs: Needs,
    /// State of each event.
    pub(super) states: Vec<AtomicU8>,
    /// Events that are dispatched and not yet done.
    pub(super) open: AtomicU64,
    /// All is done, or is to be left as it is: everybody goes home.
    pub(super) finish: CancellationToken,
}

/// State shared by all tasks of a run against a [`Target`].
pub(super) struct Shared<T> {
    base: Arc<Base>,
    pub(super) target: Arc<T>,
    pub(super) rooms: Vec<Room>,
    /// Whether each agent has offered a KeyPackage.
    pub(super) offers: Vec<watch::Sender<bool>>,
    pub(super) monitor: Monitor,
    pub(super) gauges: Mutex<Vec<Arc<Gauge>>>,
}

impl<T> Deref for Shared<T> {
    type Target = Base;

    fn deref(&self) -> &Base {
        &self.base
    }
}

/// Readers that came back and are listed, at most.
const CATCH_UPS_MAX: usize = 100_000;

/// Sums.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    pub(super) sent: AtomicU64,
    pub(super) acknowledged: AtomicU64,
    pub(super) acknowledged_bytes: AtomicU64,
    pub(super) messages: AtomicU64,
    pub(super) delivered: AtomicU64,
    pub(super) delivered_bytes: AtomicU64,
    pub(super) again: AtomicU64,
    pub(super) given_up: AtomicU64,
    pub(super) sessions: AtomicU64,
    pub(super) sessions_lost: AtomicU64,
    pub(super) online: AtomicU64,
    pub(super) commits_lost: AtomicU64,
    pub(super) messages_outrun: AtomicU64,
    pub(super) claims_without_package: AtomicU64,
    pub(super) impossible: AtomicU64,
    pub(super) appending_us: AtomicU64,
    pub(super) delivering_us: AtomicU64,
}

/// States of an event. It only grows, so that each step is counted once.
mod state {
    pub(super) const PLANNED: u8 = 0;
    pub(super) const OPEN: u8 = 1;
    pub(super) const SENT: u8 = 2;
    pub(super) const ENTRY: u8 = 3;
    pub(super) const GIVEN_UP: u8 = 4;
    pub(super) const IMPOSSIBLE: u8 = 5;
    pub(super) const DONE: u8 = 6;
}

/// Events that were due and not done.
#[derive(Clone, Debug, Default)]
pub(super) struct Unfinished {
    /// Events by the latency that they would have had, with their agents and planned times.
    pub(super) events: Vec<(Option<Measure>, u32, Duration)>,
}

pub(super) fn add(tally: &AtomicU64, count: u64) {
    tally.fetch_add(count, Ordering::Relaxed);
}

/// Progress of a reader.
#[derive(Debug)]
pub(super) struct Gauge {
    pub(super) channel: u32,
    pub(super) cursor: AtomicU64,
    /// It is to read all that comes: it has not left, nor was it removed.
    pub(super) reads: AtomicBool,
}

/// An event that is dispatched; when this goes, it is done.
pub(super) struct Open {
    base: Arc<Base>,
    place: usize,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Open {
    pub(super) fn new(base: &Arc<Base>, place: usize, permit: Option<OwnedSemaphorePermit>) -> Self {
        base.advance(place, state::OPEN);
        base.open.fetch_add(1, Ordering::Relaxed);
        Self {
            base: Arc::clone(base),
            place,
            _permit: permit,
        }
    }
}

impl Open {
    pub(super) const fn place(&self) -> usize {
        self.place
    }
}

const fn is_append(what: &What) -> bool {
    matches!(what, What::Append { .. })
}

impl Drop for Open {
    fn drop(&mut self) {
        if self
            .base
            .plan
            .events
            .get(self.place)
            .is_some_and(|event| !is_append(&event.what))
        {
            self.base.advance(self.place, state::DONE);
        }
        if let Some(order) = &self.base.order {
            order.done(self.place);
        }
        self.base.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Base {
    /// The instant of a planned time.
    pub(super) fn due(&self, planned: Duration) -> Instant {
        self.start + planned
    }

    /// Returns the lateness of an event with that planned time.
    pub(super) fn late(&self, planned: Duration) -> Duration {
        self.due(planned).elapsed()
    }

    pub(super) fn next_number(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn refused(&self, agent: u32, code: Code) {
        *self.refusals.lock().entry(code.number()).or_default() += 1;
        self.recorder.of(agent).count(Tick::Refused, 1);
    }

    /// Moves an event's state on. False where it was there, or further.
    fn advance(&self, place: usize, to: u8) -> bool {
        let before = self
            .states
            .get(place)
            .map(|state| state.fetch_max(to, Ordering::Relaxed));
        before.is_some_and(|before| before < to)
    }

    /// An append of these bytes became an entry.
    pub(super) fn is_entry(&self, place: usize, agent: u32, planned: Duration, body_bytes: usize, is_message: bool) {
        self.was_sent(place, agent, planned);
        if !self.advance(place, state::ENTRY) {
            return;
        }
        {
            let mut records = self.recorder.of(agent);
            records.latency(Measure::Append, self.late(planned));
            records.count(Tick::Acknowledged, 1);
        }
        add(&self.tallies.acknowledged, 1);
        add(&self.tallies.acknowledged_bytes, body_bytes as u64);
        if is_message {
            add(&self.tallies.messages, 1);
        }
        self.tallies.appending_us.fetch_max(self.now_us(), Ordering::Relaxed);
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// An append was given to the target. A frame that is sent again counts apart.
    pub(super) fn was_sent(&self, place: usize, agent: u32, planned: Duration) {
        if self.advance(place, state::SENT) {
            let mut records = self.recorder.of(agent);
            records.latency(Measure::SendDelay, self.late(planned));
            records.count(Tick::Sent, 1);
            add(&self.tallies.sent, 1);
        }
    }

    /// An append was given up.
    pub(super) fn was_given_up(&self, place: usize, agent: u32, planned: Duration) {
        self.was_sent(place, agent, planned);
        if self.advance(place, state::GIVEN_UP) {
            self.recorder.of(agent).count(Tick::GivenUp, 1);
            add(&self.tallies.given_up, 1);
        }
    }

    /// Entries were delivered to a reader.
    pub(super) fn delivered(&self, entries: u64, bytes: u64) {
        add(&self.tallies.delivered, entries);
        add(&self.tallies.delivered_bytes, bytes);
        self.tallies.delivering_us.fetch_max(self.now_us(), Ordering::Relaxed);
    }

    /// Returns the events that are due and not done.
    pub(super) fn unfinished(&self) -> Unfinished {
        let now = self.start.elapsed();
        let mut unfinished = Unfinished::default();
        for (event, reached) in self.plan.events.iter().zip(&self.states) {
            let reached = reached.load(Ordering::Relaxed);
            if !matches!(reached, state::OPEN | state::SENT) || event.at > now {
                continue;
            }
            let measure = match &event.what {
                What::Append { .. } => Some(Measure::Append),
                What::Connect(_) => Some(Measure::Connected),
                What::Token(_) => Some(Measure::Token),
                What::Subscribe { .. } => Some(Measure::CaughtUp),
                What::Disconnect(_) | What::Refused { .. } => None,
            };
            unfinished
                .events
                .push((measure, super::schedule::actor(event), event.at));
        }
        unfinished
    }

    /// Records the events that were not done as late as they are now, at least: a latency of finished events alone
    /// would leave out the worst.
    pub(super) fn record(&self, unfinished: &Unfinished) {
        for (measure, agent, planned) in &unfinished.events {
            if let Some(measure) = measure {
                self.recorder.of(*agent).latency(*measure, self.late(*planned));
            }
        }
    }

    pub(super) fn came_online(&self, agent: u32) {
        self.recorder.of(agent).count(Tick::CameOnline, 1);
        add(&self.tallies.sessions, 1);
        add(&self.tallies.online, 1);
    }

    pub(super) fn went_offline(&self, agent: u32) {
        self.recorder.of(agent).count(Tick::WentOffline, 1);
        self.tallies.online.fetch_sub(1, Ordering::Relaxed);
    }

    /// A reader has read the entries that it had missed.
    pub(super) fn caught_up(&self, agent: u32, planned: Duration, missed: u64) {
        let took = self.late(planned);
        self.recorder.of(agent).latency(Measure::CaughtUp, took);
        if missed > 1 {
            let mut all = self.catch_up.lock();
            if all.len() < CATCH_UPS_MAX {
                all.push(CatchUp {
                    at_ms: u64::try_from(planned.as_millis()).unwrap_or(u64::MAX),
                    missed,
                    took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                });
            }
        }
    }

    /// Leaves out an event that will never come about.
    pub(super) fn impossible(&self, place: usize, agent: u32) {
        if self.advance(place, state::IMPOSSIBLE) {
            add(&self.tallies.impossible, 1);
            if self.plan.events.get(place).is_some_and(|event| is_append(&event.what)) {
                self.recorder.of(agent).count(Tick::GivenUp, 1);
            }
        }
    }

    /// A state for each event.
    pub(super) fn states(plan: &Plan) -> Vec<AtomicU8> {
        (0..plan.events.len()).map(|_| AtomicU8::new(state::PLANNED)).collect()
    }
}

impl<T: Target> Shared<T> {
    pub(super) fn new(base: Arc<Base>, target: Arc<T>) -> Self {
        let (agents, channels) = (base.plan.agents, base.plan.channels);
        Self {
            base,
            target,
            rooms: (0..channels).map(|_| Room::default()).collect(),
            offers: (0..agents).map(|_| watch::Sender::new(false)).collect(),
            monitor: Monitor::new(),
            gauges: Mutex::default(),
        }
    }

    pub(super) fn room(&self, channel: u32) -> Option<&Room> {
        self.rooms.get(channel as usize)
    }

    /// An append became an entry.
    pub(super) fn acknowledged(&self, flight: Flight, appended: Appended) {
        let body_bytes = flight.frame.body().len();
        self.is_entry(
            flight.place(),
            flight.agent,
            flight.planned,
            body_bytes,
            flight.is_message(),
        );
        flight.acknowledged(self, appended.offset);
    }

    /// An append will never be an entry.
    pub(super) fn given_up(&self, flight: Flight, failed: &Failed) {
        self.refused(flight.agent, failed.code);
        self.was_given_up(flight.place(), flight.agent, flight.planned);
        tracing::debug!(agent = flight.agent, kind = flight.frame.header().kind().name(), %failed, "given up");
        flight.refused(self);
    }

    pub(super) fn head(&self, channel: u32) -> Offset {
        self.room(channel).map_or(Offset::ZERO, Room::head)
    }
}
