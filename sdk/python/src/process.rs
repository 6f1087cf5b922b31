//! The process: its single runtime, conversion of the SDK's futures to Python's, and detection of forks.

use crate::error::raise;
use pyo3::IntoPyObjectExt as _;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyAny;
use skytale_sdk::Code;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::AbortHandle;

/// Maximum number of threads of the runtime. An agent's work is on its own thread and in the network.
const THREADS_MAX: usize = 4;
/// Longest time that unfinished work delays the interpreter's end.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

static PROCESS: OnceLock<u32> = OnceLock::new();
static HANDLE: OnceLock<Handle> = OnceLock::new();
/// Taken at the interpreter's end.
static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);

/// Called when the module is loaded.
pub(crate) fn begin() -> PyResult<()> {
    if HANDLE.get().is_some() {
        return Ok(());
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .worker_threads(threads.min(THREADS_MAX))
        .thread_name("skytale")
        .build()?;
    PROCESS.get_or_init(std::process::id);
    HANDLE.get_or_init(|| runtime.handle().clone());
    RUNTIME
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_or_insert(runtime);
    Ok(())
}

/// Returns the runtime, in the process that loaded the module.
pub(crate) fn runtime() -> PyResult<&'static Handle> {
    same()?;
    HANDLE
        .get()
        .ok_or_else(|| PyRuntimeError::new_err("the module was not loaded"))
}

/// Ends the runtime and its threads: at the interpreter's end, when the agents are closed. A thread that returned to
/// the interpreter later would crash it.
#[pyfunction]
pub(crate) fn end(py: Python<'_>) {
    if same().is_err() {
        return;
    }
    let runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(runtime) = runtime {
        py.detach(|| runtime.shutdown_timeout(ENDS_WITHIN));
    }
}

/// Converts a future of the SDK to a future of the running event loop. Cancelling the latter drops the former.
pub(crate) fn awaitable<'py, F, T>(py: Python<'py>, future: F) -> PyResult<Bound<'py, PyAny>>
where
    F: Future<Output = PyResult<T>> + Send + 'static,
    T: for<'any> IntoPyObject<'any> + Send + 'static,
{
    let runtime = runtime()?;
    let event_loop = py.import("asyncio")?.call_method0("get_running_loop")?;
    let awaited = event_loop.call_method0("create_future")?;
    let (to, waiting) = (event_loop.unbind(), awaited.clone().unbind());
    let task = runtime.spawn(async move {
        let done = future.await;
        // Without an interpreter nobody can receive it.
        let _ = Python::try_attach(|py| deliver(py, &to, &waiting, done));
    });
    awaited.call_method1(
        "add_done_callback",
        (Ended {
            task: task.abort_handle(),
        },),
    )?;
    Ok(awaited)
}

/// Passes a result to the event loop: only its thread may touch the future.
fn deliver<T>(py: Python<'_>, to: &Py<PyAny>, waiting: &Py<PyAny>, done: PyResult<T>) -> PyResult<()>
where
    T: for<'any> IntoPyObject<'any>,
{
    let (value, error) = match done.and_then(|value| value.into_py_any(py)) {
        Ok(value) => (value, py.None()),
        Err(error) => (py.None(), error.into_py_any(py)?),
    };
    let settle = pyo3::wrap_pyfunction!(settle, py)?;
    // A loop that was closed meanwhile does not wait.
    to.call_method1(py, "call_soon_threadsafe", (settle, waiting, value, error))?;
    Ok(())
}

/// Settles a future of the event loop, unless it was cancelled.
#[pyfunction]
fn settle(waiting: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>, error: &Bound<'_, PyAny>) -> PyResult<()> {
    if waiting.call_method0("done")?.is_truthy()? {
        return Ok(());
    }
    match error.is_none() {
        true => waiting.call_method1("set_result", (value,))?,
        false => waiting.call_method1("set_exception", (error,))?,
    };
    Ok(())
}

/// Called when a future of the event loop is done: a task without a waiter is dropped.
#[pyclass(frozen)]
struct Ended {
    task: AbortHandle,
}

#[pymethods]
impl Ended {
    fn __call__(&self, waiting: &Bound<'_, PyAny>) -> PyResult<()> {
        if waiting.call_method0("cancelled")?.is_truthy()? {
            self.task.abort();
        }
        Ok(())
    }
}

/// Fails in a process that was forked from the one that loaded the module.
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
