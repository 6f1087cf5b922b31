//! Errors of an engine.

use crate::mls::StorageError;
use crate::vault::VaultError;
use skytale_proto::{AgentId, ChannelId, Code, FrameError, Offset, Right};

/// Error of an engine operation. The vault is unchanged by it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The vault cannot be opened, read or written.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The vault has no such channel.
    #[error("channel {channel} is not in this vault")]
    ChannelUnknown {
        /// The channel.
        channel: ChannelId,
    },
    /// The agent has left the channel, is leaving it, or was removed.
    #[error("this agent is no longer in channel {channel}")]
    ChannelLeft {
        /// The channel.
        channel: ChannelId,
    },
    /// Another copy of the vault has superseded this one in the channel.
    #[error("another copy of this vault has taken its place in channel {channel}")]
    Superseded {
        /// The channel.
        channel: ChannelId,
    },
    /// The label is invalid.
    #[error("not a label: {problem}")]
    Label {
        /// The problem, in words.
        problem: &'static str,
    },
    /// The agent's name is invalid.
    #[error("not a name for an agent: {problem}")]
    Contact {
        /// The problem, in words.
        problem: &'static str,
    },
    /// The list of accounts and agents is invalid.
    #[error("not a list of who may: {problem}")]
    Consent {
        /// The problem, in words.
        problem: String,
    },
    /// There is no request for the channel to accept or decline.
    #[error("no addition to channel {channel} waits to be accepted")]
    RequestUnknown {
        /// The channel.
        channel: ChannelId,
    },
    /// The agent is still in the channel that it is to forget.
    #[error("this agent is still in channel {channel}")]
    NotLeft {
        /// The channel.
        channel: ChannelId,
    },
    /// A different message was already sent under the same id.
    #[error("another message was sent under this id in channel {channel}")]
    SendIdReused {
        /// The channel.
        channel: ChannelId,
    },
    /// The message exceeds the limit.
    #[error("payload of {bytes} bytes is over the limit of {limit} bytes")]
    PayloadTooLarge {
        /// Its length, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The channel's outbox is full.
    #[error("the outbox of channel {channel} is full")]
    OutboxFull {
        /// The channel.
        channel: ChannelId,
    },
    /// The KeyPackage is not usable for the agent that it was claimed from.
    #[error("key package under the name of {agent}: {problem}")]
    KeyPackageForeign {
        /// The agent that it was claimed from.
        agent: AgentId,
        /// The problem, in words.
        problem: String,
    },
    /// The KeyPackage is too old.
    #[error(
        "key package of {agent} is {age_s} s old; at most {limit_s} s are allowed: the agent must come online to offer new \
         ones"
    )]
    KeyPackageExpired {
        /// The agent that it was claimed from.
        agent: AgentId,
        /// Its age, in seconds.
        age_s: u64,
        /// The limit, in seconds.
        limit_s: u64,
    },
    /// The KeyPackage is from the future: the clock of the agent that made it is ahead.
    #[error("key package of {agent} was made {ahead_s} s in the future: the agent's clock must be set right")]
    KeyPackageEarly {
        /// The agent that it was claimed from.
        agent: AgentId,
        /// Difference to this agent's clock, in seconds.
        ahead_s: u64,
    },
    /// The change to the group makes no sense.
    #[error("{problem}")]
    Change {
        /// The problem, in words.
        problem: &'static str,
    },
    /// The channel's policy reserves the operation for admins, and this agent is not one.
    #[error("only admins of channel {channel} may do this: its policy keeps `{right}` for them")]
    NotAllowed {
        /// The channel.
        channel: ChannelId,
        /// The missing right.
        right: Right,
    },
    /// The channel would have no admin left.
    #[error("channel {channel} would have no admin left")]
    LastAdmin {
        /// The channel.
        channel: ChannelId,
    },
    /// An agent that is to become an admin is not a member.
    #[error("{agent} is not in the channel")]
    NoMember {
        /// The agent.
        agent: AgentId,
    },
    /// The entry belongs to another log, or the bytes are not the expected frame.
    #[error("entry {offset}: {problem}")]
    Entry {
        /// Its offset.
        offset: Offset,
        /// The problem, in words.
        problem: String,
    },
    /// The MLS library refused.
    #[error("{doing}: {error}")]
    Mls {
        /// The operation that failed.
        doing: &'static str,
        /// The library's error.
        error: String,
    },
    /// A frame cannot be built.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl EngineError {
    /// Returns the error code.
    pub const fn code(&self) -> Code {
        match self {
            Self::Vault(error) => error.code(),
            Self::ChannelUnknown { .. } => Code::ChannelUnknown,
            Self::ChannelLeft { .. } => Code::ChannelLeft,
            Self::Superseded { .. } => Code::Superseded,
            Self::Label { .. } => Code::LabelInvalid,
            Self::Contact { .. } => Code::ContactInvalid,
            Self::Consent { .. } => Code::ConsentInvalid,
            Self::RequestUnknown { .. } => Code::RequestUnknown,
            Self::NotLeft { .. } => Code::NotLeft,
            Self::SendIdReused { .. } => Code::SendIdReused,
            Self::PayloadTooLarge { .. } => Code::PayloadTooLarge,
            Self::OutboxFull { .. } => Code::OutboxFull,
            Self::KeyPackageForeign { .. } => Code::KeyPackageForeign,
            Self::KeyPackageExpired { .. } | Self::KeyPackageEarly { .. } => Code::KeyPackageExpired,
            Self::Change { .. } => Code::RosterChange,
            Self::NotAllowed { .. } => Code::PolicyForbids,
            Self::LastAdmin { .. } => Code::LastAdmin,
            Self::NoMember { .. } => Code::NoSuchMember,
            Self::Entry { .. } => Code::EntryUnreadable,
            Self::Mls { .. } => Code::Mls,
            Self::Frame(error) => error.code(),
        }
    }

    /// Returns what to do about it.
    pub const fn help(&self) -> &'static str {
        self.code().help()
    }

    /// Whether the same call may succeed later.
    pub const fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }
}

impl EngineError {
    pub(crate) fn mls(doing: &'static str, error: impl ToString) -> Self {
        Self::Mls {
            doing,
            error: error.to_string(),
        }
    }
}

#[doc(hidden)]
impl From<rusqlite::Error> for EngineError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Vault(error.into())
    }
}

impl From<StorageError> for EngineError {
    fn from(error: StorageError) -> Self {
        Self::Vault(match error {
            StorageError::Database(error) => error.into(),
            error if error.is_damage() => VaultError::damaged(format!("the group's storage: {error}")),
            error => VaultError::io("the group's storage", error),
        })
    }
}
