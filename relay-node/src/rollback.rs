//! An operator's statement that this node's data was restored from an older copy, and that agents may settle on the logs as
//! they are now. It is a file in the data folder, with the head that each log had then. The node sends its time when a
//! session starts, and its head with a log's status.

use serde::{Deserialize, Serialize};
use skytale_proto::{LogId, Offset};
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

const FILE: &str = "accepted-rollback.json";
const VERSION: u32 = 1;

/// The operator's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedRollback {
    version: u32,
    /// Time at which it was given, unix milliseconds.
    pub at_ms: u64,
    /// The last entry of each log then.
    #[serde(with = "heads")]
    pub heads: BTreeMap<LogId, Offset>,
}

impl AcceptedRollback {
    /// A word about logs whose last entries are these.
    pub const fn new(at_ms: u64, heads: BTreeMap<LogId, Offset>) -> Self {
        Self {
            version: VERSION,
            at_ms,
            heads,
        }
    }

    /// The last one that was given, if one was.
    ///
    /// # Errors
    /// The file cannot be read, or is none of this version.
    pub fn read(data_dir: &Path) -> io::Result<Option<Self>> {
        let bytes = match std::fs::read(path(data_dir)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let word: Self = serde_json::from_slice(&bytes)?;
        if word.version != VERSION {
            let problem = format!("{FILE} is of version {}; this node reads {VERSION}", word.version);
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        Ok(Some(word))
    }

    /// Puts it in the place of the last one, durably: it is there whole or not at all. Gives the file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, data_dir: &Path) -> io::Result<PathBuf> {
        let path = path(data_dir);
        let fresh = path.with_extension("json.new");
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &path)?;
        std::fs::File::open(data_dir)?.sync_all()?;
        Ok(path)
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// Logs by their names: JSON has no other keys.
mod heads {
    use super::{BTreeMap, LogId, Offset};
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(heads: &BTreeMap<LogId, Offset>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(heads.iter().map(|(log, head)| (log.to_string(), head.get())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<LogId, Offset>, D::Error> {
        let heads = BTreeMap::<String, u64>::deserialize(from)?;
        let head = |(log, head): (String, u64)| {
            let log = log
                .parse()
                .map_err(|_| D::Error::custom(format!("{log:?} is no log")))?;
            Ok((log, Offset::new(head)))
        };
        heads.into_iter().map(head).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skytale_proto::{AgentId, ChannelId};

    #[test]
    fn a_word_is_read_as_it_was_written_and_the_last_one_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(AcceptedRollback::read(folder.path()).expect("read"), None);
        let channel = ChannelId::from_bytes([1; 16]).log();
        let agent = AgentId::from_bytes([2; 32]).log();
        for at_ms in [5, 6] {
            let heads = [(channel, Offset::new(at_ms)), (agent, Offset::ZERO)].into();
            let word = AcceptedRollback::new(at_ms, heads);
            word.write(folder.path()).expect("written");
            assert_eq!(AcceptedRollback::read(folder.path()).expect("read"), Some(word));
        }
    }

    #[test]
    fn what_is_no_word_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        for text in [
            "",
            "{}",
            r#"{"version":2,"at_ms":1,"heads":{}}"#,
            r#"{"version":1,"at_ms":1,"heads":{"x":1}}"#,
        ] {
            std::fs::write(path(folder.path()), text).expect("written");
            assert!(AcceptedRollback::read(folder.path()).is_err(), "{text}");
        }
    }
}
