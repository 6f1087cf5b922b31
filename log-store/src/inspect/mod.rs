//! Looks at a stopped node's data: checks it, lists it, copies a log out of it. Writes nothing.
//!
//! Only the segments are read; the index is derived and has nothing of its own. The folder is locked against a node
//! starting meanwhile, and a running node's is refused, except by [`dump_running`]. Bodies stay opaque: this crate has no key to them.

mod dump;
mod export;
mod source;
mod verify;

#[cfg(feature = "fleet")]
pub(crate) use dump::frames;
pub use dump::{Dump, DumpEntry, dump, dump_running};
pub use export::{Exported, export};
pub use verify::{LogReport, Problem, Report, verify};

use crate::local::OpenError;
use skytale_proto::Code;
use std::path::Path;

/// Error of a look at a stopped node's data.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The folder cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The files cannot be read.
    #[error("{doing}: {source}")]
    Read {
        /// The failed operation, with the path.
        doing: String,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The records that were read cannot be written.
    #[error("write the records out: {source}")]
    Write {
        /// Error of the system.
        source: std::io::Error,
    },
    /// An entry that was asked for is damaged.
    #[error("stored record damaged: {place}")]
    Damaged {
        /// File and position.
        place: String,
    },
}

impl InspectError {
    /// The code that a refusal for this carries.
    pub fn code(&self) -> Code {
        match self {
            Self::Open(error) => error.code(),
            Self::Read { .. } | Self::Write { .. } => Code::Environment,
            Self::Damaged { .. } => Code::StoreCorrupt,
        }
    }

    fn is_not_found(&self) -> bool {
        let source = match self {
            Self::Open(OpenError::Io { source, .. }) | Self::Read { source, .. } => source,
            _ => return false,
        };
        source.kind() == std::io::ErrorKind::NotFound
    }

    fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Read {
            doing: format!("read {}", path.display()),
            source,
        }
    }
}
