//! Keys and revocations: how often the API is asked, and how long the node serves without an answer.

use super::ms;
use serde::{Deserialize, Serialize};
use skytale_proto::limits;
use std::time::Duration;

/// Maximum time for which a node may serve without the API: as long as a token that was given out before the API went
/// away can still be in force.
pub(super) const SERVE_WITHOUT_API_MAX: Duration =
    Duration::from_secs(limits::TOKEN_LIFETIME_MAX.as_secs() + 2 * limits::CLOCK_SKEW_MAX.as_secs());

/// Connection to the trusted API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrustConfig {
    /// Interval between requests for revocations, in milliseconds.
    pub revocations_every_ms: u64,
    /// Interval between fetches of the keys that verify tokens, in milliseconds; at most 3,660,000.
    pub keys_every_ms: u64,
    /// Minimum interval between fetches of the keys caused by tokens with an unknown key, in milliseconds, once the
    /// first few in a row have done so at once.
    pub keys_refetch_after_ms: u64,
    /// Time for which the node serves without an answer of the API on revocations, in milliseconds; then sessions end
    /// and no new one starts. By default [`limits::REVOCATION_WITHIN`] (30,000): a revoked key is out within that time
    /// in any case, and an API that is away for as long stops everybody. At most 3,660,000, as long as a token from
    /// before can be in force: then an API that is away stops nobody, and a key that is revoked meanwhile may be used
    /// for as long. `/readyz` remarks a value above the default.
    pub serve_without_api_ms: u64,
    /// Age of the last answer on revocations at which `/readyz` remarks it, in milliseconds: at most
    /// [`limits::REVOCATION_WITHIN`], within which a revocation is to have its effect.
    pub revocations_stale_after_ms: u64,
    /// Age of the keys at which `/readyz` remarks it, in milliseconds; at most 3,660,000, as long as a token can be in force.
    pub keys_stale_after_ms: u64,
    /// Interval between registrations of the node in the relay directory, in milliseconds.
    pub register_every_ms: u64,
    /// Maximum time for one request to the API, in milliseconds.
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
