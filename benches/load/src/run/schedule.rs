//! Dispatches events: at their times, on a thread of its own (the schedule was made before the run, and nothing moves it), or as there is
//! room.

use super::shared::{Base, Open};
use crate::results::{Histogram64, LATENCY_US_MAX, histogram};
use skytale_workload::{Event, What};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

/// Agents, each of which does its events in order, in a task of its own.
pub(super) trait Cast: Send + Sync + 'static {
    /// Job of an agent.
    type Job: Send + 'static;

    /// The agent's task, which lasts until the run is over, and what gives it jobs.
    fn enter(self: &Arc<Self>, agent: u32, runtime: &Handle) -> (JoinHandle<()>, mpsc::UnboundedSender<Self::Job>);

    /// An event of the plan, by its place.
    fn job(place: usize, open: Arc<Open>) -> Self::Job;
}

/// Result of a schedule.
pub(super) struct Dispatched<J> {
    /// Lateness of dispatched events, in microseconds.
    pub(super) lag: Histogram64,
    /// Events dispatched.
    pub(super) events: usize,
    pub(super) lanes: Vec<JoinHandle<()>>,
    /// Agents stay as long as these are there.
    pub(super) senders: Vec<Option<mpsc::UnboundedSender<J>>>,
}

/// Returns the agent of an event.
pub(super) fn actor(event: &Event) -> u32 {
    match &event.what {
        What::Append { author, .. } => author.0,
        What::Connect(agent) | What::Disconnect(agent) | What::Token(agent) => agent.0,
        What::Subscribe { agent, .. } | What::Refused { agent, .. } => agent.0,
    }
}

impl<J: Send + 'static> Dispatched<J> {
    fn new(base: &Base) -> Self {
        Self {
            lag: histogram(),
            events: 0,
            lanes: Vec::new(),
            senders: (0..base.plan.agents).map(|_| None).collect(),
        }
    }

    /// Gives an event to its agent. False where the run was ended meanwhile.
    fn give<C: Cast<Job = J>>(&mut self, cast: &Arc<C>, agent: u32, runtime: &Handle, job: J) -> bool {
        let Some(sender) = self.senders.get_mut(agent as usize) else {
            return true;
        };
        let sender = sender.get_or_insert_with(|| {
            let (task, sender) = cast.enter(agent, runtime);
            self.lanes.push(task);
            sender
        });
        let is_given = sender.send(job).is_ok();
        self.events += usize::from(is_given);
        is_given
    }
}

/// Dispatches all events at their times. Blocks: for a thread of its own.
pub(super) fn at_their_times<C: Cast>(base: &Arc<Base>, cast: &Arc<C>, runtime: &Handle) -> Dispatched<C::Job> {
    let mut dispatched = Dispatched::new(base);
    for (place, event) in base.plan.events.iter().enumerate() {
        if !sleep_until(base, base.due(event.at)) {
            break;
        }
        let late_us = u64::try_from(base.late(event.at).as_micros()).unwrap_or(u64::MAX);
        dispatched.lag.saturating_record(late_us.clamp(1, LATENCY_US_MAX));
        let open = Arc::new(Open::new(base, place, None));
        if !dispatched.give(cast, actor(event), runtime, C::job(place, open)) {
            break;
        }
    }
    dispatched
}

/// Dispatches each event as soon as fewer than so many are open.
pub(super) async fn as_there_is_room<C: Cast>(base: Arc<Base>, cast: Arc<C>, in_flight: usize) -> Dispatched<C::Job> {
    let (room, runtime) = (Arc::new(Semaphore::new(in_flight)), Handle::current());
    let mut dispatched = Dispatched::new(&base);
    for (place, event) in base.plan.events.iter().enumerate() {
        let permit = tokio::select! {
            biased;
            () = base.finish.cancelled() => None,
            permit = Arc::clone(&room).acquire_owned() => permit.ok(),
        };
        if permit.is_none() {
            break;
        }
        let open = Arc::new(Open::new(&base, place, permit));
        if !dispatched.give(&cast, actor(event), &runtime, C::job(place, open)) {
            break;
        }
    }
    dispatched
}

/// False where the run was ended meanwhile.
fn sleep_until(base: &Base, due: Instant) -> bool {
    loop {
        if base.finish.is_cancelled() {
            return false;
        }
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}
