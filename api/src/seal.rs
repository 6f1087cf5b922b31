//! Encryption of signing keys' seeds at rest: XChaCha20-Poly1305 under the key encryption key.

use crate::config::KeyEncryptionKey;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

/// Random nonces of this length do not meet by chance.
pub(crate) const NONCE_BYTES: usize = 24;
const CONTEXT: &[u8] = b"skytale signing key 1";

/// The stored value does not open under this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signing key in the database was encrypted under another key encryption key")]
pub(crate) struct SealError;

/// Encrypts a seed, bound to its key's id: `nonce`, which must be random, then the ciphertext, hex.
pub(crate) fn seal(
    key: &KeyEncryptionKey,
    kid: &str,
    seed: &[u8; 32],
    nonce: [u8; NONCE_BYTES],
) -> Result<String, SealError> {
    let mut sealed = nonce.to_vec();
    let payload = Payload {
        msg: seed,
        aad: &associated(kid),
    };
    let ciphertext = cipher(key)
        .encrypt(XNonce::from_slice(&nonce), payload)
        .map_err(|_| SealError)?;
    sealed.extend_from_slice(&ciphertext);
    Ok(HEXLOWER.encode(&sealed))
}

/// Decrypts a seed.
pub(crate) fn open(key: &KeyEncryptionKey, kid: &str, sealed: &str) -> Result<Zeroizing<[u8; 32]>, SealError> {
    let sealed = HEXLOWER.decode(sealed.as_bytes()).map_err(|_| SealError)?;
    let (nonce, ciphertext) = sealed.split_at_checked(NONCE_BYTES).ok_or(SealError)?;
    let payload = Payload {
        msg: ciphertext,
        aad: &associated(kid),
    };
    let plaintext = cipher(key)
        .decrypt(XNonce::from_slice(nonce), payload)
        .map_err(|_| SealError)?;
    let plaintext = Zeroizing::new(plaintext);
    let mut seed = Zeroizing::new([0; 32]);
    if plaintext.len() != seed.len() {
        return Err(SealError);
    }
    seed.copy_from_slice(&plaintext);
    Ok(seed)
}

fn cipher(key: &KeyEncryptionKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(Key::from_slice(key.as_bytes()))
}

fn associated(kid: &str) -> Vec<u8> {
    [CONTEXT, kid.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> KeyEncryptionKey {
        KeyEncryptionKey::from_bytes(Zeroizing::new([byte; 32]))
    }

    #[test]
    fn a_seed_opens_under_its_key_and_id_alone() {
        let sealed = seal(&key(1), "kid", &[7; 32], [5; NONCE_BYTES]).unwrap();
        assert_eq!(*open(&key(1), "kid", &sealed).unwrap(), [7; 32]);
        assert_eq!(open(&key(2), "kid", &sealed).unwrap_err(), SealError);
        assert_eq!(open(&key(1), "other", &sealed).unwrap_err(), SealError);
        assert_eq!(open(&key(1), "kid", "").unwrap_err(), SealError);
        assert_eq!(open(&key(1), "kid", &sealed[2..]).unwrap_err(), SealError);
        assert!(!sealed.contains(&"07".repeat(8)));
    }

    #[test]
    fn a_changed_seal_does_not_open() {
        let sealed = seal(&key(1), "kid", &[7; 32], [5; NONCE_BYTES]).unwrap();
        for position in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[position] = if changed[position] == b'0' { b'1' } else { b'0' };
            assert!(open(&key(1), "kid", std::str::from_utf8(&changed).unwrap()).is_err());
        }
    }
}
