//! Errors of a vault.

use rusqlite::ErrorCode;
use skytale_proto::Code;
use std::io::ErrorKind;
use std::path::PathBuf;

/// Error from opening, reading or writing a vault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    /// The vault is already open, in this process or another one.
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
        /// The problem, in words.
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
    /// A file cannot be read or written.
    #[error("{doing}: {error}")]
    Io {
        /// The operation that failed.
        doing: String,
        /// The system's error.
        error: String,
    },
    /// The disk, or this user's quota, is full.
    #[error("{doing}: no space left on the disk")]
    Full {
        /// The operation that failed.
        doing: String,
    },
    /// The stored data cannot have been written by this SDK.
    #[error("vault damaged: {place}")]
    Damaged {
        /// The place of the damage.
        place: String,
    },
    /// A file exists that is replaced only on explicit request.
    #[error("{} exists", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be used for this purpose.
    #[error("{}: {problem}", path.display())]
    Unsuitable {
        /// The file.
        path: PathBuf,
        /// The problem, in words.
        problem: String,
    },
}

fn by(process: Option<u32>) -> String {
    process.map_or_else(String::new, |id| format!(" ({id})"))
}

impl VaultError {
    /// Returns the error code.
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

    /// Returns what to do about it.
    pub const fn help(&self) -> &'static str {
        self.code().help()
    }

    /// Whether the same call may succeed later.
    pub const fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }

    /// Whether the only cause is a full disk.
    pub(crate) const fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    pub(crate) fn io(doing: impl Into<String>, error: impl ToString) -> Self {
        Self::Io {
            doing: doing.into(),
            error: error.to_string(),
        }
    }

    /// Converts a failure of the file system; distinguishes a full disk.
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
            // SQLite distinguishes a full disk, but not an exhausted quota, a file that cannot be created, or a sync
            // that fails late. The cause is then the last failure on this thread.
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
