//! The process: its one runtime, and whether it is still the process that began.

use crate::error::raise;
use pyo3::prelude::*;
use pyo3::types::PyAny;
use pyo3_async_runtimes::tokio::future_into_py;
use skytale_proto::Code;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Threads of the runtime. The work of an agent is on a thread of its own and in the network.
const THREADS_MAX: usize = 4;

/// How long the interpreter's end is held up for work that does not end.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);

static PROCESS: OnceLock<u32> = OnceLock::new();

/// Called when the module is loaded.
pub(crate) fn begin() {
    PROCESS.get_or_init(std::process::id);
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(THREADS_MAX);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all().worker_threads(threads).thread_name("skytale");
    pyo3_async_runtimes::tokio::init(runtime);
}

/// Waits until nothing runs any more that would give Python a result: at the interpreter's end, when its agents are closed.
#[pyfunction]
pub(crate) fn settle(py: Python<'_>) {
    if same().is_err() {
        return;
    }
    py.detach(|| {
        let tasks = pyo3_async_runtimes::tokio::get_runtime().metrics();
        let begun = Instant::now();
        while tasks.num_alive_tasks() > 0 && begun.elapsed() < SETTLES_WITHIN {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

/// A future of the SDK as a Python awaitable.
pub(crate) fn awaitable<'py, F, T>(py: Python<'py>, future: F) -> PyResult<Bound<'py, PyAny>>
where
    F: Future<Output = PyResult<T>> + Send + 'static,
    T: for<'any> IntoPyObject<'any> + Send + 'static,
{
    same()?;
    future_into_py(py, future)
}

/// An error in a process that was forked from the one that loaded the module.
pub(crate) fn same() -> PyResult<()> {
    match PROCESS.get() {
        Some(process) if *process != std::process::id() => Err(raise(
            Code::Environment,
            "this process was forked after `skytale` was imported: its threads are in the process before".into(),
            false,
            "Start processes by `spawn` (multiprocessing.set_start_method), or import `skytale` after the fork.",
        )),
        _ => Ok(()),
    }
}
