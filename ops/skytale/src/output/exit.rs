//! Exit codes.

use skytale_proto::Code;

/// Shown by `skytale --help` and `skytale help exit-codes`. Numbers are stable.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed for a reason that no other code names
  2    the command line is wrong
  3    the configuration, a file or an address is wrong
  4    refused: a key, token, scope or membership is missing
  5    there is no such channel, key, log or other thing
  6    not reachable, busy or over a rate; trying again can help
  7    damaged, or what was promised did not hold: a mismatch, a gap, a divergence; with --strict, any problem of a channel
  8    done in part: the result says what was done, the error what was not
  9    queued: what was sent is in the outbox and goes out by itself; do not send it again
  130  interrupted; 143: ended by SIGTERM";

/// End of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    Failed,
    Usage,
    Setup,
    Refused,
    Missing,
    Unreachable,
    Broken,
    Partial,
    Queued,
    Interrupted,
    Terminated,
}

impl Exit {
    /// The process's exit code.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Setup => 3,
            Self::Refused => 4,
            Self::Missing => 5,
            Self::Unreachable => 6,
            Self::Broken => 7,
            Self::Partial => 8,
            Self::Queued => 9,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }

    /// The exit for a failure with this code.
    pub(crate) const fn of(code: Code) -> Self {
        match code {
            Code::Usage | Code::LabelInvalid | Code::ContactInvalid | Code::NotLeft => Self::Usage,
            Code::Config
            | Code::Environment
            | Code::VaultKey
            | Code::VaultPlain
            | Code::VaultVersion
            | Code::VaultOwnerVersion
            | Code::TokenIssuer
            | Code::TokenAudience => Self::Setup,
            Code::UnknownLog | Code::NotFound | Code::ChannelUnknown | Code::KeyPackagesExhausted => Self::Missing,
            Code::Mismatch
            | Code::StoreCorrupt
            | Code::CursorBeyondHead
            | Code::Divergence
            | Code::Gap
            | Code::VaultDamaged => Self::Broken,
            Code::NotMember
            | Code::KindRefused
            | Code::AuthorMismatch
            | Code::SessionReplaced
            | Code::KeyUnknown
            | Code::KeyRevoked
            | Code::KeyExpired
            | Code::AgentEnded
            | Code::EnrolmentTaken
            | Code::RelayUnauthorized
            | Code::KeyScope
            | Code::EnrolmentUnknown
            | Code::EnrolmentRevoked
            | Code::RegistrationProof
            | Code::QuotaExceeded
            | Code::AgentQuota
            | Code::KeyQuota
            | Code::ChannelNameQuota
            | Code::AccountChannels
            | Code::AgentTaken
            | Code::ProofInvalid
            | Code::AdminUnauthorized
            | Code::KeyPackageForeign
            | Code::ChannelLeft => Self::Refused,
            Code::TokenKeyUnknown => Self::Unreachable,
            _ if code.number() / 1000 == 3 => Self::Refused,
            _ if code.is_retryable() => Self::Unreachable,
            _ => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_is_documented() {
        let exits = [
            Exit::Done,
            Exit::Failed,
            Exit::Usage,
            Exit::Setup,
            Exit::Refused,
            Exit::Missing,
            Exit::Unreachable,
            Exit::Broken,
            Exit::Partial,
            Exit::Queued,
            Exit::Interrupted,
            Exit::Terminated,
        ];
        for exit in exits {
            assert!(EXIT_CODES.contains(&exit.code().to_string()), "{exit:?}");
        }
    }

    #[test]
    fn what_can_be_tried_again_says_so_by_its_exit_code() {
        for code in [
            Code::Offline,
            Code::ApiRateLimited,
            Code::Draining,
            Code::TokenKeyUnknown,
            Code::VaultInUse,
            Code::VaultOwnerGone,
        ] {
            assert_eq!(Exit::of(code), Exit::Unreachable, "{code}");
        }
        for code in [Code::TokenRevoked, Code::KeyExpired, Code::KeyRevoked, Code::AgentEnded] {
            assert_eq!(Exit::of(code), Exit::Refused, "{code}");
        }
        assert_eq!(Exit::of(Code::Mls), Exit::Failed);
        assert_eq!(Exit::of(Code::OutcomeUnknown), Exit::Failed);
    }
}
