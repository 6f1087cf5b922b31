//! Processors of the parts, and times.

use hdrhistogram::Histogram;
use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, gettid, sched_setaffinity};
use tokio::runtime::{Builder, Runtime};

/// The runtimes of the parts, and so their processors.
pub(crate) struct Places {
    pub(crate) node: Runtime,
    pub(crate) victims: Runtime,
    pub(crate) flood: Runtime,
}

impl Places {
    /// The node has the first processor to itself, as it would have a machine. Agents have the second one, and the flood has what
    /// the victim leaves of it.
    pub(crate) fn split() -> anyhow::Result<Self> {
        let clients = |nice: i32| {
            Builder::new_multi_thread()
                .worker_threads(1)
                .on_thread_start(move || {
                    if let Err(error) = stay_on(1).and_then(|()| setpriority_process(Some(gettid()), nice)) {
                        eprintln!("the agents share the node's processor: {error}");
                    }
                })
                .enable_all()
                .build()
        };
        let (victims, flood) = (clients(0)?, clients(10)?);
        stay_on(0)?;
        Ok(Self {
            node: Runtime::new()?,
            victims,
            flood,
        })
    }
}

/// Keeps this thread, and those that it starts, on a processor.
fn stay_on(processor: usize) -> rustix::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(None, &set)
}

pub(crate) fn times() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1_000, 120_000_000_000, 3)?)
}

#[allow(clippy::cast_precision_loss)]
pub(crate) fn micros(times: &Histogram<u64>, quantile: f64) -> f64 {
    times.value_at_quantile(quantile) as f64 / 1_000.0
}
