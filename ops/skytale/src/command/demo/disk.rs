//! Size of the relay node's log on disk, and its check.

use crate::output::{Context as _, Failure, Outcome};
use skytale_log_store::inspect::{self, InspectError};
use skytale_proto::Code;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A stopped log.
pub(super) struct Stored {
    /// Bytes of segments and index. The filled part of the last segment, whose room is taken in advance.
    pub bytes: u64,
    /// Whether every entry is there, with the right checksum, and accepted by the rule of the log again.
    pub is_whole: bool,
}

/// Reads all of it.
pub(super) fn measure(dir: &Path) -> Outcome<Stored> {
    let failed = |error: InspectError| Failure::new(error.code(), "cannot check the relay node's log").because(&error);
    let is_whole = inspect::verify(dir).map_err(failed)?.is_whole();
    let mut filled: BTreeMap<PathBuf, u64> = BTreeMap::new();
    for entry in inspect::dump(dir, None).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let end = u64::from(entry.at) + entry.record_bytes as u64;
        let filled = filled.entry(entry.path).or_default();
        *filled = end.max(*filled);
    }
    // Segments sort by their number: all but the last are as long as their contents.
    let last = filled.pop_last().map_or(0, |(_, end)| end);
    let sealed: Vec<u64> = filled.keys().map(|path| length(path)).collect::<Outcome<_>>()?;
    Ok(Stored {
        bytes: last + sealed.iter().sum::<u64>() + folder(&dir.join("index"))?,
        is_whole,
    })
}

fn length(path: &Path) -> Outcome<u64> {
    let metadata = path
        .metadata()
        .failing(Code::Environment, || format!("cannot measure {}", path.display()))?;
    Ok(metadata.len())
}

fn folder(dir: &Path) -> Outcome<u64> {
    let measuring = || format!("cannot measure {}", dir.display());
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).failing(Code::Environment, measuring)? {
        let path = entry.failing(Code::Environment, measuring)?.path();
        bytes += if path.is_dir() { folder(&path)? } else { length(&path)? };
    }
    Ok(bytes)
}
