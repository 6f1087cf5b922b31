//! `report.json`.
//!
//! Persisted: fields are added, never renamed or given another meaning without another [`REPORT_VERSION`].

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of `report.json` that this crate writes and reads.
pub const REPORT_VERSION: u32 = 1;

/// The most readers that came back in a report.
pub const CATCH_UP_MAX: usize = 10_000;

/// `report.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`REPORT_VERSION`].
    pub skytale_report: u32,
    /// The run and its settings.
    pub run: Run,
    /// The workload.
    pub workload: WorkloadSource,
    /// Contents of the plan.
    pub planned: Planned,
    /// Whether the run means anything, and whether the target passed.
    pub verdict: Verdict,
    /// Sums over the run.
    pub totals: Totals,
    /// Scope of the verification.
    pub verified: Verified,
    /// Latencies over the whole run, in microseconds, by name (`append`, `delivered`, ...). Empty under speed `max`: a closed loop has no
    /// latencies that can be compared.
    pub latencies_us: BTreeMap<String, Latency>,
    /// Series over time.
    pub series: Series,
    /// Readers that came back: the entries that they had missed, and the time it took. At most 10,000, evenly over all.
    pub catch_up: Vec<CatchUp>,
    /// Refusals by code, as in `SKY-1006`.
    pub refusals: BTreeMap<String, u64>,
    /// Differences between the run and the capture.
    pub divergence: Divergence,
    /// Metrics of the target's nodes.
    pub nodes: Vec<NodeSeries>,
}

/// The run and its settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The program, as in `skytale 0.1.0`.
    pub made_by: String,
    /// The git revision that it was built from, where that is known.
    pub revision: Option<String>,
    /// The command line, without secrets.
    pub command: Vec<String>,
    /// Start of the run, unix milliseconds.
    pub started_ms: u64,
    /// The kind of target: `relay`, or a peer's name.
    pub target: String,
    /// Place of the run: `local`, `fleet`, or the API's URL.
    pub place: String,
    /// `relay` or `agent`.
    pub level: String,
    /// The speed.
    pub speed: Speed,
    /// Every other setting of the run by name, as it was in force.
    pub settings: BTreeMap<String, serde_json::Value>,
    /// The machine of the generator.
    pub machine: Machine,
    /// Number of this part, from 1; joined results are 1 of 1.
    pub part: u32,
    /// Parts of the run.
    pub parts: u32,
    /// Results that were joined, 1 where none were.
    pub joined: u32,
}

/// Speed at which a workload is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speed {
    /// A multiple of the captured speed: an open loop.
    Factor(f64),
    /// As fast as the target takes it: a closed loop.
    Max,
}

impl Default for Speed {
    fn default() -> Self {
        Self::Factor(1.0)
    }
}

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Operating system and kernel.
    pub system: String,
    /// Its processor.
    pub processor: String,
    /// Processors that can be used.
    pub processors: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            let value = line.split_once(':').map(|(_, value)| value.trim().to_owned());
            value.unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kilobytes: u64 = memory
            .split(' ')
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0);
        Self {
            system: format!("{} {}", std::env::consts::OS, read("/proc/sys/kernel/osrelease").trim()),
            processor: field(&read("/proc/cpuinfo"), "model name"),
            processors: std::thread::available_parallelism().map_or(1, |count| count.get() as u32),
            memory_bytes: kilobytes * 1_024,
        }
    }
}

/// A workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkloadSource {
    /// The file's name, without its folder.
    pub name: String,
    /// BLAKE3 of the file, hex: two runs with the same one replayed the same workload.
    pub blake3: String,
    /// `log`, `tap` or `synth`.
    pub source: String,
    /// Program that made it.
    pub made_by: String,
    /// Its events.
    pub events: u64,
    /// Time from its start to its last event, in microseconds.
    pub duration_us: u64,
}

/// Contents of a plan. Of a part of a run, its share: each agent, channel and operation counts in one part only, so
/// that joining adds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// Operations.
    pub operations: u64,
    /// Appends among them.
    pub appends: u64,
    /// Length of the schedule, in microseconds. Under speed `max`: of the workload as it is.
    pub duration_us: u64,
    /// Agents.
    pub agents: u32,
    /// Channels.
    pub channels: u32,
    /// Bytes of the bodies of all appends.
    pub body_bytes: u64,
    /// Deliveries that members other than the authors can expect.
    pub deliveries: u64,
}

/// Verdict on a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// False where the generator was the limit, or nothing ran: then no figure of the run says anything of the target.
    pub valid: bool,
    /// Reasons why it is not valid.
    pub invalid_because: Vec<String>,
    /// True where nothing was lost, doubled, reordered or forked.
    pub passed: bool,
    /// Faults found.
    pub faults: u64,
    /// The first of them, in words.
    pub first_faults: Vec<String>,
    /// It was ended before its plan was done.
    pub interrupted: bool,
}

/// Sums over a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Time from the run's beginning to its end, in microseconds.
    pub duration_us: u64,
    /// Time from the run's beginning to the first planned append, in microseconds.
    pub first_planned_us: u64,
    /// Time from the run's beginning to the last acknowledgement, in microseconds.
    pub appending_us: u64,
    /// Appends given to the target; one that was sent again counts once.
    pub sent: u64,
    /// Appends acknowledged.
    pub acknowledged: u64,
    /// Bytes of acknowledged bodies.
    pub acknowledged_bytes: u64,
    /// Entries delivered to readers.
    pub delivered: u64,
    /// Bytes of the bodies of delivered entries.
    pub delivered_bytes: u64,
    /// Appends that were sent again, with a new parent or on a new session.
    pub again: u64,
    /// Appends given up after refusals.
    pub given_up: u64,
    /// Appends that had no acknowledgement when the run ended.
    pub unacknowledged: u64,
    /// Operations that could not be done, because their conditions never came about.
    pub impossible: u64,
    /// Operations that were due and not done when the run ended.
    pub unfinished: u64,
    /// Sessions that began.
    pub sessions: u64,
    /// Sessions that were lost.
    pub sessions_lost: u64,
    /// Processor time of the generator, in microseconds.
    pub generator_cpu_us: u64,
    /// Lateness of the generator by itself, at its 99th percentile, in microseconds.
    pub generator_lag_p99_us: u64,
    /// Messages and raw frames acknowledged a second, from the first planned to the last acknowledged.
    pub acknowledged_per_s: f64,
    /// Entries delivered a second.
    pub delivered_per_s: f64,
}

/// Scope of the verification.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verified {
    /// Channels.
    pub channels: u64,
    /// Their entries.
    pub entries: u64,
    /// Readers that were to read to the end, did, and agree with each other on every entry.
    pub readers: u64,
    /// Readers that had not come to the end when the run was over.
    pub readers_short: u64,
    /// Readers that left or were removed before the end. Their reads were compared too.
    pub readers_left: u64,
}

/// A latency over a whole run, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Latency {
    pub count: u64,
    pub min: u64,
    pub mean: f64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

/// Series over time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The length of an interval of this series, in milliseconds: a multiple of `measured_interval_ms`.
    pub interval_ms: u64,
    /// The length of an interval of the histogram logs and of `counts.csv`, in milliseconds.
    pub measured_interval_ms: u64,
    /// A number an interval, by name (`sent`, `acknowledged`, `backlog`, ...).
    pub counts: BTreeMap<String, Vec<u64>>,
    /// By name of the latency.
    pub latencies_us: BTreeMap<String, LatencySeries>,
}

/// A latency over time, in microseconds; 0 in an interval without values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LatencySeries {
    pub count: Vec<u64>,
    pub p50: Vec<u64>,
    pub p99: Vec<u64>,
    pub max: Vec<u64>,
}

/// A reader that came back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CatchUp {
    /// Time, in milliseconds from the run's beginning.
    pub at_ms: u64,
    /// Entries that it had missed.
    pub missed: u64,
    /// Time from the subscription's planned time until it had them all, in microseconds.
    pub took_us: u64,
}

/// Differences between the run and the capture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// Refusals that the workload has, by code; of a part of a run, those of the whole workload. A log does not hold refusals: there are none
    /// in a workload that comes from one.
    pub captured_refusals: BTreeMap<String, u64>,
    /// Commits refused because another one came first.
    pub commits_lost: u64,
    /// Messages refused because a commit came first.
    pub messages_outrun: u64,
    /// KeyPackage claims that found none.
    pub claims_without_package: u64,
    /// Operations left out because their conditions never came about.
    pub impossible: u64,
}

/// Metrics of a node over time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeSeries {
    /// Its name.
    pub name: String,
    /// Times of the samples, in milliseconds from the run's beginning.
    pub at_ms: Vec<u64>,
    /// Values by metric: as many as `at_ms` has; null if the node gave none.
    pub metrics: BTreeMap<String, Vec<Option<f64>>>,
}
