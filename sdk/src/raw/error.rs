//! Errors of operations on raw logs.

use crate::net::RelayError;
use skytale_proto::{Code, FrameError};

/// Error of an operation on a raw log. The client itself retries errors that a retry can fix.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RawError {
    /// A relay node refused permanently.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The body does not fit into a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The token does not name an account.
    #[error("the token names no account: {problem}")]
    Account {
        /// The problem, in words.
        problem: &'static str,
    },
    /// The client was closed.
    #[error("the raw log client is closed")]
    Closed,
}

impl RawError {
    /// Returns the error code.
    pub fn code(&self) -> Code {
        match self {
            Self::Relay(error) => error.code(),
            Self::Frame(error) => error.code(),
            Self::Account { .. } => Code::TokenMalformed,
            Self::Closed => Code::Closed,
        }
    }
}
