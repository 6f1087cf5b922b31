//! Messages after the greeting.

use crate::agent::AgentError;
use crate::agent::bus::Outlook;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skytale_proto::{Code, FrameId, Offset};
use std::error::Error;
use std::io::{self, ErrorKind};

/// Encodes a value as CBOR.
pub(super) fn encode(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// Decodes a value from CBOR. Trailing bytes are ignored.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    ciborium::from_reader(bytes).map_err(|error| io::Error::new(ErrorKind::InvalidData, error.to_string()))
}

/// Outcome of a guest's send.
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

/// Reason why a request failed.
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

    /// Returns the fault of a closing owner: the request had no effect, or was a wait.
    pub(super) fn closing() -> Self {
        Self::new(Code::VaultOwnerGone, "the vault is being closed")
    }
}

/// Reason why waits that need a session fail; `None` if they do not.
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
        // If the agent was closed under a request, the request had no effect.
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
