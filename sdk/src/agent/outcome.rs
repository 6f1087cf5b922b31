//! Conversion of a relay's answer for the engine.

use crate::engine::{LogStatus, Outcome, RollbackWord};
use crate::net::RelayError;
use crate::net::relay::{self, Receipt};
use skytale_proto::Code;

/// Returns the outcome for the engine; `None` if the answer was lost and the frame may be in the log.
pub(super) fn outcome_of(answer: &Result<Receipt, RelayError>) -> Option<Outcome> {
    let refused = match answer {
        Ok(receipt) if receipt.duplicate => {
            return Some(Outcome::Duplicate { offset: receipt.offset });
        }
        Ok(receipt) => {
            return Some(Outcome::Appended { offset: receipt.offset });
        }
        Err(error) => error.refused()?,
    };
    Some(match (refused.code(), refused.agent) {
        (Code::StaleEpoch, _) => Outcome::StaleEpoch { head: refused.offset },
        (Code::StaleHandshake, _) => Outcome::StaleHandshake { head: refused.offset },
        (Code::RosterChange, Some(agent)) => Outcome::RosterChange { agent },
        (code, _) => Outcome::Refused {
            code,
            retryable: refused.retryable,
        },
    })
}

impl From<relay::LogStatus> for LogStatus {
    fn from(status: relay::LogStatus) -> Self {
        Self {
            head: status.head,
            first: status.first,
            given_up: status.given_up,
            handshake_head: status.handshake_head,
            welcomes: status.welcomes,
            rollback: status.rollback.map(|(at_ms, head)| RollbackWord { at_ms, head }),
        }
    }
}
