//! Reason why a session ends, told once to everything that belongs to it.

use skytale_proto::Code;
use skytale_proto::session::Refusal;
use std::sync::OnceLock;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// Reason why a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) code: Code,
    pub(crate) message: &'static str,
}

impl Ending {
    pub(crate) const fn new(code: Code, message: &'static str) -> Self {
        Self { code, message }
    }

    pub(crate) fn refusal(&self) -> Refusal {
        Refusal::because(self.code, self.message)
    }
}

/// Ends a session; the first reason is kept.
#[derive(Debug, Default)]
pub(crate) struct EndSignal {
    token: CancellationToken,
    why: OnceLock<Ending>,
}

impl EndSignal {
    pub(crate) fn end(&self, why: Ending) {
        // A later reason is none.
        let _ = self.why.set(why);
        self.token.cancel();
    }

    /// The agent is gone: there is nobody to tell a reason.
    pub(crate) fn end_unsaid(&self) {
        self.token.cancel();
    }

    pub(crate) fn ended(&self) -> WaitForCancellationFuture<'_> {
        self.token.cancelled()
    }

    pub(crate) fn why(&self) -> Option<&Ending> {
        self.why.get()
    }
}
