//! What opens a vault.

use std::fmt;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// What a vault is opened with. Prints as `[redacted]`.
#[derive(Clone)]
pub enum VaultKey {
    /// A passphrase. The key is derived with Argon2id; its salt and parameters stand beside the vault, in
    /// `<vault>.kdf`.
    Passphrase(Zeroizing<String>),
    /// The key itself.
    Raw(Zeroizing<[u8; 32]>),
    /// A file that holds the key as 64 hex digits. Made, readable by its owner alone, where it is not there yet;
    /// refused where others may read it.
    File(PathBuf),
}

impl fmt::Debug for VaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passphrase(_) => f.write_str("Passphrase([redacted])"),
            Self::Raw(_) => f.write_str("Raw([redacted])"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}
