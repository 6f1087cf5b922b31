//! An agent, as far as the API sees one: an identity key and an endpoint.

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer as _, SigningKey};
use skytale_proto::rest::{TokenRequest, proof_message};
use skytale_proto::{AgentId, EndpointId};

pub(crate) struct TestAgent {
    key: SigningKey,
    pub endpoint: EndpointId,
}

impl TestAgent {
    pub(crate) fn new() -> Self {
        Self {
            key: SigningKey::from_bytes(&random()),
            endpoint: EndpointId::from_bytes(random()),
        }
    }

    pub(crate) fn id(&self) -> AgentId {
        AgentId::from_bytes(self.key.verifying_key().to_bytes())
    }

    /// The identity key, hex: must be found nowhere.
    pub(crate) fn secret_hex(&self) -> String {
        HEXLOWER.encode(self.key.as_bytes())
    }

    /// Asks for a token with everything that the key may give.
    pub(crate) fn request(&self, nonce: &str) -> TokenRequest {
        let bytes: [u8; 32] = HEXLOWER.decode(nonce.as_bytes()).unwrap().try_into().unwrap();
        let signature = self.key.sign(&proof_message(&bytes, &self.id(), &self.endpoint));
        TokenRequest {
            agent: self.id(),
            endpoint: self.endpoint,
            nonce: nonce.to_owned(),
            signature: HEXLOWER.encode(&signature.to_bytes()),
            scopes: Vec::new(),
            region: None,
        }
    }
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}
