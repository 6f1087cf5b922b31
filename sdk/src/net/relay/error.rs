//! What goes wrong in a session.

use crate::net::token::TokenError;
use skytale_proto::session::{MessageError, Refusal};
use skytale_proto::{AgentId, Code, Offset};
use std::time::Duration;

/// How much of a relay's text is kept, in characters.
const MESSAGE_CHARS_MAX: usize = 300;
/// The longest wait that a relay may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// A refusal, as a relay node gave it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("relay refused ({}): {message}", self.code())]
#[non_exhaustive]
pub struct Refused {
    /// The code's number, also where this version does not know it.
    pub number: u32,
    /// What was wrong, in the relay's words: bounded, and without control characters.
    pub message: String,
    /// Whether trying again can help.
    pub retryable: bool,
    /// How long to wait before that, where the relay said it.
    pub retry_after: Option<Duration>,
    /// The offset that the code is about: the handshake head, or the first available offset.
    pub offset: Offset,
    /// The agent that the code is about, where it is about one.
    pub agent: Option<AgentId>,
}

impl Refused {
    /// The code; [`Code::RelayInternal`] where this version does not know the number.
    pub fn code(&self) -> Code {
        Code::from_number(self.number).unwrap_or(Code::RelayInternal)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self {
            number: refusal.code,
            message: shown(&refusal.message),
            // A code that is known decides: a relay cannot make an agent try for ever what cannot succeed.
            retryable: Code::from_number(refusal.code).map_or(refusal.retryable, Code::is_retryable),
            retry_after: (refusal.retry_after_ms > 0)
                .then(|| Duration::from_millis(refusal.retry_after_ms).min(RETRY_AFTER_MAX)),
            offset: Offset::new(refusal.offset),
            agent: AgentId::try_from(refusal.agent.as_ref()).ok(),
        }
    }
}

/// A relay's text as it may be kept and shown.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .take(MESSAGE_CHARS_MAX)
        .map(|char| if char.is_control() { '\u{fffd}' } else { char })
        .collect()
}

/// Why an operation of a session failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// No connection.
    #[error("relay not reached: {reason}")]
    Unreachable {
        /// Why.
        reason: String,
    },
    /// The relay said no.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The connection is gone. What was in flight may be in the log.
    #[error("connection to the relay lost: {reason}")]
    Lost {
        /// [`Code::KeepaliveLost`] where it had been silent, else [`Code::Offline`].
        code: Code,
        /// Why.
        reason: String,
    },
    /// The relay is there, and owes an answer for longer than a sound one takes.
    #[error("the relay answers, and has not given {what} for {} ms", .waited.as_millis())]
    Unanswered {
        /// What it owes.
        what: &'static str,
        /// For how long.
        waited: Duration,
    },
    /// The relay sent what the protocol does not allow.
    #[error("relay broke the protocol: {problem}")]
    Protocol {
        /// [`Code::MessageTooLarge`] or [`Code::MessageMalformed`].
        code: Code,
        /// What it sent.
        problem: String,
    },
    /// An entry is missing, or came twice or out of order.
    #[error("the log has a gap: entry {expected} was expected, {found} came")]
    Gap {
        /// The offset that had to come.
        expected: Offset,
        /// The offset that came.
        found: Offset,
    },
    /// No token for the session.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Something on this side.
    #[error("{reason}")]
    Local {
        /// The code.
        code: Code,
        /// What.
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

    /// The code.
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

    /// What to do about it.
    pub fn help(&self) -> &'static str {
        self.code().help()
    }

    /// Whether the same may succeed later, perhaps at another relay node.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Lost { .. } | Self::Unanswered { .. } => true,
            // Another relay node may be sound.
            Self::Protocol { .. } | Self::Gap { .. } => true,
            Self::Refused(refused) => refused.retryable,
            Self::Token(error) => error.is_retryable(),
            Self::Local { code, .. } => code.is_retryable(),
            Self::Closed => false,
        }
    }

    /// How long to wait before trying again, where that was said.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refused) => refused.retry_after,
            Self::Token(error) => error.retry_after(),
            _ => None,
        }
    }

    /// The refusal, if it is one.
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
