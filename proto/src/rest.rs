//! The API's JSON: requests and answers that the API serves and that relay nodes and SDKs read.
//!
//! Errors are `application/problem+json` (RFC 9457), see [`Problem`].

use crate::{AgentId, Code, EndpointId, KeyId};
use serde::{Deserialize, Serialize};

/// Text before an API key.
pub const API_KEY_PREFIX: &str = "sk_live_";
/// What an agent signs to prove that it holds its identity key: this, then the nonce's 32 bytes, the agent id and the
/// endpoint id.
pub const PROOF_CONTEXT: &[u8] = b"skytale token proof 1";

/// `POST /v1/nonce`: begins a proof of possession. With an API key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NonceRequest {
    /// The agent that will prove.
    pub agent: AgentId,
}

/// A nonce, to be used once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NonceResponse {
    /// 32 random bytes, hex.
    pub nonce: String,
    /// When it ends, unix seconds.
    pub expires_s: u64,
}

/// `POST /v1/token`: asks for a token. With an API key and a signature over a nonce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The agent.
    pub agent: AgentId,
    /// The iroh endpoint that will present the token.
    pub endpoint: EndpointId,
    /// The nonce, as it was given.
    pub nonce: String,
    /// Ed25519 signature by the agent over [`proof_message`], 64 bytes, hex.
    pub signature: String,
    /// Scopes wanted ([`crate::token::Scope`] as text); empty is all that the key may give.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

/// A token, and where to use it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenResponse {
    /// The JWT.
    pub token: String,
    /// When it ends, unix seconds.
    pub expires_s: u64,
    /// Relay nodes, nearest first.
    pub relays: Vec<Relay>,
}

impl std::fmt::Debug for TokenResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenResponse")
            .field("token", &"[redacted]")
            .field("expires_s", &self.expires_s)
            .field("relays", &self.relays)
            .finish()
    }
}

/// A relay node, as the directory has it. Also the body of `PUT /v1/relays/{endpoint}` (with the relays' secret).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    /// Its iroh endpoint.
    pub endpoint: EndpointId,
    /// Socket addresses (`ip:port`) under which it is reached.
    pub addresses: Vec<String>,
    /// Its region; 0 on a single node.
    #[serde(default)]
    pub region: u8,
}

/// `GET /v1/relays`: the relay directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relays {
    /// Relay nodes.
    pub relays: Vec<Relay>,
}

/// `GET /.well-known/jwks.json`: keys that verify tokens (RFC 7517, RFC 8037).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwks {
    /// The keys.
    pub keys: Vec<Jwk>,
}

/// One public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    /// Key type: `OKP`.
    pub kty: String,
    /// Curve: `Ed25519`.
    pub crv: String,
    /// Algorithm: `EdDSA`.
    pub alg: String,
    /// Use: `sig`.
    #[serde(rename = "use")]
    pub use_: String,
    /// Key id.
    pub kid: String,
    /// The public key, base64url without padding.
    pub x: String,
}

/// `GET /v1/revocations?after=N`: API keys revoked, in order (with the relays' secret).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocations {
    /// Those after the sequence number asked for.
    pub revocations: Vec<Revocation>,
    /// The sequence number to ask after next time.
    pub next: u64,
}

/// One revocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Its sequence number, from 1.
    pub sequence: u64,
    /// The API key whose tokens end.
    pub key: KeyId,
    /// When, unix seconds.
    pub revoked_s: u64,
}

/// An error (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:skytale:error:SKY-4001`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code's name.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What was wrong.
    pub detail: String,
    /// The code, as `SKY-4001`.
    pub code: String,
    /// Whether trying again can help.
    pub retryable: bool,
    /// What to do.
    pub help: String,
}

impl Problem {
    /// A problem with a code and a sentence of what was wrong.
    pub fn new(code: Code, status: u16, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:skytale:error:{code}"),
            title: code.name().to_owned(),
            status,
            detail: detail.into(),
            code: code.to_string(),
            retryable: code.is_retryable(),
            help: code.help().to_owned(),
        }
    }

    /// The code, where this version knows it.
    pub fn known_code(&self) -> Option<Code> {
        Code::from_number(self.code.strip_prefix("SKY-")?.parse().ok()?)
    }
}

/// What an agent signs to prove that it holds its identity key.
pub fn proof_message(nonce: &[u8; 32], agent: &AgentId, endpoint: &EndpointId) -> Vec<u8> {
    [PROOF_CONTEXT, nonce, agent.as_bytes(), endpoint.as_bytes()].concat()
}
