//! The native half of the Python package `skytale`: the SDK's agents and channels as Python awaitables.
//!
//! ```text
//!   skytale (Python: types, JSON, context managers, the synchronous twin)
//!      |
//!   skytale._skytale (this crate: values in and out, one tokio runtime a process)
//!      |
//!   skytale_sdk
//! ```
//!
//! # Rules
//! - No logic here: a method converts its arguments to the SDK's types, awaits one future of the SDK, and converts the
//!   result to Python's types.
//! - A future runs on the runtime's threads without the interpreter's lock, which is taken only for its result. If
//!   Python cancels an awaitable, its future is dropped, which the SDK allows.
//! - A forked process has the runtime's memory without its threads: each call there is an error.

mod agent;
mod channel;
mod error;
mod messages;
mod process;

use pyo3::prelude::*;

/// The native half of `skytale`. Use that one.
#[pymodule]
fn _skytale(module: &Bound<'_, PyModule>) -> PyResult<()> {
    process::begin()?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(agent::open, module)?)?;
    module.add_function(wrap_pyfunction!(process::end, module)?)?;
    module.add_class::<agent::Agent>()?;
    module.add_class::<agent::Events>()?;
    module.add_class::<channel::Channel>()?;
    module.add_class::<channel::Sent>()?;
    module.add_class::<messages::Message>()?;
    module.add_class::<messages::Messages>()?;
    Ok(())
}
