//! Why an agent's or a channel's operation was not done.

use crate::engine::EngineError;
use crate::net::RelayError;
use skytale_proto::{Code, FrameId};
use std::time::Duration;

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The relay node refused, or is not reached.
    #[error(transparent)]
    Relay(RelayError),
    /// No session with a relay node within the time that an operation waits for one.
    #[error("no relay node was reached within {} s", waited.as_secs())]
    Offline {
        /// How long it waited.
        waited: Duration,
    },
    /// What was sent will not be delivered.
    #[error("frame {frame_id} will not be delivered: {}", code.help())]
    SendFailed {
        /// As it was sent.
        frame_id: FrameId,
        /// Why.
        code: Code,
    },
    /// The agent is closed, or was dropped.
    #[error("the agent is closed")]
    Closed,
    /// A thread, a socket, or a part of the async runtime could not be had.
    #[error("{reason}")]
    Environment {
        /// What.
        reason: String,
    },
}

impl From<RelayError> for AgentError {
    fn from(error: RelayError) -> Self {
        match error {
            RelayError::Local {
                code: Code::Environment,
                reason,
            } => Self::Environment { reason },
            error => Self::Relay(error),
        }
    }
}

impl AgentError {
    /// The code.
    pub fn code(&self) -> Code {
        match self {
            Self::Engine(error) => error.code(),
            Self::Relay(error) => error.code(),
            Self::Offline { .. } => Code::Offline,
            Self::SendFailed { code, .. } => *code,
            Self::Closed => Code::Closed,
            Self::Environment { .. } => Code::Environment,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Relay(error) => error.is_retryable(),
            Self::SendFailed { .. } => false,
            _ => self.code().is_retryable(),
        }
    }
}
