//! The SDK's errors as Python's exceptions.

use pyo3::prelude::*;
use skytale_sdk::{AgentError, Code, IdError};

/// The module that maps codes to exceptions.
const ERRORS: &str = "skytale._errors";

pub(crate) fn of(error: &AgentError) -> PyErr {
    let code = error.code();
    raise(code, error.to_string(), error.is_retryable(), code.help())
}

/// Returns the exception for an argument that is not an id.
pub(crate) fn of_id(error: &IdError) -> PyErr {
    raise(
        Code::BadRequest,
        error.to_string(),
        false,
        "Give an id as the SDK prints it.",
    )
}

/// Returns the exception of a code, with its help text.
pub(crate) fn raise(code: Code, message: String, retryable: bool, help: &str) -> PyErr {
    let made = Python::try_attach(|py| {
        let made = py
            .import(ERRORS)
            .and_then(|errors| errors.call_method1("of", (code.to_string(), message, retryable, help)));
        match made {
            Ok(exception) => PyErr::from_value(exception),
            Err(error) => error,
        }
    });
    // If the interpreter has ended, nobody sees it.
    made.unwrap_or_else(|| pyo3::exceptions::PySystemExit::new_err(()))
}
