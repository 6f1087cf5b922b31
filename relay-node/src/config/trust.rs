//! Keys and revocations: how often the API is asked, and how long the node serves without an answer.

use super::ms;
use serde::{Deserialize, Serialize};
use skytale_proto::limits;
use std::time::Duration;

/// How long a node may serve without the API, at most: as long as a token that was given out before the API went away can still
/// be in force.
pub(super) const SERVE_WITHOUT_API_MAX: Duration =
    Duration::from_secs(limits::TOKEN_LIFETIME_MAX.as_secs() + 2 * limits::CLOCK_SKEW_MAX.as_secs());

/// How the node keeps up with the API that it trusts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrustConfig {
    /// How often revocations are asked for, in milliseconds.
    pub revocations_every_ms: u64,
    /// How often the keys that verify tokens are fetched, in milliseconds.
    pub keys_every_ms: u64,
    /// How often tokens with an unknown key may cause a fetch of the keys, in milliseconds, once the first few in a row have
    /// done so at once.
    pub keys_refetch_after_ms: u64,
    /// How long the node serves without an answer of the API on revocations, in milliseconds; then sessions end and no new one
    /// starts. By default [`limits::REVOCATION_WITHIN`] (30,000): a revoked key is out within that time whatever happens, and
    /// an API that is away for as long stops everybody. At most 3,660,000, as long as a token from before can be in force:
    /// then an API that is away stops nobody, and a key that is revoked meanwhile may be used for as long. `/readyz` remarks
    /// whatever is above the default.
    pub serve_without_api_ms: u64,
    /// How old the last answer on revocations may be before `/readyz` remarks it, in milliseconds: at most
    /// [`limits::REVOCATION_WITHIN`], within which a revocation is to have its effect.
    pub revocations_stale_after_ms: u64,
    /// How old the keys may be before `/readyz` remarks it, in milliseconds.
    pub keys_stale_after_ms: u64,
    /// How often the node registers in the relay directory, in milliseconds.
    pub register_every_ms: u64,
    /// How long one request to the API may take, in milliseconds.
    pub request_timeout_ms: u64,
}

impl Default for TrustConfig {
    fn default() -> Self {
        Self {
            revocations_every_ms: 5_000,
            keys_every_ms: 60_000,
            keys_refetch_after_ms: 5_000,
            serve_without_api_ms: ms(limits::REVOCATION_WITHIN),
            revocations_stale_after_ms: ms(limits::REVOCATION_WITHIN) / 2,
            keys_stale_after_ms: 600_000,
            register_every_ms: 30_000,
            request_timeout_ms: 5_000,
        }
    }
}
