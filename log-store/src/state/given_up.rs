//! Entries given up by Trims: whether a reader whose cursor they overtook has lost more than Trims.

use skytale_proto::Offset;

/// The last entry given up that was not a Trim, as exactly as three offsets can tell it.
///
/// A log to which nobody writes gets Trims alone. A reader that missed nothing else has missed nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct GivenUp {
    /// The answer: at or past the true one, never before it.
    pub(super) last: Offset,
    /// The log's last entry that is not a Trim.
    pub(super) content: Offset,
    /// The one before: between the two there are Trims alone.
    pub(super) content_before: Offset,
}

impl GivenUp {
    /// Makes it for a log whose earlier entries are not known: each may have been more than a Trim.
    pub(super) const fn unknown(head: Offset, first: Offset) -> Self {
        Self {
            last: first.previous(),
            content: head,
            content_before: head.previous(),
        }
    }

    /// An entry that is not a Trim.
    pub(super) fn entry(&mut self, offset: Offset) {
        self.content_before = self.content;
        self.content = offset;
    }

    /// Entries up to and with `up_to` are given up.
    pub(super) fn trim(&mut self, up_to: Offset) {
        let last = if self.content <= up_to {
            self.content
        } else if self.content_before <= up_to && up_to < self.content {
            self.content_before
        } else {
            up_to
        };
        self.last = self.last.max(last);
    }
}
