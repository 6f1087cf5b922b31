//! Refusals: what a peer gets, from each thing that can be wrong.

use crate::metrics;
use crate::stream::ReceiveError;
use skytale_log_store::{AppendError, StoreError};
use skytale_proto::session::Refusal;
use skytale_proto::token::TokenError;
use skytale_proto::{AgentId, Code};
use std::fmt;
use std::time::Duration;

/// Time for which an agent leaves a log alone whose home does not answer: the store has asked for longer than that
/// already.
const HOME_RETRY_AFTER: Duration = Duration::from_secs(1);
/// Time for which an agent leaves a log alone that this node has not followed far enough. Other nodes may have.
const CATCHING_UP_RETRY_AFTER: Duration = Duration::from_millis(500);
/// Time after which an agent offers a frame again to a node whose disk is full.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Counts a refusal on its way out.
pub(crate) fn counted(refusal: Refusal) -> Refusal {
    metrics::refused(refusal.known_code());
    refusal
}

/// Returns the refusal for an append that failed. A store's own words stay in this node's log if they name files.
pub(crate) fn of_append(error: &AppendError) -> Refusal {
    match error {
        AppendError::Refused(refused) => {
            let refusal = Refusal::because(refused.code(), refused.to_string());
            let refusal = match refused.offset() {
                Some(offset) => refusal.at(offset),
                None => refusal,
            };
            match refused.agent() {
                Some(agent) => refusal.about(&agent),
                None => refusal,
            }
        }
        AppendError::Store(error) => of_store(error),
    }
}

/// Returns the refusal for a read that failed.
pub(crate) fn of_store(error: &StoreError) -> Refusal {
    match error {
        StoreError::Trimmed { first } => Refusal::because(error.code(), error.to_string()).at(*first),
        StoreError::BeyondHead { head, .. } => Refusal::because(error.code(), error.to_string()).at(*head),
        StoreError::Stopped { .. } => Refusal::because(error.code(), "the store takes no appends"),
        StoreError::Full { .. } => {
            let why = "the relay node's disk is full: no appends are taken until there is room";
            Refusal::because(error.code(), why).after(FULL_RETRY_AFTER)
        }
        StoreError::Corrupt { .. } => Refusal::because(error.code(), "a stored entry is damaged"),
        StoreError::HomeUnreachable { .. } => {
            let why = "the log's home region does not answer; the frame may be sent again";
            Refusal::because(error.code(), why).after(HOME_RETRY_AFTER)
        }
        StoreError::CatchingUp { .. } => {
            let why = "this relay node has not followed the log that far";
            Refusal::because(error.code(), why).after(CATCHING_UP_RETRY_AFTER)
        }
        StoreError::Io { .. } => Refusal::because(error.code(), "the store could not answer"),
    }
}

/// Returns the refusal for a token that failed.
pub(crate) fn of_token(error: &TokenError) -> Refusal {
    Refusal::because(error.code, error.reason.clone())
}

/// Returns the refusal for bytes that are no message; `None` if nobody is there to answer.
pub(crate) fn of_receive(error: &ReceiveError) -> Option<Refusal> {
    error.code().map(|code| Refusal::because(code, error.to_string()))
}

/// Something failed in this node.
pub(crate) fn internal() -> Refusal {
    Refusal::because(Code::RelayInternal, "the relay node could not do this")
}

/// An agent as it appears in logs: the beginning of its id.
pub(crate) struct Short<'a>(pub(crate) &'a AgentId);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, ..] = self.0.as_bytes().as_chunks::<5>().0 else {
            return Ok(());
        };
        first.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
