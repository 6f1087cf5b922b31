//! What is said after the greeting.

use crate::agent::AgentError;
use crate::agent::bus::Outlook;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skytale_proto::{Code, FrameId, Offset};
use std::error::Error;
use std::io::{self, ErrorKind};

/// CBOR.
pub(super) fn encode(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// The other way. What follows the value is ignored.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    ciborium::from_reader(bytes).map_err(|error| io::Error::new(ErrorKind::InvalidData, error.to_string()))
}

/// What became of something that a guest has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settled {
    pub(super) frame_id: FrameId,
    pub(super) fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Fate {
    Delivered(Offset),
    Unneeded,
    /// A code's number.
    Failed(u32),
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fault {
    /// A code's number.
    code: u32,
    reason: String,
    retryable: bool,
}

impl Fault {
    pub(super) fn new(code: Code, reason: impl Into<String>) -> Self {
        Self {
            code: code.number(),
            reason: reason.into(),
            retryable: code.is_retryable(),
        }
    }

    /// The owner closes: nothing of the request was done, or it was a wait.
    pub(super) fn closing() -> Self {
        Self::new(Code::VaultOwnerGone, "the vault is being closed")
    }
}

/// Why waits end that need a session; `None` where they need not.
pub(super) type Prospect = Option<Fault>;

impl From<Fault> for Outlook {
    fn from(fault: Fault) -> Self {
        Self::OwnerFailed {
            code: Code::from_number(fault.code).unwrap_or(Code::VaultOwnerVersion),
            reason: fault.reason,
            retryable: fault.retryable,
        }
    }
}

impl From<AgentError> for Fault {
    fn from(error: AgentError) -> Self {
        // An agent that is closed under a request has not done it.
        if matches!(error, AgentError::Closed) {
            return Self::closing();
        }
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !reason.contains(&text) {
                reason = format!("{reason}: {text}");
            }
            source = cause.source();
        }
        Self {
            code: error.code().number(),
            reason,
            retryable: error.is_retryable(),
        }
    }
}

impl From<Fault> for AgentError {
    fn from(fault: Fault) -> Self {
        match Code::from_number(fault.code) {
            Some(Code::VaultOwnerGone) => Self::OwnerGone { unknown: false },
            Some(code) => Self::Owner {
                code,
                reason: fault.reason,
                retryable: fault.retryable,
            },
            None => Self::Owner {
                code: Code::VaultOwnerVersion,
                reason: format!("SKY-{}: {}", fault.code, fault.reason),
                retryable: fault.retryable,
            },
        }
    }
}
