//! Dispatches events at their times, on a thread of its own: the schedule was made before the run, and nothing moves it.

use super::lane::{Job, Lane};
use super::shared::{Open, Shared};
use crate::results::{Histogram64, LATENCY_US_MAX, histogram};
use crate::target::Target;
use skytale_workload::{Event, What};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

/// What a schedule left behind.
pub(super) struct Dispatched {
    /// How late events were dispatched, in microseconds.
    pub(super) lag: Histogram64,
    /// Events dispatched.
    pub(super) events: usize,
    pub(super) lanes: Vec<JoinHandle<()>>,
    /// Agents stay as long as these are there.
    pub(super) senders: Vec<Option<mpsc::UnboundedSender<Job>>>,
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
pub(super) fn dispatch<T: Target>(shared: &Arc<Shared<T>>, in_flight: Option<usize>, runtime: &Handle) -> Dispatched {
    let mut dispatched = Dispatched {
        lag: histogram(),
        events: 0,
        lanes: Vec::new(),
        senders: vec![None; shared.plan.agents as usize],
    };
    let room = in_flight.map(|count| Arc::new(Semaphore::new(count)));
    for (place, event) in shared.plan.events.iter().enumerate() {
        let permit = match &room {
            Some(room) => {
                let permit = runtime.block_on(async {
                    tokio::select! {
                        biased;
                        () = shared.finish.cancelled() => None,
                        permit = Arc::clone(room).acquire_owned() => permit.ok(),
                    }
                });
                if permit.is_none() {
                    break;
                }
                permit
            }
            None => {
                if !sleep_until(shared, shared.due(event.at)) {
                    break;
                }
                let late_us = u64::try_from(shared.late(event.at).as_micros()).unwrap_or(u64::MAX);
                dispatched.lag.saturating_record(late_us.clamp(1, LATENCY_US_MAX));
                None
            }
        };
        let agent = actor(event);
        let open = Arc::new(Open::new(&shared.open, permit));
        let Some(sender) = dispatched.senders.get_mut(agent as usize) else {
            continue;
        };
        let sender = sender.get_or_insert_with(|| {
            let (lane, sender) = Lane::new(Arc::clone(shared), agent);
            dispatched.lanes.push(runtime.spawn(lane.run()));
            sender
        });
        // A lane that has ended was ended with the run.
        if sender.send(Job::Event(place, open)).is_err() {
            break;
        }
        dispatched.events += 1;
    }
    dispatched
}

/// False where the run was ended meanwhile.
fn sleep_until<T: Target>(shared: &Shared<T>, due: Instant) -> bool {
    loop {
        if shared.finish.is_cancelled() {
            return false;
        }
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}
