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
    Relay(#[from] RelayError),
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
    /// The agent is closed.
    #[error("the agent is closed")]
    Closed,
    /// The process that has the vault open, and does this agent's work, has closed it or has ended. See
    /// [`Agent::open_or_attach`](super::Agent::open_or_attach).
    #[error("the process that had the vault open has closed it{}", if *unknown { " before it answered" } else { "" })]
    OwnerGone {
        /// Whether the operation may have been done all the same.
        unknown: bool,
    },
    /// The process that has the vault open refused, or failed.
    #[error("{reason}")]
    Owner {
        /// Why.
        code: Code,
        /// Why, in words.
        reason: String,
        /// Whether the same call may succeed later.
        retryable: bool,
    },
    /// A thread or a socket could not be had.
    #[error("{reason}")]
    Environment {
        /// What.
        reason: String,
    },
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
            Self::OwnerGone { unknown: false } => Code::VaultOwnerGone,
            Self::OwnerGone { unknown: true } => Code::OutcomeUnknown,
            Self::Owner { code, .. } => *code,
            Self::Environment { .. } => Code::Environment,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Relay(error) => error.is_retryable(),
            Self::SendFailed { .. } => false,
            Self::Owner { retryable, .. } => *retryable,
            _ => self.code().is_retryable(),
        }
    }
}
