//! Reasons why a frame is no entry.

use skytale_proto::{AgentId, Code, Offset, Right};

/// Reason why the fold refuses a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The author is not on the roster here.
    #[error("author is not on the roster")]
    NotMember,
    /// A commit or proposal whose parent is not the handshake head.
    #[error("parent is not the handshake head {head}")]
    StaleHandshake {
        /// The handshake head.
        head: Offset,
    },
    /// A message whose parent is not the handshake head.
    #[error("message of a passed epoch: the handshake head is {head}")]
    StaleEpoch {
        /// The handshake head.
        head: Offset,
    },
    /// No such log.
    #[error("no such log")]
    UnknownLog,
    /// A Create for a log that exists.
    #[error("the channel exists")]
    LogExists,
    /// The roster would grow over its limit.
    #[error("the roster is full")]
    RosterFull,
    /// A commit adds who is on the roster, or removes who is not.
    #[error("the commit contradicts the roster: {problem}")]
    RosterChange {
        /// The contradiction.
        problem: &'static str,
        /// The first agent by which it does, where it is about one.
        agent: Option<AgentId>,
    },
    /// The channel's policy keeps it for admins.
    #[error("the channel's policy keeps `{right}` for its admins")]
    Forbidden {
        /// Right that it needs.
        right: Right,
        /// The first agent by which it goes against the policy, where it is about one.
        agent: Option<AgentId>,
    },
    /// No KeyPackage to give.
    #[error("the agent has no key package left")]
    KeyPackagesExhausted,
    /// The agent offers as many KeyPackages as it may.
    #[error("the agent offers as many key packages as it may")]
    KeyPackagesFull,
    /// The agent does not let the claimer have its KeyPackages.
    #[error("the agent does not let this agent or account claim its key packages")]
    ClaimNotAllowed,
    /// The claimer's account, or all others together, hold as many as they may.
    #[error("as many of the agent's key packages are claimed and not used as may be")]
    ClaimsUnspent,
    /// A Welcome whose author has claimed no KeyPackage.
    #[error("the welcome's author has claimed no key package of the agent")]
    WelcomeUnclaimed,
    /// Not a kind that this log takes, or not from this author.
    #[error("{problem}")]
    KindRefused {
        /// The problem.
        problem: &'static str,
    },
    /// A trim past the head, or behind an earlier one.
    #[error("trim out of range: first available offset {first}, head {head}")]
    TrimRange {
        /// The first available offset.
        first: Offset,
        /// The head.
        head: Offset,
    },
}

impl Refused {
    /// The code that a refusal for this carries.
    pub const fn code(&self) -> Code {
        match self {
            Self::NotMember => Code::NotMember,
            Self::StaleHandshake { .. } => Code::StaleHandshake,
            Self::StaleEpoch { .. } => Code::StaleEpoch,
            Self::UnknownLog => Code::UnknownLog,
            Self::LogExists => Code::LogExists,
            Self::RosterFull => Code::RosterFull,
            Self::RosterChange { .. } => Code::RosterChange,
            Self::Forbidden { .. } => Code::PolicyForbids,
            Self::KeyPackagesExhausted => Code::KeyPackagesExhausted,
            Self::KeyPackagesFull => Code::KeyPackagesFull,
            Self::ClaimNotAllowed => Code::ClaimNotAllowed,
            Self::ClaimsUnspent => Code::ClaimsUnspent,
            Self::WelcomeUnclaimed => Code::WelcomeUnclaimed,
            Self::KindRefused { .. } => Code::KindRefused,
            Self::TrimRange { .. } => Code::TrimRange,
        }
    }

    /// The offset that the code is about, if it is about one.
    pub const fn offset(&self) -> Option<Offset> {
        match self {
            Self::StaleHandshake { head } | Self::StaleEpoch { head } => Some(*head),
            Self::TrimRange { first, .. } => Some(*first),
            _ => None,
        }
    }

    /// The agent that the code is about, if it is about one.
    pub const fn agent(&self) -> Option<AgentId> {
        match self {
            Self::RosterChange { agent, .. } | Self::Forbidden { agent, .. } => *agent,
            _ => None,
        }
    }
}
