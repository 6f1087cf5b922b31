//! Errors of a session.

use crate::net::token::TokenError;
use skytale_proto::session::{MessageError, Refusal};
use skytale_proto::{AgentId, Code, Offset};
use std::time::Duration;

/// Longest part kept of a relay's text, in characters.
const MESSAGE_CHARS_MAX: usize = 300;
/// The longest wait that a relay may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// A refusal of a relay node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("relay refused ({}): {message}", self.code())]
#[non_exhaustive]
pub struct Refused {
    /// The code's number, even if this version does not know it.
    pub number: u32,
    /// The problem, in the relay's words: bounded, and without control characters.
    pub message: String,
    /// Whether a retry may succeed.
    pub retryable: bool,
    /// Delay before a retry, if the relay requested one.
    pub retry_after: Option<Duration>,
    /// The offset that the code is about: the handshake head, or the first available offset.
    pub offset: Offset,
    /// The agent that the code is about, if any.
    pub agent: Option<AgentId>,
}

impl Refused {
    /// Returns the code; [`Code::RelayInternal`] if this version does not know the number.
    pub fn code(&self) -> Code {
        Code::from_number(self.number).unwrap_or(Code::RelayInternal)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self {
            number: refusal.code,
            message: shown(&refusal.message),
            // A known code decides: a relay cannot make an agent retry forever if it cannot succeed.
            retryable: Code::from_number(refusal.code).map_or(refusal.retryable, Code::is_retryable),
            retry_after: (refusal.retry_after_ms > 0)
                .then(|| Duration::from_millis(refusal.retry_after_ms).min(RETRY_AFTER_MAX)),
            offset: Offset::new(refusal.offset),
            agent: AgentId::try_from(refusal.agent.as_ref()).ok(),
        }
    }
}

/// Sanitizes a relay's text, so that it can be stored and shown.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .take(MESSAGE_CHARS_MAX)
        .map(|char| if char.is_control() { '\u{fffd}' } else { char })
        .collect()
}

/// Error of a session's operation.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The relay node is unreachable.
    #[error("relay not reached: {reason}")]
    Unreachable {
        /// The reason, in words.
        reason: String,
    },
    /// The relay refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The connection is lost. Frames in flight may be in the log.
    #[error("connection to the relay lost: {reason}")]
    Lost {
        /// [`Code::KeepaliveLost`] if it had been silent, else [`Code::Offline`].
        code: Code,
        /// The reason, in words.
        reason: String,
    },
    /// The relay is reachable, but has owed an answer for longer than a healthy node takes.
    #[error("the relay answers, and has not given {what} for {} ms", .waited.as_millis())]
    Unanswered {
        /// The overdue answer.
        what: &'static str,
        /// Time that it is owed.
        waited: Duration,
    },
    /// The relay violated the protocol.
    #[error("relay broke the protocol: {problem}")]
    Protocol {
        /// [`Code::MessageTooLarge`] or [`Code::MessageMalformed`].
        code: Code,
        /// The violation, in words.
        problem: String,
    },
    /// An entry is missing, duplicated or out of order.
    #[error("the log has a gap: entry {expected} was expected, {found} came")]
    Gap {
        /// The expected offset.
        expected: Offset,
        /// The offset found instead.
        found: Offset,
    },
    /// There is no token for the session.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A failure on this side.
    #[error("{reason}")]
    Local {
        /// The code.
        code: Code,
        /// The failure, in words.
        reason: String,
    },
    /// This side closed the session.
    #[error("the session was closed")]
    Closed,
}

impl RelayError {
    pub(super) fn protocol(problem: impl Into<String>) -> Self {
        Self::Protocol {
            code: Code::MessageMalformed,
            problem: problem.into(),
        }
    }

    pub(super) fn lost(reason: impl Into<String>) -> Self {
        Self::Lost {
            code: Code::Offline,
            reason: reason.into(),
        }
    }

    /// Returns the error code.
    pub fn code(&self) -> Code {
        match self {
            Self::Unreachable { .. } => Code::Offline,
            Self::Refused(refused) => refused.code(),
            Self::Lost { code, .. } | Self::Protocol { code, .. } | Self::Local { code, .. } => *code,
            Self::Unanswered { .. } => Code::Unanswered,
            Self::Gap { .. } => Code::Gap,
            Self::Token(error) => error.code(),
            Self::Closed => Code::Closed,
        }
    }

    /// Returns what to do about it.
    pub fn help(&self) -> &'static str {
        self.code().help()
    }

    /// Whether the same operation may succeed later, possibly at another relay node.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Lost { .. } | Self::Unanswered { .. } => true,
            // Another relay node may be healthy.
            Self::Protocol { .. } | Self::Gap { .. } => true,
            Self::Refused(refused) => refused.retryable,
            Self::Token(error) => error.is_retryable(),
            Self::Local { code, .. } => code.is_retryable(),
            Self::Closed => false,
        }
    }

    /// Returns the requested delay before a retry, if there is one.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refused) => refused.retry_after,
            Self::Token(error) => error.retry_after(),
            _ => None,
        }
    }

    /// Returns the refusal, if it is one.
    pub const fn refused(&self) -> Option<&Refused> {
        match self {
            Self::Refused(refused) => Some(refused),
            _ => None,
        }
    }
}

impl From<MessageError> for RelayError {
    fn from(error: MessageError) -> Self {
        Self::Protocol {
            code: error.code(),
            problem: error.to_string(),
        }
    }
}
