//! Why a vault cannot be used.

use skytale_proto::Code;
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
    /// What is stored cannot be what this SDK wrote.
    #[error("vault damaged: {place}")]
    Damaged {
        /// Where.
        place: String,
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
            Self::Io { .. } | Self::Damaged { .. } => Code::VaultIo,
        }
    }

    pub(crate) fn io(doing: impl Into<String>, error: impl ToString) -> Self {
        Self::Io {
            doing: doing.into(),
            error: error.to_string(),
        }
    }

    pub(crate) fn damaged(place: impl Into<String>) -> Self {
        Self::Damaged { place: place.into() }
    }
}

impl From<rusqlite::Error> for VaultError {
    fn from(error: rusqlite::Error) -> Self {
        Self::io("the vault's database", error)
    }
}
