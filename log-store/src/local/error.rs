//! Errors of opening a store's folder.

use super::space::no_room;
use crate::StoreError;
use skytale_proto::Code;
use std::path::{Path, PathBuf};

/// Error of opening a store's folder.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by another process", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// A file of a format that this version does not read.
    #[error("{} has format version {found}; this program reads version {supported}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: String,
        /// The version that is read.
        supported: u32,
    },
    /// A file is not what its place says.
    #[error("{}: {problem}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// A segment between two others is gone.
    #[error("segment {} is missing, and later ones are there", path.display())]
    MissingSegment {
        /// The file.
        path: PathBuf,
    },
    /// A setting that cannot be.
    #[error("{problem}")]
    Config {
        /// The problem.
        problem: String,
    },
    /// The files cannot be read or written.
    #[error("{doing}: {source}")]
    Io {
        /// The failed operation, with the path.
        doing: String,
        /// Error of the system.
        source: std::io::Error,
    },
    /// An error that a running store would answer with, too.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    /// The code that a refusal for this carries.
    pub fn code(&self) -> Code {
        match self {
            Self::Locked { .. } => Code::StoreLocked,
            Self::Version { .. } => Code::StoreVersion,
            Self::Foreign { .. } | Self::MissingSegment { .. } => Code::StoreCorrupt,
            Self::Config { .. } => Code::Config,
            Self::Io { source, .. } if no_room(source) => Code::StoreFull,
            Self::Io { .. } => Code::Environment,
            Self::Store(error) => error.code(),
        }
    }

    /// Whether there was no room on the disk.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => no_room(source),
            Self::Store(error) => matches!(error, StoreError::Full { .. }),
            _ => false,
        }
    }

    /// For `map_err`: an I/O error, with the failed operation and its path.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io {
            doing: format!("{doing} {}", path.display()),
            source,
        }
    }
}

/// For `map_err`: an I/O error as a [`StoreError`], with the failed operation and its path.
pub(crate) fn store_io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    move |error| StoreError::Io {
        doing: format!("{doing} {}", path.display()),
        error: error.to_string(),
    }
}
