//! The endpoint's secret key in a file that only its owner can read.

use iroh::SecretKey;
use skytale_proto::Code;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;

/// A secret key file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretKeyError {
    /// The file cannot be read or written.
    #[error("secret key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// Others than its owner can use the file.
    #[error("secret key file {path} has mode {mode:03o}: others than its owner can use it; run `chmod 600 {path}`")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a key.
    #[error("secret key file {path} does not hold 64 hex digits")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

impl SecretKeyError {
    /// The code that goes with this.
    pub const fn code(&self) -> Code {
        Code::Environment
    }
}

/// Refuses a file that is there and does not hold a key. One that is missing is made when the node starts.
pub fn check_secret_key_file(path: &Path) -> Result<(), SecretKeyError> {
    match path.try_exists() {
        Ok(false) => Ok(()),
        Ok(true) => read(path).map(|_| ()),
        Err(source) => Err(SecretKeyError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Reads the key, or makes a new one where there is no file.
pub(crate) fn read_or_make(path: &Path) -> Result<SecretKey, SecretKeyError> {
    match make(path) {
        Ok(key) => Ok(key),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => read(path),
        Err(source) => Err(SecretKeyError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Whole or not at all: the key is synced under another name, then linked to its own.
fn make(path: &Path) -> Result<SecretKey, std::io::Error> {
    if path.try_exists()? {
        return Err(ErrorKind::AlreadyExists.into());
    }
    let key = SecretKey::generate();
    let text = Zeroizing::new(hex(&Zeroizing::new(key.to_bytes())));
    let part = path.with_extension(format!("part-{}", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        std::fs::hard_link(&part, path)
    })();
    let removed = std::fs::remove_file(&part);
    written.and(removed)?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder)?.sync_all()?;
    }
    Ok(key)
}

fn read(path: &Path) -> Result<SecretKey, SecretKeyError> {
    let io = |source| SecretKeyError::Io {
        path: path.to_owned(),
        source,
    };
    let malformed = || SecretKeyError::Malformed { path: path.to_owned() };
    let file = File::open(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretKeyError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = Zeroizing::new(String::with_capacity(256));
    file.take(128).read_to_string(&mut text).map_err(io)?;
    let bytes = unhex(text.trim()).ok_or_else(malformed)?;
    Ok(SecretKey::from_bytes(&bytes))
}

fn hex(bytes: &[u8; KEY_BYTES]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0');
    let mut text = String::with_capacity(KEY_BYTES * 2);
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

fn unhex(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != KEY_BYTES || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let digit = |text: u8| char::from(text).to_digit(16).and_then(|value| u8::try_from(value).ok());
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_key_is_made_once_and_only_its_owner_can_read_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("relay.key");
        let made = read_or_make(&path).expect("made");
        let mode = std::fs::metadata(&path).expect("there").mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(read_or_make(&path).expect("read").to_bytes(), made.to_bytes());
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("relay.key");
        read_or_make(&path).expect("made");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("set");
        let refused = read_or_make(&path).expect_err("is refused");
        assert!(matches!(refused, SecretKeyError::Exposed { mode: 0o640, .. }));
    }

    #[test]
    fn a_file_that_holds_no_key_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("relay.key");
        std::fs::write(&path, "not a key").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
        assert!(matches!(read_or_make(&path), Err(SecretKeyError::Malformed { .. })));
        assert_eq!(std::fs::read(&path).expect("there"), b"not a key");
    }
}
