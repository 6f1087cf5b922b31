//! When a KeyPackage may be used to add its owner: an extension of ours, under the KeyPackage's signature.
//!
//! The leaf's own lifetime (RFC 9420 section 7.2) cannot say it: OpenMLS checks that one against the clock of whoever
//! processes the commit. See the rules in [`group`](super::group).

use openmls::prelude::{Extension, Extensions, KeyPackage, UnknownExtension};

/// The extension's type, of the range for private use (RFC 9420 section 17.3). Persisted: keep stable.
pub(super) const LIFE_EXTENSION: u16 = 0xF5C1;

/// When a KeyPackage was made and when it expires, unix seconds.
///
/// ```text
///   struct {
///       uint64 made;
///       uint64 expires;
///   } Life;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) made_s: u64,
    pub(crate) expires_s: u64,
}

impl Life {
    pub(super) fn extensions(self) -> Result<Extensions<KeyPackage>, String> {
        let bytes = [self.made_s.to_be_bytes(), self.expires_s.to_be_bytes()].concat();
        Extensions::single(Extension::Unknown(LIFE_EXTENSION, UnknownExtension(bytes)))
            .map_err(|error| error.to_string())
    }

    /// What a KeyPackage says; `None` for one of a version that did not say it yet.
    pub(crate) fn of(package: &KeyPackage) -> Result<Option<Self>, String> {
        let Some(UnknownExtension(bytes)) = package.extensions().unknown(LIFE_EXTENSION) else {
            return Ok(None);
        };
        match bytes.as_chunks() {
            ([made, expires], []) => Ok(Some(Self {
                made_s: u64::from_be_bytes(*made),
                expires_s: u64::from_be_bytes(*expires),
            })),
            _ => Err("a key package whose time of expiry is not 16 bytes long".into()),
        }
    }
}
