//! What all tasks of a run have in common.

use super::flight::Flight;
use super::room::Room;
use crate::frames::Bodies;
use crate::recorder::{Recorder, Tick};
use crate::results::{CatchUp, Measure};
use crate::target::{Appended, Failed, Target};
use parking_lot::Mutex;
use skytale_history::Monitor;
use skytale_proto::{Code, Offset};
use skytale_workload::plan::Plan;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

/// What all tasks of a run have in common.
pub(super) struct Shared<T> {
    pub(super) target: Arc<T>,
    pub(super) plan: Arc<Plan>,
    pub(super) start: Instant,
    pub(super) part: u32,
    pub(super) rooms: Vec<Room>,
    /// Of each agent: whether it has offered a KeyPackage.
    pub(super) offers: Vec<watch::Sender<bool>>,
    pub(super) recorder: Recorder,
    pub(super) bodies: Bodies,
    pub(super) monitor: Monitor,
    pub(super) tallies: Tallies,
    pub(super) refusals: Mutex<BTreeMap<u32, u64>>,
    pub(super) catch_up: Mutex<Vec<CatchUp>>,
    pub(super) gauges: Mutex<Vec<Arc<Gauge>>>,
    pub(super) sequence: AtomicU64,
    /// Events that are dispatched and not yet done.
    pub(super) open: watch::Sender<u64>,
    /// All is done, or is to be left as it is: everybody goes home.
    pub(super) finish: CancellationToken,
}

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
}

pub(super) fn add(tally: &AtomicU64, count: u64) {
    tally.fetch_add(count, Ordering::Relaxed);
}

/// How far a reader is.
#[derive(Debug)]
pub(super) struct Gauge {
    pub(super) channel: u32,
    pub(super) cursor: AtomicU64,
    pub(super) reads: AtomicBool,
}

/// An event that is dispatched; when this goes, it is done.
#[derive(Debug)]
pub(super) struct Open {
    count: watch::Sender<u64>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Open {
    pub(super) fn new(count: &watch::Sender<u64>, permit: Option<OwnedSemaphorePermit>) -> Self {
        count.send_modify(|count| *count += 1);
        Self {
            count: count.clone(),
            _permit: permit,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.send_modify(|count| *count -= 1);
    }
}

impl<T: Target> Shared<T> {
    /// The instant of a planned time.
    pub(super) fn due(&self, planned: Duration) -> Instant {
        self.start + planned
    }

    /// How late it is for what was planned then.
    pub(super) fn late(&self, planned: Duration) -> Duration {
        self.due(planned).elapsed()
    }

    pub(super) fn room(&self, channel: u32) -> Option<&Room> {
        self.rooms.get(channel as usize)
    }

    pub(super) fn next_number(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn refused(&self, agent: u32, code: Code) {
        *self.refusals.lock().entry(code.number()).or_default() += 1;
        self.recorder.of(agent).count(Tick::Refused, 1);
    }

    /// An append became an entry.
    pub(super) fn acknowledged(&self, flight: Flight, appended: Appended) {
        {
            let mut records = self.recorder.of(flight.agent);
            records.latency(Measure::Append, self.late(flight.planned));
            records.count(Tick::Acknowledged, 1);
        }
        add(&self.tallies.acknowledged, 1);
        add(&self.tallies.acknowledged_bytes, flight.frame.body().len() as u64);
        if flight.is_message() {
            add(&self.tallies.messages, 1);
        }
        let now_us = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.tallies.appending_us.fetch_max(now_us, Ordering::Relaxed);
        flight.acknowledged(self, appended.offset);
    }

    /// An append will never be an entry.
    pub(super) fn given_up(&self, flight: Flight, failed: &Failed) {
        self.refused(flight.agent, failed.code);
        self.recorder.of(flight.agent).count(Tick::GivenUp, 1);
        add(&self.tallies.given_up, 1);
        tracing::debug!(agent = flight.agent, kind = flight.frame.header().kind().name(), %failed, "given up");
        flight.refused(self);
    }

    /// What will never come about is left out.
    pub(super) fn impossible(&self, agent: u32, is_append: bool) {
        add(&self.tallies.impossible, 1);
        if is_append {
            self.recorder.of(agent).count(Tick::GivenUp, 1);
        }
    }

    pub(super) fn head(&self, channel: u32) -> Offset {
        self.room(channel).map_or(Offset::ZERO, Room::head)
    }
}
