//! Why an engine refuses.

use crate::mls::StorageError;
use crate::vault::VaultError;
use skytale_proto::{AgentId, ChannelId, Code, FrameError, Offset, Right};

/// Why an operation was not done. Nothing of it remains in the vault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The vault cannot be opened, read or written.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// No such channel in the vault.
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
    /// Another copy of the vault has taken this one's place in the channel.
    #[error("another copy of this vault has taken its place in channel {channel}")]
    Superseded {
        /// The channel.
        channel: ChannelId,
    },
    /// A label that a channel cannot have.
    #[error("not a label: {problem}")]
    Label {
        /// What is wrong.
        problem: &'static str,
    },
    /// A name that an agent cannot be given.
    #[error("not a name for an agent: {problem}")]
    Contact {
        /// What is wrong.
        problem: &'static str,
    },
    /// A list of accounts and agents that cannot be.
    #[error("not a list of who may: {problem}")]
    Consent {
        /// What is wrong.
        problem: String,
    },
    /// No addition to the channel waits to be accepted.
    #[error("no addition to channel {channel} waits to be accepted")]
    RequestUnknown {
        /// The channel.
        channel: ChannelId,
    },
    /// The agent is still in a channel that is to be forgotten.
    #[error("this agent is still in channel {channel}")]
    NotLeft {
        /// The channel.
        channel: ChannelId,
    },
    /// Another message was sent under the same id before.
    #[error("another message was sent under this id in channel {channel}")]
    SendIdReused {
        /// The channel.
        channel: ChannelId,
    },
    /// The message is over the limit.
    #[error("payload of {bytes} bytes is over the limit of {limit} bytes")]
    PayloadTooLarge {
        /// Its length, in bytes.
        bytes: usize,
        /// What is allowed, in bytes.
        limit: usize,
    },
    /// As much is waiting in the channel's outbox as may.
    #[error("the outbox of channel {channel} is full")]
    OutboxFull {
        /// The channel.
        channel: ChannelId,
    },
    /// A KeyPackage that is not usable for the agent whom it was claimed from.
    #[error("key package under the name of {agent}: {problem}")]
    KeyPackageForeign {
        /// Whom it was claimed from.
        agent: AgentId,
        /// What is wrong.
        problem: String,
    },
    /// A KeyPackage that is too old to be used.
    #[error(
        "key package of {agent} is {age_s} s old; at most {limit_s} s are allowed: the agent must come online to offer new \
         ones"
    )]
    KeyPackageExpired {
        /// Whom it was claimed from.
        agent: AgentId,
        /// Its age, in seconds.
        age_s: u64,
        /// What is allowed, in seconds.
        limit_s: u64,
    },
    /// A KeyPackage from the future: the clock of the agent that made it is ahead.
    #[error("key package of {agent} was made {ahead_s} s in the future: the agent's clock must be set right")]
    KeyPackageEarly {
        /// Whom it was claimed from.
        agent: AgentId,
        /// How far ahead it is, in seconds.
        ahead_s: u64,
    },
    /// A change to the group that makes no sense.
    #[error("{problem}")]
    Change {
        /// What is wrong.
        problem: &'static str,
    },
    /// The channel's policy keeps it for admins, and this agent is none.
    #[error("only admins of channel {channel} may do this: its policy keeps `{right}` for them")]
    NotAllowed {
        /// The channel.
        channel: ChannelId,
        /// What.
        right: Right,
    },
    /// The last admin would leave, or no longer be one.
    #[error("channel {channel} would have no admin left")]
    LastAdmin {
        /// The channel.
        channel: ChannelId,
    },
    /// Who is to be an admin is no member.
    #[error("{agent} is not in the channel")]
    NoMember {
        /// Who.
        agent: AgentId,
    },
    /// An entry that is not of the log it was given for, or bytes that are no frame where one was asked for.
    #[error("entry {offset}: {problem}")]
    Entry {
        /// Where it is.
        offset: Offset,
        /// What is wrong.
        problem: String,
    },
    /// The MLS library refused.
    #[error("{doing}: {error}")]
    Mls {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        error: String,
    },
    /// A frame cannot be built.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl EngineError {
    /// The code.
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

    /// What to do about it.
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
