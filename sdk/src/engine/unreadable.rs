//! Causes of unreadable entries, for programs.

use crate::mls::Rejected;
use crate::vault::VaultError;
use serde::{Deserialize, Serialize};
use skytale_proto::Code;
use std::fmt;

/// Cause why an entry cannot be processed, and never will be. The accompanying text says more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(i64)]
#[non_exhaustive]
pub enum UnreadableCause {
    /// An older version recorded it, and did not store the cause in this form.
    #[default]
    Unknown = 0,
    /// Its bytes are not a frame of this log.
    Malformed = 1,
    /// It does not decrypt, its signature is wrong, or it breaks a rule of channels.
    Invalid = 2,
    /// Its key was used before: it is a copy of an entry that was read, or this vault is an older copy.
    KeyUsed = 3,
    /// It is of a later epoch than this agent's: the agent was not shown a change to the group, or could not apply it.
    LaterEpoch = 4,
    /// It is a change to the group that other members may have applied, and that this one could not.
    OutOfSync = 5,
    /// Its header contradicts its content, or its author lacks the right for it.
    HeaderLied = 6,
    /// Its author is on the log's roster, but not in the group.
    NotMember = 7,
    /// It is a Welcome to a channel that cannot be used.
    Welcome = 8,
}

impl UnreadableCause {
    const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Malformed,
        Self::Invalid,
        Self::KeyUsed,
        Self::LaterEpoch,
        Self::OutOfSync,
        Self::HeaderLied,
        Self::NotMember,
        Self::Welcome,
    ];

    /// Returns the stored number. Persisted: keep stable.
    pub(super) const fn number(self) -> i64 {
        self as i64
    }

    pub(super) fn from_number(number: i64) -> Result<Self, VaultError> {
        let found = Self::ALL.into_iter().find(|cause| cause.number() == number);
        found.ok_or_else(|| VaultError::damaged("cause of an unreadable entry"))
    }

    /// Returns the cause for an entry that was decoded and rejected.
    pub(super) const fn of(rejected: &Rejected) -> Self {
        match rejected {
            Rejected::OutOfSync(_) => Self::OutOfSync,
            Rejected::LaterEpoch => Self::LaterEpoch,
            Rejected::KeyUsed(_) => Self::KeyUsed,
            Rejected::Unreadable(_) => Self::Invalid,
            Rejected::Lied(_) => Self::HeaderLied,
            Rejected::Storage(_) => Self::Unknown,
        }
    }

    /// Returns a stable name of one word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
            Self::KeyUsed => "key-used",
            Self::LaterEpoch => "later-epoch",
            Self::OutOfSync => "out-of-sync",
            Self::HeaderLied => "header-lied",
            Self::NotMember => "not-member",
            Self::Welcome => "welcome",
        }
    }

    /// Returns the closest code: [`Code::EntryUnreadable`] if there is no other.
    pub const fn code(self) -> Code {
        match self {
            Self::Malformed => Code::FrameMalformed,
            Self::LaterEpoch | Self::OutOfSync => Code::OutOfSync,
            Self::NotMember => Code::NotMember,
            Self::Unknown | Self::Invalid | Self::KeyUsed | Self::HeaderLied | Self::Welcome => Code::EntryUnreadable,
        }
    }

    /// Returns what to do about it, in a sentence.
    pub const fn help(self) -> &'static str {
        match self {
            Self::Unknown | Self::Invalid | Self::Malformed => "Ask its author to send it again.",
            Self::KeyUsed => "Nothing is missing if it is a copy; otherwise ask its author to send it again.",
            Self::LaterEpoch | Self::OutOfSync => {
                "The agent asks to be added again by itself; any member that is online answers."
            }
            Self::HeaderLied | Self::NotMember => {
                "Nothing is missing: no member applied it. Members correct the roster by themselves."
            }
            Self::Welcome => "Ask a member to add this agent again.",
        }
    }
}

impl fmt::Display for UnreadableCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "the cause is not known",
            Self::Malformed => "it is not a frame of this log",
            Self::Invalid => "it does not decrypt or is not valid",
            Self::KeyUsed => "its key was used before",
            Self::LaterEpoch => "it is of a later epoch than this agent is in",
            Self::OutOfSync => "this member could not apply it, though others may have",
            Self::HeaderLied => "its header contradicts its content or its author's rights",
            Self::NotMember => "its author is not in the group",
            Self::Welcome => "a Welcome that cannot be used",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_cause_is_kept_under_a_number_of_its_own_and_says_what_to_do() {
        for cause in UnreadableCause::ALL {
            assert_eq!(UnreadableCause::from_number(cause.number()).ok(), Some(cause));
            assert!(cause.help().ends_with('.') && !cause.to_string().ends_with('.'));
        }
        let names: BTreeSet<_> = UnreadableCause::ALL.iter().map(|cause| cause.name()).collect();
        assert_eq!(names.len(), UnreadableCause::ALL.len());
        assert!(UnreadableCause::from_number(-1).is_err());
    }
}
