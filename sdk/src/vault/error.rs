//! Why a vault cannot be used.

use rusqlite::ErrorCode;
use skytale_proto::Code;
use std::io::ErrorKind;
use std::path::PathBuf;

/// Why a vault cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    /// Open in another process, or twice in this one.
    #[error("vault {} is open in another process{}", path.display(), by(*process))]
    InUse {
        /// The vault.
        path: PathBuf,
        /// The process's id, if it is known.
        process: Option<u32>,
    },
    /// The key is wrong, or the file is not a vault.
    #[error("vault {}: {problem}", path.display())]
    Key {
        /// The vault.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// SQLCipher is not linked into this program.
    #[error("SQLCipher is not linked into this program: a vault would be written in clear")]
    Plain,
    /// The vault was written by a newer version.
    #[error("vault is of version {found}; this SDK reads up to {known}")]
    Version {
        /// The version found.
        found: u32,
        /// The newest one known.
        known: u32,
    },
    /// The file cannot be read or written.
    #[error("{doing}: {error}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        error: String,
    },
    /// The disk, or this user's quota, is full.
    #[error("{doing}: no space left on the disk")]
    Full {
        /// What was being done.
        doing: String,
    },
    /// What is stored cannot be what this SDK wrote.
    #[error("vault damaged: {place}")]
    Damaged {
        /// Where.
        place: String,
    },
    /// A file is in the way that is not replaced without an explicit word.
    #[error("{} exists", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file that cannot be used for this.
    #[error("{}: {problem}", path.display())]
    Unsuitable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

fn by(process: Option<u32>) -> String {
    process.map_or_else(String::new, |id| format!(" ({id})"))
}

impl VaultError {
    /// The code.
    pub const fn code(&self) -> Code {
        match self {
            Self::InUse { .. } => Code::VaultInUse,
            Self::Key { .. } => Code::VaultKey,
            Self::Plain => Code::VaultPlain,
            Self::Version { .. } => Code::VaultVersion,
            Self::Io { .. } => Code::VaultIo,
            Self::Full { .. } => Code::VaultFull,
            Self::Damaged { .. } => Code::VaultDamaged,
            Self::Exists { .. } | Self::Unsuitable { .. } => Code::Environment,
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

    /// Whether space on the disk is all that is missing.
    pub(crate) const fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    pub(crate) fn io(doing: impl Into<String>, error: impl ToString) -> Self {
        Self::Io {
            doing: doing.into(),
            error: error.to_string(),
        }
    }

    /// A failure of the file system, with a full disk told apart.
    pub(crate) fn file(doing: impl Into<String>, error: &std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full { doing: doing.into() },
            _ => Self::io(doing, error),
        }
    }

    pub(crate) fn damaged(place: impl Into<String>) -> Self {
        Self::Damaged { place: place.into() }
    }
}

#[doc(hidden)]
impl From<rusqlite::Error> for VaultError {
    fn from(error: rusqlite::Error) -> Self {
        let doing = "the vault's database";
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full { doing: doing.into() },
            // SQLite tells a full disk apart, but not a quota that is used up, a file that cannot be made, or a sync
            // that finds out late. The cause is then the last failure on this thread.
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => match std::io::Error::last_os_error() {
                cause if matches!(cause.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                    Self::Full { doing: doing.into() }
                }
                _ => Self::io(doing, error),
            },
            // A page that is torn, or pages that do not belong together.
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::damaged(error.to_string()),
            _ => Self::io(doing, error),
        }
    }
}
