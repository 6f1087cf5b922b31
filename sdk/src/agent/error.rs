//! Errors of operations on agents and channels.

use crate::engine::EngineError;
use crate::net::RelayError;
use skytale_proto::{AgentId, ChannelId, Code, FrameId};
use std::time::Duration;

/// Error of an operation on an agent or a channel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The relay node refused, or is unreachable.
    #[error(transparent)]
    Relay(RelayError),
    /// No session with a relay node within the operation's timeout.
    #[error("no relay node was reached within {} s", waited.as_secs())]
    Offline {
        /// Time that the call waited.
        waited: Duration,
    },
    /// A message or change will not be delivered.
    #[error("frame {frame_id} will not be delivered: {}", code.help())]
    SendFailed {
        /// Frame id of the message or change.
        frame_id: FrameId,
        /// The error code.
        code: Code,
    },
    /// No answer to a request in time. The request is not withdrawn: an answer may still come.
    #[error(
        "no answer to request {frame_id} within {} s: {}",
        waited.as_secs(),
        if *delivered { "it was delivered" } else { "it is not delivered yet" }
    )]
    NoReply {
        /// The request's frame.
        frame_id: FrameId,
        /// Whether the request is in the log; if not, it waits in the outbox.
        delivered: bool,
        /// Time that the call waited.
        waited: Duration,
    },
    /// An agent cannot be added: it has no usable KeyPackage.
    #[error("{agent} cannot be added: {source}")]
    NotAdded {
        /// The agent.
        agent: AgentId,
        /// The cause.
        source: Box<Self>,
    },
    /// None of several agents can be added.
    #[error("nobody can be added: {}", listed(refused))]
    NobodyAdded {
        /// Each agent, with its error.
        refused: Vec<(AgentId, Self)>,
    },
    /// The channel cannot be followed in the current session.
    #[error("channel {channel} cannot be followed: {}", code.help())]
    NotFollowed {
        /// The channel.
        channel: ChannelId,
        /// The error code.
        code: Code,
    },
    /// The agent is closed, or was dropped.
    #[error("the agent is closed")]
    Closed,
    /// The process that has the vault open, and works for this agent, has closed the vault or exited. See
    /// [`Agent::open_or_attach`](super::Agent::open_or_attach).
    #[error("the process that had the vault open has closed it{}", if *unknown { " before it answered" } else { "" })]
    OwnerGone {
        /// Whether the operation may still have taken effect.
        unknown: bool,
    },
    /// The process that has the vault open refused, or failed.
    #[error("{reason}")]
    Owner {
        /// The error code.
        code: Code,
        /// The reason, in words.
        reason: String,
        /// Whether the same call may succeed later.
        retryable: bool,
    },
    /// A thread, a socket, or a part of the async runtime is unavailable.
    #[error("{reason}")]
    Environment {
        /// Description of the failure.
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
    /// Returns the error code.
    pub fn code(&self) -> Code {
        match self {
            Self::Engine(error) => error.code(),
            Self::Relay(error) => error.code(),
            Self::Offline { .. } => Code::Offline,
            Self::NoReply { .. } => Code::NoReply,
            Self::SendFailed { code, .. } | Self::NotFollowed { code, .. } => *code,
            Self::NotAdded { source, .. } => source.code(),
            Self::NobodyAdded { refused } => refused
                .first()
                .map_or(Code::KeyPackagesExhausted, |(_, error)| error.code()),
            Self::Closed => Code::Closed,
            Self::OwnerGone { unknown: false } => Code::VaultOwnerGone,
            Self::OwnerGone { unknown: true } => Code::OutcomeUnknown,
            Self::Owner { code, .. } => *code,
            Self::Environment { .. } => Code::Environment,
        }
    }

    /// Returns what to do about it.
    pub fn help(&self) -> &'static str {
        self.code().help()
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Relay(error) => error.is_retryable(),
            Self::SendFailed { .. } => false,
            Self::Owner { retryable, .. } => *retryable,
            Self::NotAdded { source, .. } => source.is_retryable(),
            Self::NobodyAdded { refused } => refused.iter().any(|(_, error)| error.is_retryable()),
            _ => self.code().is_retryable(),
        }
    }

    /// Names the agent that could not be added, if the error is about that agent.
    pub(crate) fn of(self, agent: AgentId) -> Self {
        match self {
            error if error.is_own() || matches!(error, Self::Offline { .. }) => error,
            error => Self::NotAdded {
                agent,
                source: Box::new(error),
            },
        }
    }

    /// Whether the cause lies in this agent (its vault, or that it is closed), and not in the agent to be added.
    pub(crate) const fn is_own(&self) -> bool {
        match self {
            Self::Closed | Self::OwnerGone { .. } | Self::Engine(EngineError::Vault(_)) => true,
            Self::Owner { code, .. } => matches!(
                code,
                Code::VaultFull | Code::VaultIo | Code::VaultDamaged | Code::VaultInUse | Code::VaultOwnerVersion
            ),
            _ => false,
        }
    }
}

fn listed(refused: &[(AgentId, AgentError)]) -> String {
    let each: Vec<_> = refused
        .iter()
        .map(|(agent, error)| format!("{agent}: {error}"))
        .collect();
    each.join("; ")
}
