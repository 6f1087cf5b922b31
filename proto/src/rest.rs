//! The API's JSON: requests and answers that the API serves and that relay nodes and SDKs read.
//!
//! Errors are `application/problem+json` (RFC 9457), see [`Problem`].

use crate::{AccountId, AgentId, ChannelId, Code, EndpointId, KeyId};
use serde::{Deserialize, Serialize};

mod fleet;
mod name;
#[cfg(feature = "openapi")]
pub mod schema;

pub use fleet::{
    CreateEnrolment, CreatedEnrolment, ENROLMENT_KEY_PREFIX, Enrolment, Enrolments, Fleet, FleetRelay,
    HEARTBEAT_SHARDS_MAX, HTTPS_URL_BYTES_MAX, Heartbeat, HeartbeatTaken, REGISTRATION_CONTEXT, RELAY_ADDRESSES_MAX,
    RELAY_VERSION_BYTES_MAX, RelayLoad, RelayState, ShardLag, Twin, check_https_url, enrolment_of,
    registration_message,
};
pub use name::{ChannelName, NameError, OrgName};

/// Text before an API key.
pub const API_KEY_PREFIX: &str = "sk_live_";
/// The longest label, in characters.
pub const LABEL_CHARS_MAX: usize = 64;
/// Scopes of an API key for management, beside giving out tokens: list, make and revoke keys; end agents; read the
/// audit.
pub const KEY_SCOPES_MANAGEMENT: [&str; 3] = ["keys:write", "agents:write", "audit:read"];
/// Prefix of the bytes that an agent signs to prove that it holds its identity key: then follow the nonce's 32 bytes,
/// the agent id and the endpoint id.
pub const PROOF_CONTEXT: &[u8] = b"skytale token proof 1";

/// `POST /v1/nonce`: begins a proof of possession. With an API key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NonceRequest {
    /// The agent that will prove.
    pub agent: AgentId,
}

/// A nonce, to be used once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NonceResponse {
    /// 32 random bytes, hex.
    #[cfg_attr(feature = "openapi", schema(value_type = schema::NonceText))]
    pub nonce: String,
    /// Expiry, unix seconds.
    pub expires_s: u64,
}

/// `POST /v1/token`: asks for a token. With an API key and a signature over a nonce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The agent.
    pub agent: AgentId,
    /// The iroh endpoint that will present the token.
    pub endpoint: EndpointId,
    /// The nonce, as it was given.
    #[cfg_attr(feature = "openapi", schema(value_type = schema::NonceText))]
    pub nonce: String,
    /// Ed25519 signature by the agent, 64 bytes, hex. It is over 117 bytes: `skytale token proof 1` (ASCII), then the
    /// nonce, the agent id and the endpoint id, 32 bytes each.
    #[cfg_attr(feature = "openapi", schema(value_type = schema::SignatureText))]
    pub signature: String,
    /// Scopes wanted, as `relay:append` or `relay:append@<channel id>`; empty is all that the key may give.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = schema::TokenScopes))]
    pub scopes: Vec<String>,
    /// The region that the agent is in or nearest to: relay nodes of it are named first. Without, the API's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<u8>,
}

/// A token, and where to use it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenResponse {
    /// The JWT.
    pub token: String,
    /// Expiry, unix seconds.
    pub expires_s: u64,
    /// Relay nodes, nearest first, [`crate::limits::RELAYS_NAMED_MAX`] at most. It may be empty for a while (the API
    /// has just come back, say): an agent that knows some from before goes on with those.
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

/// A relay node, as the directory has it. Also the body of `PUT /v1/relays/{endpoint}` (with the relays' secret), by which a
/// node that is not enrolled is in the directory for seven days; an enrolled one sends a [`Heartbeat`] instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Relay {
    /// Its iroh endpoint.
    pub endpoint: EndpointId,
    /// Socket addresses (`ip:port`) under which it is reached.
    #[cfg_attr(feature = "openapi", schema(value_type = schema::RelayAddresses))]
    pub addresses: Vec<String>,
    /// Its region; 0 on a single node.
    #[serde(default)]
    pub region: u8,
    /// HTTPS address for agents whose network lets no UDP through: see [`check_https_url`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<schema::HttpsUrl>))]
    pub https_url: Option<String>,
}

/// `GET /v1/relays?region=&limit=`: the relay directory, nearest first. With an API key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Relays {
    /// Relay nodes.
    pub relays: Vec<Relay>,
    /// The account of the API key that asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
}

/// `GET /.well-known/jwks.json`: keys that verify tokens (RFC 7517, RFC 8037).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Jwks {
    /// The keys.
    pub keys: Vec<Jwk>,
}

/// One public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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

/// `GET /v1/revocations?after=N&agents_after=M&limit=L`: API keys revoked and agents ended, in order (with the relays'
/// secret): two feeds, each with sequence numbers of its own. A feed has more to give for as long as it gives something.
///
/// Entries leave a feed when every token that they end has ended by itself ([`crate::limits::REVOCATIONS_KEPT`]). If
/// the feed does not continue from a requested number, the answer asks to start over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Revocations {
    /// Those after the sequence number asked for.
    pub revocations: Vec<Revocation>,
    /// The sequence number to ask after next time.
    pub next: u64,
    /// Agents ended, after `agents_after=M`: a feed of its own.
    #[serde(default)]
    pub agents: Vec<AgentRevocation>,
    /// The sequence number to ask `agents_after` next time.
    #[serde(default)]
    pub agents_next: u64,
    /// The feed does not go on from the number asked after: entries after it have left, or there never was such a
    /// number (the database is another one). `revocations` begins with the first entry that there is; this page and
    /// those after it are the whole current set. Ask on after `next`, also if it is less than the requested number.
    #[serde(default)]
    pub start_over: bool,
    /// The same for `agents`, with `agents_next`.
    #[serde(default)]
    pub agents_start_over: bool,
}

/// One revocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Revocation {
    /// Its sequence number, from 1.
    pub sequence: u64,
    /// The API key whose tokens end.
    pub key: KeyId,
    /// Time of the revocation, unix seconds.
    pub revoked_s: u64,
}

/// One agent that was ended. It does not come back: its tokens and sessions end, and it gets no others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentRevocation {
    /// Its sequence number, from 1.
    pub sequence: u64,
    /// The agent whose tokens end.
    pub agent: AgentId,
    /// Time at which the account ended it, unix seconds.
    pub ended_s: u64,
}

/// `POST /v1/accounts`: makes an account. With the operator's secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateAccount {
    /// The first part of the account's channel names; no two accounts have the same.
    pub org: OrgName,
}

/// An account, with its first API key, which has every scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatedAccount {
    /// The account.
    pub account: AccountId,
    /// Its org.
    pub org: OrgName,
    /// Its first API key.
    pub key: CreatedKey,
}

/// `POST /v1/keys`: makes an API key. With an API key that has `keys:write`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// Name for people.
    #[cfg_attr(feature = "openapi", schema(value_type = schema::Label))]
    pub label: String,
    /// Its scopes: `keys:write`, `agents:write`, `audit:read`, and the token scopes that it may give out, as
    /// `relay:append` or `relay:append@<channel id>`. None that the key that makes it has not.
    #[cfg_attr(feature = "openapi", schema(value_type = schema::KeyScopes))]
    pub scopes: Vec<String>,
    /// Expiry, unix seconds, in the future; without, the key is valid until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<schema::Seconds>))]
    pub expires_s: Option<u64>,
}

/// A new API key, with its text. It is shown here and never again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatedKey {
    /// `sk_live_...`.
    pub secret: String,
    /// The key.
    pub key: Key,
}

impl std::fmt::Debug for CreatedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedKey")
            .field("secret", &"[redacted]")
            .field("key", &self.key)
            .finish()
    }
}

/// An API key, without its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Key {
    /// Its id, which is also in its text.
    pub id: KeyId,
    /// Name for people.
    #[cfg_attr(feature = "openapi", schema(value_type = schema::Label))]
    pub label: String,
    /// Its scopes.
    #[cfg_attr(feature = "openapi", schema(value_type = schema::KeyScopes))]
    pub scopes: Vec<String>,
    /// Time of creation, unix seconds.
    pub created_s: u64,
    /// Expiry, unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_s: Option<u64>,
    /// Time of revocation, unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_s: Option<u64>,
}

/// `GET /v1/keys?after=&limit=`: the account's API keys, by id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Keys {
    /// Those after the id asked for.
    pub keys: Vec<Key>,
    /// The id to ask after for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<KeyId>,
}

/// An agent of the account: bound to it by its first proof of possession.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Agent {
    /// The agent.
    pub id: AgentId,
    /// Time of its first proof, unix seconds.
    pub bound_s: u64,
    /// Time of its last token, unix seconds.
    pub seen_s: u64,
    /// Time at which the account ended it, unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_s: Option<u64>,
}

/// `GET /v1/agents?after=&limit=`: the account's agents, by id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Agents {
    /// Those after the id asked for.
    pub agents: Vec<Agent>,
    /// The id to ask after for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<AgentId>,
}

/// `POST /v1/channels`: gives a channel a name. With an API key that has `channels:create`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NameChannel {
    /// The name; its first part is the account's org.
    pub name: ChannelName,
    /// The channel.
    pub channel: ChannelId,
}

/// A channel's name. Names are a convenience of the API: a relay node never sees one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Channel {
    /// The name.
    pub name: ChannelName,
    /// The channel.
    pub channel: ChannelId,
    /// Time of creation, unix seconds.
    pub created_s: u64,
}

/// `GET /v1/channels?after=&limit=`: the account's channel names, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Channels {
    /// Those after the name asked for.
    pub channels: Vec<Channel>,
    /// The name to ask after for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<ChannelName>,
}

/// `GET /v1/audit?before=&limit=`: what was done in the account, the newest first. With `audit:read`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditPage {
    /// Those before the id asked for.
    pub events: Vec<AuditEvent>,
    /// The id to ask before for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<schema::EventId>))]
    pub next: Option<String>,
}

/// Something that was done, or refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditEvent {
    /// Its id: a UUIDv7, so that ids sort by time.
    #[cfg_attr(feature = "openapi", schema(value_type = schema::EventId))]
    pub id: String,
    /// Time, unix seconds.
    pub at_s: u64,
    /// Actor: `key:<id>`, `operator` or `relay`.
    pub actor: String,
    /// Action, as `key.create`, `token.issue` or `token.refuse`.
    pub action: String,
    /// On what, as `key:<id>` or `agent:<id>`.
    pub target: String,
    /// The request, as the `x-request-id` header of its answer had it.
    pub request: String,
    /// The code, where it was refused, as `SKY-4009`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Number of events that this row stands for. Tokens given to an agent with a key are one row a day (UTC), and so are
    /// refused proofs of a key with the same code; `at_s` is then the first, and target and request are the last one's.
    pub count: u64,
    /// Time of the last of them, unix seconds.
    pub last_at_s: u64,
}

/// An error (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// `urn:skytale:error:SKY-4001`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code's name.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// Explanation for people.
    pub detail: String,
    /// The code, as `SKY-4001`.
    pub code: String,
    /// Whether trying again can help.
    pub retryable: bool,
    /// Suggested fix.
    pub help: String,
}

impl Problem {
    /// A problem with a code and a sentence on the problem.
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

/// Returns the bytes that an agent signs to prove that it holds its identity key.
pub fn proof_message(nonce: &[u8; 32], agent: &AgentId, endpoint: &EndpointId) -> Vec<u8> {
    [PROOF_CONTEXT, nonce, agent.as_bytes(), endpoint.as_bytes()].concat()
}
