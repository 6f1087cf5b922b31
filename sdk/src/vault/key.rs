//! Keys of vaults.

use super::VaultError;
use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The database's key.
pub(crate) type Key = Zeroizing<[u8; 32]>;

/// Key of a vault. Zeroed when dropped; prints as `[redacted]`.
#[derive(Clone)]
pub struct VaultKey(Given);

#[derive(Clone)]
enum Given {
    Passphrase(Zeroizing<String>),
    Raw(Key),
    File(PathBuf),
}

impl fmt::Debug for VaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Given::Passphrase(_) => f.write_str("Passphrase([redacted])"),
            Given::Raw(_) => f.write_str("Raw([redacted])"),
            Given::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// Kind of a vault's key, without the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Passphrase,
    Raw,
    File(PathBuf),
}

impl VaultKey {
    /// Creates a key from a passphrase, derived with Argon2id. Salt and parameters are stored beside the vault, in
    /// `<vault>.kdf`.
    pub fn passphrase(passphrase: impl Into<String>) -> Self {
        Self(Given::Passphrase(Zeroizing::new(passphrase.into())))
    }

    /// Uses a raw key.
    pub fn raw(key: [u8; 32]) -> Self {
        Self(Given::Raw(Zeroizing::new(key)))
    }

    /// Reads the key from a file, as 64 hex digits. A missing file is created, readable by its owner only; a file that
    /// others may read is refused.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Given::File(path.into()))
    }

    /// Uses the file `<vault>.key` beside the vault: the default place.
    pub fn beside(vault: &Path) -> Self {
        Self::file(beside(vault, "key"))
    }

    /// Returns the file, if the key is in one.
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Given::File(path) => Some(path),
            Given::Passphrase(_) | Given::Raw(_) => None,
        }
    }

    /// Returns the key's kind.
    pub(super) fn kind(&self) -> Kind {
        match &self.0 {
            Given::Passphrase(_) => Kind::Passphrase,
            Given::Raw(_) => Kind::Raw,
            Given::File(path) => Kind::File(path.clone()),
        }
    }

    /// Resolves to the database's key. `vault_exists` says whether an existing vault must open with it.
    pub(crate) fn resolve(&self, vault: &Path, vault_exists: bool) -> Result<Key, VaultError> {
        match &self.0 {
            Given::Raw(key) => Ok(key.clone()),
            Given::Passphrase(passphrase) => derive(vault, vault_exists, passphrase),
            Given::File(path) => key_file(vault, vault_exists, path),
        }
    }
}

/// Parameters of a key's derivation from a passphrase, stored beside the vault. Persisted: keep stable.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Derivation {
    kdf: String,
    version: u32,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
}

/// RFC 9106 section 4: the second recommended option, 64 MiB and three passes.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;
/// Largest memory size accepted from a derivation file: none of our vaults uses more.
const MEMORY_KIB_MAX: u32 = 4 * 1024 * 1024;
const PASSES_MAX: u32 = 1_000;
const LANES_MAX: u32 = 64;
const FILE_BYTES_MAX: u64 = 4_096;

fn derive(vault: &Path, vault_exists: bool, passphrase: &str) -> Result<Key, VaultError> {
    let path = beside(vault, "kdf");
    let derivation = match read_small(&path)? {
        Some(text) => {
            serde_json::from_str(&text).map_err(|error| wrong(vault, format!("{}: {error}", path.display())))?
        }
        None if vault_exists => {
            return Err(wrong(
                vault,
                format!("{} is missing: the key cannot be derived without it", path.display()),
            ));
        }
        None => new_derivation(&path)?,
    };
    let known = derivation.kdf == "argon2id"
        && derivation.version == Version::V0x13 as u32
        && derivation.memory_kib <= MEMORY_KIB_MAX
        && derivation.passes <= PASSES_MAX
        && derivation.lanes <= LANES_MAX;
    if !known {
        return Err(wrong(vault, format!("{}: parameters not supported", path.display())));
    }
    let bad = |error: String| wrong(vault, format!("{}: {error}", path.display()));
    let salt = HEXLOWER
        .decode(derivation.salt.as_bytes())
        .map_err(|error| bad(error.to_string()))?;
    let params = Params::new(derivation.memory_kib, derivation.passes, derivation.lanes, Some(32))
        .map_err(|error| bad(error.to_string()))?;
    let mut key = Key::default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), &salt, key.as_mut_slice())
        .map_err(|error| bad(error.to_string()))?;
    Ok(key)
}

fn new_derivation(path: &Path) -> Result<Derivation, VaultError> {
    let mut salt = [0; SALT_BYTES];
    random(&mut salt)?;
    let derivation = Derivation {
        kdf: "argon2id".into(),
        version: Version::V0x13 as u32,
        memory_kib: MEMORY_KIB,
        passes: PASSES,
        lanes: LANES,
        salt: HEXLOWER.encode(&salt),
    };
    let text = serde_json::to_string(&derivation).map_err(|error| VaultError::io("writing key parameters", error))?;
    write_new(path, text.as_bytes())?;
    Ok(derivation)
}

fn key_file(vault: &Path, vault_exists: bool, path: &Path) -> Result<Key, VaultError> {
    let Some(text) = read_small(path)?.map(Zeroizing::new) else {
        if vault_exists {
            return Err(wrong(vault, format!("key file {} is missing", path.display())));
        }
        let mut key = Key::default();
        random(key.as_mut_slice())?;
        let mut text = Zeroizing::new(HEXLOWER.encode(key.as_slice()));
        text.push('\n');
        write_new(path, text.as_bytes())?;
        return Ok(key);
    };
    let metadata = std::fs::metadata(path).map_err(|error| VaultError::io(format!("{}", path.display()), error))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(wrong(
            vault,
            format!(
                "key file {} may be read by others (mode {mode:04o}): `chmod 600` it",
                path.display()
            ),
        ));
    }
    let malformed = || {
        wrong(
            vault,
            format!("key file {} does not hold 64 hex digits", path.display()),
        )
    };
    let bytes = HEXLOWER
        .decode(text.trim().as_bytes())
        .map(Zeroizing::new)
        .map_err(|_| malformed())?;
    let mut key = Key::default();
    if bytes.len() != key.len() {
        return Err(malformed());
    }
    key.copy_from_slice(&bytes);
    Ok(key)
}

/// Returns `<vault>.<suffix>`.
pub(crate) fn beside(vault: &Path, suffix: &str) -> PathBuf {
    let mut name = vault.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

pub(crate) fn random(bytes: &mut [u8]) -> Result<(), VaultError> {
    getrandom::fill(bytes).map_err(|error| VaultError::io("random bytes", error))
}

fn wrong(vault: &Path, problem: String) -> VaultError {
    VaultError::Key {
        path: vault.to_owned(),
        problem,
    }
}

fn read_small(path: &Path) -> Result<Option<String>, VaultError> {
    let fail = |error: std::io::Error| VaultError::io(format!("reading {}", path.display()), error);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(fail)?;
    Ok(Some(text))
}

/// Copies the parameters of a derivation beside a copy of the vault.
pub(super) fn copy_parameters(from: &Path, to: &Path) -> Result<(), VaultError> {
    let text = read_small(from)?.ok_or_else(|| VaultError::Unsuitable {
        path: from.to_owned(),
        problem: "it is missing: without these parameters the passphrase opens nothing".into(),
    })?;
    write_new(to, text.as_bytes())
}

/// Writes a new file, readable by its owner only; atomically and durably.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), VaultError> {
    let fail = |error: std::io::Error| VaultError::file(format!("writing {}", path.display()), &error);
    let temporary = beside(path, "new");
    // A killed process may have left a file. Others may use the folder, too: nothing of theirs is written to.
    let _ = std::fs::remove_file(&temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    file.sync_all().map_err(fail)?;
    std::fs::rename(&temporary, path).map_err(fail)?;
    sync_folder(path).map_err(fail)
}

/// Makes a file's name durable by a sync of its folder.
pub(crate) fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}
