//! Runs a plan against a target.
//!
//! ```text
//!   schedule (a thread) ── events at their times ──> lanes (a task an agent) ──> Target
//!                                                      ├─ verdicts (a task a session)
//!                                                      └─ readers (a task a subscription)
//! ```
//!
//! An open loop: an event is dispatched when it is due, no matter what became of earlier ones, and every latency counts
//! from the planned time. An agent does its own events in order, so one that waits for the target is late with all of
//! them, and that shows. Where an event needs another one (a channel before its first frame, a membership before a
//! message) it waits for that.

mod agents;
mod flight;
mod lane;
mod link;
mod needs;
mod order;
mod reader;
mod room;
mod schedule;
mod shared;
#[cfg(test)]
mod tests;

pub use agents::{AgentsConfig, run_agents};

use crate::frames::Bodies;
use crate::recorder::Recorder;
use crate::results::{CatchUp, Divergence, Histogram64, LATENCY_US_MAX, Measured, Totals, Verified, histogram};
use crate::target::Target;
use needs::Needs;
use order::Order;
use schedule::Cast;
use shared::{Base, Shared, Tallies, Unfinished};
use skytale_workload::What;
use skytale_workload::plan::Plan;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Interval between checks whether all is done.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Interval between samples of the runtime's lateness.
const SAMPLE_EVERY: Duration = Duration::from_millis(5);
/// Lateness of a timer of the runtime by itself.
const TIMER_GRAIN: Duration = Duration::from_micros(1_500);
/// Maximum time for agents to leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(30);

/// Configuration of a run.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// Maximum number of open events, if the run is as fast as the target takes it. Without it events come at the
    /// planned times.
    pub in_flight: Option<usize>,
    /// The length of an interval of the results.
    pub interval: Duration,
    /// Maximum time that the end may take without any progress: acknowledgements and deliveries that are still to come.
    pub patience: Duration,
    /// The generator's own lateness, at the 99th percentile, from which on a run is not valid.
    pub lag_max: Duration,
    /// Whether a frame waits until those of other authors are done that the plan has before it in its channel. Otherwise frames of
    /// different authors that are planned within a round trip may change places.
    pub keep_order: bool,
    /// Part of the run.
    pub part: u32,
    /// Start of the run; now, if there is none.
    pub start_at: Option<SystemTime>,
}

impl RunConfig {
    /// At the planned times, with intervals that suit a plan of this length.
    pub fn of(duration: Duration) -> Self {
        // At most 200 of a schedule: an interval takes a megabyte.
        let interval = [100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000]
            .map(Duration::from_millis)
            .into_iter()
            .find(|interval| duration <= *interval * 200)
            .unwrap_or(duration / 200);
        Self {
            in_flight: None,
            interval,
            patience: Duration::from_secs(30),
            lag_max: Duration::from_millis(50),
            keep_order: false,
            part: 1,
            start_at: None,
        }
    }
}

/// Progress of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Time since its beginning.
    pub elapsed: Duration,
    /// Appends due by now; under a closed loop, all of them.
    pub due: u64,
    /// Appends given to the target.
    pub sent: u64,
    /// Appends acknowledged.
    pub acknowledged: u64,
    /// Entries delivered.
    pub delivered: u64,
    /// Agents online.
    pub online: u64,
    /// Refusals.
    pub refused: u64,
    /// Appends given up.
    pub given_up: u64,
    /// Faults found.
    pub faults: u64,
    /// All that was planned is dispatched.
    pub is_ending: bool,
}

/// Result of a run.
#[derive(Debug)]
pub struct Ran {
    /// The measurements.
    pub measured: Measured,
    /// Sums.
    pub totals: Totals,
    /// Scope of the comparison.
    pub verified: Verified,
    /// Contradictions between what agents saw, in words; the first 1,000.
    pub faults: Vec<String>,
    /// Number of faults.
    pub fault_count: u64,
    /// Reason why the run proves nothing about the target, if it does not.
    pub invalid_because: Vec<String>,
    /// Refusals by the number of their code.
    pub refusals: BTreeMap<u32, u64>,
    /// Differences from the plan.
    pub divergence: Divergence,
    /// Readers that came back.
    pub catch_up: Vec<CatchUp>,
    /// Start of the run, unix milliseconds.
    pub started_ms: u64,
    /// It was ended before it was done.
    pub interrupted: bool,
    /// The generator's lateness at dispatching and at running its tasks, in microseconds at the 99th percentile.
    pub lag_p99_us: [u64; 2],
}

/// A run cannot begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the run cannot begin: {0}")]
pub struct RunError(pub String);

/// Runs a plan against a target, and verifies what agents saw. `stop` ends it early, with what there is; `each` hears now and then
/// how far it is.
pub async fn run<T: Target>(
    target: Arc<T>,
    plan: Arc<Plan>,
    config: &RunConfig,
    stop: CancellationToken,
    each: impl FnMut(&Progress),
) -> Result<Ran, RunError> {
    let base = Base::begin(plan, config, &stop).await?;
    let shared = Arc::new(Shared::new(Arc::clone(&base), target));
    let outcome = drive(&base, &shared, config, &stop, each).await?;
    let left = shared.left_open();
    let unfinished = base.unfinished();
    base.finish.cancel();
    let outcome = outcome.leave().await?;
    let report = shared.monitor.finish();
    let verified = Verified {
        channels: report.channels.len() as u64,
        entries: report.channels.iter().map(|channel| channel.entries).sum(),
        readers: left.readers - left.readers_short,
        readers_short: left.readers_short,
        readers_left: left.readers_left,
    };
    let faults = report.faults.iter().map(ToString::to_string).collect();
    Ok(base.ran(config, outcome, &unfinished, verified, faults, report.fault_count))
}

/// State that a cast can report while it plays.
trait Standing: Cast {
    /// Faults found so far.
    fn faults(&self) -> u64;

    /// Whether readers have all that was acknowledged.
    fn is_delivered(&self) -> bool;
}

/// Dispatches the plan, and waits until all is done.
async fn drive<C: Standing>(
    base: &Arc<Base>,
    cast: &Arc<C>,
    config: &RunConfig,
    stop: &CancellationToken,
    mut each: impl FnMut(&Progress),
) -> Result<Driven<C::Job>, RunError> {
    let cpu_before = process_time();
    let scheduling = match config.in_flight {
        Some(in_flight) => {
            let dispatching = schedule::as_there_is_room(Arc::clone(base), Arc::clone(cast), in_flight);
            tokio::spawn(dispatching)
        }
        None => {
            let (base, cast, runtime) = (Arc::clone(base), Arc::clone(cast), Handle::current());
            tokio::task::spawn_blocking(move || schedule::at_their_times(&base, &cast, &runtime))
        }
    };
    let mut runtime_lag = histogram();
    let due = due_times(&base.plan);
    let (mut moved, mut last, mut looked) = (Instant::now(), (0, 0), Instant::now());
    let interrupted = loop {
        let before = Instant::now();
        tokio::select! {
            biased;
            () = stop.cancelled() => break true,
            () = tokio::time::sleep(SAMPLE_EVERY) => {}
        }
        let late = before.elapsed().saturating_sub(SAMPLE_EVERY + TIMER_GRAIN);
        let late_us = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        runtime_lag.saturating_record(late_us.clamp(1, LATENCY_US_MAX));
        if looked.elapsed() < LOOK_EVERY {
            continue;
        }
        looked = Instant::now();
        let is_ending = scheduling.is_finished();
        let progress = base.progress(&due, is_ending, cast.faults());
        each(&progress);
        let now = (progress.acknowledged + progress.given_up, progress.delivered);
        // A closed loop never waits for a time: if nothing moves, nothing will.
        let waits = !is_ending && config.in_flight.is_none();
        if now != last || waits {
            (last, moved) = (now, Instant::now());
        }
        let is_done = is_ending && base.open.load(Ordering::Relaxed) == 0 && cast.is_delivered();
        if is_done || moved.elapsed() > config.patience {
            break false;
        }
    };
    Ok(Driven {
        scheduling,
        runtime_lag,
        interrupted,
        duration: base.start.elapsed(),
        generator_cpu: process_time().saturating_sub(cpu_before),
    })
}

/// A plan that was dispatched, with agents that are still there.
struct Driven<J> {
    scheduling: JoinHandle<schedule::Dispatched<J>>,
    runtime_lag: Histogram64,
    interrupted: bool,
    duration: Duration,
    generator_cpu: Duration,
}

impl<J: Send + 'static> Driven<J> {
    /// Waits until all agents have left, which the run's end tells them to.
    async fn leave(self) -> Result<Outcome, RunError> {
        let dispatched = self.scheduling.await;
        let dispatched = dispatched.map_err(|_| RunError("the schedule panicked".into()))?;
        let leaving = async {
            let mut panics = 0;
            for lane in dispatched.lanes {
                panics += u64::from(lane.await.is_err());
            }
            panics
        };
        let panics = tokio::time::timeout(LEAVE_WITHIN, leaving).await.unwrap_or(0);
        Ok(Outcome {
            duration: self.duration,
            interrupted: self.interrupted,
            generator_cpu_us: u64::try_from(self.generator_cpu.as_micros()).unwrap_or(u64::MAX),
            dispatched: dispatched.events,
            panics,
            lag_p99_us: [&dispatched.lag, &self.runtime_lag].map(|lag| lag.value_at_quantile(0.99)),
        })
    }
}

/// Outcome of a run, beside its measurements.
struct Outcome {
    duration: Duration,
    interrupted: bool,
    generator_cpu_us: u64,
    dispatched: usize,
    /// Agents whose task panicked.
    panics: u64,
    lag_p99_us: [u64; 2],
}

/// Readers that were not at the end when a run was over.
#[derive(Clone, Copy, Debug, Default)]
struct Left {
    /// Those that are to read all.
    readers: u64,
    /// Those of them that have not.
    readers_short: u64,
    /// Those that left, or were removed.
    readers_left: u64,
}

/// The planned times of appends, in order.
fn due_times(plan: &Plan) -> Vec<Duration> {
    let appends = plan
        .events
        .iter()
        .filter(|event| matches!(event.what, What::Append { .. }));
    appends.map(|event| event.at).collect()
}

fn process_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

impl Base {
    /// Waits until it is time to begin.
    async fn begin(plan: Arc<Plan>, config: &RunConfig, stop: &CancellationToken) -> Result<Arc<Self>, RunError> {
        let bodies = Bodies::new().ok_or_else(|| RunError("the system gives no random bytes".into()))?;
        if let Some(at) = config.start_at {
            let wait = at.duration_since(SystemTime::now()).unwrap_or_default();
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        let start = Instant::now();
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Arc::new(Self {
            recorder: Recorder::new(start, config.interval, config.in_flight.is_none()),
            order: config.keep_order.then(|| Order::new(&plan)),
            needs: Needs::new(&plan),
            states: Self::states(&plan),
            plan,
            start,
            started_ms: u64::try_from(started.as_millis()).unwrap_or(u64::MAX),
            part: config.part,
            bodies,
            tallies: Tallies::default(),
            refusals: parking_lot::Mutex::default(),
            catch_up: parking_lot::Mutex::default(),
            sequence: 0.into(),
            open: 0.into(),
            finish: CancellationToken::new(),
        }))
    }

    fn progress(&self, due: &[Duration], is_ending: bool, faults: u64) -> Progress {
        let load = |tally: &AtomicU64| tally.load(Ordering::Relaxed);
        let elapsed = self.start.elapsed();
        Progress {
            elapsed,
            due: due.partition_point(|at| *at <= elapsed) as u64,
            sent: load(&self.tallies.sent),
            acknowledged: load(&self.tallies.acknowledged),
            delivered: load(&self.tallies.delivered),
            online: load(&self.tallies.online),
            refused: self.refusals.lock().values().sum(),
            given_up: load(&self.tallies.given_up) + load(&self.tallies.impossible),
            faults,
            is_ending,
        }
    }

    fn ran(
        &self,
        config: &RunConfig,
        outcome: Outcome,
        unfinished: &Unfinished,
        verified: Verified,
        faults: Vec<String>,
        fault_count: u64,
    ) -> Ran {
        let mut due = due_times(&self.plan);
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let first_planned_us = match config.in_flight {
            None => due.first().map_or(0, |at| micros(*at)),
            Some(_) => 0,
        };
        due.truncate(if config.in_flight.is_some() { 0 } else { due.len() });
        self.record(unfinished);
        let measured = self.recorder.finish(outcome.duration, due.iter().copied());
        let load = |tally: &AtomicU64| tally.load(Ordering::Relaxed);
        let tallies = &self.tallies;
        let appending_us = load(&tallies.appending_us);
        // If something was never acknowledged, the run did not end with the last acknowledgement.
        let appending_end_us = match unfinished.events.is_empty() {
            true => appending_us,
            false => micros(outcome.duration),
        };
        let per_second = |count: u64, us: u64| if us == 0 { 0.0 } else { count as f64 * 1e6 / us as f64 };
        let (sent, acknowledged, given_up) = (
            load(&tallies.sent),
            load(&tallies.acknowledged),
            load(&tallies.given_up),
        );
        let totals = Totals {
            duration_us: micros(outcome.duration),
            first_planned_us,
            appending_us,
            sent,
            acknowledged,
            acknowledged_bytes: load(&tallies.acknowledged_bytes),
            delivered: load(&tallies.delivered),
            delivered_bytes: load(&tallies.delivered_bytes),
            again: load(&tallies.again),
            given_up,
            unacknowledged: sent.saturating_sub(acknowledged + given_up),
            impossible: load(&tallies.impossible),
            unfinished: unfinished.events.len() as u64,
            sessions: load(&tallies.sessions),
            sessions_lost: load(&tallies.sessions_lost),
            generator_cpu_us: outcome.generator_cpu_us,
            generator_lag_p99_us: outcome.lag_p99_us.into_iter().max().unwrap_or(0),
            acknowledged_per_s: per_second(
                load(&tallies.messages),
                appending_end_us.saturating_sub(first_planned_us),
            ),
            delivered_per_s: per_second(
                load(&tallies.delivered),
                load(&tallies.delivering_us).saturating_sub(first_planned_us),
            ),
        };
        let captured = self.plan.refusals.iter();
        Ran {
            measured,
            totals,
            verified,
            faults,
            fault_count,
            invalid_because: self.invalid_because(config, &outcome, acknowledged),
            refusals: self.refusals.lock().clone(),
            divergence: Divergence {
                captured_refusals: captured.map(|(code, count)| (format!("SKY-{code}"), *count)).collect(),
                commits_lost: load(&tallies.commits_lost),
                messages_outrun: load(&tallies.messages_outrun),
                claims_without_package: load(&tallies.claims_without_package),
                impossible: load(&tallies.impossible),
            },
            catch_up: std::mem::take(&mut *self.catch_up.lock()),
            started_ms: self.started_ms,
            interrupted: outcome.interrupted,
            lag_p99_us: outcome.lag_p99_us,
        }
    }

    fn invalid_because(&self, config: &RunConfig, outcome: &Outcome, acknowledged: u64) -> Vec<String> {
        let mut because = Vec::new();
        if acknowledged == 0 && self.plan.appends() > 0 {
            because.push("nothing was acknowledged".to_owned());
        }
        let late_us = outcome.lag_p99_us.into_iter().max().unwrap_or(0);
        if config.in_flight.is_none() && u128::from(late_us) > config.lag_max.as_micros() {
            because.push(format!(
                "the generator was the limit: it was {} ms late itself at p99, and {} ms are allowed; use a faster machine, or \
                 several with --part",
                late_us / 1_000,
                config.lag_max.as_millis()
            ));
        }
        if outcome.panics > 0 {
            because.push(format!("{} agents of the generator panicked", outcome.panics));
        }
        let impossible = self.tallies.impossible.load(Ordering::Relaxed);
        if impossible > 0 {
            because.push(format!("{impossible} operations of the plan could not be done"));
        }
        if !outcome.interrupted && outcome.dispatched < self.plan.events.len() {
            because.push("the plan was not dispatched as a whole".to_owned());
        }
        because
    }
}

impl<T: Target> Shared<T> {
    fn left_open(&self) -> Left {
        let mut left = Left::default();
        for gauge in self.gauges.lock().iter() {
            if !gauge.reads.load(Ordering::Relaxed) {
                left.readers_left += 1;
                continue;
            }
            left.readers += 1;
            if let Some(room) = self.room(gauge.channel)
                && !gauge.is_there(room)
            {
                left.readers_short += 1;
            }
        }
        left
    }
}

impl<T: Target> Cast for Shared<T> {
    type Job = lane::Job;

    fn enter(self: &Arc<Self>, agent: u32, runtime: &Handle) -> (JoinHandle<()>, mpsc::UnboundedSender<lane::Job>) {
        let (lane, sender) = lane::Lane::new(Arc::clone(self), agent);
        (runtime.spawn(lane.run()), sender)
    }

    fn job(place: usize, open: Arc<shared::Open>) -> lane::Job {
        lane::Job::Event(place, open)
    }
}

impl<T: Target> Standing for Shared<T> {
    fn faults(&self) -> u64 {
        self.monitor.progress().faults
    }

    fn is_delivered(&self) -> bool {
        self.left_open().readers_short == 0
    }
}
