//! An agent's identity key.

use ed25519_dalek::{Signer as _, SigningKey};
use openmls::prelude::{BasicCredential, CredentialWithKey, SignaturePublicKey};
use openmls_traits::signatures::{Signer, SignerError};
use openmls_traits::types::SignatureScheme;
use skytale_proto::AgentId;
use std::fmt;
use zeroize::Zeroizing;

/// The agent's Ed25519 key (RFC 8032). The public key is the agent's id, the identity in its credential, and the
/// signature key of its leaf in every group. Zeroized when dropped.
pub(crate) struct Identity {
    key: SigningKey,
}

impl Identity {
    pub(crate) fn new(secret: &Zeroizing<[u8; 32]>) -> Self {
        Self {
            key: SigningKey::from_bytes(secret),
        }
    }

    pub(crate) fn agent_id(&self) -> AgentId {
        AgentId::from_bytes(self.key.verifying_key().to_bytes())
    }

    pub(crate) fn sign_bytes(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    pub(crate) fn credential(&self) -> CredentialWithKey {
        let id = self.agent_id();
        CredentialWithKey {
            credential: BasicCredential::new(id.as_bytes().to_vec()).into(),
            signature_key: SignaturePublicKey::from(id.as_bytes().as_slice()),
        }
    }
}

impl Signer for Identity {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        Ok(self.sign_bytes(payload).to_vec())
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("agent_id", &self.agent_id())
            .field("key", &"[redacted]")
            .finish()
    }
}
