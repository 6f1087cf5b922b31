//! Processors of the parts, and times.

use anyhow::Context as _;
use hdrhistogram::Histogram;
use rustix::thread::{CpuSet, gettid, sched_setaffinity};
use std::process::Command;
use tokio::runtime::{Builder, Runtime};

/// The runtimes of the parts, and so their processors.
pub(crate) struct Places {
    pub(crate) node: Runtime,
    pub(crate) victims: Runtime,
    pub(crate) flood: Runtime,
}

impl Places {
    /// The node has the first processor to itself, as it would have a machine. Agents have the second one. The flood has what the
    /// victim leaves of it, and gives it up whenever the victim wants it, since a real one comes from other machines.
    pub(crate) fn split() -> anyhow::Result<Self> {
        let clients = |gives_way: bool| {
            Builder::new_multi_thread()
                .worker_threads(1)
                .on_thread_start(move || {
                    let placed = stay_on(1).map_err(Into::into);
                    if let Err(error) = placed.and_then(|()| if gives_way { give_way() } else { Ok(()) }) {
                        eprintln!("the parts disturb each other: {error:#}");
                    }
                })
                .enable_all()
                .build()
        };
        let (victims, flood) = (clients(false)?, clients(true)?);
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

/// Lets this thread have its processor only while no other wants it: `SCHED_IDLE`, sched(7). A higher nice value would still let it
/// finish its slice of 3 ms.
fn give_way() -> anyhow::Result<()> {
    let thread = gettid().as_raw_nonzero().to_string();
    let done = Command::new("chrt").args(["--idle", "--pid", "0", &thread]).status();
    anyhow::ensure!(done.context("chrt, of util-linux")?.success(), "chrt failed");
    Ok(())
}

pub(crate) fn times() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1_000, 120_000_000_000, 3)?)
}

#[allow(clippy::cast_precision_loss)]
pub(crate) fn micros(times: &Histogram<u64>, quantile: f64) -> f64 {
    times.value_at_quantile(quantile) as f64 / 1_000.0
}
