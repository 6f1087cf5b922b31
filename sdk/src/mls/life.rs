//! Validity of a KeyPackage for adding its owner: an extension of ours, under the KeyPackage's signature.
//!
//! The leaf's own lifetime (RFC 9420 section 7.2) cannot be used: OpenMLS checks it against the clock of the processing
//! agent. See the rules in [`group`](super::group).

use openmls::prelude::{Extension, Extensions, KeyPackage, UnknownExtension};

/// The extension's type, of the range for private use (RFC 9420 section 17.3). Persisted: keep stable.
pub(super) const LIFE_EXTENSION: u16 = 0xF5C1;

/// Creation and expiry of a KeyPackage, unix seconds.
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

    /// Reads it from a KeyPackage; `None` for a package of a version without it.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mls::Identity;
    use crate::mls::group::CIPHERSUITE;
    use openmls::prelude::{Capabilities, ExtensionType};
    use openmls_rust_crypto::OpenMlsRustCrypto;
    use zeroize::Zeroizing;

    fn package(extension: Option<&[u8]>) -> KeyPackage {
        let identity = Identity::new(&Zeroizing::new([7; 32]));
        let extensions = [ExtensionType::Unknown(LIFE_EXTENSION)];
        let capabilities = Capabilities::new(None, None, Some(&extensions), None, None);
        let mut builder = KeyPackage::builder().leaf_node_capabilities(capabilities);
        if let Some(bytes) = extension {
            let extension = Extension::Unknown(LIFE_EXTENSION, UnknownExtension(bytes.to_vec()));
            builder = builder.key_package_extensions(Extensions::single(extension).expect("allowed"));
        }
        let provider = OpenMlsRustCrypto::default();
        let built = builder.build(CIPHERSUITE, &provider, &identity, identity.credential());
        built.expect("built").into_key_package()
    }

    #[test]
    fn a_life_has_one_encoding_and_is_not_guessed() {
        let bytes = [&5_u64.to_be_bytes()[..], &u64::MAX.to_be_bytes()].concat();
        let life = Life {
            made_s: 5,
            expires_s: u64::MAX,
        };
        assert_eq!(Life::of(&package(Some(&bytes))), Ok(Some(life)));
        assert_eq!(
            life.extensions().expect("made"),
            package(Some(&bytes)).extensions().clone()
        );
        assert_eq!(Life::of(&package(None)), Ok(None));
        for wrong in [&bytes[..15], &[], &[bytes.as_slice(), &[0]].concat(), &[0; 32]] {
            assert!(Life::of(&package(Some(wrong))).is_err(), "{} bytes", wrong.len());
        }
    }
}
