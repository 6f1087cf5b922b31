//! A secret that is shared with the operator, or with relay nodes.

use secrecy::{ExposeSecret, SecretString};
use std::fmt;

/// The hash of a shared secret. Two hashes are compared in constant time, at any lengths of the hashed texts.
#[derive(Clone)]
pub(crate) struct SharedSecret(blake3::Hash);

impl SharedSecret {
    pub(crate) fn new(secret: &SecretString) -> Self {
        Self(blake3::hash(secret.expose_secret().as_bytes()))
    }

    pub(crate) fn is(&self, presented: &str) -> bool {
        self.0 == blake3::hash(presented.as_bytes())
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret([redacted])")
    }
}
