//! Dispatches events at their times, on a thread of its own: the schedule was made before the run, and nothing moves it.

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
    /// What an agent is given to do.
    type Job: Send + 'static;

    /// The agent's task, which lasts until the run is over, and what gives it jobs.
    fn enter(self: &Arc<Self>, agent: u32, runtime: &Handle) -> (JoinHandle<()>, mpsc::UnboundedSender<Self::Job>);

    /// An event of the plan, by its place.
    fn job(place: usize, open: Arc<Open>) -> Self::Job;
}

/// What a schedule left behind.
pub(super) struct Dispatched<J> {
    /// How late events were dispatched, in microseconds.
    pub(super) lag: Histogram64,
    /// Events dispatched.
    pub(super) events: usize,
    pub(super) lanes: Vec<JoinHandle<()>>,
    /// Agents stay as long as these are there.
    pub(super) senders: Vec<Option<mpsc::UnboundedSender<J>>>,
}

/// Who does an event.
pub(super) fn actor(event: &Event) -> u32 {
    match &event.what {
        What::Append { author, .. } => author.0,
        What::Connect(agent) | What::Disconnect(agent) | What::Token(agent) => agent.0,
        What::Subscribe { agent, .. } | What::Refused { agent, .. } => agent.0,
    }
}

/// Dispatches all events; with `in_flight`, as soon as fewer than so many are open, else at their times.
pub(super) fn dispatch<C: Cast>(
    base: &Arc<Base>,
    cast: &Arc<C>,
    in_flight: Option<usize>,
    runtime: &Handle,
) -> Dispatched<C::Job> {
    let mut dispatched = Dispatched {
        lag: histogram(),
        events: 0,
        lanes: Vec::new(),
        senders: (0..base.plan.agents).map(|_| None).collect(),
    };
    let room = in_flight.map(|count| Arc::new(Semaphore::new(count)));
    for (place, event) in base.plan.events.iter().enumerate() {
        let permit = match &room {
            Some(room) => {
                let permit = runtime.block_on(async {
                    tokio::select! {
                        biased;
                        () = base.finish.cancelled() => None,
                        permit = Arc::clone(room).acquire_owned() => permit.ok(),
                    }
                });
                if permit.is_none() {
                    break;
                }
                permit
            }
            None => {
                if !sleep_until(base, base.due(event.at)) {
                    break;
                }
                let late_us = u64::try_from(base.late(event.at).as_micros()).unwrap_or(u64::MAX);
                dispatched.lag.saturating_record(late_us.clamp(1, LATENCY_US_MAX));
                None
            }
        };
        let agent = actor(event);
        let open = Arc::new(Open::new(base, place, permit));
        let Some(sender) = dispatched.senders.get_mut(agent as usize) else {
            continue;
        };
        let sender = sender.get_or_insert_with(|| {
            let (task, sender) = cast.enter(agent, runtime);
            dispatched.lanes.push(task);
            sender
        });
        // A lane that has ended was ended with the run.
        if sender.send(C::job(place, open)).is_err() {
            break;
        }
        dispatched.events += 1;
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
