//! Limits of accounts and addresses that were met lately: for the operator, who decides whether they fit.

use skytale_proto::Code;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Time for which a limit counts as met lately.
const LATELY: Duration = Duration::from_secs(60);

/// Limits, and the key that sets each.
const LIMITS: [(Code, &str); 6] = [
    (
        Code::AccountRateLimited,
        "account_frames_per_second, account_bytes_per_second or account_commits_per_minute",
    ),
    (Code::AccountConnections, "account_connections_max"),
    (Code::AccountStreams, "account_streams_max or account_watched_max"),
    (Code::AddressConnections, "address_connections_max"),
    (Code::AccountChannels, "account_channels_per_day"),
    (Code::AccountStored, "account_stored_bytes_max"),
];

/// Time at which each limit was met last.
#[derive(Debug)]
pub(crate) struct Limited {
    begun: Instant,
    /// Milliseconds since then; 0 is never.
    met_ms: [AtomicU64; LIMITS.len()],
}

impl Default for Limited {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            met_ms: Default::default(),
        }
    }
}

impl Limited {
    /// Notes that somebody was refused something with this code.
    pub(crate) fn note(&self, code: Option<Code>) {
        let now_ms = self.now_ms();
        for ((limit, _), met_ms) in LIMITS.iter().zip(&self.met_ms) {
            if code == Some(*limit) {
                met_ms.store(now_ms, Ordering::Relaxed);
            }
        }
    }

    /// Returns the remarks for the operator.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let since_ms = self
            .now_ms()
            .saturating_sub(u64::try_from(LATELY.as_millis()).unwrap_or(u64::MAX));
        let met = LIMITS.iter().zip(&self.met_ms).filter(|(_, met_ms)| {
            let met_ms = met_ms.load(Ordering::Relaxed);
            met_ms > 0 && met_ms >= since_ms
        });
        met.map(|((code, key), _)| format!("refused with {code} in the last minute: relay.limits.{key}"))
            .collect()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_limit_is_remarked_while_it_was_met_lately() {
        let limited = Limited::default();
        limited.note(Some(Code::RateLimited));
        limited.note(None);
        assert!(
            limited.remarks().is_empty(),
            "an agent's own rate is nobody else's matter"
        );
        limited.note(Some(Code::AccountStored));
        assert_eq!(
            limited.remarks(),
            ["refused with SKY-2023 in the last minute: relay.limits.account_stored_bytes_max"]
        );
        tokio::time::advance(2 * LATELY).await;
        assert!(limited.remarks().is_empty());
    }
}
