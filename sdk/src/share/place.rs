//! The path of a vault's socket.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

/// The longest socket path that every system accepts, in bytes: `sun_path` has 104 on macOS, 108 on Linux.
const PATH_BYTES_MAX: usize = 103;
/// Longest socket name, in bytes: a longer one is replaced by its hash.
const NAME_BYTES_MAX: usize = 64;
/// Suffix of a socket's name until it is ready.
const NEW: &str = ".new";

/// Path of a vault's socket: `<vault>.sock`, with all symbolic links resolved.
#[derive(Clone, Debug)]
pub(super) struct Place {
    folder: PathBuf,
    name: OsString,
}

/// Identity of a socket's file, so that only this one is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            number: metadata.ino(),
        })
    }
}

impl Place {
    /// Returns the place beside an existing vault.
    pub(super) fn beside(vault: &Path) -> io::Result<Self> {
        let vault = fs::canonicalize(vault)?;
        let (Some(folder), Some(name)) = (vault.parent(), vault.file_name()) else {
            return Err(ErrorKind::InvalidInput.into());
        };
        let name = if name.len() > NAME_BYTES_MAX {
            let hash = blake3::hash(name.as_bytes()).to_hex();
            OsString::from(format!("skytale-{}.sock", &hash[..32]))
        } else {
            let mut name = name.to_owned();
            name.push(".sock");
            name
        };
        Ok(Self {
            folder: folder.to_owned(),
            name,
        })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    pub(super) fn exists(&self) -> bool {
        fs::symlink_metadata(self.path()).is_ok_and(|metadata| metadata.file_type().is_socket())
    }

    /// Binds the socket, for its owner only, replacing one that a process has left behind. The vault's lock must be
    /// held.
    pub(super) fn bind(&self) -> io::Result<(UnixListener, Inode)> {
        let path = self.path();
        if fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.file_type().is_socket()) {
            let text = format!("{} exists and is not a socket", path.display());
            return Err(io::Error::new(ErrorKind::AlreadyExists, text));
        }
        let mut name = self.name.clone();
        name.push(NEW);
        let new = self.folder.join(&name);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // It is ready before it has its name, so that nobody finds one that does not listen, or that others may use.
        let short = Short::new(&self.folder, &name)?;
        let listener = UnixListener::bind(&short.path)?;
        let named = fs::set_permissions(&new, fs::Permissions::from_mode(0o600))
            .and_then(|()| Inode::of(&new))
            .and_then(|inode| fs::rename(&new, &path).map(|()| inode));
        match named {
            Ok(inode) => Ok((listener, inode)),
            Err(error) => {
                let _ = fs::remove_file(&new);
                Err(error)
            }
        }
    }

    /// Removes the socket, if it is still the one that was bound. The vault's lock must be held.
    pub(super) fn remove(&self, bound: Inode) {
        let path = self.path();
        if Inode::of(&path).is_ok_and(|inode| inode == bound) {
            let _ = fs::remove_file(path);
        }
    }

    pub(super) async fn connect(&self) -> io::Result<UnixStream> {
        let short = Short::new(&self.folder, &self.name)?;
        UnixStream::connect(&short.path).await
    }
}

/// A path that fits into a socket's address.
struct Short {
    path: PathBuf,
    /// Keeps the path valid.
    _folder: Option<File>,
}

impl Short {
    fn new(folder: &Path, name: &OsString) -> io::Result<Self> {
        let path = folder.join(name);
        if path.as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(Self { path, _folder: None });
        }
        // However long the folder's path is, the path by its descriptor is short.
        let open = File::open(folder)?;
        let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        if !by_descriptor.exists() {
            let text = format!("the path {} is too long for a socket", path.display());
            return Err(io::Error::new(ErrorKind::InvalidInput, text));
        }
        Ok(Self {
            path: by_descriptor.join(name),
            _folder: Some(open),
        })
    }
}

/// Returns the user id of this process.
pub(super) fn own_user() -> io::Result<u32> {
    let (here, _there) = UnixStream::pair()?;
    Ok(here.peer_cred()?.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(folder: &Path) -> PathBuf {
        let vault = folder.join("agent.vault");
        fs::write(&vault, b"").expect("written");
        vault
    }

    #[tokio::test]
    async fn a_socket_is_its_owners_alone_and_takes_the_place_of_a_dead_ones() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place::beside(&vault(folder.path())).expect("a place");
        let (dead, first) = place.bind().expect("bound");
        drop(dead);
        assert!(place.connect().await.is_err(), "nobody listens");
        let (_listener, second) = place.bind().expect("bound again");
        assert_eq!(fs::metadata(place.path()).expect("there").mode() & 0o777, 0o600);
        place.connect().await.expect("connected");
        place.remove(first);
        assert!(place.exists(), "another's socket stays");
        place.remove(second);
        assert!(!place.exists());
    }

    #[tokio::test]
    async fn a_path_too_long_for_a_socket_works_all_the_same() {
        let base = tempfile::tempdir().expect("a folder");
        let folder = base.path().join("a".repeat(100)).join("b".repeat(100));
        fs::create_dir_all(&folder).expect("made");
        let long = folder.join("c".repeat(200));
        fs::write(&long, b"").expect("written");
        for vault in [vault(&folder), long] {
            let place = Place::beside(&vault).expect("a place");
            let (_listener, _) = place.bind().expect("bound");
            place.connect().await.expect("connected");
        }
    }

    #[test]
    fn a_file_that_is_no_socket_is_not_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let vault = vault(folder.path());
        fs::write(folder.path().join("agent.vault.sock"), b"mine").expect("written");
        let error = Place::beside(&vault).expect("a place").bind().expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(
            fs::read(folder.path().join("agent.vault.sock")).expect("there"),
            b"mine"
        );
    }
}
