//! What goes wrong with a raw log.

use crate::net::RelayError;
use skytale_proto::{Code, FrameError};

/// Why an operation on a raw log failed. What another attempt can mend is tried again by the client itself.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RawError {
    /// A relay node said no, and will say so again.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The body does not fit into a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The token does not name an account.
    #[error("the token names no account: {problem}")]
    Account {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The client was closed.
    #[error("the raw log client is closed")]
    Closed,
}

impl RawError {
    /// The code.
    pub fn code(&self) -> Code {
        match self {
            Self::Relay(error) => error.code(),
            Self::Frame(error) => error.code(),
            Self::Account { .. } => Code::TokenMalformed,
            Self::Closed => Code::Closed,
        }
    }
}
