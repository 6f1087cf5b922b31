//! Usage of the process itself, under the names that Prometheus' own clients give: the same for every server.

use metrics::{Unit, describe_gauge, gauge};
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

const BUILD: &str = "skytale_build_info";
const CPU: &str = "process_cpu_seconds_total";
const MEMORY: &str = "process_resident_memory_bytes";
const FDS: &str = "process_open_fds";
const FDS_MAX: &str = "process_max_fds";
const STARTED: &str = "process_start_time_seconds";

/// Time at which this process began to collect metrics, unix seconds.
static BEGAN_S: LazyLock<f64> = LazyLock::new(|| {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |now| now.as_secs_f64())
});

/// Describes them to the recorder that is installed.
pub(crate) fn describe() {
    let count = Unit::Count;
    describe_gauge!(BUILD, count, "Always 1; the version that runs is its label.");
    describe_gauge!(
        CPU,
        Unit::Seconds,
        "Processor time that the process has used, user and system."
    );
    describe_gauge!(MEMORY, Unit::Bytes, "Memory that the process holds.");
    describe_gauge!(FDS, count, "File descriptors that the process has open.");
    describe_gauge!(FDS_MAX, count, "File descriptors that the process may have open.");
    describe_gauge!(STARTED, Unit::Seconds, "When the process started, unix seconds.");
    LazyLock::force(&BEGAN_S);
}

/// Records them as they are now. Values that the system does not give are left out.
pub(crate) fn record() {
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!(STARTED).set(*BEGAN_S);
    gauge!(CPU).set(cpu_s());
    if let Some(bytes) = memory_bytes() {
        gauge!(MEMORY).set(bytes);
    }
    if let Some(fds) = open_fds() {
        gauge!(FDS).set(fds);
    }
    if let Some(most) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        gauge!(FDS_MAX).set(most as f64);
    }
}

fn cpu_s() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn memory_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kilobytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1_024.0)
}

fn open_fds() -> Option<f64> {
    // One of them is open to count them.
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}
