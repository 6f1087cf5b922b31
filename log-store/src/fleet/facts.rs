//! Facts about the followed streams, kept in a replica's folder: read if the streams themselves do not answer.
//!
//! ```text
//! <dir>/FLEET      JSON: the fleet's shards, the distance of checkpoints, and of each shard that began with a checkpoint
//!                  up to which message it must learn what repeats entries that are not here
//! ```
//!
//! A node configured with other shards than its replica was followed with would fold the same messages otherwise. So without
//! this file nothing is followed before the home region has answered.

use super::config::FleetConfig;
use super::error::OpenError;
use super::shards::{ShardId, Shards};
use crate::local;
use crate::local::folder::replace_file;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Bytes of the file, at most.
const FACTS_BYTES_MAX: u64 = 1 << 20;

/// Facts found about the streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    shards: String,
    checkpoint_every: u64,
    /// The stream's last message when the replica began with a checkpoint, by shard.
    #[serde(default)]
    began: BTreeMap<String, u64>,
}

fn path(dir: &Path) -> PathBuf {
    dir.join("FLEET")
}

impl Facts {
    /// Returns the facts that must hold, for a node with these settings.
    pub(super) fn of(shards: &Shards, config: &FleetConfig) -> Self {
        Self {
            shards: shards.describe(),
            checkpoint_every: config.checkpoint_every,
            began: BTreeMap::new(),
        }
    }

    /// Reads the facts of a folder; `None` if it has none that can be read.
    pub(super) fn load(dir: &Path) -> Option<Self> {
        let path = path(dir);
        let small = std::fs::metadata(&path).is_ok_and(|found| found.len() <= FACTS_BYTES_MAX);
        let bytes = small.then(|| std::fs::read(&path).ok()).flatten()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Writes them into a folder, durably.
    pub(super) fn save(&self, dir: &Path) -> Result<(), OpenError> {
        let path = path(dir);
        let bytes = serde_json::to_vec_pretty(self).map_err(std::io::Error::other);
        let written = bytes.and_then(|bytes| replace_file(&path, &bytes));
        Ok(written.map_err(local::OpenError::io("write", &path))?)
    }

    /// Returns the setting that has changed since the folder was followed into.
    pub(super) fn problem(&self, told: &Self) -> Option<String> {
        let differs = |what: &str, found: &str, told: &str| {
            (found != told).then(|| {
                format!(
                    "the replica was followed with {what} `{found}`, and this node was told `{told}`; it cannot change once \
                     streams exist"
                )
            })
        };
        differs("the shards", &self.shards, &told.shards).or_else(|| {
            let (found, told) = (self.checkpoint_every.to_string(), told.checkpoint_every.to_string());
            differs("checkpoint_every", &found, &told)
        })
    }

    /// A shard begins with a checkpoint, while its stream ends there.
    pub(super) fn begins(&mut self, shard: ShardId, stream_ended: u64) {
        self.began.insert(shard.to_string(), stream_ended);
    }

    /// Whether a shard that is there must still learn which messages repeat entries that are not here.
    pub(super) fn must_be_told(&self, shard: ShardId, position: u64) -> bool {
        position < self.began_at(shard)
    }

    /// Returns the end of a shard's stream at the time when it began with a checkpoint; 0 if it began at its beginning.
    pub(super) fn began_at(&self, shard: ShardId) -> u64 {
        self.began.get(&shard.to_string()).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skytale_proto::Region;

    fn facts(shards: &str) -> Facts {
        Facts {
            shards: shards.to_owned(),
            checkpoint_every: 20,
            began: BTreeMap::new(),
        }
    }

    #[test]
    fn a_folder_tells_what_it_was_followed_with() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(Facts::load(dir.path()), None);
        let shard = ShardId {
            region: Region(1),
            index: 3,
        };
        let mut found = facts("0:2");
        found.begins(shard, 40);
        found.save(dir.path()).expect("written");
        assert_eq!(Facts::load(dir.path()), Some(found.clone()));
        assert!(found.must_be_told(shard, 39) && !found.must_be_told(shard, 40));
        assert_eq!(found.problem(&facts("0:2")), None);
        assert!(
            found
                .problem(&facts("0:3"))
                .is_some_and(|problem| problem.contains("`0:3`"))
        );
        std::fs::write(path(dir.path()), "not JSON").expect("written");
        assert_eq!(Facts::load(dir.path()), None);
    }
}
