//! Link negotiation, as the side that is connected to.
//!
//! The client sends a public key of X25519 (RFC 7748) and perhaps one of ML-KEM-768 (FIPS 203). Both sides derive
//! `HKDF-SHA256(salt = link id, ikm = X25519 secret [then ML-KEM secret], info)`, 32 bytes. The keys are of one link and
//! prove nobody's identity: that is TLS's and the account's business.

use super::mac::LinkMac;
use crate::wire::proto::{
    Link, LinkConnectionType, LinkNegotiationPayload, Message, link::LinkType, message::MessageType,
};
use bytes::Bytes;
use ml_kem::kem::Encapsulate as _;
use ml_kem::{EncapsulationKey, MlKem768};
use prost::Message as _;
use ring::{agreement, hkdf, rand};
use zeroize::Zeroizing;

const INFO: &[u8] = b"SLIM-DP-inter-node-hmac-v1";
const INFO_HYBRID: &[u8] = b"SLIM-DP-inter-node-hmac-v1-pq";
/// An encapsulation key of ML-KEM-768, in bytes.
const KEM_KEY_BYTES: usize = 1_184;
/// Texts of a negotiation, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// Identity of the bridge in negotiation.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The version of SLIM whose wire format it speaks.
    pub slim_version: String,
    /// Its node id.
    pub node_id: String,
}

/// A negotiation that has succeeded.
#[derive(Debug)]
pub struct Accepted {
    /// The link's key.
    pub mac: LinkMac,
    /// The message to answer with.
    pub reply: Bytes,
    /// Name of the other side.
    pub node_id: String,
    /// Its version.
    pub version: String,
    /// Whether ML-KEM-768 went into the key.
    pub hybrid: bool,
    /// Whether the other side is a SLIM node that wants a peer link.
    pub is_node: bool,
}

/// Reason why there is no link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    /// Not a negotiation, or not one that a client begins.
    #[error("the first message must be a link negotiation request")]
    Expected,
    /// A field that cannot be used.
    #[error("link negotiation: {0}")]
    Field(&'static str),
    /// No key came of it.
    #[error("link negotiation: key agreement failed")]
    Agreement,
}

/// Answers a negotiation. `link` is the body of a Link message.
pub fn accept(link: Bytes, identity: &Identity) -> Result<Accepted, NegotiationError> {
    let link = Link::decode(link).map_err(|_| NegotiationError::Expected)?;
    let Some(LinkType::LinkNegotiation(request)) = link.link_type else {
        return Err(NegotiationError::Expected);
    };
    if request.is_reply {
        return Err(NegotiationError::Expected);
    }
    check(&request)?;
    let ephemeral = Ephemeral::generate()?;
    let public = ephemeral.public.clone();
    let secret = ephemeral.agree(&request.link_ecdh_public_key)?;
    let (kem, kem_secret) = match &request.link_kem_payload {
        Some(key) if !key.is_empty() => {
            let (ciphertext, secret) = encapsulate(key)?;
            (Some(ciphertext), Some(secret))
        }
        _ => (None, None),
    };
    let key = derive(&request.link_id, &secret, kem_secret.as_ref())?;
    let is_node = request.connection_type == i32::from(LinkConnectionType::Peer);
    let reply = LinkNegotiationPayload {
        link_id: request.link_id.clone(),
        slim_version: identity.slim_version.clone(),
        is_reply: true,
        link_ecdh_public_key: public,
        connection_type: LinkConnectionType::try_from(request.connection_type)
            .unwrap_or(LinkConnectionType::Remote)
            .into(),
        node_id: identity.node_id.clone(),
        // A node takes peers of its own deployment only. The account decides which nodes may be peers, not this text.
        deployment_name: if is_node {
            request.deployment_name
        } else {
            String::new()
        },
        link_kem_payload: kem,
    };
    let message = Message {
        message_type: Some(MessageType::Link(Link {
            link_type: Some(LinkType::LinkNegotiation(reply)),
        })),
        ..Message::default()
    };
    Ok(Accepted {
        mac: LinkMac::new(&key, request.link_id),
        reply: message.encode_to_vec().into(),
        node_id: request.node_id,
        version: request.slim_version,
        hybrid: kem_secret.is_some(),
        is_node,
    })
}

fn check(request: &LinkNegotiationPayload) -> Result<(), NegotiationError> {
    let field = |problem| Err(NegotiationError::Field(problem));
    if request.link_id.is_empty() {
        return field("no link id");
    }
    let texts = [
        &request.link_id,
        &request.slim_version,
        &request.node_id,
        &request.deployment_name,
    ];
    if texts.iter().any(|text| text.len() > TEXT_BYTES_MAX) {
        return field("a text over 256 bytes");
    }
    if !is_version(&request.slim_version) {
        return field("the version is not a semantic version");
    }
    if request.link_ecdh_public_key.len() != 32 {
        return field("the X25519 key is not 32 bytes");
    }
    Ok(())
}

/// `major.minor.patch`, with or without what may follow.
fn is_version(text: &str) -> bool {
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let mut parts = core.split('.');
    let mut number = || parts.next().is_some_and(|part| part.parse::<u64>().is_ok());
    number() && number() && number() && parts.next().is_none()
}

/// A fresh key of X25519.
pub(super) struct Ephemeral {
    private: agreement::EphemeralPrivateKey,
    pub(super) public: Bytes,
}

impl Ephemeral {
    pub(super) fn generate() -> Result<Self, NegotiationError> {
        let random = rand::SystemRandom::new();
        let failed = |_| NegotiationError::Agreement;
        let private = agreement::EphemeralPrivateKey::generate(&agreement::X25519, &random).map_err(failed)?;
        let public = Bytes::copy_from_slice(private.compute_public_key().map_err(failed)?.as_ref());
        Ok(Self { private, public })
    }

    /// The secret that it shares with another.
    pub(super) fn agree(self, theirs: &[u8]) -> Result<Zeroizing<[u8; 32]>, NegotiationError> {
        let theirs = agreement::UnparsedPublicKey::new(&agreement::X25519, theirs);
        let mut secret = Zeroizing::new([0; 32]);
        agreement::agree_ephemeral(self.private, &theirs, |shared| {
            if shared.len() == secret.len() {
                secret.copy_from_slice(shared);
            }
        })
        .map_err(|_| NegotiationError::Agreement)?;
        Ok(secret)
    }
}

/// ML-KEM-768: the ciphertext and the shared secret.
fn encapsulate(key: &[u8]) -> Result<(Bytes, Zeroizing<[u8; 32]>), NegotiationError> {
    let key: &[u8; KEM_KEY_BYTES] = key
        .try_into()
        .map_err(|_| NegotiationError::Field("the ML-KEM-768 key is not 1184 bytes"))?;
    let key = EncapsulationKey::<MlKem768>::new(&(*key).into())
        .map_err(|_| NegotiationError::Field("the ML-KEM-768 key is not valid"))?;
    let (ciphertext, shared) = key.encapsulate();
    let mut secret = Zeroizing::new([0; 32]);
    secret.copy_from_slice(&shared);
    Ok((Bytes::copy_from_slice(&ciphertext), secret))
}

pub(super) fn derive(
    link_id: &str,
    secret: &[u8; 32],
    kem_secret: Option<&Zeroizing<[u8; 32]>>,
) -> Result<Zeroizing<[u8; 32]>, NegotiationError> {
    struct Length;
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            32
        }
    }
    let mut material = Zeroizing::new(Vec::with_capacity(64));
    material.extend_from_slice(secret);
    let mut info = INFO;
    if let Some(kem_secret) = kem_secret {
        material.extend_from_slice(kem_secret.as_slice());
        info = INFO_HYBRID;
    }
    let mut key = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, link_id.as_bytes())
        .extract(&material)
        .expand(&[info], Length)
        .and_then(|output| output.fill(key.as_mut_slice()))
        .map_err(|_| NegotiationError::Agreement)?;
    Ok(key)
}
