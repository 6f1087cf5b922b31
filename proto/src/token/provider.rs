//! The cryptography under `jsonwebtoken`: Ed25519 and nothing else, so that no algorithm can be
//! confused with another. Its signature check is the strict one (no small-order keys, no
//! malleable encodings).

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result, new_error};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey};
use std::sync::LazyLock;
use zeroize::Zeroizing;

/// Bytes before a seed in PKCS #8 (RFC 8410 section 7), the form in which `jsonwebtoken` passes Ed25519 keys.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: new_signer,
    verifier_factory: new_verifier,
    // For `jsonwebtoken`'s own key set type, which nothing here uses.
    key_utils: KeyUtils::new_unimplemented(),
};

static INSTALLED: LazyLock<bool> = LazyLock::new(|| PROVIDER.install_default().is_ok());

/// Makes this the process' provider; `false` where the process had another one before.
pub(super) fn install() -> bool {
    *INSTALLED
}

/// A seed as `jsonwebtoken` takes it. The key zeroizes itself.
pub(super) fn encoding_key(seed: &[u8; 32]) -> EncodingKey {
    let mut der = Zeroizing::new([0; 48]);
    der[..16].copy_from_slice(&PKCS8_PREFIX);
    der[16..].copy_from_slice(seed);
    EncodingKey::from_ed_der(der.as_slice())
}

fn new_signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    eddsa_only(*algorithm, key.family())?;
    let seed = key.as_bytes().strip_prefix(PKCS8_PREFIX.as_slice());
    let seed: Option<&[u8; 32]> = seed.and_then(|seed| seed.try_into().ok());
    let seed = seed.ok_or_else(|| new_error(ErrorKind::InvalidEddsaKey))?;
    Ok(Box::new(EdSigner(SigningKey::from_bytes(seed))))
}

fn new_verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    eddsa_only(*algorithm, key.family())?;
    let invalid = || new_error(ErrorKind::InvalidEddsaKey);
    let bytes: &[u8; 32] = key.try_get_as_bytes()?.try_into().map_err(|_| invalid())?;
    let key = VerifyingKey::from_bytes(bytes).map_err(|_| invalid())?;
    Ok(Box::new(EdVerifier(key)))
}

fn eddsa_only(algorithm: Algorithm, family: AlgorithmFamily) -> Result<()> {
    if algorithm == Algorithm::EdDSA && family == AlgorithmFamily::Ed {
        Ok(())
    } else {
        Err(new_error(ErrorKind::InvalidAlgorithm))
    }
}

struct EdSigner(SigningKey);

impl Signer<Vec<u8>> for EdSigner {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, signature::Error> {
        Ok(self.0.sign(message).to_bytes().to_vec())
    }
}

impl JwtSigner for EdSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

struct EdVerifier(VerifyingKey);

impl Verifier<Vec<u8>> for EdVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        let signature = Signature::from_slice(signature).map_err(|_| signature::Error::new())?;
        self.0
            .verify_strict(message, &signature)
            .map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for EdVerifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}
