//! Errors of starting a fleet's node.

use crate::StoreError;
use crate::local;
use skytale_proto::Code;
use std::path::PathBuf;

/// Error of starting a fleet's node.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting that cannot be.
    #[error("{problem}")]
    Config {
        /// The problem.
        problem: String,
    },
    /// A credentials file that cannot be read.
    #[error("credentials for NATS in {}: {error}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Its problem.
        error: String,
    },
    /// No server answers.
    #[error("no NATS server of {servers} answers: {error}")]
    Unreachable {
        /// The servers.
        servers: String,
        /// Error of the last attempt.
        error: String,
    },
    /// Servers answer, and do not let this node in.
    #[error("the NATS servers {servers} refuse this node's user: {error}")]
    Denied {
        /// The servers.
        servers: String,
        /// Their answers.
        error: String,
    },
    /// JetStream refuses a needed request.
    #[error("{doing}: {error}")]
    JetStream {
        /// The failed operation.
        doing: String,
        /// Answer of JetStream.
        error: String,
    },
    /// The streams do not match this node's configuration.
    #[error("stream {stream}: {problem}")]
    Stream {
        /// The stream.
        stream: String,
        /// The problem.
        problem: String,
    },
    /// A stream no longer has its beginning, and too few known nodes vouch for the checkpoint that took its place.
    #[error(
        "stream {stream} begins at {first}, and there is no checkpoint at {} that {witnesses} known nodes vouch for \
         (relay.fleet.nodes_file, relay.fleet.witnesses)", first - 1
    )]
    Unattested {
        /// The stream.
        stream: String,
        /// Its first message.
        first: u64,
        /// Number of nodes asked for.
        witnesses: usize,
    },
    /// The key that is to purge the streams is no keeper's.
    #[error("the NATS key of the keeper does not have a keeper's rights: {problem}")]
    NoKeeper {
        /// Their problem.
        problem: String,
    },
    /// An acknowledgement would mean less than the settings promise.
    #[error("{problem}; fix the servers, or set allow_weaker, and every acknowledgement says what it means")]
    Weaker {
        /// The missing part.
        problem: String,
    },
    /// The replica's folder cannot be opened.
    #[error("replica: {0}")]
    Replica(#[from] local::OpenError),
    /// An error that a running store would answer with, too.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    /// The code that a refusal for this carries.
    pub fn code(&self) -> Code {
        match self {
            Self::Config { .. }
            | Self::Credentials { .. }
            | Self::Denied { .. }
            | Self::Stream { .. }
            | Self::Weaker { .. } => Code::Config,
            Self::Unattested { .. } => Code::CheckpointUnattested,
            Self::NoKeeper { .. } => Code::KeeperRights,
            Self::Unreachable { .. } | Self::JetStream { .. } => Code::HomeUnreachable,
            Self::Replica(error) => error.code(),
            Self::Store(error) => error.code(),
        }
    }

    /// For `map_err`: JetStream's answer, with the failed operation.
    pub(super) fn jetstream<E: std::fmt::Display>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |error| Self::JetStream {
            doing: doing.into(),
            error: error.to_string(),
        }
    }
}
