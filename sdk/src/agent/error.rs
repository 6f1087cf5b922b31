//! Why an agent's or a channel's operation was not done.

use crate::engine::EngineError;
use crate::net::RelayError;
use skytale_proto::{AgentId, ChannelId, Code, FrameId};
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
    /// Nobody has answered a request in time. It is not taken back: an answer may still come.
    #[error(
        "no answer to request {frame_id} within {} s: {}",
        waited.as_secs(),
        if *delivered { "it was delivered" } else { "it is not delivered yet" }
    )]
    NoReply {
        /// The request's frame.
        frame_id: FrameId,
        /// The request is in the log; else it waits in the outbox.
        delivered: bool,
        /// How long the call waited.
        waited: Duration,
    },
    /// An agent cannot be added: no KeyPackage of it is to be had.
    #[error("{agent} cannot be added: {source}")]
    NotAdded {
        /// Whom.
        agent: AgentId,
        /// Why.
        source: Box<Self>,
    },
    /// None of several agents can be added.
    #[error("nobody can be added: {}", listed(refused))]
    NobodyAdded {
        /// Who, and why.
        refused: Vec<(AgentId, Self)>,
    },
    /// The channel cannot be followed in the session that there is.
    #[error("channel {channel} cannot be followed: {}", code.help())]
    NotFollowed {
        /// The channel.
        channel: ChannelId,
        /// Why.
        code: Code,
    },
    /// The agent is closed, or was dropped.
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

    /// What to do about it.
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

    /// Names the agent that could not be added, where the error is about that agent.
    pub(crate) fn of(self, agent: AgentId) -> Self {
        match self {
            error if error.is_own() || matches!(error, Self::Offline { .. }) => error,
            error => Self::NotAdded {
                agent,
                source: Box::new(error),
            },
        }
    }

    /// Whether this agent is at fault, and not the one that it is about: its vault, or that it is closed.
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
