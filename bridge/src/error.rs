//! Refusals and start errors of the bridge.

use skytale_proto::Code;
use skytale_sdk::internals::raw::RawError;
use std::fmt;

/// A refusal: a code, and a sentence.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{problem} ({code})")]
pub struct Refusal {
    code: Code,
    problem: String,
}

impl Refusal {
    /// Makes a refusal with a code and the problem.
    pub fn new(code: Code, problem: impl fmt::Display) -> Self {
        Self {
            code,
            problem: problem.to_string(),
        }
    }

    /// The code.
    pub const fn code(&self) -> Code {
        self.code
    }

    /// Returns it as a gRPC status. A client that gets `PERMISSION_DENIED` does not connect again by itself.
    pub fn status(&self) -> tonic::Status {
        let text = self.to_string();
        match self.code {
            Code::LinkNegotiation => tonic::Status::failed_precondition(text),
            Code::LinkMac | Code::BridgeUnauthorized => tonic::Status::unauthenticated(text),
            Code::NameRefused => tonic::Status::permission_denied(text),
            Code::LinkMessage => tonic::Status::invalid_argument(text),
            Code::LinksFull
            | Code::SubscriptionsFull
            | Code::RateLimited
            | Code::AccountRateLimited
            | Code::AccountChannels
            | Code::AccountStored
            | Code::MessageTooLarge => tonic::Status::resource_exhausted(text),
            _ => tonic::Status::unavailable(text),
        }
    }
}

impl From<RawError> for Refusal {
    fn from(error: RawError) -> Self {
        Self::new(error.code(), error)
    }
}

/// Reason why the bridge did not start.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// A configuration key that cannot be used.
    #[error("`{key}` {problem}")]
    Config {
        /// The key.
        key: &'static str,
        /// The problem with it.
        problem: String,
    },
    /// An address or file that cannot be used.
    #[error("{problem}")]
    Environment {
        /// The problem.
        problem: String,
    },
    /// The relay client.
    #[error(transparent)]
    Raw(#[from] RawError),
}

impl BridgeError {
    /// The code.
    pub fn code(&self) -> Code {
        match self {
            Self::Config { .. } => Code::Config,
            Self::Environment { .. } => Code::Environment,
            Self::Raw(error) => error.code(),
        }
    }
}
