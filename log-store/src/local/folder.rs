//! The store's folder: its owner and its format.
//!
//! ```text
//! <dir>/LOCK       held by the process that has the store open
//! <dir>/FORMAT     three lines: what this is, its version (2 for a replica of streams), the store's id
//! <dir>/segments/  the records: all that must not be lost
//! <dir>/index/     derived; may be deleted while the store is closed
//! <dir>/CLOCK      the time that retention goes by, when it was written down last; may be deleted, too
//! ```

use super::error::OpenError;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The version of the folder's format that this crate writes and reads.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// The version of a replica's format: as the other, and its marks hold positions.
const REPLICA_VERSION: u32 = 2;
/// A process that is just being started has every open file of its parent until it executes its program. For this long the
/// lock of a parent that was killed at that moment may seem held.
const FORKED_WITHIN: Duration = Duration::from_millis(300);
const FORMAT_TITLE: &str = "skytale log store";
const FORMAT_BYTES_MAX: u64 = 4_096;

/// Id of the store to which a file belongs: 16 random bytes that no author knows, so that no frame can hold something
/// that looks like a batch mark of this store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoreId(pub(crate) [u8; 16]);

impl StoreId {
    fn generate() -> std::io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(bytes))
    }
}

/// Makes a folder that its owner alone may enter, and the folders that lead to it; one that is there stays as it is.
pub(crate) fn make_private(dir: &Path) -> std::io::Result<()> {
    std::os::unix::fs::DirBuilderExt::mode(fs::DirBuilder::new().recursive(true), 0o700).create(dir)
}

/// A store's folder, locked.
pub(crate) struct Folder {
    pub(crate) dir: PathBuf,
    pub(crate) id: StoreId,
    lock: File,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that is just being started has it, too.
        if let Err(error) = self.lock.unlock() {
            tracing::debug!(dir = %self.dir.display(), %error, "cannot release the lock of a store");
        }
    }
}

/// Purpose of a store's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The logs are here and nowhere else.
    Alone,
    /// A copy of what streams hold.
    Replica,
}

impl Role {
    const fn version(self) -> u32 {
        match self {
            Self::Alone => FORMAT_VERSION,
            Self::Replica => REPLICA_VERSION,
        }
    }
}

impl Folder {
    /// Opens or makes the folder, for this process alone.
    pub(crate) fn open(dir: &Path, role: Role) -> Result<Self, OpenError> {
        make_private(dir).map_err(OpenError::io("create", dir))?;
        let path = dir.join("LOCK");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(OpenError::io("open", &path))?;
        let begun = Instant::now();
        while matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) && begun.elapsed() < FORKED_WITHIN {
            std::thread::sleep(Duration::from_millis(5));
        }
        locked(lock.try_lock(), dir, &path)?;
        let id = match read_format(dir)? {
            Some((found, id)) if found == role => id,
            Some((found, _)) => {
                return Err(OpenError::Foreign {
                    path: dir.join("FORMAT"),
                    problem: match found {
                        Role::Replica => "a fleet's replica: only a node of that fleet opens it".into(),
                        Role::Alone => "a single node's store: a fleet's node needs a folder of its own".into(),
                    },
                });
            }
            None => create_format(dir, role)?,
        };
        for folder in [segments_dir(dir), index_dir(dir)] {
            make_private(&folder).map_err(OpenError::io("create", &folder))?;
        }
        sync_dir(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            id,
            lock,
        })
    }

    /// Opens the folder of a stopped store to look at it. Others may look too; nobody may write meanwhile.
    pub(crate) fn open_to_inspect(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("LOCK");
        let lock = File::open(&path).map_err(OpenError::io("open", &path))?;
        locked(lock.try_lock_shared(), dir, &path)?;
        Self::inspected(dir, lock)
    }

    /// Opens the folder of a store that a node may be writing to, to read its data.
    pub(crate) fn open_to_follow(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("LOCK");
        let lock = File::open(&path).map_err(OpenError::io("open", &path))?;
        Self::inspected(dir, lock)
    }

    fn inspected(dir: &Path, lock: File) -> Result<Self, OpenError> {
        let (_, id) = read_format(dir)?.ok_or_else(|| OpenError::Foreign {
            path: dir.join("FORMAT"),
            problem: "missing: not a store's folder".into(),
        })?;
        Ok(Self {
            dir: dir.to_owned(),
            id,
            lock,
        })
    }

    /// Deletes the folder. Its newest segments go first and its format last: what a crash leaves of a replica is an older
    /// one, or an empty one.
    pub(crate) fn erase(self) -> Result<(), OpenError> {
        let remove_all = |folder: &Path| fs::remove_dir_all(folder).map_err(OpenError::io("remove", folder));
        remove_all(&self.index())?;
        let segments = self.segments();
        let listed = fs::read_dir(&segments).map_err(OpenError::io("list", &segments))?;
        let listed: Result<BTreeSet<PathBuf>, _> = listed.map(|entry| entry.map(|entry| entry.path())).collect();
        for path in listed.map_err(OpenError::io("list", &segments))?.into_iter().rev() {
            fs::remove_file(&path).map_err(OpenError::io("remove", &path))?;
            sync_dir(&segments)?;
        }
        remove_all(&self.dir)
    }

    pub(crate) fn segments(&self) -> PathBuf {
        segments_dir(&self.dir)
    }

    pub(crate) fn index(&self) -> PathBuf {
        index_dir(&self.dir)
    }
}

fn segments_dir(dir: &Path) -> PathBuf {
    dir.join("segments")
}

pub(crate) fn index_dir(dir: &Path) -> PathBuf {
    dir.join("index")
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), OpenError> {
    File::open(dir)
        .and_then(|folder| folder.sync_all())
        .map_err(OpenError::io("sync", dir))
}

/// Replaces a small file, durably: after a crash it is the old one or the new one.
pub(crate) fn replace_file(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn locked(outcome: Result<(), TryLockError>, dir: &Path, path: &Path) -> Result<(), OpenError> {
    match outcome {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(OpenError::io("lock", path)(source)),
    }
}

fn create_format(dir: &Path, role: Role) -> Result<StoreId, OpenError> {
    let path = dir.join("FORMAT");
    let segments = segments_dir(dir);
    if segments.is_dir() && fs::read_dir(&segments).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(OpenError::Foreign {
            path,
            problem: "missing, and there are segments: put it back from where they came".into(),
        });
    }
    let id = StoreId::generate().map_err(OpenError::io("take random bytes for", &path))?;
    let hex = data_encoding::HEXLOWER.encode(&id.0);
    let text = format!("{FORMAT_TITLE}\nversion {}\nid {hex}\n", role.version());
    replace_file(&path, text.as_bytes()).map_err(OpenError::io("write", &path))?;
    Ok(id)
}

fn read_format(dir: &Path) -> Result<Option<(Role, StoreId)>, OpenError> {
    let path = dir.join("FORMAT");
    match fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::io("read", &path)(error)),
        Ok(metadata) if metadata.len() > FORMAT_BYTES_MAX => return Err(not_a_format(path)),
        Ok(_) => {}
    }
    let text = fs::read_to_string(&path).map_err(OpenError::io("read", &path))?;
    let mut lines = text.lines();
    if lines.next() != Some(FORMAT_TITLE) {
        return Err(not_a_format(path));
    }
    let Some(version) = lines.next().and_then(|line| line.strip_prefix("version ")) else {
        return Err(not_a_format(path));
    };
    let roles = [Role::Alone, Role::Replica];
    let Some(role) = roles.into_iter().find(|role| version == role.version().to_string()) else {
        return Err(OpenError::Version {
            path,
            found: version.to_owned(),
            supported: REPLICA_VERSION,
        });
    };
    let id = lines
        .next()
        .and_then(|line| line.strip_prefix("id "))
        .and_then(|hex| data_encoding::HEXLOWER.decode(hex.as_bytes()).ok())
        .and_then(|bytes| bytes.try_into().ok());
    id.map(|id| Some((role, StoreId(id)))).ok_or_else(|| not_a_format(path))
}

fn not_a_format(path: PathBuf) -> OpenError {
    OpenError::Foreign {
        path,
        problem: "not the FORMAT file of a log store".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_was_let_go_is_free_although_a_process_that_is_being_started_has_its_lock_open() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(dir.path(), Role::Alone).expect("opened");
        let _of_the_other = folder.lock.try_clone().expect("cloned");
        assert!(matches!(
            Folder::open(dir.path(), Role::Alone),
            Err(OpenError::Locked { .. })
        ));
        drop(folder);
        Folder::open(dir.path(), Role::Alone).expect("opened again");
    }
}
