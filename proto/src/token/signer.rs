//! The side that gives tokens out.

use super::{Claims, provider};
use crate::rest::Jwk;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ed25519_dalek::SigningKey;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use std::fmt;
use zeroize::Zeroizing;

/// Signs tokens with one Ed25519 key. The key is zeroized when dropped, and never shown.
pub struct TokenSigner {
    key: EncodingKey,
    header: Header,
    kid: String,
    public: [u8; 32],
}

impl TokenSigner {
    /// A signer with a new random key. Panics where the system has no randomness to give.
    #[allow(clippy::expect_used)]
    pub fn generate() -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        // A system without randomness can run nothing here: every key would be known.
        getrandom::fill(seed.as_mut_slice()).expect("the system gives random bytes");
        Self::from_seed(seed)
    }

    /// A signer with the Ed25519 key of this seed (RFC 8032 section 5.1.5).
    pub fn from_seed(seed: Zeroizing<[u8; 32]>) -> Self {
        provider::install();
        let public = SigningKey::from_bytes(&seed).verifying_key().to_bytes();
        let kid = HEXLOWER.encode(&blake3::hash(&public).as_bytes()[..16]);
        Self {
            key: provider::encoding_key(&seed),
            header: Header {
                kid: Some(kid.clone()),
                ..Header::new(Algorithm::EdDSA)
            },
            kid,
            public,
        }
    }

    /// The token.
    ///
    /// # Panics
    /// If the process installed a `jsonwebtoken` provider of its own, one without EdDSA, before it made a signer.
    #[allow(clippy::expect_used)]
    pub fn sign(&self, claims: &Claims) -> String {
        // The claims are strings and numbers, the header's algorithm is the key's, the key was built from a seed.
        jsonwebtoken::encode(&self.header, claims, &self.key).expect("claims are JSON and Ed25519 signs any bytes")
    }

    /// The public key, as the key set has it.
    pub fn jwk(&self) -> Jwk {
        Jwk {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            alg: "EdDSA".to_owned(),
            use_: "sig".to_owned(),
            kid: self.kid.clone(),
            x: BASE64URL_NOPAD.encode(&self.public),
        }
    }

    /// The key's id: hex of the first 16 bytes of the public key's BLAKE3 hash.
    pub fn kid(&self) -> &str {
        &self.kid
    }
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenSigner({}, [redacted])", self.kid)
    }
}
