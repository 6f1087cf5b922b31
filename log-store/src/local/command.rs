//! Requests to the writer, and how those who made them are answered.

use super::known::Known;
use super::position::ShardPosition;
use super::replica::{Answer, Follow};
use crate::{Accepted, AppendError, Lent, StoreError};
use skytale_proto::{Frame, LogId, Offset};
use tokio::sync::oneshot;

/// Request to the writer.
pub(crate) enum Command {
    /// Append a frame, unless one of its log was refused for lack of room since it was asked for.
    Append { frame: Frame, asked: Asked, answer: Teller },
    /// Give up entries of logs. Answered with the number of the batch that says so.
    Retire {
        logs: Vec<Retired>,
        answer: oneshot::Sender<Result<u64, StoreError>>,
    },
    /// Seal the open segment, if it holds an entry from before this time. Answered with whether it did.
    Seal {
        before_ms: u64,
        answer: oneshot::Sender<Result<bool, StoreError>>,
    },
    /// Fold messages of a stream.
    Follow { follow: Follow, answer: Answer },
    /// Take in states of logs that are not here.
    Install {
        states: Vec<Known>,
        position: ShardPosition,
        answer: Answer,
    },
    /// There may be room again for waiting messages.
    Resume,
    /// Take nothing more.
    Close,
}

/// The caller of an append.
#[derive(Clone, Copy)]
pub(crate) enum Asked {
    /// An author, at this time: [`super::space::Space::asked`].
    Author(u64),
    /// The store itself: a Welcome that is owed, before all others.
    Store,
}

/// A log whose oldest entries are given up.
#[derive(Clone, Copy)]
pub(crate) struct Retired {
    pub(crate) log: LogId,
    /// The last offset given up; `None` where only the state is to be written.
    pub(crate) up_to: Option<Offset>,
    /// Write the log's state into the sequence.
    pub(crate) with_state: bool,
}

/// An author's answer.
pub(crate) type Outcome = Result<Accepted, AppendError>;

/// Tells an author, and gives back what the append was lent.
pub(crate) struct Teller {
    answer: oneshot::Sender<Outcome>,
    _lent: Option<Lent>,
}

impl Teller {
    pub(crate) const fn new(answer: oneshot::Sender<Outcome>, lent: Option<Lent>) -> Self {
        Self { answer, _lent: lent }
    }

    pub(crate) fn tell(self, outcome: Outcome) {
        // A caller that no longer waits has left the entry in the log all the same.
        let _ = self.answer.send(outcome);
    }
}
